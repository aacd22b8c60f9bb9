"""Any image of a line to grey pixels: files, bytes, arrays, Pillow's images; every mode and depth.

Nothing unreadable becomes a blank image: every fault raises `ImageError` with the image's name and what to do.
Letters: H rows, W columns, C channels.
"""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from khmer_ocr.dataset.images import MAX_PIXELS
from khmer_ocr.dataset.paths import MAX_FILE_BYTES
from khmer_ocr.errors import ImageError

ImageSource = str | os.PathLike[str] | bytes | bytearray | Image.Image | npt.NDArray[Any]
Grey = npt.NDArray[np.uint8]

# Formats that hold pixels. Pillow knows more, some of which start other programs (EPS).
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_FULL_SCALES = tuple((1 << bits) - 1 for bits in (8, 10, 12, 14, 16, 24, 32))
"""Of the depths that cameras and scanners write, whatever container holds them."""
_LEVELS_OF_INK = 10
"""Grey levels between the darkest and the lightest pixel below which nothing is written (noise of JPEG reaches 4)."""
_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
    MemoryError,
    OverflowError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def read_grey(source: ImageSource, name: str | None = None) -> Grey:
    """Read an image as 8-bit grey.

    Args:
        source: a file's path; a whole file as bytes; an image of Pillow; or an array (H, W), (H, W, 1), grey with alpha
            (H, W, 2), RGB (H, W, 3), RGBA (H, W, 4), of booleans, integers (8 bits, or up to 32 in any container) or
            floats (0 to 1, or as integers).
        name: what to call it in messages; None takes the path, or what it is.

    Returns:
        uint8 (H, W), upright as its EXIF data say, transparency laid on white. Deep pixels are scaled by the smallest
        usual depth that holds them: a 12-bit scan in 16 bits is not taken for a black page.

    Raises:
        ImageError: no such file, no image, damaged, cut short, without pixels, or larger than 67 million pixels.
    """
    if isinstance(source, np.ndarray):
        return _of_array(source, name or "the array")
    if isinstance(source, Image.Image):
        return _of_image(source, name or f"the image of mode {source.mode}")
    if isinstance(source, bytes | bytearray):
        return _of_bytes(bytes(source), name or f"{len(source)} bytes")
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            f"an image was given as {type(source).__name__}; wanted a path, bytes, a Pillow image or a numpy array"
        )
    path = Path(source)
    return _of_bytes(_read(path), name or str(path))


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise ImageError(f"{path} is a folder; wanted image files, for example {path}/*.png")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as fault:
        raise ImageError(f"{path} does not exist; wanted an image of a text line.") from fault
    except (OSError, ValueError) as fault:
        raise ImageError(f"{path} can't be read: {fault}.") from fault
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, more than any image of a text line.")
    return data


def _of_bytes(data: bytes, name: str) -> Grey:
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); wanted an image of a text line.")
    try:
        with warnings.catch_warnings():
            # Pillow warns of what is refused below, and of oddities in metadata that no pixel hangs on.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except _FAULTS as fault:
        raise ImageError(
            f"{name} is no image that can be read ({fault}); wanted {', '.join(FORMATS[:7])} or the like."
        ) from fault
    with image:
        return _of_image(image, name)


def _of_image(image: Image.Image, name: str) -> Grey:
    _check_size(image.width, image.height, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            return _to_grey(ImageOps.exif_transpose(image))
    except _FAULTS as fault:
        raise ImageError(f"{name} is damaged or cut short ({fault}). Make or copy the image again.") from fault


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width} x {height} px: it has no pixels.")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} claims {width} x {height} px, more than {MAX_PIXELS} pixels: no line of text, or a decompression "
            "bomb. Cut the line out of the page first."
        )


def _to_grey(image: Image.Image) -> Grey:
    if image.mode in ("L", "1") and "transparency" not in image.info:
        return np.array(image.convert("L"))
    if image.mode.startswith("I") or image.mode == "F":
        deep_HW = np.array(image)
        see_through = image.info.get("transparency")
        grey_HW = _scaled(deep_HW, image.mode)
        if isinstance(see_through, int):
            grey_HW[deep_HW == see_through] = 255
        return grey_HW
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        return _on_white(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB").convert("L"))


def _on_white(pixels_HW4: Grey) -> Grey:
    """RGBA on white paper; where all of it has the paper's colour, its shape is the ink."""
    layer = Image.fromarray(pixels_HW4)
    paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    grey_HW = np.array(Image.alpha_composite(paper, layer).convert("L"))
    return grey_HW if has_ink(grey_HW) else 255 - pixels_HW4[..., 3]


def _of_array(array: npt.NDArray[Any], name: str) -> Grey:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4):
        raise ImageError(f"{name} has the shape {array.shape}; wanted (H, W) or (H, W, C) with C of 1, 2, 3 or 4")
    _check_size(array.shape[1], array.shape[0], name)
    if array.dtype.kind not in "buif":
        raise ImageError(f"{name} holds {array.dtype}; wanted booleans, integers or floats")
    if array.ndim == 3 and channels == 1:
        array = array[..., 0]
    pixels = _scaled(array, name)
    if channels == 2:
        pixels = np.concatenate([np.repeat(pixels[..., :1], 3, 2), pixels[..., 1:]], 2)
    if channels in (2, 4):
        return _on_white(np.ascontiguousarray(pixels))
    if channels == 3:
        return np.array(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))
    return pixels


def _scaled(array: npt.NDArray[Any], name: str) -> Grey:
    """Numbers of any depth to 0..255, in memory of their own."""
    if array.dtype == np.uint8:
        return array.copy()
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError(f"{name} holds values that are no numbers (NaN or infinite). Replace them first.")
    highest = float(array.max())
    if array.dtype.kind == "f" and highest <= 1:
        scale = 1.0
    else:
        scale = next((float(full) for full in _FULL_SCALES if highest <= full), highest)
    return np.rint(np.clip(array.astype(np.float64), 0, scale) * (255 / scale)).astype(np.uint8)


def has_ink(pixels_HW: Grey) -> bool:
    """Tell whether anything at all stands out in an image."""
    return int(pixels_HW.max()) - int(pixels_HW.min()) >= _LEVELS_OF_INK

"""The one decoder of images, for data sets and for what is to be recognised: any mode and depth to 8-bit grey.

Data sets hold PNG alone and check it strictly first (`khmer_ocr.dataset.sample_decoding`); a file from anywhere
else may be of any format in `FORMATS` and have pixels that are not square, turned, or several frames.
Letters: H rows, W columns.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from khmer_ocr.dataset.file_signatures import what_it_is
from khmer_ocr.errors import ImageError

Grey = npt.NDArray[np.uint8]

MAX_PIXELS = 1 << 26
"""Larger than any line by a factor of a hundred; beyond it a header is a decompression bomb or damaged."""
# Formats that hold pixels. Pillow knows more, some of which start other programs (EPS).
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    struct.error,
    zlib.error,
    MemoryError,
    ArithmeticError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises on damaged files."""
_FULL_SCALES = tuple((1 << bits) - 1 for bits in (8, 10, 12, 14, 16, 24, 32))
"""Of the depths that cameras and scanners write, whatever container holds them."""
_LEVELS_OF_INK = 10
"""Grey levels between the darkest and the lightest pixel below which nothing is written (noise of JPEG reaches 4)."""
_X_RESOLUTION, _Y_RESOLUTION, _SUBFILE_TYPE, _ORIENTATION = 282, 283, 254, 0x0112
_TURNED = (5, 6, 7, 8)
"""Orientations in EXIF data at which width and height change places."""
_SQUARE_TO = 0.02
"""Resolutions that differ by less are those of square pixels, rounded."""
_STRETCH_MAX = 4.0
"""Beyond it, resolutions are not believed: fax knows 204 x 391 and 204 x 98 dpi."""


def has_ink(pixels_HW: Grey) -> bool:
    """Tell whether anything at all stands out in an image."""
    return int(pixels_HW.max()) - int(pixels_HW.min()) >= _LEVELS_OF_INK


def check_size(width: int, height: int, name: str) -> None:
    """Raise `ImageError` where an image has no pixels, or more than a line of text can have."""
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width} x {height} px: it has no pixels.")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} claims {width} x {height} px, more than {MAX_PIXELS} pixels: no line of text, or a decompression "
            "bomb. Cut the line out of the page first."
        )


def frame_count(data: bytes, name: str) -> int:
    """Count the pages of a TIFF, previews and masks that stand among them left out; 1 for every other format."""
    if not data.startswith((b"II", b"MM")):
        return 1
    with _opened(data, name) as image:
        return max(1, len(_pages(image, name))) if image.format == "TIFF" else 1


def file_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height in px that `decode_file` will give, its pixels unread."""
    with _opened(data, name) as image:
        _refuse_several(image, name)
        check_size(image.width, image.height, name)
        with _reading(name):
            width, height = _squared(image.width, image.height, pixel_aspect(image))
            turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
        return (height, width) if turned else (width, height)


def decode_file(data: bytes, name: str, page: int | None = None) -> Grey:
    """Decode a file of any format to upright 8-bit grey with square pixels.

    Args:
        data: the whole file.
        name: what to call it in messages.
        page: which page of a TIFF with several, from 1; None stands for the only one.

    Returns:
        uint8 (H, W), in memory of its own.

    Raises:
        ImageError: empty, no image, damaged, cut short, too large, or of several frames where one is expected.
    """
    with _opened(data, name) as image:
        if page is None:
            _refuse_several(image, name)
        elif pages := _pages(image, name):
            image.seek(pages[page - 1])
        return decode_image(image, name, from_file=True)


def decode_image(image: Image.Image, name: str, *, from_file: bool = False) -> Grey:
    """Decode an image of Pillow to upright 8-bit grey.

    Args:
        image: any mode.
        name: what to call it in messages.
        from_file: whether its resolutions are those of its pixels, so that they are set square; an image that a
            program has resized keeps the resolutions it had.

    Raises:
        ImageError: damaged, cut short, without pixels, or too large.
    """
    check_size(image.width, image.height, name)
    with _reading(name):
        image.load()
        stretch = pixel_aspect(image) if from_file else 1.0
        turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
        grey_HW = to_grey(ImageOps.exif_transpose(image))
    return grey_HW if stretch == 1.0 else _square(grey_HW, 1 / stretch if turned else stretch, name)


def pixel_aspect(image: Image.Image) -> float:
    """Height of a pixel over its width, by the resolutions that a TIFF, PNG or JPEG states; 1.0 if it states none."""
    info: dict[Any, Any] = image.info
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        found = (tags[_X_RESOLUTION], tags[_Y_RESOLUTION]) if _X_RESOLUTION in tags and _Y_RESOLUTION in tags else None
    elif image.format == "PNG":
        found = info.get("dpi") or info.get("aspect")
    elif image.format in ("JPEG", "MPO"):
        found = info.get("jfif_density")
    else:
        found = None
    if not isinstance(found, tuple) or len(found) != 2:
        return 1.0
    across, down = (float(each) for each in found)
    # A comparison with NaN is false.
    if not (0 < across < float("inf") and 0 < down < float("inf")) or not 1 / _STRETCH_MAX <= across / down <= 4:
        return 1.0
    return across / down if abs(across / down - 1) > _SQUARE_TO else 1.0


def _square(grey_HW: Grey, stretch: float, name: str) -> Grey:
    size = _squared(grey_HW.shape[1], grey_HW.shape[0], stretch)
    check_size(*size, name)
    return np.array(Image.fromarray(grey_HW).resize(size, Image.Resampling.BICUBIC))


def _squared(width: int, height: int, stretch: float) -> tuple[int, int]:
    """Size with the coarser axis scaled up, so that nothing is lost."""
    return (width, round(height * stretch)) if stretch > 1 else (round(width / stretch), height)


def to_grey(image: Image.Image) -> Grey:
    """Convert a loaded image of any mode to 8-bit grey.

    Args:
        image: any mode; transparency is laid on white. Deep pixels are scaled by the smallest usual depth that holds
            them: a 12-bit scan in 16 bits is not taken for a black page.

    Returns:
        uint8 (H, W), in memory of its own.
    """
    if image.mode in ("L", "1") and "transparency" not in image.info:
        return np.array(image.convert("L"))
    if image.mode.startswith("I") or image.mode == "F":
        deep_HW = np.array(image)
        see_through = image.info.get("transparency")
        grey_HW = to_8_bits(deep_HW, f"an image of mode {image.mode}")
        if isinstance(see_through, int):
            grey_HW[deep_HW == see_through] = 255
        return grey_HW
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        return on_white(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB").convert("L"))


def on_white(pixels_HW4: Grey) -> Grey:
    """RGBA on a white background; where all of it has the background's colour, its shape is the ink."""
    layer = Image.fromarray(pixels_HW4)
    background = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    grey_HW = np.array(Image.alpha_composite(background, layer).convert("L"))
    return grey_HW if has_ink(grey_HW) else 255 - pixels_HW4[..., 3]


def to_8_bits(array: npt.NDArray[Any], name: str) -> Grey:
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


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Say of what Pillow raises that the image is damaged, and pass over what it warns of."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FAULTS as fault:
        raise ImageError(f"{name} is damaged or cut short ({_said(fault)}). Make or copy the image again.") from fault


def _opened(data: bytes, name: str) -> Image.Image:
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); expected an image of a text line.")
    try:
        with warnings.catch_warnings():
            # Pillow warns of what is refused below, and of oddities in metadata that no pixel hangs on.
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except FAULTS as fault:
        raise ImageError(f"{name} {what_it_is(data) or _no_image(data, fault)}") from fault


def _no_image(data: bytes, fault: BaseException) -> str:
    # Of a file that no format claims, Pillow says an address in memory.
    why = "" if isinstance(fault, UnidentifiedImageError) else f" ({_said(fault)})"
    expected = f"expected {', '.join(FORMATS[:7])} or the like"
    return f"is no image that can be read{why}: it begins with {data[:8]!r}; {expected}."


def _said(fault: BaseException) -> str:
    return str(fault) or type(fault).__name__


def _frames(image: Image.Image) -> int:
    """Frames of an animation; a camera's JPEG with a preview (MPO) is one image."""
    if image.format == "MPO":
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return int(getattr(image, "n_frames", 1))
    except FAULTS:
        return 1  # cut short: decoding says so


def _pages(image: Image.Image, name: str) -> list[int]:
    """Frames of a TIFF that are pages: reduced previews (bit 0 of NewSubfileType) and masks (bit 2) are not."""
    pages = []
    with _reading(name):
        count = int(getattr(image, "n_frames", 1))
        for number in range(count if count > 1 else 0):
            image.seek(number)
            if not int(getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0)) & 0b101:
                pages.append(number)
        image.seek(0)
    return pages


def _refuse_several(image: Image.Image, name: str) -> None:
    frames = len(_pages(image, name)) if image.format == "TIFF" else _frames(image)
    if frames > 1 and image.format == "TIFF":
        raise ImageError(
            f"{name} holds {frames} pages, and one line is expected here. Give each page as a file of its own "
            "(tiffsplit does that); `khmer-ocr recognize` reads them all."
        )
    if frames > 1:
        what = f"an animated {image.format or ''} of {frames} frames"
        raise ImageError(f"{name} is {what}; one line is expected. Save the frame that shows it as PNG.")

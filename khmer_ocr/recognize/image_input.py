"""Any image of a line to grey pixels: files, pages of files, bytes, arrays, Pillow's images; every mode and depth.

Nothing unreadable becomes a blank image: every fault raises `ImageError` with the image's name and what to do.
Letters: H rows, W columns, C channels.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from khmer_ocr.dataset.image_io import (
    Grey,
    check_size,
    decode_file,
    decode_image,
    frame_count,
    has_ink,
    on_white,
    to_8_bits,
)
from khmer_ocr.dataset.paths import MAX_FILE_BYTES
from khmer_ocr.errors import ImageError

__all__ = ["Grey", "ImageSource", "Page", "has_ink", "pages_of", "read_grey"]


@dataclass(frozen=True)
class Page:
    """One page of a TIFF file that holds several, a line each.

    Attributes:
        path: the file.
        number: from 1.
    """

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}#{self.number}"


ImageSource = str | os.PathLike[str] | Page | bytes | bytearray | Image.Image | npt.NDArray[Any]


def read_grey(source: ImageSource, name: str | None = None) -> Grey:
    """Read an image as 8-bit grey.

    Args:
        source: a file's path; a page of a file; a whole file as bytes; an image of Pillow; or an array (H, W),
            (H, W, 1), grey with alpha (H, W, 2), RGB (H, W, 3), RGBA (H, W, 4), of booleans, integers (8 bits, or up to
            32 in any container) or floats (0 to 1, or as integers).
        name: what to call it in messages; None takes the path, or what it is.

    Returns:
        uint8 (H, W), upright as its EXIF data say, transparency laid on white, pixels set square where a file says that
        they are not. Deep pixels are scaled by the smallest usual depth that holds them: a 12-bit scan in 16 bits is
        not taken for a black page.

    Raises:
        ImageError: no such file, no image, damaged, cut short, without pixels, of several pages or frames, or larger
            than 67 million pixels.
    """
    if isinstance(source, np.ndarray):
        return _of_array(source, name or "the array")
    if isinstance(source, Image.Image):
        return decode_image(source, name or f"the image of mode {source.mode}")
    if isinstance(source, bytes | bytearray):
        return decode_file(bytes(source), name or f"{len(source)} bytes")
    if isinstance(source, Page):
        return decode_file(_read(source.path), name or str(source), source.number)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            f"an image was given as {type(source).__name__}; expected a path, bytes, a Pillow image or a numpy array"
        )
    path = Path(source)
    return decode_file(_read(path), name or str(path))


def pages_of(path: Path) -> list[Path | Page]:
    """Part a TIFF file of several pages into these; any other file, one that can't be read too, is one image."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return [path]
        with path.open("rb") as file:
            if file.read(2) not in (b"II", b"MM"):
                return [path]
        count = frame_count(_read(path), str(path))
    except (OSError, ValueError):  # an ImageError is a ValueError; reading the image says what is wrong with it
        return [path]
    return [path] if count == 1 else [Page(path, number + 1) for number in range(count)]


def _read(path: Path) -> bytes:
    """Read a whole file; a pipe without a writer is empty and does not stop the others."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            kind = os.fstat(file.fileno()).st_mode
            if stat.S_ISDIR(kind):
                raise IsADirectoryError
            os.set_blocking(file.fileno(), True)
            data = file.read(MAX_FILE_BYTES + 1)
    except IsADirectoryError as fault:
        raise ImageError(f"{path} is a folder; expected image files, for example {path}/*.png") from fault
    except FileNotFoundError as fault:
        raise ImageError(f"{path} does not exist; expected an image of a text line.") from fault
    except OSError as fault:
        raise ImageError(f"{path} can't be read: {fault.strerror or fault}.") from fault
    except ValueError as fault:  # a NUL in the name
        raise ImageError(f"{str(path)!r} can't be read: {fault}.") from fault
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, more than any image of a text line.")
    return data


def _of_array(array: npt.NDArray[Any], name: str) -> Grey:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4):
        raise ImageError(f"{name} has the shape {array.shape}; expected (H, W) or (H, W, C) with C of 1, 2, 3 or 4")
    check_size(array.shape[1], array.shape[0], name)
    if array.dtype.kind not in "buif":
        raise ImageError(f"{name} holds {array.dtype}; expected booleans, integers or floats")
    if array.ndim == 3 and channels == 1:
        array = array[..., 0]
    pixels = to_8_bits(array, name)
    if channels == 2:
        pixels = np.concatenate([np.repeat(pixels[..., :1], 3, 2), pixels[..., 1:]], 2)
    if channels in (2, 4):
        return on_white(np.ascontiguousarray(pixels))
    if channels == 3:
        return np.array(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))
    return pixels

"""What lies on disk: bytes of images and labels to grey pixels and text.

Nothing unreadable becomes a blank image: every fault raises `DatasetError` with the file and what is wrong with it.
Letters: H rows, W columns.
"""

import codecs
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash
from PIL import Image

from khmer_ocr.dataset import image_io
from khmer_ocr.errors import DatasetError, ImageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER_BYTES = 33
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
GREY_8_BIT = bytes([8, 0])
_CHUNK_FRAME_BYTES = 12


def decode_label(data: bytes, name: str | Path, *, outside: bool = False) -> str:
    """Decode a label file.

    Args:
        data: the whole file: UTF-8, one line end at its end tolerated.
        name: what to call it in messages.
        outside: whether others wrote it: UTF-16 with its mark is then read too.

    Raises:
        DatasetError: it is no such text.
    """
    encoding = "utf-16" if outside and data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8"
    try:
        return data.decode(encoding).removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as fault:
        raise DatasetError(
            f"{name} is not {encoding.upper()} ({fault.reason} at byte {fault.start}). Save it as UTF-8 text."
        ) from fault


def png_size(data: bytes, name: str | Path) -> tuple[int, int]:
    """Read width and height in pixels from the first `PNG_HEADER_BYTES` bytes of a PNG."""
    if not data:
        raise DatasetError(f"{name} is empty (0 bytes).")
    if not data.startswith(PNG_SIGNATURE[: len(data)]):
        raise DatasetError(f"{name} is not a PNG: it begins with {data[:8]!r}.")
    if len(data) < PNG_HEADER_BYTES:
        raise DatasetError(f"{name} is cut short: {len(data)} bytes do not hold a PNG header.")
    length, kind, width, height = struct.unpack_from(">I4sII", data, len(PNG_SIGNATURE))
    if length != 13 or kind != b"IHDR" or not width or not height:
        raise DatasetError(f"{name} has a damaged PNG header.")
    if width * height > image_io.MAX_PIXELS:
        raise DatasetError(
            f"{name} claims {width} x {height} px, more than {image_io.MAX_PIXELS} pixels: damaged or hostile."
        )
    return width, height


def png_chunks(data: bytes, name: str | Path) -> list[tuple[bytes, memoryview]]:
    """Walk the chunks of a PNG to its end and check every CRC, which Pillow leaves out for the pixel data.

    Source: PNG specification, third edition, section 5.3.

    Args:
        data: a whole file with a PNG signature.
        name: what to call it in messages.

    Returns:
        Kind and body of each chunk before the last.

    Raises:
        DatasetError: a chunk fails its CRC, or the file ends before its last one.
    """
    chunks, at, view = list[tuple[bytes, memoryview]](), len(PNG_SIGNATURE), memoryview(data)
    while at + _CHUNK_FRAME_BYTES <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + _CHUNK_FRAME_BYTES + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise DatasetError(f"{name} is damaged: its PNG chunk {kind!r} at byte {at} fails its CRC.")
        if kind == b"IEND":
            return chunks
        chunks.append((kind, view[at + 8 : end - 4]))
        at = end
    raise DatasetError(f"{name} is cut short: {len(data)} bytes, and its PNG does not end there.")


def is_plain_grey(data: bytes) -> bool:
    """Whether this is a PNG, its header whole, of 8-bit grey without transparency: every decoder sees the same."""
    return data[24:26] == GREY_8_BIT and data.startswith(PNG_SIGNATURE) and b"tRNS" not in data


def image_size(head: bytes, name: str | Path, whole: Callable[[], bytes]) -> tuple[int, int]:
    """Read width and height in pixels of an image of any format of data sets.

    Args:
        head: its first `PNG_HEADER_BYTES` bytes.
        name: what to call it in messages.
        whole: gives all of it; asked only where it is no PNG.

    Raises:
        DatasetError: it is of no known format, has a damaged header, or holds several images.
    """
    if PNG_SIGNATURE.startswith(head[: len(PNG_SIGNATURE)]):
        return png_size(head, name)
    try:
        return image_io.file_size(whole(), str(name))
    except ImageError as fault:
        raise DatasetError(str(fault)) from fault


def _scanlines(data: bytes, name: str | Path) -> npt.NDArray[np.uint8] | None:
    """Inflate the rows of a PNG, one filter byte before each; None for an interlaced one.

    Pillow fills rows that are missing in the stream with black and says nothing, hence the exact count here.
    """
    width, height = png_size(data, name)
    depth, colour_type, interlaced = data[24], data[25], data[28]
    stream = b"".join(body for kind, body in png_chunks(data, name) if kind == b"IDAT")
    if interlaced or colour_type not in PNG_CHANNELS:
        return None
    row_bytes = 1 + -(-width * depth * PNG_CHANNELS[colour_type] // 8)
    inflate = zlib.decompressobj()
    try:
        rows = inflate.decompress(stream, row_bytes * height + 1)
    except zlib.error as fault:
        raise DatasetError(f"{name} does not decode: {fault}.") from fault
    if len(rows) != row_bytes * height or not inflate.eof:
        raise DatasetError(f"{name} does not decode: its pixel data are not {height} rows of {row_bytes} bytes.")
    return np.frombuffer(rows, np.uint8).reshape(height, row_bytes)


def decode_image(data: bytes, name: str | Path) -> npt.NDArray[np.uint8]:
    """Decode a stored image to 8-bit grey pixels.

    Args:
        data: the whole file: a PNG of any mode, its pixels as they are; or another format that holds pixels, upright
            and square as it says. Transparency is laid on white.
        name: what to call it in messages.

    Returns:
        uint8 array (H, W), 255 is white; writable and contiguous.

    Raises:
        DatasetError: the bytes are not one whole undamaged image of a believable size.
    """
    if not PNG_SIGNATURE.startswith(data[: len(PNG_SIGNATURE)]):
        try:
            return image_io.decode_file(data, str(name))
        except ImageError as fault:
            raise DatasetError(str(fault)) from fault
    rows = _scanlines(data, name)
    if rows is not None and data[24:26] == GREY_8_BIT and b"tRNS" not in data and not rows[:, 0].any():
        return rows[:, 1:].copy()  # filter 0 throughout, as this project writes it: nothing is left to undo
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.load()
            return image_io.to_grey(image)
    except image_io.FAULTS as fault:
        raise DatasetError(f"{name} does not decode: {fault}.") from fault


def pixel_hash(pixels_HW: npt.NDArray[np.uint8]) -> str:
    """Hash decoded pixels, row by row without padding: XXH3-64, 16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(pixels_HW).data)

"""What can be checked of a PNG without decoding it."""

import struct
import zlib
from pathlib import Path

from khmer_ocr.dataset.images import GREY_8_BIT, PNG_SIGNATURE
from khmer_ocr.errors import DatasetError

_CHUNK_FRAME_BYTES = 12


def check_crcs(data: bytes, name: str | Path) -> None:
    """Walk the chunks of a PNG to its end.

    Args:
        data: a whole file with a PNG signature.
        name: what to call it in messages.

    Raises:
        DatasetError: a chunk fails its CRC, or the file ends before its last one.
    """
    at, view = len(PNG_SIGNATURE), memoryview(data)
    while at + _CHUNK_FRAME_BYTES <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + _CHUNK_FRAME_BYTES + length
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise DatasetError(f"{name} is damaged: its PNG chunk {kind!r} at byte {at} fails its CRC.")
        if kind == b"IEND":
            return
        at = end
    raise DatasetError(f"{name} is cut short: {len(data)} bytes, and its PNG does not end there.")


def is_plain_grey(data: bytes) -> bool:
    """Whether a PNG with a whole header is 8-bit grey without transparency, so that every decoder sees the same."""
    return data[24:26] == GREY_8_BIT and b"tRNS" not in data

"""8-bit grey PNG: our own container around ISA-L's deflate.

Filter 0 on every row is both smallest and fastest for text lines (PNG specification, third edition, chapter 9 lets an
encoder choose). A stored image's bytes depend on the compressor's version, so data sets hash its pixels as well.

Letters: B lines, N pixels.
"""

import struct
import zlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from khmer_ocr_kernels.jit import compiled

from khmer_ocr.errors import ConfigError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IEND = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
_IDAT_CRC = zlib.crc32(b"IDAT")
LEVELS = (0, 1, 2, 3)


@lru_cache(maxsize=8192)
def _header(width_px: int, height_px: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width_px, height_px, 8, 0, 0, 0, 0)
    return _SIGNATURE + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@compiled
def _with_filter_bytes(
    pixels_N: npt.NDArray[np.uint8], offsets_B1: npt.NDArray[np.int64], width_B: npt.NDArray[np.int32], height: int
) -> npt.NDArray[np.uint8]:
    rows_N = np.empty(len(pixels_N) + len(width_B) * height, np.uint8)
    out = np.int64(0)
    for b in range(len(width_B)):
        source, width = offsets_B1[b], np.int64(width_B[b])
        for _ in range(height):
            rows_N[out] = 0
            rows_N[out + 1 : out + 1 + width] = pixels_N[source : source + width]
            source += width
            out += width + 1
    return rows_N


def encode_lines(
    pixels_N: npt.NDArray[np.uint8],
    offsets_B1: npt.NDArray[np.int64],
    width_B: npt.NDArray[np.int32],
    height_px: int,
    level: int = 1,
) -> list[bytes]:
    """Encode ragged lines.

    Args:
        pixels_N: uint8 pixels of all lines.
        offsets_B1: int64 beginning of each line, and the end.
        width_B: int32 widths in px.
        height_px: height of every line.
        level: ISA-L level, 0 (fastest) to 3 (smallest).

    Returns:
        One PNG file each.

    Raises:
        ConfigError: level out of range.
    """
    if level not in LEVELS:
        raise ConfigError(f"png level is {level}; wanted one of {LEVELS}")
    rows = memoryview(_with_filter_bytes(pixels_N, offsets_B1, width_B, height_px).data)
    files, begin = [], 0
    for width in width_B.tolist():
        end = begin + (width + 1) * height_px
        packed = isal_zlib.compress(rows[begin:end], level)
        begin = end
        crc = isal_zlib.crc32(packed, _IDAT_CRC)
        length = len(packed).to_bytes(4, "big")
        files.append(b"".join((_header(width, height_px), length, b"IDAT", packed, crc.to_bytes(4, "big"), _IEND)))
    return files

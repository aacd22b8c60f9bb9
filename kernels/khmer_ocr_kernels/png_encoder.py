"""8-bit grey PNG files of text lines, a batch in one compiled call.

Filter type 0 on every row: on text lines it is both smallest and fastest. Format: PNG specification, third edition;
CRC-32 by eight tables at once (Kounavis and Berry, "A systematic approach to building high performance, software-based,
CRC generators", 2005).

Letters: B lines, N pixels, M bytes of files.
"""

import numpy as np

from khmer_ocr_kernels.arrays import I32, I64, U8, U32
from khmer_ocr_kernels.deflate import PADDING, deflate, most_bytes
from khmer_ocr_kernels.jit import compiled
from khmer_ocr_kernels.numba_intrinsics import load_u64
from khmer_ocr_kernels.ragged import RaggedLines

ENCODING_VERSION = 1
"""Raised when a change here changes the bytes of a file."""

_FRAME = np.frombuffer(
    b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + bytes(8) + b"\x08\0\0\0\0" + bytes(8) + b"IDAT", np.uint8
)
_END = np.frombuffer(b"\0\0\0\0IEND\xaeB`\x82", np.uint8)
_FRAME_BYTES = len(_FRAME) + 4 + len(_END)  # 4 for the CRC of the data


def _crc_tables() -> U32:
    tables = np.zeros((8, 256), np.uint32)
    tables[0] = np.arange(256)
    for _ in range(8):
        tables[0] = tables[0] >> 1 ^ np.where(tables[0] & 1, 0xEDB88320, 0).astype(np.uint32)
    for n in range(1, 8):
        tables[n] = tables[n - 1] >> 8 ^ tables[0][tables[n - 1] & 255]
    return tables


_CRC = _crc_tables()


@compiled
def crc32(data: U8, begin: int, end: int) -> np.uint32:
    """CRC-32 of data[begin:end]."""
    crc, at, byte = np.uint64(0xFFFFFFFF), begin, np.uint64(255)
    while at + 8 <= end:
        word = load_u64(data, at) ^ crc
        low = _CRC[7, word & byte] ^ _CRC[6, word >> 8 & byte] ^ _CRC[5, word >> 16 & byte]
        middle = _CRC[4, word >> 24 & byte] ^ _CRC[3, word >> 32 & byte] ^ _CRC[2, word >> 40 & byte]
        crc = np.uint64(low ^ middle ^ _CRC[1, word >> 48 & byte] ^ _CRC[0, word >> 56])
        at += 8
    for i in range(at, end):
        crc = crc >> np.uint64(8) ^ np.uint64(_CRC[0, (crc ^ np.uint64(data[i])) & byte])
    return np.uint32(crc ^ np.uint64(0xFFFFFFFF))


@compiled
def _put_u32(out: U8, at: int, value: int) -> None:
    for i in range(4):
        out[at + i] = value >> 24 - 8 * i & 255


def encode(lines: RaggedLines) -> tuple[U8, I64]:
    """Encode lines, at least 1 px wide.

    Returns:
        uint8 files one after another (M), and int64 places where each begins, with the end (B + 1).
    """
    return _encode(lines.pixels_N, lines.offsets_B1, lines.width_B, lines.height_px)


@compiled
def _encode(pixels_N: U8, offsets_B1: I64, width_B: I32, height: int) -> tuple[U8, I64]:
    most, widest = 0, 0
    for width in width_B:
        most += most_bytes((int(width) + 1) * height) + _FRAME_BYTES
        widest = max(widest, int(width))
    out_M = np.empty(most, np.uint8)
    begins_B1 = np.zeros(len(width_B) + 1, np.int64)
    rows = np.empty((widest + 1) * height + PADDING, np.uint8)
    for b in range(len(width_B)):
        source, width = offsets_B1[b], int(width_B[b])
        for y in range(height):
            begin = y * (width + 1)
            rows[begin] = 0
            rows[begin + 1 : begin + 1 + width] = pixels_N[source + y * width : source + (y + 1) * width]
        file = int(begins_B1[b])
        data = file + len(_FRAME)
        out_M[file:data] = _FRAME
        _put_u32(out_M, file + 16, width)
        _put_u32(out_M, file + 20, height)
        _put_u32(out_M, file + 29, int(crc32(out_M, file + 12, file + 29)))
        end = deflate(rows, 0, (width + 1) * height, width + 1, out_M, data)
        _put_u32(out_M, file + 33, end - data)
        _put_u32(out_M, end, int(crc32(out_M, data - 4, end)))
        out_M[end + 4 : end + 4 + len(_END)] = _END
        begins_B1[b + 1] = end + 4 + len(_END)
    return out_M[: begins_B1[-1]], begins_B1

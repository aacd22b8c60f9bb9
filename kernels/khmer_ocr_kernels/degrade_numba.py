"""`degrade_reference.degrade`, compiled for the CPU.

A line is degraded in one go, while its pixels are in the nearest cache, and what it does not ask for costs nothing.
Rows are copied into padded scratch first, so that the inner loops have no edges and the compiler can take 8 to 64
pixels at a time; 32-bit types are spelled out because numba would count in 64 bits.

Letters: B lines, N pixels, K taps. Measured by benchmarks/bench_kernels.py.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from khmer_ocr_kernels.arrays import I16, I32, I64, U8, U16, U32
from khmer_ocr_kernels.degrade_reference import NOISE_SALT, PIXELS_PER_DRAW
from khmer_ocr_kernels.jit import compiled
from khmer_ocr_kernels.lookup_tables import MAX_RADIUS, NORMAL_BITS, TAP_BITS, gaussian_taps, normal_quantiles
from khmer_ocr_kernels.ragged import RaggedLines
from khmer_ocr_kernels.reference import BACKGROUND

_PAD = MAX_RADIUS + 1  # columns and rows of no ink around a line; one more than the radius, as taps go in pairs
_DRAWS = 64  # Philox calls at a time
_DROP_H, _DROP_V = TAP_BITS - 8, TAP_BITS + 8  # sums along rows keep 8 bits of fraction
_DROP_NOISE = NORMAL_BITS + 4
_MUL_0, _MUL_1, _HALF = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57), np.uint64(32)
_WEYL_0, _WEYL_1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)


class _Scratch(NamedTuple):
    """Memory that the lines of a batch use one after another; nothing is read that the same line did not write."""

    blank: U8  # one row of background
    column: U8  # one row of extremes of three pixels above each other, one pixel of background on either side
    ink: I16  # one row, _PAD on either side
    sums: I32  # one row
    kept: U16  # sums along the rows of a line, _PAD rows above and below
    words: U32
    grey_of_byte: I16
    grey: I16


def _scratch(width: int, height: int) -> _Scratch:
    return _Scratch(
        blank=np.empty(width, np.uint8),
        column=np.empty(width + 2, np.uint8),
        ink=np.empty(width + 2 * _PAD, np.int16),
        sums=np.empty(width, np.int32),
        kept=np.empty((height + 2 * _PAD) * width, np.uint16),
        words=np.empty(4 * _DRAWS, np.uint32),
        grey_of_byte=np.empty(256, np.int16),
        grey=np.empty(PIXELS_PER_DRAW * _DRAWS, np.int16),
    )


@compiled
def _morph(source: U8, target: U8, width: int, height: int, weight256: int, scratch: _Scratch) -> None:
    # A maximum is a minimum of the reversed greys; what is background outside is then 0.
    flip = np.uint8(0) if weight256 > 0 else np.uint8(BACKGROUND)
    weight, rest = np.uint16(abs(weight256)), np.uint16(256 - abs(weight256))
    blank = scratch.blank[:width]
    blank[:] = BACKGROUND
    scratch.column[0] = scratch.column[width + 1] = np.uint8(BACKGROUND) ^ flip
    left, middle, right = scratch.column[:width], scratch.column[1 : width + 1], scratch.column[2 : width + 2]
    for y in range(height):
        begin, end = y * width, (y + 1) * width
        row, augmented = source[begin:end], target[begin:end]
        above = source[begin - width : begin] if y > 0 else blank
        below = source[end : end + width] if y + 1 < height else blank
        for x in range(width):
            a, b, c = above[x] ^ flip, row[x] ^ flip, below[x] ^ flip
            least = a if a < b else b
            middle[x] = least if least < c else c
        for x in range(width):
            a, b, c = left[x], middle[x], right[x]
            least = a if a < b else b
            least = (least if least < c else c) ^ flip
            mixed = np.uint16(np.uint16(row[x]) * rest + np.uint16(least) * weight + np.uint16(128))
            augmented[x] = np.uint8(mixed >> np.uint16(8))


@compiled
def _add_two_taps(
    sums: I32,
    near: tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]],
    near_tap: np.int32,
    far: tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]],
    far_tap: np.int32,
) -> None:
    (a, b), (c, d) = near, far
    for x in range(len(sums)):
        two = (np.int32(a[x]) + np.int32(b[x])) * near_tap + (np.int32(c[x]) + np.int32(d[x])) * far_tap
        sums[x] = np.int32(sums[x] + two)


@compiled
def _sum_rows(source: U8, width: int, height: int, taps_K: I32, radius: int, scratch: _Scratch) -> None:
    ink, sums, kept = scratch.ink[: width + 2 * _PAD], scratch.sums[:width], scratch.kept
    ink[:_PAD] = 0
    ink[width + _PAD :] = 0
    middle, tap = ink[_PAD : width + _PAD], taps_K[0]
    for y in range(height):
        row, out = source[y * width : (y + 1) * width], kept[(y + _PAD) * width : (y + _PAD + 1) * width]
        for x in range(width):
            middle[x] = np.int16(BACKGROUND) - np.int16(row[x])
            sums[x] = np.int32(np.int32(middle[x]) * tap + np.int32(1 << (_DROP_H - 1)))
        for k in range(1, radius + 1, 2):
            near, far = (ink[_PAD - k :], ink[_PAD + k :]), (ink[_PAD - k - 1 :], ink[_PAD + k + 1 :])
            _add_two_taps(sums, near, taps_K[k], far, taps_K[k + 1])
        for x in range(width):
            out[x] = np.uint16(np.uint32(sums[x]) >> np.uint32(_DROP_H))


@compiled
def _sum_columns(target: U8, width: int, height: int, taps_K: I32, radius: int, scratch: _Scratch) -> None:
    sums, kept, tap = scratch.sums[:width], scratch.kept, taps_K[0]
    kept[: _PAD * width] = 0
    kept[(height + _PAD) * width : (height + 2 * _PAD) * width] = 0
    for y in range(height):
        at, augmented = (y + _PAD) * width, target[y * width : (y + 1) * width]
        row = kept[at : at + width]
        for x in range(width):
            sums[x] = np.int32(np.int32(row[x]) * tap + np.int32(1 << (_DROP_V - 1)))
        for k in range(1, radius + 1, 2):
            near = kept[at - k * width :], kept[at + k * width :]
            far = kept[at - (k + 1) * width :], kept[at + (k + 1) * width :]
            _add_two_taps(sums, near, taps_K[k], far, taps_K[k + 1])
        for x in range(width):
            augmented[x] = np.uint8(np.int32(BACKGROUND) - (sums[x] >> np.int32(_DROP_V)))


@compiled
def _draw(first: int, count: int, key_0: np.uint32, key_1: np.uint32, words: U32) -> None:
    """Philox4x32-10 of the counters (first + i, NOISE_SALT, 0, 0); the compiler does several at a time."""
    for i in range(count):
        c0, c1, c2, c3 = np.uint32(first + i), np.uint32(NOISE_SALT), np.uint32(0), np.uint32(0)
        k0, k1 = key_0, key_1
        for _ in range(10):
            product_0, product_1 = np.uint64(c0) * _MUL_0, np.uint64(c2) * _MUL_1
            c0, c1 = np.uint32(product_1 >> _HALF) ^ c1 ^ k0, np.uint32(product_1)
            c2, c3 = np.uint32(product_0 >> _HALF) ^ c3 ^ k1, np.uint32(product_0)
            k0, k1 = np.uint32(k0 + _WEYL_0), np.uint32(k1 + _WEYL_1)
        words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3] = c0, c1, c2, c3


@compiled
def _add_noise(source: U8, target: U8, deviation16: np.int32, key_2: U32, quantiles: I32, scratch: _Scratch) -> None:
    grey_of_byte, words, grey = scratch.grey_of_byte, scratch.words, scratch.grey
    byte = np.uint32(255)
    for n in range(256):
        product = np.int32(quantiles[n] * deviation16 + np.int32(1 << (_DROP_NOISE - 1)))
        grey_of_byte[n] = np.int16(product >> np.int32(_DROP_NOISE))
    for begin in range(0, len(source), PIXELS_PER_DRAW * _DRAWS):
        end = min(begin + PIXELS_PER_DRAW * _DRAWS, len(source))
        draws = (end - begin + PIXELS_PER_DRAW - 1) // PIXELS_PER_DRAW
        _draw(begin // PIXELS_PER_DRAW, draws, key_2[0], key_2[1], words)
        for i in range(4 * draws):
            word = words[i]
            grey[4 * i] = grey_of_byte[word & byte]
            grey[4 * i + 1] = grey_of_byte[word >> np.uint32(8) & byte]
            grey[4 * i + 2] = grey_of_byte[word >> np.uint32(16) & byte]
            grey[4 * i + 3] = grey_of_byte[word >> np.uint32(24)]
        before, augmented = source[begin:end], target[begin:end]
        # Two loops, as source and target may be one: a single loop would then go pixel by pixel.
        for n in range(len(before)):
            value = np.int16(np.int16(before[n]) + grey[n])
            value = value if value > np.int16(0) else np.int16(0)
            grey[n] = value if value < np.int16(BACKGROUND) else np.int16(BACKGROUND)
        for n in range(len(augmented)):
            augmented[n] = np.uint8(grey[n])


@compiled
def _degrade_lines(
    pixels_N: U8,
    offsets_B1: I64,
    width_B: I32,
    height: int,
    morph_B: I32,
    sigma32_B: I32,
    noise16_B: I32,
    key_B2: U32,
    taps_SK: I32,
    quantiles: I32,
    scratch: _Scratch,
    augmented_N: U8,
) -> None:
    for b in range(len(width_B)):
        width, sigma32 = int(width_B[b]), int(sigma32_B[b])
        source, augmented = pixels_N[offsets_B1[b] : offsets_B1[b + 1]], augmented_N[offsets_B1[b] : offsets_B1[b + 1]]
        latest = source
        if morph_B[b]:
            _morph(latest, augmented, width, height, int(morph_B[b]), scratch)
            latest = augmented
        if sigma32:
            radius = (3 * sigma32 + 31) // 32
            _sum_rows(latest, width, height, taps_SK[sigma32], radius, scratch)
            _sum_columns(augmented, width, height, taps_SK[sigma32], radius, scratch)
            latest = augmented
        if noise16_B[b]:
            _add_noise(latest, augmented, noise16_B[b], key_B2[b], quantiles, scratch)
        elif not morph_B[b] and not sigma32:
            for n in range(len(source)):  # `augmented[:] = source` copies byte by byte
                augmented[n] = source[n]


def degrade(lines: RaggedLines, morph_B: I32, sigma32_B: I32, noise16_B: I32, key_B2: U32) -> RaggedLines:
    """Degrade lines; see `degrade_reference.degrade`. `khmer_ocr_kernels.degrade` has checked the parameters."""
    augmented_N = np.empty(len(lines.pixels_N), np.uint8)
    scratch = _scratch(int(lines.width_B.max(initial=0)), lines.height_px)
    layout = (lines.pixels_N, lines.offsets_B1, lines.width_B, lines.height_px)
    tables = gaussian_taps(), normal_quantiles()
    _degrade_lines(*layout, morph_B, sigma32_B, noise16_B, key_B2, *tables, scratch, augmented_N)
    return RaggedLines(augmented_N, lines.width_B, lines.height_px)

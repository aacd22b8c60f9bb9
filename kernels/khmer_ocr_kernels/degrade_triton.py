"""`degrade_reference.degrade` by Triton, for CUDA devices.

Three passes over blocks of a line's pixels in row-major order, one program for each line and block, each pixel written
by one program only: morphology, sums along rows, sums along columns with noise. Between passes pixels lie in global
scratch, for a block needs its neighbours' pixels; passes that no line asks for are left out.

Letters: B lines, N pixels, G groups of 16 pixels.
"""

import contextlib
from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl

from khmer_ocr_kernels import degrade_reference, lookup_tables, reference
from khmer_ocr_kernels.arrays import I32, U32
from khmer_ocr_kernels.compose_triton import on_device
from khmer_ocr_kernels.ragged import RaggedLines

BACKGROUND = tl.constexpr(reference.BACKGROUND)
NOISE_SALT = tl.constexpr(degrade_reference.NOISE_SALT)
PIXELS_PER_DRAW = tl.constexpr(degrade_reference.PIXELS_PER_DRAW)
TAPS = tl.constexpr(lookup_tables.MAX_RADIUS + 2)  # columns of the table
DROP_H, HALF_H = tl.constexpr(lookup_tables.TAP_BITS - 8), tl.constexpr(1 << lookup_tables.TAP_BITS - 9)
DROP_V, HALF_V = tl.constexpr(lookup_tables.TAP_BITS + 8), tl.constexpr(1 << lookup_tables.TAP_BITS + 7)
DROP_NOISE, HALF_NOISE = tl.constexpr(lookup_tables.NORMAL_BITS + 4), tl.constexpr(1 << lookup_tables.NORMAL_BITS + 3)
WIDTH, MORPH, SIGMA32, NOISE16, KEY_0, KEY_1 = (tl.constexpr(column) for column in range(6))
COLUMNS = tl.constexpr(6)
BLOCK = 1024


@triton.jit
def morph_lines(
    source: tl.tensor,
    target: tl.tensor,
    offsets_B1: tl.tensor,
    lines_B6: tl.tensor,
    height: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Mix each pixel with the darkest or lightest of its 3x3 neighbours; a line that asks for nothing is copied."""
    line = tl.program_id(0)
    begin = tl.load(offsets_B1 + line)
    width = tl.load(lines_B6 + line * COLUMNS + WIDTH)
    weight = tl.load(lines_B6 + line * COLUMNS + MORPH)
    first = tl.program_id(1) * BLOCK
    if first >= width * height:
        return
    n = first + tl.arange(0, BLOCK)
    inside = n < width * height
    y, x = n // width, n % width
    flip = tl.where(weight > 0, 0, BACKGROUND)  # a maximum is a minimum of the reversed greys
    middle = tl.load(source + begin + n, mask=inside, other=BACKGROUND).to(tl.int32)
    least = middle ^ flip
    for dy in tl.static_range(-1, 2):
        for dx in tl.static_range(-1, 2):
            within = inside & (weight != 0) & (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
            grey = tl.load(source + begin + n + dy * width + dx, mask=within, other=BACKGROUND).to(tl.int32)
            least = tl.minimum(least, grey ^ flip)
    share = tl.abs(weight)
    mixed = (middle * (256 - share) + (least ^ flip) * share + 128) >> 8
    tl.store(target + begin + n, mixed.to(tl.uint8), mask=inside)


@triton.jit
def sum_rows(
    source: tl.tensor,
    kept: tl.tensor,
    offsets_B1: tl.tensor,
    lines_B6: tl.tensor,
    taps: tl.tensor,
    height: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Gaussian sums of ink along rows, with 8 bits of fraction, of the lines that are to be blurred."""
    line = tl.program_id(0)
    begin = tl.load(offsets_B1 + line)
    width = tl.load(lines_B6 + line * COLUMNS + WIDTH)
    sigma32 = tl.load(lines_B6 + line * COLUMNS + SIGMA32)
    first = tl.program_id(1) * BLOCK
    if (first >= width * height) | (sigma32 == 0):
        return
    n = first + tl.arange(0, BLOCK)
    inside = n < width * height
    x = n % width
    at = source + begin + n
    sums = (BACKGROUND - tl.load(at, mask=inside, other=BACKGROUND).to(tl.int32)) * tl.load(taps + sigma32 * TAPS)
    for k in range(1, (3 * sigma32 + 31) // 32 + 1):
        left = BACKGROUND - tl.load(at - k, mask=inside & (x >= k), other=BACKGROUND).to(tl.int32)
        right = BACKGROUND - tl.load(at + k, mask=inside & (x + k < width), other=BACKGROUND).to(tl.int32)
        sums += (left + right) * tl.load(taps + sigma32 * TAPS + k)
    rounded = (sums + HALF_H) >> DROP_H
    tl.store(kept + begin + n, rounded.to(tl.uint16), mask=inside)


@triton.jit
def sum_columns_and_add_noise(
    source: tl.tensor,
    kept: tl.tensor,
    target: tl.tensor,
    offsets_B1: tl.tensor,
    lines_B6: tl.tensor,
    taps: tl.tensor,
    quantiles: tl.tensor,
    height: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Finish the blur of `kept` (or take `source` as it is) and add noise."""
    line = tl.program_id(0)
    begin = tl.load(offsets_B1 + line)
    width = tl.load(lines_B6 + line * COLUMNS + WIDTH)
    sigma32 = tl.load(lines_B6 + line * COLUMNS + SIGMA32)
    deviation = tl.load(lines_B6 + line * COLUMNS + NOISE16)
    first = tl.program_id(1) * BLOCK
    if first >= width * height:
        return
    n = first + tl.arange(0, BLOCK)
    inside = n < width * height
    if sigma32 > 0:
        y = n // width
        at = kept + begin + n
        sums = tl.load(at, mask=inside, other=0).to(tl.int32) * tl.load(taps + sigma32 * TAPS)
        for k in range(1, (3 * sigma32 + 31) // 32 + 1):
            above = tl.load(at - k * width, mask=inside & (y >= k), other=0).to(tl.int32)
            below = tl.load(at + k * width, mask=inside & (y + k < height), other=0).to(tl.int32)
            sums += (above + below) * tl.load(taps + sigma32 * TAPS + k)
        grey = BACKGROUND - ((sums + HALF_V) >> DROP_V)
    else:
        grey = tl.load(source + begin + n, mask=inside, other=BACKGROUND).to(tl.int32)
    if deviation > 0:
        key_0 = tl.load(lines_B6 + line * COLUMNS + KEY_0).to(tl.uint32, bitcast=True)
        key_1 = tl.load(lines_B6 + line * COLUMNS + KEY_1).to(tl.uint32, bitcast=True)
        drawn = random_bytes(first // PIXELS_PER_DRAW, key_0, key_1, BLOCK)
        z = tl.load(quantiles + drawn)
        grey += (z * deviation + HALF_NOISE) >> DROP_NOISE
        grey = tl.minimum(tl.maximum(grey, 0), BACKGROUND)
    tl.store(target + begin + n, grey.to(tl.uint8), mask=inside)


@triton.jit
def random_bytes(first_group: tl.tensor, key_0: tl.tensor, key_1: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:
    """BLOCK bytes of the draws from `first_group` on: their four words in turn, each with its low byte first."""
    groups: tl.constexpr = BLOCK // PIXELS_PER_DRAW
    counter = (first_group + tl.arange(0, groups)).to(tl.uint32)
    none = counter * 0
    a, b, c, d = tl.philox_impl(counter, none + NOISE_SALT, none, none, key_0, key_1)
    # join() puts the new axis last, so that of two joins the second one's number counts up first.
    words = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (groups * 4,))
    bytes_ = tl.join(tl.join(words, words >> 16), tl.join(words >> 8, words >> 24))
    return (tl.reshape(bytes_, (BLOCK,)) & 255).to(tl.int32)


@lru_cache(maxsize=8)
def _tables_on(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    taps, quantiles = (
        torch.from_numpy(table.copy()) for table in (lookup_tables.gaussian_taps(), lookup_tables.normal_quantiles())
    )
    return taps.to(device), quantiles.to(device)


def degrade(lines: RaggedLines, morph_B: I32, sigma32_B: I32, noise16_B: I32, key_B2: U32) -> RaggedLines:
    """Degrade lines on the device; see `degrade_reference.degrade`.

    Parameters are arrays on the host: how many programs to start is known there without asking the device.
    `khmer_ocr_kernels.degrade` has checked them.
    """
    pixels_N, height = lines.pixels_N, lines.height_px
    device = pixels_N.device
    augmented_N = torch.empty(len(pixels_N), dtype=torch.uint8, device=device)
    augmented = RaggedLines(augmented_N, lines.width_B, height)
    if not len(pixels_N):
        return augmented
    lines_B6 = np.column_stack([lines.width_B, morph_B, sigma32_B, noise16_B, key_B2.view(np.int32)])
    offsets, rows = on_device(lines.offsets_B1, device), on_device(lines_B6, device)
    taps, quantiles = _tables_on(device)
    grid = len(lines), triton.cdiv(int(lines.width_B.max()) * height, BLOCK)
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        latest = pixels_N
        if morph_B.any():
            latest = torch.empty(len(pixels_N), dtype=torch.uint8, device=device)
            morph_lines[grid](pixels_N, latest, offsets, rows, height, BLOCK=BLOCK)
        kept = latest
        if sigma32_B.any():
            kept = torch.empty(len(pixels_N), dtype=torch.uint16, device=device)
            sum_rows[grid](latest, kept, offsets, rows, taps, height, BLOCK=BLOCK)
        sum_columns_and_add_noise[grid](latest, kept, augmented_N, offsets, rows, taps, quantiles, height, BLOCK=BLOCK)
    return augmented

"""Glyph quads and an atlas to ragged text lines: `reference.compose` on CUDA.

One program owns one tile of one line and walks that line's quads in order, so that ink is laid in the same order as on
the CPU and no two programs write the same byte: no atomics, and the same bytes every time.

Letters: B lines, Q quads (glyphs placed), E atlas entries, N pixels.
"""

from typing import Any

import numpy.typing as npt
import torch
import triton
import triton.language as tl

from khmer_ocr_kernels.arrays import I32
from khmer_ocr_kernels.ragged import RaggedLines, line_offsets

TILE_H, TILE_W = 32, 64
COUNT_BLOCK = 256


@triton.jit
def draw_tiles(
    quads_ptr: tl.tensor,
    quad_offsets_ptr: tl.tensor,
    baseline_ptr: tl.tensor,
    width_ptr: tl.tensor,
    pixels_ptr: tl.tensor,
    entries_ptr: tl.tensor,
    height: tl.tensor,
    lines_ptr: tl.tensor,
    offsets_ptr: tl.tensor,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
) -> None:
    """Program (line, tile column, tile row) draws its tile of the line."""
    b = tl.program_id(0)
    first_x, first_y = tl.program_id(1) * TILE_W, tl.program_id(2) * TILE_H
    width = tl.load(width_ptr + b)
    if first_x < width:
        tile_y, tile_x = tl.arange(0, TILE_H)[:, None], tl.arange(0, TILE_W)[None, :]
        baseline = tl.load(baseline_ptr + b).to(tl.int64)
        ink = tl.full((TILE_H, TILE_W), 0, tl.int32)
        for q in range(tl.load(quad_offsets_ptr + b), tl.load(quad_offsets_ptr + b + 1)):
            entry_ptr = entries_ptr + 5 * tl.load(quads_ptr + 3 * q).to(tl.int64)
            raster_w, raster_h = tl.load(entry_ptr + 1), tl.load(entry_ptr + 2)
            # Places in 64 bits, so that a pen far outside can't wrap back into the line.
            x = tl.load(quads_ptr + 3 * q + 1).to(tl.int64) + tl.load(entry_ptr + 3) - first_x
            y = baseline - tl.load(quads_ptr + 3 * q + 2) - tl.load(entry_ptr + 4) - first_y
            if (x < TILE_W) & (x + raster_w > 0) & (y < TILE_H) & (y + raster_h > 0):
                column, row = tile_x - x.to(tl.int32), tile_y - y.to(tl.int32)
                covered = (column >= 0) & (column < raster_w) & (row >= 0) & (row < raster_h)
                raster_ptr = pixels_ptr + tl.load(entry_ptr)
                above = tl.load(raster_ptr + row * raster_w + column, mask=covered, other=0).to(tl.int32)
                product = ink * (255 - above) + 128
                ink = above + (((product >> 8) + product) >> 8)
        line_ptr = lines_ptr + tl.load(offsets_ptr + b)
        y, x = first_y + tile_y, first_x + tile_x
        tl.store(line_ptr + y.to(tl.int64) * width + x, (255 - ink).to(tl.uint8), mask=(y < height) & (x < width))


@triton.jit
def count_clipped(
    quads_ptr: tl.tensor,
    quad_offsets_ptr: tl.tensor,
    baseline_ptr: tl.tensor,
    width_ptr: tl.tensor,
    pixels_ptr: tl.tensor,
    entries_ptr: tl.tensor,
    height: tl.tensor,
    clipped_ptr: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Program (line) counts the line's ink pixels outside; apart from drawing, so that each is counted once."""
    b = tl.program_id(0)
    width, baseline = tl.load(width_ptr + b), tl.load(baseline_ptr + b).to(tl.int64)
    clipped = tl.full((BLOCK,), 0, tl.int64)
    for q in range(tl.load(quad_offsets_ptr + b), tl.load(quad_offsets_ptr + b + 1)):
        entry_ptr = entries_ptr + 5 * tl.load(quads_ptr + 3 * q).to(tl.int64)
        raster_w, raster_h = tl.load(entry_ptr + 1), tl.load(entry_ptr + 2)
        x = tl.load(quads_ptr + 3 * q + 1).to(tl.int64) + tl.load(entry_ptr + 3)
        y = baseline - tl.load(quads_ptr + 3 * q + 2) - tl.load(entry_ptr + 4)
        if (x < 0) | (y < 0) | (x + raster_w > width) | (y + raster_h > height):
            raster_ptr = pixels_ptr + tl.load(entry_ptr)
            area = raster_w * raster_h
            for first in range(0, area, BLOCK):
                n = first + tl.arange(0, BLOCK)
                above = tl.load(raster_ptr + n, mask=n < area, other=0)
                line_x, line_y = x + n % raster_w, y + n // raster_w
                outside = (line_x < 0) | (line_x >= width) | (line_y < 0) | (line_y >= height)
                clipped += (outside & (above > 0)).to(tl.int64)
    tl.store(clipped_ptr + b, tl.sum(clipped, 0))


def check_tensors(**tensors: torch.Tensor) -> None:
    """Raise ValueError unless all are tensors of one CUDA device; in Triton's interpreter the CPU will do.

    Args:
        tensors: the arguments of a kernel by name.
    """
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(
                f"{name} is a {type(tensor).__name__}, {first_name} a tensor: give all as tensors, or none"
            )
        if tensor.device != first.device:
            raise ValueError(f"{name} is on {tensor.device}, {first_name} on {first.device}: move all to one device")
    if not first.is_cuda and not triton.knobs.runtime.interpret:
        raise ValueError(f"{first_name} is a tensor on {first.device}: give CUDA tensors, or numpy arrays for the CPU")


def on_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Send a small array of the host's to a device, without waiting for it."""
    return torch.tensor(array).to(device, non_blocking=True)


def compose(
    quads_Q3: torch.Tensor,
    quad_offsets_B1: torch.Tensor,
    baseline_B: torch.Tensor,
    width_B: I32,
    pixels_N: torch.Tensor,
    entries_E5: torch.Tensor,
    height_px: int,
) -> tuple[RaggedLines, torch.Tensor]:
    """Draw lines of glyphs from an atlas on the device that holds them; see `compose.compose`."""
    check_tensors(
        quads_Q3=quads_Q3,
        quad_offsets_B1=quad_offsets_B1,
        baseline_B=baseline_B,
        pixels_N=pixels_N,
        entries_E5=entries_E5,
    )
    lines, device = len(width_B), pixels_N.device
    offsets = line_offsets(width_B, height_px)
    offsets_B1, widths = on_device(offsets, device), on_device(width_B, device)
    inputs = (quads_Q3, quad_offsets_B1, baseline_B, widths, pixels_N, entries_E5)
    layout = (*(each.contiguous() for each in inputs), height_px)
    clipped_B = torch.empty(lines, dtype=torch.int64, device=device)
    lines_N = torch.empty(int(offsets[-1]), dtype=torch.uint8, device=device)
    with torch.cuda.device_of(lines_N):
        if lines:
            count_clipped[(lines,)](*layout, clipped_B, BLOCK=COUNT_BLOCK)
        if len(lines_N):
            tiles = (lines, triton.cdiv(int(width_B.max()), TILE_W), triton.cdiv(height_px, TILE_H))
            draw_tiles[tiles](*layout, lines_N, offsets_B1, TILE_H=TILE_H, TILE_W=TILE_W)
    return RaggedLines(lines_N, width_B, height_px), clipped_B

"""Glyph quads and an atlas to ragged text lines: `reference.compose`, fast."""

from typing import Any

import numpy as np

from khmer_ocr_kernels.arrays import I32, I64, U8
from khmer_ocr_kernels.jit import compiled
from khmer_ocr_kernels.ragged import RaggedLines, line_offsets
from khmer_ocr_kernels.reference import BACKGROUND


@compiled
def _compose_lines(
    quads_Q3: I32,
    quad_offsets_B1: I64,
    baseline_B: I32,
    width_B: I32,
    pixels_N: U8,
    entries_E5: I32,
    height: int,
    lines_N: U8,
    offsets_B1: I64,
    clipped_B: I64,
) -> None:
    for b in range(len(width_B)):
        width = np.int64(width_B[b])
        begin, end = offsets_B1[b], offsets_B1[b + 1]
        line = lines_N[begin:end]
        line[:] = 0
        for q in range(quad_offsets_B1[b], quad_offsets_B1[b + 1]):
            entry = quads_Q3[q, 0]
            source = np.int64(entries_E5[entry, 0])
            raster_w, raster_h = np.int64(entries_E5[entry, 1]), np.int64(entries_E5[entry, 2])
            x = np.int64(quads_Q3[q, 1]) + entries_E5[entry, 3]
            y = np.int64(baseline_B[b]) - quads_Q3[q, 2] - entries_E5[entry, 4]
            if x < 0 or y < 0 or x + raster_w > width or y + raster_h > height:
                clipped_B[b] += _over_clipped(
                    line, int(width), height, int(x), int(y), pixels_N[source:], int(raster_w), int(raster_h)
                )
                continue
            for row in range(raster_h):
                ink = line[(y + row) * width + x : (y + row) * width + x + raster_w]
                raster = pixels_N[source + row * raster_w : source + (row + 1) * raster_w]
                for column in range(raster_w):
                    above = np.uint32(raster[column])
                    product = np.uint32(ink[column]) * (np.uint32(255) - above) + np.uint32(128)
                    blended = above + (((product >> np.uint32(8)) + product) >> np.uint32(8))
                    ink[column] = np.uint8(blended)
        for n in range(len(line)):
            line[n] = BACKGROUND - line[n]


@compiled
def _over_clipped(line: U8, width: int, height: int, x: int, y: int, raster: U8, raster_w: int, raster_h: int) -> int:
    clipped = 0
    for row in range(raster_h):
        for column in range(raster_w):
            above = np.int64(raster[row * raster_w + column])
            if 0 <= y + row < height and 0 <= x + column < width:
                n = (y + row) * width + x + column
                product = np.int64(line[n]) * (255 - above) + 128
                line[n] = np.uint8(above + (((product >> 8) + product) >> 8))
            elif above:
                clipped += 1
    return clipped


def compose(
    quads_Q3: Any, quad_offsets_B1: Any, baseline_B: Any, width_B: I32, pixels_N: Any, entries_E5: Any, height_px: int
) -> tuple[RaggedLines, Any]:
    """Draw lines of glyphs from an atlas: numba for arrays, Triton for CUDA tensors; what comes back is of their kind.

    See `reference.compose` for shapes, units and results. Widths are an array in any case. Tensors must all be on one
    CUDA device (else ValueError), which is not waited for.
    """
    layout = (quads_Q3, quad_offsets_B1, baseline_B, width_B, pixels_N, entries_E5, int(height_px))
    if not isinstance(quads_Q3, np.ndarray):
        from khmer_ocr_kernels import compose_triton

        return compose_triton.compose(*layout)
    offsets_B1 = line_offsets(width_B, height_px)
    lines_N = np.empty(offsets_B1[-1], np.uint8)
    clipped_B = np.zeros(len(width_B), np.int64)
    _compose_lines(*layout, lines_N, offsets_B1, clipped_B)
    return RaggedLines(lines_N, width_B, int(height_px)), clipped_B

"""The definition of right: plain numpy reference implementations of the kernels, same signature, same bytes.

Written to be read, not to be fast.

Letters: B lines, Q quads (glyphs placed), E atlas entries, N pixels.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from khmer_ocr_kernels.arrays import I32, I64, U8
from khmer_ocr_kernels.ragged import RaggedLines, line_offsets

BACKGROUND = 255


def over(below: int, above: int) -> int:
    """Coverage of `above` drawn over `below` (Porter and Duff 1984), in 8 bits with rounded division by 255."""
    product = below * (255 - above) + 128
    return above + (((product >> 8) + product) >> 8)


def compose(
    quads_Q3: I32, quad_offsets_B1: I64, baseline_B: I32, width_B: I32, pixels_N: U8, entries_E5: I32, height_px: int
) -> tuple[RaggedLines, I64]:
    """Draw lines of glyphs from an atlas, dark ink on a white background.

    Args:
        quads_Q3: int32 rows (atlas entry, x of the pen in px from the line's left edge, y in px above the baseline).
        quad_offsets_B1: int64, quads of line b are rows quad_offsets_B1[b] to quad_offsets_B1[b + 1].
        baseline_B: int32, image row of each line's baseline.
        width_B: int32 widths in px.
        pixels_N: uint8 coverage of all rasters, packed.
        entries_E5: int32 rows (offset into pixels_N, width, height, left bearing, top above the pen), in px.
        height_px: height of every line.

    Returns:
        The lines, and int64 (B,) counts of ink pixels that fell outside their line: all zero for a right layout.
    """
    offsets_B1 = line_offsets(width_B, height_px)
    lines_N = np.full(offsets_B1[-1], BACKGROUND, np.uint8)
    clipped_B = np.zeros(len(width_B), np.int64)
    for line in range(len(width_B)):
        width = int(width_B[line])
        ink_HW = np.zeros((height_px, width), np.int32)
        for entry, pen_x, pen_y in quads_Q3[quad_offsets_B1[line] : quad_offsets_B1[line + 1]]:
            offset, raster_w, raster_h, left, top = entries_E5[entry]
            raster_HW = pixels_N[offset : offset + raster_w * raster_h].reshape(raster_h, raster_w).astype(np.int32)
            for (row, column), coverage in np.ndenumerate(raster_HW):
                y, x = baseline_B[line] - pen_y - top + row, pen_x + left + column
                if 0 <= y < height_px and 0 <= x < width:
                    ink_HW[y, x] = over(int(ink_HW[y, x]), int(coverage))
                elif coverage:
                    clipped_B[line] += 1
        lines_N[offsets_B1[line] : offsets_B1[line + 1]] = (BACKGROUND - ink_HW).astype(np.uint8).ravel()
    return RaggedLines(lines_N, width_B, height_px), clipped_B


def pad_normalize(
    lines: RaggedLines, columns: int, table_256: npt.NDArray[Any] | None = None, order_b: I64 | None = None
) -> npt.NDArray[Any]:
    """Pad lines with background to one width and look their pixels up in a table; see `pad_normalize.pad_normalize`."""
    chosen = range(len(lines)) if order_b is None else order_b.tolist()
    padded_b1HX = np.full((len(chosen), 1, lines.height_px, columns), BACKGROUND, np.uint8)
    for row, line in enumerate(chosen):
        padded_b1HX[row, 0, :, : lines.width_B[line]] = lines.image(line)
    return padded_b1HX if table_256 is None else table_256[padded_b1HX]

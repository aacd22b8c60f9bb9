"""What lines measure in given faces, from the run cache, before anything is drawn.

Letters: B lines, T pieces, R cached runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from khmer_ocr_kernels.jit import compiled

from khmer_ocr.render.glyph_table import NO_INK
from khmer_ocr.render.shaping_cache import ShapingCache


@dataclass(frozen=True, slots=True)
class LineExtents:
    """What lines measure in given faces, in 1/65536 em, and the flags of their runs."""

    advance_B: npt.NDArray[np.int64]
    ascent_B: npt.NDArray[np.int64]
    descent_B: npt.NDArray[np.int64]
    flags_B: npt.NDArray[np.uint8]


@compiled
def _summarise(
    runs_T: npt.NDArray[np.int32],
    offsets_B1: npt.NDArray[np.int64],
    advance_R: npt.NDArray[np.int32],
    ascent_R: npt.NDArray[np.int32],
    descent_R: npt.NDArray[np.int32],
    flags_R: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    lines = len(offsets_B1) - 1
    advance_B = np.zeros(lines, np.int64)
    ascent_B, descent_B = np.full(lines, NO_INK, np.int64), np.full(lines, NO_INK, np.int64)
    flags_B = np.zeros(lines, np.uint8)
    for b in range(lines):
        for t in range(offsets_B1[b], offsets_B1[b + 1]):
            run = runs_T[t]
            advance_B[b] += advance_R[run]
            ascent_B[b] = max(ascent_B[b], ascent_R[run])
            descent_B[b] = max(descent_B[b], descent_R[run])
            flags_B[b] |= flags_R[run]
    return advance_B, ascent_B, descent_B, flags_B


def line_extents(cache: ShapingCache, texts: Sequence[str], face_B: npt.NDArray[np.int32]) -> LineExtents:
    """Measure lines in the faces given, without drawing."""
    looked = cache.look_up(texts, face_B)
    return LineExtents(
        *_summarise(looked.runs_T, looked.offsets_L1, cache.advance_R, cache.ascent_R, cache.descent_R, cache.flags_R)
    )

"""Lines spliced from two parts, each in a face, size and row of its own, as if two lines had been pasted together.

Each part keeps the baseline that was planned for it: moved to the other's it might lose the tip of a stack.

Letters: B lines, P parts (a whole line, or one of the two parts of a spliced one), C spliced lines, Q quads.
"""

from collections.abc import Sequence

import numpy as np
from khmer_ocr_kernels.arrays import I32, I64, Bools

from khmer_ocr.render.planner import LinePlan


def cut_in_two(text: str, place: float) -> tuple[str, str] | None:
    """Cut a line at a space.

    Args:
        text: a normalised line.
        place: from 0 (the first space) to 1 (the last).

    Returns:
        What stands before and behind the space, None if there is none.
    """
    spaces = [n for n, character in enumerate(text) if character == " "]
    if not spaces:
        return None
    at = spaces[min(int(place * len(spaces)), len(spaces) - 1)]
    return text[:at], text[at + 1 :]


def spliced_plan(plan: LinePlan, second: LinePlan, cut_C: I64) -> LinePlan:
    """The plans of all parts in order: the second part of line `cut_C[c]` comes right behind its first."""
    behind_C = cut_C + 1
    return LinePlan(
        np.insert(plan.face_B, behind_C, second.face_B),
        np.insert(plan.size64_B, behind_C, second.size64_B),
        np.insert(plan.baseline_B, behind_C, second.baseline_B),
        np.insert(plan.left_B, behind_C, second.left_B),
        np.insert(plan.right_B, behind_C, second.right_B),
    )


def spliced_texts(texts: Sequence[str], cuts: dict[int, tuple[str, str]]) -> list[str]:
    """Texts of all parts in order, given those of the spliced lines."""
    return [part for n, text in enumerate(texts) for part in cuts.get(n, (text,))]


def splice(
    quads_Q3: I32, quad_offsets_P1: I64, baseline_P: I32, width_P: I32, second_P: Bools
) -> tuple[I32, I64, I32, I32]:
    """Join laid-out parts to lines; the margins between two parts are the space that was between them.

    Args:
        quads_Q3: int32 rows (atlas entry, x from the part's left edge, y above its baseline) in px.
        quad_offsets_P1: quads of each part.
        baseline_P: image row of each part's baseline.
        width_P: widths in px.
        second_P: true for the second part of a spliced line; the first one stands before it.

    Returns:
        The same four for lines; quads are moved in place.
    """
    second = np.flatnonzero(second_P)
    moved_P, raised_P = np.zeros(len(width_P), np.int32), np.zeros(len(width_P), np.int32)
    moved_P[second] = width_P[second - 1]
    raised_P[second] = baseline_P[second - 1] - baseline_P[second]
    quads_of_P = np.diff(quad_offsets_P1)
    quads_Q3[:, 1] += np.repeat(moved_P, quads_of_P)
    quads_Q3[:, 2] += np.repeat(raised_P, quads_of_P)
    first_P = ~second_P
    width_P = width_P.copy()
    width_P[second - 1] += width_P[second]
    offsets_B1 = np.append(quad_offsets_P1[:-1][first_P], quad_offsets_P1[-1])
    return quads_Q3, offsets_B1, baseline_P[first_P], width_P[first_P]

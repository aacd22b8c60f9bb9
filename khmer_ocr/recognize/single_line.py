"""Is an image one upright line of text? What a model makes of it as it is, turned, mirrored and cut apart tells.

A page, two lines, a line on its side or upside down: models make up a short or senseless text for any of them. The
same model is far surer of the very same ink put right, so a line that it is not sure of is looked at again in those
ways, by CTC alone and on a part of its width; what is read with ease otherwise is not what it was given as.

Letters: H rows, W columns, N ways of looking at a line.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from khmer_ocr_kernels.arrays import F64

from khmer_ocr.recognize.image_input import Grey, has_ink
from khmer_ocr.recognize.line_finding import spans_of

DOUBTFUL = -0.09
"""Mean log-probability a symbol below which a reading is doubted. Of 301 lines of other engines 4 % (clean) to 14 %
(degraded) lie below it, of 903 turned or mirrored ones 99.7 %."""
_SQUASHED = -0.2
"""And below which it is tried whether the frame holds two lines without a gap between them: squashed to the height of
one they were read with less than that in all trials."""
READABLE = -0.3
"""And above which what is seen in another way counts as text: no upright line, real signs included, is read as well
as that upside down or mirrored while it is read worse as it is."""
MARGIN = 0.05
"""By so much another way of looking must be better."""
LEAST_SYMBOLS = 2
"""Fewer are not called a line: a stroke, a stain or a rule is read as one letter with ease."""
PROBE_WIDTH_PX = 320
"""Columns in the middle of a line that are looked at again: some 20 letters."""
_ON_ITS_SIDE = 1.5
"""Lines narrower than so many heights may stand on their side."""
_TOWER = 3.0
"""Higher than wide by this, nothing is a line: the tallest stacks of one letter reach 1.6."""
_MOST_PARTS = 6
_BEYOND = 0.6
"""Height of what lies above or below the line that was found, in heights of it, from which on it may be another line:
slivers of neighbour lines are lower."""
_ZONE_SHARE = 0.35
"""Share of the sharpest rows' contrast that the rows of a line's letters reach, and of the highest zone's height that
every zone has; below are subscripts, signs above, slivers of neighbours."""
_COLUMNS_A_BLOCK, _MOST_BLOCKS, _SHARPEST_BLOCKS = 24, 12, 3
_PAGE_ZONES = 3
"""So many zones of text that nothing can be read of are a page all the same."""

TURNS: dict[str, Callable[[Grey], Grey]] = {
    "upside down (turned by 180°)": lambda pixels_HW: pixels_HW[::-1, ::-1],
    "mirrored": lambda pixels_HW: pixels_HW[:, ::-1],
    "upside down and mirrored": lambda pixels_HW: pixels_HW[::-1],
}
SIDEWAYS: dict[str, Callable[[Grey], Grey]] = {
    "turned by 90° to the left": lambda pixels_HW: np.rot90(pixels_HW, -1),
    "turned by 90° to the right": lambda pixels_HW: np.rot90(pixels_HW),
}


@dataclass(frozen=True)
class Reading:
    """What CTC makes of an image.

    Attributes:
        symbols: code points of the text.
        log_prob: of its likeliest alignment, as the mean over its symbols and its end.
    """

    symbols: int
    log_prob: float

    @property
    def is_line(self) -> bool:
        """Whether this is text that is read with ease."""
        return self.symbols >= LEAST_SYMBOLS and self.log_prob > READABLE


Read = Callable[[Sequence[Grey], Sequence[Grey]], list[Reading]]
"""Reads lines at the model's height as they are, and after them frames of any size, on each of which the line is found
first."""


def probe(pixels_HW: Grey) -> Grey:
    """The middle of a line at the model's height, so wide that a reading of it tells."""
    spare = max(0, pixels_HW.shape[1] - PROBE_WIDTH_PX) // 2
    return pixels_HW[:, spare : pixels_HW.shape[1] - spare]


def may_be_on_its_side(frame_HW: Grey) -> bool:
    """Whether a frame is too narrow to be surely an upright line."""
    height, width = map(int, frame_HW.shape)
    return width < _ON_ITS_SIDE * height


def is_tall(frame_HW: Grey) -> bool:
    """Whether a frame is so narrow that its reading is to be doubted however sure it is."""
    height, width = map(int, frame_HW.shape)
    return height > _ON_ITS_SIDE * width


def zones_of_text(frame_HW: Grey, fine: bool = False) -> list[tuple[int, int]]:
    """Rows between which letters stand, of each line in a frame.

    Letters are where grey changes along a row. Of the blocks that a row is cut into the sharpest count, as the last
    line of a paragraph may be short.

    Args:
        frame_HW: uint8, any size and polarity.
        fine: look for lines that are small against the frame, as on a whole page; a single line then falls apart.

    Returns:
        First row and the row after the last of each zone, from the top; a single line mostly has one.
    """
    height, width = frame_HW.shape
    if width < 2:
        return []
    change_HW = np.abs(np.diff(frame_HW.astype(np.int16), axis=1))
    blocks = max(1, min(_MOST_BLOCKS, (width - 1) // _COLUMNS_A_BLOCK))
    edges = np.linspace(0, width - 1, blocks + 1).astype(int)
    sums = np.add.reduceat(change_HW, edges[:-1], axis=1, dtype=np.int64) / np.diff(edges)
    sums = np.maximum(sums - np.percentile(sums, 10, axis=0), 0)
    sharp_H = np.sort(sums, axis=1)[:, -_SHARPEST_BLOCKS:].mean(1)
    radius = 1 if fine else max(1, height // 60)
    smooth_H = np.convolve(np.pad(sharp_H, radius, mode="edge"), np.full(2 * radius + 1, 1 / (2 * radius + 1)), "valid")
    on_H = smooth_H > _ZONE_SHARE * np.percentile(smooth_H, 99)
    zones = spans_of(on_H)
    highest = max((end - begin for begin, end in zones), default=0)
    return [(begin, end) for begin, end in zones if end - begin >= _ZONE_SHARE * highest]


def cut_between(frame_HW: Grey, zones: Sequence[tuple[int, int]]) -> list[Grey]:
    """The frame cut at the emptiest rows between zones; of many only the highest ones' parts."""
    change_H = _change(frame_HW)
    between = pairwise(zones)
    cuts = [0, *(one[1] + _emptiest(change_H[one[1] : other[0]]) for one, other in between), len(frame_HW)]
    parts = [frame_HW[begin:end] for begin, end in pairwise(cuts)]
    order = sorted(range(len(zones)), key=lambda n: zones[n][0] - zones[n][1])[:_MOST_PARTS]
    return [parts[n] for n in sorted(order)]


def halves(frame_HW: Grey) -> list[Grey]:
    """The frame cut at the emptiest row of its middle third: two lines so close that their zones run together."""
    height = len(frame_HW)
    if height < 6 or frame_HW.shape[1] < 2:
        return []
    first, last = height // 3, height - height // 3
    cut = first + _emptiest(_change(frame_HW)[first:last])
    return [frame_HW[:cut], frame_HW[cut:]]


def _change(frame_HW: Grey) -> F64:
    """How much grey changes along each row."""
    change_H: F64 = np.abs(np.diff(frame_HW.astype(np.int16), axis=1)).mean(1)
    return change_H


def _emptiest(change_H: F64) -> int:
    """The middle one of the rows in which least changes."""
    emptiest = np.flatnonzero(change_H == change_H.min())
    return int(emptiest[len(emptiest) // 2])


def beyond(frame_HW: Grey, top: int, bottom: int) -> list[Grey]:
    """What lies above and below the line that was found, where that is high enough for another and not blank."""
    least_px = max(1, round(_BEYOND * (bottom - top)))
    strips = [frame_HW[:top], frame_HW[bottom:]]
    return [strip_HW for strip_HW in strips if len(strip_HW) >= least_px and has_ink(strip_HW)]


def what_it_looks_like(
    frame_HW: Grey, line_HW: Grey, zones: Sequence[tuple[int, int]], strips: Sequence[Grey], log_prob: float, read: Read
) -> str | None:
    """Look at a line in other ways.

    Args:
        frame_HW: the image as it was given.
        line_HW: the line found in it, as it was read.
        zones: of the frame; see `zones_of_text`.
        strips: beyond the line that was found; see `beyond`.
        log_prob: of its reading, as the mean over its symbols; minus infinity to doubt it in any case.
        read: reads by CTC; see `Read`.

    Returns:
        What it is instead of a single upright line, None where that is what it is.
    """
    doubtful, sides = log_prob < DOUBTFUL, SIDEWAYS if may_be_on_its_side(frame_HW) else {}
    if doubtful and len(zones) < 2:
        zones = zones_of_text(frame_HW, fine=True)
    if len(zones) > 1 or strips:
        parts = cut_between(frame_HW, zones) if len(zones) > 1 else [line_HW, *strips]
    else:
        parts = halves(frame_HW) if log_prob < _SQUASHED else []
    middle_HW = probe(line_HW)
    turned = [turn(middle_HW) for turn in TURNS.values()]
    own, *found = read([middle_HW, *turned], [*(_side(frame_HW, turn) for turn in sides.values()), *parts])
    of_turns, of_parts = found[: len(turned) + len(sides)], found[len(turned) + len(sides) :]
    # A line on its side is next to nothing at the model's height, and nothing is read there with ease.
    own_log_prob = own.log_prob if own.symbols >= LEAST_SYMBOLS else -math.inf
    lines = [part for part in of_parts if part.is_line]
    of_lines = _mean(lines) if len(lines) > 1 else -math.inf
    names = [*TURNS, *sides]
    best = max(range(len(names)), key=lambda n: of_turns[n].log_prob if of_turns[n].is_line else -math.inf)
    of_turn = of_turns[best].log_prob if doubtful and of_turns[best].is_line else -math.inf
    if of_turn > max(own_log_prob + MARGIN, of_lines):
        return f"a line {names[best]}"
    if len(lines) > 1 and (not doubtful or of_lines > own_log_prob + MARGIN):
        count = max(len(zones), len(lines))
        return f"{'about ' if count > _MOST_PARTS else ''}{count} lines of text"
    return _by_its_shape(frame_HW, own)


def _by_its_shape(frame_HW: Grey, own: Reading) -> str | None:
    """What an image is that can't be read in any way."""
    height, width = frame_HW.shape
    if own.is_line:
        return None
    zones = zones_of_text(frame_HW)
    if len(zones) >= _PAGE_ZONES:
        return f"a page or {len(zones)} lines of text"
    if height > _TOWER * width:
        return "a line on its side, or a column: it is taller than wide"
    columns = zones_of_text(np.ascontiguousarray(frame_HW.T))
    if len(columns) >= _PAGE_ZONES and height > width:
        return f"a page on its side, or {len(columns)} lines of text"
    return None


def _side(frame_HW: Grey, turn: Callable[[Grey], Grey]) -> Grey:
    """The middle of a frame on its side, turned."""
    turned_HW = turn(frame_HW)
    most = max(1, PROBE_WIDTH_PX * turned_HW.shape[0] // 32)
    spare = max(0, turned_HW.shape[1] - most) // 2
    return turned_HW[:, spare : turned_HW.shape[1] - spare]


def _mean(readings: Iterable[Reading]) -> float:
    scores = [reading.log_prob for reading in readings]
    return sum(scores) / len(scores)

"""Where on an image its line of text stands: the frame that a user cut is not the line.

Models were trained with ink that fills most of the height. Two steps find it, whatever is light and whatever is dark:
a rim of one even colour is peeled off, then rows and columns without an edge of ink are. What is small and far from
the text (specks, rules, slivers of neighbour lines) does not count. In doubt the frame stays as it is.
Letters: H rows, W columns.
"""

from dataclasses import dataclass

import numpy as np
from khmer_ocr_kernels.arrays import I64, Bools
from PIL import Image

from khmer_ocr.dataset.image_io import Grey

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in px, the last two exclusive, as Pillow has them."""

WORKING_HEIGHT_PX = 128
"""Rows to which taller images are shrunk, by a whole number, to be looked at."""
_RIM_LEVELS = 6
"""Grey levels by which an even rim may vary: JPEG at quality 75 leaves that beside nothing."""
_GROUND_SHARE = 0.5
"""Of a side of what the rim surrounds, how much differs from the rim where that is a picture, no ink that is cut."""
_EDGE_SHARE = 0.3
"""Of the strongest edges of an image, what counts as an edge of ink."""
_EDGE_LEVELS = 12
"""Grey levels below which an edge is noise or texture."""
_ROW_SHARE = 0.01
"""Edge pixels of a row with ink, as a share of the fullest row's: one mark above a line of a hundred letters."""
_NEAR = 0.15
"""Gap between two bands of rows that belong together, in heights of the fuller one: marks above, signs below."""
_FAR = 0.25
"""Gap beyond which a band of little ink is not of the line."""
_LITTLE = 0.12
"""Ink of a band that may be left out, as a share of the line's ink."""
_RULE_HEIGHT = 0.15
"""A rule is thinner than this, in heights of the line, and runs through most of the width."""
_SPECK = 0.12
"""What is smaller both ways, in heights of the line, and stands alone, is a speck."""
_ALONE = 1.0
"""Distance at which a speck stands alone, in heights of the line."""
_FULL = 0.7
_SOLID = 0.6
"""Share of columns with ink that it fills, nearly from top to bottom, where it is a dash, dots or a vertical stroke."""

MARGIN_KEPT = 0.13
"""Margin above and below up to which a frame is left as it is, in heights of the ink: what tight crops and line boxes
of drawn lines have."""
MARGIN_SET = 0.07
"""Margin that is left of a wider one. On lines that others drew and scanned 0.05 to 0.15 read alike, 0 and 0.2 worse;
of 0.06, 0.07 and 0.085 the halves of gazette and letters that are there to tune by are read best with this one."""
SIDE_KEPT = 0.4
SIDE_SET = 0.15


@dataclass(frozen=True)
class FoundLine:
    """Where a line stands on its image.

    Attributes:
        box: what is to be read, in px of the image: left, top, right, bottom; the whole image where that is in doubt.
        ink: the smallest box around the ink; None where nothing stands out.
    """

    box: Box
    ink: Box | None


def find_line(pixels_HW: Grey) -> FoundLine:
    """Find the line of text on an image.

    Args:
        pixels_HW: uint8, at least one pixel, dark on light or light on dark.

    Returns:
        The box of the line with margins as models know them. Where the ink reaches the frame, or almost, and where
        nothing certain can be said, the box is the frame.
    """
    height, width = pixels_HW.shape
    (left, top, right, bottom), frame = _peel(pixels_HW)
    factor = -(-(bottom - top) // WORKING_HEIGHT_PX)
    small_HW = pixels_HW[top:bottom, left:right]
    if factor > 1:
        small_HW = np.asarray(Image.fromarray(small_HW).reduce(factor))
    edges_HW = _edges(small_HW)
    bands = _bands(edges_HW.sum(1), edges_HW.shape[1])
    if not bands:
        return FoundLine((0, 0, width, height), None)
    first, last = bands[0][0], bands[-1][1]
    begin, end = _columns(edges_HW[first:last], min(b - t for t, b in bands))
    ink = (
        left + begin * factor,
        top + first * factor,
        min(left + end * factor, right),
        min(top + last * factor, bottom),
    )
    ground = int(np.median(pixels_HW[frame[1] : frame[3], frame[0] : frame[2]]))
    if _is_solid(pixels_HW[ink[1] : ink[3], ink[0] : ink[2]], ground):
        return FoundLine((0, 0, width, height), ink)
    return FoundLine(_with_margins(ink, frame), ink)


def _peel(pixels_HW: Grey) -> tuple[Box, Box]:
    """Take off rows and columns at the rim that hold nothing but the rim's colour.

    Returns:
        What is left, and the frame to which margins may reach: the whole image, but on a side where a picture with a
        ground of its own meets the rim, that picture's end.
    """
    height, width = pixels_HW.shape
    whole = (0, 0, width, height)
    ring = np.concatenate([pixels_HW[0], pixels_HW[-1], pixels_HW[:, 0], pixels_HW[:, -1]])
    level = int(np.median(ring))
    low, high = max(level - _RIM_LEVELS, 0), min(level + _RIM_LEVELS, 255)
    rows = np.flatnonzero((pixels_HW.min(1) < low) | (pixels_HW.max(1) > high))
    if not len(rows):
        return whole, whole
    columns = np.flatnonzero((pixels_HW.min(0) < low) | (pixels_HW.max(0) > high))
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    inside_HW = pixels_HW[top:bottom, left:right]
    own = [
        bool(((side < low) | (side > high)).mean() > _GROUND_SHARE)
        for side in (inside_HW[:, 0], inside_HW[0], inside_HW[:, -1], inside_HW[-1])
    ]
    if sum(own) < 3:  # a vertical stroke or the bar of a letter may fill one side or two
        return (left, top, right, bottom), whole
    frame = (
        left if own[0] else 0,
        top if own[1] else 0,
        right if own[2] else width,
        bottom if own[3] else height,
    )
    return (left, top, right, bottom), frame


def _edges(pixels_HW: Grey) -> Bools:
    """Pixels beside an edge of ink: light that changes slowly has none, and noise is smoothed away."""
    height, width = pixels_HW.shape
    padded = np.pad(pixels_HW, 2, mode="edge").astype(np.int16)
    across = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    smooth = across[:-2] + across[1:-1] + across[2:]  # nine times the grey level, (H + 2, W + 2)
    contrast_HW = np.maximum(np.abs(smooth[1:-1, 2:] - smooth[1:-1, :-2]), np.abs(smooth[2:, 1:-1] - smooth[:-2, 1:-1]))
    strongest = np.partition(contrast_HW.ravel(), -max(1, height * width // 100))[-max(1, height * width // 100)]
    found_HW: Bools = contrast_HW > max(_EDGE_SHARE * float(strongest), 9 * _EDGE_LEVELS)
    return found_HW


def _bands(edges_H: I64, width: int) -> list[tuple[int, int]]:
    """Bands of rows with ink, those that belong together joined, those that are not of the line left out."""
    if not edges_H.any():
        return []
    spans = spans_of(edges_H > max(1.0, _ROW_SHARE * float(edges_H.max())))
    if not spans:
        return []
    masses = [int(edges_H[top:bottom].sum()) for top, bottom in spans]
    fullest = spans[int(np.argmax(masses))]
    tall = fullest[1] - fullest[0]
    joined: list[list[int]] = []
    for (top, bottom), mass in zip(spans, masses, strict=True):
        if joined and top - joined[-1][1] <= _NEAR * tall:
            joined[-1][1:] = [bottom, joined[-1][2] + mass]
        else:
            joined.append([top, bottom, mass])
    main = max(joined, key=lambda band: band[2])
    tall = main[1] - main[0]

    def counts(band: list[int]) -> bool:
        top, bottom, mass = band
        gap = max(top - main[1], main[0] - bottom)
        rule = bottom - top <= _RULE_HEIGHT * tall and int(edges_H[top:bottom].max()) > 0.6 * width
        return band is main or not (gap > _FAR * tall and (mass < _LITTLE * main[2] or rule))

    return [(top, bottom) for top, bottom, mass in filter(counts, joined)]


def _is_solid(ink_HW: Grey, ground: int) -> bool:
    """Whether ink is as tall as its strokes are thick: a dash or dots, which do not show the height of their line."""
    away_HW = np.abs(ink_HW.astype(np.int16) - ground)
    marked_HW = away_HW > int(away_HW.max()) / 2
    full_W = marked_HW.sum(0) > _FULL * len(ink_HW)
    return int(full_W.sum()) > _SOLID * int(marked_HW.any(0).sum())


def _columns(edges_HW: Bools, tall: int) -> tuple[int, int]:
    """First and last column with ink, specks that stand alone left out."""
    spans = spans_of(np.any(edges_HW, axis=0))

    def alone(span: tuple[int, int], next_gap: int) -> bool:
        small = span[1] - span[0] <= _SPECK * tall + 2
        rows = np.flatnonzero(edges_HW[:, span[0] : span[1]].any(1))
        return small and int(rows[-1] - rows[0]) < _SPECK * tall + 2 and next_gap > _ALONE * tall

    while len(spans) > 1 and alone(spans[0], spans[1][0] - spans[0][1]):
        spans.pop(0)
    while len(spans) > 1 and alone(spans[-1], spans[-1][0] - spans[-2][1]):
        spans.pop()
    return spans[0][0], spans[-1][1]


def spans_of(marked_N: Bools) -> list[tuple[int, int]]:
    """Begin and end of each run of marked places."""
    turns = np.flatnonzero(np.diff(np.concatenate([[False], marked_N, [False]]).astype(np.int8)))
    return [(int(begin), int(end)) for begin, end in zip(turns[::2], turns[1::2], strict=True)]


def _with_margins(ink: Box, frame: Box) -> Box:
    """The frame, its wide margins cut to what models know."""
    tall = ink[3] - ink[1]

    def kept(margin: int, most: float, set_to: float) -> int:
        return margin if margin <= most * tall else round(set_to * tall)

    return (
        ink[0] - kept(ink[0] - frame[0], SIDE_KEPT, SIDE_SET),
        ink[1] - kept(ink[1] - frame[1], MARGIN_KEPT, MARGIN_SET),
        ink[2] + kept(frame[2] - ink[2], SIDE_KEPT, SIDE_SET),
        ink[3] + kept(frame[3] - ink[3], MARGIN_KEPT, MARGIN_SET),
    )

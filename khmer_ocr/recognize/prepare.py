"""Grey pixels of any size, margins and polarity to what a model was trained on: dark ink, light background, one height.

Letters: H rows, W columns.
"""

from dataclasses import dataclass

import numpy as np
from khmer_ocr_kernels.arrays import I64
from PIL import Image, ImageFilter

from khmer_ocr.errors import ImageError
from khmer_ocr.recognize.image_input import Grey, has_ink
from khmer_ocr.recognize.line_finding import FoundLine, find_line

_DIFFERENCES = np.arange(511.0)
MAX_WIDTH_PX = 8192
"""Widest line at the model's height, some 800 letters: six times the longest line that models are trained on."""
LIGHT = 0.25
"""Score above which ink is the light part: in doubt it is dark."""
_SURE = 1.0
"""Skewness, either way, that decides alone: ordinary lines have 2 and more."""
_EVEN = 0.95
"""Mean lightness of a side (-1 to 1), either way, that has one colour: a margin or a rule, which say nothing."""
_UPPER_AND_LOWER, _LEFT_AND_RIGHT = 2.1, 1.4
"""Weights of the rim's lightness beside the skewness, by logistic regression on 750 words of one to four syllables in
34 faces, half of them bold, cut out at their ink, and on 420 lines that others drew or scanned. Of these words 2 are
taken for light on dark, and 6 of the same words inverted for dark on light; without the rim 22 and 54."""
_DOUBT = 1.5
"""Score, either way, below which a line is read both ways. Of 413 words, numbers and abbreviations in Noto Sans Khmer
Black, cut out at their ink, 54 are taken wrongly by the score, and 24 where the doubtful half is read both ways."""
_DOUBTFUL_MARGIN = 0.1
"""Background around a doubtful line, as a share of its height: cut out at the ink, 125 of those 413 are read rightly,
with this margin 205."""


@dataclass(frozen=True)
class Line:
    """A line ready to be read.

    Attributes:
        pixels_HW: uint8 of the model's height, ink dark.
        inverted: whether ink was the light part.
        blank: whether nothing is written on it.
        found: where the line was found on the image; None for a blank and for a ready-made line.
        otherwise: the line with ink and background exchanged, where it is in doubt which is which; the text that is
            read with more confidence decides.
        frame_HW: the image as it was given, to be looked at again should it be no line; None for a ready-made one.
        name: what to call the image in messages.
    """

    pixels_HW: Grey
    inverted: bool
    blank: bool
    found: FoundLine | None = None
    otherwise: Grey | None = None
    frame_HW: Grey | None = None
    name: str = "the image"


def prepare(pixels_HW: Grey, height_px: int, name: str = "the image", *, ready_made: bool = False) -> Line:
    """Find the line on an image and bring it to the model's height, ink dark; the aspect ratio stays.

    Args:
        pixels_HW: uint8, at least one pixel.
        height_px: the model's height.
        name: what to call the image in messages.
        ready_made: whether the frame is the line's already, as in a stored data set, and stays.

    Raises:
        ImageError: the line would be wider than `MAX_WIDTH_PX`.
    """
    frame_HW, blank = None if ready_made else pixels_HW, not has_ink(pixels_HW)
    found = None if blank or ready_made else find_line(pixels_HW)
    if found is not None:
        left, top, right, bottom = found.box
        pixels_HW = pixels_HW[top:bottom, left:right]
    scaled_HW = _scaled(pixels_HW, height_px, name)
    blank = blank or not has_ink(scaled_HW)
    score = 0.0 if blank else light_ink_score(scaled_HW)
    inverted = score > LIGHT
    if found is None or blank or abs(score) >= _DOUBT:
        return Line(255 - scaled_HW if inverted else scaled_HW, inverted, blank, found, None, frame_HW, name)
    low, high = (round(float(level)) for level in np.percentile(pixels_HW, (2, 98)))
    dark_HW = _with_margin(pixels_HW, high, height_px, name)
    light_HW = _with_margin(255 - pixels_HW, 255 - low, height_px, name)
    likely_HW, other_HW = (light_HW, dark_HW) if inverted else (dark_HW, light_HW)
    return Line(likely_HW, inverted, blank, found, other_HW, frame_HW, name)


def _with_margin(pixels_HW: Grey, background: int, height_px: int, name: str) -> Grey:
    margin_px = max(1, round(_DOUBTFUL_MARGIN * pixels_HW.shape[0]))
    return _scaled(np.pad(pixels_HW, margin_px, constant_values=background), height_px, name)


def _scaled(pixels_HW: Grey, height_px: int, name: str) -> Grey:
    """The line at the model's height, in memory of its own."""
    height, width = pixels_HW.shape
    scaled_px = max(1, round(width * height_px / height))
    if scaled_px > MAX_WIDTH_PX:
        raise ImageError(
            f"{name} is {width} x {height} px, {scaled_px} px wide at the model's height of {height_px} px; it reads "
            f"up to {MAX_WIDTH_PX}. Cut the line at spaces, or check that it is one line of text."
        )
    if height == height_px:
        return np.array(pixels_HW)
    # Pillow's filters widen with the scale, so that shrinking averages and thin strokes survive.
    image = Image.fromarray(np.ascontiguousarray(pixels_HW))
    return np.array(image.resize((scaled_px, height_px), Image.Resampling.BICUBIC))


def light_ink_score(pixels_HW: Grey) -> float:
    """Say how much speaks for light ink on a dark background: below 0 the ink is likely dark.

    Ink covers the smaller part of a line and the background varies little, so ink is on the long tail of the grey
    levels. That is judged twice, on the levels themselves and on their difference to the surroundings, which neither
    shadows nor spots sway. A bold word cut out at its ink has no such tail; but its letters touch the rim here and
    there only, so that the rim is mostly background.

    Args:
        pixels_HW: uint8, a line of text.
    """
    radius_px = max(4, pixels_HW.shape[0] // 4)
    around_HW = np.asarray(Image.fromarray(pixels_HW).filter(ImageFilter.BoxBlur(radius_px)))
    levels_HW = pixels_HW.astype(np.int64)
    skewness = _skewness(levels_HW) + _skewness(levels_HW - around_HW)
    if abs(skewness) > _SURE:
        return skewness
    low, high = np.percentile(pixels_HW, (2, 98))
    middle, half = (low + high) / 2, max((high - low) / 2, 0.5)
    top, bottom, left, right = sides = [
        float(np.clip((side - middle) / half, -1, 1).mean())
        for side in (levels_HW[0], levels_HW[-1], levels_HW[:, 0], levels_HW[:, -1])
    ]
    if sum(abs(side) > _EVEN for side in sides) >= 3:
        return skewness
    return skewness - _UPPER_AND_LOWER * (top + bottom) / 2 - _LEFT_AND_RIGHT * (left + right) / 2


def _skewness(levels: I64) -> float:
    """Third moment over the 3/2th power of the second, of whole numbers above -256; by counts, as they are few."""
    count = np.bincount(levels.ravel() + 255)
    mean = float(count @ _DIFFERENCES[: len(count)]) / levels.size
    centred = _DIFFERENCES[: len(count)] - mean
    square = centred * centred
    variance, third = float(count @ square) / levels.size, float(count @ (square * centred)) / levels.size
    return third / variance**1.5 if variance > 0 else 0.0

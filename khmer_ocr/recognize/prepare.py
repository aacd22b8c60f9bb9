"""Grey pixels of any size and polarity to what a reader was trained on: dark ink on light paper, one height.

Letters: H rows, W columns.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from khmer_ocr.errors import ImageError
from khmer_ocr.recognize.images import Grey, has_ink
from khmer_ocr.recognize.line_finding import FoundLine, find_line

_DIFFERENCES = np.arange(511.0)
MAX_WIDTH_PX = 8192
"""Widest line at the model's height, some 800 letters: six times the longest line that readers are trained on."""
_BRIGHT = 0.5
"""Sum of two skewnesses above which ink is the light part. Of 3,700 dark-on-light lines, three quarters of them worn by
this project's `scan` recipe and the others drawn and worn by other programs, none reaches it; of the same lines
inverted, two fall short, both nearly destroyed."""


@dataclass(frozen=True)
class Line:
    """A line ready to be read.

    Attributes:
        pixels_HW: uint8 of the model's height, ink dark.
        inverted: whether ink was the light part.
        blank: whether nothing is written on it.
    """

    pixels_HW: Grey
    inverted: bool
    blank: bool


def prepare(pixels_HW: Grey, height_px: int, name: str = "the image") -> Line:
    """Bring a line to the model's height, ink dark; the aspect ratio stays.

    Args:
        pixels_HW: uint8, at least one pixel.
        height_px: the model's height.
        name: what to call the image in messages.

    Raises:
        ImageError: the line would be wider than `MAX_WIDTH_PX`.
    """
    height, width = pixels_HW.shape
    wanted_px = max(1, round(width * height_px / height))
    if wanted_px > MAX_WIDTH_PX:
        raise ImageError(
            f"{name} is {width} x {height} px, {wanted_px} px wide at the reader's height of {height_px} px; it reads "
            f"up to {MAX_WIDTH_PX}. Cut the line at spaces, or check that it is one line of text."
        )
    if height != height_px:
        # Pillow's filters widen with the scale, so that shrinking averages and thin strokes survive.
        pixels_HW = np.array(Image.fromarray(pixels_HW).resize((wanted_px, height_px), Image.Resampling.BICUBIC))
    blank = not has_ink(pixels_HW)
    inverted = not blank and is_light_on_dark(pixels_HW)
    return Line(255 - pixels_HW if inverted else pixels_HW, inverted, blank)


def is_light_on_dark(pixels_HW: Grey) -> bool:
    """Tell whether ink is lighter than paper.

    Ink covers the smaller part of a line and paper varies little, so ink is on the long tail of the grey levels. That
    is judged twice, on the levels themselves and on their difference to the surroundings, which neither shadows nor
    spots sway. In doubt ink is dark.

    Args:
        pixels_HW: uint8, a line of text.
    """
    radius_px = max(4, pixels_HW.shape[0] // 4)
    around_HW = np.asarray(Image.fromarray(pixels_HW).filter(ImageFilter.BoxBlur(radius_px)))
    levels_HW = pixels_HW.astype(np.int64)
    return _skewness(levels_HW) + _skewness(levels_HW - around_HW) > _BRIGHT


def _skewness(levels: npt.NDArray[np.int64]) -> float:
    """Third moment over the 3/2th power of the second, of whole numbers above -256; by counts, as they are few."""
    count = np.bincount(levels.ravel() + 255)
    mean = float(count @ _DIFFERENCES[: len(count)]) / levels.size
    centred = _DIFFERENCES[: len(count)] - mean
    square = centred * centred
    variance, third = float(count @ square) / levels.size, float(count @ (square * centred)) / levels.size
    return third / variance**1.5 if variance > 0 else 0.0

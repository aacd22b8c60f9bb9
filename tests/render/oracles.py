"""Independent opinions on what is drawn: a watch for dotted circles, and Pillow with RAQM as another engine."""

import numpy as np
import numpy.typing as npt
import uharfbuzz as hb
from PIL import Image, ImageDraw, ImageFont

from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.render.shaping import script_of

SENTINEL = 60000


def has_dotted_circle(font: hb.Font, run: str) -> bool:
    """Whether shaping inserts U+25CC, seen by a sub-font that gives this one character a glyph of its own."""
    functions = hb.FontFuncs()
    functions.set_nominal_glyph_func(
        lambda _, code, data: SENTINEL if code == 0x25CC else (font.get_nominal_glyph(code) or 0)
    )
    watched = hb.Font(font)
    watched.funcs = functions
    buffer = hb.Buffer()
    buffer.add_str(run)
    buffer.direction = "ltr"
    buffer.script, buffer.language = script_of(run)
    hb.shape(watched, buffer)
    return any(info.codepoint == SENTINEL for info in buffer.glyph_infos)


def draw_with_raqm(face: FontFace, text: str, size_px: int) -> npt.NDArray[np.bool_]:
    """Ink of a line drawn by Pillow, cropped; hinted and with glyphs on whole pixels, so compare large sizes only."""
    font = ImageFont.truetype(str(face.files[0]), size_px, layout_engine=ImageFont.Layout.RAQM)
    if face.variations:
        settings = dict(face.variations)
        named = [
            axis["name"].decode() if isinstance(axis["name"], bytes) else axis["name"]
            for axis in font.get_variation_axes()
        ]
        tags = {"Weight": "wght", "Width": "wdth"}
        font.set_variation_by_axes([settings[tags[name]] for name in named])
    image = Image.new("L", (int(font.getlength(text, language="km")) + 4 * size_px, 6 * size_px), 0)
    ImageDraw.Draw(image).text((2 * size_px, 3 * size_px), text, 255, font, anchor="ls", language="km")
    return cropped(np.asarray(image) > 127)


def cropped(ink_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The smallest part that holds all ink."""
    rows, columns = np.flatnonzero(ink_HW.any(1)), np.flatnonzero(ink_HW.any(0))
    return ink_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def overlap(one_HW: npt.NDArray[np.bool_], other_HW: npt.NDArray[np.bool_]) -> float:
    """Intersection over union of two cropped inks, at the best of the places one pixel around."""
    height = max(one_HW.shape[0], other_HW.shape[0]) + 2
    width = max(one_HW.shape[1], other_HW.shape[1]) + 2
    still = np.zeros((height, width), bool)
    still[1 : 1 + one_HW.shape[0], 1 : 1 + one_HW.shape[1]] = one_HW
    best = 0.0
    for top in range(3):
        for left in range(3):
            moved = np.zeros((height, width), bool)
            place = moved[top : top + other_HW.shape[0], left : left + other_HW.shape[1]]
            place[:] = other_HW[: place.shape[0], : place.shape[1]]
            best = max(best, float((still & moved).sum() / (still | moved).sum()))
    return best

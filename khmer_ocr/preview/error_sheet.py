"""A picture of the lines that were read worst: the image, what it says, what was read, differences in red."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features
from rapidfuzz.distance import Levenshtein

from khmer_ocr.errors import ConfigError, DatasetError
from khmer_ocr.preview.canvas import save
from khmer_ocr.recognize.evaluate import ReadLine
from khmer_ocr.recognize.image_input import ImageSource, read_grey
from khmer_ocr.text.metrics import comparable
from khmer_ocr.text.syllables import split

_SIZE_PX, _NOTE_SIZE_PX, _MARGIN_PX, _LEAST_WIDTH_PX = 20, 12, 8, 320
_LARGEST_PX = (900, 120)
"""Images wider or higher than this are shown smaller."""
_LABEL, _NOTE, _RIGHT, _WRONG = (90, 90, 90), (150, 150, 150), (0, 0, 0), (200, 0, 0)
_ROW_EM = 2.2
"""Height of a row of text: Khmer stacks two letters below and a sign above."""

Colour = tuple[int, int, int]
Pieces = list[tuple[str, Colour]]


def worst_sheet(lines: Sequence[ReadLine], image: Callable[[str], ImageSource], output: Path) -> str:
    """Draw lines one below the other.

    Args:
        lines: which; see `EvaluationReport.worst`.
        image: from a line's name to its image.
        output: PNG file to write.

    Returns:
        A sentence that says what was drawn.

    Raises:
        ConfigError: Pillow can't shape Khmer here.
        ImageError: an image can't be read.
        OutputError: the picture can't be written.
    """
    cells = [_cell(line, image(line.name)) for line in lines] or [_written([("No line was read wrong.", _RIGHT)])]
    sheet = _stacked(cells, _MARGIN_PX, _LEAST_WIDTH_PX)
    save(sheet, output)
    return f"{output}: the {len(lines)} worst lines, {sheet.width} x {sheet.height} px"


def _cell(line: ReadLine, source: ImageSource) -> Image.Image:
    picture = Image.fromarray(read_grey(source, line.name))
    picture.thumbnail(_LARGEST_PX)
    note = f"{line.name}   {line.score.edits} edits, CER {100 * line.score.cer:.0f} %"
    parts = [
        _written([(note, _NOTE)], _NOTE_SIZE_PX),
        picture,
        _written([(line.label, _LABEL)]),
        _written(_marked(comparable(line.label), comparable(line.reading))),
    ]
    return _stacked(parts)


def _stacked(parts: Sequence[Image.Image], margin_px: int = 0, least_width_px: int = 0) -> Image.Image:
    """One below another on white, each with a margin around it."""
    width = max(least_width_px, *(part.width for part in parts)) + 2 * margin_px
    sheet = Image.new("RGB", (width, sum(part.height + 2 * margin_px for part in parts)), "white")
    top = margin_px
    for part in parts:
        sheet.paste(part, (margin_px, top))
        top += part.height + 2 * margin_px
    return sheet


def _marked(label: str, reading: str) -> Pieces:
    """The reading with its wrong syllables in red, and a red caret where something was missed."""
    expected, seen = split(label), split(reading)
    pieces: Pieces = []
    for step in Levenshtein.opcodes(expected, seen):
        text = "".join(seen[step.dest_start : step.dest_end])
        pieces.append((text or "^", _RIGHT if step.tag == "equal" else _WRONG))
    return pieces or [("", _RIGHT)]


def _written(pieces: Pieces, size_px: int = _SIZE_PX) -> Image.Image:
    font = _font(size_px)
    starts = np.cumsum([0, *(font.getlength(text) for text, _ in pieces)])
    row = Image.new("RGB", (max(1, round(starts[-1]) + 2), round(_ROW_EM * size_px)), "white")
    draw = ImageDraw.Draw(row)
    for (text, colour), start in zip(pieces, starts.tolist(), strict=False):
        draw.text((start, _ROW_EM * 0.6 * size_px), text, fill=colour, font=font, anchor="ls")
    return row


@lru_cache(maxsize=4)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    import fontpkg

    # Without FriBiDi Pillow would draw Khmer unshaped and say nothing.
    if not features.check("raqm"):
        raise ConfigError(
            "Pillow can't shape Khmer here: its RAQM layout has no FriBiDi. Install libfribidi0 (apt) or fribidi "
            "(brew), or leave --worst out."
        )
    families = fontpkg.families()
    if "noto-sans-khmer" not in families:
        raise DatasetError("The font for labels is not installed. Run: pip install fontpkg-noto-sans-khmer")
    path = families["noto-sans-khmer"].files[0].path
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.RAQM)

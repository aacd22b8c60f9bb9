"""One line, augmented step by step: every op of a recipe alone, then whole recipes, so that they can be judged by eye.

Letters: B lines, H rows, W columns.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from khmer_ocr import rng
from khmer_ocr.augment.augmenter import Augmenter
from khmer_ocr.augment.limits import ABOUT, DRAWN
from khmer_ocr.augment.recipe import MIXED, STRENGTHS, Recipe, Step, load_recipe
from khmer_ocr.dataset import layout
from khmer_ocr.errors import ConfigError
from khmer_ocr.fonts.discovery import FontFace, find_faces
from khmer_ocr.preview.canvas import WIDEST_PX, Grey, grid, save, stack
from khmer_ocr.preview.contact_sheet import NOTE_SIZE_PX, Writer
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.measured_faces import measure_all
from khmer_ocr.render.planner import REASONS
from khmer_ocr.render.shaping import EM16
from khmer_ocr.samples import sample_lines
from khmer_ocr.text.normalize import normalize

SAMPLE = "ប្រយ័ត្ន! ទឹកក្តៅ!"
"""A short line of the bundled sample corpus, with stacked letters and marks above: cells stand side by side."""
TEXT_FACES = ("Battambang-Regular", "KhmerOS", "NotoSansKhmer-Regular")
"""Faces as in books and office papers, tried in this order where none is asked for."""
LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9
"""Where in its range a parameter is shown: ranges that contain 0 work in opposite ways at their ends."""
DEFAULT_COUNT = 6
_COMPANIONS = 2
"""Ops that show parts of other lines look at the two lines before."""
_ZOOM, _ZOOM_BELOW_PX = 2, 320
"""Lines narrower than this are shown enlarged."""
_FRAME, _GAP_PX = 190, 5
_TITLE_SIZE_PX = 17
_NOTE_LETTER_PX, _NOTE_LETTERS, _ABOUT_LETTERS = 6, 24, 34


@dataclass(frozen=True)
class Column:
    """A column of the sheet: a strength, a place in the ranges of parameters, and its number among its strength's."""

    title: str
    strength: str
    share: float
    place: int


def recipe_sheet(
    name: str,
    output: Path,
    *,
    strength: str | None = None,
    text: str | None = None,
    font: str | None = None,
    count: int = DEFAULT_COUNT,
    seed: int = 0,
) -> str:
    """Draw one line augmented by every op of a recipe alone, then by the whole recipe.

    Args:
        name: a shipped recipe, or a YAML file.
        output: PNG file to write.
        strength: show only this one; None (or "mixed") shows all.
        text: the line; None takes `SAMPLE`.
        font: a font file, family or face; None takes the first of `TEXT_FACES` that is here and draws the text.
        count: samples of the whole recipe at every strength.
        seed: another seed, other augmentation.

    Returns:
        A sentence that says what was drawn.

    Raises:
        ConfigError: no such recipe or one without steps, count below 1, a text that the face can't draw.
        FontError: no such font.
        OutputError: the picture can't be written.
    """
    recipe = load_recipe(name, strength or MIXED)
    if recipe is None:
        raise ConfigError("The recipe none leaves lines clean: there is nothing to show. Give another with --recipe.")
    if count < 1:
        raise ConfigError(f"count is {count}; expected 1 or more")
    # The line is there already: ops that happen while it is drawn have nothing to show.
    recipe = replace(recipe, steps=tuple(step for step in recipe.steps if step.op not in DRAWN))
    line = PreviewLine(SAMPLE if text is None else text, font, seed)
    sheet = Sheet(line, columns_of(recipe))
    per_row = len(sheet.columns) // len(sheet.strengths())
    rows = [_heading(sheet, recipe)]
    rows += [_op_cells(sheet, recipe, step) for step in recipe.steps]
    rows += [_sample_cells(sheet, recipe, first, count) for first in range(0, count, per_row)]
    sheet_HW = grid([cell for row in rows for cell in row], 1 + len(sheet.columns))
    save(sheet_HW, output)
    return (
        f"{output}: recipe {recipe.name}, {len(recipe.steps)} ops and {count} samples in {line.face.name}, "
        f"{sheet_HW.shape[1]} x {sheet_HW.shape[0]} px"
    )


def columns_of(recipe: Recipe) -> list[Column]:
    """Strengths side by side where they differ, else the low end, the middle and the high end of the ranges.

    Args:
        recipe: of one strength, or mixed.
    """
    alike = all(len(set(three)) == 1 for step in recipe.steps for three in (step.probability_3, *step.ranges.values()))
    if recipe.strength == MIXED and not alike:
        ends = {"low end": LOW, "high end": HIGH}
        shown = {strength: strength for strength in STRENGTHS}
    else:
        ends = {"low end": LOW, "middle": MIDDLE, "high end": HIGH}
        shown = {"every strength" if alike else recipe.strength: STRENGTHS[0] if alike else recipe.strength}
    return [
        Column(f"{title}, {end}", strength, share, place)
        for title, strength in shown.items()
        for place, (end, share) in enumerate(ends.items())
    ]


class PreviewLine:
    """A line and the two lines before it on its page, drawn clean, ready to be augmented.

    Args:
        text: the line.
        font: a font file, family or face; None takes a good one.
        seed: another seed, other augmentation.
    """

    def __init__(self, text: str, font: str | None, seed: int) -> None:
        self.text, self.seed = normalize(text), seed
        self.face, renderer, stroke_em = _face_for(self.text, font)
        others = [other for other in map(normalize, sample_lines()) if other != self.text]
        texts = [self.text, *(other for other in others if not renderer.planner.rejections([other])[0])]
        texts = (texts * (1 + _COMPANIONS))[: 1 + _COMPANIONS]
        plan = renderer.plan(texts, np.arange(len(texts), dtype=np.uint64), rng.key(seed, "preview", "plan"))
        self.lines = renderer.draw(texts, plan)
        self.size_ppem = plan.size64_B[0] / 64
        self.stroke_px_B = stroke_em * plan.size64_B / 64

    def augmented(self, recipe: Recipe, number: int) -> tuple[Grey, dict[str, Any]]:
        """Augment the line as a training sample.

        Args:
            recipe: how.
            number: of the sample.

        Returns:
            uint8 image (height, width), and what happened to it.
        """
        # The lines around draw other random numbers than any sample shown.
        address_B = np.arange(len(self.lines), dtype=np.uint64) * np.uint64(1 << 32) + np.uint64(number)
        lines, records = Augmenter(recipe, self.seed).augment(
            self.lines, layout.AUGMENTED_SPLIT, address_B, self.stroke_px_B
        )
        return lines.image(0), records[0]


def _face_for(text: str, font: str | None) -> tuple[FontFace, LineRenderer, float]:
    """The best of the faces asked for that draws the text, its renderer, and its stroke thickness in em."""
    faces = find_faces([font] if font else None)
    order = {name: place for place, name in enumerate(TEXT_FACES)}
    reasons: dict[str, str] = {}
    for face in sorted(faces, key=lambda face: (order.get(face.name, len(order)), face.style != "Regular", face.name)):
        metrics = measure_all([face], progress=False)
        if metrics[face.name].fatal:
            reasons[face.name] = metrics[face.name].fatal
            continue
        renderer = LineRenderer([face], metrics)
        fault = int(renderer.planner.rejections([text])[0])
        if not fault:
            return face, renderer, metrics[face.name].stroke_em16 / EM16
        reasons[face.name] = REASONS[fault]
    first = next(iter(reasons))
    more = f", nor do {len(reasons) - 1} others" if len(reasons) > 1 else ""
    raise ConfigError(f"{first} can't draw {text!r} ({reasons[first]}){more}. Give another --text or --font.")


def at_share(step: Step, strength: int, share: float) -> Step:
    """The step as it is when it happens with every parameter at one place of its range.

    Args:
        step: a step of a recipe.
        strength: number of one of `STRENGTHS`.
        share: 0 is the lowest value, 1 the highest.
    """
    fixed = {}
    for name, three in step.ranges.items():
        low, high = three[strength]
        value = low + (high - low) * share
        fixed[name] = ((value, value),) * 3
    return Step(step.op, (1.0, 1.0, 1.0), fixed)


class Sheet:
    """What all cells share: the line, the columns, the writer of labels, how far images are enlarged."""

    def __init__(self, line: PreviewLine, columns: Sequence[Column]) -> None:
        self.line, self.columns, self._writer = line, columns, Writer()
        self.zoom = _ZOOM if line.lines.width_B[0] < _ZOOM_BELOW_PX else 1

    def strengths(self) -> list[str]:
        """Those of the columns, each once."""
        return list(dict.fromkeys(column.strength for column in self.columns))

    def title(self, text: str) -> list[Grey]:
        """A large label, as a part of a cell."""
        return [_spaced(image) for image in self._writer.write([text], _TITLE_SIZE_PX)]

    def notes(self, lines: Sequence[str]) -> list[Grey]:
        """Small labels, one below another."""
        return [_spaced(image) for image in self._writer.write(lines, NOTE_SIZE_PX)]

    def cell(self, image_HW: Grey, *notes: str) -> Grey:
        """A line in a thin frame that shows where it ends, notes below."""
        large_HW = np.pad(image_HW.repeat(self.zoom, 0).repeat(self.zoom, 1), 1, constant_values=_FRAME)
        letters = max(min(large_HW.shape[1], WIDEST_PX) // _NOTE_LETTER_PX, _NOTE_LETTERS)
        lines = [line for note in notes for line in textwrap.wrap(note, letters)]
        return stack([_spaced(large_HW), *self.notes(lines)])


def _spaced(image_HW: Grey) -> Grey:
    return np.pad(image_HW, ((0, _GAP_PX), (0, 0)), constant_values=255)


def _op_cells(sheet: Sheet, recipe: Recipe, step: Step) -> list[Grey]:
    """What the op does, then for each column the line after this op alone, with the parameters that it had."""
    often = [f"{100 * step.probability_3[STRENGTHS.index(strength)]:g}" for strength in sheet.strengths()]
    about = [*textwrap.wrap(ABOUT[step.op], _ABOUT_LETTERS), f"happens to {' / '.join(often)} % of lines"]
    cells = [stack([*sheet.title(step.op), *sheet.notes(about)])]
    for column in sheet.columns:
        strength = STRENGTHS.index(column.strength)
        if not step.probability_3[strength]:
            cells.append(stack(sheet.notes([f"never when {column.strength}"])))
            continue
        only = replace(recipe, strength=column.strength, steps=(at_share(step, strength, column.share),))
        image_HW, record = sheet.line.augmented(only, column.place)
        cells.append(sheet.cell(image_HW, ", ".join(f"{name} {value:.3g}" for name, value in record[step.op].items())))
    return cells


def _sample_cells(sheet: Sheet, recipe: Recipe, first: int, count: int) -> list[Grey]:
    """For each column the line after the whole recipe, with the ops that happened."""
    per_strength = len(sheet.columns) // len(sheet.strengths())
    last = min(first + per_strength, count) - 1
    samples = f"sample {first}" if first == last else f"samples {first} to {last}"
    about = [f"{samples}; values of an op", "in the order in which they stand above"]
    cells = [stack([*sheet.title("whole recipe"), *sheet.notes(about)])]
    for column in sheet.columns:
        if first + column.place > last:
            cells.append(np.full((1, 1), 255, np.uint8))
            continue
        image_HW, record = sheet.line.augmented(replace(recipe, strength=column.strength), first + column.place)
        happened = [" ".join([op, *(f"{value:.2g}" for value in values.values())]) for op, values in record.items()]
        cells.append(sheet.cell(image_HW, *(happened or ["nothing happened"])))
    return cells


def _heading(sheet: Sheet, recipe: Recipe) -> list[Grey]:
    line = sheet.line
    notes = [f"{line.face.name}, {line.size_ppem:.1f} ppem, seed {line.seed}"]
    notes += ["each op alone, at both ends of its", "ranges; then all of them together;"]
    if line.lines.width_B[0] > WIDEST_PX:
        notes.append(f"of {line.lines.width_B[0]} px the first {WIDEST_PX} are shown")
    notes.append("shown as stored" if sheet.zoom == 1 else f"shown {sheet.zoom} x as large as stored")
    cells = [stack([*sheet.title(f"recipe {recipe.name}"), *sheet.notes(notes)])]
    for column in sheet.columns:
        cells.append(stack([*sheet.title(column.title), sheet.cell(line.lines.image(0), "clean")]))
    return cells

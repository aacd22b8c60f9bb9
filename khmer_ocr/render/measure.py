"""Measuring one face: how far its ink reaches, what is missing, by which unit of segments it shapes exactly.

Runs in a child process of `measured_faces.measure_all`, for a font is hostile until measured.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import product

import numpy as np

from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.render.face_metrics import FIT_PERCENTILE, FaceMetrics, probe_lines
from khmer_ocr.render.rasterizer import Rasterizer
from khmer_ocr.render.segments import SCRIPT_RUN, SYLLABLE, WORD, begins
from khmer_ocr.render.shaping import EM16, Glyph, Shaper, script_runs, takes_room, to_em16, undrawn, without_width

_LARGE_PX = 256
# Ink of real faces reaches 1.3 to 2.4 em in all; a size far from that comes from a broken table.
_INK_RANGE_EM = (0.25, 8.0)
# Letters, stacks and vowels whose ink leaves their advance: the ends and beginnings between which fonts kern, or choose
# another form, across a space too. Found by comparing whole runs with their segments over 20,000 lines in 92 faces.
_ENDS = ("រ", "រី", "វី", "គ", "ខ្មៅ", "ទ្ម", "ម្ម", "តុ", "បុ", "សូ", "មិ", "កំ", "ណុំ", "ដំ", "ជ្រ", "ញ", "ប៉ូ", "ធិ៍", "ពឿ", "ក៏")
_BEGINNINGS = (
    "ក",
    "រ",
    "រូ",
    "វី",
    "ដែ",
    "ផ្លែ",
    "យ្យែ",
    "ព្រៃ",
    "ក្រា",
    "ត្រ",
    "ទ្រ",
    "ស្ត្រូ",
    "រ្ក",
    "រ្គ",
    "គេ",
    "រួ",
    "ឱ",
    "ឫ",
    "ញ្ញ",
)
_SIGNS = "។៕៖ៗ៛០១៩.,:;!?()«»“”‘’\"'/-–—%$°€•៘៙៚"
_LATIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

Placed = tuple[list[tuple[int, int, int, int]], int]
"""Glyphs with ink as (font, gid, x, y), and the whole advance, in 1/65536 em."""


@lru_cache(maxsize=1)
def boundary_lines() -> list[str]:
    """Lines whose neighbours are those that fonts are known to fit to each other."""
    pairs = [a + b for a, b in product(_ENDS, _BEGINNINGS)]
    spaced = [f"{a} {b}" for a, b in product(_ENDS, _BEGINNINGS)]
    signs = [f"{end}{sign} {sign}{end}" for end in _ENDS for sign in _SIGNS]
    latin = [" ".join(letter + sign for letter in _LATIN) for sign in ("", *'-–.,"”')]
    digits = ["0123456789", " ".join("0123456789"), "0 1 2 – 3 / 4 (5) 6 % 7 $ 8 ° 9", "០ ១ ២ ៣ ៤ ៥ ៦ ៧ ៨ ៩"]
    return [*pairs, *spaced, *signs, *latin, *digits]


@lru_cache(maxsize=1)
def _probe() -> tuple[dict[str, list[str]], dict[str, dict[int, list[str]]]]:
    """Script runs of each natural line, and each distinct run of all probe lines cut into segments by each unit."""
    natural, synthetic = probe_lines()
    runs_of = {line: [run for _, run in script_runs(line)] for line in natural}
    cut: dict[str, dict[int, list[str]]] = {}
    for line in [*natural, *synthetic, *boundary_lines()]:
        for run in segments_of(line, SCRIPT_RUN):
            if run not in cut:
                cut[run] = {unit: segments_of(run, unit) for unit in (SYLLABLE, WORD)}
    return runs_of, cut


def measure(face: FontFace) -> FaceMetrics:
    """Measure a face in this process, which a hostile font may kill: `measured_faces.measure_all` is for unknown fonts.

    Args:
        face: the face to measure.

    Returns:
        Its measurements.

    Raises:
        FontError: HarfBuzz or FreeType refuse it.
    """
    runs_of, cut = _probe()
    shaper, rasteriser = Shaper(face), Rasterizer(face)
    slack_em16, faults = _render_all(rasteriser, shaper)
    shaped = {run: shaper.shape_with_fallback(run) for run in cut}
    for run in {run for runs in runs_of.values() for run in runs}.difference(shaped):
        shaped[run] = shaper.shape_with_fallback(run)
    inks = [_ink(shaper, [glyph for run in runs for glyph in shaped[run]]) for runs in runs_of.values()]
    tops, bottoms = [ink[1] for ink in inks if ink], [-ink[0] for ink in inks if ink]
    ka = _ink(shaper, shaper.shape("\u1780"))
    if ka is None or not tops:
        return FaceMetrics(fatal="its letters have no ink")
    ascent_em16 = round(float(np.percentile(tops, FIT_PERCENTILE)))
    descent_em16 = round(float(np.percentile(bottoms, FIT_PERCENTILE)))
    tall_em = (ascent_em16 + descent_em16) / EM16
    if not _INK_RANGE_EM[0] <= tall_em <= _INK_RANGE_EM[1]:
        return FaceMetrics(
            fatal=f"its lines are {tall_em:.3g} em high; expected {_INK_RANGE_EM[0]} to {_INK_RANGE_EM[1]}"
        )
    lost = {cluster for run, glyphs in shaped.items() for cluster in undrawn(shaper, run, glyphs)}
    missing = {character for cluster in lost for character in shaper.missing_characters(cluster)}
    unstacked = sorted(
        (cluster for cluster in lost if not shaper.missing_characters(cluster)), key=lambda c: (len(c), c)
    )
    malformed, cramped = _malformed(shaper), _cramped(shaper, shaped)
    inexact = _inexact(shaper, shaped, cut)
    if cramped:
        named = " ".join(character.replace(" ", "the space") for character in cramped)
        faults.append(f"gives {named} too little room (advance); lines with it go to another face")
    if missing:
        faults.append(f"has no glyph for {' '.join(sorted(missing))}")
    if unstacked:
        faults.append(f"has no form for {len(unstacked)} clusters of the probe, such as {' '.join(unstacked[:6])}")
    if malformed:
        faults.append(f"draws {' '.join(malformed)} as fragments")
    return FaceMetrics(
        ascent_em16=ascent_em16,
        descent_em16=descent_em16,
        ka_height_em16=ka[1] - ka[0],
        stroke_em16=_stroke_em16(rasteriser, shaper),
        unit=SYLLABLE if inexact[0] == 0 else WORD if inexact[1] == 0 else SCRIPT_RUN,
        inexact=inexact,
        missing="".join(sorted(missing.union(cramped))),
        malformed=malformed,
        cramped=cramped,
        slack_em16=slack_em16,
        faults=tuple(faults),
    )


def _ink(shaper: Shaper, glyphs: Iterable[Glyph]) -> tuple[int, int] | None:
    """(bottom, top) of the ink in 1/65536 em."""
    boxes = []
    for glyph in glyphs:
        box = shaper.boxes_em16(glyph.font, glyph.gid)
        if box is not None:
            y = to_em16(glyph.y_offset, shaper.upem[glyph.font])
            boxes.append((box[0] + y, box[1] + y))
    return (min(low for low, _ in boxes), max(high for _, high in boxes)) if boxes else None


def _render_all(rasteriser: Rasterizer, shaper: Shaper) -> tuple[int, list[str]]:
    """Render every glyph once and compare FreeType's ink with HarfBuzz's boxes: (slack in 1/65536 em, faults)."""
    slack_em16, faults = 0, []
    for chain, count in enumerate(shaper.glyph_count):
        scale = _LARGE_PX / shaper.upem[chain]
        for gid in range(count):
            ink_HW, _, top = rasteriser.bitmap(chain, gid, _LARGE_PX * 64)
            rows = len(ink_HW)
            if not rows:
                continue
            box = shaper.extents(Glyph(chain, gid, 0, 0, 0, 0))
            if box is None:
                slack_em16 = max(slack_em16, (max(top, 0) + max(rows - top, 0)) * EM16 // _LARGE_PX)
                faults.append(f"glyph {gid} has ink but no box")
                continue
            outside_px = max(top - 1 - box[3] * scale, box[1] * scale - (top - rows) - 1, 0.0)
            if outside_px > 1:
                faults.append(f"glyph {gid} has ink outside its box")
                slack_em16 = max(slack_em16, int(outside_px * EM16 / _LARGE_PX) + 1)
    if len(faults) > 5:
        faults = [*faults[:5], f"and {len(faults) - 5} more of this kind"]
    return slack_em16, faults


def _malformed(shaper: Shaper) -> str:
    """European digits and capitals that are fragments: under 0.8 of their kind's median height and half their advance.

    Seen in Odor Mean Chey 5.2, whose 0 is only its counter. Over 72 faces no other glyph meets both conditions.
    """
    found = ""
    for kind in ("0123456789", "ABCDEFGHIJKLMNOPRSTUVWXYZ"):
        boxes = {}
        for character in kind:
            glyphs = shaper.shape_with_fallback(character)
            ink, box = _ink(shaper, glyphs), shaper.extents(glyphs[0])
            if ink is not None and box is not None:
                boxes[character] = (ink[1] - ink[0], (box[2] - box[0]) / max(glyphs[0].advance, 1))
        if boxes:
            usual = float(np.median([height for height, _ in boxes.values()]))
            found += "".join(c for c, (height, share) in boxes.items() if height < 0.8 * usual and share < 0.5)
    return found


def _cramped(shaper: Shaper, shaped: dict[str, list[Glyph]]) -> str:
    """Characters of the probe without a width in some run, or alone with under a quarter of their ink's width.

    The least share of 92 faces is 0.42, the j of three hands that reaches far below the letter before it.
    """
    found = {character for run, glyphs in shaped.items() for character in without_width(shaper, run, glyphs)}
    for character in sorted({character for run in shaped for character in run if takes_room(ord(character))}):
        glyphs = shaper.shape_with_fallback(character)
        box = shaper.extents(glyphs[0])
        if len(glyphs) == 1 and glyphs[0].gid and box is not None and 4 * glyphs[0].advance < box[2] - box[0]:
            found.add(character)
    return "".join(sorted(found))


def _stroke_em16(rasteriser: Rasterizer, shaper: Shaper) -> int:
    """Median length of horizontal ink runs over KA, DO, TA, BA, RO at 256 ppem: the thickness of vertical strokes."""
    lengths = []
    for letter in "\u1780\u178a\u178f\u1794\u179a":
        for glyph in shaper.shape(letter):
            coverage_HW, _, _ = rasteriser.bitmap(0, glyph.gid, _LARGE_PX * 64)
            edges = np.diff(np.pad((coverage_HW > 127).astype(np.int8), ((0, 0), (1, 1))), axis=1)
            lengths.append(np.nonzero(edges < 0)[1] - np.nonzero(edges > 0)[1])
    found = np.concatenate([np.zeros(0, np.int64), *lengths])
    return round(float(np.median(found)) * EM16 / _LARGE_PX) if len(found) else 0


def segments_of(line: str, unit: int) -> list[str]:
    """Cut a line into the segments that the shaping cache would look up."""
    codes = [ord(character) for character in line]
    cuts = [0]
    for position in range(1, len(codes)):
        if begins(codes[cuts[-1]], codes[position - 1], codes[position], unit):
            cuts.append(position)
    return [line[a:b] for a, b in zip(cuts, [*cuts[1:], len(line)], strict=True)]


def placed(shaper: Shaper, glyphs: Iterable[Glyph]) -> Placed:
    """Where shaped glyphs stand, in the shaping cache's arithmetic."""
    out, pen = [], 0
    for font, gid, _, x_offset, y_offset, advance in glyphs:
        upem = shaper.upem[font]
        if shaper.boxes_em16(font, gid) is not None:
            out.append((font, gid, pen + to_em16(x_offset, upem), to_em16(y_offset, upem)))
        pen += to_em16(advance, upem)
    return out, pen


def concatenated(segments: Iterable[Placed]) -> Placed:
    """Segments set one after another."""
    out: list[tuple[int, int, int, int]] = []
    pen = 0
    for glyphs, advance in segments:
        out += [(font, gid, pen + x, y) for font, gid, x, y in glyphs]
        pen += advance
    return out, pen


def _inexact(
    shaper: Shaper, shaped: dict[str, list[Glyph]], cut: dict[str, dict[int, list[str]]]
) -> tuple[float, float]:
    """Shares of script runs whose glyphs or places differ when put together from syllables, and from words."""
    wrong = {SYLLABLE: 0, WORD: 0}
    known = {run: placed(shaper, shaped[run]) for run in cut}
    for run, by_unit in cut.items():
        whole = known[run]
        for unit, segments in by_unit.items():
            for segment in segments:
                if segment not in known:
                    known[segment] = placed(shaper, shaper.shape_with_fallback(segment))
            wrong[unit] += concatenated(known[segment] for segment in segments) != whole
    return wrong[SYLLABLE] / len(cut), wrong[WORD] / len(cut)

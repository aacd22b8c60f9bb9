"""What a face measures: ink extents, the smallest piece it shapes exactly, what it lacks, what is wrong with it.

Fonts are hostile until measured: a child process opens each, shapes the probe lines and renders every glyph. A font that
kills the child is quarantined by name; the others go on. Results are kept by content, so a font is measured once.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import uharfbuzz as hb
import xxhash

from khmer_ocr.render.atlas import Rasteriser, cache_dir, freetype_version
from khmer_ocr.render.fonts import FontFace
from khmer_ocr.render.runs import SCRIPT_RUN, SYLLABLE, WORD, _begins, undrawn
from khmer_ocr.render.shape import EM16, Glyph, Shaper, script_runs

log = logging.getLogger(__name__)
METRICS_VERSION = 1
PROBE_TIMEOUT_S = 120
FIT_PERCENTILE = 99.5
UNIT_NAMES = ("syllable", "word", "script run")


@dataclass(frozen=True)
class FaceMetrics:
    """Measurements of one face; lengths in 1/65536 em.

    Attributes:
        ascent_em16: 99.5th percentile of ink above the baseline over the probe lines.
        descent_em16: the same below the baseline.
        ka_height_em16: ink height of U+1780.
        stem_em16: median thickness of vertical strokes.
        unit: smallest piece whose shaping does not depend on its neighbours: SYLLABLE, WORD or SCRIPT_RUN.
        inexact: share of probe runs that differ when put together from syllables, and from words.
        missing: characters of the probe that no font of the chain draws.
        malformed: characters whose glyph is a fragment (a digit or capital far lower than its kind); never drawn.
        slack_em16: by how much FreeType's ink may leave HarfBuzz's box.
        faults: what is wrong, in words; a face with `fatal` is not used.
        fatal: why the face can't be used, empty if it can.
    """

    ascent_em16: int = 0
    descent_em16: int = 0
    ka_height_em16: int = 0
    stem_em16: int = 0
    unit: int = SYLLABLE
    inexact: tuple[float, float] = (0.0, 0.0)
    missing: str = ""
    malformed: str = ""
    slack_em16: int = 0
    faults: tuple[str, ...] = ()
    fatal: str = ""


@lru_cache(maxsize=1)
def probe_lines() -> tuple[list[str], list[str]]:
    """Lines that fonts are measured on: natural ones (sizes, exactness) and synthetic ones (exactness, coverage)."""
    from khmer_ocr.text.corpus import sample_lines
    from khmer_ocr.text.synthesize import synthesize_lines

    return sample_lines(), list(synthesize_lines(600, seed=0))


def measure(face: FontFace) -> FaceMetrics:
    """Measure a face in this process; a hostile font may kill it, so use `measure_all` for fonts not yet known."""
    natural, synthetic = probe_lines()
    shaper = Shaper(face)
    slack_em16, faults = _render_all(face, shaper)
    tops, bottoms = [], []
    for line in natural:
        box = _ink(shaper, [glyph for _, run in script_runs(line) for glyph in shaper.shape_with_fallback(run)])
        if box is not None:
            tops.append(box[1])
            bottoms.append(-box[0])
    missing = {
        character
        for line in [*natural, *synthetic]
        for _, run in script_runs(line)
        for character in undrawn(shaper, run, shaper.shape_with_fallback(run))
    }
    malformed = _malformed(shaper)
    ka = _ink(shaper, shaper.shape("\u1780"))
    if ka is None or not tops:
        return FaceMetrics(fatal="its letters have no ink")
    inexact = tuple(_inexact(shaper, unit, [*natural, *synthetic]) for unit in (SYLLABLE, WORD))
    if missing:
        faults.append(f"lacks {' '.join(sorted(missing))}")
    if malformed:
        faults.append(f"draws {' '.join(malformed)} as fragments")
    return FaceMetrics(
        ascent_em16=round(float(np.percentile(tops, FIT_PERCENTILE))),
        descent_em16=round(float(np.percentile(bottoms, FIT_PERCENTILE))),
        ka_height_em16=ka[1] - ka[0],
        stem_em16=_stem_em16(face, shaper),
        unit=SYLLABLE if inexact[0] == 0 else WORD if inexact[1] == 0 else SCRIPT_RUN,
        inexact=(inexact[0], inexact[1]),
        missing="".join(sorted(missing)),
        malformed=malformed,
        slack_em16=slack_em16,
        faults=tuple(faults),
    )


def _ink(shaper: Shaper, glyphs: Iterable[Glyph]) -> tuple[int, int] | None:
    """(bottom, top) of the ink in 1/65536 em."""
    boxes = []
    for glyph in glyphs:
        box, scale = shaper.extents(glyph), EM16 / shaper.upem[glyph.font]
        if box is not None:
            boxes.append(((box[1] + glyph.y_offset) * scale, (box[3] + glyph.y_offset) * scale))
    return (round(min(low for low, _ in boxes)), round(max(high for _, high in boxes))) if boxes else None


def _render_all(face: FontFace, shaper: Shaper) -> tuple[int, list[str]]:
    """Render every glyph once and compare FreeType's ink with HarfBuzz's boxes: (slack in 1/65536 em, faults)."""
    rasteriser, slack_em16, faults = Rasteriser(face), 0, []
    size_px = 256
    for chain, count in enumerate(shaper.glyph_count):
        for gid in range(count):
            pixels, rows, columns, _, _, top = rasteriser.rasters(chain, gid, size_px * 64, [0])[0]
            box = shaper.extents(Glyph(chain, gid, 0, 0, 0, 0))
            if not rows or not columns or not any(pixels):
                continue
            if box is None:
                slack_em16 = max(slack_em16, (max(top, 0) + max(rows - top, 0)) * EM16 // size_px)
                faults.append(f"glyph {gid} has ink but no box")
                continue
            scale = size_px / shaper.upem[chain]
            outside_px = max(top - 1 - box[3] * scale, box[1] * scale - (top - rows) - 1, 0.0)
            if outside_px > 1:
                faults.append(f"glyph {gid} has ink outside its box")
                slack_em16 = max(slack_em16, int(outside_px * EM16 / size_px) + 1)
    if len(faults) > 5:
        faults = [*faults[:5], f"and {len(faults) - 5} more of this kind"]
    return slack_em16, faults


def _malformed(shaper: Shaper) -> str:
    """European digits and capitals that are fragments: lower than 0.8 of their kind's median and under half their advance.

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


def _stem_em16(face: FontFace, shaper: Shaper) -> int:
    """Median length of horizontal ink runs over KA, DO, TA, BA, RO at 256 ppem: the thickness of vertical strokes."""
    rasteriser, lengths = Rasteriser(face), []
    for letter in "\u1780\u178a\u178f\u1794\u179a":
        for glyph in shaper.shape(letter):
            pixels, rows, columns, pitch, _, _ = rasteriser.rasters(0, glyph.gid, 256 * 64, [0])[0]
            if not rows or not columns:
                continue
            ink_HW = np.frombuffer(pixels, np.uint8).reshape(rows, pitch)[:, :columns] > 127
            edges = np.diff(np.pad(ink_HW.astype(np.int8), ((0, 0), (1, 1))), axis=1)
            lengths.append(np.nonzero(edges < 0)[1] - np.nonzero(edges > 0)[1])
    found = np.concatenate([np.zeros(0, np.int64), *lengths])
    return round(float(np.median(found)) * EM16 / 256) if len(found) else 0


def pieces(line: str, unit: int) -> list[str]:
    """Cut a line into the pieces that the run cache would look up."""
    codes = [ord(character) for character in line]
    cuts = [0]
    for position in range(1, len(codes)):
        if _begins(codes[cuts[-1]], codes[position - 1], codes[position], unit):
            cuts.append(position)
    return [line[a:b] for a, b in zip(cuts, [*cuts[1:], len(line)], strict=True)]


def placed(shaper: Shaper, parts: Iterable[str]) -> tuple[list[tuple[int, int, float, float]], float]:
    """Glyphs with ink of parts set one after another: (font, gid, x, y) in em, and the whole advance in em."""
    out, pen = [], 0.0
    for part in parts:
        for glyph in shaper.shape_with_fallback(part):
            upem = shaper.upem[glyph.font]
            if shaper.extents(glyph) is not None:
                out.append((glyph.font, glyph.gid, round(pen + glyph.x_offset / upem, 6), round(glyph.y_offset / upem, 6)))
            pen += glyph.advance / upem
    return out, round(pen, 6)


def _inexact(shaper: Shaper, unit: int, lines: Sequence[str]) -> float:
    """Share of script runs whose glyphs or places differ when they are put together from smaller pieces."""
    wrong = total = 0
    known: dict[str, tuple[list[tuple[int, int, float, float]], float]] = {}
    for line in lines:
        for run in pieces(line, SCRIPT_RUN):
            total += 1
            whole, advance = placed(shaper, [run])
            glyphs, pen = [], 0.0
            for piece in pieces(run, unit):
                if piece not in known:
                    known[piece] = placed(shaper, [piece])
                part, width = known[piece]
                glyphs += [(font, gid, round(x + pen, 6), y) for font, gid, x, y in part]
                pen += width
            same = len(glyphs) == len(whole) and abs(pen - advance) < 1e-4
            wrong += not (same and all(_near(a, b) for a, b in zip(glyphs, whole, strict=True)))
    return wrong / max(total, 1)


def _near(a: tuple[int, int, float, float], b: tuple[int, int, float, float]) -> bool:
    return a[:2] == b[:2] and abs(a[2] - b[2]) < 1e-4 and abs(a[3] - b[3]) < 1e-4


def _cache_file(face: FontFace) -> Path:
    natural, synthetic = probe_lines()
    probe = xxhash.xxh3_64_hexdigest("\n".join([*natural, *synthetic]).encode())
    circumstances = f"{METRICS_VERSION}|{hb.version_string()}|{freetype_version()}|{probe}"
    return cache_dir() / "metrics" / f"{face.sha256[:32]}-{xxhash.xxh3_64_hexdigest(circumstances.encode())}.json"


def measure_all(faces: Sequence[FontFace]) -> dict[str, FaceMetrics]:
    """Measure faces, each once and for all, in a child process that a hostile font may kill.

    Args:
        faces: faces to measure.

    Returns:
        Metrics by face name; `fatal` says why a face can't be used.
    """
    known = {}
    unknown = []
    for face in faces:
        file = _cache_file(face)
        stored = _read_cached(file) if file.is_file() else None
        if stored is None:
            unknown.append(face)
        else:
            known[face.name] = stored
    while unknown:
        measured = _measure_in_child(unknown)
        for face, metrics in zip(unknown, measured, strict=False):
            known[face.name] = metrics
            _write_cached(_cache_file(face), metrics)
        unknown = unknown[len(measured) :]
    return known


def _read_cached(file: Path) -> FaceMetrics | None:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return from_json(stored)
    except (ValueError, TypeError, OSError) as error:
        log.warning("measurements in %s are damaged (%s); measuring again", file, error)
        return None


def from_json(stored: dict[str, object]) -> FaceMetrics:
    """Rebuild metrics from their JSON object."""
    lists = {key: tuple(value) for key, value in stored.items() if isinstance(value, list)}
    return FaceMetrics(**{**stored, **lists})  # type: ignore[arg-type]


def _write_cached(file: Path, metrics: FaceMetrics) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(asdict(metrics), ensure_ascii=False), encoding="utf-8")
    partial.replace(file)


def quarantine(face: FontFace, why: str) -> None:
    """Remember that a face must not be used again."""
    _write_cached(_cache_file(face), FaceMetrics(fatal=why))


def _measure_in_child(faces: Sequence[FontFace]) -> list[FaceMetrics]:
    """Measure in order until done or until the child dies; the face it died on gets `fatal`."""
    task = json.dumps([{**asdict(face), "files": [str(file) for file in face.files]} for face in faces])
    command = [sys.executable, "-m", "khmer_ocr.render.probe"]
    timeout_s = PROBE_TIMEOUT_S + 5 * len(faces)
    try:
        child = subprocess.run(command, input=task, capture_output=True, text=True, timeout=timeout_s, check=False)
        output, code, errors = child.stdout, child.returncode, child.stderr
    except subprocess.TimeoutExpired as slow:
        raw = slow.stdout or b""
        output = raw.decode() if isinstance(raw, bytes) else raw
        code, errors = -9, f"it took over {timeout_s} s"
    done = [from_json(json.loads(line)) for line in output.splitlines() if line.endswith("}")]
    if len(done) < len(faces):
        last = errors.strip().splitlines()[-1] if errors.strip() else "no message"
        name = faces[len(done)].name
        log.warning("font %s killed the process that measured it (exit %d: %s); it is left out", name, code, last)
        done.append(FaceMetrics(fatal=f"it killed the process that measured it (exit {code}: {last})"))
    return done

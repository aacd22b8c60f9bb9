"""What faces measure, each measured once and kept by content.

Fonts are hostile until measured: child processes open each, shape the probe lines and render every glyph
(`measure.measure`). A font that kills its child is quarantined by name; the others go on.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import uharfbuzz as hb
import xxhash
from tqdm import tqdm

from khmer_ocr.errors import OutputError
from khmer_ocr.io.atomic import replacing
from khmer_ocr.io.json_bytes import json_bytes
from khmer_ocr.render.atlas import cache_dir, freetype_version
from khmer_ocr.render.fonts import FontFace
from khmer_ocr.render.pieces import SYLLABLE

log = logging.getLogger(__name__)
METRICS_VERSION = 4
"""Grows whenever anything that is measured, or its meaning, changes."""
UNMEASURED = "could not be measured"
"""In `fatal` of a face whose measuring failed for a reason that is not the face's; such a result is not kept."""
FIT_PERCENTILE = 99.5
UNIT_NAMES = ("syllable", "word", "script run")
_QUIET_BELOW = 5


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
        missing: characters of the probe that no font of the chain has, or that it cramps.
        malformed: characters whose glyph is a fragment (a digit or capital far lower than its kind); never drawn.
        cramped: characters that get no room in the line, or under a quarter of their ink's width; never drawn.
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
    cramped: str = ""
    slack_em16: int = 0
    faults: tuple[str, ...] = ()
    fatal: str = ""


@lru_cache(maxsize=1)
def probe_lines() -> tuple[list[str], list[str]]:
    """Lines that fonts are measured on: natural ones (sizes, exactness) and synthetic ones (exactness, coverage)."""
    from khmer_ocr.text.corpus import sample_lines
    from khmer_ocr.text.synthesize import synthesize_lines

    return sample_lines(), list(synthesize_lines(600, seed=0))


@lru_cache(maxsize=1)
def _circumstances() -> str:
    natural, synthetic = probe_lines()
    probe = xxhash.xxh3_64_hexdigest("\n".join([*natural, *synthetic]).encode())
    seen = f"{METRICS_VERSION}|{hb.version_string()}|{freetype_version()}|{probe}"
    return xxhash.xxh3_64_hexdigest(seen.encode())


def _cache_file(face: FontFace) -> Path:
    return cache_dir() / "metrics" / f"{face.sha256[:32]}-{_circumstances()}.json"


def measure_all(faces: Sequence[FontFace], *, progress: bool = True) -> dict[str, FaceMetrics]:
    """Measure faces, each once and for all, in child processes that a hostile font may kill.

    Args:
        faces: faces to measure.
        progress: show a bar where more than a few are not known yet.

    Returns:
        Metrics by face name; `fatal` says why a face can't be used.

    Raises:
        OutputError: the cache folder can't be written.
    """
    from khmer_ocr.render.probe import measure_in_children

    known, unknown = {}, []
    for face in faces:
        file = _cache_file(face)
        stored = _read_cached(file) if file.is_file() else None
        if stored is None:
            unknown.append(face)
        else:
            known[face.name] = stored
    quiet = not progress or len(unknown) < _QUIET_BELOW
    with tqdm(total=len(unknown), desc="measuring fonts", unit="face", disable=quiet) as bar:
        for face, metrics in measure_in_children(unknown):
            known[face.name] = metrics
            if UNMEASURED not in metrics.fatal:
                _write_cached(_cache_file(face), metrics)
            bar.update()
    return known


def quarantine(face: FontFace, why: str) -> None:
    """Remember that a face must not be used again."""
    _write_cached(_cache_file(face), FaceMetrics(fatal=why))


def release(faces: Sequence[FontFace]) -> list[FontFace]:
    """Forget why faces can't be used, so that they are measured again.

    Returns:
        Those that were in quarantine.

    Raises:
        OutputError: the cache folder can't be written.
    """
    released = []
    for face in faces:
        file = _cache_file(face)
        stored = _read_cached(file) if file.is_file() else None
        if stored is not None and stored.fatal:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{file} can't be removed ({error.strerror}). Make its folder writable.") from error
            released.append(face)
    return released


def from_json(stored: dict[str, object]) -> FaceMetrics:
    """Rebuild metrics from their JSON object."""
    lists = {key: tuple(value) for key, value in stored.items() if isinstance(value, list)}
    return FaceMetrics(**{**stored, **lists})  # type: ignore[arg-type]


def _checksum(file: Path, measured: dict[str, object]) -> str:
    """Digest of measurements and of whose they are: a file under another face's name does not check out."""
    content = json.dumps(measured, sort_keys=True)
    return xxhash.xxh3_128_hexdigest(f"{file.name}|{content}".encode())


def _read_cached(file: Path) -> FaceMetrics | None:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        if stored["check"] != _checksum(file, stored["metrics"]):
            raise ValueError("they do not match their checksum")
        return from_json(stored["metrics"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OSError) as error:
        log.warning("measurements in %s are damaged (%s); the font is measured again", file, error or repr(error))
        return None


def _write_cached(file: Path, metrics: FaceMetrics) -> None:
    # As JSON will give them back, where tuples are lists.
    measured = json.loads(json.dumps(asdict(metrics)))
    stored = {"check": _checksum(file, measured), "metrics": measured}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial:
            partial.write_bytes(json_bytes(stored))
    except OSError as error:
        # Unlike rasters these must be kept: a quarantined font that is forgotten kills again.
        raise OutputError(
            f"Measurements of fonts can't be kept in {file.parent} ({error.strerror}). Make it writable, "
            "or name another folder in KHMER_OCR_CACHE."
        ) from error

"""Faces that can be used: each measured once, in a child process, and kept by content.

Fonts are hostile until measured: child processes open each, shape the probe lines and render every glyph
(`render.measure`). A font that kills its child is quarantined by name; the others go on.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import uharfbuzz as hb
import xxhash
from tqdm import tqdm

from khmer_ocr.errors import NoFontsError
from khmer_ocr.fonts.discovery import FontFace, find_faces
from khmer_ocr.io.atomic import replace
from khmer_ocr.io.cache_dir import cache_dir
from khmer_ocr.io.json_bytes import json_bytes
from khmer_ocr.io.os_errors import output_errors
from khmer_ocr.render.face_metrics import UNMEASURED, FaceMetrics, from_json, probe_lines
from khmer_ocr.render.glyph_atlas import freetype_version
from khmer_ocr.render.measure_worker import measure_in_children

log = logging.getLogger(__name__)
METRICS_VERSION = 5
"""Grows whenever anything that is measured, or its meaning, changes."""
_QUIET_BELOW = 5


def usable_faces(
    fonts: Sequence[str | Path] | None, *, fonts_dir: Path, system: bool
) -> tuple[list[FontFace], dict[str, FaceMetrics]]:
    """Find and measure faces, leaving out with a warning those that can't be used.

    Args:
        fonts: files, folders, families or faces; None takes `fonts_dir` and installed font packages.
        fonts_dir: folder that `khmer-ocr fonts install` fills.
        system: look into the system's folders too.

    Returns:
        The usable faces, and metrics of all by name.

    Raises:
        NoFontsError: none is left.
        FontError: a font named by the user can't be read or does not exist.
    """
    faces = find_faces(fonts, fonts_dir=fonts_dir, system=system)
    metrics = measure_all(faces)
    fatal = [face for face in faces if metrics[face.name].fatal]
    for face in fatal:
        log.warning("font %s (%s) is left out: %s", face.name, face.files[0], metrics[face.name].fatal)
    kept = [face for face in faces if not metrics[face.name].fatal]
    if not kept:
        reasons = "; ".join(f"{face.name}: {metrics[face.name].fatal}" for face in fatal)
        raise NoFontsError(f"No Khmer fonts found that can be used ({reasons}). Run: khmer-ocr fonts check")
    return kept, metrics


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
            with output_errors(file.parent):
                file.unlink(missing_ok=True)
            released.append(face)
    return released


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
    # Unlike rasters these must be kept: a quarantined font that is forgotten kills again.
    with output_errors(file.parent, "name another folder in KHMER_OCR_CACHE", "Measurements of fonts are kept there."):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace(file, json_bytes(stored))

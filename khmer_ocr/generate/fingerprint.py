"""What the bytes of a data set depend on, recorded with it and compared when a run goes on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version as version_of
from typing import Any

import uharfbuzz as hb
from khmer_ocr_kernels.png_encoder import ENCODING_VERSION

from khmer_ocr import version
from khmer_ocr.augment.recipe import NONE, Recipe
from khmer_ocr.dataset import layout
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.generate.split_text import SplitText
from khmer_ocr.render.glyph_atlas import freetype_version
from khmer_ocr.render.settings import RenderConfig
from khmer_ocr.text.normalize import CHANGED_IN, NORMALIZER_VERSION

_PACKAGE, NORMAL_FORM = "khmer_ocr", "normalizer"
"""Keys of a run's `versions`."""

DRAWING_VERSION, AUGMENTATION_VERSION = 1, 1
"""Raised when a change of this project changes pixels, so that a run is never completed with other ones."""


def fingerprint(
    faces: Sequence[FontFace],
    render: RenderConfig,
    format_name: str,
    seed: int,
    texts: Mapping[str, SplitText],
    recipe: Recipe | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Collect seed, settings, fonts, recipe, versions and corpora as one JSON object: the run, as it is recorded."""
    return {
        "seed": seed,
        "format": format_name,
        "chunk": layout.CHUNK,
        "render": asdict(render),
        "recipe": recipe.fingerprint() if recipe else NONE,
        "fonts": {face.name: face.sha256 for face in faces},
        "versions": {
            _PACKAGE: version.__version__,
            "drawing": DRAWING_VERSION,
            NORMAL_FORM: NORMALIZER_VERSION,
            "harfbuzz": hb.version_string(),
            "freetype": freetype_version(),
            "png": ENCODING_VERSION,
            **(_augmentation_versions(recipe, device) if recipe else {}),
        },
        "splits": {
            name: {"corpus_sha256": text.sha256, "lines": text.lines, "max_lines": text.max_lines}
            for name, text in sorted(texts.items(), key=lambda item: layout.SPLITS.index(item[0]))
        },
    }


def deciding_versions(versions: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's versions that its bytes depend on; the package's own is recorded for information alone.

    The normal form is left out too: where texts are drawn as they stand in the metadata it plays no part, and elsewhere
    `renormalised_lines` says whether it does.
    """
    return {name: value for name, value in versions.items() if name not in (_PACKAGE, NORMAL_FORM)}


def renormalised_lines(version: object, texts: Iterable[SplitText]) -> int | None:
    """Count the lines whose normal form may be another today than it was in an older version.

    Args:
        version: of the normal form that a run records.
        texts: what is to be drawn.

    Returns:
        How many lines there are that later versions write otherwise; None where nothing is known of that version.
    """
    if version == NORMALIZER_VERSION:
        return 0
    if type(version) is not int or not 0 < version < NORMALIZER_VERSION:
        return None
    later = [CHANGED_IN.get(number) for number in range(version + 1, NORMALIZER_VERSION + 1)]
    patterns = [pattern for pattern in later if pattern is not None]
    if len(patterns) < len(later):
        return None
    return sum(any(pattern.search(line) for pattern in patterns) for text in texts for line in text.read())


def as_known(known: Mapping[str, Any], run: dict[str, Any], texts: Iterable[SplitText]) -> dict[str, Any]:
    """A run with what changes none of its bytes as the known run has it: the versions it was begun with."""
    before, versions = known.get("versions"), dict(run["versions"])
    if not isinstance(before, dict):
        return run
    if _PACKAGE in before:
        versions[_PACKAGE] = before[_PACKAGE]
    else:
        del versions[_PACKAGE]
    if before.get(NORMAL_FORM) != versions[NORMAL_FORM] and renormalised_lines(before.get(NORMAL_FORM), texts) == 0:
        versions[NORMAL_FORM] = before[NORMAL_FORM]
    return {**run, "versions": versions}


def _augmentation_versions(recipe: Recipe, device: str) -> dict[str, Any]:
    """What augmentation depends on: fused kernels give the same everywhere, float ops on one device and version."""
    own = {"wear": AUGMENTATION_VERSION}
    if recipe.engine == "fused":
        return own
    return {**own, "torch": version_of("torch"), "kornia": version_of("kornia"), "device": device}

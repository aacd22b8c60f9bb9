"""What the bytes of a data set depend on, recorded with it and compared when a run goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import uharfbuzz as hb
from khmer_ocr_kernels.png import ENCODING_VERSION

import khmer_ocr
from khmer_ocr.augment.recipe import NONE, Recipe
from khmer_ocr.dataset import layout
from khmer_ocr.generate.source import SplitText
from khmer_ocr.render.atlas import freetype_version
from khmer_ocr.render.fonts import FontFace
from khmer_ocr.render.plan import RenderConfig
from khmer_ocr.text.normalize import NORMALIZER_VERSION

DRAWING_VERSION, WEAR_VERSION = 1, 1
"""Raised when a change of this project changes pixels, so that a run is never finished by another drawing or wear."""


def run_identity(
    faces: Sequence[FontFace],
    render: RenderConfig,
    format_name: str,
    seed: int,
    texts: Mapping[str, SplitText],
    recipe: Recipe | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Collect seed, settings, fonts, recipe, versions and corpora as one JSON object."""
    return {
        "seed": seed,
        "format": format_name,
        "chunk": layout.CHUNK,
        "render": asdict(render),
        "recipe": recipe.identity() if recipe else NONE,
        "fonts": {face.name: face.sha256 for face in faces},
        "versions": {
            "khmer_ocr": khmer_ocr.__version__,
            "drawing": DRAWING_VERSION,
            "normalizer": NORMALIZER_VERSION,
            "harfbuzz": hb.version_string(),
            "freetype": freetype_version(),
            "png": ENCODING_VERSION,
            **(_wear_versions(recipe, device) if recipe else {}),
        },
        "splits": {
            name: {"corpus_sha256": text.sha256, "lines": text.lines, "max_lines": text.max_lines}
            for name, text in sorted(texts.items(), key=lambda item: layout.SPLITS.index(item[0]))
        },
    }


def _wear_versions(recipe: Recipe, device: str) -> dict[str, Any]:
    """What worn bytes depend on: fused kernels give the same everywhere, sums of floats on one device and version."""
    if recipe.engine == "fused":
        return {"wear": WEAR_VERSION}
    return {"wear": WEAR_VERSION, "torch": version("torch"), "kornia": version("kornia"), "device": device}

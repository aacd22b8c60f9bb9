"""What is measured of a face, and the lines it is measured on."""

from dataclasses import dataclass
from functools import lru_cache

from khmer_ocr.corpus.synthesis.syllable_lines import synthesize_lines
from khmer_ocr.render.segments import SYLLABLE
from khmer_ocr.samples import sample_lines

UNMEASURED = "could not be measured"
"""In `fatal` of a face whose measuring failed for a reason that is not the face's; such a result is not kept."""
FIT_PERCENTILE = 99.5
UNIT_NAMES = ("syllable", "word", "script run")


@dataclass(frozen=True)
class FaceMetrics:
    """Measurements of one face; lengths in 1/65536 em.

    Attributes:
        ascent_em16: 99.5th percentile of ink above the baseline over the probe lines.
        descent_em16: the same below the baseline.
        ka_height_em16: ink height of U+1780.
        stroke_em16: median thickness of vertical strokes.
        unit: smallest segment whose shaping does not depend on its neighbours: SYLLABLE, WORD or SCRIPT_RUN.
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
    stroke_em16: int = 0
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
    return sample_lines(), list(synthesize_lines(600, seed=0))


def from_json(stored: dict[str, object]) -> FaceMetrics:
    """Rebuild metrics from their JSON object."""
    lists = {key: tuple(value) for key, value in stored.items() if isinstance(value, list)}
    return FaceMetrics(**{**stored, **lists})  # type: ignore[arg-type]

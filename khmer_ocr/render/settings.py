"""How lines are drawn: what a user may choose. Importing this needs neither HarfBuzz nor FreeType."""

from dataclasses import dataclass, fields
from typing import Literal

from khmer_ocr.errors import ConfigError


@dataclass(frozen=True)
class RenderConfig:
    """How lines are drawn.

    Attributes:
        image_height: px, 24 to 96.
        crop: "line" leaves each face at its own sizes, as on a page; "tight" scales every line to fill the height,
            "mixed" draws half of the lines larger than their faces' sizes, by chance up to the whole height.
        size_steps: sizes per face.
        min_size: smallest step as a share of the largest.
        baseline_jitter: px the baseline may move at a height of 32.
        min_margin: px of paper left and right of the ink, at least.
        max_margin: the same, at most.
        max_width: px; longer lines are rejected.
        max_chars: code points; longer lines are rejected.
    """

    image_height: int = 32
    crop: Literal["line", "tight", "mixed"] = "line"
    size_steps: int = 5
    min_size: float = 0.8
    baseline_jitter: int = 2
    min_margin: int = 2
    max_margin: int = 6
    max_width: int = 4096
    max_chars: int = 1000

    def __post_init__(self) -> None:
        """Refuse settings that can't be drawn."""
        if not 24 <= self.image_height <= 96:
            raise ConfigError(f"image_height is {self.image_height}; expected 24 to 96 px")
        if self.crop not in ("line", "tight", "mixed"):
            raise ConfigError(f"crop is {self.crop!r}; expected 'line', 'tight' or 'mixed'")
        if not 0.5 <= self.min_size <= 1.0 or not 1 <= self.size_steps <= 16:
            raise ConfigError(f"min_size {self.min_size} x size_steps {self.size_steps}; expected 0.5-1.0 and 1-16")
        if not 0 <= self.min_margin <= self.max_margin <= 64:
            raise ConfigError(f"margins {self.min_margin}..{self.max_margin} px; expected 0 <= min <= max <= 64")
        for name in (field.name for field in fields(self) if field.type is int or field.type == "int"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")

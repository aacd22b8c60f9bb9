"""How lines are drawn: what a user may choose. Importing this needs neither HarfBuzz nor FreeType."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from khmer_ocr.constraints import AtLeast0, Px, Settings
from khmer_ocr.errors import ConfigError

Margin = Annotated[int, Interval(ge=0, le=64), Px]


@dataclass(frozen=True)
class RenderConfig(Settings):
    """How lines are drawn.

    Attributes:
        image_height: 24 to 96 px; default 32.
        crop: "line" (default) keeps each face's own sizes; "tight" scales every line to fill the height;
            "mixed" draws half of the lines larger, up to that.
        size_steps: sizes per face.
        min_size: smallest step as a share of the largest.
        baseline_jitter: px the baseline may move at a height of 32.
        min_margin: px of background left and right of the ink, at least.
        max_margin: the same, at most.
        max_width: px; longer lines are rejected.
        max_chars: code points; longer lines are rejected.
    """

    image_height: Annotated[int, Interval(ge=24, le=96), Px] = 32
    crop: Literal["line", "tight", "mixed"] = "line"
    size_steps: Annotated[int, Interval(ge=1, le=16)] = 5
    min_size: Annotated[float, Interval(ge=0.5, le=1)] = 0.8
    baseline_jitter: Annotated[AtLeast0, Px] = 2
    min_margin: Margin = 2
    max_margin: Margin = 6
    max_width: Annotated[AtLeast0, Px] = 4096
    max_chars: AtLeast0 = 1000

    def __post_init__(self) -> None:
        """Refuse settings that can't be drawn."""
        super().__post_init__()
        if self.max_margin < self.min_margin:
            raise ConfigError(
                f"max_margin is {self.max_margin} px, below min_margin {self.min_margin}; raise max_margin"
            )

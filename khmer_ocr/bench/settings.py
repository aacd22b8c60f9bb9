"""What the measurements of `bench` take: settings alone. Importing this needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval

from khmer_ocr.augment.recipe import Strength, load_recipe
from khmer_ocr.constraints import AtLeast1, NotNegative, Settings
from khmer_ocr.errors import ConfigError
from khmer_ocr.io.devices import Device
from khmer_ocr.text.metrics import Fold

BATCH_LINES = 32
"""Of the proxy of `bench data`: a data set holds a batch at least."""


@dataclass(frozen=True)
class LoadBenchConfig(Settings):
    """What `bench load` measures.

    Attributes:
        split: Which split.
        engines: Which engines; those that are not installed are passed over, and named.
        epochs: Timed epochs, after one that warms up.
        step_ms: Pretend to train for so long on each batch.
    """

    split: str = "train"
    engines: tuple[Literal["dali", "torch"], ...] = ("torch", "dali")
    epochs: AtLeast1 = 3
    step_ms: NotNegative = 0.0


@dataclass(frozen=True)
class DataBenchConfig(Settings):
    """What `bench data` compares and measures.

    Attributes:
        labels: Sets to measure on, each a file of labels (image, TAB, text) or NAME=FILE; never lines of training.
        lines: Only the first so many lines of each data set's train split; all have to hold as many.
        epochs: How often the proxy sees each line.
        seeds: How many times it is trained on each data set, from seeds 1, 2, ...
        recipe: Augmentation while training, the same for all: "none" (default), "train", another recipe, a YAML file.
        strength: Of that recipe: mild, medium, heavy or mixed (default).
        device: auto (default) takes a GPU if there is one.
        fold: What is no error: print (default) or khmer; see `evaluate`.
        results: File that keeps results; what it holds already is not measured again.
    """

    labels: tuple[str, ...] = ()
    lines: Annotated[int, Interval(ge=BATCH_LINES)] = 10_000
    epochs: AtLeast1 = 6
    seeds: Annotated[int, Interval(ge=1, le=100)] = 3
    recipe: str = "none"
    strength: Strength = "mixed"
    device: Device = "auto"
    fold: Fold = "print"
    results: Path = Path("bench_data.json")

    def __post_init__(self) -> None:
        """Refuse settings that measure nothing."""
        super().__post_init__()
        if not self.labels:
            raise ConfigError("bench data got no labelled lines to measure on: give --labels NAME=FILE ...")
        load_recipe(self.recipe, self.strength)

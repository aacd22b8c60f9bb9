"""How a data set is stored and by how many; what a call did."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator

from khmer_ocr.augment.recipe import Strength, load_recipe
from khmer_ocr.constraints import AtLeast0, Settings, refuse_unknown
from khmer_ocr.dataset import layout
from khmer_ocr.io.devices import Device
from khmer_ocr.render.settings import RenderConfig


def _shard(value: Any) -> tuple[int, int]:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}/\d{1,9}", value):
        value = tuple(map(int, value.split("/")))
    pair = isinstance(value, tuple | list) and len(value) == 2 and all(type(number) is int for number in value)
    if not pair or not 0 <= value[0] < value[1]:
        raise ValueError("i/n with 0 <= i < n, for example 0/4 on the first of four machines")
    return value[0], value[1]


@dataclass(frozen=True)
class GenerateConfig(Settings):
    """How a data set is stored and by how many.

    Attributes:
        format: "files" (the known tree, default) or "webdataset": tar shards of one chunk each, indexed for DALI.
        recipe: "basic" (default), "scan", "train" (wider, to train models on), "none", or a YAML file of
            your own.
        strength: How strongly: mild, medium (default), heavy, or mixed (each line draws its own).
        device: Where lines are augmented: auto (default) takes a GPU if there is one.
        workers: Processes; default every core.
        shard: "i/n" draws every n-th chunk beginning with i, for several machines on one folder; the last to
            end completes the metadata.
        system_fonts: Use the system's Khmer fonts too.
        overwrite: Replace a run of another configuration.
        progress: show progress bars.
    """

    format: layout.Format = "files"
    recipe: str = "basic"
    strength: Strength = "medium"
    device: Device = "auto"
    workers: AtLeast0 = 0
    shard: Annotated[tuple[int, int], BeforeValidator(_shard)] = (0, 1)
    system_fonts: bool = False
    overwrite: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        """Refuse what can't be done."""
        super().__post_init__()
        load_recipe(self.recipe, self.strength)

    def changed(self, settings: Mapping[str, Any]) -> "GenerateConfig":
        """Copy with some settings changed.

        Raises:
            ConfigError: a setting is unknown or out of range.
        """
        refuse_unknown(settings, [field.name for field in fields(self)], "generate()")
        return replace(self, **settings)


@dataclass(frozen=True)
class SplitResult:
    """What a call did for one split.

    Attributes:
        samples: how many the split has when all shards are done.
        drawn: how many this call drew.
        rejected: lines left out, by reason.
        complete: whether every sample and the metadata are there.
    """

    samples: int
    drawn: int
    rejected: dict[str, int]
    complete: bool


class DrawingSettings(Protocol):
    """What drawing takes of a `ConfigManager`."""

    render: RenderConfig
    generate: GenerateConfig
    fonts_dir: Path

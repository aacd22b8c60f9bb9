"""How a data set is stored and by how many; what a call did."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.dataset import layout
from khmer_ocr.errors import ConfigError
from khmer_ocr.io.devices import DEVICES, Device
from khmer_ocr.render.settings import RenderConfig


@dataclass(frozen=True)
class GenerateConfig:
    """How a data set is stored and by how many.

    Attributes:
        format: "files" (the known tree) or "webdataset" (tar shards of one chunk each, indexed for DALI).
        recipe: how training lines are augmented: "none", a recipe that comes with the package, or a YAML file.
        strength: "mild", "medium", "heavy", or "mixed" (each line draws its own).
        device: where lines are augmented: "auto", "cpu" or "cuda".
        workers: processes; 0 takes every core.
        shard: (i, n) draws every n-th chunk beginning with i; the last shard to end completes the metadata.
        system_fonts: use the system's Khmer fonts too.
        overwrite: replace a run of another configuration.
        progress: show progress bars.
    """

    format: Literal["files", "webdataset"] = "files"
    recipe: str = "basic"
    strength: Literal["mild", "medium", "heavy", "mixed"] = "medium"
    device: Device = "auto"
    workers: int = 0
    shard: tuple[int, int] = (0, 1)
    system_fonts: bool = False
    overwrite: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        """Refuse what can't be done."""
        if self.format not in layout.FORMATS:
            raise ConfigError(f"format is {self.format!r}; expected one of {', '.join(layout.FORMATS)}")
        if self.device not in DEVICES:
            raise ConfigError(f"device is {self.device!r}; expected one of {', '.join(DEVICES)}")
        load_recipe(self.recipe, self.strength)
        if type(self.workers) is not int or self.workers < 0:
            raise ConfigError(f"workers is {self.workers!r}; expected 1 or more, or 0 for every core")
        shard = self.shard
        whole = isinstance(shard, tuple) and len(shard) == 2 and all(type(number) is int for number in shard)
        if not whole or not 0 <= shard[0] < shard[1]:
            raise ConfigError(f"shard is {self.shard!r}; expected i/n with 0 <= i < n, for example 0/4")

    def changed(self, settings: Mapping[str, Any]) -> "GenerateConfig":
        """Copy with some settings changed.

        Raises:
            ConfigError: a setting is unknown or out of range.
        """
        known = [field.name for field in fields(self)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"generate() has no setting {name!r}.{hint} Known: {', '.join(known)}")
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

"""How a split becomes batches: what a user may choose. Importing this needs no torch."""

import re
from dataclasses import dataclass, fields
from typing import Literal

from khmer_ocr.errors import ConfigError
from khmer_ocr.load.planner import PlanConfig
from khmer_ocr.load.read_errors import OnError

Engine = Literal["auto", "dali", "torch"]
DtypeName = Literal["uint8", "float32", "float16", "bfloat16"]
_PLANNED = tuple(field.name for field in fields(PlanConfig) if field.name != "split")


@dataclass(frozen=True)
class LoadConfig:
    """How a split becomes batches; the fields that `PlanConfig` has too mean the same there.

    Attributes:
        engine: "dali", "torch", or "auto": see `khmer_ocr.load.loader.choose_engine`.
        num_workers: processes (torch, files) or threads (DALI) that decode; 0 decodes in the reading thread.
        cache: read decoded pixels from the split's packed cache, which is built if need be.
        device: where images are delivered: "cpu", "cuda" or "cuda:1". Targets and lengths stay on the CPU.
        dtype: of the images.
        on_error: what to do about a line that can't be read: "raise", or "skip" it, up to 1 % of an epoch.
        prefetch: batches made ahead of their use, by one thread; 0 makes each when it is asked for.
        progress: show a bar while a cache is built.
    """

    engine: Engine = "auto"
    batch_size: int | None = 64
    width_budget_px: int | None = None
    shuffle: bool = True
    bucket: bool = True
    seed: int = 42
    rank: int = 0
    world: int = 1
    align_px: int = 8
    max_samples: int | None = None
    num_workers: int = 0
    cache: bool = False
    device: str = "cpu"
    dtype: DtypeName = "uint8"
    on_error: OnError = "raise"
    prefetch: int = 4
    progress: bool = True

    def __post_init__(self) -> None:
        self.plan("train")
        for name, known in (
            ("engine", ("auto", "dali", "torch")),
            ("dtype", ("uint8", "float32", "float16", "bfloat16")),
            ("on_error", ("raise", "skip")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(known)}.")
        for name in ("num_workers", "prefetch"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least 0.")
        if re.fullmatch(r"cpu|cuda(:\d+)?", self.device) is None:
            raise ConfigError(f"device is {self.device!r}; give cpu, cuda or cuda:N.")

    def plan(self, split: str) -> PlanConfig:
        """How the planner is to cut a split."""
        return PlanConfig(split=split, **{name: getattr(self, name) for name in _PLANNED})

"""How a split becomes batches: what a user may choose. Importing this needs no torch."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

from khmer_ocr.constraints import AtLeast0, AtLeast1, Px, Settings
from khmer_ocr.errors import ConfigError
from khmer_ocr.load.read_errors import OnError

Engine = Literal["auto", "dali", "torch"]
DtypeName = Literal["uint8", "float32", "float16", "bfloat16"]


def _device(name: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError("cpu, cuda or one GPU of several, as cuda:1")
    return name


@dataclass(frozen=True)
class LoadConfig(Settings):
    """How a split becomes batches; one of `batch_size` and `width_budget_px` is needed, with both, both limits hold.

    Attributes:
        engine: "dali", "torch", or "auto": see `khmer_ocr.load.loader.choose_engine`.
        batch_size: Most lines in a batch.
        width_budget_px: most padded columns in a batch (lines times padded width); a line wider than that is a batch
            by itself.
        shuffle: mix lines and batches anew in every epoch; False keeps one order.
        bucket: batch lines of like widths, the widest first where nothing is shuffled; False keeps the order of the
            split, or of the shuffle.
        seed: of the shuffle.
        rank: which of the `world` shares of the epoch this is.
        world: how many processes share an epoch; all get the same number of batches, of like widths at each step.
        align_px: padded widths are multiples of it.
        max_samples: Use only the first so many; None uses all.
        num_workers: Worker processes (torch, files) or threads (DALI) that decode; 0 decodes in the reading thread.
        cache: Read the packed cache, which is built if need be.
        device: Where images are delivered: cpu, cuda or cuda:1. Targets and lengths stay on the CPU.
        dtype: Of the images.
        on_error: what to do about a line that can't be read: "raise", or "skip" it, up to 1 % of an epoch.
        prefetch: batches made ahead of their use, by one thread; 0 makes each when it is asked for.
        progress: show a bar while a cache is built.
    """

    engine: Engine = "auto"
    batch_size: AtLeast1 | None = 64
    width_budget_px: Annotated[AtLeast1, Px] | None = None
    shuffle: bool = True
    bucket: bool = True
    seed: int = 42
    rank: AtLeast0 = 0
    world: AtLeast1 = 1
    align_px: Annotated[AtLeast1, Px] = 8
    max_samples: AtLeast1 | None = None
    num_workers: AtLeast0 = 0
    cache: bool = False
    device: Annotated[str, AfterValidator(_device)] = "cpu"
    dtype: DtypeName = "uint8"
    on_error: OnError = "raise"
    prefetch: AtLeast0 = 4
    progress: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that no batches can be made by."""
        super().__post_init__()
        if self.batch_size is None and self.width_budget_px is None:
            raise ConfigError("neither batch_size nor width_budget_px is given; a batch needs one of them.")
        if self.width_budget_px is not None and not self.bucket:
            raise ConfigError("width_budget_px needs lines of like widths; leave bucket on, or give batch_size.")
        if self.rank >= self.world:
            raise ConfigError(f"rank is {self.rank} of world {self.world}; ranks count from 0 to world - 1.")

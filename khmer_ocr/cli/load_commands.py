"""What `khmer-ocr cache` and `khmer-ocr bench load` do."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.reader import SplitIndex
from khmer_ocr.dataset.repair_advice import advice_to_create
from khmer_ocr.errors import ConfigError, SplitNotFoundError
from khmer_ocr.load.cache import PackedCache
from khmer_ocr.load.cache_builder import build_cache
from khmer_ocr.load.loader import LineLoader, LoadConfig, choose_engine, open_loader
from khmer_ocr.load.read_errors import OnError, ReadErrorLog
from khmer_ocr.text.charset import Charset


def build_caches(
    root: Path,
    splits: Sequence[str] | None = None,
    *,
    on_error: OnError = "raise",
    overwrite: bool = False,
    workers: int = 0,
    progress: bool = True,
) -> Iterator[str]:
    """Pack splits of a data set.

    Args:
        root: the data set's root.
        splits: which ones; None takes all that are there.
        on_error: what to do about lines that can't be read: "raise", or "skip" up to 1 % of a split.
        overwrite: pack anew what is packed already.
        workers: threads that decode; 0 takes every core.
        progress: show a bar.

    Yields:
        What was done, one sentence a split.

    Raises:
        SplitNotFoundError: the root holds no split, or not the one asked for.
        DatasetError: lines can't be read.
        OutputError: the folder can't be written.
    """
    chosen = list(splits) if splits else [split for split in layout.SPLITS if (root / split).is_dir()]
    if not chosen:
        raise SplitNotFoundError(f"{root} holds no split. {advice_to_create(root)}")
    for split in chosen:
        index, lost = _opened(root, split, on_error)
        path = build_cache(index, skip=on_error == "skip", overwrite=overwrite, progress=progress, workers=workers)
        cache = PackedCache.open(index)
        faults = [*lost, *cache.faults.values()]
        left_out = f", {len(faults)} left out" if faults else ""
        yield f"{split}: {len(cache):,} lines{left_out}, {path.stat().st_size / 1e6:,.1f} MB in {path}"
        for message in (*faults, *index.notes):
            yield f"  {message}"


def _opened(root: Path, split: str, on_error: OnError) -> tuple[SplitIndex, list[str]]:
    """Open a split, and say what is wrong with samples that its index leaves out."""
    lost: list[str] = []
    index = load_index(
        root, split, on_fault=(lambda name, fault: lost.append(str(fault))) if on_error == "skip" else None
    )
    ReadErrorLog(on_error, len(index) + len(lost)).add({-1 - place: message for place, message in enumerate(lost)})
    return index, lost


@dataclass(frozen=True)
class LoadBench:
    """What `bench_load` is to measure.

    Attributes:
        split: which split.
        engines: which engines; those that are not installed are passed over, and named.
        epochs: timed epochs, after one that warms up.
        step_ms: how long the consumer works on each batch, doing nothing.
        settings: everything else about loading.
    """

    split: str = "train"
    engines: tuple[Literal["dali", "torch"], ...] = ("torch", "dali")
    epochs: int = 3
    step_ms: float = 0.0
    settings: LoadConfig = field(default_factory=LoadConfig)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.step_ms < 0:
            raise ConfigError(f"epochs is {self.epochs} (at least 1), step_ms is {self.step_ms} (at least 0).")


def bench_load(root: Path, bench: LoadBench) -> Iterator[str]:
    """Read a split again and again, by one engine and then the other.

    Args:
        root: the data set's root.
        bench: what to measure.

    Yields:
        What each engine did in each epoch, one sentence each.

    Raises:
        SplitNotFoundError: no such split.
        DatasetError: metadata is damaged, or lines can't be read.
        ConfigError: no engine of those asked for is installed, or a GPU is asked for and not there.
    """
    opened = list[LineLoader]()
    for engine in bench.engines:
        try:
            choose_engine(replace(bench.settings, engine=engine))
        except ConfigError as fault:
            if len(bench.engines) == 1:
                raise
            yield f"{engine}: {fault}"
            continue
        begin = time.perf_counter()
        opened.append(open_loader(root, bench.split, replace(bench.settings, engine=engine), Charset.default()))
        lines, batches, elapsed_s = len(opened[-1].lines), opened[-1].batch_count(0), time.perf_counter() - begin
        yield f"{engine}: opened {lines:,} lines in {elapsed_s:.2f} s, {batches:,} batches an epoch"
    step = _sleep(bench.step_ms / 1000)
    for epoch in range(bench.epochs + 1):
        for loader in opened:
            loader.statistics.reset()
            for _ in loader.epoch(epoch):
                step()
            yield f"{loader.engine}, epoch {epoch}{' (warms up)' if not epoch else ''}: {loader.statistics}"
    for loader in opened:
        loader.close()


def _sleep(seconds: float) -> Callable[[], None]:
    return (lambda: time.sleep(seconds)) if seconds else (lambda: None)

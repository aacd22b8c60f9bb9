"""Verbs that load a data set: cache, bench."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from khmer_ocr.cli.flags import Folder, settings
from khmer_ocr.constraints import AtLeast1, NotNegative, Settings
from khmer_ocr.errors import ConfigError, DatasetError, SplitNotFoundError, require
from khmer_ocr.load.read_errors import OnError
from khmer_ocr.load.settings import LoadConfig


def cache(
    directory: Folder,
    splits: tuple[str, ...] = (),
    on_error: OnError = "raise",
    overwrite: bool = False,
    workers: int = 0,
    quiet: bool = False,
) -> None:
    """Decode a data set once and pack its pixels beside it, memory-mapped: the fast path for training.

    Args:
        directory: The data set's folder.
        splits: Which splits; default all.
        on_error: What to do about lines that can't be read: raise, or skip up to 1 % of a split.
        overwrite: Pack anew what is packed already.
        workers: Threads that decode; default every core.
        quiet: No progress bar.
    """
    require("cache", "torch")
    from khmer_ocr.dataset import layout
    from khmer_ocr.dataset.index import load_index
    from khmer_ocr.dataset.repair_advice import advice_to_create
    from khmer_ocr.load.cache import PackedCache
    from khmer_ocr.load.cache_builder import build_cache
    from khmer_ocr.load.read_errors import ReadErrorLog

    chosen = splits or [split for split in layout.SPLITS if (directory / split).is_dir()]
    if not chosen:
        raise SplitNotFoundError(f"{directory} holds no split. {advice_to_create(directory)}")
    skip = on_error == "skip"
    for split in chosen:
        lost = dict[str, DatasetError]()
        index = load_index(directory, split, on_fault=lost.__setitem__ if skip else None)
        unread = list(map(str, lost.values()))
        ReadErrorLog(on_error, len(index) + len(lost)).add({-1 - place: said for place, said in enumerate(unread)})
        path = build_cache(index, skip=skip, overwrite=overwrite, progress=not quiet, workers=workers)
        packed = PackedCache.open(index)
        faults = [*unread, *packed.faults.values()]
        left_out = f", {len(faults)} left out" if faults else ""
        print(f"{split}: {len(packed):,} lines{left_out}, {path.stat().st_size / 1e6:,.1f} MB in {path}")
        for message in (*faults, *index.notes):
            print(f"  {message}")


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


def bench(
    what: Annotated[Literal["load"], tyro.conf.Positional],
    directory: Folder,
    measure: Annotated[LoadBenchConfig, tyro.conf.arg(name="")],
    config: Annotated[
        LoadConfig, settings(LoadConfig, "cache", "batch_size", "num_workers", "device", "dtype", "max_samples")
    ],
    quiet: bool = False,
) -> None:
    """Measure how fast a data set becomes batches here: lines a second, padding, and who waits for whom.

    Args:
        what: What to measure.
        directory: The data set's folder.
        measure: Which split and engines, and how often.
        config: How it is loaded.
        quiet: No progress bar.
    """
    require("bench load", "torch")
    for said in _bench(directory, measure, replace(config, progress=not quiet)):
        print(said, flush=True)


def _bench(root: Path, measure: LoadBenchConfig, config: LoadConfig) -> Iterator[str]:
    from khmer_ocr.load.loader import LineLoader, choose_engine, open_loader
    from khmer_ocr.text.charset import Charset

    opened = list[LineLoader]()
    for engine in measure.engines:
        of_engine = replace(config, engine=engine)
        try:
            choose_engine(of_engine)
        except ConfigError as fault:
            if len(measure.engines) == 1:
                raise
            yield f"{engine}: {fault}"
            continue
        begin = time.perf_counter()
        opened.append(open_loader(root, measure.split, of_engine, Charset.default()))
        lines, batches, elapsed_s = len(opened[-1].lines), opened[-1].batch_count(0), time.perf_counter() - begin
        yield f"{engine}: opened {lines:,} lines in {elapsed_s:.2f} s, {batches:,} batches an epoch"
    for epoch in range(measure.epochs + 1):
        for loader in opened:
            loader.statistics.reset()
            for _ in loader.epoch(epoch):
                if measure.step_ms:
                    time.sleep(measure.step_ms / 1000)
            yield f"{loader.engine}, epoch {epoch}{' (warms up)' if not epoch else ''}: {loader.statistics}"
    for loader in opened:
        loader.close()

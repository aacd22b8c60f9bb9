"""The verb that measures, and what it measures: bench load, bench data."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from khmer_ocr.bench.settings import DataBenchConfig, LoadBenchConfig
from khmer_ocr.cli.flags import Folder, settings
from khmer_ocr.errors import require
from khmer_ocr.load.settings import LoadConfig


def load(
    directory: Folder,
    measure: Annotated[LoadBenchConfig, tyro.conf.arg(name="")],
    config: Annotated[
        LoadConfig, settings(LoadConfig, "cache", "batch_size", "num_workers", "device", "dtype", "max_samples")
    ],
    quiet: bool = False,
) -> None:
    """Measure how fast a data set becomes batches here: lines a second, padding, and who waits for whom.

    Args:
        directory: The data set's folder.
        measure: Which split and engines, and how often.
        config: How it is loaded.
        quiet: No progress bar.
    """
    require("bench load", "torch")
    from khmer_ocr.bench.load import measure_loading

    for said in measure_loading(directory, measure, replace(config, progress=not quiet)):
        print(said, flush=True)


def data(
    config: Annotated[DataBenchConfig, tyro.conf.arg(name="")],
    directories: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    quiet: bool = False,
) -> None:
    """Rank data sets by what a small model learns from each: CER on your labelled lines, mean and spread over seeds.

    The model is the same for all (CTC alone, 0.3 M parameters), so that recipes, fonts, texts and sizes can be compared
    without a GPU. What was measured is kept: the same command goes on where it stopped.

    Args:
        config: What is measured, and how.
        directories: The data sets' folders.
        quiet: No progress bar.
    """
    require("bench data", "torch")
    from khmer_ocr.bench.data import compare_data

    print(compare_data(directories, config, progress=not quiet))


def _later(verb: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Parse a verb's arguments without calling it yet: errors of parsing and of the verb are worded apart."""

    @functools.wraps(verb)
    def parsed(*args: Any, **flags: Any) -> Callable[[], None]:
        return functools.partial(verb, *args, **flags)

    return parsed


def bench(
    what: Annotated[
        Annotated[Callable[[], None], tyro.conf.subcommand("load", constructor=_later(load))]
        | Annotated[Callable[[], None], tyro.conf.subcommand("data", constructor=_later(data))],
        tyro.conf.arg(name=""),
    ],
) -> None:
    """Measure, on this machine: how fast a data set loads, or which of several data sets teaches more.

    Args:
        what: What to measure.
    """
    what()

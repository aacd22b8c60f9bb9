"""The command `khmer-ocr`: verbs only. Each one fills a stage's settings, calls it and prints what it did."""

import logging
import sys
from collections.abc import Callable

import tyro

from khmer_ocr.cli import bench_verbs, dataset_verbs, load_verbs, model_verbs
from khmer_ocr.cli.process import run_command, use_utf8

VERBS: dict[str, Callable[..., None]] = {
    verb.__name__: verb
    for verb in (
        dataset_verbs.corpus,
        dataset_verbs.fonts,
        dataset_verbs.generate,
        dataset_verbs.stats,
        dataset_verbs.verify,
        dataset_verbs.preview,
        load_verbs.cache,
        bench_verbs.bench,
        model_verbs.train,
        model_verbs.recognize,
        model_verbs.evaluate,
        model_verbs.export,
    )
}


_STOPPED = {
    "generate": "The same command goes on where it stopped.",
    "bench": "bench data goes on where it stopped.",
    "train": "With --resume last it goes on from the last checkpoint.",
}
"""What to say after Ctrl-C, of verbs that do not begin again."""


def main(arguments: list[str] | None = None) -> None:
    """Run a verb; errors are one message, with exit status 2 for ours and 70 for faults; Ctrl-C is 130."""
    if arguments is None:
        use_utf8()
    given = sys.argv[1:] if arguments is None else arguments
    run_command(lambda: _run(given), stopped=_STOPPED.get(given[0], "") if given else "")


def _run(arguments: list[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    tyro.extras.subcommand_cli_from_dict(
        VERBS,
        prog="khmer-ocr",
        description="Make and read the data that teaches machines to read Khmer.",
        args=arguments,
    )


if __name__ == "__main__":
    main()

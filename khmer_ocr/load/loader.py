"""Training batches: one plan, one batch format, two engines behind it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from khmer_ocr.errors import EXTRA_OF, ConfigError, install_hint, is_installed, missing_extra
from khmer_ocr.load.base_loader import Batch, LineLoader
from khmer_ocr.load.cache_builder import open_or_build
from khmer_ocr.load.line_source import LineSource, load_lines
from khmer_ocr.load.read_errors import ReadErrorLog
from khmer_ocr.load.settings import LoadConfig
from khmer_ocr.load.targets import Vocabulary

__all__ = ["Batch", "LineLoader", "LoadConfig", "choose_engine", "loader_of", "open_lines", "open_loader"]

log = logging.getLogger(__name__)
DALI = "nvidia.dali"


def choose_engine(config: LoadConfig) -> Literal["dali", "torch"]:
    """Which engine is to read.

    Args:
        config: "auto" takes the torch engine for a cache, which leaves nothing to decode, and DALI for files where it
            is installed.

    Raises:
        MissingExtraError: DALI is asked for and not installed.
    """
    if config.engine == "torch":
        return "torch"
    installed = is_installed(DALI)
    if config.engine == "dali":
        if not installed:
            raise missing_extra('engine "dali"', DALI, otherwise='Give engine "torch", or install it.')
        return "dali"
    if not config.cache and not installed:
        log.warning(
            "NVIDIA DALI is not installed: the torch engine reads instead, with the same batches. To have it: %s",
            install_hint(EXTRA_OF[DALI]),
        )
    return "dali" if installed and not config.cache else "torch"


def open_loader(
    root: str | Path | Sequence[str | Path], split: str, config: LoadConfig, vocab: Vocabulary
) -> LineLoader:
    """Open a split for training.

    Args:
        root: root of a data set, or of several whose lines follow each other.
        split: "train", "val" or "test".
        config: how to read.
        vocab: gives the targets, e.g. a `Charset`.

    Returns:
        The loader; nothing has been read but metadata.

    Raises:
        SplitNotFoundError: a split's folder does not exist.
        DatasetError: metadata is damaged, the split is empty, or its lines have different heights.
        ConfigError: DALI or a GPU is asked for and not there.
    """
    return loader_of(open_lines(root, split, config), split, config, vocab)


def open_lines(root: str | Path | Sequence[str | Path], split: str, config: LoadConfig) -> LineSource:
    """Open the lines that a loader of this configuration reads, and log those that a scan had to leave out."""
    lost: list[str] = []
    lines = load_lines(
        root,
        split,
        # A cache is that of the whole split; the plan then takes the first so many.
        max_samples=None if config.cache else config.max_samples,
        on_fault=(lambda name, fault: lost.append(str(fault))) if config.on_error == "skip" else None,
    )
    scanned = ReadErrorLog(config.on_error, len(lines) + len(lost))
    scanned.add({-1 - place: message for place, message in enumerate(lost)})
    scanned.report(f"{split}, scanned")
    return lines


def loader_of(lines: LineSource, split: str, config: LoadConfig, vocab: Vocabulary) -> LineLoader:
    """Make the loader of lines that are open already; see `open_loader`."""
    engine = choose_engine(config)
    if torch.device(config.device).type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f'device is {config.device!r}, but torch sees no GPU. Give device="cpu".')
    caches = None
    if config.cache:
        skip = config.on_error == "skip"
        caches = [open_or_build(index, skip=skip, progress=config.progress) for index in lines.indices]
    if engine == "dali":
        from khmer_ocr.load.dali_loader import DaliLoader

        return DaliLoader(lines, caches, config, split, vocab)
    from khmer_ocr.load.torch_loader import TorchLoader

    return TorchLoader(lines, caches, config, split, vocab)

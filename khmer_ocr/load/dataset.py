"""Stored lines as a torch data set and as three loaders of batches, as users import them.

Letters: H rows, W columns, T tokens.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash
from PIL import Image

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.reader import SplitIndex, tell_once, tell_unhashed
from khmer_ocr.dataset.stats import split_statistics
from khmer_ocr.errors import ConfigError, missing_extra

try:
    import torch
    from torch.utils.data import Dataset
except ModuleNotFoundError as fault:
    raise missing_extra("Reading batches", "torch") from fault

from khmer_ocr_kernels.pad_normalize import to_unit

from khmer_ocr.load.loader import LineLoader, LoadConfig, loader_of, open_lines
from khmer_ocr.load.rank_share import own_share
from khmer_ocr.load.read_errors import OnError
from khmer_ocr.load.settings import Engine
from khmer_ocr.load.targets import Vocabulary
from khmer_ocr.text.charset import Charset

SHUFFLE_SEED = 42
_KEYS = ("images", "targets", "image_lengths", "target_lengths", "texts")


class HasVocabulary(Protocol):
    """The part of `ConfigManager` that reading needs."""

    @property
    def vocab(self) -> Vocabulary:
        """The characters a model knows."""
        ...


class SyntheticImageDataset(Dataset[Any]):
    """One split of a stored data set, in either format; can be sent to worker processes by fork or spawn."""

    def __init__(
        self,
        split: str = "train",
        synthetic_dir: str | Path = "data/synthetic",
        config_manager: HasVocabulary | None = None,
        max_samples: int | None = None,
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        """Open a split; images are read when they are asked for.

        Args:
            split: "train", "val" or "test".
            synthetic_dir: root of the data set, wherever it has been moved to.
            config_manager: supplies `vocab`; None means the default character set.
            max_samples: use only the first so many, at least 1; None uses all.
            transform: gets the grey PIL image of a line; what it returns takes the place of the image tensor.

        Raises:
            SplitNotFoundError: the split's folder does not exist.
            DatasetError: its metadata is damaged.
            ConfigError: `max_samples` is below 1.
        """
        if max_samples is not None and max_samples < 1:
            raise ConfigError(f"max_samples is {max_samples}; give at least 1, or None for all.")
        self._open(load_index(synthetic_dir, split, max_samples=max_samples), config_manager, transform)

    @classmethod
    def of_index(
        cls,
        index: SplitIndex,
        config_manager: HasVocabulary | None = None,
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> "SyntheticImageDataset":
        """Make the data set of a split that is open already; the arguments mean what they mean to the class."""
        dataset = cls.__new__(cls)
        dataset._open(index, config_manager, transform)
        return dataset

    def _open(
        self,
        index: SplitIndex,
        config_manager: HasVocabulary | None,
        transform: Callable[[Image.Image], Any] | None,
    ) -> None:
        self.index, self.split, self.synthetic_dir, self.transform = index, index.split, index.root, transform
        self.vocab: Vocabulary = Charset.default() if config_manager is None else config_manager.vocab
        tell_unhashed(index)
        tell_once(index, *(f"{index.root}: {note}" for note in index.notes))

    def __len__(self) -> int:
        return len(self.index)

    def _position(self, i: int) -> int:
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)} in split {self.split!r}")
        return int(i) % len(self)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Read one line.

        Args:
            i: position in the split; negative ones count from its end.

        Returns:
            `image` float32 (1, H, W) in 0..1, background is 1.0 (or what the transform returned); `targets` int64 (T,);
            `text`, `filename`, `font`; `index`, the position.

        Raises:
            DatasetError: the image is missing or unreadable, or it or its label differ from what is recorded. It is
                never a blank one.
            IndexError: no such position.
        """
        i = self._position(i)
        pixels_HW = self.index.line(i)
        if self.transform is None:
            image = to_unit(torch.from_numpy(pixels_HW)[None])
        else:
            image = self.transform(Image.fromarray(pixels_HW))
        text = self.index.text(i)
        return {
            "image": image,
            "targets": torch.tensor(self.vocab.encode(text), dtype=torch.int64),
            "text": text,
            "filename": self.index.filename(i),
            "font": self.index.font(i),
            "index": i,
        }

    def get_sample_info(self, i: int) -> dict[str, Any]:
        """Metadata of one sample, without reading its image.

        Args:
            i: position in the split.

        Returns:
            The keys of a sample in `metadata.json`. `image_path` and `label_path` are where the files (or, behind the
            path of their shard, the members) lie now, under the root this data set was opened with.
        """
        i, index = self._position(i), self.index
        image_path, label_path = index.paths(i)
        shard = index.shard(i)
        info: dict[str, Any] = {
            "filename": layout.without_suffix(index.filename(i)),
            "text": index.text(i),
            "font": index.font(i),
            "image_path": image_path,
            "label_path": label_path,
            "image_width": int(index.widths[i]),
            "image_height": int(index.heights[i]),
        }
        if shard is not None:
            info["shard"] = shard
        if index.pixel_hashes is not None:
            info["pixel_hash"] = f"{int(index.pixel_hashes[i]):016x}"
        return info

    def get_text_sample(self, n: int = 10) -> list[str]:
        """Texts of n samples spread evenly over the split; all of them where it has fewer."""
        positions = np.linspace(0, len(self) - 1, num=min(max(n, 0), len(self))).round().astype(int).tolist()
        return [self.index.text(i) for i in positions]

    def get_statistics(self) -> dict[str, Any]:
        """Counts, sizes, text lengths, characters and fonts; see `khmer_ocr.dataset.stats.split_statistics`."""
        return {"split": self.split, **split_statistics(self.index)}


class SyntheticLoader:
    """Batches of one split: each `iter` is the next epoch, `len` counts its batches.

    Attributes:
        dataset: the split, sample by sample.
        loader: what reads it; has statistics, and epochs by their number.
        batch_size: lines in a batch; the last one may have fewer.
        num_workers: worker processes (torch) or threads (DALI) that decode.
        rank: which of the `world` shares of each epoch this loader reads.
        world: how many shares there are; 1 where every process reads the whole split.
    """

    def __init__(self, dataset: SyntheticImageDataset, loader: LineLoader) -> None:
        self.dataset, self.loader = dataset, loader
        self.batch_size, self.num_workers = loader.config.batch_size, loader.config.num_workers
        self.rank, self.world = loader.config.rank, loader.config.world
        self._next = (0, 0)
        self._at = (0, 0)
        self._newest: object = None

    def __len__(self) -> int:
        return self.loader.batch_count(self._next[0])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        (epoch, start_batch), self._newest = self._next, object()
        self._at, self._next = (epoch, start_batch), (epoch + 1, 0)
        return self._batches(epoch, start_batch, self._newest)

    def _batches(self, epoch: int, start_batch: int, own: object) -> Iterator[dict[str, Any]]:
        for batch in self.loader.epoch(epoch, start_batch):
            if self._newest is own:
                self._at = (epoch, batch["number"] + 1)
            yield {key: batch[key] for key in _KEYS}  # type: ignore[literal-required]
        if self._newest is own:
            self._at = (epoch + 1, 0)

    def set_epoch(self, epoch: int) -> None:
        """Let the next `iter` read this epoch from its beginning; epochs count from 0 and go on by themselves.

        Raises:
            ConfigError: it is no whole number of at least 0.
        """
        self._next = self._at = (_at_least_0("epoch", epoch), 0)
        self._newest = None

    def state_dict(self) -> dict[str, Any]:
        """State to resume from: after the batch that was given last.

        Returns:
            `epoch` and `batch`, the same on every rank, and what decides which lines are in a batch.
        """
        epoch, batch = self._at
        if batch and batch >= self.loader.batch_count(epoch):
            epoch, batch = epoch + 1, 0
        return {"epoch": epoch, "batch": batch, **self._circumstances()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next `iter` go on where `state_dict` was called, with the very batches that were to come.

        Args:
            state: of a loader of the same lines, dealt in the same way; at the beginning of an epoch of any.

        Raises:
            ConfigError: it is no such state, or within an epoch of other lines or another deal.
        """
        if missing := [name for name in ("epoch", "batch") if name not in state]:
            raise ConfigError(f"{', '.join(missing)} missing in the state of a loader; give what state_dict returned.")
        epoch, batch = (_at_least_0(name, state[name]) for name in ("epoch", "batch"))
        if batch:
            for name, own in self._circumstances().items():
                if state.get(name) != own:
                    raise ConfigError(
                        f"The state is of batch {batch} of a loader with {name} = {state.get(name)!r}; this one has "
                        f"{own!r}, and its batches hold other lines. Open it in the same way, or call "
                        f"set_epoch({epoch}) to begin that epoch anew."
                    )
            if batch > self.loader.batch_count(epoch):
                raise ConfigError(f"The state is of batch {batch}; epoch {epoch} has {self.loader.batch_count(epoch)}.")
        self._next = self._at = (epoch, batch)
        self._newest = None

    def _circumstances(self) -> dict[str, Any]:
        """What decides which lines are in a batch, but for the rank."""
        config, widths_N = self.loader.config, self.loader.lines.widths_N[: self.loader.config.max_samples]
        return {
            "split": self.loader.split,
            "samples": len(widths_N),
            "widths": xxhash.xxh3_64_hexdigest(np.ascontiguousarray(widths_N).data),
            "batch_size": config.batch_size,
            "seed": config.seed,
            "world": config.world,
        }


def _at_least_0(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ConfigError(f"{name} is {value!r}; give a whole number of at least 0.")
    return int(value)


def create_synthetic_dataloaders(
    config_manager: HasVocabulary | None = None,
    batch_size: int = 32,
    num_workers: int = 4,
    synthetic_dir: str | Path = "data/synthetic",
    max_samples: int | None = None,
    *,
    engine: Engine = "auto",
    cache: bool = False,
    device: str = "cpu",
    rank: int | None = None,
    world: int | None = None,
    split_eval: bool = False,
    on_error: OnError = "raise",
) -> tuple[SyntheticLoader, SyntheticLoader, SyntheticLoader]:
    """Make loaders of the three splits.

    Train is shuffled, in the same order in every run, and its batches hold lines of like widths, which leaves little to
    pad. Val and test come in their own order.

    Where several processes train one model, each gets its share of train: the same number of batches of like widths,
    no line twice, none left out. Val and test are whole in every process, unless `split_eval` deals them out too.

    Args:
        config_manager: supplies `vocab`; None means the default character set.
        batch_size: lines per batch, at least 1; the last batch of an epoch may be smaller.
        num_workers: processes (torch) or threads (DALI) that decode, of which no more are started than there are cores
            to use; 0 decodes where batches are put together.
        synthetic_dir: root of the data set.
        max_samples: use only the first so many of each split.
        engine: "dali", "torch" (the same batches), or "auto": DALI for files where it is installed.
        cache: read decoded pixels from a packed cache beside each split, built when it is not there yet.
        device: where images are delivered: "cpu" or "cuda".
        rank: number of this process among those that train together, from 0; None asks `torch.distributed` where it is
            initialised, else the environment (RANK and WORLD_SIZE, as torchrun sets them), else there is one process.
        world: how many processes there are; to be given with `rank`.
        split_eval: deal val and test to ranks too.
        on_error: what to do about a line that can't be read: "raise", or "skip" it, up to 1 % of an epoch; what was
            left out is logged at the end of the epoch.

    Returns:
        Loaders of train, val and test; see `SyntheticLoader`. A batch has
        `images`, float32 (B, 1, H, W), 1.0 where a line has ended;
        `targets`, int64 (B, T), 0 where a text has ended; `image_lengths`, int64 (B,), true widths in px;
        `target_lengths`, int64 (B,); `texts`, a list of B strings.

    Raises:
        SplitNotFoundError: a split's folder does not exist.
        DatasetError: metadata is damaged, a split is empty, or has lines of different heights.
        ConfigError: a setting is out of range, DALI or a GPU is asked for and not there, or of rank and world only one
            is known.
    """
    rank, world = own_share(rank, world)
    whole = LoadConfig(
        engine=engine,
        batch_size=batch_size,
        shuffle=False,
        bucket=False,
        seed=SHUFFLE_SEED,
        align_px=1,
        max_samples=max_samples,
        num_workers=min(num_workers, len(os.sched_getaffinity(0))),
        cache=cache,
        device=device,
        dtype="float32",
        on_error=on_error,
    )
    shared = replace(whole, rank=rank, world=world)
    train, val, test = layout.SPLITS
    return (
        _open_split(synthetic_dir, train, replace(shared, shuffle=True, bucket=True), config_manager),
        _open_split(synthetic_dir, val, shared if split_eval else whole, config_manager),
        _open_split(synthetic_dir, test, shared if split_eval else whole, config_manager),
    )


def _open_split(
    root: str | Path, split: str, config: LoadConfig, config_manager: HasVocabulary | None
) -> SyntheticLoader:
    lines = loaded = open_lines(root, split, config)
    if config.cache and config.max_samples is not None:
        # The cache is that of the whole split, whatever part of it is asked for.
        lines = open_lines(root, split, replace(config, cache=False))
    dataset = SyntheticImageDataset.of_index(lines.indices[0], config_manager)
    return SyntheticLoader(dataset, loader_of(loaded, split, config, dataset.vocab))

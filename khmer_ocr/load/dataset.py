"""Stored lines as a torch data set and as three loaders of batches: the door that users know.

Letters: H rows, W columns, T tokens.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.reader import tell_unhashed
from khmer_ocr.dataset.stats import split_statistics
from khmer_ocr.errors import ConfigError, missing_extra

try:
    import torch
    from torch.utils.data import Dataset
except ModuleNotFoundError as fault:
    raise missing_extra("Reading batches", "torch") from fault

from khmer_ocr.load.lines import Lines, load_lines
from khmer_ocr.load.loader import LineLoader, LoadConfig, loader_of
from khmer_ocr.load.settings import Engine
from khmer_ocr.load.targets import Vocabulary

SHUFFLE_SEED = 42
_KEYS = ("images", "targets", "image_lengths", "target_lengths", "texts")


class HasVocabulary(Protocol):
    """The part of `ConfigManager` that reading needs."""

    @property
    def vocab(self) -> Vocabulary:
        """The characters a model knows."""
        ...


class SyntheticImageDataset(Dataset):  # type: ignore[misc]
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
        self.split = split
        self.synthetic_dir = Path(synthetic_dir)
        self.transform = transform
        self.vocab = _default_vocabulary() if config_manager is None else config_manager.vocab
        self.index = load_index(self.synthetic_dir, split, max_samples=max_samples)
        tell_unhashed(self.index)

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
            `image` float32 (1, H, W) in 0..1, paper is 1.0 (or what the transform returned); `targets` int64 (T,);
            `text`, `filename`, `font`; `index`, the position.

        Raises:
            DatasetError: the image is missing or unreadable, or it or its label differ from what is recorded. It is
                never a blank one.
            IndexError: no such position.
        """
        i = self._position(i)
        pixels_HW = self.index.line(i)
        if self.transform is None:
            image = torch.from_numpy(pixels_HW).to(torch.float32).div_(255.0).unsqueeze_(0)
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


def _default_vocabulary() -> Vocabulary:
    from khmer_ocr.text.charset import Charset

    return Charset.default()


class SyntheticLoader:
    """Batches of one split: each `iter` is the next epoch, `len` counts its batches.

    Attributes:
        dataset: the split, sample by sample.
        loader: what reads it; has statistics, and epochs by their number.
        batch_size: lines in a batch; the last one may have fewer.
        num_workers: worker processes (torch) or threads (DALI) that decode.
    """

    def __init__(self, dataset: SyntheticImageDataset, loader: LineLoader) -> None:
        self.dataset, self.loader = dataset, loader
        self.batch_size, self.num_workers = loader.config.batch_size, loader.config.num_workers
        self._epoch = 0

    def __len__(self) -> int:
        return self.loader.batch_count(self._epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        return ({key: batch[key] for key in _KEYS} for batch in self.loader.epoch(epoch))  # type: ignore[literal-required]


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
) -> tuple[SyntheticLoader, SyntheticLoader, SyntheticLoader]:
    """Make loaders of the three splits.

    Train is shuffled, in the same order in every run, and its batches hold lines of like widths, which leaves little to
    pad. Val and test come in their own order.

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

    Returns:
        Loaders of train, val and test. A batch has `images`, float32 (B, 1, H, W), 1.0 where a line has ended;
        `targets`, int64 (B, T), 0 where a text has ended; `image_lengths`, int64 (B,), true widths in px;
        `target_lengths`, int64 (B,); `texts`, a list of B strings.

    Raises:
        SplitNotFoundError: a split's folder does not exist.
        DatasetError: metadata is damaged, a split is empty, or has lines of different heights.
        ConfigError: a setting is out of range, or DALI or a GPU is asked for and not there.
    """
    if batch_size < 1 or num_workers < 0:
        raise ConfigError(f"batch_size is {batch_size} (at least 1), num_workers is {num_workers} (at least 0).")
    loaders = []
    for split in layout.SPLITS:
        train = split == layout.SPLITS[0]
        config = LoadConfig(
            engine=engine,
            batch_size=batch_size,
            shuffle=train,
            bucket=train,
            seed=SHUFFLE_SEED,
            align_px=1,
            max_samples=max_samples,
            num_workers=min(num_workers, len(os.sched_getaffinity(0))),
            cache=cache,
            device=device,
            dtype="float32",
        )
        dataset = SyntheticImageDataset(split, synthetic_dir, config_manager, max_samples)
        # The cache is that of the whole split, whatever part of it is asked for.
        whole = cache and max_samples is not None
        lines = load_lines(synthetic_dir, split) if whole else Lines([dataset.index])
        loaders.append(SyntheticLoader(dataset, loader_of(lines, split, config, dataset.vocab)))
    train_loader, val_loader, test_loader = loaders
    return train_loader, val_loader, test_loader

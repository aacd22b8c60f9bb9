"""Stored lines as a torch data set and as three plain data loaders.

Letters: H rows, W columns, T tokens.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from khmer_ocr import chance
from khmer_ocr.dataset import layout
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.stats import split_statistics
from khmer_ocr.errors import ConfigError, DatasetError

try:
    import torch
    from torch.utils.data import DataLoader, Dataset
except ModuleNotFoundError as fault:
    raise ModuleNotFoundError(
        "Reading batches needs torch, which is not installed. Run: pip install 'khmer-ocr[torch]'", name=fault.name
    ) from fault

from khmer_ocr.load.collate import collate_lines

SHUFFLE_SEED = 42


class Vocabulary(Protocol):
    """What turns a text into token ids; 0 is the padding and stands for no character."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...


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
            DatasetError: the image is missing, unreadable or of another size than recorded. It is never a blank one.
            IndexError: no such position.
        """
        i = self._position(i)
        pixels_HW = self.index.image(i)
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
            "filename": index.filename(i),
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


def create_synthetic_dataloaders(
    config_manager: HasVocabulary | None = None,
    batch_size: int = 32,
    num_workers: int = 4,
    synthetic_dir: str | Path = "data/synthetic",
    max_samples: int | None = None,
) -> tuple[Any, Any, Any]:
    """Make loaders of the three splits; train is shuffled, in the same order in every run, val and test are not.

    Args:
        config_manager: supplies `vocab`; None means the default character set.
        batch_size: lines per batch, at least 1; the last batch of an epoch may be smaller.
        num_workers: processes that read, of which no more are started than there are cores to use; 0 reads in this one.
        synthetic_dir: root of the data set.
        max_samples: use only the first so many of each split.

    Returns:
        Train, val and test `DataLoader`; their batches are those of `khmer_ocr.load.collate.collate_lines`.

    Raises:
        SplitNotFoundError: a split's folder does not exist.
        DatasetError: metadata is damaged, or a split is empty.
        ConfigError: `batch_size` or `max_samples` is below 1, or `num_workers` below 0.
    """
    if batch_size < 1 or num_workers < 0:
        raise ConfigError(f"batch_size is {batch_size} (at least 1), num_workers is {num_workers} (at least 0).")
    num_workers = min(num_workers, len(os.sched_getaffinity(0)))
    loaders = []
    for split in layout.SPLITS:
        dataset = SyntheticImageDataset(split, synthetic_dir, config_manager, max_samples)
        if not len(dataset):
            raise DatasetError(
                f"Split {split!r} in {synthetic_dir} holds no samples. "
                f"Run: khmer-ocr generate --output-dir {synthetic_dir} --splits {split}"
            )
        low, high = chance.key(SHUFFLE_SEED, split, "shuffle").tolist()
        loaders.append(
            DataLoader(
                dataset,
                batch_size=batch_size,
                shuffle=split == "train",
                num_workers=num_workers,
                collate_fn=collate_lines,
                pin_memory=torch.cuda.is_available(),
                persistent_workers=num_workers > 0,
                generator=torch.Generator().manual_seed(high << 31 ^ low),
            )
        )
    train, val, test = loaders
    return train, val, test

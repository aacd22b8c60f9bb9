"""Lines of different widths to one batch, padded with paper.

Letters: B lines, H rows, W columns of the widest line, T tokens of the longest text.
"""

from collections.abc import Sequence
from typing import Any

import torch

from khmer_ocr.errors import ConfigError, DatasetError
from khmer_ocr.text.charset import PAD

BACKGROUND = 1.0
"""White, and the value of every padded pixel."""


def collate_lines(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join samples of `SyntheticImageDataset` to one batch.

    Args:
        samples: at least one; `image` is float32 (1, H, width) and all have the same H, `targets` is int64 (length,).

    Returns:
        `images` float32 (B, 1, H, W), 1.0 where a line has ended; `targets` int64 (B, T), 0 where a text has ended;
        `image_lengths` int64 (B,), true widths in px; `target_lengths` int64 (B,); `texts` list of B strings.

    Raises:
        ConfigError: a transform gave something else than a (1, H, W) tensor.
        DatasetError: the lines have different heights.
    """
    for sample in samples:
        image = sample["image"]
        if not isinstance(image, torch.Tensor) or image.ndim != 3:
            seen = tuple(image.shape) if isinstance(image, torch.Tensor) else type(image).__name__
            raise ConfigError(
                f"{sample['filename']}: a batch needs images as (1, H, W) tensors, the transform gave {seen}. "
                "End it with torchvision.transforms.ToTensor()."
            )
        if image.shape[:2] != samples[0]["image"].shape[:2]:
            raise DatasetError(
                f"{sample['filename']} has (channels, height) {tuple(image.shape[:2])}, {samples[0]['filename']} has "
                f"{tuple(samples[0]['image'].shape[:2])}. A batch needs one height: generate with one --image-height."
            )
    widths = [sample["image"].shape[-1] for sample in samples]
    lengths = [len(sample["targets"]) for sample in samples]
    images = torch.full((len(samples), *samples[0]["image"].shape[:2], max(widths)), BACKGROUND, dtype=torch.float32)
    targets = torch.full((len(samples), max(lengths)), PAD, dtype=torch.int64)
    for at, sample in enumerate(samples):
        images[at, :, :, : widths[at]] = sample["image"]
        targets[at, : lengths[at]] = sample["targets"]
    return {
        "images": images,
        "targets": targets,
        "image_lengths": torch.tensor(widths, dtype=torch.int64),
        "target_lengths": torch.tensor(lengths, dtype=torch.int64),
        "texts": [sample["text"] for sample in samples],
    }

"""Lines of different widths to one padded batch: decoded from files or shards, copied from caches, or from samples.

Letters: B lines, H rows, X columns of the padded batch, T tokens of the longest text.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from khmer_ocr_kernels.arrays import I64, U8
from khmer_ocr_kernels.pad_normalize import pad_normalize
from khmer_ocr_kernels.ragged import RaggedLines
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from khmer_ocr.errors import ConfigError, DatasetError
from khmer_ocr.load.cache import PackedCache
from khmer_ocr.load.line_source import LineSource
from khmer_ocr.text.charset import PAD

BACKGROUND = 1.0
"""White, and the value of every padded pixel."""
Empty = Callable[[int, int], npt.NDArray[Any]]


def padded_width(widths_B: npt.NDArray[np.integer[Any]], align_px: int) -> int:
    """Width of a batch of lines of these widths."""
    return -(-int(widths_B.max()) // align_px) * align_px


def without(positions_B: I64, faults: dict[int, str]) -> I64:
    """Positions that have no fault, in their order."""
    return positions_B[~np.isin(positions_B, list(faults))] if faults else positions_B


def collate_files(lines: LineSource, positions_B: I64, align_px: int) -> tuple[U8 | None, dict[int, str]]:
    """Read lines from files or shards and pad them with background.

    Args:
        lines: where they are read from.
        positions_B: which ones.
        align_px: the padded width is a multiple of it.

    Returns:
        uint8 (lines that could be read, 1, H, X), or None for none, and position to fault of the others.
    """
    images, faults = [], dict[int, str]()
    for i in positions_B.tolist():
        try:
            images.append(lines.pixels(i))
        except DatasetError as fault:
            faults[i] = str(fault)
    if not images:
        return None, faults
    ragged = RaggedLines.of_images(images)
    return pad_normalize(ragged, padded_width(ragged.width_B, align_px)), faults


def collate_cached(
    lines: LineSource,
    caches: Sequence[PackedCache],
    positions_B: I64,
    align_px: int,
    empty: Empty,
    bits_256: npt.NDArray[Any] | None = None,
) -> tuple[npt.NDArray[Any] | None, dict[int, str]]:
    """Copy lines from caches and pad them with background.

    Args:
        lines: the lines, as `caches` hold them.
        caches: one for each of `lines.indices`.
        positions_B: which lines.
        align_px: the padded width is a multiple of it.
        empty: makes an array (B, H, X) to be filled, given B and X: uint8, or of the dtype of `bits_256`.
        bits_256: what each pixel value becomes; None leaves uint8.

    Returns:
        (lines that can be used, H, X), or None for none, and position to fault of the others.
    """
    part_B = np.searchsorted(lines.begins_P1, positions_B, "right") - 1
    faults = dict[int, str]()
    for part, cache in enumerate(caches):
        begin = int(lines.begins_P1[part])
        found = cache.faults_of(positions_B[part_B == part] - begin)
        faults |= {begin + i: message for i, message in found.items()}
    if faults:
        positions_B = without(positions_B, faults)
        if not len(positions_B):
            return None, faults
        part_B = np.searchsorted(lines.begins_P1, positions_B, "right") - 1
    out_BHX = empty(len(positions_B), padded_width(lines.widths_N[positions_B], align_px))
    for part, cache in enumerate(caches):
        rows_L = np.flatnonzero(part_B == part)
        cache.gather(positions_B[rows_L] - int(lines.begins_P1[part]), rows_L, out_BHX, bits_256)
    return out_BHX, faults


def collate_lines(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join samples of `SyntheticImageDataset` to one batch, for a loader of torch's own.

    Padded by torch and not by our kernel: a transform may give any floats and channels.

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
    width_B = [sample["image"].shape[-1] for sample in samples]
    images = [sample["image"].float() for sample in samples]
    return {
        "images": torch.stack(
            [
                pad(image, (0, max(width_B) - width), value=BACKGROUND)
                for image, width in zip(images, width_B, strict=True)
            ]
        ),
        "targets": pad_sequence([sample["targets"] for sample in samples], True, PAD),
        "image_lengths": torch.tensor(width_B, dtype=torch.int64),
        "target_lengths": torch.tensor([len(sample["targets"]) for sample in samples], dtype=torch.int64),
        "texts": [sample["text"] for sample in samples],
    }

"""Lines to augment: pages of strokes and dots that look enough like print, and values within the limits of an op."""

import numpy as np
import torch
from torch import Tensor

from khmer_ocr.augment.limits import LIMITS
from khmer_ocr.augment.torch_ops.padded_lines import PaddedLines


def batch(widths: list[int], height: int = 32, seed: int = 0) -> PaddedLines:
    """Lines of letters between a third and nine tenths of the height, some paper around them."""
    rng = np.random.default_rng(seed)
    ink = torch.zeros(len(widths), 1, height, max(widths, default=0))
    for line, width in enumerate(widths):
        for left in range(2, width - 5, 9):
            top, bottom = int(height * rng.uniform(0.15, 0.4)), int(height * rng.uniform(0.6, 0.85))
            ink[line, 0, top:bottom, left : left + 2] = float(rng.uniform(0.7, 1))
            ink[line, 0, top : top + 2, left : left + 6] = float(rng.uniform(0.5, 1))
            ink[line, 0, bottom - 1, left + 1 : left + 4] = 0.6
    return PaddedLines(ink, torch.tensor(widths, dtype=torch.int64))


def alone(lines: PaddedLines, line: int) -> PaddedLines:
    """One line of a batch, cut to its width."""
    width_1 = lines.width_B[line : line + 1]
    return PaddedLines(lines.ink_B1HW[line : line + 1, :, :, : int(width_1)].contiguous(), width_1)


def drawn_values(op: str, count: int, seed: int = 0) -> dict[str, Tensor]:
    """Values anywhere within the op's limits; the first line gets the lowest of all, the second the highest."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(size=(len(LIMITS[op]), count)).astype(np.float32)
    share[:, :1], share[:, 1:2] = 0, 1
    return {
        name: torch.from_numpy(low + (high - low) * share[n])
        for n, (name, (low, high)) in enumerate(LIMITS[op].items())
    }


def keys(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2**32, (count, 2)))


def values(**fixed: float) -> dict[str, Tensor]:
    """Values for a single line."""
    return {name: torch.tensor([float(value)]) for name, value in fixed.items()}

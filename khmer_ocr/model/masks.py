"""Padding counts for nothing: what lies beyond a line's width is zero in every layer, as at the edge of a line alone.

Letters: B lines, C channels, H rows, W columns, T frames.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def halved(width_B: Tensor) -> Tensor:
    """Columns that a convolution of stride 2, kernel 3 and padding 1 leaves of these."""
    return (width_B + 1) // 2


def inside(width_B: Tensor, columns: int) -> Tensor:
    """Which columns belong to their line; bool (B, columns)."""
    return torch.arange(columns, device=width_B.device) < width_B[:, None]


class Mask(NamedTuple):
    """Columns of lines in a batch.

    Attributes:
        inside_B11W: float, 1 for columns that belong to their line, 0 beyond.
        first: a column before which all lines go on, so that only the rest needs to be looked at; 0 where that is not
            known.
    """

    inside_B11W: Tensor
    first: int = 0

    def clear(self, x_BCHW: Tensor) -> Tensor:
        """Set what lies beyond the lines to zero; in place where `first` is known, which is for reading only."""
        if not self.first:
            return x_BCHW * self.inside_B11W
        x_BCHW[..., self.first :].mul_(self.inside_B11W[..., self.first :])
        return x_BCHW


def column_masks(
    width_B: Tensor, columns: int, halvings: int, dtype: torch.dtype = torch.float32, shortest: int = 0
) -> list[Mask]:
    """Masks of the columns as they are and after each of some halvings; `shortest` is the least width if known."""
    masks = []
    for _ in range(halvings + 1):
        masks.append(Mask(inside(width_B, columns)[:, None, None].to(dtype), shortest))
        width_B, columns, shortest = halved(width_B), (columns + 1) // 2, (shortest + 1) // 2
    return masks

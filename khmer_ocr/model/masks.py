"""Padding counts for nothing: what lies beyond a line's width is zero in every layer, as at the edge of a line alone.

Letters: B lines, C channels, H rows, W columns, T frames.
"""

import torch
from torch import Tensor


def halved(width_B: Tensor) -> Tensor:
    """Columns that a convolution of stride 2, kernel 3 and padding 1 leaves of these."""
    return (width_B + 1) // 2


def inside(width_B: Tensor, columns: int) -> Tensor:
    """Which columns belong to their line; bool (B, columns)."""
    return torch.arange(columns, device=width_B.device) < width_B[:, None]


def column_masks(width_B: Tensor, columns: int, halvings: int) -> list[Tensor]:
    """Float masks (B, 1, 1, W) for the columns as they are and after each of some halvings."""
    masks = [inside(width_B, columns)[:, None, None].float()]
    for _ in range(halvings):
        width_B, columns = halved(width_B), (columns + 1) // 2
        masks.append(inside(width_B, columns)[:, None, None].float())
    return masks

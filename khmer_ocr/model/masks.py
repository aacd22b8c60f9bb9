"""Padding counts for nothing: what lies beyond a line's width is zero in every layer, as at the edge of a line alone.

Letters: B lines, C channels, H rows, W columns, T frames.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
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

    def relu(self, x_BCHW: Tensor) -> Tensor:
        """ReLU, and zero beyond the lines; in place, but in graphs that are compiled or exported."""
        if torch.compiler.is_compiling():
            return F.relu(x_BCHW) * self.inside_B11W
        if torch.is_grad_enabled():
            found: Tensor = _ClearedRelu.apply(x_BCHW, self.inside_B11W[..., self.first :], self.first)
            return found
        x_BCHW[..., self.first :].mul_(self.inside_B11W[..., self.first :])
        if x_BCHW.dtype == torch.bfloat16:  # a negative number is one as an integer too: four times as fast on CPUs
            x_BCHW.view(torch.int16).clamp_(min=0)
            return x_BCHW
        return x_BCHW.relu_()


class _ClearedRelu(torch.autograd.Function):
    """One pass back instead of two: what is zero in the result, whether by ReLU or by the mask, learns nothing."""

    @staticmethod
    def forward(context: Any, x_BCHW: Tensor, inside_B11W: Tensor, first: int) -> Tensor:
        x_BCHW[..., first:].mul_(inside_B11W)
        x_BCHW.relu_()
        context.mark_dirty(x_BCHW)
        context.save_for_backward(x_BCHW)
        return x_BCHW

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (found_BCHW,) = context.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], found_BCHW, 0), None, None


def column_masks(
    width_B: Tensor, columns: int, halvings: int, dtype: torch.dtype = torch.float32, shortest: int = 0
) -> list[Mask]:
    """Masks of the columns as they are and after each of some halvings; `shortest` is the least width if known."""
    masks = []
    for _ in range(halvings + 1):
        masks.append(Mask(inside(width_B, columns)[:, None, None].to(dtype), shortest))
        width_B, columns, shortest = halved(width_B), (columns + 1) // 2, (shortest + 1) // 2
    return masks

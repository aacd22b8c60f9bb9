"""A padded batch of lines, and where in it the ink is.

Letters: b lines of the batch, H rows, W columns of the widest line.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_INK_LEVEL = 0.1
"""Fainter than this counts as paper when the place of the ink is asked for."""


@dataclass(frozen=True, slots=True)
class PaddedLines:
    """Lines of one height, padded on the right to the widest.

    Args:
        ink_B1HW: float32, 0 is white paper and 1 is black; exactly 0 in columns from the line's width on.
        width_B: int64, columns of each line, on the same device.
    """

    ink_B1HW: Tensor
    width_B: Tensor

    def inside(self) -> Tensor:
        """Bool (b, 1, 1, W), true where a column belongs to its line."""
        columns = torch.arange(self.ink_B1HW.shape[3], device=self.width_B.device)
        return columns < self.width_B.view(-1, 1, 1, 1)

    def with_ink(self, ink_B1HW: Tensor) -> "PaddedLines":
        """Lines of the same widths with other ink, a tensor that nobody else needs: it is cleared outside each line."""
        return PaddedLines(ink_B1HW.mul_(self.inside()), self.width_B)


def per_line(value_b: Tensor) -> Tensor:
    """A parameter (b,) in a shape that spreads over (b, 1, H, W)."""
    return value_b.view(-1, 1, 1, 1)


def ink_box(lines: PaddedLines) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the smallest box around the ink of each line.

    Args:
        lines: the lines.

    Returns:
        top, bottom, left, right: int64 (b,), bottom and right exclusive; the whole line where there is no ink.
    """
    height = lines.ink_B1HW.shape[2]
    top_b, bottom_b = _span(lines.ink_B1HW.amax((1, 3)), torch.full_like(lines.width_B, height))
    left_b, right_b = _span(lines.ink_B1HW.amax((1, 2)), lines.width_B)
    return top_b, bottom_b, left_b, right_b


def _span(profile_bN: Tensor, whole_b: Tensor) -> tuple[Tensor, Tensor]:
    inked_bN = profile_bN > _INK_LEVEL
    place_N = torch.arange(profile_bN.shape[1], device=profile_bN.device)
    first_b = torch.where(inked_bN, place_N, profile_bN.shape[1]).amin(1)
    end_b = torch.where(inked_bN, place_N + 1, 0).amax(1)
    blank_b = end_b == 0
    return torch.where(blank_b, 0, first_b), torch.where(blank_b, whole_b, end_b)


def hold_edge(lines: PaddedLines, columns: int) -> Tensor:
    """Repeat each line's last column to the right, so that what looks beyond the edge sees more of the same.

    Args:
        lines: the lines.
        columns: width of the result.

    Returns:
        float32 (b, 1, H, columns).
    """
    place_C = torch.arange(columns, device=lines.width_B.device)
    index_b11C = torch.minimum(place_C, (lines.width_B - 1).clamp(min=0).view(-1, 1, 1, 1))
    return lines.ink_B1HW.gather(3, index_b11C.expand(-1, -1, lines.ink_B1HW.shape[2], -1))

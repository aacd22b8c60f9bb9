"""Ops on the ink alone: spread, lost, faded. Outside the image is background.

Letters: b lines, H rows, W columns.
"""

from collections.abc import Mapping

import torch
from kornia.morphology import dilation
from torch import Tensor

from khmer_ocr.augment import noise_fields
from khmer_ocr.augment.torch_ops.padded_lines import PaddedLines, per_line

_PATCH_CELL_PX = 10
_FADE_CELL_PX = 20
_STREAK_CELL_PX = 3


def morphology(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Spread or thin ink by a share of a 3x3 step.

    Args:
        lines: the lines.
        values: `weight` (b,) in -1..1: above 0 a share of the 3x3 maximum of ink, below 0 of the minimum.
        key_b2: not used.
    """
    weight_b = values["weight"]
    return lines.with_ink(torch.lerp(lines.ink_B1HW, _extreme(lines.ink_B1HW, weight_b), per_line(weight_b.abs())))


def patchy_ink(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Spread or thin ink by a share of a 3x3 step that changes smoothly from place to place.

    Args:
        lines: the lines.
        values: `weight` (b,) in -1..1, reached where the ink is worst.
        key_b2: int64 keys.
    """
    ink, weight_b = lines.ink_B1HW, values["weight"]
    field = noise_fields.smooth(key_b2, ink.shape[2:], _PATCH_CELL_PX, noise_fields.salt("patchy_ink"))
    share = (field * 0.8 + 0.5).clamp_(0, 1) * per_line(weight_b.abs())
    return lines.with_ink(torch.lerp(ink, _extreme(ink, weight_b), share))


def _extreme(ink_b1HW: Tensor, weight_b: Tensor) -> Tensor:
    """The 3x3 maximum of lines with weight above 0, the minimum (that is the maximum of negatives) of the others."""
    sign = per_line(weight_b.sign())
    kernel = torch.ones(3, 3, device=ink_b1HW.device)
    return dilation(ink_b1HW * sign, kernel, border_type="constant", border_value=0.0, engine="auto") * sign


def toner_fade(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Take toner away in clouds, in grains, and in streaks across the line.

    Args:
        lines: the lines.
        values: `depth` (b,), the share of toner lost in the palest cloud; `streaks` (b,), the same in a streak.
        key_b2: int64 keys.
    """
    height, width = lines.ink_B1HW.shape[2:]
    cloud = noise_fields.smooth(key_b2, (height, width), _FADE_CELL_PX, noise_fields.salt("toner_fade"))
    mottle = noise_fields.grain(key_b2, (height, width), noise_fields.salt("toner_fade", 1))
    lost = (cloud * 0.5 + mottle * 0.35 + 0.45).clamp_(0, 1) * per_line(values["depth"])
    stripe = noise_fields.smooth(key_b2, (1, width), _STREAK_CELL_PX, noise_fields.salt("toner_fade", 2))
    kept = 1 - (stripe * 1.5 - 0.6).clamp_(0, 1) * per_line(values["streaks"])
    return lines.with_ink(lines.ink_B1HW * (1 - lost) * kept)

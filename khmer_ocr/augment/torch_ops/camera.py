"""Ops of the sensor and the file: noise, fax threshold, JPEG.

Letters: b lines, H rows, W columns, N blocks of 64 pixels.
"""

import functools
import math
from collections.abc import Mapping

import torch
from kornia.filters import filter2d_separable
from torch import Tensor
from torch.nn import functional

from khmer_ocr.augment import noise_fields
from khmer_ocr.augment.torch_ops.padded_lines import PaddedLines, hold_edge, per_line

_PAPER_REACH_PX = 24
_NEARBY_PX = 9
_LEAST_NEARBY = 0.35
"""The local mean counts for at least this, lest the noise of bare paper be amplified."""
_TRANSFORM_ONE = 8192
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation steps for luminance: ITU-T T.81 (1992), table K.1."""


def noise(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Add white Gaussian noise.

    Args:
        lines: the lines.
        values: `sd_grey` (b,), its standard deviation in grey levels of 255.
        key_b2: int64 keys.
    """
    field = noise_fields.normal(key_b2, lines.ink_B1HW.shape[2:], noise_fields.salt("noise"))
    return lines.with_ink(torch.addcmul(lines.ink_B1HW, field, per_line(values["sd_grey"] / 255)).clamp_(0, 1))


def threshold(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Send the line as a fax does: black where darker than a level that follows paper, toner and the print nearby.

    The level is halfway between `bias` and the local mean, which keeps thin strokes and the counters of fat letters;
    after Sauvola and Pietikainen, "Adaptive document image binarization" (2000). The edge is `gain` times as steep
    as it was and not a step, which is what a bilevel page looks like once it has been scaled to this height.

    Args:
        lines: the lines.
        values: `bias` (b,), the level, 0 at paper and 1 at toner: less makes fatter strokes; `gain` (b,).
        key_b2: not used.
    """
    held = hold_edge(lines, lines.ink_B1HW.shape[3])
    paper_b1HW, toner_b = _levels(lines, _mean(held, 3))
    swing = (per_line(toner_b) - paper_b1HW).clamp_(min=0.1)
    nearby = ((_mean(held, _NEARBY_PX) - paper_b1HW) / swing).clamp(_LEAST_NEARBY, 1)
    level = (nearby + per_line(values["bias"])) / 2
    darkness = (lines.ink_B1HW - paper_b1HW) / swing
    return lines.with_ink(((darkness - level) * per_line(values["gain"]) + 0.5).clamp_(0, 1))


def _mean(ink_b1HW: Tensor, side: int) -> Tensor:
    # Taps of one line's own run 40 times faster than the same taps shared by all: grouped against plain convolution.
    taps_bK = torch.full((len(ink_b1HW), side), 1 / side, device=ink_b1HW.device)
    return filter2d_separable(ink_b1HW, taps_bK, taps_bK, border_type="replicate")


def _levels(lines: PaddedLines, soft_b1HW: Tensor) -> tuple[Tensor, Tensor]:
    """Tone of the paper around every pixel (b, 1, H, W), and of the line's usual toner (b,)."""
    height, device = soft_b1HW.shape[2], soft_b1HW.device
    middle, inside_b1W = max(height // 2, 1), lines.inside()[:, 0].float()
    above_b1W, below_b1W = (
        _around(half.amin(2), inside_b1W) for half in (soft_b1HW[:, :, : middle + 1], soft_b1HW[:, :, middle:])
    )
    part_H1 = ((torch.arange(height, device=device) + 0.5) / middle - 0.5).clamp(0, 1)[:, None]
    paper_b1HW = torch.lerp(above_b1W[:, None], below_b1W[:, None], part_H1)
    darkest_b1W = soft_b1HW.amax(2) * inside_b1W
    halfway_b1W = (darkest_b1W.amax(2, keepdim=True) + torch.minimum(above_b1W, below_b1W)) / 2
    inked_b1W = (darkest_b1W >= halfway_b1W) * inside_b1W
    toner_b = (darkest_b1W * inked_b1W).sum((1, 2)) / inked_b1W.sum((1, 2)).clamp(min=1)
    return paper_b1HW, toner_b


def _around(tone_b1W: Tensor, inside_b1W: Tensor) -> Tensor:
    """The mean over the columns nearby that belong to the line."""
    window = (2 * _PAPER_REACH_PX + 1, 1, _PAPER_REACH_PX)
    share_b1W = functional.avg_pool1d(inside_b1W, *window).clamp(min=1e-6)
    return functional.avg_pool1d(tone_b1W * inside_b1W, *window) / share_b1W


def jpeg(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Lose what a baseline grey JPEG file loses; blocks begin at the line's upper left.

    Args:
        lines: the lines.
        values: `quality` (b,), 1 to 100 on the scale of the Independent JPEG Group.
        key_b2: not used.
    """
    height, width = lines.ink_B1HW.shape[2:]
    blocks_down, blocks_along = -(-height // 8), -(-width // 8)
    held = hold_edge(lines, blocks_along * 8)
    held = functional.pad(held, (0, 0, 0, blocks_down * 8 - height), mode="replicate")
    grey = (held * -255).round_().add_(127)
    blocks = grey.view(-1, blocks_down, 8, blocks_along, 8).transpose(2, 3).reshape(len(grey), -1, 64)
    transform = torch.tensor(_transform(), device=grey.device) / _TRANSFORM_ONE
    step_b1S = _steps(values["quality"])[:, None]
    # Half steps go away from zero, as in the Independent JPEG Group's encoder: they are common, since DC is sum / 8.
    counted = (blocks @ transform.T).div_(step_b1S)
    kept = counted.add_(counted.sign(), alpha=0.5).trunc_().mul_(step_b1S)
    back = (kept @ transform).view(-1, blocks_down, blocks_along, 8, 8).transpose(2, 3)
    ink = back.reshape(-1, 1, blocks_down * 8, blocks_along * 8)[..., :height, :width].add(-127).mul_(-1 / 255)
    return lines.with_ink(ink.clamp_(0, 1))


def _steps(quality_b: Tensor) -> Tensor:
    """Quantisation steps (b, 64) of a quality: the Independent JPEG Group's scaling, jpeg_quality_scaling."""
    whole_b = quality_b.round().clamp(1, 100)
    percent_b = torch.where(whole_b < 50, (5000 / whole_b).floor(), 200 - 2 * whole_b)
    base_64 = torch.tensor(_LUMINANCE, dtype=torch.float32, device=quality_b.device).view(-1)
    return ((base_64 * percent_b[:, None] + 50) / 100).floor_().clamp_(1, 255)


@functools.cache
def _transform() -> tuple[tuple[int, ...], ...]:
    """The 8x8 cosine transform as one orthonormal matrix of 64 x 64 in 1/8192: ITU-T T.81, A.3.3.

    Its rows sum to at most 8 in magnitude, so products with grey levels add up within 24 bits: float32 holds every
    partial sum exactly, and no coefficient halfway between two steps goes another way in another batch.
    """
    cosines = [
        [math.cos((2 * place + 1) * wave * math.pi / 16) * (0.5 if wave else 0.125**0.5) for place in range(8)]
        for wave in range(8)
    ]
    return tuple(
        tuple(round(cosines[v][y] * cosines[u][x] * _TRANSFORM_ONE) for y in range(8) for x in range(8))
        for v in range(8)
        for u in range(8)
    )

"""Ops of the lens and the raster: blurs and loss of resolution, seen before the paper has any tone.

Letters: b lines, H rows, W columns, K taps, N places of a raster.
"""

from collections.abc import Mapping

import torch
from kornia.filters import filter2d, filter2d_separable
from torch import Tensor

from khmer_ocr.augment.torch_ops.padded_lines import PaddedLines

_LEAST_SIGMA_PX = 1e-3
_KERNEL_RADIUS = 3
"""Reach in px of the disc and of the motion path."""


def blur(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Gaussian blur; taps end at ceil(3 sigma) and sum to one, as those of the fused kernel do.

    Args:
        lines: the lines.
        values: `sigma_px` (b,), 0 changes nothing.
        key_b2: not used.
    """
    sigma_b1 = values["sigma_px"].clamp(min=_LEAST_SIGMA_PX)[:, None]
    reach_b1 = (3 * values["sigma_px"][:, None]).ceil()
    reach = int(reach_b1.max())
    place_K = torch.arange(-reach, reach + 1, device=sigma_b1.device)
    taps_bK = torch.exp(-0.5 * (place_K / sigma_b1) ** 2) * (place_K.abs() <= reach_b1)
    taps_bK /= taps_bK.sum(1, keepdim=True)
    return lines.with_ink(filter2d_separable(lines.ink_B1HW, taps_bK, taps_bK, border_type="constant").clamp_(0, 1))


def defocus(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Blur by a disc whose edge is one pixel soft.

    Args:
        lines: the lines.
        values: `radius_px` (b,), below 0.5 changes nothing.
        key_b2: not used.
    """
    x_K, y_K1 = _places(lines.ink_B1HW.device)
    return _convolved(lines, values["radius_px"].view(-1, 1, 1) + 0.5 - torch.hypot(x_K, y_K1))


def motion_blur(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Blur along a straight path through the pixel, one pixel wide.

    Args:
        lines: the lines.
        values: `length_px` (b,), below 1 changes next to nothing; `angle_deg` (b,), 0 along the line.
        key_b2: not used.
    """
    x_K, y_K1 = _places(lines.ink_B1HW.device)
    angle_b = torch.deg2rad(values["angle_deg"]).view(-1, 1, 1)
    along = (x_K * angle_b.cos() + y_K1 * angle_b.sin()).abs()
    aside = (y_K1 * angle_b.cos() - x_K * angle_b.sin()).abs()
    path = (values["length_px"].view(-1, 1, 1) / 2 + 0.5 - along).clamp(0, 1)
    return _convolved(lines, path * (1 - aside).clamp(0, 1))


def _places(device: torch.device) -> tuple[Tensor, Tensor]:
    place_K = torch.arange(-_KERNEL_RADIUS, _KERNEL_RADIUS + 1, dtype=torch.float32, device=device)
    return place_K, place_K[:, None]


def _convolved(lines: PaddedLines, weight_bKK: Tensor) -> PaddedLines:
    """Convolve each line with its own kernel, cut to 0..1 and made to sum to one."""
    kernel_bKK = weight_bKK.clamp(0, 1)
    kernel_bKK = kernel_bKK / kernel_bKK.sum((1, 2), keepdim=True)
    return lines.with_ink(filter2d(lines.ink_B1HW, kernel_bKK, border_type="constant").clamp_(0, 1))


def resolution_loss(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Sample down by area and up again linearly, along both axes.

    Args:
        lines: the lines.
        values: `factor` (b,) in 0.25..1: pixels left for every pixel, along each axis.
        key_b2: not used.
    """
    ink_bHW, factor_b = lines.ink_B1HW[:, 0], values["factor"]
    ink_bWH = _down_and_up(ink_bHW, factor_b).transpose(1, 2).contiguous()
    ink_bHW = _down_and_up(ink_bWH, factor_b).transpose(1, 2).contiguous()
    return lines.with_ink(ink_bHW[:, None].clamp_(0, 1))


def _down_and_up(rows_bNM: Tensor, factor_b: Tensor) -> Tensor:
    """Resample along the first of two axes; beyond its end is background."""
    length = rows_bNM.shape[1]
    area = torch.nn.functional.pad(rows_bNM.cumsum(1), (0, 0, 1, 0))
    cells = int((length * factor_b.max()).ceil()) + 1
    cell_N = torch.arange(cells + 1, dtype=torch.float32, device=factor_b.device)
    upto = _between(area, cell_N / factor_b[:, None])
    coarse = (upto[:, 1:] - upto[:, :-1]) * factor_b.view(-1, 1, 1)
    pixel_N = torch.arange(length, dtype=torch.float32, device=factor_b.device)
    return _between(coarse, (pixel_N + 0.5) * factor_b[:, None] - 0.5)


def _between(rows_bNM: Tensor, place_bP: Tensor) -> Tensor:
    """Rows at fractional places, linear between whole ones; the ends hold beyond."""
    lines, length, width = rows_bNM.shape
    place_bP = place_bP.clamp(0, length - 1)
    low_bP = place_bP.floor()
    first_b1 = torch.arange(lines, device=place_bP.device)[:, None] * length
    low, flat = low_bP.long(), rows_bNM.reshape(-1, width)
    high = (low + 1).clamp(max=length - 1)
    low_rows, high_rows = (flat.index_select(0, (row + first_b1).view(-1)) for row in (low, high))
    mixed = torch.lerp(low_rows, high_rows, (place_bP - low_bP).reshape(-1, 1))
    return mixed.view(lines, -1, width)

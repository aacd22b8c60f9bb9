"""Ops that put other print around the text: rules, pieces of other lines, the back of the sheet.

None of them may change what a reader has to write down: rules and pieces only go where this line has no ink.

Letters: b lines, H rows, W columns.
"""

from collections.abc import Mapping

import torch
from kornia.filters import filter2d_separable
from torch import Tensor

from khmer_ocr.augment import noise_fields
from khmer_ocr.augment.limits import LIMITS
from khmer_ocr.augment.torch_ops.padded_lines import PaddedLines, ink_box, per_line

_OVERHANG_PX = 2.0
_SOFT_TAPS = (0.06, 0.24, 0.4, 0.24, 0.06)


def underline(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Draw a rule under the text, moved up or thinned to fit under the lowest ink, or left out if nothing fits.

    Args:
        lines: the lines.
        values: `gap_px` (b,) between the lowest ink and the rule; `thickness_px` (b,); `darkness` (b,).
        key_b2: not used.
    """
    height, width = lines.ink_B1HW.shape[2:]
    _, bottom_b, left_b, right_b = ink_box(lines)
    room_b = (height - bottom_b).float()
    thickness_b = torch.minimum(values["thickness_px"], room_b)
    top_b = bottom_b + torch.minimum(values["gap_px"], room_b - thickness_b)
    rows = _covered(height, top_b, top_b + thickness_b).view(-1, 1, height, 1)
    columns = _covered(width, left_b - _OVERHANG_PX, right_b + _OVERHANG_PX).view(-1, 1, 1, width)
    return lines.with_ink(torch.maximum(lines.ink_B1HW, rows * columns * per_line(values["darkness"])))


def _covered(length: int, start_b: Tensor, end_b: Tensor) -> Tensor:
    """The share (b, length) of every pixel that lies between two places in px."""
    pixel = torch.arange(length, device=start_b.device)
    inner = torch.minimum(pixel + 1, end_b[:, None]) - torch.maximum(pixel, start_b[:, None])
    return inner.clamp(0, 1).float()


def table_rules(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Draw the rules of a table's cell: each side with probability 0.5, at a place free of ink, over the whole length.

    Args:
        lines: the lines.
        values: `thickness_px` (b,); `darkness` (b,).
        key_b2: int64 keys.
    """
    height, width = lines.ink_B1HW.shape[2:]
    uniform_b8 = noise_fields.grid_bytes(key_b2, 1, 8, noise_fields.salt("table_rules"))[:, :, 0, 0].float() / 256
    top_b, bottom_b, left_b, right_b = ink_box(lines)
    zero_b = torch.zeros_like(top_b)
    # A free column keeps an upright rule from looking like a stroke of the first or last letter.
    upright = ((zero_b, (left_b - 1).clamp(min=0)), (torch.minimum(right_b + 1, lines.width_B), lines.width_B))
    sides = ((zero_b, top_b), (bottom_b, zero_b + height), *upright)
    rules = []
    for side, (low_b, high_b) in enumerate(sides):
        thickness_b = torch.minimum(values["thickness_px"], (high_b - low_b).float())
        start_b = low_b + (high_b - low_b - thickness_b) * uniform_b8[:, side]
        drawn_b = (uniform_b8[:, 4 + side] < 0.5) & (thickness_b >= 0.5)
        length = height if side < 2 else width
        rules.append(_covered(length, start_b, start_b + thickness_b) * drawn_b[:, None])
    across = torch.maximum(rules[0], rules[1]).view(-1, 1, height, 1)
    down = torch.maximum(rules[2], rules[3]).view(-1, 1, 1, width)
    return lines.with_ink(torch.maximum(lines.ink_B1HW, torch.maximum(across, down) * per_line(values["darkness"])))


def neighbour_lines(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Let the batch's previous lines show at the top and bottom edge, a free row away from this line's ink.

    Args:
        lines: the lines; line n borrows from n - 1 for what is above it, and from n - 2 for what is below.
        values: `above_px` and `below_px` (b,), how much of the neighbour the crop took; `darkness` (b,) of it.
        key_b2: not used.
    """
    ink, height = lines.ink_B1HW.clone(), lines.ink_B1HW.shape[2]
    reach = min(height, int(LIMITS["neighbour_lines"]["above_px"][1]))
    row_K = torch.arange(reach, device=ink.device)
    top_b1, bottom_b1, _, _ = (edge[:, None] for edge in ink_box(lines))
    dark = per_line(values["darkness"])
    # The lowest ink of the line above comes to stand on row above - 1, the highest of the line below on height - below.
    above_b1 = torch.minimum(values["above_px"].long()[:, None], top_b1 - 1)
    row_bK = torch.where(row_K < above_b1, row_K + bottom_b1.roll(1, 0) - above_b1, -1)
    strip = ink[:, :, :reach]
    torch.maximum(strip, _rows(lines.ink_B1HW.roll(1, 0), row_bK) * dark, out=strip)
    first_b1 = reach - torch.minimum(values["below_px"].long()[:, None], height - bottom_b1 - 1)
    row_bK = torch.where(row_K >= first_b1, row_K - first_b1 + top_b1.roll(2, 0), -1)
    strip = ink[:, :, height - reach :]
    torch.maximum(strip, _rows(lines.ink_B1HW.roll(2, 0), row_bK) * dark, out=strip)
    return lines.with_ink(ink)


def _rows(ink_b1HW: Tensor, row_bK: Tensor) -> Tensor:
    """Rows by number; numbers outside the image give background."""
    height, width = ink_b1HW.shape[2:]
    inside_bK = (row_bK >= 0) & (row_bK < height)
    index = row_bK.clamp(0, height - 1)[:, None, :, None].expand(-1, -1, -1, width)
    return ink_b1HW.gather(2, index) * inside_bK[:, None, :, None]


def bleed_through(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Let the batch's previous line shine through the paper: mirrored, shifted, blurred, faint.

    Args:
        lines: the lines.
        values: `darkness` (b,) of black ink seen from behind.
        key_b2: int64 keys.
    """
    ink, height = lines.ink_B1HW, lines.ink_B1HW.shape[2]
    shift_b = noise_fields.grid_bytes(key_b2, 1, 1, noise_fields.salt("bleed_through"))[:, 0, 0, 0].long() * height >> 8
    row_bH = (torch.arange(height, device=ink.device) + shift_b[:, None]) % height
    width_b = lines.width_B.roll(1, 0).view(-1, 1, 1, 1)
    column = width_b - 1 - torch.arange(ink.shape[3], device=ink.device)
    mirrored = ink.roll(1, 0).gather(3, column.clamp(min=0).expand(-1, -1, height, -1)) * (column >= 0)
    taps = torch.tensor([_SOFT_TAPS], device=ink.device).expand(len(ink), -1)
    behind = filter2d_separable(_rows(mirrored, row_bH), taps, taps, border_type="constant")
    return lines.with_ink(torch.maximum(ink, behind * per_line(values["darkness"])))

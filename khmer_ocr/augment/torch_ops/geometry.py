"""All that moves ink, in one homography and one resampling per line.

Coordinates are continuous, in px: pixel n covers n to n + 1. The homography takes places of the old image to places of
the new one: centre the ink box, slant and stretch, turn, foreshorten, then scale and shift so that the whole box is
inside. Source of the form: Hartley and Zisserman, Multiple View Geometry (2004), section 2.4.

Letters: b lines, H rows, W columns of the old image, V columns of the new one.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from khmer_ocr.augment import noise_fields
from khmer_ocr.augment.torch_ops.padded_lines import PaddedLines, ink_box

_EDGE_PX = 0.5
"""Paper kept above and below the ink."""
_RISE_SHARE = 0.3
"""A turned line may rise by this share of the height: more would have to be made too small to read."""
_KEYSTONE_FULL_PX = 300.0
"""Shorter lines get a proportional part of the keystone, as they would on a page."""
_WAVE_CELL_PX = 96


def geometry(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Turn, slant, foreshorten, wave, scale and crop anew, without cutting ink.

    Args:
        lines: the lines.
        values: (b,) each. `rotation_deg`, held to a rise of 0.3 heights over the line; `shear`, px right per px up;
            `perspective_x` and `perspective_y`, relative change of size from the middle to the right and lower edge;
            `wave_px`, how far the baseline strays; `stretch`, height against width; `scale`, the size expected, made
            smaller if the line would not fit; `left_px` and `right_px` of paper beside the ink; `place`, where in
            the free rows it stands, 0 at the top.
        key_b2: int64 keys.

    Returns:
        Lines of the same height and new widths.
    """
    height = lines.ink_B1HW.shape[2]
    placed_b33, width_b = _homography(lines, values, height)
    inverse_b33 = torch.linalg.inv(placed_b33).float()
    new_width = int(width_b.max())
    wave = noise_fields.smooth(key_b2, (1, new_width), _WAVE_CELL_PX, noise_fields.salt("geometry"))[:, 0]
    wave = wave.clamp_(-1, 1) * values["wave_px"].view(-1, 1, 1)
    grid_bHV2 = _grid(inverse_b33, wave, height, new_width, lines.ink_B1HW.shape[3])
    moved = functional.grid_sample(lines.ink_B1HW, grid_bHV2, "bilinear", "zeros", align_corners=False)
    return PaddedLines(moved, width_b).with_ink(moved)


def _homography(lines: PaddedLines, values: Mapping[str, Tensor], height: int) -> tuple[Tensor, Tensor]:
    """Old places to new ones, float64 (b, 3, 3), and the new widths, int64 (b,)."""
    v = {name: value.double() for name, value in values.items()}
    top_b, bottom_b, left_b, right_b = (edge.double() for edge in ink_box(lines))
    centre_b2 = torch.stack([(left_b + right_b) / 2, (top_b + bottom_b) / 2], 1)
    half_b2 = torch.stack([((right_b - left_b) / 2).clamp(min=0.5), (bottom_b - top_b) / 2 + v["wave_px"]], 1)
    matrix_b33 = _foreshortened(v, half_b2, height)
    low_b2, high_b2 = _bounds(matrix_b33, half_b2)
    room_px = height - 2 * _EDGE_PX
    span_b2 = high_b2 - low_b2
    scale_b = torch.minimum(v["scale"], room_px / span_b2[:, 1])
    free_b = room_px - span_b2[:, 1] * scale_b
    shift_b2 = torch.stack([v["left_px"], _EDGE_PX + free_b * v["place"]], 1) - low_b2 * scale_b[:, None]
    fit_b33 = _affine(scale_b, 0 * scale_b, 0 * scale_b, scale_b, shift_b2)
    one_b, zero_b = torch.ones_like(scale_b), torch.zeros_like(scale_b)
    centred_b33 = _affine(one_b, zero_b, zero_b, one_b, -centre_b2)
    width_b = (span_b2[:, 0] * scale_b + v["left_px"] + v["right_px"]).ceil().long().clamp(min=1)
    return fit_b33 @ matrix_b33 @ centred_b33, width_b


def _affine(a_b: Tensor, b_b: Tensor, c_b: Tensor, d_b: Tensor, shift_b2: Tensor) -> Tensor:
    zero_b, one_b = torch.zeros_like(a_b), torch.ones_like(a_b)
    rows = [a_b, b_b, shift_b2[:, 0], c_b, d_b, shift_b2[:, 1], zero_b, zero_b, one_b]
    return torch.stack(rows, 1).view(-1, 3, 3)


def _foreshortened(v: Mapping[str, Tensor], half_b2: Tensor, height: int) -> Tensor:
    """Slant and stretch, then turn, then the two keystones, around the middle of the ink."""
    one_b, zero_b = torch.ones_like(half_b2[:, 0]), torch.zeros_like(half_b2[:, 0])
    none_b2 = torch.zeros_like(half_b2)
    slanted = _affine(one_b, -v["shear"], zero_b, v["stretch"], none_b2)
    most_b = torch.asin((_RISE_SHARE * height / (2 * half_b2[:, 0])).clamp(max=1))
    angle_b = torch.minimum(torch.maximum(v["rotation_deg"] * (math.pi / 180), -most_b), most_b)
    cos_b, sin_b = angle_b.cos(), angle_b.sin()
    turned = _affine(cos_b, -sin_b, sin_b, cos_b, none_b2)
    part_b = (2 * half_b2[:, 0] / _KEYSTONE_FULL_PX).clamp(max=1)
    # The lower edge is measured in half heights of the image, so that a long line's rise cannot turn it inside out.
    across_b, down_b = v["perspective_x"] * part_b / half_b2[:, 0], v["perspective_y"] * 2 / height
    rows = [one_b, zero_b, zero_b, zero_b, one_b, zero_b, -across_b, -down_b, one_b]
    return torch.stack(rows, 1).view(-1, 3, 3) @ turned @ slanted


def _bounds(matrix_b33: Tensor, half_b2: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest x and y (b, 2) of the mapped box; its corners bound it, for lines stay lines."""
    signs_34 = torch.tensor([[-1, 1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]], dtype=half_b2.dtype, device=half_b2.device)
    size_b3 = functional.pad(half_b2, (0, 1), value=1.0)
    mapped_b34 = matrix_b33 @ (size_b3[:, :, None] * signs_34)
    corners_b24 = mapped_b34[:, :2] / mapped_b34[:, 2:]
    return corners_b24.amin(2), corners_b24.amax(2)


def _grid(inverse_b33: Tensor, wave_b1V: Tensor, height: int, new_width: int, old_width: int) -> Tensor:
    """Where every new pixel's centre was, in the -1..1 of `grid_sample`, (b, H, V, 2)."""
    device = inverse_b33.device
    # The scale to -1..1 goes into the matrix: 2 x / W - 1 = (2 x' / W - depth) / depth.
    scale_33 = torch.tensor([[2 / old_width, 0, -1], [0, 2 / height, -1], [0, 0, 1]], device=device)
    m = (scale_33 @ inverse_b33)[..., None]
    x_V = torch.arange(new_width, device=device) + 0.5
    y_H1 = torch.arange(height, device=device)[:, None] + 0.5
    along = [m[:, row, 0, None] * x_V for row in range(3)]
    across = [m[:, row, 1, None] * y_H1 + m[:, row, 2, None] for row in range(3)]
    grid_bHV2 = torch.empty(len(m), height, new_width, 2, device=device)
    torch.add(along[0], across[0], out=grid_bHV2[..., 0])
    torch.add(along[1], across[1], out=grid_bHV2[..., 1])
    grid_bHV2.mul_((along[2] + across[2]).reciprocal_()[..., None])
    grid_bHV2[..., 1].add_(wave_b1V, alpha=2 / height)
    return grid_bHV2

"""Ops of the sheet under the light: tones of paper and toner, texture, shade, stains and dust.

They leave tone inside a line's width only; `Lines.with_ink` clears the rest.

Letters: b lines, H rows, W columns, G columns and R rows of cells, S pixels of a cell.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from khmer_ocr.augment import noise_fields
from khmer_ocr.augment.torch_ops.padded_lines import PaddedLines, per_line

_CLOUD_CELL_PX = 24
_SHADE_CELL_PX = 48
_BLOB_CELL_PX = 5
_BLOB_EDGE = 6.0
_DUST_CELL_PX = 8
_DUST_SHAPES = (
    ((0, 0), (0, 0), (0, 0), (0, 0), (0, 0)),
    ((0, 0), (0, 1), (1, 0), (1, 1), (0, 0)),
    ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)),
)
"""Rows and columns from its middle that a dot of 1, 2 and 3 px covers; repeated to equal length."""


def contrast(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Give paper and toner their tones.

    Args:
        lines: the lines.
        values: `paper` (b,), darkness of the bare sheet; `contrast` (b,), the share of the way from there to black
            that solid toner keeps.
        key_b2: not used.
    """
    paper = per_line(values["paper"])
    return lines.with_ink(paper + lines.ink_B1HW * ((1 - paper) * per_line(values["contrast"])))


def paper_texture(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Darken the paper in clouds and fibres; toner covers them.

    Args:
        lines: the lines.
        values: `smooth` and `fine` (b,), the share of black that each reaches, about.
        key_b2: int64 keys.
    """
    ink = lines.ink_B1HW
    clouds = noise_fields.smooth(key_b2, ink.shape[2:], _CLOUD_CELL_PX, noise_fields.salt("paper_texture"))
    fibres = noise_fields.grain(key_b2, ink.shape[2:], noise_fields.salt("paper_texture", 1))
    tone = (clouds * 0.5 + 0.5) * per_line(values["smooth"]) + (fibres * 0.7 + 0.5) * per_line(values["fine"])
    return lines.with_ink(ink + (1 - ink) * tone.clamp_(0, 1))


def uneven_light(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Dim the light along the line, across it, and in clouds.

    Args:
        lines: the lines.
        values: `slope_x` (b,), the share of light lost at the right end, or at the left end if below 0; `slope_y`
            (b,), the same for the bottom and the top; `field` (b,), the share lost in the darkest cloud.
        key_b2: int64 keys.
    """
    height, width = lines.ink_B1HW.shape[2:]
    device = lines.width_B.device
    along = (torch.arange(width, device=device) + 0.5) / lines.width_B.view(-1, 1, 1, 1)
    across = ((torch.arange(height, device=device) + 0.5) / height).view(1, 1, -1, 1)
    slope_x, slope_y = per_line(values["slope_x"]), per_line(values["slope_y"])
    lost_x = torch.where(slope_x > 0, along, along - 1) * slope_x
    lost_y = torch.where(slope_y > 0, across, across - 1) * slope_y
    clouds = noise_fields.smooth(key_b2, (height, width), _SHADE_CELL_PX, noise_fields.salt("uneven_light"))
    light = (1 - lost_x) * (1 - lost_y) * (1 - (clouds * 0.5 + 0.5).clamp_(0, 1) * per_line(values["field"]))
    return lines.with_ink((1 - (1 - lines.ink_B1HW) * light).clamp_(0, 1))


def blobs(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Stain the line, or take its ink away, where a smooth field is highest.

    Args:
        lines: the lines.
        values: `share` (b,) of the area, about; `darkness` (b,) of the stain, or of the loss if below 0.
        key_b2: int64 keys.
    """
    ink = lines.ink_B1HW
    field = noise_fields.smooth(key_b2, ink.shape[2:], _BLOB_CELL_PX, noise_fields.salt("blobs"))
    z_b = 2**0.5 * torch.erfinv(1 - 2 * values["share"].clamp(1e-4, 0.05).double())
    # The field's deviation is 0.5, and its upper quantiles fall short of the normal law's by this much, as measured.
    level = per_line((0.5 * z_b * (1.173 - 0.105 * z_b)).to(ink.dtype))
    strength = ((field - level) * _BLOB_EDGE).clamp_(0, 1) * per_line((values["share"] > 0) * values["darkness"].abs())
    return lines.with_ink(torch.lerp(ink, (per_line(values["darkness"]) > 0).to(ink.dtype).expand_as(ink), strength))


def speckle(lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Scatter dots of dust and of lost ink, at most one in a cell of 8x8 px.

    Args:
        lines: the lines.
        values: `density` (b,) of dots per 1,000 px; `size_px` (b,) of the largest, 1 to 3; `salt` (b,), the share
            of dots that are white.
        key_b2: int64 keys.
    """
    count, _, height, width = lines.ink_B1HW.shape
    rows, columns = -(-height // _DUST_CELL_PX), -(-width // _DUST_CELL_PX)
    place_bGR5, tone_bGR5 = _dust(values, key_b2, rows, columns)
    place_bN, tone_bN = place_bGR5.view(count, -1), tone_bGR5.reshape(count, -1)
    sheet_bN = torch.zeros(count, (rows * _DUST_CELL_PX + 2) * (columns * _DUST_CELL_PX + 2), device=place_bN.device)
    shape = (count, 1, rows * _DUST_CELL_PX + 2, columns * _DUST_CELL_PX + 2)
    dark = sheet_bN.scatter_reduce(1, place_bN, tone_bN.clamp(min=0), "amax").view(shape)
    white = sheet_bN.scatter_reduce(1, place_bN, tone_bN.clamp(max=0), "amin").view(shape)
    inner = (..., slice(1, 1 + height), slice(1, 1 + width))
    return lines.with_ink(torch.minimum(torch.maximum(lines.ink_B1HW, dark[inner]), 1 + white[inner]))


def _dust(values: Mapping[str, Tensor], key_b2: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Pixels of every cell's dot on a sheet with one pixel of border, and its darkness: below 0 if white, 0 if none."""
    drawn = noise_fields.grid_bytes(key_b2, rows, columns, noise_fields.salt("speckle"), 6).long()
    side, device = _DUST_CELL_PX, drawn.device
    seen = (drawn[..., 0] << 8 | drawn[..., 1]) < (values["density"] * (side * side * 65.536)).view(-1, 1, 1)
    kind = (drawn[..., 5] * values["size_px"].view(-1, 1, 1) / 256).long().clamp_(0, 2)
    sign = torch.where(drawn[..., 3] < values["salt"].view(-1, 1, 1) * 256, -1.0, 1.0)
    tone_bGR = seen * sign * (0.4 + drawn[..., 4] * (0.6 / 255))
    stride = columns * side + 2
    row_R, column_G1 = (
        torch.arange(rows, device=device) * side + 1,
        torch.arange(columns, device=device)[:, None] * side + 1,
    )
    middle = (row_R + (drawn[..., 2] >> 3 & 7)) * stride + column_G1 + (drawn[..., 2] & 7)
    shapes_352 = torch.tensor(_DUST_SHAPES, device=device)
    place_bGR5 = middle[..., None] + (shapes_352[..., 0] * stride + shapes_352[..., 1])[kind]
    return place_bGR5, tone_bGR[..., None].expand(-1, -1, -1, 5)

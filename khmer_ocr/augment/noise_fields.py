"""Random fields over lines: each a pure function of the line's key, the same for any width of the batch.

Bytes are numbered down each column and then to the right, so that what a batch's padding adds comes last. Coarse grids
have cells of a fixed size in px. The salt tells the fields of one key apart; it goes into Philox counter words 1 and 2.

Letters: b lines, H rows, W columns, G and K rows and columns of a coarse grid.
"""

import functools
from collections.abc import Sequence
from statistics import NormalDist

import torch
from khmer_ocr_kernels.philox_torch import uniform_bytes
from torch import Tensor
from torch.nn import functional

_SPLINE_SD = 0.277
"""Standard deviation of a cubic B-spline over coefficients uniform in -1..1: (sum of squared weights) / sqrt 3."""
_BILINEAR_SD = 0.361
_FIELD_SD = 0.5


def salt(name: str, field: int = 0) -> tuple[int, int, int]:
    """Counter words of a field: four letters of its op, and its number in the op."""
    return int.from_bytes(name[:4].encode(), "little"), field, 0


def grid_bytes(key_b2: Tensor, rows: int, columns: int, salt_3: tuple[int, int, int], per_cell: int = 1) -> Tensor:
    """Draw bytes for every cell of a grid, numbered down each column.

    Args:
        key_b2: int64 keys.
        rows: cells down.
        columns: cells across; more of them change nothing in the first ones.
        salt_3: from `salt`.
        per_cell: bytes a cell.

    Returns:
        uint8 (b, columns, rows, per_cell).
    """
    drawn_bN = uniform_bytes(key_b2, columns * rows * per_cell, salt_3)
    return drawn_bN.view(-1, columns, rows, per_cell)


def normal(key_b2: Tensor, size_HW: Sequence[int], salt_3: tuple[int, int, int]) -> Tensor:
    """Draw white Gaussian noise, one of 256 quantiles a pixel.

    Args:
        key_b2: int64 keys.
        size_HW: rows and columns.
        salt_3: from `salt`.

    Returns:
        float32 (b, 1, H, W) of mean 0 and variance 1.
    """
    height, width = size_HW
    drawn_bWH = grid_bytes(key_b2, height, width, salt_3)[..., 0]
    table_256 = torch.tensor(_quantiles(), device=key_b2.device)
    value_bWH = table_256.index_select(0, drawn_bWH.reshape(-1).int()).view(drawn_bWH.shape)
    return value_bWH.transpose(1, 2)[:, None]


@functools.cache
def _quantiles() -> tuple[float, ...]:
    """Normal quantiles at the middles of 256 equal shares, scaled to variance 1."""
    raw = [NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)]
    sd = (sum(z * z for z in raw) / 256) ** 0.5
    return tuple(z / sd for z in raw)


def smooth(key_b2: Tensor, size_HW: Sequence[int], cell_px: int, salt_3: tuple[int, int, int]) -> Tensor:
    """Draw a smooth field: a uniform cubic B-spline over random coefficients.

    Args:
        key_b2: int64 keys.
        size_HW: rows and columns.
        cell_px: distance of the coefficients; bumps are about twice as wide.
        salt_3: from `salt`.

    Returns:
        float32 (b, 1, H, W), mean 0, standard deviation about 0.5, within -1.8..1.8.
    """
    height, width = size_HW
    rows, cells = -(-height // cell_px) + 3, -(-width // cell_px)
    coarse_bKG = _centred(grid_bytes(key_b2, rows, cells + 3, salt_3)[..., 0]) * (_FIELD_SD / _SPLINE_SD)
    basis_4C = _spline_basis(cell_px, key_b2.device)
    coarse_bHK = (coarse_bKG @ _row_basis(basis_4C, rows, height)).transpose(1, 2)
    field_bHKC = coarse_bHK[..., :cells, None] * basis_4C[0]
    for tap in range(1, 4):
        field_bHKC.addcmul_(coarse_bHK[..., tap : tap + cells, None], basis_4C[tap])
    return field_bHKC.reshape(len(key_b2), 1, height, cells * cell_px)[..., :width]


def _centred(drawn: Tensor) -> Tensor:
    return (drawn.float() - 127.5) / 127.5


def _spline_basis(cell_px: int, device: torch.device) -> Tensor:
    """Weights (4, cell_px) of the uniform cubic B-spline at the pixels' centres."""
    t = (torch.arange(cell_px, dtype=torch.float32, device=device) + 0.5) / cell_px
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    return torch.stack(weights) / 6


def _row_basis(basis_4C: Tensor, rows: int, height: int) -> Tensor:
    """Weights (rows, height) of every coarse row in every pixel row."""
    cell_px = basis_4C.shape[1]
    matrix = torch.zeros(rows, (rows - 3) * cell_px, device=basis_4C.device)
    for cell in range(rows - 3):
        matrix[cell : cell + 4, cell * cell_px : (cell + 1) * cell_px] = basis_4C
    return matrix[:, :height]


def grain(key_b2: Tensor, size_HW: Sequence[int], salt_3: tuple[int, int, int]) -> Tensor:
    """Draw a fine field: random values every second pixel, linear between them.

    Args:
        key_b2: int64 keys.
        size_HW: rows and columns.
        salt_3: from `salt`.

    Returns:
        float32 (b, 1, H, W), mean 0, standard deviation about 0.5, within -1.4..1.4.
    """
    height, width = size_HW
    rows, columns = height // 2 + 2, width // 2 + 2
    coarse_bKG = _centred(grid_bytes(key_b2, rows, columns, salt_3)[..., 0]) * (_FIELD_SD / _BILINEAR_SD)
    coarse_b1GK = coarse_bKG.transpose(1, 2)[:, None].contiguous()
    fine = functional.interpolate(coarse_b1GK, scale_factor=2.0, mode="bilinear", align_corners=False)
    return fine[..., :height, :width]

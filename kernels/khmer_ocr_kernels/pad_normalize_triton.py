"""Ragged lines to a padded, normalised batch: the twin of `reference.pad_normalize` on CUDA.

Letters: B lines, N pixels, H rows, X columns of the batch.
"""

import torch
import triton
import triton.language as tl

from khmer_ocr_kernels.compose_triton import check_tensors

TILE_H, TILE_W = 16, 128
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


@triton.jit
def pad_tiles(
    pixels_ptr: tl.tensor,
    offsets_ptr: tl.tensor,
    width_ptr: tl.tensor,
    height: tl.tensor,
    columns: tl.tensor,
    table_ptr: tl.tensor,
    padded_ptr: tl.tensor,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
) -> None:
    """Program (line, tile column, tile row) fills its tile of the line's image."""
    b = tl.program_id(0)
    x = tl.program_id(1) * TILE_W + tl.arange(0, TILE_W)[None, :]
    y = tl.program_id(2) * TILE_H + tl.arange(0, TILE_H)[:, None]
    width = tl.load(width_ptr + b)
    line_ptr = pixels_ptr + tl.load(offsets_ptr + b)
    pixel = tl.load(line_ptr + y.to(tl.int64) * width + x, mask=(y < height) & (x < width), other=255)
    row = b.to(tl.int64) * height + y
    tl.store(padded_ptr + row * columns + x, tl.load(table_ptr + pixel), mask=(y < height) & (x < columns))


def pad_normalize(
    pixels_N: torch.Tensor,
    offsets_B1: torch.Tensor,
    width_B: torch.Tensor,
    height: int,
    columns: int,
    table_256: torch.Tensor,
) -> torch.Tensor:
    """Pad and normalise lines that `pad_normalize.pad_normalize` has checked, on the device that holds them.

    Args:
        pixels_N: uint8, as all that follow on one CUDA device.
        offsets_B1: int64.
        width_B: int32, px.
        height: height of every line, px.
        columns: width of the batch, px.
        table_256: 256 values of any dtype of 1, 2 or 4 bytes.

    Returns:
        Tensor (B, 1, height, columns) of the table's dtype, on the device.

    Raises:
        ValueError: the arguments are not tensors of one CUDA device.
    """
    check_tensors(pixels_N=pixels_N, offsets_B1=offsets_B1, width_B=width_B, table_256=table_256)
    inputs = (pixels_N, offsets_B1, width_B, table_256.view(_BITS[table_256.dtype.itemsize]))
    pixels_N, offsets_B1, width_B, bits_256 = (each.contiguous() for each in inputs)
    padded_B1HX = torch.empty((len(width_B), 1, height, columns), dtype=bits_256.dtype, device=pixels_N.device)
    if padded_B1HX.numel():
        tiles = (len(width_B), triton.cdiv(columns, TILE_W), triton.cdiv(height, TILE_H))
        with torch.cuda.device_of(pixels_N):
            pad_tiles[tiles](
                *(pixels_N, offsets_B1, width_B, height, columns, bits_256, padded_B1HX), TILE_H=TILE_H, TILE_W=TILE_W
            )
    return padded_B1HX.view(table_256.dtype)

"""Ragged lines to a padded, normalised batch: `reference.pad_normalize` on CUDA."""

import torch
import triton
import triton.language as tl

from khmer_ocr_kernels.arrays import I64
from khmer_ocr_kernels.compose_triton import check_tensors, on_device
from khmer_ocr_kernels.ragged import RaggedLines

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
    lines: RaggedLines, columns: int, table_256: torch.Tensor | None = None, order_b: I64 | None = None
) -> torch.Tensor:
    """Pad and look up lines that `pad_normalize.pad_normalize` has checked, on the device that holds them."""
    columns = int(columns)  # numpy's integers are nothing to a Triton kernel
    device, begin_b, width_b = lines.pixels_N.device, lines.offsets_B1[:-1], lines.width_B
    if table_256 is None:
        table_256 = torch.arange(256, dtype=torch.uint8, device=device)
    if order_b is not None:
        begin_b, width_b = begin_b[order_b], width_b[order_b]
    check_tensors(pixels_N=lines.pixels_N, table_256=table_256)
    bits_256 = table_256.view(_BITS[table_256.dtype.itemsize]).contiguous()
    padded_b1HX = torch.empty((len(width_b), 1, lines.height_px, columns), dtype=bits_256.dtype, device=device)
    if padded_b1HX.numel():
        tiles = (len(width_b), triton.cdiv(columns, TILE_W), triton.cdiv(lines.height_px, TILE_H))
        places = (on_device(begin_b, device), on_device(width_b, device))
        with torch.cuda.device_of(bits_256):
            pad_tiles[tiles](
                *(lines.pixels_N, *places, lines.height_px, columns, bits_256, padded_b1HX),
                TILE_H=TILE_H,
                TILE_W=TILE_W,
            )
    return padded_b1HX.view(table_256.dtype)

"""Ragged lines to a padded, normalised batch: an integer gather, so the same bytes on every device.

A pixel has 256 values, so its normalised form is looked up and not computed: rounding is done once, in a table of bit
patterns, and no device's arithmetic can differ from another's.

Letters: B lines, b lines of the batch, N pixels, H rows, X columns of the batch.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from khmer_ocr_kernels.arrays import I64, U8
from khmer_ocr_kernels.jit import compiled
from khmer_ocr_kernels.ragged import RaggedLines
from khmer_ocr_kernels.reference import BACKGROUND

if TYPE_CHECKING:
    import torch

DtypeName = Literal["float32", "float16", "bfloat16"]


def unit_table(dtype_name: DtypeName) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Bit patterns of x / 255 for every pixel value x, computed in float64 and rounded to nearest, ties to even.

    Args:
        dtype_name: "float32", "float16" or "bfloat16".

    Returns:
        uint32 array (256,) for float32, uint16 for the others.
    """
    value_256 = np.arange(256) / 255
    if dtype_name == "bfloat16":  # by way of float32, which for none of these values differs from rounding once
        bits_256 = value_256.astype(np.float32).view(np.uint32)
        return (bits_256 + 0x7FFF + (bits_256 >> 16 & 1) >> 16).astype(np.uint16)
    rounded_256 = value_256.astype(dtype_name)
    return rounded_256.view(f"u{rounded_256.itemsize}")


def to_unit(images: "torch.Tensor", dtype: "torch.dtype | None" = None) -> "torch.Tensor":
    """Turn uint8 images into floating-point ones in 0..1; floating-point ones are only given the dtype.

    Args:
        images: of any shape, on any device.
        dtype: None is float32.

    Returns:
        The values of `unit_table`: for 16 bits this rounds twice, which for none of the 256 values differs from
        rounding once. A division, as it is several times as fast as torch's look-up.
    """
    import torch

    if images.dtype != torch.uint8:
        return images.to(dtype or torch.float32)
    return images.to(torch.float32).div_(255.0).to(dtype or torch.float32)


@compiled
def _pad(
    pixels_N: U8,
    begin_b: I64,
    width_b: I64,
    row_b: I64,
    bits_256: npt.NDArray[np.unsignedinteger[Any]],
    background: np.unsignedinteger[Any],
    padded_BHX: npt.NDArray[np.unsignedinteger[Any]],
) -> None:
    height, copied = padded_BHX.shape[1], len(bits_256) == 0
    for b in range(len(row_b)):
        width, begin = width_b[b], begin_b[b]
        for y in range(height):
            source, row = pixels_N[begin + y * width : begin + (y + 1) * width], padded_BHX[row_b[b], y]
            if copied:  # several times as fast as a table that changes nothing
                row[:width] = source
            else:
                for x in range(width):
                    row[x] = bits_256[source[x]]
            row[width:] = background


def pad_into(
    padded_BHX: npt.NDArray[Any],
    pixels_N: U8,
    begin_b: I64,
    width_b: npt.NDArray[np.integer[Any]],
    row_b: I64 | None = None,
    table_256: npt.NDArray[Any] | None = None,
) -> None:
    """Fill rows of a batch with lines and what is right of them with background: the one loop that pads on the CPU.

    Args:
        padded_BHX: what is written; at least as wide as every line.
        pixels_N: uint8; line b is the H rows of width_b[b] pixels from begin_b[b] on. Only the caller knows that they
            are there.
        begin_b: int64.
        width_b: px.
        row_b: int64, which row of the batch each line becomes; None takes them in order.
        table_256: what each pixel value becomes, of the dtype of the batch; None copies uint8.

    Raises:
        ValueError: a line is wider than the batch, or the table is not one of 256 values of 1, 2 or 4 bytes.
    """
    _check(width_b, padded_BHX.shape[2], table_256)
    # The compiled loop sees unsigned integers: one version a size, and bits that no float register can touch.
    bits = np.dtype(f"u{padded_BHX.dtype.itemsize}")
    bits_256 = np.empty(0, bits) if table_256 is None else table_256.view(bits)
    background = bits.type(BACKGROUND) if table_256 is None else bits_256[BACKGROUND]
    rows = np.arange(len(width_b)) if row_b is None else row_b
    _pad(pixels_N, begin_b, width_b.astype(np.int64), rows, bits_256, background, padded_BHX.view(bits))


def _check(width_b: npt.NDArray[np.integer[Any]], columns: int, table_256: Any) -> None:
    if width_b.max(initial=0) > columns:
        line = int(width_b.argmax())
        raise ValueError(
            f"line {line} is {width_b[line]} px wide, the batch {columns}: give columns >= {width_b[line]}"
        )
    if table_256 is not None and (tuple(table_256.shape) != (256,) or table_256.dtype.itemsize not in (1, 2, 4)):
        shape = tuple(table_256.shape)
        raise ValueError(f"table_256 has shape {shape} and {table_256.dtype.itemsize} bytes a value: give 256 values")


def pad_normalize(lines: RaggedLines, columns: int, table_256: Any = None, order_b: I64 | None = None) -> Any:
    """Pad lines with background to one width and look their pixels up in a table: numba on the CPU, Triton on CUDA.

    Args:
        lines: the lines.
        columns: width of the batch in px, at least the widest line's.
        table_256: what each pixel value becomes, of any dtype of 1, 2 or 4 bytes (see `unit_table`), of the kind
            and on the device of the pixels; None leaves uint8.
        order_b: int64 numbers of the lines that make the batch, in its order; None takes all.

    Returns:
        Array or tensor (b, 1, H, columns) of the table's dtype, on the device of the pixels, which is not waited for;
        right of a line all is table_256[255].

    Raises:
        ValueError: columns narrower than a line, a table of another size, tensors that are not on one device.
    """
    pixels_N, begin_b, width_b = lines.pixels_N, lines.offsets_B1[:-1], lines.width_B
    if not isinstance(pixels_N, np.ndarray):
        import torch

        if not pixels_N.is_cuda:
            here = RaggedLines(pixels_N.numpy(), width_b, lines.height_px)
            table = None if table_256 is None else table_256.numpy()
            return torch.from_numpy(pad_normalize(here, columns, table, order_b))
        from khmer_ocr_kernels import pad_normalize_triton

        _check(width_b if order_b is None else width_b[order_b], columns, table_256)
        return pad_normalize_triton.pad_normalize(lines, columns, table_256, order_b)
    if order_b is not None:
        begin_b, width_b = begin_b[order_b], width_b[order_b]
    dtype = np.uint8 if table_256 is None else table_256.dtype
    padded_bHX = np.empty((len(width_b), lines.height_px, columns), dtype)
    pad_into(padded_bHX, pixels_N, begin_b, width_b, table_256=table_256)
    return padded_bHX[:, None]

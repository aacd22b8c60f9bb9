"""Ragged lines to a padded, normalised batch: an integer gather, so the same bytes on every device.

A pixel has 256 values, so its normalised form is looked up and not computed: rounding is done once, in a table of bit
patterns, and no device's arithmetic can differ from another's.

Letters: B lines, b lines of the batch, N pixels, H rows, X columns of the batch.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from khmer_ocr_kernels.jit import compiled
from khmer_ocr_kernels.ragged import RaggedLines
from khmer_ocr_kernels.reference import BACKGROUND

if TYPE_CHECKING:
    import torch

DtypeName = Literal["float32", "float16", "bfloat16"]
# Largest finite value and the integer that holds the bits.
_FLOATS: dict[str, tuple[float, str]] = {
    "float32": ((2 - 2**-23) * 2.0**127, "uint32"),
    "float16": ((2 - 2**-10) * 2.0**15, "uint16"),
    "bfloat16": ((2 - 2**-7) * 2.0**127, "uint16"),
}


def _known(dtype_name: str) -> tuple[float, str]:
    if dtype_name not in _FLOATS:
        raise ValueError(f"dtype {dtype_name!r} is unknown: give one of {', '.join(_FLOATS)}")
    return _FLOATS[dtype_name]


def _bfloat16_bits(value_K: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """Bits of the nearest bfloat16, ties to even, for finite values.

    By way of float32 rounded to odd (cut off, the last bit set if anything was lost): two roundings to nearest would
    send a value just above a tie down. Boldo and Melquiond, "Emulation of FMA and correctly rounded sums" (2008).
    """
    single_K = value_K.astype(np.float32)
    beyond_K = np.abs(single_K.astype(np.float64)) > np.abs(value_K)
    single_K[beyond_K] = np.nextafter(single_K[beyond_K], np.float32(0))
    lost_K = single_K.astype(np.float64) != value_K
    bits_K: npt.NDArray[np.uint32] = single_K.view(np.uint32) | lost_K
    return (bits_K + 0x7FFF + (bits_K >> 16 & 1) >> 16).astype(np.uint16)


def normalisation_table(dtype_name: DtypeName, mean: float, std: float) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Bit patterns of (x / 255 - mean) / std for every pixel value x, computed in float64 and rounded once.

    Args:
        dtype_name: "float32", "float16" or "bfloat16".
        mean: of pixels on a scale of 0 (black) to 1 (white).
        std: on the same scale, above 0.

    Returns:
        uint32 array (256,) for float32, uint16 for the others; rounded to nearest, ties to even.

    Raises:
        ValueError: an unknown dtype, a mean or std that is no number, std not above 0, values too large for the dtype.
    """
    largest, bits_dtype = _known(dtype_name)
    if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
        raise ValueError(f"mean is {mean} and std {std}: give finite numbers, std above 0")
    with np.errstate(over="ignore"):
        value_256 = (np.arange(256) / 255 - mean) / std
    if not np.abs(value_256).max() <= largest:
        raise ValueError(
            f"mean {mean} and std {std} give values beyond {largest:g}, the largest {dtype_name}: raise std"
        )
    if dtype_name == "bfloat16":
        return _bfloat16_bits(value_256)
    return value_256.astype(dtype_name).view(bits_dtype)


def as_tensor(padded: "npt.NDArray[Any] | torch.Tensor", dtype_name: DtypeName) -> "torch.Tensor":
    """See bit patterns as floating-point numbers; nothing is copied.

    Args:
        padded: batch (or table) of the bit patterns of `normalisation_table`, array or tensor.
        dtype_name: the dtype of the table.

    Returns:
        Tensor of that dtype and the same shape, on the same device.

    Raises:
        ValueError: an unknown dtype, or one of another size than the bit patterns.
    """
    import torch

    _, bits_dtype = _known(dtype_name)
    if padded.dtype.itemsize != np.dtype(bits_dtype).itemsize:
        raise ValueError(f"bit patterns of {padded.dtype} can't be {dtype_name}: give the dtype of the table")
    bits = torch.from_numpy(padded) if isinstance(padded, np.ndarray) else padded
    return bits.view(getattr(torch, dtype_name))


def to_unit(images: "torch.Tensor", dtype: "torch.dtype | None" = None) -> "torch.Tensor":
    """Turn uint8 images into floating-point ones in 0..1; floating-point ones are only given the dtype.

    Args:
        images: of any shape, on any device.
        dtype: None is float32.

    Returns:
        The values of `normalisation_table(dtype, 0, 1)`: for 16 bits this rounds twice, which for none of the 256
        values differs from rounding once. A division, as it is several times as fast as torch's look-up.
    """
    import torch

    if images.dtype != torch.uint8:
        return images.to(dtype or torch.float32)
    return images.to(torch.float32).div_(255.0).to(dtype or torch.float32)


@compiled
def _pad(
    pixels_N: npt.NDArray[np.uint8],
    begin_b: npt.NDArray[np.int64],
    width_b: npt.NDArray[np.int64],
    row_b: npt.NDArray[np.int64],
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
    pixels_N: npt.NDArray[np.uint8],
    begin_b: npt.NDArray[np.int64],
    width_b: npt.NDArray[np.integer[Any]],
    row_b: npt.NDArray[np.int64] | None = None,
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


def pad_normalize(
    lines: RaggedLines, columns: int, table_256: Any = None, order_b: npt.NDArray[np.int64] | None = None
) -> Any:
    """Pad lines with background to one width and look their pixels up in a table: numba on the CPU, Triton on CUDA.

    Args:
        lines: the lines.
        columns: width of the batch in px, at least the widest line's.
        table_256: what each pixel value becomes, of any dtype of 1, 2 or 4 bytes (see `normalisation_table`), of the
            kind and on the device of the pixels; None leaves uint8.
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

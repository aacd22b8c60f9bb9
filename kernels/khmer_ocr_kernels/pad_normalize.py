"""Ragged lines to a padded, normalised batch: an integer gather, so the same bytes on every device.

A pixel has 256 values, so its normalised form is looked up and not computed: rounding is done once, in a table of bit
patterns, and no device's arithmetic can differ from another's.

Letters: B lines, N pixels, H rows, X columns of the batch.
"""

from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from khmer_ocr_kernels.jit import compiled
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


@compiled
def _pad_lines(
    pixels_N: npt.NDArray[np.uint8],
    offsets_B1: npt.NDArray[np.int64],
    width_B: npt.NDArray[np.int32],
    bits_256: npt.NDArray[np.unsignedinteger[Any]],
    padded_BHX: npt.NDArray[np.unsignedinteger[Any]],
) -> None:
    lines, height, _ = padded_BHX.shape
    paper = bits_256[BACKGROUND]
    for b in range(lines):
        width, begin = np.int64(width_B[b]), offsets_B1[b]
        for y in range(height):
            source = pixels_N[begin + y * width : begin + (y + 1) * width]
            row = padded_BHX[b, y]
            for x in range(width):
                row[x] = bits_256[source[x]]
            row[width:] = paper


def _check(
    pixels_N: Any,
    offsets_B1: npt.NDArray[np.int64],
    width_B: npt.NDArray[np.int32],
    height: int,
    columns: int,
    table_256: Any,
) -> None:
    if str(pixels_N.dtype).removeprefix("torch.") != "uint8":
        raise ValueError(f"pixels_N is of {pixels_N.dtype}: give uint8")
    if tuple(table_256.shape) != (256,) or table_256.dtype.itemsize not in (1, 2, 4):
        shape = tuple(table_256.shape)
        raise ValueError(f"table_256 has shape {shape} and {table_256.dtype.itemsize} bytes a value: give 256 values")
    if len(offsets_B1) != len(width_B) + 1:
        raise ValueError(f"{len(offsets_B1)} offsets for {len(width_B)} widths: give one more than widths")
    if not len(width_B):
        return
    line = int(width_B.argmax())
    if width_B[line] > columns:
        raise ValueError(
            f"line {line} is {width_B[line]} px wide, the batch {columns}: give columns >= {width_B[line]}"
        )
    held_B, wanted_B = np.diff(offsets_B1), width_B.astype(np.int64) * height
    if not np.array_equal(held_B, wanted_B):
        line = int((held_B != wanted_B).argmax())
        raise ValueError(f"line {line} holds {held_B[line]} pixels, {width_B[line]} x {height} are {wanted_B[line]}")
    if offsets_B1[0] < 0 or offsets_B1[-1] > len(pixels_N):
        raise ValueError(f"lines reach from {offsets_B1[0]} to {offsets_B1[-1]} in {len(pixels_N)} pixels")


@overload
def pad_normalize(
    pixels_N: npt.NDArray[np.uint8],
    offsets_B1: npt.NDArray[np.int64],
    width_B: npt.NDArray[np.int32],
    height: int,
    columns: int,
    table_256: npt.NDArray[Any],
) -> npt.NDArray[Any]: ...
@overload
def pad_normalize(
    pixels_N: "torch.Tensor",
    offsets_B1: "torch.Tensor",
    width_B: "torch.Tensor",
    height: int,
    columns: int,
    table_256: "torch.Tensor",
) -> "torch.Tensor": ...
def pad_normalize(
    pixels_N: Any, offsets_B1: Any, width_B: Any, height: int, columns: int, table_256: Any
) -> "npt.NDArray[Any] | torch.Tensor":
    """Pad lines with paper to one width and look their pixels up in a table; numba for arrays, Triton for CUDA tensors.

    Args:
        pixels_N: uint8 pixels of all lines, background 255.
        offsets_B1: int64, line b is pixels_N[offsets_B1[b] : offsets_B1[b + 1]], height rows of width_B[b].
        width_B: int32 widths in px.
        height: of every line, px.
        columns: width of the batch in px, at least the widest line's.
        table_256: what each pixel value becomes, of any dtype of 1, 2 or 4 bytes; see `normalisation_table`.

    Returns:
        Array or tensor (B, 1, height, columns) of the table's dtype; right of a line all is table_256[255]. A tensor is
        on the device of the arguments, which is waited for once, to see that the lines fit.

    Raises:
        ValueError: columns narrower than a line, offsets that contradict the widths, tensors that are not on one CUDA
            device.
    """
    height, columns = int(height), int(columns)  # numpy's integers are nothing to a Triton kernel
    if not isinstance(pixels_N, np.ndarray):
        from khmer_ocr_kernels import pad_normalize_triton
        from khmer_ocr_kernels.compose_triton import check_tensors

        check_tensors(pixels_N=pixels_N, offsets_B1=offsets_B1, width_B=width_B, table_256=table_256)
        _check(pixels_N, offsets_B1.cpu().numpy(), width_B.cpu().numpy(), height, columns, table_256)
        return pad_normalize_triton.pad_normalize(pixels_N, offsets_B1, width_B, height, columns, table_256)
    _check(pixels_N, offsets_B1, width_B, height, columns, table_256)
    # The compiled loop sees unsigned integers: one version a size, and bits that no float register can touch.
    bits_256 = table_256.view(f"u{table_256.dtype.itemsize}")
    padded_BHX = np.empty((len(width_B), height, columns), bits_256.dtype)
    _pad_lines(pixels_N, offsets_B1, width_B, bits_256, padded_BHX)
    return padded_BHX.view(table_256.dtype)[:, None]

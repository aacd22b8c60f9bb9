"""Morphology, blur and noise of ragged lines in whole numbers: the same bytes on every processor and device.

Letters: B lines, N pixels.
"""

from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from khmer_ocr_kernels import degrade_numba
from khmer_ocr_kernels.lookup_tables import SIGMA_STEPS

if TYPE_CHECKING:
    import torch

MAX_MORPH, MAX_SIGMA32, MAX_NOISE16 = 256, SIGMA_STEPS, 1024

_U8 = npt.NDArray[np.uint8]
_U32 = npt.NDArray[np.uint32]
_I32 = npt.NDArray[np.int32]
_I64 = npt.NDArray[np.int64]


@overload
def degrade(
    pixels_N: _U8,
    offsets_B1: _I64,
    width_B: _I32,
    height: int,
    morph_B: _I32,
    sigma32_B: _I32,
    noise16_B: _I32,
    key_B2: _U32,
) -> _U8: ...
@overload
def degrade(
    pixels_N: "torch.Tensor",
    offsets_B1: "_I64 | torch.Tensor",
    width_B: "_I32 | torch.Tensor",
    height: int,
    morph_B: "_I32 | torch.Tensor",
    sigma32_B: "_I32 | torch.Tensor",
    noise16_B: "_I32 | torch.Tensor",
    key_B2: "_U32 | torch.Tensor",
) -> "torch.Tensor": ...
def degrade(
    pixels_N: Any,
    offsets_B1: Any,
    width_B: Any,
    height: int,
    morph_B: Any,
    sigma32_B: Any,
    noise16_B: Any,
    key_B2: Any,
) -> Any:
    """Spread or thin the ink of each line, then blur it, then add noise: numba for arrays, Triton for CUDA tensors.

    `degrade_reference` says what comes out, byte for byte. Where pixels are a tensor the other arguments may be arrays
    all the same: they are checked on the host, and tensors on a device would first have to be waited for.

    Args:
        pixels_N: uint8 pixels of all lines, row by row; paper is 255, also what is beyond a line's edges.
        offsets_B1: int64, line b is pixels_N[offsets_B1[b] : offsets_B1[b + 1]].
        width_B: int32 widths in px.
        height: rows of every line.
        morph_B: int32 in -256..256, how much of a 3x3 minimum (above zero: ink spreads) or maximum (below: ink thins)
            is mixed into the image, in 1/256.
        sigma32_B: int32 in 0..160, standard deviation of the Gaussian blur in 1/32 px.
        noise16_B: int32 in 0..1024, standard deviation of the noise in 1/16 grey level.
        key_B2: uint32 Philox key of each line.

    Returns:
        uint8 pixels of the augmented lines, laid out like pixels_N, new memory of the same kind.

    Raises:
        ValueError: an array has another dtype, shape or range, lines do not fill pixels_N, or pixels are a tensor but
            not on a CUDA device.
    """
    arrays = (offsets_B1, width_B, morph_B, sigma32_B, noise16_B, key_B2)
    offsets, width, *wear = (np.ascontiguousarray(a if isinstance(a, np.ndarray) else a.cpu().numpy()) for a in arrays)
    is_array = isinstance(pixels_N, np.ndarray)
    in_one_piece = pixels_N.flags.c_contiguous if is_array else pixels_N.is_contiguous()
    dtype, height = str(pixels_N.dtype).removeprefix("torch."), int(height)
    if dtype != "uint8" or pixels_N.ndim != 1 or not in_one_piece:
        seen = f"{dtype}{tuple(pixels_N.shape)}{'' if in_one_piece else ' with gaps'}"
        raise ValueError(f"pixels_N is {seen}, expected uint8 in one row and one piece")
    _check(len(pixels_N), offsets, width, height, *wear)
    if is_array:
        return degrade_numba.degrade(pixels_N, offsets, width, height, *wear)
    from khmer_ocr_kernels import degrade_triton
    from khmer_ocr_kernels.compose_triton import check_tensors

    check_tensors(pixels_N=pixels_N)
    return degrade_triton.degrade(pixels_N, offsets, width, height, *wear)


def _check(
    pixels: int,
    offsets_B1: _I64,
    width_B: _I32,
    height: int,
    morph_B: _I32,
    sigma32_B: _I32,
    noise16_B: _I32,
    key_B2: _U32,
) -> None:
    """Refuse arrays that no backend must see; `pixels` is how many there are."""
    lines = len(width_B)
    expected: dict[str, tuple[npt.NDArray[Any], Any, tuple[int, ...]]] = {
        "offsets_B1": (offsets_B1, np.int64, (lines + 1,)),
        "width_B": (width_B, np.int32, (lines,)),
        "morph_B": (morph_B, np.int32, (lines,)),
        "sigma32_B": (sigma32_B, np.int32, (lines,)),
        "noise16_B": (noise16_B, np.int32, (lines,)),
        "key_B2": (key_B2, np.uint32, (lines, 2)),
    }
    for name, (array, dtype, shape) in expected.items():
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype}{array.shape}, expected {np.dtype(dtype)}{shape}")
    ranges = {
        "morph_B": (morph_B, -MAX_MORPH, MAX_MORPH, "1/256"),
        "sigma32_B": (sigma32_B, 0, SIGMA_STEPS, "1/32 px"),
        "noise16_B": (noise16_B, 0, MAX_NOISE16, "1/16 grey level"),
    }
    for name, (array, low, high, unit) in ranges.items():
        if lines and (array.min() < low or array.max() > high):
            outside = array[(array < low) | (array > high)][0]
            raise ValueError(f"{name} holds {outside}, expected {low}..{high} (in {unit})")
    if height < 1 or (lines and width_B.min() < 0):
        raise ValueError(f"height {height} px, narrowest line {width_B.min(initial=0)} px: expected at least 1 and 0")
    misplaced = np.diff(offsets_B1) != width_B.astype(np.int64) * height
    if offsets_B1[0] != 0 or offsets_B1[-1] != pixels or misplaced.any():
        raise ValueError(
            f"offsets_B1 runs from {offsets_B1[0]} to {offsets_B1[-1]} for {pixels} pixels and {misplaced.sum()} lines "
            f"have not width * {height} pixels: make it with reference.line_offsets(width_B, {height})"
        )

"""Morphology, blur and noise of ragged lines in whole numbers: the same bytes on every processor and device.

Letters: B lines.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from khmer_ocr_kernels import degrade_numba
from khmer_ocr_kernels.arrays import I32, U32
from khmer_ocr_kernels.lookup_tables import SIGMA_STEPS
from khmer_ocr_kernels.ragged import RaggedLines

MAX_MORPH, MAX_SIGMA32, MAX_NOISE16 = 256, SIGMA_STEPS, 1024


def degrade(lines: RaggedLines, morph_B: I32, sigma32_B: I32, noise16_B: I32, key_B2: U32) -> RaggedLines:
    """Spread or thin the ink of each line, then blur it, then add noise: numba for arrays, Triton for CUDA tensors.

    `degrade_reference` says what comes out, byte for byte.

    Args:
        lines: beyond its edges a line is background.
        morph_B: int32 in -256..256, how much of a 3x3 minimum (above zero: ink spreads) or maximum (below: ink thins)
            is mixed into the image, in 1/256.
        sigma32_B: int32 in 0..160, standard deviation of the Gaussian blur in 1/32 px.
        noise16_B: int32 in 0..1024, standard deviation of the noise in 1/16 grey level.
        key_B2: uint32 Philox key of each line.

    Returns:
        The degraded lines, of the same sizes, in new memory of the same kind.

    Raises:
        ValueError: an array has another dtype, shape or range, or pixels are a tensor but not on a CUDA device.
    """
    parameters: list[Any] = [np.ascontiguousarray(array) for array in (morph_B, sigma32_B, noise16_B, key_B2)]
    _check(len(lines), *parameters)
    if isinstance(lines.pixels_N, np.ndarray):
        return degrade_numba.degrade(lines, *parameters)
    from khmer_ocr_kernels import degrade_triton
    from khmer_ocr_kernels.compose_triton import check_tensors

    check_tensors(pixels_N=lines.pixels_N)
    return degrade_triton.degrade(lines, *parameters)


def _check(lines: int, morph_B: I32, sigma32_B: I32, noise16_B: I32, key_B2: U32) -> None:
    """Refuse arrays that no backend must see."""
    expected: tuple[tuple[str, npt.NDArray[Any], tuple[int, ...], int, int, str], ...] = (
        ("morph_B", morph_B, (lines,), -MAX_MORPH, MAX_MORPH, "1/256"),
        ("sigma32_B", sigma32_B, (lines,), 0, SIGMA_STEPS, "1/32 px"),
        ("noise16_B", noise16_B, (lines,), 0, MAX_NOISE16, "1/16 grey level"),
        ("key_B2", key_B2, (lines, 2), 0, 2**32 - 1, "bits"),
    )
    for name, array, shape, low, high, unit in expected:
        dtype = np.dtype(np.uint32 if name == "key_B2" else np.int32)
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype}{array.shape}, expected {dtype}{shape}")
        if lines and (array.min() < low or array.max() > high):
            outside = array[(array < low) | (array > high)][0]
            raise ValueError(f"{name} holds {outside}, expected {low}..{high} (in {unit})")

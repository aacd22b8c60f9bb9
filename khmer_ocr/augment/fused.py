"""Morphology, blur and noise by the fused integer kernel, with parameters in the units people use.

Needs no torch: where pixels are a numpy array the kernel is compiled by numba, where they are a CUDA tensor by Triton,
and the bytes are the same. Letters: B lines.
"""

import numpy as np
import numpy.typing as npt
from khmer_ocr_kernels.arrays import I32, U32
from khmer_ocr_kernels.degrade import MAX_MORPH, MAX_NOISE16, MAX_SIGMA32, degrade
from khmer_ocr_kernels.ragged import RaggedLines

from khmer_ocr.errors import ConfigError

_Floats = npt.NDArray[np.floating]
_Steps = I32
_MORPH_STEPS, _SIGMA_STEPS, _NOISE_STEPS = 256, 32, 16  # in 1, in a pixel, in a grey level


def to_steps(weight_B: _Floats, sigma_px_B: _Floats, sd_grey_B: _Floats) -> tuple[_Steps, _Steps, _Steps]:
    """Round parameters to the steps that the kernel counts in.

    Args:
        weight_B: -1 to 1; above zero ink spreads by that share of a 3x3 minimum, below it thins by a maximum.
        sigma_px_B: 0 to 5, standard deviation of the blur in px.
        sd_grey_B: 0 to 64, standard deviation of the noise in grey levels of 255.

    Returns:
        int32 (B,) each: weights in 1/256, blurs in 1/32 px, noise in 1/16 grey level.

    Raises:
        ConfigError: a value is no number or out of range.
    """
    return (
        _steps("weight", weight_B, -MAX_MORPH, MAX_MORPH, _MORPH_STEPS),
        _steps("sigma_px", sigma_px_B, 0, MAX_SIGMA32, _SIGMA_STEPS),
        _steps("sd_grey", sd_grey_B, 0, MAX_NOISE16, _NOISE_STEPS),
    )


def augment(lines: RaggedLines, weight_B: _Floats, sigma_px_B: _Floats, sd_grey_B: _Floats, key_B2: U32) -> RaggedLines:
    """Spread or thin the ink of each line, then blur it, then add noise; 0 leaves a step out.

    Args:
        lines: array or CUDA tensor.
        weight_B: see `to_steps`, as the next two.
        sigma_px_B: standard deviation of the blur in px.
        sd_grey_B: standard deviation of the noise in grey levels.
        key_B2: uint32 Philox key of each line's noise.

    Returns:
        Lines of the same sizes, in new memory of the same kind.

    Raises:
        ConfigError: a parameter is no number or out of range.
        ValueError: lines, parameters and keys do not fit each other.
    """
    return degrade(lines, *to_steps(weight_B, sigma_px_B, sd_grey_B), key_B2)


def _steps(name: str, value_B: _Floats, low: int, high: int, per_unit: int) -> _Steps:
    # Compared before rounding: 1.001 is an error, not 1; and so that not-a-number fails too.
    right_B = (value_B >= low / per_unit) & (value_B <= high / per_unit)
    if not right_B.all():
        line = int((~right_B).argmax())
        raise ConfigError(
            f"{name} is {value_B[line]} for line {line} of the batch; "
            f"expected {low / per_unit:g} to {high / per_unit:g}"
        )
    return np.rint(value_B * per_unit).astype(np.int32)

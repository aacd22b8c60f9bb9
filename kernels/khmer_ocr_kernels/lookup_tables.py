"""Tables of whole numbers that every backend of a kernel reads, made on first use.

What is transcendental happens here, once, in Python; the kernels only add, multiply and shift, so that no device or
compiler can round differently.
"""

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from khmer_ocr_kernels.arrays import I32

SIGMA_STEPS = 160  # sigma in 1/32 px
MAX_RADIUS = 15
TAP_BITS = 14  # the taps of a row sum to 1 << TAP_BITS
NORMAL_BITS = 13  # of the fraction of `normal_quantiles`


def radius_of(sigma32: int) -> int:
    """Taps on either side of the middle one: three standard deviations, rounded up; sigma in 1/32 px."""
    return -(-3 * sigma32 // 32)


@lru_cache(maxsize=1)
def gaussian_taps() -> I32:
    """Halves of sampled Gaussians, cut off at three standard deviations.

    Returns:
        int32 (SIGMA_STEPS + 1, MAX_RADIUS + 2), read-only: row s holds the middle tap and those to one side of it for
        sigma = s/32 px, then at least one zero, for taps are taken two at a time. Middle + 2 * (the others) is
        1 << TAP_BITS exactly, and each tap is less than 1 away from its exact value.
    """
    taps_SK = np.zeros((SIGMA_STEPS + 1, MAX_RADIUS + 2), np.int32)
    for step in range(SIGMA_STEPS + 1):
        radius = radius_of(step)
        weights = [math.exp(-0.5 * (k * 32 / step) ** 2) if k else 1.0 for k in range(radius + 1)]
        scale = (1 << TAP_BITS) / (2 * math.fsum(weights) - 1)
        exact = [weight * scale for weight in weights]
        taps = [math.floor(value) for value in exact]
        missing = (1 << TAP_BITS) - (2 * sum(taps) - taps[0])
        # A side tap counts twice, so the middle one takes the odd unit; the rest goes where most was cut off.
        taps[0] += missing & 1
        by_loss = sorted(range(1, radius + 1), key=lambda k: taps[k] - exact[k])
        for k in by_loss[: missing >> 1]:
            taps[k] += 1
        taps_SK[step, : radius + 1] = taps
    taps_SK.flags.writeable = False
    return taps_SK


@lru_cache(maxsize=1)
def normal_quantiles() -> I32:
    """Standard normal law in 256 equally likely values, in units of 1 / (1 << NORMAL_BITS).

    Middle quantiles of 256 slices, stretched to unit variance. They come in pairs z, -z, so that their mean is zero,
    and are odd, so that it stays zero after rounding: an odd number times a deviation in 1/16 grey level, below 2 ** 16
    of them, is never halfway between two grey levels.

    Returns:
        int32 (256,), rising, read-only.
    """
    normal = NormalDist()
    upper = [normal.inv_cdf((n + 0.5) / 256) for n in range(128, 256)]
    scale = (1 << NORMAL_BITS) / math.sqrt(math.fsum(z * z for z in upper) / len(upper))
    odd = np.array([2 * math.floor(z * scale / 2) + 1 for z in upper], np.int32)
    z_256 = np.concatenate([-odd[::-1], odd])
    z_256.flags.writeable = False
    return z_256

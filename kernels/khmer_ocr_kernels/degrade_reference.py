"""Morphology, blur and noise of ragged lines in plain numpy: the definition of right for every backend of `degrade`.

Written to be read, not to be fast. Letters: B lines, HW rows and columns of one line.
"""

import numpy as np

from khmer_ocr_kernels.arrays import I32, I64, U32
from khmer_ocr_kernels.lookup_tables import NORMAL_BITS, TAP_BITS, gaussian_taps, normal_quantiles, radius_of
from khmer_ocr_kernels.philox import philox4x32
from khmer_ocr_kernels.ragged import RaggedLines
from khmer_ocr_kernels.reference import BACKGROUND

NOISE_SALT = 0x6E6F6973  # counter word 1: keeps these words apart from others drawn with the same key
PIXELS_PER_DRAW = 16  # a Philox call is four words of four bytes

_Image = I64


def degrade(lines: RaggedLines, morph_B: I32, sigma32_B: I32, noise16_B: I32, key_B2: U32) -> RaggedLines:
    """Spread or thin the ink of each line, then blur it, then add noise; see `degrade.degrade` for the parameters."""
    augmented_N = np.empty_like(lines.pixels_N)
    for line in range(len(lines)):
        image_HW = lines.image(line).astype(np.int64)
        image_HW = morph(image_HW, int(morph_B[line]))
        image_HW = blur(image_HW, int(sigma32_B[line]))
        image_HW = add_noise(image_HW, int(noise16_B[line]), key_B2[line])
        augmented_N[lines.offsets_B1[line] : lines.offsets_B1[line + 1]] = image_HW.ravel()
    return RaggedLines(augmented_N, lines.width_B, lines.height_px)


def morph(image_HW: _Image, weight256: int) -> _Image:
    """Mix an image with its 3x3 minimum (weight above zero) or maximum (below)."""
    height, width = image_HW.shape
    padded = np.pad(image_HW, 1, constant_values=BACKGROUND)
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    extreme_HW = np.min(shifted, axis=0) if weight256 > 0 else np.max(shifted, axis=0)
    weight = abs(weight256)
    mixed_HW: _Image = image_HW * (256 - weight) + extreme_HW * weight + 128 >> 8
    return mixed_HW


def blur(image_HW: _Image, sigma32: int) -> _Image:
    """Gaussian blur, along rows, then along columns; of the sums along rows 8 bits of fraction are kept."""
    radius = radius_of(sigma32)
    half = gaussian_taps()[sigma32, : radius + 1].astype(np.int64)
    taps = [*half[:0:-1], *half]
    height, width = image_HW.shape
    ink = np.pad(BACKGROUND - image_HW, ((0, 0), (radius, radius)))
    along_rows = sum(tap * ink[:, k : k + width] for k, tap in enumerate(taps))
    fraction_bits = 8
    drop = TAP_BITS - fraction_bits
    kept = np.pad(along_rows + (1 << drop - 1) >> drop, ((radius, radius), (0, 0)))
    along_columns = sum(tap * kept[k : k + height] for k, tap in enumerate(taps))
    drop = TAP_BITS + fraction_bits
    blurred_HW: _Image = BACKGROUND - (along_columns + (1 << drop - 1) >> drop)
    return blurred_HW


def add_noise(image_HW: _Image, deviation16: int, key_2: U32) -> _Image:
    """Add normal noise; pixel n takes byte n % 16 of the draw whose counter is (n // 16, NOISE_SALT, 0, 0)."""
    draws = -(-image_HW.size // PIXELS_PER_DRAW)
    counters = np.zeros((draws, 4), np.uint32)
    counters[:, 0], counters[:, 1] = np.arange(draws), NOISE_SALT
    words = philox4x32(counters, key_2)
    bytes_N = (words[:, :, None] >> np.arange(0, 32, 8, dtype=np.uint32) & np.uint32(255)).ravel()[: image_HW.size]
    drop = NORMAL_BITS + 4
    grey_N = normal_quantiles()[bytes_N].astype(np.int64) * deviation16 + (1 << drop - 1) >> drop
    noisy_HW: _Image = np.clip(image_HW + grey_N.reshape(image_HW.shape), 0, BACKGROUND)
    return noisy_HW

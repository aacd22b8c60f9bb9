"""Parameters in people's units to the integer kernel's, and what becomes of lines."""

import subprocess
import sys

import numpy as np
import pytest
from khmer_ocr_kernels.degrade import degrade
from khmer_ocr_kernels.ragged import RaggedLines

from khmer_ocr import rng
from khmer_ocr.augment import fused
from khmer_ocr.errors import ConfigError

HEIGHT, WIDTH = 32, 120


def lines(count):
    """A bar of ink on each line."""
    widths = np.full(count, WIDTH, np.int32)
    image = np.full((HEIGHT, WIDTH), 255, np.uint8)
    image[10:20, 30:90] = 20
    return RaggedLines(np.tile(image.ravel(), count), widths, HEIGHT)


def keys(seed, split, addresses):
    return rng.draws(rng.key(seed, split, "noise"), np.array(addresses, np.uint64), 2)


def test_parameters_are_rounded_to_the_kernels_steps():
    weight, sigma, sd = fused.to_steps(
        np.array([-1, -0.5, 0, 0.00195, 1]), np.array([0, 0.7, 1, 1.5, 5], np.float32), np.array([0, 0.03, 0.1, 16, 64])
    )
    assert weight.tolist() == [-256, -128, 0, 0, 256]
    assert sigma.tolist() == [0, 22, 32, 48, 160]
    assert sd.tolist() == [0, 0, 2, 256, 1024]
    assert weight.dtype == sigma.dtype == sd.dtype == np.int32


@pytest.mark.parametrize("name", ["weight", "sigma_px", "sd_grey"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.001, 64.001])
def test_out_of_range_is_a_config_error(name, value):
    values = {"weight": np.zeros(3), "sigma_px": np.zeros(3), "sd_grey": np.zeros(3)}
    values[name][1] = value
    limits = {"weight": "-1 to 1", "sigma_px": "0 to 5", "sd_grey": "0 to 64"}[name]
    with pytest.raises(ConfigError, match=f"{name} is {value} for line 1 of the batch; expected {limits}"):
        fused.augment(lines(3), values["weight"], values["sigma_px"], values["sd_grey"], keys(1, "train", range(3)))


def test_augmenting_is_the_kernel_with_rounded_parameters():
    weight, sigma, sd = np.array([0.3, -0.8]), np.array([1.2, 0]), np.array([0, 9.5])
    key = keys(1, "train", [0, 1])
    steps = (np.array(values, np.int32) for values in ([77, -205], [38, 0], [0, 152]))
    augmented = fused.augment(lines(2), weight, sigma, sd, key)
    assert np.array_equal(augmented.pixels_N, degrade(lines(2), *steps, key).pixels_N)


def test_steps_do_to_ink_what_they_are_called():
    nothing = np.zeros(1)
    key = keys(1, "train", [0])

    def augmented(weight=0.0, sigma=0.0):
        return 255.0 - fused.augment(lines(1), nothing + weight, nothing + sigma, nothing, key).image(0)

    plain, spread, thinned, blurred = augmented(), augmented(weight=1), augmented(weight=-1), augmented(sigma=1.5)
    assert (plain > 0).sum() == 10 * 60
    assert (spread > 0).sum() == 12 * 62 and (thinned > 0).sum() == 8 * 58
    assert blurred.sum() == pytest.approx(plain.sum(), rel=1e-3)
    assert (blurred > 0).sum() > (plain > 0).sum() and blurred[15, 60] == plain[15, 60]
    columns = np.arange(WIDTH)
    edge = blurred[15] / plain[15].max()  # of a step that is blurred, the slope is the Gaussian
    slope = np.diff(edge)[:60].clip(0)
    centre = (slope * columns[:60]).sum() / slope.sum()
    assert np.sqrt((slope * (columns[:60] - centre) ** 2).sum() / slope.sum()) == pytest.approx(1.5, abs=0.05)


def test_noise_of_samples_splits_and_seeds_is_unrelated():
    # 0 and 2**32 differ in the upper counter word only.
    named = {("train", 1): range(4), ("val", 1): range(4), ("train", 2): [0, 1, 2**32, 2**32 + 1]}
    key_B2 = np.concatenate([keys(seed, split, addresses) for (split, seed), addresses in named.items()])
    widths = np.full(len(key_B2), 400, np.int32)
    grey = np.full(400 * HEIGHT * len(key_B2), 128, np.uint8)
    nothing, sd = np.zeros(len(key_B2)), np.full(len(key_B2), 10.0)
    augmented = fused.augment(RaggedLines(grey, widths, HEIGHT), nothing, nothing, sd, key_B2)
    related = np.corrcoef(augmented.pixels_N.reshape(len(key_B2), -1))
    np.fill_diagonal(related, 0)
    assert np.abs(related).max() < 5 / np.sqrt(400 * HEIGHT)


def test_needs_no_torch():
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['triton'] = None  # an import of either fails\n"
        "import numpy as np\n"
        "from khmer_ocr.augment import fused\n"
        "from khmer_ocr_kernels.ragged import RaggedLines\n"
        "lines, one = RaggedLines(np.full(64, 255, np.uint8), np.array([2], np.int32), 32), np.array([1.0])\n"
        "augmented = fused.augment(lines, one, one, one * 9, np.zeros((1, 2), np.uint32))\n"
        "assert augmented.pixels_N.min() < 255\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

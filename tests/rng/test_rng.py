from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr import rng

seeds = st.integers(-(1 << 70), 1 << 70)
addresses = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8)


def test_key_is_fixed_forever():
    # Data sets are reproduced from their seed: these words must never change.
    assert rng.key(42, "train", "plan").tolist() == [2395285148, 50747784]
    words = rng.draws(rng.key(42, "train", "plan"), np.array([0, 7], np.uint64), 3)
    assert words.tolist() == [[783116086, 3560627338, 3503126501], [2142686172, 3034453150, 2957275644]]
    assert rng.text_address("ភាសាខ្មែរ") == 9740716053215480186


@given(seeds, st.text(max_size=8), st.text(max_size=8))
def test_keys_differ_where_any_part_differs(seed, split, stage):
    key = rng.key(seed, split, stage)
    assert key.dtype == np.uint32 and key.shape == (2,)
    assert key.tolist() != rng.key(seed + 1, split, stage).tolist()
    assert key.tolist() != rng.key(seed, split + "x", stage).tolist()
    assert key.tolist() != rng.key(seed, split, stage + "x").tolist()


@given(addresses, st.integers(1, 23), st.integers(1, 23))
def test_draws_do_not_depend_on_how_many_are_drawn(expected, n, m):
    key = rng.key(1, "train", "plan")
    address_B = np.array(expected, np.uint64)
    many, few = rng.draws(key, address_B, max(n, m)), rng.draws(key, address_B, min(n, m))
    assert few.shape == (len(expected), min(n, m))
    assert np.array_equal(many[:, : min(n, m)], few)


@given(addresses)
def test_draws_do_not_depend_on_the_batch(expected):
    key = rng.key(1, "val", "plan")
    together = rng.draws(key, np.array(expected, np.uint64), 6)
    alone = [rng.draws(key, np.array([address], np.uint64), 6)[0] for address in expected]
    assert np.array_equal(together, np.stack(alone))
    backwards = rng.draws(key, np.array(expected[::-1], np.uint64), 6)
    assert np.array_equal(backwards[::-1], together)


def test_no_address_repeats_another():
    # 65,536 samples is where a counter of id * 65536 would wrap.
    near = np.array([0, 1, 2, 65535, 65536, 65537, 1 << 32, (1 << 32) + 1, 2**64 - 1], np.uint64)
    words = rng.draws(rng.key(0, "train", "plan"), near, 4)
    assert len({tuple(row) for row in words.tolist()}) == len(near)


def test_an_empty_batch_draws_nothing():
    assert rng.draws(rng.key(0, "train", "plan"), np.zeros(0, np.uint64), 5).shape == (0, 5)


@pytest.mark.parametrize("bound", [1, 2, 3, 5, 7, 36, 1000])
def test_below_is_uniform_over_its_range(bound):
    words = rng.draws(rng.key(3, "train", "test"), np.arange(20_000, dtype=np.uint64), 4).ravel()
    drawn = rng.below(words, bound)
    counts = np.bincount(drawn, minlength=bound)
    assert len(counts) == bound
    expected = len(words) / bound
    # Chi-squared with bound - 1 degrees of freedom: mean bound - 1, deviation sqrt(2 (bound - 1)); the words are fixed.
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < bound - 1 + 5 * np.sqrt(2 * bound)


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**31))
def test_below_is_multiply_and_shift(word, bound):
    assert rng.below(np.array([word], np.uint32), bound).tolist() == [word * bound >> 32]
    bounds = np.array([bound], np.int64)
    assert rng.below(np.array([word], np.uint32), bounds).tolist() == [word * bound >> 32]


def test_neighbouring_addresses_are_not_correlated():
    words = rng.draws(rng.key(9, "train", "plan"), np.arange(50_000, dtype=np.uint64), 4).astype(np.float64)
    for lag in (1, 2, 1024):
        correlation = np.corrcoef(words[:-lag, 0], words[lag:, 0])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(len(words))
    assert np.abs(np.corrcoef(words, rowvar=False) - np.eye(4)).max() < 5 / np.sqrt(len(words))


def test_nothing_here_touches_global_random_state():
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()
    rng.draws(rng.key(0, "train", "plan"), np.arange(9, dtype=np.uint64), 9)
    assert np.random.get_state()[1].tolist() == before
    source = Path(rng.__file__).read_text(encoding="utf-8")
    assert "np.random" not in source and "import random" not in source

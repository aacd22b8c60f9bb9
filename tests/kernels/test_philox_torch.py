"""torch's Philox against numpy's and Random123's known answers."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given
from hypothesis import strategies as st
from khmer_ocr_kernels import philox, philox_torch

from tests.gpu import require_cuda
from tests.kernels.test_philox import KNOWN

word = st.integers(0, 2**32 - 1)


def bytes_by_numpy(keys, count, salt=(0, 0, 0)):
    """Little end first, 16 bytes a call, the call's number in counter word 0."""
    calls = -(-count // 16)
    counter = np.zeros((len(keys), calls, 4), np.uint32)
    counter[..., 0], counter[..., 1:] = np.arange(calls), np.array(salt, np.uint32)
    drawn = philox.philox4x32(counter, np.asarray(keys, np.uint32)[:, None]).astype("<u4")
    return np.ascontiguousarray(drawn).view(np.uint8).reshape(len(keys), calls * 16)[:, :count]


# On the CPU the public function is numpy's; what runs elsewhere is made of torch operations that run here as well.
both = pytest.mark.parametrize("philox4x32", [philox_torch.philox4x32, philox_torch._rounds], ids=["cpu", "elsewhere"])


@both
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers_of_random123(philox4x32, counter, key, answer):
    assert philox4x32(torch.tensor([counter]), torch.tensor(key)).tolist() == [answer]


@both
def test_equals_numpy_on_many_rows_and_extreme_words(philox4x32):
    random = np.random.default_rng(5)
    table = random.integers(0, 2**32, (20_000, 6), np.uint32)
    extreme = np.array([0, 1, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], np.uint32)
    table[:5000] = random.choice(extreme, (5000, 6))
    given = torch.from_numpy(table.astype(np.int64))
    got = philox4x32(given[:, :4], given[:, 4:])
    assert np.array_equal(got.numpy(), philox.philox4x32(table[:, :4], table[:, 4:]).astype(np.int64))
    # One counter for many keys, as `words` has it.
    got = philox4x32(given[:7, :4], given[:3, None, 4:])
    assert np.array_equal(got.numpy(), philox.philox4x32(np.tile(table[:7, :4], (3, 1, 1)), table[:3, None, 4:]))


@pytest.mark.parametrize("multiplier", [0xD2511F53, 0xCD9E8D57])
@given(word)
def test_the_product_in_two_words(multiplier, number):
    high, low = philox_torch._high_low(multiplier, torch.tensor(number))
    assert (int(high), int(low)) == divmod(multiplier * number, 2**32)


@given(st.lists(st.tuples(word, word, word, word, word, word), max_size=6))
def test_equals_numpy_with_a_key_for_each_row(rows):
    table = np.array(rows, np.uint32).reshape(-1, 6)
    expected = philox.philox4x32(table[:, :4], table[:, 4:])
    for dtype in (np.uint32, np.int32, np.int64):
        given = torch.from_numpy(table.astype(dtype))
        got = philox_torch.philox4x32(given[:, :4], given[:, 4:])
        assert got.dtype == torch.int64
        assert np.array_equal(got.numpy(), expected.astype(np.int64))


@given(st.lists(st.tuples(word, word), max_size=4), st.integers(0, 70), st.tuples(word, word, word))
def test_bytes_and_words_equal_numpy(keys, count, salt):
    table = np.array(keys, np.uint32).reshape(-1, 2)
    expected = bytes_by_numpy(table, count, salt)
    got = philox_torch.uniform_bytes(torch.from_numpy(table), count, salt)
    assert got.dtype == torch.uint8 and tuple(got.shape) == (len(keys), count)
    assert np.array_equal(got.numpy(), expected)
    got = philox_torch.words(torch.from_numpy(table), count, salt)
    assert tuple(got.shape) == (len(keys), count)
    assert np.array_equal(got.numpy(), bytes_by_numpy(table, 4 * count, salt).copy().view("<u4").astype(np.int64))


def test_without_a_salt_the_other_counter_words_are_zero():
    keys = np.array([[7, 2**32 - 1], [0, 1]], np.uint32)
    assert np.array_equal(philox_torch.uniform_bytes(torch.from_numpy(keys), 100).numpy(), bytes_by_numpy(keys, 100))


def test_a_line_alone_and_a_longer_draw_give_the_same_bytes():
    keys = torch.tensor([[1, 2], [3, 4], [5, 6]])
    together = philox_torch.uniform_bytes(keys, 1000)
    for line in range(3):
        assert torch.equal(philox_torch.uniform_bytes(keys[line : line + 1], 77)[0], together[line, :77])
    assert not torch.equal(together[0], together[1])


def test_global_chance_is_left_alone():
    before = torch.get_rng_state()
    philox_torch.uniform_bytes(torch.tensor([[1, 2]]), 50)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_a_device_draws_the_same_bytes():
    require_cuda()
    keys = np.random.default_rng(0).integers(0, 2**32, (40, 2), np.uint32)
    got = philox_torch.uniform_bytes(torch.from_numpy(keys).to("cuda"), 5003, (9, 2**32 - 1, 0))
    assert got.device.type == "cuda"
    assert np.array_equal(got.cpu().numpy(), bytes_by_numpy(keys, 5003, (9, 2**32 - 1, 0)))

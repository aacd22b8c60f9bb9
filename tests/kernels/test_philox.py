import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from khmer_ocr_kernels.philox import philox4x32

word = st.integers(0, 2**32 - 1)
MASK = 2**32 - 1


def philox_by_the_paper(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in plain integers, written from the paper's figures and not from the code under test."""
    key = list(key)
    for round_number in range(10):
        if round_number:
            key = [(key[0] + 0x9E3779B9) & MASK, (key[1] + 0xBB67AE85) & MASK]
        high_0, low_0 = divmod(0xD2511F53 * counter[0], 1 << 32)
        high_1, low_1 = divmod(0xCD9E8D57 * counter[2], 1 << 32)
        counter = [high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0]
    return counter


# Known answers of Random123 (kat_vectors, "philox4x32 10"): counter, key, result.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([MASK] * 4, [MASK] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers_of_random123(counter, key, answer):
    assert philox_by_the_paper(counter, key) == answer
    assert philox4x32(np.array([counter], np.uint32), np.array(key, np.uint32)).tolist() == [answer]


@given(st.lists(st.tuples(word, word, word, word), min_size=1, max_size=6), st.tuples(word, word))
def test_equals_the_plain_integers(counters, key):
    got = philox4x32(np.array(counters, np.uint32), np.array(key, np.uint32))
    assert got.dtype == np.uint32
    assert got.tolist() == [philox_by_the_paper(list(counter), list(key)) for counter in counters]


@given(st.lists(st.tuples(word, word, word, word, word, word), min_size=1, max_size=6))
def test_a_key_for_each_row(rows):
    table = np.array(rows, np.uint32)
    got = philox4x32(table[:, :4], table[:, 4:])
    assert got.tolist() == [philox_by_the_paper(list(row[:4]), list(row[4:])) for row in rows]


def test_any_number_of_leading_axes():
    counter = np.arange(2 * 3 * 4, dtype=np.uint32).reshape(2, 3, 4)
    key = np.array([1, 2], np.uint32)
    flat = philox4x32(counter.reshape(6, 4), key)
    assert np.array_equal(philox4x32(counter, key).reshape(6, 4), flat)
    assert philox4x32(np.zeros((0, 4), np.uint32), key).shape == (0, 4)


def test_inputs_are_left_as_they_were():
    counter, key = np.full((3, 4), 7, np.uint32), np.full(2, 9, np.uint32)
    philox4x32(counter, key)
    assert (counter == 7).all() and (key == 9).all()

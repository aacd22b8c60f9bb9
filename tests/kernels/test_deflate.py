"""Our deflate read back by zlib, and its bytes shown to depend on nothing but the data."""

import hashlib
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from khmer_ocr_kernels import png_encoder
from khmer_ocr_kernels.deflate import PADDING, adler32, deflate, most_bytes
from khmer_ocr_kernels.ragged import RaggedLines


def packed(data: bytes, above: int, behind: bytes = bytes(PADDING), shift: int = 0) -> bytes:
    """Deflate `data` standing `shift` bytes into its buffer, with `behind` after it."""
    array = np.frombuffer(bytes(shift) + data + behind, np.uint8)
    out = np.full(most_bytes(len(data)) + shift, 0xA5, np.uint8)
    end = deflate(array, shift, shift + len(data), above, out, shift)
    return out[shift:end].tobytes()


def of_kind(kind: str, length: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.integers(0, 256, length, np.uint8).tobytes()
    if kind == "one value":
        return bytes([seed % 256]) * length
    if kind == "two values":
        return (rng.integers(0, 2, length) * 255).astype(np.uint8).tobytes()
    if kind == "slopes":
        return np.cumsum(rng.integers(0, 2, length)).astype(np.uint8).tobytes()
    if kind == "rare greys":
        return np.minimum(rng.exponential(0.7, length) ** 5, 255).astype(np.uint8).tobytes()
    row = rng.integers(0, 256, 1 + seed % 300, np.uint8).tobytes()
    return (row * (length // len(row) + 1))[:length]


KINDS = ("noise", "one value", "two values", "slopes", "rare greys", "rows")


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(KINDS), length=st.integers(1, 5000), seed=st.integers(0, 1 << 16), above=st.integers(1, 4000)
)
@example(kind="one value", length=258 * 3 + 1, seed=7, above=1)
@example(kind="rows", length=5000, seed=299, above=300)
def test_zlib_reads_it_back(kind: str, length: int, seed: int, above: int) -> None:
    data = of_kind(kind, length, seed)
    assert zlib.decompress(packed(data, above)) == data


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    length=st.integers(1, 1500),
    above=st.integers(1, 300),
    behind=st.binary(min_size=2 * PADDING, max_size=2 * PADDING),
    shift=st.integers(0, 17),
)
def test_bytes_depend_on_the_data_alone(kind: str, length: int, above: int, behind: bytes, shift: int) -> None:
    data = of_kind(kind, length, 5)
    assert packed(data, above, behind, shift) == packed(data, above)
    repeated = data[-1:] * (2 * PADDING)
    assert packed(data, above, repeated) == packed(data, above), "what follows the data decides on a match"


@pytest.mark.parametrize("above", [32767, 32768, 32769, 50000])
def test_rows_longer_than_the_window(above: int) -> None:
    row = of_kind("noise", above, 1)
    data = row * 2
    out = packed(data, above)
    assert zlib.decompress(out) == data
    assert (len(out) < 0.6 * len(data)) == (above <= 32768)


def test_counts_that_would_need_a_code_of_more_than_15_bits() -> None:
    counts = [1, 1]
    while len(counts) < 24:
        counts.append(counts[-1] + counts[-2])
    data = np.random.default_rng(1).permutation(np.repeat(np.arange(24, dtype=np.uint8), counts)).tobytes()
    assert zlib.decompress(packed(data, 1 << 20)) == data


@settings(max_examples=200, deadline=None)
@given(data=st.binary(min_size=1, max_size=3000), begin=st.integers(0, 40))
@example(data=b"\xff" * 3000, begin=0)
def test_checksums_are_those_of_zlib(data: bytes, begin: int) -> None:
    begin = min(begin, len(data) - 1)
    array = np.frombuffer(data + bytes(PADDING), np.uint8)
    assert adler32(array, begin, len(data)) == zlib.adler32(data[begin:])
    assert png_encoder.crc32(array, begin, len(data)) == zlib.crc32(data[begin:])


def test_bytes_of_a_known_image_stay() -> None:
    """A change of the encoder that makes this fail raises ENCODING_VERSION and records the new hash."""
    y, x = np.mgrid[0:32, 0:200]
    pixels = np.where((x // 3 + y // 5) % 7 < 2, (x * y) % 256, 255).astype(np.uint8)
    files, begins = png_encoder.encode(RaggedLines.of_images([pixels]))
    assert begins.tolist() == [0, len(files)]
    assert (png_encoder.ENCODING_VERSION, hashlib.sha256(files.tobytes()).hexdigest()[:16]) == (1, "f0b6ef8a9cd5f7ff")

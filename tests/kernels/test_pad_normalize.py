"""Padding and normalising: tables rounded rightly, numba and Triton the bytes of the reference, bad input named."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from khmer_ocr_kernels import pad_normalize as fast
from khmer_ocr_kernels import reference
from khmer_ocr_kernels.pad_normalize import pad_into, pad_normalize, to_unit, unit_table
from khmer_ocr_kernels.ragged import RaggedLines

from tests.gpu import POISON, require_cuda, run_on_tensors

DTYPES = ("float32", "float16", "bfloat16")
TRITON = "khmer_ocr_kernels.pad_normalize"
HEIGHTS = (1, 24, 32, 33, 48, 96)


def ragged(seed, widths, height):
    width_B = np.array(widths, np.int32)
    pixels_N = np.random.default_rng(seed).integers(0, 256, int(width_B.sum()) * height).astype(np.uint8)
    return RaggedLines(pixels_N, width_B, height)


def batch(seed, widths, height, extra=0, dtype="float32"):
    columns = max(widths, default=0) + extra
    return ragged(seed, widths, height), columns, unit_table(dtype)


# Tables


def finite(dtype_name):
    """All finite non-negative values of a dtype, each at the index that is its bit pattern."""
    bits = np.arange(0x7C00 if dtype_name == "float16" else 0x7F80)
    if dtype_name == "float16":
        return bits.astype(np.uint16).view(np.float16).astype(np.float64)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def nearest_bits(value, values):
    """The pattern nearest to a value, ties to even, by exact fractions."""
    exact = abs(Fraction(float(value)))
    above = int(np.searchsorted(values, float(exact)))
    if above == 0:
        bits = 0
    elif above == len(values):
        bits = above - 1
    else:
        down, up = exact - Fraction(values[above - 1]), Fraction(values[above]) - exact
        bits = above if up < down or (up == down and above % 2 == 0) else above - 1
    return bits | (0x8000 if np.signbit(value) else 0)


@pytest.mark.parametrize("dtype_name", ["float16", "bfloat16"])
def test_tables_are_rounded_once_to_the_nearest(dtype_name):
    values = finite(dtype_name)
    table = unit_table(dtype_name)
    assert table.dtype == np.uint16
    assert table.tolist() == [nearest_bits(value, values) for value in np.arange(256) / 255]


def test_float32_table_is_the_formula():
    table = unit_table("float32")
    assert table.dtype == np.uint32
    assert table.view(np.float32).tolist() == [float(np.float32(x / 255)) for x in range(256)]


# numba


def test_equals_the_reference_on_thousands_of_batches():
    random = np.random.default_rng(0)
    tables = [unit_table(dtype) for dtype in DTYPES]
    tables += [tables[0].view(np.float32), tables[1].view(np.float16), np.arange(256, dtype=np.uint8), None]
    for seed in range(3000):
        widths = random.integers(0, 40, random.integers(0, 5))
        height, extra = int(random.choice(HEIGHTS)), int(random.integers(0, 20))
        order = random.integers(0, len(widths), 3) if len(widths) and seed % 2 else None
        arguments = (*batch(seed, widths, height, extra)[:-1], tables[seed % len(tables)], order)
        got, expected = pad_normalize(*arguments), reference.pad_normalize(*arguments)
        assert got.dtype == expected.dtype and got.shape == expected.shape
        assert got.tobytes() == expected.tobytes(), seed


def test_every_byte_is_written(monkeypatch):
    arguments = batch(1, [1, 30, 0, 7], 24, 5)
    expected = reference.pad_normalize(*arguments)
    monkeypatch.setattr(fast.np, "empty", lambda shape, dtype: np.full(shape, POISON, dtype))
    assert np.array_equal(pad_normalize(*arguments), expected)


def test_padding_is_background_and_pixels_are_where_they_were():
    lines = ragged(0, [3, 5], 24)
    table = np.arange(256, dtype=np.uint16) + 1000
    padded = pad_normalize(lines, 9, table)
    assert padded.shape == (2, 1, 24, 9) and padded.dtype == np.uint16
    assert (padded[0, 0, :, 3:] == 1255).all() and (padded[1, 0, :, 5:] == 1255).all()
    assert np.array_equal(padded[1, 0, :, :5] - 1000, lines.image(1))


def test_read_only_pixels():
    lines = ragged(2, [4, 9, 2], 32)
    table = unit_table("float16")
    expected = reference.pad_normalize(lines, 12, table)
    lines.pixels_N.flags.writeable = False
    assert np.array_equal(pad_normalize(lines, 12, table), expected)


@pytest.mark.parametrize("table", [None, np.arange(256, dtype=np.uint8)[::-1].copy()])
def test_rows_of_a_batch_are_filled_and_no_others(table):
    lines, padded = ragged(2, [4, 9, 2], 32), np.full((5, 32, 11), POISON, np.uint8)
    rows = np.array([4, 0, 2])
    pad_into(padded, lines.pixels_N, lines.offsets_B1[:-1], lines.width_B, rows, table)
    assert np.array_equal(padded[rows], reference.pad_normalize(lines, 11, table)[:, 0])
    assert (padded[[1, 3]] == POISON).all()


def test_bad_batches_are_refused():
    lines, columns, table = batch(0, [3, 9, 5], 24)
    with pytest.raises(ValueError, match=r"line 1 is 9 px wide, the batch 8: give columns >= 9"):
        pad_normalize(lines, 8, table)
    assert pad_normalize(lines, 8, table, np.array([0, 2])).shape == (2, 1, 24, 8)
    with pytest.raises(ValueError, match=r"table_256 has shape \(255,\)"):
        pad_normalize(lines, columns, table[:255])
    with pytest.raises(ValueError, match="8 bytes a value"):
        pad_normalize(lines, columns, table.astype(np.float64))


def test_needs_no_torch():
    code = (
        "import sys; import khmer_ocr_kernels.compose, khmer_ocr_kernels.pad_normalize;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'triton')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Tensors and Triton


def tensor_batches():
    yield batch(0, [], 32, 7)
    yield batch(1, [1], 24)
    yield batch(2, [0, 0], 32)
    yield batch(3, [0, 1, 2], 48, 3, "bfloat16")
    yield batch(4, [2048, 1, 700], 32, 1, "float16")
    yield batch(5, [127, 128, 129, 256], 96, 0, "bfloat16")
    for seed, height in enumerate(HEIGHTS):
        widths = np.random.default_rng(seed).integers(0, 300, 4)
        yield batch(seed, widths, height, seed * 31, DTYPES[seed % 3])
    yield *batch(6, [5, 60], 24, 9)[:-1], unit_table("float32").view(np.float32)
    yield *batch(8, [5, 60, 0, 7], 24, 9), np.array([3, 1, 1])
    yield *batch(8, [5, 60, 0, 7], 24, 9)[:-1], None, np.array([3, 1, 1])
    yield *batch(7, [5, 60], 24, 9)[:-1], np.arange(256, dtype=np.uint8)[::-1].copy()


def assert_like_the_reference(results):
    for number, (arguments, (got,)) in enumerate(zip(tensor_batches(), results, strict=True)):
        expected = reference.pad_normalize(*arguments)
        assert got.dtype == expected.dtype and got.shape == expected.shape, number
        assert got.tobytes() == expected.tobytes(), number


def test_the_interpreter_gives_the_bytes_of_the_reference(tmp_path):
    pytest.importorskip("triton")
    # Of the CPU's tensors `pad_normalize.pad_normalize` makes arrays.
    results = run_on_tensors(f"{TRITON}_triton:pad_normalize", list(tensor_batches()), tmp_path, "cpu", (3,))
    assert_like_the_reference(results)


@pytest.mark.gpu
def test_a_device_gives_the_bytes_of_the_reference(tmp_path):
    require_cuda()
    results = run_on_tensors(f"{TRITON}:pad_normalize", list(tensor_batches()), tmp_path, "cuda", (3,))
    assert_like_the_reference(results)


def test_compiles_for_three_generations_of_devices(tmp_path):
    pytest.importorskip("triton")
    from khmer_ocr_kernels import pad_normalize_triton

    from tests.kernels.cubin import Case, capability_of, compile_apart

    module, tiles = (
        pad_normalize_triton.__name__,
        {
            "TILE_H": pad_normalize_triton.TILE_H,
            "TILE_W": pad_normalize_triton.TILE_W,
        },
    )
    sizes = {"pixels_ptr": "*u8", "offsets_ptr": "*i64", "width_ptr": "*i32", "height": "i32", "columns": "i32"}
    constants = dict.fromkeys(tiles, "constexpr")
    cases = []
    for capability in (80, 90, 100):
        for bits in ("*i16", "*i32"):
            signature = {**sizes, "table_ptr": bits, "padded_ptr": bits, **constants}
            cases.append(Case(module, "pad_tiles", signature, tiles, capability))
    # A launch makes arguments of 1 constants.
    flat = {**cases[0].signature, "height": "constexpr", "columns": "constexpr"}
    cases.append(Case(module, "pad_tiles", flat, {**tiles, "height": 1, "columns": 1}))
    cubins = compile_apart(cases, tmp_path)
    assert [capability_of(cubin) for cubin in cubins] == [case.capability for case in cases]


@pytest.mark.parametrize("dtype_name", DTYPES)
def test_bit_patterns_are_the_numbers_of_the_formula(dtype_name):
    torch = pytest.importorskip("torch")
    arguments = batch(9, [4, 7], 24, 2, dtype_name)
    tensor = torch.from_numpy(pad_normalize(*arguments)).view(getattr(torch, dtype_name))
    exact = reference.pad_normalize(*arguments[:-1], np.arange(256) / 255)
    assert torch.equal(tensor, torch.from_numpy(exact).to(tensor.dtype))


@pytest.mark.parametrize("dtype_name", DTYPES)
def test_a_unit_is_what_the_table_says(dtype_name):
    torch = pytest.importorskip("torch")
    dtype, grey = getattr(torch, dtype_name), torch.arange(256, dtype=torch.uint8)
    unit = to_unit(grey, dtype)
    assert unit.dtype == dtype and torch.equal(unit, torch.from_numpy(unit_table(dtype_name)).view(dtype))
    assert torch.equal(to_unit(unit, dtype), unit) and to_unit(grey).dtype == torch.float32


def test_tensors_of_the_cpu_are_padded_as_arrays_are():
    torch = pytest.importorskip("torch")
    lines, columns, table = batch(1, [4, 9, 2], 32)
    there = RaggedLines(torch.from_numpy(lines.pixels_N), lines.width_B, lines.height_px)
    padded = pad_normalize(there, columns, torch.from_numpy(table).view(torch.float32), np.array([2, 0]))
    assert isinstance(padded, torch.Tensor) and padded.dtype == torch.float32
    right = reference.pad_normalize(lines, columns, table.view(np.float32), np.array([2, 0]))
    assert np.array_equal(padded.numpy(), right)

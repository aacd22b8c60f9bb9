"""The Triton compositor: bit for bit the reference in the interpreter and on a device; compiles for devices absent."""

import numpy as np
import pytest

pytest.importorskip("triton")

import torch
import triton
from khmer_ocr_kernels import compose_triton, reference
from khmer_ocr_kernels.compose import compose

from tests.gpu import require_cuda, run_on_tensors
from tests.kernels.cubin import Case, capability_of, compile_apart
from tests.kernels.test_kernel_compose import case

MODULE = "khmer_ocr_kernels.compose_triton"
COMPOSE, WIDTHS = "khmer_ocr_kernels.compose:compose", (3,)
LAYOUT = {
    "quads_ptr": "*i32",
    "quad_offsets_ptr": "*i64",
    "baseline_ptr": "*i32",
    "width_ptr": "*i32",
    "pixels_ptr": "*u8",
    "entries_ptr": "*i32",
}


def drawn(widths, places, height, rasters=((12, 9),), seed=0):
    """A batch of given widths and, per line, places (atlas entry, x, y above a baseline at 2/3 of the height)."""
    random = np.random.default_rng(seed)
    areas = np.array([w * h for w, h in rasters])
    entries = np.zeros((len(rasters), 5), np.int32)
    entries[:, 0], entries[:, 1:3] = np.cumsum(areas) - areas, rasters
    pixels = random.choice(np.array([0, 0, 3, 128, 200, 255], np.uint8), int(areas.sum()))
    quads = np.array([place for line in places for place in line], np.int32).reshape(-1, 3)
    offsets = np.cumsum([0] + [len(line) for line in places]).astype(np.int64)
    baselines = np.full(len(widths), height * 2 // 3, np.int32)
    return quads, offsets, baselines, np.array(widths, np.int32), pixels, entries, height


def batches():
    yield "no lines", case(0, 32, 0, 0, 0)
    yield "no glyphs", case(1, 24, 3, 0, 0)
    yield "one glyph on 1 px", drawn([1], [[(0, -3, 9)]], 24)
    yield "no pixels at all, ink outside", drawn([0, 0], [[(0, 2, 5)], []], 32)
    yield "wider than any tile", drawn([2048, 1], [[(0, x, x % 13) for x in range(0, 2040, 17)], [(0, 0, 0)]], 32)
    yield "higher than any tile", drawn([70], [[(0, x, 3 * x - 90) for x in range(0, 60, 5)]], 96)
    yield (
        "rasters larger than a tile, cut on all sides",
        drawn(
            [150, 90, 3], [[(1, -20, 80), (0, 5, 5), (1, 60, 40)], [(1, -3, 70)], [(1, 2, 20)]], 48, ((5, 7), (111, 73))
        ),
    )
    yield "ink upon ink, order matters", drawn([20], [[(0, x, 20) for x in (3, 4, 5, 4, 3)]], 32)
    yield "an empty raster, far outside", drawn([30], [[(0, -900, 0), (1, 4, 4)]], 32, ((0, 0), (3, 3)))
    for seed, height in enumerate((1, 31, 48, 96)):
        yield f"random, {height} px high", case(seed, height, 4, 6, 20)
    quads, *rest, height = case(20, 40, 3, 7, 10)
    yield "columns stored one by one, numpy's integer", (np.asfortranarray(quads), *rest, np.int64(height))


BATCHES = dict(batches())


def assert_like_the_reference(results):
    for (name, batch), got in zip(BATCHES.items(), results, strict=True):
        lines, clipped_B = reference.compose(*batch)
        for mine, right in zip(got, (lines.pixels_N, clipped_B), strict=True):
            assert mine.dtype == right.dtype, name
            assert np.array_equal(mine, right), name


def test_the_interpreter_draws_the_bytes_of_the_reference(tmp_path):
    results = run_on_tensors(COMPOSE, list(BATCHES.values()), tmp_path, "cpu", WIDTHS)
    assert_like_the_reference(results)
    # The batches are of use only if they hold ink, and ink that is clipped.
    lines, clipped = zip(*results, strict=True)
    assert sum((line < 255).sum() for line in lines) > 10_000
    assert sum((counts > 0).sum() for counts in clipped) > 20


def test_a_pen_beyond_32_bits_does_not_come_back_into_the_line(tmp_path):
    # Bearings as extreme as the pens: in 32 bits the sums would come back to the line's own pixels.
    low, high = -(2**31), 2**31 - 1
    batch = drawn([40], [[(0, high, 0), (1, 8, low), (2, 9, 9), (2, low, high)]], 32, ((12, 9),) * 3)
    batch[5][0, 3], batch[5][1, 4] = high, low
    ((lines, clipped),) = run_on_tensors(COMPOSE, [batch], tmp_path, "cpu", WIDTHS)
    right, counts = compose(*batch)
    assert np.array_equal(lines, right.pixels_N) and np.array_equal(clipped, counts)


@pytest.mark.gpu
def test_a_device_draws_the_bytes_of_the_reference(tmp_path):
    require_cuda()
    assert_like_the_reference(run_on_tensors(COMPOSE, list(BATCHES.values()), tmp_path, "cuda", WIDTHS))


def test_compiles_for_three_generations_of_devices(tmp_path):
    drawing = {**LAYOUT, "height": "i32", "lines_ptr": "*u8", "offsets_ptr": "*i64"}
    counting = {**LAYOUT, "height": "i32", "clipped_ptr": "*i64"}
    tiles = {"TILE_H": compose_triton.TILE_H, "TILE_W": compose_triton.TILE_W}
    block = {"BLOCK": compose_triton.COUNT_BLOCK}
    cases = []
    for capability in (80, 90, 100):
        cases += [
            Case(MODULE, "draw_tiles", drawing | dict.fromkeys(tiles, "constexpr"), tiles, capability),
            Case(MODULE, "count_clipped", counting | {"BLOCK": "constexpr"}, block, capability),
        ]
    # A launch makes an argument of 1 a constant.
    flat = drawing | {"height": "constexpr"} | dict.fromkeys(tiles, "constexpr")
    cases.append(Case(MODULE, "draw_tiles", flat, tiles | {"height": 1}))
    cubins = compile_apart(cases, tmp_path)
    assert [capability_of(cubin) for cubin in cubins] == [case.capability for case in cases]


def tensors(batch, monkeypatch):
    # Another test may have set TRITON_INTERPRET in this process.
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    tensors = [torch.from_numpy(item) if isinstance(item, np.ndarray) else item for item in batch]
    return [*tensors[:3], batch[3], *tensors[4:]]


def test_tensors_elsewhere_are_refused(monkeypatch):
    arguments = tensors(case(0, 24, 2, 2, 0), monkeypatch)
    with pytest.raises(ValueError, match=r"quads_Q3 is a tensor on cpu: give CUDA tensors, or numpy arrays"):
        compose(*arguments)
    arguments[4] = arguments[4].to("meta")
    with pytest.raises(ValueError, match="pixels_N is on meta, quads_Q3 on cpu: move all to one device"):
        compose(*arguments)
    arguments[2] = arguments[2].numpy()
    with pytest.raises(ValueError, match="baseline_B is a ndarray, quads_Q3 a tensor: give all as tensors, or none"):
        compose(*arguments)

"""The Triton `degrade`: bit for bit the reference in the interpreter and on a device; compiles for devices absent."""

import os

import numpy as np
import pytest

from tests import REPOSITORY

pytest.importorskip("triton")

import torch
import triton
from khmer_ocr_kernels import degrade_reference, degrade_triton
from khmer_ocr_kernels.degrade import degrade
from khmer_ocr_kernels.degrade_reference import NOISE_SALT
from khmer_ocr_kernels.philox import philox4x32
from khmer_ocr_kernels.ragged import RaggedLines

from tests.gpu import require_cuda, run_on_tensors
from tests.kernels.cubin import Case, capability_of, compile_apart
from tests.kernels.test_degrade import any_batch, batch

DEGRADE = "khmer_ocr_kernels.degrade:degrade"
PROBE = "tests.kernels.philox_probe:draw_bytes"


def batches():
    yield "no lines", batch([], 32, 256, 160, 1024)
    yield "lines of no width", batch([0, 0], 24, 256, 160, 1024)
    yield "one pixel", batch([1], 1, 256, 160, 1024)
    yield "1 px wide", batch([1, 1], 32, [-256, 90], [160, 3], [1024, 16])
    yield "nothing asked for", batch([40, 7], 32)
    yield "morphology alone", batch([40, 7, 3], 24, [256, -100, 0])
    yield "blur alone", batch([40, 7, 3], 24, 0, [160, 31, 0])
    yield "noise alone", batch([40, 7, 3], 24, 0, 0, [1024, 16, 0])
    yield "each line its own", batch([20, 30, 33, 9], 32, [77, 0, 0, -9], [0, 48, 0, 160], [0, 0, 200, 1])
    yield "wide and narrow", batch([1100, 1, 0, 60], 3, -200, [20, 160, 160, 48], 100)
    yield "a block's end within a row", batch([1023, 1025], 3, 100, 32, 50)
    for seed, height in enumerate((31, 32, 48, 96)):
        yield f"random, {height} px high", any_batch(seed, height, 3, widest=30)
    yield "numpy's integer", any_batch(9, np.int64(40), 3)


BATCHES = dict(batches())


def assert_like_the_reference(results):
    for (name, arguments), (got,) in zip(BATCHES.items(), results, strict=True):
        expected = degrade_reference.degrade(*arguments)
        assert got.dtype == np.uint8, name
        assert np.array_equal(got, expected.pixels_N), name


def assert_draws_are_philox(folder, device, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
    keys = np.array([[0, 0], [0xFFFFFFFF, 0xFFFFFFFF], [0xA4093822, 0x299F31D0], [1, 2]], np.uint32)
    firsts = (0, 1, 64, 2**27 - 32)  # up to lines of 2**31 pixels
    results = run_on_tensors(PROBE, [(keys.view(np.int32), first) for first in firsts], folder, device)
    for first, (drawn,) in zip(firsts, results, strict=True):
        counters = np.zeros((32, 4), np.uint32)
        counters[:, 0], counters[:, 1] = np.arange(first, first + 32), NOISE_SALT
        for key, mine in zip(keys, drawn, strict=True):
            assert np.array_equal(mine, philox4x32(counters, key).astype("<u4").view(np.uint8).ravel())


def test_the_interpreter_gives_the_bytes_of_the_reference(tmp_path):
    assert_like_the_reference(run_on_tensors(DEGRADE, list(BATCHES.values()), tmp_path, "cpu", range(1, 5)))


def test_the_interpreter_draws_philox(tmp_path, monkeypatch):
    assert_draws_are_philox(tmp_path, "cpu", monkeypatch)


@pytest.mark.gpu
def test_a_device_gives_the_bytes_of_the_reference(tmp_path):
    require_cuda()
    assert_like_the_reference(run_on_tensors(DEGRADE, list(BATCHES.values()), tmp_path, "cuda", range(1, 5)))


@pytest.mark.gpu
def test_a_device_draws_philox(tmp_path, monkeypatch):
    require_cuda()
    assert_draws_are_philox(tmp_path, "cuda", monkeypatch)


@pytest.mark.gpu
def test_pixels_on_a_device_with_parameters_on_the_host(monkeypatch):
    require_cuda()
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    lines, *others = any_batch(30, 32, 300, widest=400)
    there = RaggedLines(torch.from_numpy(lines.pixels_N).cuda(), lines.width_B, lines.height_px)
    augmented_N = degrade(there, *others).pixels_N
    assert augmented_N.is_cuda and np.array_equal(augmented_N.cpu().numpy(), degrade(lines, *others).pixels_N)


def test_compiles_for_three_generations_of_devices(tmp_path):
    lines = {"offsets_B1": "*i64", "lines_B6": "*i32"}
    taps, last = {"taps": "*i32"}, {"height": "i32", "BLOCK": "constexpr"}
    rows = {"source": "*u8", "kept": "*u16"}
    signatures = {
        "morph_lines": {"source": "*u8", "target": "*u8"} | lines | last,
        "sum_rows": rows | lines | taps | last,
        "sum_columns_and_add_noise": rows | {"target": "*u8"} | lines | taps | {"quantiles": "*i32"} | last,
    }
    block = {"BLOCK": degrade_triton.BLOCK}
    module = degrade_triton.__name__
    cases = [
        Case(module, kernel, signature, block, capability)
        for capability in (80, 90, 100)
        for kernel, signature in signatures.items()
    ]
    # Where nothing is blurred `kept` is the line itself; and a launch makes an argument of 1 a constant.
    unblurred = signatures["sum_columns_and_add_noise"] | {"kept": "*u8", "height": "constexpr"}
    cases.append(Case(module, "sum_columns_and_add_noise", unblurred, block | {"height": 1}))
    cubins = compile_apart(cases, tmp_path)
    assert [capability_of(cubin) for cubin in cubins] == [case.capability for case in cases]


def test_tensors_elsewhere_are_refused(monkeypatch):
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    lines, *others = batch([40, 7], 32, 1, 1, 1)
    there = RaggedLines(torch.from_numpy(lines.pixels_N), lines.width_B, lines.height_px)
    with pytest.raises(ValueError, match="pixels_N is a tensor on cpu: give CUDA tensors, or numpy arrays for the CPU"):
        degrade(there, *others)

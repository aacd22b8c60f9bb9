"""A chunk through a device gives the files of the CPU; the host encodes one block while the device has the next.

What is drawn runs in another process, in Triton's interpreter or on a GPU; `chunk_on_device` is called there by
`gpu.run_on_tensors`.
"""

import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import REPOSITORY

pytest.importorskip("triton")

import torch
from khmer_ocr_kernels.ragged import RaggedLines

from khmer_ocr import rng
from khmer_ocr.augment import torch_batches
from khmer_ocr.augment.augmenter import Augmenter
from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.errors import ConfigError
from khmer_ocr.generate import chunk_renderer
from khmer_ocr.generate.chunk_renderer import ChunkRenderer, RenderJob
from khmer_ocr.io import transfer
from khmer_ocr.render import compositor as composing
from khmer_ocr.render.measured_faces import usable_faces
from khmer_ocr.render.settings import RenderConfig
from tests.generate.generating import FONTS, run, tree_hash
from tests.gpu import run_on_tensors

TEXTS = ["ក", "ស្ត្រី", "ខ្ញុំ 1", "A", "ដើរ", "ភាសា", "៛១"]
"""Few and short: the interpreter draws a few lines a second."""
RECIPES = ("none", "basic", "scan")


@pytest.fixture(scope="module")
def job():
    faces, metrics = usable_faces(FONTS, fonts_dir=Path("none"), system=False)
    return RenderJob(tuple(faces), metrics, RenderConfig(image_height=24), "out", "webdataset", 42, None)


def chunk_on_device(job, texts, block_lines, most_lines):
    """For another process: what a renderer makes of a chunk, in which order, and what it warns of, as bytes of JSON.

    `most_lines` is how many lines the device pretends to have memory for, 0 if it does not pretend.
    """
    happened, warnings, compose = [], [], composing.compose

    class Listener(logging.Handler):
        def emit(self, record):
            warnings.append(record.getMessage())

    def scarce(quads_Q3, quad_offsets_B1, *rest):
        lines = len(quad_offsets_B1) - 1
        if most_lines and lines > most_lines:
            if lines % 2:  # what a kernel's first launch raises
                raise RuntimeError("Triton Error [CUDA]: out of memory")
            raise torch.cuda.OutOfMemoryError("a pretence")
        # An exception in flight would hold on to the tensors of what failed.
        assert sys.exception() is None
        happened.append(f"draw {len(quad_offsets_B1) - 1}")
        return compose(quads_Q3, quad_offsets_B1, *rest)

    def encode(lines):
        happened.append(f"encode {len(lines)}")
        return encode_lines(lines)

    encode_lines, usual_lines = chunk_renderer.encode_lines, chunk_renderer.BATCH_LINES
    composing.compose, chunk_renderer.encode_lines, chunk_renderer.BATCH_LINES = scarce, encode, block_lines
    listener = Listener()
    transfer.log.addHandler(listener)
    try:
        samples, images = ChunkRenderer(job).drawn("train", 3, texts)
        made = {"samples": samples, "images": [image.hex() for image in images], "error": ""}
    except ConfigError as error:
        made = {"error": str(error)}
    finally:
        composing.compose, chunk_renderer.encode_lines, chunk_renderer.BATCH_LINES = compose, encode_lines, usual_lines
        transfer.log.removeHandler(listener)
        transfer._said.clear()
    done = json.dumps(made | {"happened": happened, "warnings": warnings}).encode()
    return torch.frombuffer(bytearray(done), dtype=torch.uint8).to(job.device)


def on_device(cases, device, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
    there = [(replace(job, device=torch.device(device)), *rest) for job, *rest in cases]
    results = run_on_tensors("tests.generate.test_device:chunk_on_device", there, folder, device)
    return [json.loads(done.tobytes()) for (done,) in results]


def on_cpu(job, texts):
    samples, images = ChunkRenderer(job).drawn("train", 3, texts)
    return {"samples": samples, "images": [image.hex() for image in images], "error": ""}


def with_recipe(job, name):
    # In every sample everything happens.
    recipe = load_recipe(name, "heavy")
    if recipe:
        recipe = replace(recipe, steps=tuple(replace(step, probability_3=(1.0,) * 3) for step in recipe.steps))
    return replace(job, recipe=recipe)


def assert_like_the_cpu(cases, results):
    for (job, texts, *_), result in zip(cases, results, strict=True):
        right = json.loads(json.dumps(on_cpu(job, texts)))
        assert {key: result[key] for key in right} == right
        assert len(right["images"]) == len(texts)
        assert all(("augmentation" in sample) == bool(job.recipe) for sample in right["samples"])


def test_the_interpreter_makes_the_files_of_the_cpu(job, tmp_path, monkeypatch):
    cases = [(with_recipe(job, "none"), TEXTS, 3, 0), (with_recipe(job, "basic"), TEXTS[:4], 2, 0)]
    # A block of the recipe scan is one call: its bytes depend on how lines are put together.
    cases += [(with_recipe(job, "scan"), TEXTS[:4], 512, 0)]
    results = on_device(cases, "cpu", tmp_path, monkeypatch)
    assert_like_the_cpu(cases, results)
    # Each block is encoded once the device has the next.
    assert results[0]["happened"] == ["draw 3", "draw 3", "encode 3", "draw 1", "encode 3", "encode 1"]
    assert results[1]["happened"] == ["draw 2", "draw 2", "encode 2", "encode 2"]
    assert results[0]["warnings"] == []


def test_blocks_are_halved_when_memory_is_short(job, tmp_path, monkeypatch):
    cases = [(with_recipe(job, "none"), TEXTS, 5, 2), (with_recipe(job, "basic"), TEXTS[:3], 512, 1)]
    none_left = (job, TEXTS[:4], 512, -1)
    *results, failed = on_device([*cases, none_left], "cpu", tmp_path, monkeypatch)
    assert_like_the_cpu(cases, results)
    assert [step for step in results[0]["happened"] if "draw" in step] == ["draw 2", "draw 1", "draw 2", "draw 2"]
    for lines, result in zip((5, 3), results, strict=True):
        (warning,) = result["warnings"]
        assert f"no memory for {lines} lines at once" in warning and "--workers" in warning
    assert "no memory left for a single line (Triton Error [CUDA]: out of memory)" in failed["error"]
    assert "--workers" in failed["error"] and "--device cpu" in failed["error"]


def test_on_the_cpu_a_block_is_done_with_before_the_next_is_drawn(job):
    # There is no device to keep busy, and a worker's memory is bounded.
    made = json.loads(bytes(chunk_on_device(job, TEXTS, 3, 0)))
    assert made["happened"] == ["draw 3", "encode 3", "draw 3", "encode 3", "draw 1", "encode 1"]


@pytest.fixture
def drawn(job):
    renderer = ChunkRenderer(replace(job, render=RenderConfig()))
    texts, address_B = TEXTS * 6, np.arange(42, dtype=np.uint64)
    batch = renderer.renderer.draw(texts, renderer.renderer.plan(texts, address_B, rng.key(42, "train", "plan")))
    return batch, address_B, np.full(42, 1.5)


def test_tensors_are_augmented_as_arrays_are(drawn, monkeypatch):
    batch, address_B, stroke_px_B = drawn
    monkeypatch.setattr(torch_batches, "BATCH_LINES", 10)
    augmenter = Augmenter(load_recipe("scan", "heavy"), 1)
    # Ink up to the edges: a pixel too many would show.
    pixels_N = np.random.default_rng(0).integers(0, 256, len(batch.pixels_N), np.uint8)
    right, records = augmenter.augment(replace(batch, pixels_N=pixels_N), "train", address_B, stroke_px_B)
    there = replace(batch, pixels_N=torch.from_numpy(pixels_N))
    augmented, records_there = augmenter.augment(there, "train", address_B, stroke_px_B)
    assert isinstance(augmented.pixels_N, torch.Tensor) and np.array_equal(augmented.pixels_N.numpy(), right.pixels_N)
    assert np.array_equal(augmented.width_B, right.width_B) and records_there == records
    assert not np.array_equal(augmented.width_B, batch.width_B)
    none = RaggedLines(torch.zeros(0, dtype=torch.uint8), np.zeros(0, np.int32), 32)
    assert len(augmenter.augment(none, "train", address_B[:0], stroke_px_B[:0])[0]) == 0


@pytest.mark.parametrize("tensors", [False, True])
def test_batches_are_halved_when_memory_is_short(drawn, monkeypatch, caplog, tensors):
    batch, address_B, _ = drawn
    recipe = load_recipe("scan", "heavy")
    augment_plan = recipe.draw(rng.key(1, "train", "augment"), address_B)
    arguments = (recipe, augment_plan)
    # What a line looks like depends on its neighbours: halves are right if they are like batches of that size.
    halves = np.split(np.argsort(batch.width_B, kind="stable"), np.cumsum([5, 5, 5, 6, 5, 5, 5]))
    with monkeypatch.context() as patch:
        patch.setattr(torch_batches, "batches", lambda width_B: halves)
        right = torch_batches.augment_lines(batch, *arguments)
    augment_ink, sizes = torch_batches.augment_ink, []

    def scarce(lines, *rest):
        assert sys.exception() is None
        sizes.append(len(lines.width_B))
        if sizes[-1] > most_lines > 0 and sizes[-1] % 2:
            raise torch.AcceleratorError("CUDA error: out of memory")
        if sizes[-1] > most_lines:
            raise torch.cuda.OutOfMemoryError("a pretence")
        return augment_ink(lines, *rest)

    monkeypatch.setattr(torch_batches, "augment_ink", scarce)
    monkeypatch.setattr(transfer, "_said", set())
    lines, most_lines = replace(batch, pixels_N=torch.from_numpy(batch.pixels_N)) if tensors else batch, 6
    augmented = torch_batches.augment_lines(lines, *arguments)
    assert np.array_equal(np.asarray(augmented.pixels_N), right.pixels_N)
    assert np.array_equal(augmented.width_B, right.width_B)
    assert sizes == [42, 21, 10, 5, 5, 11, 5, 6, 21, 10, 5, 5, 11, 5, 6]
    assert [record.getMessage()[:43] for record in caplog.records] == ["The GPU has no memory for 42 lines at once:"]
    most_lines = 0
    with pytest.raises(torch.cuda.OutOfMemoryError, match="a pretence"):
        torch_batches.augment_lines(lines, *arguments)


@pytest.mark.parametrize(
    ("device", "said", "raised"),
    [
        ("cuda", "CUDA error: out of memory", "no memory left for one more process .* Give fewer --workers"),
        ("cuda", "CUDA error: unspecified launch failure", "unspecified launch failure"),
        ("cpu", "out of memory", "^out of memory"),
    ],
)
def test_no_memory_for_one_more_process(job, monkeypatch, device, said, raised):
    def full(*arguments):
        raise RuntimeError(said)

    monkeypatch.setattr(chunk_renderer, "LineRenderer", full)
    with pytest.raises(ConfigError if "Give" in raised else RuntimeError, match=raised):
        ChunkRenderer(replace(job, device=device))


def test_a_download_is_taken_once():
    array = np.arange(5)
    download = transfer.Download(array)
    assert download.take() is array
    with pytest.raises(AssertionError):
        download.take()
    assert transfer.Download(torch.arange(5)).take().tolist() == array.tolist()


@pytest.mark.gpu
def test_a_device_makes_the_files_of_the_cpu(job, tmp_path, monkeypatch):
    texts = TEXTS * 140  # no more than a chunk: what lies beyond has a shard of its own
    cases = [
        (with_recipe(job, name), texts, lines, most) for name in RECIPES[:2] for lines, most in ((512, 0), (37, 20))
    ]
    results = on_device(cases, "cuda", tmp_path, monkeypatch)
    assert_like_the_cpu(cases, results)


@pytest.mark.gpu
def test_pinned_copies_come_back_whole():
    device = torch.device("cuda")
    downloads = []
    for n in range(50):
        array = np.full(100_003 * (n % 5 + 1), n, np.uint8)
        sent = transfer.upload(array, device)
        array[:] = 255  # the copy was pinned apart
        downloads.append(transfer.Download(sent + 1))
        if len(downloads) > 2:
            assert (downloads.pop(0).take() == n - 1).all()
    assert transfer.pinned(array, device).is_pinned()


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", RECIPES[:2])
def test_a_run_on_a_device_is_the_run_on_the_cpu(corpora, tmp_path, recipe):
    hashes = []
    for device, workers in (("cpu", 2), ("cuda", 3)):
        settings = ("--device", device, "--workers", str(workers), "--recipe", recipe)
        run(corpora.processed, tmp_path / device, "--max-lines", "2500", "--splits", "train", *settings)
        hashes.append(tree_hash(tmp_path / device / "out"))
    assert hashes[0] == hashes[1]

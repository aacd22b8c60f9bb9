"""Recipes applied: ragged lines in, ragged lines and their records out, the same whatever runs beside or before."""

import hashlib
import json
import os
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from khmer_ocr_kernels.ragged import RaggedLines

from khmer_ocr import rng
from khmer_ocr.augment import fused
from khmer_ocr.augment.augmenter import Augmenter
from khmer_ocr.augment.recipe import MIXED, STRENGTHS, load_recipe, parse_recipe
from khmer_ocr.augment.torch_batches import augment_lines
from khmer_ocr.errors import ConfigError
from tests import REPOSITORY
from tests.augment.sample_lines import batch

WIDTHS = [90, 1, 40, 133, 7, 133, 64]
SEED = 11


def drawn(widths=WIDTHS, height=32, seed=0):
    """uint8 images of lines."""
    lines = batch(widths, height, seed)
    grey_BHW = (255 - lines.ink_B1HW[:, 0].numpy() * 255).round().astype(np.uint8)
    return [grey_HW[:, :width] for grey_HW, width in zip(grey_BHW, widths, strict=True)]


def augmented(augmenter, images, numbers, split="train", stroke_px=1.4):
    """Images after the recipe, and their records; the layout of what comes out is looked at."""
    lines = RaggedLines.of_images(images) if images else RaggedLines(np.zeros(0, np.uint8), np.zeros(0, np.int32), 32)
    before_N = lines.pixels_N.copy()
    stroke_px_B = np.full(len(images), stroke_px) if isinstance(stroke_px, float) else np.array(stroke_px)
    augmented, records = augmenter.augment(lines, split, np.array(numbers, np.uint64), stroke_px_B)
    assert np.array_equal(lines.pixels_N, before_N) and augmented.height_px == lines.height_px
    assert len(records) == len(augmented) == len(images)
    return [augmented.image(n) for n in range(len(augmented))], records


def equal(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


IMAGES = drawn()
NUMBERS = [0, 5, 2**40, 3, 9, 4, 6]


def augmenter(name, strength="medium", seed=SEED):
    return Augmenter(load_recipe(name, strength), seed)


@settings(max_examples=25)
@given(st.permutations(range(len(WIDTHS))), st.integers(1, len(WIDTHS)))
def test_of_fused_kernels_a_line_is_the_same_alone_in_any_batch_and_order(order, count):
    order = order[:count]
    lines, records = augmented(augmenter("basic"), [IMAGES[n] for n in order], [NUMBERS[n] for n in order])
    for at, n in enumerate(order):
        alone, record = augmented(augmenter("basic"), [IMAGES[n]], [NUMBERS[n]])
        assert np.array_equal(lines[at], alone[0]) and records[at] == record[0]
        assert lines[at].shape == IMAGES[n].shape


@pytest.mark.parametrize("strength", [*STRENGTHS, MIXED])
@pytest.mark.parametrize("name", ["basic", "scan"])
def test_calls_with_equal_arguments_give_equal_bytes_whatever_came_before(name, strength):
    first = augmenter(name, strength)
    expected, records = augmented(first, IMAGES, NUMBERS)
    augmented(first, IMAGES[:3], [77, 78, 79], split="val")
    torch.manual_seed(1)
    random.seed(1)
    again, records_again = augmented(first, IMAGES, NUMBERS)
    assert equal(again, expected) and records_again == records
    other, _ = augmented(augmenter(name, strength), IMAGES, NUMBERS)
    assert equal(other, expected)
    assert not equal(expected, IMAGES)


@pytest.mark.parametrize("name", ["basic", "scan"])
def test_seed_split_and_number_decide(name):
    results = [
        augmented(augmenter(name), IMAGES, NUMBERS),
        augmented(augmenter(name, seed=SEED + 1), IMAGES, NUMBERS),
        augmented(augmenter(name), IMAGES, NUMBERS, split="val"),
        augmented(augmenter(name), IMAGES, [n + 1 for n in NUMBERS]),
    ]
    assert len({json.dumps(records) for _, records in results}) == 4


@pytest.mark.parametrize("name", ["basic", "scan"])
def test_no_state_that_others_see_is_touched(name):
    threads, state, python, legacy = (
        torch.get_num_threads(),
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state(),
    )
    augmented(augmenter(name), IMAGES, NUMBERS)
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), legacy, strict=True))
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def _digest(lines):
    return hashlib.sha256(b"".join(f"{line.shape}".encode() + line.tobytes() for line in lines)).hexdigest()


def test_a_fresh_process_of_two_threads_gives_the_same_bytes():
    """Of recipes of kornia ops too, whatever its generators are at."""
    code = """
import torch
from tests.augment import test_augmenter
torch.set_num_threads(2)
torch.manual_seed(277)
for name in ("scan", "basic"):
    augmenter = test_augmenter.augmenter(name, "heavy")
    print(test_augmenter._digest(test_augmenter.augmented(augmenter, test_augmenter.IMAGES, test_augmenter.NUMBERS)[0]))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = [_digest(augmented(augmenter(name, "heavy"), IMAGES, NUMBERS)[0]) for name in ("scan", "basic")]
    assert done.stdout.split() == expected


def replayed(recipe, records, numbers):
    """What `records` say happened, as decisions of the recipe."""
    augment_plan = recipe.draw(rng.key(SEED, "train", "augment"), np.array(numbers, np.uint64))
    active_SB = np.array([[step.op in record for record in records] for step in recipe.steps])
    nothing = {step.op: dict.fromkeys(step.ranges, np.nan) for step in recipe.steps}
    values_S = tuple(
        {name: np.array([record.get(step.op, nothing[step.op])[name] for record in records]) for name in step.ranges}
        for step in recipe.steps
    )
    return replace(augment_plan, active_SB=active_SB, values_S=values_S)


def test_records_are_what_was_done_by_fused_kernels():
    numbers = list(range(40))
    images = [IMAGES[n % len(IMAGES)] for n in numbers]
    lines, records = augmented(augmenter("basic"), images, numbers, stroke_px=np.linspace(0.5, 4, 40).tolist())
    assert {op for record in records for op in record} == {"morphology", "blur", "noise"} and {} in records
    augment_plan = replayed(load_recipe("basic"), json.loads(json.dumps(records)), numbers)
    amounts = [np.nan_to_num(next(iter(values.values()))) for values in augment_plan.values_S]
    again = fused.augment(RaggedLines.of_images(images), *amounts, augment_plan.key_B2)
    assert np.array_equal(again.pixels_N, RaggedLines.of_images(lines).pixels_N)


@pytest.mark.parametrize("strength", ["heavy", MIXED])
def test_records_are_what_was_done_by_kornia_ops(strength):
    lines, records = augmented(augmenter("scan", strength), IMAGES, NUMBERS, stroke_px=[0.6, 0.9, 1.2, 1.5, 2, 3, 5])
    recipe = load_recipe("scan", strength)
    augment_plan = replayed(recipe, json.loads(json.dumps(records)), NUMBERS)
    again = augment_lines(RaggedLines.of_images(IMAGES), recipe, augment_plan)
    assert again.width_B.tolist() == [line.shape[1] for line in lines]
    assert np.array_equal(again.pixels_N, RaggedLines.of_images(lines).pixels_N)


def certain(engine, **ops):
    """A recipe of ops that always happen, with the values given."""
    steps = [
        {"op": op, "probability": 1, **{name: [value, value] for name, value in values.items()}}
        for op, values in ops.items()
    ]
    return Augmenter(parse_recipe({"name": "certain", "engine": engine, "steps": steps}, "medium", "test"), SEED)


@pytest.mark.parametrize("engine", ["fused", "kornia"])
@pytest.mark.parametrize("stroke_px", [0.5, 1.0, 1.4, 2.0, 3.0, 6.0])
def test_strokes_survive_what_thins_and_blurs_them(engine, stroke_px):
    """An upright stroke as thick as is said, drawn with soft edges."""
    coverage_W = np.clip(np.minimum(np.arange(1, 33) - (16 - stroke_px / 2), 16 + stroke_px / 2 - np.arange(32)), 0, 1)
    image = np.round(255 - 255 * np.tile(coverage_W, (32, 1))).astype(np.uint8)
    thinned = certain(engine, morphology={"weight": -1})
    (line,), (record,) = augmented(thinned, [image], [0], stroke_px=stroke_px)
    assert -1 <= record["morphology"]["weight"] < 0
    middle = 16
    assert 255 - line[middle, middle] >= 0.35 * (255 - image[middle, middle])
    (line,), (record,) = augmented(certain(engine, blur={"sigma_px": 1.5}), [image], [0], stroke_px=stroke_px)
    assert 0 < record["blur"]["sigma_px"] <= 1.5
    assert 255 - line[middle].min() >= 0.25 * (255 - image[middle].min())
    (_,), (spread,) = augmented(certain(engine, morphology={"weight": 1}), [image], [0], stroke_px=stroke_px)
    assert 0 < spread["morphology"]["weight"] <= 1


@pytest.mark.parametrize("name", ["basic", "scan"])
def test_no_lines(name):
    assert augmented(augmenter(name), [], []) == ([], [])


def test_lines_of_other_heights():
    for height in (24, 96):
        for name in ("basic", "scan"):
            lines, _ = augmented(augmenter(name, "heavy"), drawn([50, 81], height), [1, 2])
            assert [line.shape[0] for line in lines] == [height, height]


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.augment.augmenter import Augmenter
from khmer_ocr.errors import ConfigError
from khmer_ocr_kernels.ragged import RaggedLines
image = np.full(32 * 20, 255, np.uint8); image[200:300] = 0
basic = Augmenter(load_recipe("basic"), 1)
lines, number_B = RaggedLines(np.tile(image, 4), np.full(4, 20, np.int32), 32), np.arange(4, dtype=np.uint64)
augmented, _ = basic.augment(lines, "train", number_B, np.full(4, 1.4))
assert (augmented.pixels_N != lines.pixels_N).any()
try:
    Augmenter(load_recipe("scan"), 1)
except ConfigError as error:
    print(error)
assert not any(name.startswith(("torch.", "kornia", "triton")) for name in sys.modules)
"""


def test_without_torch_basic_works_and_scan_says_what_to_install():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("The recipe scan needs torch, which is not installed.")
    assert "pip install '.[torch]'" in done.stdout and "The recipe basic does without" in done.stdout


def test_parameters_out_of_range_are_refused_before_a_pixel():
    with pytest.raises(ConfigError, match="sigma_px is 6; expected a number from 0 to 5"):
        certain("fused", blur={"sigma_px": 6})

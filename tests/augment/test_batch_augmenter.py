"""Recipes on training batches: the same bytes as in the generator, and a pure function of seed, epoch and batch."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from khmer_ocr_kernels.ragged import RaggedLines

from khmer_ocr import rng
from khmer_ocr.augment.augmenter import Augmenter
from khmer_ocr.augment.batch_augmenter import STROKE_PX, BatchAugmenter
from khmer_ocr.augment.recipe import MIXED, load_recipe, parse_recipe
from khmer_ocr.errors import ConfigError
from khmer_ocr.load.collate import collate_lines
from tests.augment.sample_lines import batch

WIDTHS = [120, 1, 77, 200, 33, 121]
RECIPES = {name: load_recipe(name, MIXED) for name in ("basic", "scan")}


def images(widths=WIDTHS, height=32):
    """uint8 lines padded with background."""
    ink_B1HW = batch(widths, height).ink_B1HW
    return (255 - ink_B1HW * 255).round().to(torch.uint8), torch.tensor(widths)


PLAIN, PLAIN_WIDTHS = images()


def augmented(name, epoch=0, seed=42, **changes):
    """The plain batch, or one that differs from it, after a recipe."""
    batch_of_it = {"images_B1HW": PLAIN, "width_B": PLAIN_WIDTHS, "index_B": range(len(WIDTHS)), "epoch": epoch}
    return BatchAugmenter(RECIPES[name], seed)(**{**batch_of_it, **changes})


def digest(images_B1HW, width_B):
    return hashlib.sha256(images_B1HW.numpy().tobytes() + width_B.numpy().tobytes()).hexdigest()


def ragged(images_B1HW, width_B):
    lines = [image[0, :, :width].reshape(-1) for image, width in zip(images_B1HW, width_B.tolist(), strict=True)]
    return torch.cat(lines).numpy()


def same(one, other):
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_bytes_as_the_generator_for_the_same_key(name, monkeypatch):
    """What differs is the stage in the key, so that an epoch is not what the data set was augmented with already."""
    stages = []

    def one_key(seed, split, stage):
        stages.append((seed, split, stage))
        return np.array([7, 9], np.uint32)

    monkeypatch.setattr(rng, "key", one_key)
    stroke_px_B = np.linspace(0.8, 3, len(WIDTHS))
    stored = np.array(WIDTHS, np.int32)
    number_B = np.arange(len(WIDTHS), dtype=np.uint64)
    lines = RaggedLines(ragged(PLAIN, PLAIN_WIDTHS), stored, 32)
    expected, _ = Augmenter(RECIPES[name], 42).augment(lines, "train", number_B, stroke_px_B)
    result_B1HW, result_width_B = augmented(name, epoch=3, stroke_px_B=stroke_px_B)
    assert stages == [(42, "train", "augment"), (42, "train", "augment/epoch 3")]
    assert result_width_B.tolist() == expected.width_B.tolist()
    assert np.array_equal(ragged(result_B1HW, result_width_B), expected.pixels_N)


@pytest.mark.parametrize("name", RECIPES)
def test_padding_is_background_and_as_wide_as_the_widest(name):
    for epoch in range(4):
        result_B1HW, width_B = augmented(name, epoch)
        assert result_B1HW.dtype == torch.uint8 and width_B.dtype == torch.int64
        assert result_B1HW.shape == (len(WIDTHS), 1, 32, int(width_B.max()))
        for image, width in zip(result_B1HW, width_B.tolist(), strict=True):
            assert (image[..., width:] == 255).all()
    if name == "basic":
        assert width_B.tolist() == WIDTHS


@pytest.mark.parametrize("name", RECIPES)
def test_floats_are_the_same_levels_to_the_last_bit(name):
    bytes_B1HW, width_B = augmented(name)
    floats_B1HW, float_width_B = augmented(name, images_B1HW=PLAIN.float() / 255)
    assert floats_B1HW.dtype == torch.float32 and torch.equal(width_B, float_width_B)
    assert np.array_equal(floats_B1HW.numpy(), bytes_B1HW.numpy() / np.float32(255))


@pytest.mark.parametrize("name", RECIPES)
def test_what_lies_beyond_a_line_does_not_matter(name):
    wider_B1HW = torch.full((len(WIDTHS), 1, 32, 260), 100, dtype=torch.uint8)
    for image, wider, width in zip(PLAIN, wider_B1HW, WIDTHS, strict=True):
        wider[..., :width] = image[..., :width]
    before_B1HW = wider_B1HW.clone()
    assert same(augmented(name, images_B1HW=wider_B1HW), augmented(name))
    assert torch.equal(wider_B1HW, before_B1HW) and torch.equal(PLAIN_WIDTHS, torch.tensor(WIDTHS))


@given(st.permutations(range(len(WIDTHS))), st.integers(1, len(WIDTHS)))
def test_a_line_of_fused_kernels_does_not_depend_on_its_batch(order, count):
    order = order[:count]
    whole_B1HW, _ = augmented("basic")
    part_B1HW, part_width_B = augmented("basic", images_B1HW=PLAIN[order], width_B=PLAIN_WIDTHS[order], index_B=order)
    for at, line in enumerate(order):
        width = WIDTHS[line]
        assert part_width_B[at] == width
        assert torch.equal(part_B1HW[at, :, :, :width], whole_B1HW[line, :, :, :width])


@pytest.mark.parametrize("name", RECIPES)
def test_epoch_seed_and_number_decide(name):
    assert same(augmented(name, epoch=2), augmented(name, epoch=2))
    distinct = [
        augmented(name),
        augmented(name, epoch=1),
        augmented(name, seed=43),
        augmented(name, index_B=torch.arange(10, 16)),
    ]
    assert len({(images_B1HW.numpy().tobytes(), tuple(width_B.tolist())) for images_B1HW, width_B in distinct}) == 4


def test_calls_before_change_nothing():
    augmenter = BatchAugmenter(RECIPES["scan"])
    for epoch in (5, 1, 0):
        last = augmenter(PLAIN, PLAIN_WIDTHS, range(len(WIDTHS)), epoch)
    assert same(last, augmented("scan"))


SETTINGS = {
    "as it is": "pass",
    "precision": "torch.set_float32_matmul_precision('medium')",
    "precision of matmul": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "precision of all": "torch.backends.fp32_precision = 'tf32'",
    "no tf32": "torch.backends.cudnn.allow_tf32 = False",
    "benchmark": "torch.backends.cudnn.benchmark = True",
}
SEEN = """
def seen():
    b, values = torch.backends, [torch.get_num_threads(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")]
    for place in (b, b.cudnn, b.cudnn.conv, b.cudnn.rnn, b.cuda.matmul, b.mkldnn.conv, b.mkldnn.matmul):
        values.append(place.fp32_precision)
    for ask in (torch.get_float32_matmul_precision, lambda: b.cudnn.allow_tf32, lambda: b.cuda.matmul.allow_tf32):
        try:
            values.append(ask())
        except RuntimeError:
            values.append("refused")
    return [*values, b.cudnn.deterministic, b.cudnn.benchmark, torch.get_rng_state().tolist()]
"""


def in_process(code, **environment):
    """Run code that knows this file, in a process of its own, for settings that nobody can take back."""
    environment = {**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path), **environment}
    code = f"import torch\nfrom tests.augment import test_batch_augmenter as this\n{code}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_what_a_training_loop_sets_is_neither_used_nor_lost():
    """All in one process, one setting after the other, each on top of those before."""
    code = f"""{SEEN}
torch.set_num_threads(2)
with torch.autocast("cpu", torch.bfloat16):
    for name in this.RECIPES:
        for setting in {list(SETTINGS.values())!r}:
            exec(setting)
            before = seen()
            result = this.augmented(name)
            assert seen() == before, (setting, before[:-1], seen()[:-1])
            print(this.digest(*result))
"""
    expected = [digest(*augmented(name)) for name in RECIPES for _ in SETTINGS]
    assert in_process(code).split() == expected


@pytest.mark.parametrize("name", RECIPES)
def test_a_model_can_learn_from_what_comes_out(name):
    result_B1HW, _ = augmented(name, images_B1HW=PLAIN.float() / 255)
    layer = torch.nn.Conv2d(1, 2, 3)
    layer(result_B1HW).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


def test_a_batch_of_the_loader_fits():
    samples = [
        {"image": image[..., :width].float() / 255, "targets": torch.tensor([1]), "text": "", "filename": ""}
        for image, width in zip(PLAIN, WIDTHS, strict=True)
    ]
    loaded = collate_lines(samples)
    result = BatchAugmenter(RECIPES["scan"])(loaded["images"], loaded["image_lengths"], range(len(WIDTHS)), 0)
    assert same(result, augmented("scan", images_B1HW=PLAIN.float() / 255))


SPREAD = parse_recipe(
    {"name": "spread", "engine": "fused", "steps": [{"op": "morphology", "probability": 1, "weight": [1, 1]}]},
    "medium",
    "test",
)


@pytest.mark.parametrize("height", [24, 32, 96])
def test_stems_of_unknown_faces_grow_with_the_height(height):
    images_B1HW, width_B = images([90, 60], height)
    augmenter = BatchAugmenter(SPREAD)

    def darkness(stroke_px_B):
        return int((255 - augmenter(images_B1HW, width_B, [0, 1], 0, stroke_px_B)[0].long()).sum())

    assert darkness(None) == darkness(np.full(2, STROKE_PX * height / 32))
    assert darkness(np.full(2, 0.4)) < darkness(np.full(2, 0.8)) < darkness(np.full(2, 1.2))


def test_empty_batches_pass():
    empty = (torch.empty(0, 1, 32, 0), torch.empty(0, dtype=torch.int64))
    result_B1HW, width_B = BatchAugmenter(RECIPES["scan"])(*empty, [], 0)
    assert result_B1HW.shape == (0, 1, 32, 0) and width_B.shape == (0,)


REFUSED = {
    "three channels": (
        {"images_B1HW": PLAIN.expand(-1, 3, -1, -1)},
        r"uint8 \(6, 3, 32, 200\); expected .* lines are grey",
    ),
    "half precision": ({"images_B1HW": PLAIN.half()}, "images are torch.float16"),
    "no channel": ({"images_B1HW": PLAIN[:, 0]}, r"expected uint8 or float32 of shape \(B, 1, H, W\)"),
    "normalised": (
        {"images_B1HW": PLAIN.float() / 127.5 - 1},
        "values from -1 to 1; expected 0 .* before they are norm",
    ),
    "0 to 255": ({"images_B1HW": PLAIN.float()}, "values from 0 to 255; expected 0"),
    "not numbers": ({"images_B1HW": PLAIN.float() * float("nan")}, "values from nan to nan; expected 0"),
    "too few widths": (
        {"width_B": PLAIN_WIDTHS[:5]},
        r"width_B is int64 \(5,\); expected a whole number for each of 6",
    ),
    "shares of widths": ({"width_B": PLAIN_WIDTHS / 200}, r"width_B is float32 \(6,\)"),
    "widths beyond": ({"width_B": PLAIN_WIDTHS + 1}, "widths run from 2 to 201 px; expected 1 to 200"),
    "no width": ({"width_B": PLAIN_WIDTHS * 0}, "widths run from 0 to 0 px"),
    "too few numbers": ({"index_B": [0, 1]}, r"index_B is int64 \(2,\)"),
    "negative numbers": ({"index_B": range(-1, 5)}, "the lowest index -1; expected 0 or more"),
    "negative epoch": ({"epoch": -1}, "epoch is -1"),
    "too few stems": ({"stroke_px_B": np.ones(2)}, r"stroke_px_B has shape \(2,\); expected a thickness for each of 6"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", RECIPES)
def test_batches_that_are_none_are_refused(name, case):
    changes, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        augmented(name, **changes)


def test_the_way_of_tensors_through_triton_gives_the_bytes_of_numba():
    """In Triton's interpreter, as there is no GPU: tensors are said to be on one."""
    code = """
from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.augment.batch_augmenter import BatchAugmenter
images_B1HW, width_B = this.images([40, 1, 17, 33], 24)
call = lambda pixels: BatchAugmenter(load_recipe("basic"))(pixels, width_B, range(4), 0)[0]
whole, floats = call(images_B1HW), call(images_B1HW.float() / 255)
assert (whole != images_B1HW).any()
torch.Tensor.is_cuda = property(lambda tensor: True)
assert torch.equal(call(images_B1HW), whole) and torch.equal(call(images_B1HW.float() / 255), floats)
print("equal")
"""
    assert in_process(code, TRITON_INTERPRET="1") == "equal\n"


@pytest.mark.gpu
@pytest.mark.parametrize("name", RECIPES)
def test_on_a_gpu(name):
    for pixels in (PLAIN, PLAIN.float() / 255):
        host, host_width_B = augmented(name, images_B1HW=pixels)
        results = [augmented(name, images_B1HW=pixels.cuda(), width_B=PLAIN_WIDTHS.cuda()) for _ in range(2)]
        assert same(*results)
        on_gpu, gpu_width_B = results[0]
        assert on_gpu.is_cuda and gpu_width_B.is_cuda and on_gpu.dtype == pixels.dtype
        assert torch.equal(gpu_width_B.cpu(), host_width_B)
        if name == "basic":
            assert torch.equal(on_gpu.cpu(), host)
        moved, _ = BatchAugmenter(RECIPES[name], device="cuda")(pixels, PLAIN_WIDTHS, range(len(WIDTHS)), 0)
        assert moved.is_cuda and torch.equal(moved, on_gpu)

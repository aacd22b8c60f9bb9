"""What holds for every op: clean edges, whole ranges, no leaks between padding and line, the same bytes again."""

import pytest
import torch

from khmer_ocr.augment.determinism import exactly
from khmer_ocr.augment.limits import ABOUT, DRAWN, LIMITS
from khmer_ocr.augment.torch_ops.apply import OPS, PaddedLines, apply
from khmer_ocr.errors import ConfigError
from tests.augment.sample_lines import alone, batch, drawn_values, keys

ALONE = [op for op in OPS if op not in ("neighbour_lines", "bleed_through")]
WIDTHS = [61, 200, 118, 9, 1, 64]


def assert_clear(lines: PaddedLines) -> None:
    for ink, width in zip(lines.ink_B1HW, lines.width_B.tolist(), strict=True):
        assert width <= ink.shape[2]
        assert not ink[..., width:].any()


def test_names_agree() -> None:
    assert list(OPS) == [op for op in LIMITS if op not in DRAWN] and list(LIMITS) == list(ABOUT)
    assert all(low < high for ranges in LIMITS.values() for low, high in ranges.values())


@pytest.mark.parametrize("height", [24, 32, 77])
@pytest.mark.parametrize("op", OPS)
def test_every_op_keeps_the_contract(op: str, height: int) -> None:
    lines, values, key = batch(WIDTHS, height), drawn_values(op, len(WIDTHS)), keys(len(WIDTHS))
    before = lines.ink_B1HW.clone()
    augmented = apply(op, lines, values, key)
    assert torch.equal(lines.ink_B1HW, before), "the op wrote into its input"
    assert augmented.ink_B1HW.dtype == torch.float32
    assert augmented.width_B.dtype == torch.int64
    assert augmented.ink_B1HW.shape[:3] == (len(WIDTHS), 1, height)
    assert ((augmented.ink_B1HW >= 0) & (augmented.ink_B1HW <= 1)).all(), "also false for NaN"
    assert not torch.equal(augmented.ink_B1HW, before), "the op did nothing"
    assert_clear(augmented)
    assert op == "geometry" or torch.equal(augmented.width_B, lines.width_B)
    again = apply(op, lines, values, key)
    assert torch.equal(again.ink_B1HW, augmented.ink_B1HW)
    assert torch.equal(again.width_B, augmented.width_B)


@pytest.mark.parametrize("op", ALONE)
def test_a_line_comes_out_the_same_alone_and_in_a_wider_batch(op: str) -> None:
    lines, key = batch(WIDTHS), keys(len(WIDTHS))
    # Ops that leave tone in the paper see it in their input too, as they do in a recipe.
    if list(LIMITS).index(op) > list(LIMITS).index("contrast"):
        lines = apply("contrast", lines, drawn_values("contrast", len(WIDTHS), 3), key)
    values = drawn_values(op, len(WIDTHS), 1)
    together = apply(op, lines, values, key)
    for line in range(len(WIDTHS)):
        one = slice(line, line + 1)
        single = apply(op, alone(lines, line), {name: value[one] for name, value in values.items()}, key[one])
        width = int(single.width_B)
        assert width == int(together.width_B[line])
        # float32 sums in another order differ by some 1e-6; a tenth of a grey level would be 4e-4.
        torch.testing.assert_close(single.ink_B1HW, together.ink_B1HW[one, ..., :width], rtol=0, atol=1e-4)


@pytest.mark.parametrize("op", OPS)
def test_what_lies_in_the_padding_is_never_looked_at(op: str) -> None:
    """A batch twice as wide as needed gives the same lines."""
    lines, values, key = batch(WIDTHS), drawn_values(op, len(WIDTHS), 2), keys(len(WIDTHS), 1)
    wide = PaddedLines(torch.nn.functional.pad(lines.ink_B1HW, (0, 200)), lines.width_B)
    narrow_worn, wide_worn = apply(op, lines, values, key), apply(op, wide, values, key)
    assert torch.equal(narrow_worn.width_B, wide_worn.width_B)
    columns = int(narrow_worn.width_B.max())
    torch.testing.assert_close(
        wide_worn.ink_B1HW[..., :columns], narrow_worn.ink_B1HW[..., :columns], rtol=0, atol=1e-4
    )
    assert_clear(wide_worn)


@pytest.mark.parametrize("op", OPS)
def test_other_keys_change_only_ops_that_draw(op: str) -> None:
    lines, values = batch([90, 150, 40, 77]), drawn_values(op, 4, 5)
    first, second = (apply(op, lines, values, keys(4, seed)).ink_B1HW for seed in (1, 2))
    without_chance = {"underline", "morphology", "neighbour_lines", "contrast", "threshold", "jpeg"}
    without_chance |= {"blur", "defocus", "motion_blur", "resolution_loss"}
    assert torch.equal(first, second) == (op in without_chance)


@pytest.mark.parametrize("op", OPS)
def test_nothing_to_wear(op: str) -> None:
    empty = PaddedLines(torch.zeros(0, 1, 32, 0), torch.zeros(0, dtype=torch.int64))
    assert apply(op, empty, drawn_values(op, 0), keys(0)).ink_B1HW.shape == (0, 1, 32, 0)
    blank = PaddedLines(torch.zeros(2, 1, 32, 40), torch.tensor([40, 0]))
    augmented = apply(op, blank, drawn_values(op, 2), keys(2))
    assert torch.isfinite(augmented.ink_B1HW).all()
    assert_clear(augmented)


def test_unknown_names_are_errors() -> None:
    lines, key = batch([30]), keys(1)
    with pytest.raises(ConfigError, match=r"no op 'swirl'; expected one of underline, "):
        apply("swirl", lines, {}, key)
    with pytest.raises(ConfigError, match=r"blur got parameters \[\]; expected exactly \['sigma_px'\]"):
        apply("blur", lines, {}, key)
    with pytest.raises(ConfigError, match="speckle got parameters"):
        apply("speckle", lines, {**drawn_values("speckle", 1), "colour": torch.ones(1)}, key)


@pytest.mark.gpu
@pytest.mark.parametrize("op", OPS)
def test_a_gpu_gives_nearly_the_same(op: str) -> None:
    lines, values, key = batch(WIDTHS), drawn_values(op, len(WIDTHS)), keys(len(WIDTHS))
    there = PaddedLines(lines.ink_B1HW.cuda(), lines.width_B.cuda())
    with exactly(torch.device("cuda")):  # as recipes do: in TF32, 10 bits of mantissa, a steep threshold would tell
        here = apply(op, lines, values, key)
        there = apply(op, there, {name: value.cuda() for name, value in values.items()}, key.cuda())
    assert torch.equal(there.width_B.cpu(), here.width_B)
    torch.testing.assert_close(there.ink_B1HW.cpu(), here.ink_B1HW, rtol=0, atol=1 / 255)

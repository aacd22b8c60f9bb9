import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from khmer_ocr.augment.torch_ops.geometry import geometry
from khmer_ocr.augment.torch_ops.padded_lines import PaddedLines, ink_box
from tests.augment.sample_lines import batch, drawn_values, keys, values

AT_REST = {
    "rotation_deg": 0,
    "shear": 0,
    "perspective_x": 0,
    "perspective_y": 0,
    "wave_px": 0,
    "stretch": 1,
    "scale": 1,
    "left_px": 0,
    "right_px": 0,
    "place": 0,
}


def moved(lines: PaddedLines, **changes: float) -> PaddedLines:
    one = values(**{**AT_REST, **changes})
    return geometry(lines, {name: value.expand(len(lines.width_B)) for name, value in one.items()}, keys(1))


def test_whole_pixels_move_without_loss() -> None:
    lines = batch([200])
    top, bottom, left, right = (int(edge) for edge in ink_box(lines))
    # 31 rows between half a row of paper; the ink goes to row 4, column 7.
    augmented = moved(lines, left_px=7, right_px=5, place=3.5 / (31 - (bottom - top)))
    assert int(augmented.width_B) == right - left + 12
    expected = torch.zeros_like(augmented.ink_B1HW)
    expected[..., 4 : 4 + bottom - top, 7 : 7 + right - left] = lines.ink_B1HW[..., top:bottom, left:right]
    torch.testing.assert_close(augmented.ink_B1HW, expected, rtol=0, atol=1e-4)


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from([24, 32, 48]), st.integers(40, 900))
def test_no_ink_is_cut(seed: int, height: int, width: int) -> None:
    """Corners are what is cut first: of a block's ink they hold the same share before and after, but for keystone."""
    top, bottom, left, right = height // 4, height - height // 8, 3, width - 6
    block = torch.zeros(1, 1, height, width)
    block[..., top:bottom, left:right] = 1
    corners = block.clone()
    corners[..., top + 4 : bottom - 4, :] = 0
    corners[..., left + 4 : right - 4] = 0
    drawn = {name: value[2:] for name, value in drawn_values("geometry", 3, seed).items()}
    drawn["left_px"], drawn["right_px"] = drawn["left_px"] + 1, drawn["right_px"] + 1  # room for soft edges
    drawn["wave_px"] = torch.zeros(1)  # a wave leaves room that corners need not use
    both = PaddedLines(torch.cat([block, corners]), torch.tensor([width, width]))
    augmented = geometry(both, {name: value.expand(2) for name, value in drawn.items()}, keys(2))
    assert augmented.width_B[0] == augmented.width_B[1]
    before, after = (ink[1].sum() / ink[0].sum() for ink in (both.ink_B1HW, augmented.ink_B1HW))
    assert float(after / before) == pytest.approx(1, abs=0.25)


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(120, 900))
def test_solid_ink_keeps_its_area(seed: int, width: int) -> None:
    """Turning and slanting keep areas; stretch and scale multiply them, less where height is short."""
    ink = torch.zeros(1, 1, 32, width)
    ink[..., 12:20, 4 : width - 4] = 1
    lines = PaddedLines(ink, torch.tensor([width]))
    drawn = {name: value[2:] for name, value in drawn_values("geometry", 3, seed).items()}
    for name in ("perspective_x", "perspective_y", "wave_px"):
        drawn[name] = torch.zeros(1)
    drawn["left_px"], drawn["right_px"] = drawn["left_px"] + 1, drawn["right_px"] + 1  # room for soft edges
    augmented = geometry(lines, drawn, keys(1))
    top, bottom, _, _ = ink_box(augmented)
    expected = float(ink.sum()) * float(drawn["stretch"]) * float(drawn["scale"]) ** 2
    held_back = int(bottom) - int(top) >= 30
    share = float(augmented.ink_B1HW.sum()) / expected
    assert share == pytest.approx(1, rel=0.08) or (held_back and 0.2 < share < 1)


def test_turning_raises_one_end() -> None:
    ink = torch.zeros(2, 1, 32, 300)
    ink[:, :, 14:18, 10:290] = 1
    lines = PaddedLines(ink, torch.tensor([300, 300]))
    drawn = {name: value.expand(2).clone() for name, value in values(**AT_REST).items()}
    drawn["rotation_deg"] = torch.tensor([1.0, -1.0])
    augmented = geometry(lines, drawn, keys(2)).ink_B1HW[:, 0]
    rows = torch.arange(32.0)[:, None]
    for line, sign in ((0, 1), (1, -1)):
        ends = [(augmented[line, :, x] * rows[:, 0]).sum() / augmented[line, :, x].sum() for x in (20, 260)]
        assert float(ends[1] - ends[0]) == pytest.approx(sign * 240 * 0.01746, abs=0.2)


def test_a_long_turned_line_is_made_smaller_but_not_too_small() -> None:
    lines = batch([2000])
    augmented = moved(lines, rotation_deg=2, left_px=4, right_px=4)
    top, bottom, _, _ = ink_box(augmented)
    assert int(top) >= 0
    assert int(bottom) <= 32
    assert 0.65 < int(augmented.width_B) / 2000 < 0.99


def test_waves_bend_the_line() -> None:
    ink = torch.zeros(1, 1, 32, 600)
    ink[..., 14:18, 4:596] = 1
    lines = PaddedLines(ink, torch.tensor([600]))
    straight, waved = moved(lines, place=0.5), moved(lines, wave_px=3, place=0.5)
    rows = torch.arange(32.0)[:, None]

    def waviness(augmented: PaddedLines) -> float:
        body = augmented.ink_B1HW[0, 0, :, 10:580]
        return float(((body * rows).sum(0) / body.sum(0)).std())

    assert waviness(straight) < 0.05
    assert 0.5 < waviness(waved) < 3

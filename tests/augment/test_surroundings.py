"""Other print must be seen, and must not touch what the label says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from khmer_ocr.augment.torch_ops.apply import PaddedLines, apply
from khmer_ocr.augment.torch_ops.padded_lines import ink_box
from tests.augment.sample_lines import batch, drawn_values, keys, values

WIDTHS = [120, 60, 200, 33]


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from(["underline", "table_rules", "neighbour_lines"]))
def test_the_ink_itself_is_left_alone(seed: int, op: str) -> None:
    lines = batch(WIDTHS, seed=seed)
    augmented = apply(op, lines, drawn_values(op, 4, seed), keys(4, seed))
    for n, (top, bottom, left, right) in enumerate(zip(*(e.tolist() for e in ink_box(lines)), strict=True)):
        gap = 1 if op == "neighbour_lines" else 0
        rows, columns = slice(max(top - gap, 0), bottom + gap), slice(left, right)
        assert torch.equal(augmented.ink_B1HW[n, :, rows, columns], lines.ink_B1HW[n, :, rows, columns])
        assert (augmented.ink_B1HW[n] >= lines.ink_B1HW[n]).all()


def test_an_underline_is_where_it_should_be() -> None:
    ink = torch.zeros(2, 1, 32, 80)
    ink[0, 0, 8:22, 10:60] = 1
    ink[1, 0, 8:32, 10:60] = 1
    lines = PaddedLines(ink, torch.tensor([80, 80]))
    drawn = {name: value.expand(2) for name, value in values(gap_px=2, thickness_px=1.5, darkness=0.8).items()}
    augmented = apply("underline", lines, drawn, keys(2)).ink_B1HW
    assert augmented[0, 0, 22:28, 30].tolist() == pytest.approx([0, 0, 0.8, 0.4, 0, 0])
    assert augmented[0, 0, 24, 7:63].tolist() == pytest.approx([0] + [0.8] * 54 + [0])
    assert torch.equal(augmented[1], ink[1]), "there is no room under the ink"


def test_rules_run_from_edge_to_edge() -> None:
    lines = batch([100] * 64)
    drawn = {name: value.expand(64) for name, value in values(thickness_px=1, darkness=1).items()}
    added = apply("table_rules", lines, drawn, keys(64)).ink_B1HW - lines.ink_B1HW
    across, down = added.amin(3).sum((1, 2)), added.amin(2).sum((1, 2))
    for whole in (across, down):
        assert 0.2 < float((whole > 0.4).float().mean()) < 0.95


def test_pieces_of_neighbours_come_from_their_facing_edges() -> None:
    ink = torch.zeros(3, 1, 32, 60)
    ink[:, 0, 12:20, 10:50] = 0.5
    ink[0, 0, 19, 10:50] = 1.0  # the lowest row of line 0 is seen above line 1,
    ink[0, 0, 12, 10:50] = 0.9  # its highest below line 2
    lines = PaddedLines(ink, torch.tensor([60, 60, 60]))
    drawn = {name: value.expand(3) for name, value in values(above_px=3, below_px=2, darkness=1).items()}
    augmented = apply("neighbour_lines", lines, drawn, keys(3)).ink_B1HW
    assert augmented[1, 0, :4, 20].tolist() == pytest.approx([0.5, 0.5, 1, 0])
    assert augmented[2, 0, 29:, 20].tolist() == pytest.approx([0, 0.9, 0.5])


def test_the_back_of_the_sheet_is_faint_and_mirrored() -> None:
    ink = torch.zeros(2, 1, 32, 100)
    ink[0, 0, 4:28, 5:15] = 1
    lines = PaddedLines(ink, torch.tensor([100, 100]))
    drawn = {"darkness": torch.tensor([0.2, 0.2])}
    augmented = apply("bleed_through", lines, drawn, keys(2)).ink_B1HW[1, 0]
    assert 0.15 < float(augmented.max()) < 0.2001
    columns = augmented.sum(0)
    assert float(columns[83:97].sum() / columns.sum()) > 0.99

"""What is minimised, and how fast."""

import math
from itertools import pairwise

import pytest
import torch

from khmer_ocr.text.charset import EOS, PAD, SOS
from khmer_ocr.train.losses import joint_losses, shifted
from khmer_ocr.train.schedule import MovingAverage, learning_rate

VOCABULARY = 9


def scores(lines: int, slots: int, tokens: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ctc = torch.randn(lines, slots, VOCABULARY, generator=generator, dtype=torch.float64)
    return ctc, torch.randn(lines, tokens, VOCABULARY, generator=generator, dtype=torch.float64)


def test_decoder_reads_from_the_start_and_says_the_end() -> None:
    tokens, expected = shifted(torch.tensor([[5, 6, 7], [8, 0, 0], [0, 0, 0]]), torch.tensor([3, 1, 0]))
    assert tokens.tolist() == [[SOS, 5, 6, 7], [SOS, 8, 0, 0], [SOS, 0, 0, 0]]
    assert expected.tolist() == [[5, 6, 7, EOS], [8, EOS, PAD, PAD], [EOS, PAD, PAD, PAD]]


def test_losses_of_a_batch_are_the_sums_of_its_lines() -> None:
    targets, lengths, slots = torch.tensor([[5, 6, 6], [8, 0, 0]]), torch.tensor([3, 1]), torch.tensor([12, 7])
    ctc, decoder = scores(2, 12, 4)
    whole = joint_losses(ctc, slots, decoder, targets, lengths, 0.3, 0.0)
    parts = []
    for at in range(2):
        end, own = int(lengths[at]), int(slots[at])
        parts.append(
            joint_losses(
                ctc[at : at + 1, :own],
                slots[at : at + 1],
                decoder[at : at + 1, : end + 1],
                targets[at : at + 1, :end],
                lengths[at : at + 1],
                0.3,
                0.0,
            )
        )
    for name in ("joint", "ctc", "decoder"):
        assert float(getattr(whole, name)) == pytest.approx(sum(float(getattr(part, name)) for part in parts), rel=1e-5)
    assert float(whole.joint) == pytest.approx(0.3 * float(whole.ctc) + 0.7 * float(whole.decoder), rel=1e-5)


def test_ctc_is_the_sum_over_alignments() -> None:
    """Two slots, one symbol: it stands in the first, in the second, or in both."""
    ctc, decoder = scores(1, 2, 2)
    found = joint_losses(ctc, torch.tensor([2]), decoder, torch.tensor([[5]]), torch.tensor([1]), 1.0, 0.0).ctc
    p = ctc[0].softmax(1)
    expected = p[0, 5] * p[1, 0] + p[0, 0] * p[1, 5] + p[0, 5] * p[1, 5]
    assert float(found) == pytest.approx(-math.log(float(expected)), rel=1e-5)


def test_text_without_room_teaches_ctc_nothing() -> None:
    ctc, decoder = scores(1, 2, 4)
    ctc.requires_grad_()
    found = joint_losses(ctc, torch.tensor([2]), decoder, torch.tensor([[5, 6, 7]]), torch.tensor([3]), 1.0, 0.0)
    found.joint.backward()
    assert float(found.ctc) == 0
    assert float(ctc.grad.abs().max()) == 0  # type: ignore[union-attr]


def test_rate_rises_falls_and_ends() -> None:
    rates = [learning_rate(step, step / 100, 1.0, 10, 0.05) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11, rel=0.01)
    assert max(rates) == max(rates[9:14])
    assert all(a >= b for a, b in pairwise(rates[11:]))
    assert rates[100] == pytest.approx(0.05)
    assert learning_rate(10**6, 7.0, 1.0, 10, 0.05) == pytest.approx(0.05)


def test_moving_average_moves_towards_the_model() -> None:
    model = torch.nn.BatchNorm1d(2)
    average = MovingAverage(model, 0.9)
    assert model.running_mean is not None and model.num_batches_tracked is not None
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(1.0)
        model.num_batches_tracked.fill_(4)
    average.update(10**6)
    assert average.state["weight"].tolist() == pytest.approx([1.2, 1.2])
    assert average.state["running_mean"].tolist() == pytest.approx([0.1, 0.1])
    assert int(average.state["num_batches_tracked"]) == 4
    average.update(0)  # the first steps count for more: 1 - 1 / 10
    assert average.state["weight"].tolist() == pytest.approx([1.2 + 0.9 * 1.8] * 2)
    assert model.weight.tolist() == [3.0, 3.0]

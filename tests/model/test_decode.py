"""From scores to texts: CTC against every alignment, attention bounded, both together."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_reader import SMALL, SMALL_GRU, VOCABULARY, lines, reader

from khmer_ocr.model import both_heads as room
from khmer_ocr.model.both_heads import TextScore, score_texts
from khmer_ocr.model.decode import decode
from khmer_ocr.model.prefix_beam import prefix_beam
from khmer_ocr.text.charset import EOS, SOS

METHODS = ("ctc", "greedy", "beam")


def log_softmax(scores_SV: np.ndarray) -> np.ndarray:
    return torch.tensor(scores_SV, dtype=torch.float32).log_softmax(1).numpy()


def every_text(log_prob_SV: np.ndarray) -> dict[tuple[int, ...], float]:
    """Probability of each text: the sum over all its alignments, one by one."""
    slots, tokens = log_prob_SV.shape
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(tokens), repeat=slots):
        text = tuple(token for token, _ in itertools.groupby(path) if token)
        found[text] = found.get(text, 0.0) + math.exp(log_prob_SV[range(slots), list(path)].sum())
    return found


@given(st.integers(1, 6), st.integers(2, 4), st.integers(0, 10**6), st.floats(0.1, 4))
def test_wide_beam_finds_the_best_texts_with_their_probabilities(
    slots: int, tokens: int, seed: int, spread: float
) -> None:
    log_prob_SV = log_softmax(np.random.default_rng(seed).normal(size=(slots, tokens)) * spread)
    wanted = sorted(every_text(log_prob_SV).values(), reverse=True)
    found = prefix_beam(log_prob_SV, 2000)
    probabilities = every_text(log_prob_SV)
    for (ids, score), probability in zip(found[:5], wanted, strict=False):
        # Alignments through symbols below exp(-9) in their slot are left out: a lower bound, and close.
        assert math.exp(score) == pytest.approx(probability, abs=1e-3)
        assert probabilities[tuple(ids)] * 1.0001 >= math.exp(score) >= probabilities[tuple(ids)] - 1e-3


def test_narrow_beam_keeps_so_many_and_the_likely_ones() -> None:
    log_prob_SV = log_softmax(np.random.default_rng(5).normal(size=(40, 30)) * 3)
    found = prefix_beam(log_prob_SV, 4)
    assert len(found) == 4
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    best_path = [int(t) for t, _ in itertools.groupby(log_prob_SV.argmax(1)) if t]
    assert any(ids == best_path for ids, _ in found) or found[0][1] > log_prob_SV.max(1).sum()


def test_repeated_symbol_needs_a_blank_between() -> None:
    sure = np.full((5, 3), -30.0, np.float32)
    for slot, token in enumerate([1, 1, 0, 1, 2]):
        sure[slot, token] = 0.0
    assert prefix_beam(log_softmax(sure), 8)[0][0] == [1, 1, 2]


def test_no_slots_are_no_text() -> None:
    assert prefix_beam(np.zeros((0, 5), np.float32), 3) == [([], 0.0)]


@pytest.mark.parametrize("config", [SMALL, SMALL_GRU], ids=["conv", "crnn"])
@pytest.mark.parametrize("method", METHODS)
def test_batch_gives_what_each_line_gives_alone(config: object, method: str) -> None:
    model = reader(config)  # type: ignore[arg-type]
    images, width_B = lines([96, 9, 40, 1])
    together = decode(model, images, width_B, method)  # type: ignore[arg-type]
    assert len(together) == 4
    for at, width in enumerate(width_B.tolist()):
        alone = decode(model, images[at : at + 1, ..., :width], width_B[at : at + 1], method)[0]  # type: ignore[arg-type]
        assert alone.ids == together[at].ids
        assert alone.log_prob == pytest.approx(together[at].log_prob, abs=1e-3)
        assert len(alone.token_log_probs) == len(alone.ids)
        assert all(score <= 1e-6 for score in alone.token_log_probs)


@pytest.mark.parametrize("method", METHODS)
def test_texts_hold_characters_only_and_end(method: str) -> None:
    model = reader(SMALL, seed=3)
    images, width_B = lines([200, 30])
    for found, width in zip(decode(model, images, width_B, method), (200, 30), strict=True):  # type: ignore[arg-type]
        assert not {0, SOS, EOS} & set(found.ids) or method == "ctc"
        assert len(found.ids) <= -(-width // 4) * SMALL.slots


@pytest.mark.parametrize("method", METHODS)
def test_empty_batch(method: str) -> None:
    model = reader(SMALL)
    assert decode(model, torch.ones(0, 1, 32, 40), torch.zeros(0, dtype=torch.int64), method) == []  # type: ignore[arg-type]


def test_score_of_a_text_is_that_of_its_tokens_and_end() -> None:
    model = reader(SMALL)
    images, width_B = lines([80, 60])
    texts = [[5, 6, 7], [], [9, 9, 9, 9]]
    with torch.inference_mode():
        memory = model.encode(images, width_B)
        found = score_texts(model, memory, [0, 1, 1], texts)
        for line, ids, scores in zip([0, 1, 1], texts, found, strict=True):
            tokens = torch.tensor([[SOS, *ids]])
            log_prob = model.decoder_log_probs(memory.rows(torch.tensor([line])), tokens)[0]
            wanted = [float(log_prob[at, token]) for at, token in enumerate([*ids, EOS])]
            assert scores.token_log_probs == pytest.approx(wanted, abs=1e-4)


def test_both_heads_have_their_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """CTC prefers one text, the decoder another: the weight decides."""
    model = reader(SMALL)
    images, width_B = lines([40])
    monkeypatch.setattr(room, "prefix_beam", lambda log_prob_SV, beam: [([5], -1.0), ([6], -2.0)])
    monkeypatch.setattr(room, "go_on", lambda model, memory, begun: [([5], [-9.0, 0.0])])
    of_decoder = {5: TextScore([-9.0, 0.0], 0), 6: TextScore([-0.5, 0.0], 2)}
    monkeypatch.setattr(room, "score_texts", lambda model, memory, lines, texts: [of_decoder[ids[0]] for ids in texts])
    assert decode(model, images, width_B, "beam", ctc_weight=1.0)[0].ids == [5]
    assert decode(model, images, width_B, "beam", ctc_weight=0.3)[0].ids == [6]
    assert decode(model, images, width_B, "beam", ctc_weight=0.3)[0].log_prob == pytest.approx(0.3 * -2 + 0.7 * -0.5)


def test_vocabulary_is_that_of_the_model() -> None:
    assert reader(SMALL).vocabulary == VOCABULARY


@pytest.mark.parametrize("agreed", [False, True])
def test_decoder_offers_its_own_reading_where_it_disagrees(monkeypatch: pytest.MonkeyPatch, agreed: bool) -> None:
    """With the score that CTC gives it: the sum over all its alignments."""
    model = reader(SMALL)
    images, width_B = lines([8])
    log_prob_BSV, _ = model.ctc_log_probs(model.encode(images, width_B))
    wanted = math.log(every_text(log_prob_BSV[0, :6].detach().numpy()[:, [0, 7, 9]])[1, 2])
    monkeypatch.setattr(room, "prefix_beam", lambda log_prob_SV, beam: [([5], -1.0), ([6], -20.0)])
    monkeypatch.setattr(room, "go_on", lambda model, memory, begun: [([7, 9], [-0.1, 0.0, 0.0])])
    of_decoder = {1: TextScore([-90.0, 0.0], 2 if agreed else 0), 2: TextScore([-0.1, 0.0, 0.0], 3)}
    monkeypatch.setattr(room, "score_texts", lambda model, memory, lines, texts: [of_decoder[len(t)] for t in texts])
    found = decode(model, images, width_B, "beam", ctc_weight=0.5)[0]
    if agreed:
        assert found.ids == [5]
    else:
        assert found.ids == [7, 9]
        assert found.log_prob == pytest.approx(0.5 * wanted - 0.5 * 0.1, abs=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_decoder_owns_what_it_would_write_and_nothing_else(seed: int) -> None:
    model = reader(SMALL, seed)
    images, width_B = lines([80, 60, 33], seed=seed)
    with torch.inference_mode():
        memory = model.encode(images, width_B)
        own = [each.ids for each in decode(model, images, width_B, "greedy")]
        ended = [len(ids) < 3 * -(-int(width) // 4) for ids, width in zip(own, width_B, strict=True)]
        scores = score_texts(model, memory, [0, 1, 2], own)
        assert [score.own for score in scores] == ended  # one that was cut off was not the decoder's own end
        other = [[*ids[:-1], 5 if ids[-1:] != [5] else 6] for ids in own]
        assert not any(score.own for score in score_texts(model, memory, [0, 1, 2], other))


def test_own_reading_that_has_no_room_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    model = reader(SMALL)
    images, width_B = lines([4])  # three slots
    monkeypatch.setattr(room, "prefix_beam", lambda log_prob_SV, beam: [([5], -1.0), ([6], -1.5)])
    monkeypatch.setattr(room, "go_on", lambda model, memory, begun: [([7, 7, 7], [0.0, 0.0, 0.0, 0.0])])
    assert decode(model, images, width_B, "beam")[0].ids in ([5], [6])

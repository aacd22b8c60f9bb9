"""From scores to texts: CTC against every alignment, attention bounded, both together."""

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from khmer_ocr.model.decoder import Memory
from khmer_ocr.model.decoding import DecodeMethod, joint
from khmer_ocr.model.decoding.ctc_beam import ctc_score, prefix_beam_search
from khmer_ocr.model.decoding.decode import decode
from khmer_ocr.model.decoding.greedy import Hypothesis
from khmer_ocr.model.decoding.joint import TextScore, joint_decode, score_texts
from khmer_ocr.text.charset import EOS, SOS
from tests.model.test_seq2seq import SMALL, SMALL_GRU, VOCABULARY, lines, reader

METHODS = get_args(DecodeMethod)


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
    expected = sorted(every_text(log_prob_SV).values(), reverse=True)
    found = prefix_beam_search(log_prob_SV, 2000)
    probabilities = every_text(log_prob_SV)
    for (ids, score), probability in zip(found[:5], expected, strict=False):
        # Alignments through symbols below exp(-9) in their slot are left out: a lower bound, and close.
        assert math.exp(score) == pytest.approx(probability, abs=1e-3)
        assert probabilities[tuple(ids)] * 1.0001 >= math.exp(score) >= probabilities[tuple(ids)] - 1e-3


def test_narrow_beam_keeps_so_many_and_the_likely_ones() -> None:
    log_prob_SV = log_softmax(np.random.default_rng(5).normal(size=(40, 30)) * 3)
    found = prefix_beam_search(log_prob_SV, 4)
    assert len(found) == 4
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    best_path = [int(t) for t, _ in itertools.groupby(log_prob_SV.argmax(1)) if t]
    assert any(ids == best_path for ids, _ in found) or found[0][1] > log_prob_SV.max(1).sum()


def test_repeated_symbol_needs_a_blank_between() -> None:
    sure = np.full((5, 3), -30.0, np.float32)
    for slot, token in enumerate([1, 1, 0, 1, 2]):
        sure[slot, token] = 0.0
    assert prefix_beam_search(log_softmax(sure), 8)[0][0] == [1, 1, 2]


def test_no_slots_are_no_text() -> None:
    assert prefix_beam_search(np.zeros((0, 5), np.float32), 3) == [([], 0.0)]


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
            expected = [float(log_prob[at, token]) for at, token in enumerate([*ids, EOS])]
            assert scores.token_log_probs == pytest.approx(expected, abs=1e-4)


class Oracle:
    """A decoder that is sure of one text where the text so far begins like it, evenly thereafter."""

    def __init__(self, expected: list[int], tokens: int = 12) -> None:
        self.expected, self.tokens, self.rescored = [*expected, EOS], tokens, 0

    def __call__(self, model: object, memory: object, lines: list[int], texts: list[list[int]]) -> list[TextScore]:
        self.rescored += len(texts)
        return [self.score(text) for text in texts]

    def score(self, text: list[int]) -> TextScore:
        table_LV = np.full((len(text) + 1, self.tokens), -math.log(self.tokens), np.float32)
        for place in range(len(text) + 1):
            if text[:place] == self.expected[:place] and place < len(self.expected):
                table_LV[place] = math.log(0.05 / (self.tokens - 1))
                table_LV[place, self.expected[place]] = math.log(0.95)
        return TextScore(table_LV[range(len(text) + 1), [*text, EOS]].tolist(), table_LV)


def joint_decoded(log_prob_SV: np.ndarray, ctc_weight: float = 0.5, beam_size: int = 8) -> Hypothesis:
    memory = Memory(torch.zeros(1, 4, 8), torch.tensor([4]))
    line = torch.from_numpy(log_prob_SV)[None]
    return joint_decode(reader(SMALL), memory, line, torch.tensor([len(log_prob_SV)]), beam_size, ctc_weight)[0]


def said(text: list[int], doubts: dict[int, dict[int, float]], tokens: int = 12) -> np.ndarray:
    """CTC's log-probabilities of a text, a slot a token; at some places others too, with shares of their own."""
    share_SV = np.full((len(text), tokens), 1e-5, np.float32)
    for place, token in enumerate(text):
        others = doubts.get(place, {})
        share_SV[place, token] = 1 - sum(others.values())
        for other, share in others.items():
            share_SV[place, other] = share
    return np.log(share_SV / share_SV.sum(1, keepdims=True))


def test_a_beam_of_one_is_rescored_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "score_texts", Oracle([5, 7]))
    assert joint_decoded(said([5, 6], {1: {7: 0.4}}), beam_size=1).ids == [5, 7]


@pytest.mark.parametrize("second", [0.0, 0.15, 0.25])
def test_where_ctc_is_sure_nothing_is_rescored(monkeypatch: pytest.MonkeyPatch, second: float) -> None:
    oracle = Oracle([5, 7])
    monkeypatch.setattr(joint, "score_texts", oracle)
    log_prob_SV = said([5, 6], {1: {7: second}} if second else {})
    found = joint_decoded(log_prob_SV)
    sure = second < 1 / (1 + math.exp(joint.SURE))
    assert found.ids == ([5, 6] if sure else [5, 7]) and (oracle.rescored == 0) == sure
    assert len(found.token_log_probs) == 2
    if sure:
        assert found.log_prob == pytest.approx(ctc_score(log_prob_SV, [5, 6]), abs=1e-3)


def test_the_weight_decides_between_ctc_and_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """CTC prefers one text, the decoder another."""
    oracle = Oracle([5, 7])
    monkeypatch.setattr(joint, "score_texts", oracle)
    log_prob_SV = said([5, 6], {1: {7: 0.3}})
    assert joint_decoded(log_prob_SV, 1.0).ids == [5, 6]
    assert joint_decoded(log_prob_SV, 0.95).ids == [5, 6]
    found = joint_decoded(log_prob_SV, 0.4)
    assert found.ids == [5, 7]
    expected = 0.4 * ctc_score(log_prob_SV, [5, 7]) + 0.6 * sum(oracle.score([5, 7]).token_log_probs)
    assert found.log_prob == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("ctc", "expected"),
    [
        ([5, 6, 8, 9], [5, 7, 8, 9]),  # one for another
        ([5, 6, 6, 9], [5, 6, 9]),  # one too many
        ([5, 0, 6, 9], [5, 8, 6, 9]),  # one too few
        ([5, 6, 8, 9, 4, 5, 6], [5, 7, 8, 9, 4, 3, 6]),  # twice
        ([5, 6, 0], [5, 6, 9]),  # the end is missing
        ([5, 6, 9], [5, 6]),  # the end is too much
        ([5, 6, 9, 3, 8], [5, 6]),  # far too much
    ],
)
def test_texts_are_repaired_where_the_decoder_would_go_on_otherwise(
    monkeypatch: pytest.MonkeyPatch, ctc: list[int], expected: list[int]
) -> None:
    """Though CTC's beam does not hold the text."""
    monkeypatch.setattr(joint, "score_texts", Oracle(expected))
    monkeypatch.setattr(joint, "SURE", 100.0)
    padded = [*expected, *[0] * (len(ctc) - len(expected))]
    if ctc == [5, 6, 6, 9]:
        padded = [5, 6, 0, 9]
    doubts = {place: {other: 0.3} for place, (one, other) in enumerate(zip(ctc, padded, strict=True)) if one != other}
    log_prob_SV = said(ctc, doubts)
    best = prefix_beam_search(log_prob_SV, 8)[0]
    monkeypatch.setattr(joint, "prefix_beam_search", lambda log_prob_SV, beam: [best, ([1], best[1] - 50)])
    assert joint_decoded(log_prob_SV).ids == expected


def searched(seed: int, spread: float, rounds: int) -> tuple[Oracle, np.ndarray, Hypothesis]:
    """A random table read with a random text in the decoder's mind: decoder, table and reading."""
    draw = np.random.default_rng(seed)
    log_prob_SV = log_softmax(draw.normal(size=(5, 12)) * spread)
    oracle = Oracle([int(token) for token in draw.integers(4, 12, 3)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint, "score_texts", oracle)
        patch.setattr(joint, "MARGIN", 100.0)
        patch.setattr(joint, "ROUNDS", rounds)
        return oracle, log_prob_SV, joint_decoded(log_prob_SV)


@given(st.integers(0, 10**6), st.floats(0.5, 3))
@example(50612, 2.0)
@example(1594, 2.0)
@settings(deadline=None, max_examples=30)
def test_no_text_of_the_beam_would_have_won(seed: int, spread: float) -> None:
    """What is not rescored can't win: without a bound on rounds, no text of the beam is better than the reading."""
    oracle, log_prob_SV, found = searched(seed, spread, rounds=100)
    if oracle.rescored and found.ids != oracle.expected[:-1]:
        for ids, ctc in prefix_beam_search(log_prob_SV, 8):
            assert 0.5 * ctc + 0.5 * sum(oracle.score(ids).token_log_probs) <= found.log_prob + 1e-4


@given(st.integers(0, 10**6), st.floats(0.5, 3))
@example(50612, 2.0)
@settings(deadline=None, max_examples=30)
def test_no_line_takes_more_rescoring_than_is_said(seed: int, spread: float) -> None:
    oracle, _, _ = searched(seed, spread, joint.ROUNDS)
    assert oracle.rescored <= 1 + joint.ROUNDS * joint.RESCORED


@given(st.integers(1, 6), st.integers(2, 4), st.integers(0, 10**6), st.floats(0.1, 4))
def test_score_of_a_text_is_the_sum_over_its_alignments(slots: int, tokens: int, seed: int, spread: float) -> None:
    log_prob_SV = log_softmax(np.random.default_rng(seed).normal(size=(slots, tokens)) * spread)
    for ids, probability in every_text(log_prob_SV).items():
        assert math.exp(ctc_score(log_prob_SV, list(ids))) == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize("slots", [60, 300])
def test_score_of_a_long_text_is_that_of_torch(slots: int) -> None:
    """Peaked as a reader's are, of texts that are near: alignments far behind are left out, and none of these is."""
    draw = np.random.default_rng(slots)
    scores_SV = draw.normal(size=(slots, 20))
    path = draw.integers(1, 20, slots) * (draw.random(slots) < 0.3)
    scores_SV[range(slots), path] += 7
    log_prob_SV = log_softmax(scores_SV)
    text = [int(token) for token, _ in itertools.groupby(path.tolist()) if token]
    others = [text[1:], text[:-2], [*text, 3], [*text[:9], 4, *text[9:]], [*text[:7], *text[8:]], text[:5] + text[7:]]
    for ids in (text, *others):
        loss = torch.nn.functional.ctc_loss(
            torch.from_numpy(log_prob_SV)[:, None],
            torch.tensor([ids]),
            torch.tensor([slots]),
            torch.tensor([len(ids)]),
            reduction="sum",
        )
        assert ctc_score(log_prob_SV, ids) == pytest.approx(-float(loss), abs=0.01)


def test_a_text_longer_than_the_slots_has_no_probability() -> None:
    log_prob_SV = log_softmax(np.zeros((3, 5), np.float32))
    assert ctc_score(log_prob_SV, [1, 1]) == pytest.approx(-3 * math.log(5), abs=1e-5)
    for ids in ([1, 1, 2], [1, 2, 3, 4]):
        assert ctc_score(log_prob_SV, ids) < -1e29
    assert ctc_score(np.zeros((0, 5), np.float32), []) == 0


def test_vocabulary_is_that_of_the_model() -> None:
    assert reader(SMALL).vocabulary == VOCABULARY

"""Joint decoding: CTC's best text, rescored by the decoder where CTC is not sure of it.

Where CTC is sure, its text is the reading. Elsewhere the decoder scores it, and where the decoder would have written
that text itself, it is the reading too. What is left is searched: candidates are CTC's next texts, and the best text so
far repaired where the decoder would have gone on otherwise; those that can't win by both scores are not rescored, and
no line has more than `ROUNDS` times `RESCORED` of them. So clean lines, which most are, cost little.

Letters: S slots, V token ids, K texts, L tokens.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from khmer_ocr_kernels.arrays import F32
from torch import Tensor

from khmer_ocr.model.decoder import Memory
from khmer_ocr.model.decoding.ctc_beam import ctc_score, prefix_beam_search
from khmer_ocr.model.decoding.greedy import Hypothesis, best_path
from khmer_ocr.model.seq2seq import Seq2Seq
from khmer_ocr.text.charset import EOS, PAD, SOS

SURE = 1.5
"""CTC is sure of a text that it likes better than any other by this (log-probability)."""
MARGIN = 3.0
"""Texts that CTC likes less than the best so far by more than this are not rescored."""
ROUNDS = 4
"""How often candidates of a line are rescored, at most,"""
RESCORED = 3
"""and how many each time, those that may win by most. So a line costs at most so many passes of the decoder; one on
which CTC and decoder disagree nearly everywhere (2 to 3 of 100 tables of random scores) may have a better text left."""
REPAIRED_PLACES = 3
"""Places of a text that are repaired in a round, those where the decoder gains most."""
_NEVER = -1e30


class TextScore(NamedTuple):
    """The decoder's score of a text.

    Attributes:
        token_log_probs: of its tokens and of `<eos>` after them.
        table_LV: log-probabilities of all tokens at each of these places, given the text before.
    """

    token_log_probs: list[float]
    table_LV: F32


@dataclass
class _Rescored:
    """A text with the scores of CTC and of the decoder, and both weighed together."""

    ids: list[int]
    ctc: float
    decoder: TextScore
    joint: float

    def changes(self) -> Iterator[tuple[int, int]]:
        """Places where the decoder would have gone on otherwise, and how; where it gains most first."""
        expected_L, table_LV = np.array([*self.ids, EOS]), self.decoder.table_LV
        own_L = table_LV.argmax(1)
        gain_L = table_LV[range(len(own_L)), own_L] - table_LV[range(len(own_L)), expected_L]
        for place in np.argsort(-gain_L, kind="stable").tolist():
            if own_L[place] != expected_L[place]:
                yield place, int(own_L[place])

    def decoder_bound(self, ids: list[int]) -> float:
        """Upper bound of the decoder's score of another text: its score up to where that goes its own way."""
        shared = _shared(self.ids, ids)
        turn = [*ids, EOS][shared]
        return sum(self.decoder.token_log_probs[:shared]) + float(self.decoder.table_LV[shared, turn])


@dataclass
class _Search:
    """The search for a line's text.

    Attributes:
        line: its number in the batch.
        log_prob_SV: of CTC.
        ctc_weight: share of CTC in the joint score.
        candidates: texts to be rescored, with CTC's scores.
        known: every text that has been a candidate.
        best: of those rescored.
    """

    line: int
    log_prob_SV: F32
    ctc_weight: float
    candidates: list[tuple[list[int], float]]
    known: set[tuple[int, ...]] = field(default_factory=set)
    best: _Rescored | None = None

    def _joint(self, ctc: float, decoder: float) -> float:
        return self.ctc_weight * ctc + (1 - self.ctc_weight) * decoder

    def update(self, ids: list[int], ctc: float, decoder: TextScore) -> None:
        """Take a rescored text."""
        joint = self._joint(ctc, sum(decoder.token_log_probs))
        if self.best is None or joint > self.best.joint:
            self.best = _Rescored(ids, ctc, decoder, joint)

    def next_candidates(self) -> Iterator[tuple[list[int], float]]:
        """Texts to rescore next, with CTC's scores."""
        best = self.best
        if best is None:
            self.known.update(tuple(ids) for ids, _ in self.candidates)
            yield self.candidates.pop(0)
            return
        changes = list(best.changes())
        if not changes:  # the decoder would have written it
            return
        repaired = 0
        for place, token in changes:
            repairs = self._repairs(best.ids, place, token)
            self.candidates += repairs
            repaired += bool(repairs)
            if repaired == REPAIRED_PLACES:
                break
        bounded = [(self._joint(ctc, best.decoder_bound(ids)), ids, ctc) for ids, ctc in self.candidates]
        bounded = sorted(
            (each for each in bounded if each[0] > best.joint and each[2] > best.ctc - MARGIN), reverse=True
        )
        self.candidates = [(ids, ctc) for _, ids, ctc in bounded[RESCORED:]]
        yield from ((ids, ctc) for _, ids, ctc in bounded[:RESCORED])

    def _repairs(self, ids: list[int], place: int, token: int) -> list[tuple[list[int], float]]:
        """A text with this token at that place, beside or instead of what is there, or without what is there."""
        if token == EOS:
            spliced = [ids[:place]]
        else:
            spliced = [[*ids[:place], *new, *ids[place + gone :]] for new in ([], [token]) for gone in range(3)]
        texts = {tuple(text): text for text in spliced if tuple(text) not in self.known}
        self.known.update(texts)
        return [(text, ctc_score(self.log_prob_SV, text)) for text in texts.values()]


def joint_decode(
    model: Seq2Seq, memory: Memory, log_prob_BSV: Tensor, slot_count_B: Tensor, beam_size: int, ctc_weight: float
) -> list[Hypothesis]:
    """Choose texts by the scores of CTC and decoder; see `khmer_ocr.model.decoding.decode.decode`."""
    found = best_path(log_prob_BSV, slot_count_B)
    # An alignment likelier than this makes its text likelier than any other by `SURE`.
    sure_alone = -math.log1p(math.exp(-SURE))
    host_BSV, searches = log_prob_BSV.cpu().numpy(), []
    for line, slots in enumerate(slot_count_B.tolist()):
        path = found[line]
        if path.log_prob > sure_alone:
            continue
        log_prob_SV = host_BSV[line, :slots]
        texts = prefix_beam_search(log_prob_SV, max(beam_size, 2))
        ids, score = texts[0]
        if ids == path.ids and (len(texts) == 1 or score - texts[1][1] > SURE):
            found[line] = Hypothesis(ids, score, path.token_log_probs, score)
        else:
            # The beam's scores leave alignments out, which those of repairs do not.
            texts = [(ids, ctc_score(log_prob_SV, ids)) for ids, _ in texts]
            searches.append(_Search(line, log_prob_SV, ctc_weight, texts))
    if searches:
        memory = memory.rows(torch.tensor([search.line for search in searches], device=slot_count_B.device))
    for _ in range(1 + ROUNDS):
        chosen = [(row, *text) for row, search in enumerate(searches) for text in search.next_candidates()]
        if not chosen:
            break
        scores = score_texts(model, memory, [row for row, _, _ in chosen], [ids for _, ids, _ in chosen])
        for (row, ids, ctc), score_of_text in zip(chosen, scores, strict=True):
            searches[row].update(ids, ctc, score_of_text)
    for search in searches:
        if search.best is not None:
            best = search.best
            found[search.line] = Hypothesis(best.ids, best.joint, best.decoder.token_log_probs[:-1], best.ctc)
    return found


def _shared(one: list[int], other: list[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    for place, (mine, yours) in enumerate(zip(one, other, strict=False)):
        if mine != yours:
            return place
    return min(len(one), len(other))


def score_texts(model: Seq2Seq, memory: Memory, lines: list[int], texts: list[list[int]]) -> list[TextScore]:
    """Score known texts by the decoder.

    Args:
        model: in eval mode.
        memory: encoded lines.
        lines: which line each text is of.
        texts: token ids.

    Returns:
        Its score of each text.
    """
    if not texts:
        return []
    device = memory.frame_count_B.device
    longest = max(map(len, texts)) + 1
    tokens_KL = torch.tensor([[SOS, *ids] + [PAD] * (longest - 1 - len(ids)) for ids in texts], device=device)
    rows_K = None if lines == list(range(len(memory.frame_count_B))) else torch.tensor(lines, device=device)
    log_prob_KLV = model.decoder_log_probs(memory, tokens_KL, rows_K)
    log_prob_KLV[..., [PAD, SOS]] = _NEVER
    scores = []
    for table_LV, ids in zip(log_prob_KLV.cpu().numpy(), texts, strict=True):
        expected = [*ids, EOS]
        table_LV = table_LV[: len(expected)]
        scores.append(TextScore(table_LV[range(len(expected)), expected].tolist(), table_LV))
    return scores

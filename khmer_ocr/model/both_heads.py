"""Texts by both heads: CTC's best, questioned by the decoder.

Where the decoder would have written CTC's best text itself, that is the reading. Elsewhere CTC's next texts and the
decoder's own stand beside it, and the best by both scores wins. So clean lines, which most are, cost little.

Letters: S slots, V token ids, K texts, L tokens.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from khmer_ocr.model.decoder import Memory
from khmer_ocr.model.one_head import Hypothesis, go_on
from khmer_ocr.model.prefix_beam import prefix_beam
from khmer_ocr.model.seq2seq import BLANK, Reader
from khmer_ocr.text.charset import EOS, PAD, SOS

MARGIN = 6.0
"""CTC's texts that it likes less than its best by more than this (log-probability) are not asked about."""
MOST_OTHERS = 4
"""How many of its other texts are asked about at most."""
Candidates = list[tuple[list[int], float]]


class TextScore(NamedTuple):
    """What the decoder thinks of a text.

    Attributes:
        token_log_probs: of its tokens and of `<eos>` after them.
        agreed: how many of these, from the first on, it would have chosen itself.
    """

    token_log_probs: list[float]
    agreed: int

    @property
    def own(self) -> bool:
        """Whether this is what it reads by itself."""
        return self.agreed == len(self.token_log_probs)


def by_both(
    model: Reader, memory: Memory, log_prob_BSV: Tensor, slot_count_B: Tensor, beam_size: int, ctc_weight: float
) -> list[Hypothesis]:
    """Choose among the texts of both heads; see `khmer_ocr.model.decode.decode`."""
    host_BSV = log_prob_BSV.cpu().numpy()
    found = [
        prefix_beam(line_SV[:slots], beam_size) for line_SV, slots in zip(host_BSV, slot_count_B.tolist(), strict=True)
    ]
    texts = [(line, *candidates[0]) for line, candidates in enumerate(found)]
    scores = score_texts(model, memory, [line for line, _, _ in texts], [ids for _, ids, _ in texts])
    doubtful = [line for line, score in enumerate(scores) if not score.own]
    if doubtful and ctc_weight < 1:
        choice = torch.tensor(doubtful, device=slot_count_B.device)
        # Up to where it first disagrees, the decoder's own reading is CTC's.
        common = min(scores[line].agreed for line in doubtful)
        begun = [found[line][0][0][:common] for line in doubtful]
        own = _own_readings(model, memory.rows(choice), log_prob_BSV[choice], slot_count_B[choice], begun)
        more = [
            (line, ids, score)
            for line, reading in zip(doubtful, own, strict=True)
            for ids, score in _others(found[line], reading)
        ]
        scores += score_texts(model, memory, [line for line, _, _ in more], [ids for _, ids, _ in more])
        texts += more
    best: dict[int, Hypothesis] = {}
    for (line, ids, ctc), score in zip(texts, scores, strict=True):
        both = ctc_weight * ctc + (1 - ctc_weight) * sum(score.token_log_probs)
        if line not in best or both > best[line].log_prob:
            best[line] = Hypothesis(ids, both, score.token_log_probs[:-1])
    return [best[line] for line in range(len(found))]


def _others(of_ctc: Candidates, own: tuple[list[int], float]) -> Candidates:
    """CTC's texts behind its best that are near to it, and the decoder's own if it is none of them and has room."""
    others = [(ids, score) for ids, score in of_ctc[1 : 1 + MOST_OTHERS] if score >= of_ctc[0][1] - MARGIN]
    known = [of_ctc[0][0], *(ids for ids, _ in others)]
    return others if own[0] in known or own[1] == -math.inf else [*others, own]


def _own_readings(
    model: Reader, memory: Memory, log_prob_BSV: Tensor, slot_count_B: Tensor, begun: list[list[int]]
) -> Candidates:
    """What the decoder reads by itself, with CTC's score of it: -inf where it has more symbols than the line slots."""
    begun_BL = torch.tensor([[SOS, *ids] for ids in begun], device=slot_count_B.device)
    own = [[*first, *rest] for first, (rest, _) in zip(begun, go_on(model, memory, begun_BL), strict=True)]
    longest = max(map(len, own))
    targets_KL = torch.tensor([ids + [PAD] * (longest - len(ids)) for ids in own], device=slot_count_B.device)
    lengths_K = torch.tensor([len(ids) for ids in own])
    loss_K = F.ctc_loss(
        log_prob_BSV.transpose(0, 1), targets_KL, slot_count_B.cpu(), lengths_K, blank=BLANK, reduction="none"
    )
    return [(ids, -loss) for ids, loss in zip(own, loss_K.tolist(), strict=True)]


def score_texts(model: Reader, memory: Memory, lines: list[int], texts: list[list[int]]) -> list[TextScore]:
    """Ask the decoder about known texts.

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
    wanted_KL = torch.tensor([[*ids, EOS] + [PAD] * (longest - 1 - len(ids)) for ids in texts], device=device)
    rows_K = None if lines == list(range(len(memory.frame_count_B))) else torch.tensor(lines, device=device)
    log_prob_KLV = model.decoder_log_probs(memory, tokens_KL, rows_K)
    log_prob_KLV[..., [PAD, SOS]] = -math.inf
    picked_KL = log_prob_KLV.gather(2, wanted_KL[..., None]).squeeze(2)
    agreed_K = (log_prob_KLV.argmax(2) == wanted_KL).long().cumprod(1).sum(1).tolist()
    rows = zip(picked_KL.tolist(), agreed_K, texts, strict=True)
    return [TextScore(picked_L[: len(ids) + 1], min(agreed, len(ids) + 1)) for picked_L, agreed, ids in rows]

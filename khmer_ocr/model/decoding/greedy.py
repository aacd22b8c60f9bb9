"""Greedy decoding: by CTC alone, slot by slot, or by the decoder alone, token by token.

Letters: B lines, S slots, V token ids, L tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from khmer_ocr.model.decoder import Memory
from khmer_ocr.model.seq2seq import BLANK, Seq2Seq
from khmer_ocr.text.charset import EOS, PAD, SOS


@dataclass(frozen=True)
class Hypothesis:
    """A text that was read.

    Attributes:
        ids: its token ids, without `<sos>` and `<eos>`.
        log_prob: of the whole text, by the scores that chose it.
        token_log_probs: of each token, given those before it and the image.
        ctc_log_prob: of the whole text by CTC, None where CTC was not asked.
    """

    ids: list[int]
    log_prob: float
    token_log_probs: list[float]
    ctc_log_prob: float | None = None


def best_path(log_prob_BSV: Tensor, slot_count_B: Tensor) -> list[Hypothesis]:
    """CTC alone: the best symbol of every slot, repeats and blanks taken out."""
    best_BS, token_BS = log_prob_BSV.max(2)
    found = []
    rows = zip(best_BS.tolist(), token_BS.tolist(), slot_count_B.tolist(), strict=True)
    for best_S, token_S, slots in rows:
        ids, scores, before = [], [], BLANK
        for score, token in zip(best_S[:slots], token_S[:slots], strict=True):
            if token not in (BLANK, before):
                ids.append(token)
                scores.append(score)
            elif token == before != BLANK:
                scores[-1] = max(scores[-1], score)
            before = token
        log_prob = sum(best_S[:slots])
        found.append(Hypothesis(ids, log_prob, scores, log_prob))
    return found


def greedy_decode(model: Seq2Seq, memory: Memory) -> list[Hypothesis]:
    """The decoder alone, token by token; CTC's slots bound the length, so that drifting ends."""
    lines, device = len(memory.frame_count_B), memory.frame_count_B.device
    if not lines:
        return []
    limit_B = memory.frame_count_B * model.config.slots
    open_B = torch.ones(lines, dtype=torch.bool, device=device)
    state, next_BL = model.decoder.start(memory), torch.full((lines, 1), SOS, device=device)
    tokens, scores = [], []
    for length in range(int(limit_B.max()) + 1):
        score_BV, state = model.decoder.read(state, next_BL)
        log_prob_BV = score_BV.float().log_softmax(1)
        log_prob_BV[:, [PAD, SOS]] = -torch.inf
        best_B, token_B = log_prob_BV.max(1)
        token_B = torch.where(open_B & (length < limit_B), token_B, EOS)
        tokens.append(token_B)
        scores.append(torch.where(open_B, best_B, 0.0))
        open_B, next_BL = open_B & (token_B != EOS), token_B[:, None]
        if not open_B.any():
            break
    found = []
    for ids, score in zip(torch.stack(tokens, 1).tolist(), torch.stack(scores, 1).tolist(), strict=True):
        end = ids.index(EOS) if EOS in ids else len(ids)
        found.append(Hypothesis(ids[:end], sum(score[: end + 1]), score[:end]))
    return found

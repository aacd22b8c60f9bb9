"""From scores to texts: CTC alone, attention step by step, or both together over CTC's best texts.

Letters: B lines, S slots, V token ids, L tokens, K candidates.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from khmer_ocr.model.decoder import Memory
from khmer_ocr.model.prefix_beam import prefix_beam
from khmer_ocr.model.seq2seq import BLANK, Reader
from khmer_ocr.text.charset import EOS, PAD, SOS

Method = Literal["ctc", "greedy", "beam"]
CTC_WEIGHT = 0.5
SURE = 0.999
"""Where CTC's best text has this share of the probability of all candidates, attention could hardly change it."""


@dataclass(frozen=True)
class Hypothesis:
    """A text that was read.

    Attributes:
        ids: its token ids, without `<sos>` and `<eos>`.
        log_prob: of the whole text, by the scores that chose it.
        token_log_probs: of each token, given those before it and the image.
    """

    ids: list[int]
    log_prob: float
    token_log_probs: list[float]


@torch.inference_mode()
def decode(
    model: Reader,
    images_B1HW: Tensor,
    width_B: Tensor,
    method: Method = "beam",
    beam_size: int = 8,
    ctc_weight: float = CTC_WEIGHT,
) -> list[Hypothesis]:
    """Read a batch of lines.

    Args:
        model: in eval mode.
        images_B1HW: float32 in 0..1, paper 1, H = 32, on the model's device.
        width_B: int64 widths in px, at least 1, on the same device.
        method: "ctc" takes the best symbol of every slot; "greedy" the decoder's best token again and again, no more of
            them than CTC has slots; "beam" finds CTC's best texts and, where CTC is not sure, the decoder's own, and
            chooses among them by both heads' scores.
        beam_size: candidates of "beam".
        ctc_weight: share of CTC in the score of "beam", 0 to 1; the rest is the decoder's.

    Returns:
        One hypothesis a line.
    """
    memory = model.encode(images_B1HW, width_B)
    if method == "greedy":
        return _by_attention(model, memory)
    log_prob_BSV, slot_count_B = model.ctc_log_probs(memory)
    if method == "ctc":
        return _best_path(log_prob_BSV, slot_count_B)
    return _by_both(model, memory, log_prob_BSV, slot_count_B, beam_size, ctc_weight)


def _best_path(log_prob_BSV: Tensor, slot_count_B: Tensor) -> list[Hypothesis]:
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
        found.append(Hypothesis(ids, sum(best_S[:slots]), scores))
    return found


def _by_attention(model: Reader, memory: Memory) -> list[Hypothesis]:
    """The decoder's own way; CTC gives the bound on its length, so that drifting ends."""
    lines, device = len(memory.frame_count_B), memory.frame_count_B.device
    limit_B = memory.frame_count_B * model.config.slots
    token_B = torch.full((lines,), SOS, device=device)
    open_B = torch.ones(lines, dtype=torch.bool, device=device)
    state, tokens, scores = model.decoder.start(memory), [], []
    for length in range(int(limit_B.max()) + 1 if lines else 0):
        score_BV, state = model.decoder.step(state, token_B)
        log_prob_BV = score_BV.float().log_softmax(1)
        log_prob_BV[:, [PAD, SOS]] = -torch.inf
        best_B, token_B = log_prob_BV.max(1)
        token_B = torch.where(open_B & (length < limit_B), token_B, EOS)
        tokens.append(token_B)
        scores.append(torch.where(open_B, best_B, 0.0))
        open_B = open_B & (token_B != EOS)
        if not open_B.any():
            break
    if not tokens:
        return []
    found = []
    for ids, score in zip(torch.stack(tokens, 1).tolist(), torch.stack(scores, 1).tolist(), strict=True):
        end = ids.index(EOS) if EOS in ids else len(ids)
        found.append(Hypothesis(ids[:end], sum(score[: end + 1]), score[:end]))
    return found


def _by_both(
    model: Reader, memory: Memory, log_prob_BSV: Tensor, slot_count_B: Tensor, beam_size: int, ctc_weight: float
) -> list[Hypothesis]:
    host_BSV = log_prob_BSV.cpu().numpy()
    found = [
        prefix_beam(line_SV[:slots], beam_size) for line_SV, slots in zip(host_BSV, slot_count_B.tolist(), strict=True)
    ]
    unsure = [line for line, candidates in enumerate(found) if not _is_sure(candidates)]
    # Where CTC is sure its best is enough: the decoder gives the confidence of its tokens.
    found = [candidates if line in unsure else candidates[:1] for line, candidates in enumerate(found)]
    if unsure and ctc_weight < 1:
        _add_own_readings(model, memory, log_prob_BSV, slot_count_B, unsure, found)
    texts = [(line, ids, score) for line, candidates in enumerate(found) for ids, score in candidates]
    token_log_probs = score_texts(model, memory, [line for line, _, _ in texts], [ids for _, ids, _ in texts])
    best: dict[int, Hypothesis] = {}
    for (line, ids, ctc), of_tokens in zip(texts, token_log_probs, strict=True):
        both = ctc_weight * ctc + (1 - ctc_weight) * sum(of_tokens)
        if line not in best or both > best[line].log_prob:
            best[line] = Hypothesis(ids, both, of_tokens[:-1])
    return [best[line] for line in range(len(found))]


def _add_own_readings(
    model: Reader,
    memory: Memory,
    log_prob_BSV: Tensor,
    slot_count_B: Tensor,
    lines: list[int],
    found: list[list[tuple[list[int], float]]],
) -> None:
    """Put what the decoder itself would read, with CTC's score of it, beside CTC's best texts of some lines."""
    choice = torch.tensor(lines, device=slot_count_B.device)
    own = [hypothesis.ids for hypothesis in _by_attention(model, memory.rows(choice))]
    longest = max(map(len, own))
    targets = torch.tensor([ids + [PAD] * (longest - len(ids)) for ids in own], device=choice.device)
    lengths = torch.tensor([len(ids) for ids in own])
    # `inf` where the text has more symbols than the line has slots.
    loss_K = F.ctc_loss(
        log_prob_BSV[choice].transpose(0, 1),
        targets,
        slot_count_B[choice].cpu(),
        lengths,
        blank=BLANK,
        reduction="none",
    )
    for line, ids, loss in zip(lines, own, loss_K.tolist(), strict=True):
        if loss < math.inf and all(ids != known for known, _ in found[line]):
            found[line].append((ids, -loss))


def _is_sure(candidates: list[tuple[list[int], float]]) -> bool:
    scores = torch.tensor([score for _, score in candidates], dtype=torch.float64)
    return bool(scores.softmax(0)[0] >= SURE)


def score_texts(model: Reader, memory: Memory, lines: list[int], texts: list[list[int]]) -> list[list[float]]:
    """What the decoder thinks of known texts.

    Args:
        model: in eval mode.
        memory: encoded lines.
        lines: which line each text is of.
        texts: token ids.

    Returns:
        For each text the log-probabilities of its tokens and of `<eos>` after them.
    """
    if not texts:
        return []
    device = memory.frame_count_B.device
    longest = max(map(len, texts)) + 1
    tokens_KL = torch.tensor([[SOS, *ids] + [PAD] * (longest - 1 - len(ids)) for ids in texts], device=device)
    wanted_KL = torch.tensor([[*ids, EOS] + [PAD] * (longest - 1 - len(ids)) for ids in texts], device=device)
    log_prob_KLV = model.decoder_log_probs(memory.rows(torch.tensor(lines, device=device)), tokens_KL)
    picked_KL = log_prob_KLV.gather(2, wanted_KL[..., None]).squeeze(2).tolist()
    return [row[: len(ids) + 1] for row, ids in zip(picked_KL, texts, strict=True)]

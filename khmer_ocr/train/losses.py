"""The joint loss of CTC and decoder, averaged over tokens.

Letters: B lines, S slots, V token ids, T tokens of the longest text, L = T + 1.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from khmer_ocr.model.seq2seq import BLANK
from khmer_ocr.text.charset import EOS, PAD, SOS


@dataclass(frozen=True)
class Losses:
    """Sums over the tokens of a batch, each text's `<eos>` counted; tensors of no dimension.

    Attributes:
        joint: what is minimised.
        ctc: of the CTC head.
        decoder: cross entropy of the decoder.
    """

    joint: Tensor
    ctc: Tensor
    decoder: Tensor


def shifted(targets_BT: Tensor, target_length_B: Tensor) -> tuple[Tensor, Tensor]:
    """What the decoder reads, `<sos>` first, and what it should say, `<eos>` last; each int64 (B, T + 1)."""
    lines = len(targets_BT)
    edge_B1 = targets_BT.new_full((lines, 1), PAD)
    tokens_BL = torch.cat([edge_B1 + SOS, targets_BT], 1)
    expected_BL = torch.cat([targets_BT, edge_B1], 1).scatter(1, target_length_B[:, None], EOS)
    return tokens_BL, expected_BL


def joint_losses(
    ctc_scores_BSV: Tensor,
    slot_count_B: Tensor,
    decoder_scores_BLV: Tensor,
    targets_BT: Tensor,
    target_length_B: Tensor,
    ctc_weight: float,
    label_smoothing: float,
) -> Losses:
    """Compare scores with what is written.

    Args:
        ctc_scores_BSV: before the softmax.
        slot_count_B: int64 slots of each line. On the host, like `target_length_B`, no GPU need be waited for.
        decoder_scores_BLV: before the softmax, for the tokens of `shifted`.
        targets_BT: int64 token ids, 0 beyond a text.
        target_length_B: int64.
        ctc_weight: share of CTC in the joint loss.
        label_smoothing: share of probability given to other tokens.

    Returns:
        Sums; divide by the number of tokens, `<eos>` included. A line whose text has more symbols than slots adds
        nothing to CTC (pre-flight counts such lines).
    """
    log_prob_SBV = ctc_scores_BSV.float().log_softmax(2).transpose(0, 1)
    ctc = F.ctc_loss(
        log_prob_SBV, targets_BT, slot_count_B, target_length_B, blank=BLANK, reduction="sum", zero_infinity=True
    )
    expected_BL = shifted(targets_BT, target_length_B.to(targets_BT.device, non_blocking=True))[1]
    decoder = F.cross_entropy(
        decoder_scores_BLV.float().flatten(0, 1),
        expected_BL.flatten(),
        ignore_index=PAD,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return Losses(ctc_weight * ctc + (1 - ctc_weight) * decoder, ctc.detach(), decoder.detach())

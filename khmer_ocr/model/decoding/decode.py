"""From scores to texts: CTC alone, attention step by step, or both together over CTC's best texts.

Letters: B lines, S slots, V token ids, L tokens, K candidates.
"""

import torch
from torch import Tensor

from khmer_ocr.model.decoding import DecodeMethod
from khmer_ocr.model.decoding.greedy import Hypothesis, best_path, greedy_decode
from khmer_ocr.model.decoding.joint import joint_decode
from khmer_ocr.model.seq2seq import Seq2Seq

__all__ = ["CTC_WEIGHT", "Hypothesis", "decode"]

CTC_WEIGHT = 0.5


@torch.inference_mode()
def decode(
    model: Seq2Seq,
    images_B1HW: Tensor,
    width_B: Tensor,
    method: DecodeMethod = "beam",
    beam_size: int = 8,
    ctc_weight: float = CTC_WEIGHT,
) -> list[Hypothesis]:
    """Read a batch of lines.

    Args:
        model: in eval mode.
        images_B1HW: float32 in 0..1, background 1, H = 32, on the model's device.
        width_B: int64 widths in px, at least 1, on the same device.
        method: "ctc" takes the best symbol of every slot; "greedy" the decoder's best token again and again, no more of
            them than CTC has slots; "beam" takes CTC's best text where CTC is sure or the decoder would have written it
            too, and searches for the best text by the scores of both elsewhere.
        beam_size: candidates of "beam".
        ctc_weight: share of CTC in the score of "beam", 0 to 1; the rest is the decoder's.

    Returns:
        One hypothesis a line.
    """
    memory = model.encode(images_B1HW, width_B)
    if method == "greedy":
        return greedy_decode(model, memory)
    log_prob_BSV, slot_count_B = model.ctc_log_probs(memory)
    if method == "ctc":
        return best_path(log_prob_BSV, slot_count_B)
    return joint_decode(model, memory, log_prob_BSV, slot_count_B, beam_size, ctc_weight)

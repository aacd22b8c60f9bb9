"""The model: an encoder, a CTC head on its frames, a decoder that attends to them.

Letters: B lines, H rows, W columns, T frames, S slots of CTC, V token ids, L tokens.
"""

from typing import TypeVar

import torch
from khmer_ocr_kernels.arrays import I64
from torch import Tensor, nn

from khmer_ocr.model.crnn import CrnnEncoder
from khmer_ocr.model.decoder import GruDecoder, Memory, TransformerDecoder
from khmer_ocr.model.encoder import ConvEncoder
from khmer_ocr.model.presets import ModelConfig

Widths = TypeVar("Widths", Tensor, I64)
BLANK = 0
"""CTC's blank takes the id of `<pad>`, which no text holds."""


class CtcHead(nn.Module):
    """Several slots out of every frame, as Khmer stacks more symbols than a stride of 4 px leaves frames."""

    def __init__(self, width: int, slots: int, vocabulary: int) -> None:
        super().__init__()
        self.slots, inner = slots, width // 2
        self.spread, self.score = nn.Linear(width, slots * inner), nn.Linear(inner, vocabulary)

    def forward(self, frames_BTD: Tensor) -> Tensor:
        """Scores (B, T * slots, V)."""
        spread = torch.relu(self.spread(frames_BTD)).unflatten(2, (self.slots, -1))
        return self.score(spread.flatten(1, 2))


class Seq2Seq(nn.Module):
    """Reads lines of 32 px.

    Args:
        config: its shape.
        vocabulary: number of token ids, specials included.
    """

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.encoder: ConvEncoder | CrnnEncoder = (ConvEncoder if config.encoder == "conv" else CrnnEncoder)(config)
        self.ctc = CtcHead(config.width, config.slots, vocabulary)
        decoder = TransformerDecoder if config.decoder == "transformer" else GruDecoder
        self.decoder: TransformerDecoder | GruDecoder = decoder(config, vocabulary)

    def encode(self, images_B1HW: Tensor, width_B: Tensor) -> Memory:
        """Look at lines.

        Args:
            images_B1HW: float32 in 0..1, background 1, H = 32; what lies beyond a line's width does not matter.
            width_B: int64 widths in px, at least 1, on the same device.

        Returns:
            Frames, one for every 4 px begun, and their counts.
        """
        return Memory(*self.encoder(images_B1HW, width_B))

    def ctc_scores(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Scores (B, S, V) before the softmax, and how many slots each line has, int64 (B,)."""
        return self.ctc(memory.frames_BTD), memory.frame_count_B * self.config.slots

    def ctc_log_probs(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Log-probabilities float32 (B, S, V), `BLANK` among them, and how many slots each line has, int64 (B,)."""
        scores, slot_count_B = self.ctc_scores(memory)
        return scores.float().log_softmax(2), slot_count_B

    def decoder_log_probs(self, memory: Memory, tokens_BL: Tensor, rows_B: Tensor | None = None) -> Tensor:
        """Log-probabilities float32 (B, L, V) of the token after each of a known text, which begins with `<sos>`.

        `rows_B`, int64, names the line that each text is of, where that is not one each in order.
        """
        return self.decoder(memory, tokens_BL, None, rows_B).float().log_softmax(2)

    def forward(self, images_B1HW: Tensor, width_B: Tensor, tokens_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What training needs, in one call, as data-parallel wrappers want it.

        Returns:
            CTC scores (B, S, V), slot counts int64 (B,), decoder scores (B, L, V).
        """
        memory = self.encode(images_B1HW, width_B)
        scores, slot_count_B = self.ctc_scores(memory)
        return scores, slot_count_B, self.decoder(memory, tokens_BL)

    def fold(self) -> "Seq2Seq":
        """Make it faster for reading; it can't be trained or saved thereafter."""
        self.eval()
        self.encoder.fold()
        return self

    def halve(self) -> "Seq2Seq":
        """Convolve and multiply by weights in bfloat16, for reading on CPUs with AMX and on GPUs; after `fold`.

        What is summed over a line or a batch is summed in float32 or more, so that a line's reading hardly depends on
        what else is in its batch.
        """
        self.encoder.halve()
        self.decoder.halve()
        return self


def slots_for(width_px: Widths, slots: int) -> Widths:
    """CTC slots of lines so wide, integers: the frames begun times the slots of each."""
    return (width_px + 3) // 4 * slots

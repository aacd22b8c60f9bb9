"""The encoder of preset `buoy2022`: seven convolutions, then bidirectional GRUs. Slow on CPUs.

Letters: B lines, H rows, W columns, T frames, D width of a frame.
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from khmer_ocr.model.encoder import standardised
from khmer_ocr.model.masks import column_masks
from khmer_ocr.model.presets import ModelConfig

_POOL_AFTER: dict[int, tuple[int, int]] = {0: (2, 2), 1: (2, 2), 3: (2, 1), 5: (2, 1)}
"""Pooling after a convolution, as (rows, columns): 32 rows become 2, and a column stands for 4 px."""
_NORM_AFTER = (2, 4, 5, 6)


class CrnnEncoder(nn.Module):
    """Convolutions of 3 x 3, the last one of 2 x 1, with max pooling; then GRUs of half the width in each direction."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        ins = (1, *config.channels[:-1])
        last = len(config.channels) - 1
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, (2, 1) if at == last else 3, padding=0 if at == last else 1)
            for at, (before, after) in enumerate(zip(ins, config.channels, strict=True))
        )
        self.norms = nn.ModuleDict({str(at): nn.BatchNorm2d(config.channels[at]) for at in _NORM_AFTER})
        self.frozen = False
        self.gru = nn.GRU(
            config.channels[-1],
            config.width // 2,
            config.layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )

    def forward(self, images_B1HW: Tensor, width_B: Tensor) -> tuple[Tensor, Tensor]:
        """Encode lines; see `khmer_ocr.model.encoder.ConvEncoder.forward`. Pooling rounds up: the last px counts."""
        masks = column_masks(width_B, images_B1HW.shape[3], 2)
        x, halvings = standardised(images_B1HW, width_B, masks[0].inside_B11W), 0
        for at, conv in enumerate(self.convs):
            x = conv(x)
            if str(at) in self.norms:
                x = self._normalised(x, cast(nn.BatchNorm2d, self.norms[str(at)]))
            x = F.relu(x) * masks[halvings].inside_B11W.to(x.dtype)
            if at in _POOL_AFTER:
                rows, columns = _POOL_AFTER[at]
                x = F.max_pool2d(x, (rows, columns), ceil_mode=True)
                halvings += columns - 1
        frame_count_B = (width_B + 3) // 4
        frames_BTD = x.squeeze(2).transpose(1, 2)
        packed = pack_padded_sequence(frames_BTD, frame_count_B.cpu(), batch_first=True, enforce_sorted=False)
        frames_BTD, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=frames_BTD.shape[1])
        return frames_BTD, frame_count_B

    def _normalised(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        if not self.frozen:
            return norm(x)
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)

    def freeze_norms(self) -> None:
        """Normalise by what has been seen so far, in training too."""
        self.frozen = True

    def halve(self) -> None:
        """Nothing: most of the time goes to the GRUs."""

    def fold(self) -> None:
        """Nothing to fold that would pay beside the GRUs."""

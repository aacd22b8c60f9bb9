"""Lines to frames: convolutions down to one frame per 4 px, then layers in which frames look at each other.

Letters: B lines, C channels, H rows, W columns, T frames, D width of a frame.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from khmer_ocr.model.attention import Attention, FeedForward, Half, HalfSum, rotate
from khmer_ocr.model.masks import Mask, column_masks, halved, inside
from khmer_ocr.model.presets import ModelConfig

FLAT = 0.05
"""Deviation of grey (0..1) below which a line counts as empty and its contrast is not stretched further."""


def standardised(images_B1HW: Tensor, width_B: Tensor, mask_B11W: Tensor) -> Tensor:
    """Ink positive, each line with mean 0 and deviation 1 over its own pixels, and 0 beyond its width.

    Faded toner and a grey background thereby look like any other line.

    Args:
        images_B1HW: float32 in 0..1, background 1.
        width_B: int64 widths in px.
        mask_B11W: 1 inside lines, 0 beyond.
    """
    ink = (1 - images_B1HW) * mask_B11W
    count_B = (width_B * images_B1HW.shape[2]).to(ink.dtype).view(-1, 1, 1, 1)
    # Sums in float64, so that a line's do not depend on what stands beside it.
    mean = ink.sum((1, 2, 3), keepdim=True, dtype=torch.float64) / count_B
    centred = (ink - mean.to(ink.dtype)) * mask_B11W
    deviation = (centred.square().sum((1, 2, 3), keepdim=True, dtype=torch.float64) / count_B).sqrt()
    return centred / (deviation + FLAT).to(ink.dtype)


class ConvNorm(nn.Module):
    """Convolution and batch normalisation; ReLU and zero beyond the lines where a mask is given."""

    def __init__(self, ins: int, outs: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, 3, stride, 1, bias=False)
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(outs)
        self.frozen = False

    def forward(self, x: Tensor, mask: Mask | None = None) -> Tensor:
        """Channels (B, C, H, W), and a mask of the columns that come out."""
        x = self._frozen(x) if self.frozen else self.norm(self.conv(x))
        return x if mask is None else mask.relu(x)

    def _frozen(self, x: Tensor) -> Tensor:
        """Normalise by what has been seen so far, within the convolution; its weights go on learning."""
        norm = self.norm
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
        scale_C = norm.weight * (norm.running_var + norm.eps).rsqrt()
        bias_C = norm.bias - norm.running_mean * scale_C
        weight = self.conv.weight * scale_C[:, None, None, None]
        return F.conv2d(x, weight, bias_C, self.conv.stride, self.conv.padding)

    def fold(self) -> None:
        """Take the normalisation into the convolution: the same function, faster; not for training."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm, self.frozen = nn.Identity(), False


class Residual(nn.Module):
    """Two convolutions beside the identity; zero beyond the lines."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(channels, channels), ConvNorm(channels, channels)

    def forward(self, x: Tensor, mask: Mask) -> Tensor:
        """Channels (B, C, H, W), and a mask of their columns."""
        return mask.relu(self.second(self.first(x, mask)) + x)


class FrameLayer(nn.Module):
    """A convolution over neighbouring frames, self-attention, a feed-forward layer, each beside the identity."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.near = nn.Conv1d(width, width, config.kernel, padding=config.kernel // 2, groups=width)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, config.heads, config.dropout)
        self.forward_norm = nn.LayerNorm(width)
        self.feed_forward: nn.Module = FeedForward(width, config.expansion, config.dropout)
        self.drop = nn.Dropout(config.dropout)

    def halve(self) -> None:
        """Multiply by weights in bfloat16."""
        self.attention.halve()
        self.feed_forward = Half(self.feed_forward)

    def forward(self, x_BTD: Tensor, inside_BT: Tensor) -> Tensor:
        """Frames, and which of them belong to their line."""
        x = x_BTD + self.near((x_BTD * inside_BT[..., None]).transpose(1, 2)).transpose(1, 2)
        y = self.attention_norm(x)
        query = rotate(self.attention.split(self.attention.query(y)))
        key, value = self.attention.keys_values(y)
        x = x + self.drop(self.attention.attend(query, rotate(key), value, inside_BT[:, None, None]))
        return x + self.drop(self.feed_forward(self.forward_norm(x)))


class ConvEncoder(nn.Module):
    """Convolutional stages with residual blocks, then `FrameLayer`s; no recurrence."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        strides = ((1, 1), (2, 2), (2, 2), (2, 1))
        ins = (1, *config.channels[:-1])
        self.stages = nn.ModuleList(
            nn.ModuleList([ConvNorm(before, after, stride), *(Residual(after) for _ in range(count))])
            for before, after, stride, count in zip(ins, config.channels, strides, config.blocks, strict=True)
        )
        rows = config.height_px // 8
        self.project: nn.Module = nn.Linear(config.channels[-1] * rows, config.width)
        self.layers = nn.ModuleList(FrameLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.frames_step = 1

    def forward(self, images_B1HW: Tensor, width_B: Tensor) -> tuple[Tensor, Tensor]:
        """Encode lines.

        Args:
            images_B1HW: float32 in 0..1, background 1, H as configured; what is beyond a line's width does not matter.
            width_B: int64 widths in px, at least 1.

        Returns:
            Frames (B, T, D) and how many of them each line has, int64 (B,); frames beyond that mean nothing.
        """
        first = cast(ConvNorm, cast(nn.ModuleList, self.stages[0])[0])
        kind, dtype = images_B1HW.device.type, first.conv.weight.dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        # On a GPU the shortest would have to be waited for, and an exported graph must hold for any.
        known = not (width_B.is_cuda or torch.compiler.is_compiling()) and len(width_B) > 0
        shortest = int(width_B.min()) if known else 0
        full, half, quarter = column_masks(width_B, images_B1HW.shape[3], 2, dtype, shortest)
        x = standardised(images_B1HW, width_B, full.inside_B11W.float()).to(dtype)
        for stage, mask in zip(self.stages, (full, half, quarter, quarter), strict=True):
            for block in cast(nn.ModuleList, stage):
                x = block(x, mask)
        frame_count_B = halved(halved(width_B))
        x_BTD = self.project(x.permute(0, 3, 2, 1).flatten(2))
        if self.frames_step > 1:
            x_BTD = F.pad(x_BTD, (0, 0, 0, -x_BTD.shape[1] % self.frames_step))
        inside_BT = inside(frame_count_B, x_BTD.shape[1])
        for layer in self.layers:
            x_BTD = layer(x_BTD, inside_BT)
        return self.norm(x_BTD), frame_count_B

    def freeze_norms(self) -> None:
        """Normalise by what has been seen so far, in training too."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.frozen = True

    def halve(self) -> None:
        """Convolve and multiply by weights in bfloat16, after `fold`; all else stays in float32."""
        self.stages.to(torch.bfloat16)
        self.project = HalfSum(cast(nn.Linear, self.project))
        for layer in cast(list[FrameLayer], self.layers):
            layer.halve()
        # Fused attention adds up a line's frames in the same order however many follow, if they are whole vectors.
        self.frames_step = 16

    def fold(self) -> None:
        """Take every normalisation into its convolution, and lay weights out as CPUs and GPUs read them fastest."""
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        self.to(memory_format=torch.channels_last)

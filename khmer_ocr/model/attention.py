"""Attention: of frames to each other, of a decoder to its past and to the frames.

Letters: B lines, Q queries, K keys, D width, N heads.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TABLE_STEP = 256
"""Tables of positions are kept, and are as long as the next multiple of it."""


def sinusoids(first: int, last: int, like_D: Tensor) -> Tensor:
    """Sines and cosines of positions first to last - 1 (Vaswani et al., 2017), of the dtype of `like_D`, (L, D)."""
    sin_TD, cos_TD = _tables(last, like_D)
    half = like_D.shape[-1] // 2
    return torch.cat([sin_TD[first:last, half:], cos_TD[first:last, half:]], 1)


def rotate(x_BNTD: Tensor, first: int = 0) -> Tensor:
    """Turn pairs of values by angles that grow with their position, so that products know distances (RoPE).

    Su et al., "RoFormer", 2021: frequencies 10000 ** (-2 i / D).

    Args:
        x_BNTD: queries or keys, D even.
        first: position of the first of the T.
    """
    half, last = x_BNTD.shape[-1] // 2, first + x_BNTD.shape[-2]
    sin_TD, cos_TD = _tables(last, x_BNTD)
    swapped = torch.cat([x_BNTD[..., half:], x_BNTD[..., :half]], -1)
    return x_BNTD * cos_TD[first:last] + swapped * sin_TD[first:last]


def _tables(last: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Sines, those of the first half negative, and cosines, at least (last, D) each."""
    if torch.compiler.is_compiling():  # a graph must hold for any length
        return _computed(last, like.shape[-1], like.device, like.dtype)
    return _kept(-(-last // _TABLE_STEP) * _TABLE_STEP, like.shape[-1], like.device, like.dtype)


@lru_cache(maxsize=32)
def _kept(length: int, width: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.no_grad():  # also used in training, even if it was made while reading
        return _computed(length, width, device, dtype)


def _computed(length: int, width: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of positions times 10000 ** (-i / half), twice side by side."""
    half = width // 2
    place_T = torch.arange(length, device=device, dtype=torch.float32)
    rate_D = 10000.0 ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    angle_TD = place_T[:, None] * rate_D
    sin_TD, cos_TD = angle_TD.sin(), angle_TD.cos()
    return torch.cat([-sin_TD, sin_TD], 1).to(dtype), torch.cat([cos_TD, cos_TD], 1).to(dtype)


class Half(nn.Module):
    """A module that computes in bfloat16, between float32 and float32; for reading."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        """As the module inside."""
        found: Tensor = self.inner(x.to(torch.bfloat16)).float()
        return found


class HalfSum(nn.Module):
    """A linear layer as the sum of two in bfloat16.

    Products of more than some 512 values are added up by oneDNN in an order that depends on the number of rows.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.middle = linear.in_features // 2
        self.first, self.second = (
            Half(_linear(linear.weight[:, : self.middle], linear.bias)),
            Half(_linear(linear.weight[:, self.middle :], None)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        found: Tensor = self.first(x[..., : self.middle]) + self.second(x[..., self.middle :])
        return found


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with these weights, where they are."""
    outs, ins = weight.shape
    found = nn.utils.skip_init(nn.Linear, ins, outs, bias=bias is not None, device=weight.device)
    with torch.no_grad():
        found.weight.copy_(weight)
        if bias is not None:
            found.bias.copy_(bias)
    return found


class Attention(nn.Module):
    """Scaled dot-product attention in several heads.

    Args:
        width: of queries, keys and values.
        heads: a divisor of the width.
        dropout: share of attention weights dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query: nn.Module = nn.Linear(width, width)
        self.key_value: nn.Module = nn.Linear(width, 2 * width)
        self.out: nn.Module = nn.Linear(width, width)

    def halve(self) -> None:
        """Multiply by weights in bfloat16; how queries and keys agree is still found in float32."""
        self.query, self.key_value, self.out = Half(self.query), Half(self.key_value), Half(self.out)

    def split(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, heads, T, D / heads)."""
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, x_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values by heads, each (B, heads, K, D / heads)."""
        key, value = self.key_value(x_BKD).chunk(2, dim=-1)
        return self.split(key), self.split(value)

    def attend(
        self, query_BNQD: Tensor, key_BNKD: Tensor, value_BNKD: Tensor, mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        """Mix values by how queries and keys agree.

        Args:
            query_BNQD: queries by heads.
            key_BNKD: keys by heads.
            value_BNKD: values by heads.
            mask: bool, true where a query may look, to be broadcast to (B, heads, Q, K); None lets it look everywhere.
            causal: query i sees keys 0 to i.

        Returns:
            (B, Q, D).
        """
        assert mask is None or not causal
        dropout = self.dropout if self.training else 0.0
        learns = torch.is_grad_enabled()
        # The fused kernel's way back takes four times as long on CPUs, and one step of a decoder is too small for it.
        if (learns and query_BNQD.device.type == "cpu") or (not learns and query_BNQD.shape[2] == 1):
            mixed = _attend_plainly(query_BNQD, key_BNKD, value_BNKD, mask, causal, dropout)
        else:
            mixed = F.scaled_dot_product_attention(
                query_BNQD, key_BNKD, value_BNKD, attn_mask=mask, dropout_p=dropout, is_causal=causal
            )
        return self.out(mixed.transpose(1, 2).flatten(2))


def _attend_plainly(
    query_BNQD: Tensor, key_BNKD: Tensor, value_BNKD: Tensor, mask: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """The same as torch's fused attention, product by product."""
    agreement_BNQK = query_BNQD * query_BNQD.shape[-1] ** -0.5 @ key_BNKD.transpose(2, 3)
    if causal:
        mask = torch.ones(agreement_BNQK.shape[2:], dtype=torch.bool, device=agreement_BNQK.device).tril()
    if mask is not None:
        agreement_BNQK = agreement_BNQK.masked_fill(~mask, -math.inf)
    weights_BNQK = F.dropout(agreement_BNQK.softmax(-1), dropout, dropout > 0)
    return weights_BNQK.to(value_BNKD.dtype) @ value_BNKD


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between them, as wide as `expansion` times the width there."""

    def __init__(self, width: int, expansion: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, expansion * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(expansion * width, width)
        )

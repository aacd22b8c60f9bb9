"""Attention: of frames to each other, of a decoder to its past and to the frames.

Letters: B lines, Q queries, K keys, D width, N heads.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TABLE_STEP = 256
"""Tables of positions are kept, and are as long as the next multiple of it."""


def waves(first: int, last: int, like_D: Tensor) -> Tensor:
    """Sines and cosines of positions first to last - 1 (Vaswani et al., 2017), of the dtype of `like_D`, (L, D)."""
    return torch.cat(_sin_cos(first, last, like_D.shape[-1] // 2, like_D), 1)


def _sin_cos(first: int, last: int, half: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Sines and cosines of positions times 10000 ** (-i / half), each (last - first, half)."""
    if torch.compiler.is_compiling():  # a graph must hold for any length
        sin_TD, cos_TD = _table(last, half, like.device, like.dtype)
    else:
        sin_TD, cos_TD = _kept_table(-(-last // _TABLE_STEP) * _TABLE_STEP, half, like.device, like.dtype)
    return sin_TD[first:last], cos_TD[first:last]


@lru_cache(maxsize=32)
def _kept_table(length: int, half: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.no_grad():  # to be used in training too, whoever asks first
        return _table(length, half, device, dtype)


def _table(length: int, half: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    place_T = torch.arange(length, device=device, dtype=torch.float32)
    rate_D = 10000.0 ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    angle_TD = place_T[:, None] * rate_D
    return angle_TD.sin().to(dtype), angle_TD.cos().to(dtype)


def rotate(x_BNTD: Tensor, first: int = 0) -> Tensor:
    """Turn pairs of values by angles that grow with their position, so that products know distances (RoPE).

    Su et al., "RoFormer", 2021: frequencies 10000 ** (-2 i / D).

    Args:
        x_BNTD: queries or keys, D even.
        first: position of the first of the T.
    """
    half = x_BNTD.shape[-1] // 2
    sin_TD, cos_TD = _sin_cos(first, first + x_BNTD.shape[-2], half, x_BNTD)
    low, high = x_BNTD[..., :half], x_BNTD[..., half:]
    return torch.cat([low * cos_TD - high * sin_TD, low * sin_TD + high * cos_TD], dim=-1)


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
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

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
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            query_BNQD, key_BNKD, value_BNKD, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between them, as wide as `expansion` times the width there."""

    def __init__(self, width: int, expansion: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, expansion * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(expansion * width, width)
        )

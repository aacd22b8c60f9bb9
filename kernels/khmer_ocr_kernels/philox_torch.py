"""Philox4x32-10 in torch's integer operations: the words of `philox.philox4x32`, on any device.

torch has no arithmetic on unsigned words, so a 32-bit word travels as an int64 between 0 and 2**32 - 1.

Letters: B draws, b lines (a key each), N words or bytes a line.
"""

import numpy as np
import torch

from khmer_ocr_kernels import philox
from khmer_ocr_kernels.philox import ROUNDS

_MUL_0, _MUL_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_MASK, _HALF = 0xFFFFFFFF, 0x80000000


def _high_low(multiplier: int, word: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # The product needs 64 bits and int64 has 63. Half of it, multiplier * 2**31, is left out of the multiplication, so
    # that nothing overflows; as multipliers are odd it is (multiplier >> 1) * 2**32 + 2**31.
    product = (word - _HALF) * multiplier + _HALF
    return (product >> 32) + (multiplier >> 1), product & _MASK


def _rounds(counter_B4: torch.Tensor, key_B2: torch.Tensor) -> torch.Tensor:
    c0, c1, c2, c3 = counter_B4.unbind(-1)
    k0, k1 = key_B2.unbind(-1)
    for _ in range(ROUNDS):
        high_0, low_0 = _high_low(_MUL_0, c0)
        high_1, low_1 = _high_low(_MUL_1, c2)
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), dim=-1)


def philox4x32(counter_B4: torch.Tensor, key_B2: torch.Tensor) -> torch.Tensor:
    """Encrypt counters with keys: four independent uniform 32-bit words per row.

    Args:
        counter_B4: counters, one row a draw; any integer dtype, of which the low 32 bits count.
        key_B2: keys, likewise, broadcast against the counters' rows, on the same device.

    Returns:
        int64 tensor of values from 0 to 2**32 - 1, equal to those of `philox.philox4x32`; its shape is that of the
        counters, broadcast by the keys.
    """
    counter_B4, key_B2 = counter_B4.to(torch.int64) & _MASK, key_B2.to(torch.int64) & _MASK
    if counter_B4.device.type != "cpu" or key_B2.device.type != "cpu":
        return _rounds(counter_B4, key_B2)
    # numpy has 32-bit unsigned words and is several times faster on the CPU.
    shape = (*torch.broadcast_shapes(counter_B4.shape[:-1], key_B2.shape[:-1]), 4)
    counter = counter_B4.broadcast_to(shape).numpy().astype(np.uint32)
    return torch.from_numpy(philox.philox4x32(counter, key_B2.numpy().astype(np.uint32)).astype(np.int64))


def words(key_b2: torch.Tensor, count: int, salt_3: tuple[int, int, int] = (0, 0, 0)) -> torch.Tensor:
    """Draw uniform 32-bit words for every key: call n gives words 4 n to 4 n + 3.

    Args:
        key_b2: keys (b, 2), any integer dtype, of which the low 32 bits count.
        count: words a key, at least 0.
        salt_3: counter words 1 to 3, the same for all; draws for different ends need different ones.

    Returns:
        int64 tensor (b, count) of values from 0 to 2**32 - 1; word j never depends on count.
    """
    calls = -(-count // 4)
    counter_n4 = torch.empty((calls, 4), dtype=torch.int64, device=key_b2.device)
    counter_n4[:, 0] = torch.arange(calls, device=key_b2.device)
    for word, salt in enumerate(salt_3):
        counter_n4[:, 1 + word] = salt
    return philox4x32(counter_n4, key_b2[:, None, :]).reshape(len(key_b2), calls * 4)[:, :count]


def uniform_bytes(key_b2: torch.Tensor, count: int, salt_3: tuple[int, int, int] = (0, 0, 0)) -> torch.Tensor:
    """Draw uniform bytes for every key, 16 a call: the words of `words`, low byte first.

    Args:
        key_b2: keys (b, 2), any integer dtype, of which the low 32 bits count.
        count: bytes a key, at least 0.
        salt_3: counter words 1 to 3, the same for all.

    Returns:
        uint8 tensor (b, count); byte j never depends on count.
    """
    word_bN = words(key_b2, -(-count // 16) * 4, salt_3)
    # Low byte first is how every machine that torch runs on stores a word.
    return word_bN.to(torch.uint32).view(torch.uint8)[:, :count]

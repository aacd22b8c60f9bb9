"""Philox4x32-10, the counter-based generator of all random numbers.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Checked against the known
answers of their library Random123. The sample's number belongs in counter words 2 and 3, never multiplied into word 0:
a counter of `id * 65536` wraps after 65,536 samples.
"""

import numpy as np

from khmer_ocr_kernels.arrays import U32

_MUL_0, _MUL_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
ROUNDS = 10


def philox4x32(counter_B4: U32, key_B2: U32) -> U32:
    """Encrypt counters with keys: four independent uniform 32-bit words per row.

    Args:
        counter_B4: uint32 counters, one row a draw.
        key_B2: uint32 keys, broadcast against the counters' rows.

    Returns:
        uint32 array (B, 4).
    """
    c0, c1, c2, c3 = (counter_B4[..., word].astype(np.uint32) for word in range(4))
    keys = np.broadcast_to(key_B2, (*counter_B4.shape[:-1], 2))
    k0, k1 = keys[..., 0].astype(np.uint32), keys[..., 1].astype(np.uint32)
    with np.errstate(over="ignore"):
        for _ in range(ROUNDS):
            product_0, product_1 = _MUL_0 * c0.astype(np.uint64), _MUL_1 * c2.astype(np.uint64)
            high_0, low_0 = (product_0 >> _HALF).astype(np.uint32), (product_0 & _LOW).astype(np.uint32)
            high_1, low_1 = (product_1 >> _HALF).astype(np.uint32), (product_1 & _LOW).astype(np.uint32)
            c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
            k0, k1 = k0 + _WEYL_0, k1 + _WEYL_1
    return np.stack([c0, c1, c2, c3], axis=-1)

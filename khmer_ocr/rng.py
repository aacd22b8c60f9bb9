"""The only source of random numbers in the project: (run seed, split, stage) -> key, sample number -> counter.

Nothing here has state. The same address gives the same words on any machine, in any order, with any number of workers.
Letters: B samples, N words drawn per sample.
"""

import hashlib

import numpy as np
import numpy.typing as npt
from khmer_ocr_kernels.philox import philox4x32


def key(seed: int, split: str, stage: str) -> npt.NDArray[np.uint32]:
    """Derive the Philox key of one stage of one split of one run.

    Args:
        seed: the run's seed, any integer.
        split: name of the split, e.g. "train".
        stage: what the numbers are for, e.g. "plan".

    Returns:
        uint32 array (2,).
    """
    digest = hashlib.blake2b(f"{seed}|{split}|{stage}".encode(), digest_size=8).digest()
    return np.frombuffer(digest, dtype="<u4").astype(np.uint32)


def draws(key_2: npt.NDArray[np.uint32], address_B: npt.NDArray[np.uint64], n: int) -> npt.NDArray[np.uint32]:
    """Draw n uniform 32-bit words for every address.

    Args:
        key_2: uint32 key from `key`.
        address_B: uint64 sample numbers (train) or text hashes (val, test).
        n: words per address, at least 1.

    Returns:
        uint32 array (B, n). Word j of an address never depends on n.
    """
    blocks = -(-n // 4)
    counter_BK4 = np.zeros((len(address_B), blocks, 4), np.uint32)
    counter_BK4[:, :, 0] = np.arange(blocks, dtype=np.uint32)
    counter_BK4[:, :, 2] = (address_B & np.uint64(0xFFFFFFFF)).astype(np.uint32)[:, None]
    counter_BK4[:, :, 3] = (address_B >> np.uint64(32)).astype(np.uint32)[:, None]
    return philox4x32(counter_BK4, key_2).reshape(len(address_B), blocks * 4)[:, :n]


def word(key_2: npt.NDArray[np.uint32], address: int) -> int:
    """One word of one address: what seeds a generator of another library."""
    return int(draws(key_2, np.array([address], np.uint64), 1)[0, 0])


def below(word_B: npt.NDArray[np.uint32], bound: int | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Map uniform words to integers in [0, bound) by the multiply-shift of Lemire (2019); bias below bound / 2**32."""
    return (word_B.astype(np.uint64) * np.asarray(bound, dtype=np.uint64) >> np.uint64(32)).astype(np.int64)


def text_address(text: str) -> int:
    """Hash a text to the 64-bit address that decides how a val or test line is drawn."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

"""A set of 64-bit hashes with a small value each: duplicates are found at 14-27 bytes a line instead of a hundred.

Letters: N keys.
"""

import numpy as np
import numpy.typing as npt

VALUES = 3
"""Values run from 0 to VALUES - 1; they lie in the two low bits of a slot, so keys differ in their upper 62 bits."""

_LOW = np.uint64(3)
_FULL = 0.55
_SLICE = 1 << 18


def significant(hash_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Clear the bits of hashes that the table does not distinguish."""
    return hash_N & ~_LOW


class HashTable:
    """Open addressing with linear probing, whole batches of keys at a time."""

    def __init__(self) -> None:
        self._slots = np.zeros(1 << 12, np.uint64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Memory held by the slots."""
        return self._slots.nbytes

    def look_up(self, key_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.int8]:
        """Find the value of each key.

        Args:
            key_N: well-mixed hashes.

        Returns:
            int8 array (N,), -1 where the key is not in the table.
        """
        value_N = np.full(len(key_N), -1, np.int8)
        open_K = np.arange(len(key_N))
        place_K = self._first_place(key_N)
        while len(open_K):
            slot_K = self._slots[place_K]
            hit_K = (slot_K & ~_LOW == significant(key_N[open_K])) & (slot_K != 0)
            value_N[open_K[hit_K]] = (slot_K[hit_K] & _LOW).astype(np.int8) - 1
            onward_K = ~hit_K & (slot_K != 0)
            open_K, place_K = open_K[onward_K], self._next_place(place_K[onward_K])
        return value_N

    def insert(self, key_N: npt.NDArray[np.uint64], value_N: npt.NDArray[np.int8]) -> None:
        """Add keys that are not in the table yet and differ among themselves.

        Args:
            key_N: well-mixed hashes.
            value_N: their values, 0 to VALUES - 1.
        """
        self._reserve(self._count + len(key_N))
        self._place(significant(key_N) | (value_N.astype(np.uint64) + np.uint64(1)))
        self._count += len(key_N)

    def _first_place(self, key_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        return (key_N >> np.uint64(2) & np.uint64(len(self._slots) - 1)).astype(np.int64)

    def _next_place(self, place_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return place_N + 1 & len(self._slots) - 1

    def _place(self, entry_N: npt.NDArray[np.uint64]) -> None:
        place_N = self._first_place(entry_N)
        while len(entry_N):
            free_N = self._slots[place_N] == 0
            self._slots[place_N[free_N]] = entry_N[free_N]
            # Of several entries for one free slot the last was stored; the others, and those of a full slot, go on.
            onward_N = self._slots[place_N] != entry_N
            entry_N, place_N = entry_N[onward_N], self._next_place(place_N[onward_N])

    def _reserve(self, count: int) -> None:
        if count <= _FULL * len(self._slots):
            return
        size = len(self._slots)
        while count > _FULL * size:
            size *= 2
        old, self._slots = self._slots, np.zeros(size, np.uint64)
        for start in range(0, len(old), _SLICE):
            part = old[start : start + _SLICE]
            self._place(part[part != 0])

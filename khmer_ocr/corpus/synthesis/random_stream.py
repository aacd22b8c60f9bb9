"""Random numbers for generated text: the words of one address, one after another. Letters: B addresses, N words."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from khmer_ocr import rng

_Item = TypeVar("_Item")


class RandomStream:
    """The random words of one line, drawn further when they run out; word j never depends on how many are drawn.

    Args:
        key_2: from `rng.key`.
        address: the line's number.
        words: its first words.
    """

    def __init__(self, key_2: npt.NDArray[np.uint32], address: int, words: list[int]) -> None:
        self._key_2, self._address, self._words, self._next = key_2, address, words, 0

    def below(self, bound: int) -> int:
        """Draw an integer in [0, bound), by multiply and shift as `rng.below` does."""
        if self._next == len(self._words):
            address_1 = np.array([self._address], np.uint64)
            self._words = rng.draws(self._key_2, address_1, 4 * len(self._words))[0].tolist()
        word = self._words[self._next]
        self._next += 1
        return word * bound >> 32

    def pick(self, items: Sequence[_Item]) -> _Item:
        """Draw one of some items."""
        return items[self.below(len(items))]


def random_streams(key_2: npt.NDArray[np.uint32], addresses: range, words: int) -> Iterator[RandomStream]:
    """Make the stream of many addresses at once.

    Args:
        key_2: from `rng.key`.
        addresses: the numbers of lines.
        words: how many words most lines need.

    Yields:
        RandomStream in the order of the addresses.
    """
    address_B = np.arange(addresses.start, addresses.stop, addresses.step, dtype=np.uint64)
    words_BN = rng.draws(key_2, address_B, words).tolist()
    for address, first in zip(addresses, words_BN, strict=True):
        yield RandomStream(key_2, address, first)

"""Texts of a batch to padded token ids, for all its lines at once.

Letters: B texts, T tokens of the longest.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from khmer_ocr_kernels.arrays import I64

from khmer_ocr.text.charset import PAD, Charset


class Vocabulary(Protocol):
    """What turns a text into token ids; 0 is the padding and stands for no character."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...


class TargetEncoder:
    """Encodes texts as `vocab` does; a `Charset`, which maps each code point by itself, through one table.

    Args:
        vocab: gives the ids.
    """

    def __init__(self, vocab: Vocabulary) -> None:
        self._vocab = vocab
        self._ids: I64 | None = None
        if isinstance(vocab, Charset):
            codes = [ord(character) for character in vocab.characters]
            # One place more than the largest code: everything beyond is as unknown as that.
            self._ids = np.full(max(codes, default=0) + 2, vocab.encode("\U0010ffff")[0], np.int64)
            self._ids[codes] = [vocab.encode(character)[0] for character in vocab.characters]

    def __call__(self, texts: Sequence[str]) -> tuple[I64, I64]:
        """Encode texts.

        Args:
            texts: B texts.

        Returns:
            int64 (B, T), 0 after the end of each text, and int64 (B,), tokens of each.
        """
        if self._ids is None:
            tokens = [self._vocab.encode(text) for text in texts]
            length_B = np.array([len(ids) for ids in tokens], np.int64)
            flat = np.array([token for ids in tokens for token in ids], np.int64)
        else:
            length_B = np.array([len(text) for text in texts], np.int64)
            codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
            flat = self._ids[np.minimum(codes, len(self._ids) - 1)]
        targets_BT = np.full((len(texts), length_B.max(initial=0)), PAD, np.int64)
        targets_BT[np.arange(targets_BT.shape[1]) < length_B[:, None]] = flat
        return targets_BT, length_B

"""Documents in, clean lines out: what is kept, what is dropped and why, and which split a line goes to.

A document goes whole to the split its seeded hash names. Only a line whose near-copy (the same text but for digits,
spaces, punctuation and case) already stands in another split follows that copy there: nothing is lost that way, no
near-copy stands in two splits, and a second run over the output drops nothing. Such lines are counted as `moved`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash

from khmer_ocr.corpus.dedup import HashTable, significant
from khmer_ocr.corpus.exclusion import Exclusion
from khmer_ocr.corpus.line_breaking import cut
from khmer_ocr.corpus.split_writer import SplitWriter
from khmer_ocr.corpus.text_streams import split_lines
from khmer_ocr.dataset.layout import SPLITS
from khmer_ocr.rng import text_address
from khmer_ocr.text.syllables import is_well_formed

MIN_KHMER_SHARE = 0.3
"""Of the letters of a document; below, it is not a Khmer text, and each line is judged alone by the same share."""
TRAIN_SHARE, VAL_SHARE = 0.8, 0.1
_BATCH_LINES = 4096
_KHMER = re.compile(r"[\u1780-\u17ff\u19e0-\u19ff]+")
_OTHER_LETTERS = re.compile(r"[^\W\d_]+")
# The replacement character and private use: no such line says what was once written.
_DAMAGED = re.compile("[\ufffd-\uffff\ue000-\uf8ff]")
# Digits, spaces, punctuation and symbols: ASCII, Latin-1, Khmer, the general blocks, full width. Spelt out because the
# class W of `re` holds the Khmer vowel signs too, and a class of whole Unicode categories took 22 us a line, not 2.
_NEUTRAL = re.compile(
    "[\x00-@\\[-`{-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u17d4-\u17d6\u17d8-\u17db\u17e0-\u17f9\u19e0-\u19ff"
    "\u2000-\u206f\u20a0-\u20cf\u2190-\u2bff\u3000-\u3004\u3008-\u3020\uff01-\uff20]+"
)


@dataclass
class FilterCounts:
    """What a filter kept and what it dropped, by reason."""

    documents: Counter[str] = field(default_factory=Counter)
    lines_read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    moved: int = 0


def is_khmer(text: str) -> bool:
    """Tell whether at least `MIN_KHMER_SHARE` of the letters of a text are Khmer."""
    rest = _KHMER.sub("", text)
    khmer = len(text) - len(rest)
    others = sum(map(len, _OTHER_LETTERS.findall(rest)))
    return khmer > 0 and khmer >= MIN_KHMER_SHARE * (khmer + others)


def near_copy_key(line: str) -> str:
    """Reduce a line to what two near-copies have in common.

    Args:
        line: a normalised line.

    Returns:
        The line without digits, spaces, punctuation and symbols, case-folded; the line itself if nothing else is in it.
    """
    return _NEUTRAL.sub("", line).casefold() or line


def split_of(text: str, seed: int) -> str:
    """Choose the split of a document or line by its seeded hash.

    Args:
        text: the document's or line's text.
        seed: the run's seed.

    Returns:
        "train", "val" or "test".
    """
    share = text_address(f"{seed}|split|{text}") / 2**64
    return SPLITS[(share >= TRAIN_SHARE) + (share >= TRAIN_SHARE + VAL_SHARE)]


class LineFilter:
    """Cleans documents, drops exact duplicates, and hands lines to the writer in the order of reading.

    Args:
        writer: takes the lines that remain.
        min_chars: shortest line in code points.
        max_chars: longest line in code points.
        seed: the run's seed.
        by_line: choose the split by the line instead of by the document.
        exclusion: texts that no line may share a passage with.
    """

    def __init__(
        self,
        writer: SplitWriter,
        *,
        min_chars: int,
        max_chars: int,
        seed: int,
        by_line: bool,
        exclusion: Exclusion | None = None,
    ) -> None:
        self.counts = FilterCounts()
        self._writer = writer
        self._min_chars = min_chars
        self._max_chars = max_chars
        self._seed = seed
        self._by_line = by_line
        self._exclusion = Exclusion(()) if exclusion is None else exclusion
        self._exact = HashTable()
        self._near = HashTable()
        self._waiting: list[tuple[str, str, int]] = []

    def add_document(self, text: str) -> None:
        """Take the raw text of a document, paragraphs divided by line ends."""
        self.counts.documents["read"] += 1
        raw_lines = [line for line in split_lines([text]) if line.strip()]
        self.counts.lines_read += len(raw_lines)
        kind = "kept"
        if not is_khmer(text):
            # Of text in two languages the Khmer lines are kept: foreign ones beside them make them no worse.
            khmer = [line for line in raw_lines if is_khmer(line)] if _KHMER.search(text) else []
            if not khmer:
                self.counts.documents["not_khmer"] += 1
                self.counts.dropped["in_document_not_khmer"] += len(raw_lines)
                return
            self.counts.dropped["line_not_khmer"] += len(raw_lines) - len(khmer)
            kind, raw_lines = "kept_in_part", khmer
        lines = [line for raw in raw_lines for line in cut(raw, self._max_chars, self._min_chars) if self._keeps(line)]
        if not lines:
            self.counts.documents["without_lines"] += 1
            return
        self.counts.documents[kind] += 1
        if self._by_line:
            for line in lines:
                self._add(line)
        else:
            home = SPLITS.index(split_of("\n".join(lines), self._seed))
            for line in lines:
                self._add(line, home)

    def add_line(self, text: str) -> None:
        """Take a line that is a document of its own and Khmer by construction."""
        self.counts.lines_read += 1
        for line in cut(text, self._max_chars, self._min_chars):
            if self._keeps(line):
                self._add(line)

    def refuse(self, lines: Sequence[str], split: str) -> list[bool]:
        """Tell which lines are near-copies of lines that another split holds, or share a passage with excluded texts.

        Args:
            lines: normalised lines.
            split: the split they are meant for.

        Returns:
            One answer a line; lines that wait for `flush` are not looked at.
        """
        hashes = [xxhash.xxh3_64_intdigest(near_copy_key(line).encode()) for line in lines]
        split_N = self._near.look_up(np.array(hashes, np.uint64))
        elsewhere_N = (split_N >= 0) & (split_N != SPLITS.index(split))
        refused: list[bool] = (elsewhere_N | self._exclusion.shared(lines)).tolist()
        return refused

    def flush(self) -> None:
        """Write what waits; call it once at the end."""
        waiting, self._waiting = self._waiting, []
        excluded = self._exclusion.shared([line for line, _, _ in waiting])
        if excluded.any():
            self.counts.dropped["excluded"] += int(excluded.sum())
            waiting = [each for each, is_excluded in zip(waiting, excluded.tolist(), strict=True) if not is_excluded]
        if not waiting:
            return
        exact_N = significant(np.array([xxhash.xxh3_64_intdigest(line.encode()) for line, _, _ in waiting], np.uint64))
        near_N = significant(np.array([xxhash.xxh3_64_intdigest(key.encode()) for _, key, _ in waiting], np.uint64))
        known_N, near_split_N = self._exact.look_up(exact_N), self._near.look_up(near_N)
        fresh: set[int] = set()
        splits: dict[int, int] = {}
        kept: list[list[str]] = [[] for _ in SPLITS]
        for (line, _, expected), exact, known, near, near_split in zip(
            waiting, exact_N.tolist(), known_N.tolist(), near_N.tolist(), near_split_N.tolist(), strict=True
        ):
            if known >= 0 or exact in fresh:
                self.counts.dropped["duplicate"] += 1
                continue
            fresh.add(exact)
            home = near_split if near_split >= 0 else splits.setdefault(near, expected)
            self.counts.moved += home != expected
            kept[home].append(line)
        self._exact.insert(np.fromiter(fresh, np.uint64, len(fresh)), np.zeros(len(fresh), np.int8))
        self._near.insert(
            np.fromiter(splits, np.uint64, len(splits)), np.fromiter(splits.values(), np.int8, len(splits))
        )
        for split, lines in zip(SPLITS, kept, strict=True):
            self._writer.write(split, lines)

    def _keeps(self, line: str) -> bool:
        reason = self._fault(line)
        if reason:
            self.counts.dropped[reason] += 1
        return not reason

    def _fault(self, line: str) -> str:
        if not line:
            return "without_ink"
        if len(line) < self._min_chars:
            return "too_short"
        if len(line) > self._max_chars:
            return "syllable_too_long"
        if _DAMAGED.search(line):
            return "damaged_character"
        return "" if is_well_formed(line) else "broken_syllable"

    def _add(self, line: str, home: int | None = None) -> None:
        key = near_copy_key(line)
        if home is None:
            home = SPLITS.index(split_of(key, self._seed))
        self._waiting.append((line, key, home))
        if len(self._waiting) >= _BATCH_LINES:
            self.flush()

"""Labels that can't be learned from, and characters missing from a charset: found before the first step, and named.

Letters: N lines, M code points of some lines.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
from khmer_ocr_kernels.arrays import I64, U32

from khmer_ocr.dataset.reader import SplitIndex, Strings
from khmer_ocr.dataset.repair_advice import drawn_here
from khmer_ocr.errors import DatasetError
from khmer_ocr.load.read_errors import OnError, limit_of
from khmer_ocr.model.seq2seq import slots_for
from khmer_ocr.text.charset import Charset
from khmer_ocr.text.normalize import normalize

MOST_INFEASIBLE = 0.001
"""Share of lines with more symbols than CTC has slots that is accepted with a note: they teach only their length."""
SHOWN = 5
_LINES_AT_ONCE = 1 << 16
_ZWNJ = "\u200c"


@dataclass(frozen=True)
class BadLabels:
    """Lines of one split whose labels can't be learned.

    Attributes:
        split: its name.
        lines: how many lines it has.
        dense: data set and position of each line with more symbols than CTC has slots, and its symbols and slots.
        wrong: data set and position of each line whose label is no text of one line, and why.
    """

    split: str
    lines: int
    dense: dict[tuple[int, int], str]
    wrong: dict[tuple[int, int], str]

    @property
    def dense_are_few(self) -> bool:
        """Whether lines that are too dense are so few that they may stay."""
        return len(self.dense) <= MOST_INFEASIBLE * self.lines


@dataclass(frozen=True)
class MissingCharacters:
    """A character missing from a charset.

    Attributes:
        lines: how many lines hold it.
        example: label of the first of them.
    """

    lines: int
    example: str


def code_points(texts: Strings) -> Iterator[tuple[U32, I64]]:
    """Texts as code points, some thousand lines at a time: uint32 (M,), and their lengths int64 (N,)."""
    lengths_N = texts.lengths()
    for first in range(0, len(texts), _LINES_AT_ONCE):
        last = min(first + _LINES_AT_ONCE, len(texts))
        blob = texts.blob[texts.offsets[first] : texts.offsets[last]].tobytes()
        yield np.frombuffer(blob.decode().encode("utf-32-le"), np.uint32), lengths_N[first:last]


def ctc_symbols(texts: Strings) -> I64:
    """Slots that CTC needs for each text: its code points, and a blank between two that are equal; int64 (N,)."""
    needed = []
    for codes_M, lengths_N in code_points(texts):
        line_M = np.repeat(np.arange(len(lengths_N)), lengths_N)
        repeated_M = (codes_M[1:] == codes_M[:-1]) & (line_M[1:] == line_M[:-1])
        needed.append(lengths_N + np.bincount(line_M[1:][repeated_M], minlength=len(lengths_N)))
    return np.concatenate(needed) if needed else np.zeros(0, np.int64)


def missing_characters(indices: Iterable[SplitIndex], charset: Charset) -> dict[str, MissingCharacters]:
    """Characters of some texts missing from a charset, in code point order."""
    found: dict[str, MissingCharacters] = {}
    for index in indices:
        for code, lines_N in _lines_with(index.texts, lambda character: character not in charset):
            before = found.get(chr(code))
            count = len(lines_N) + (before.lines if before else 0)
            example = before.example if before else _label(index, int(lines_N[0]))
            found[chr(code)] = MissingCharacters(count, example)
    return dict(sorted(found.items()))


def named(found: dict[str, MissingCharacters]) -> str:
    """Name characters missing from a charset, with how many lines hold them and where the first one is."""
    shown = [
        f"{character!r} (U+{ord(character):04X}) in {each.lines:,} line{'s' * (each.lines != 1)}, e.g. {each.example}"
        for character, each in islice(found.items(), 4 * SHOWN)
    ]
    return "; ".join(shown) + (f"; and {len(found) - len(shown)} more characters" if len(found) > len(shown) else "")


def find_bad_labels(split: str, indices: Sequence[SplitIndex], slots: int) -> BadLabels:
    """Look at every label of a split.

    Args:
        split: its name.
        indices: its lines, of one or several data sets.
        slots: symbols that CTC may write in 4 px.
    """
    found = BadLabels(split, sum(map(len, indices)), {}, {})
    for at, index in enumerate(indices):
        symbols_N, slots_N = ctc_symbols(index.texts), slots_for(index.widths.astype(np.int64), slots)
        for i in np.flatnonzero(symbols_N > slots_N).tolist():
            found.dense[at, i] = f"{_label(index, i)} ({symbols_N[i]} symbols, {slots_N[i]} slots)"
        for code, lines_N in _lines_with(index.texts, lambda character: bool(_fault(character))):
            for i in lines_N.tolist():
                found.wrong[at, i] = f"{_label(index, i)} {_fault(chr(code))}"
        # Of labels from outside, an empty one is that of an image without ink: opening the set has checked that.
        for i in np.flatnonzero(np.diff(index.texts.offsets) == 0).tolist() if not index.outside else ():
            found.wrong[at, i] = f"{_label(index, i)} is empty"
    return found


def judge(found: BadLabels, indices: Sequence[SplitIndex], slots: int, on_error: OnError) -> list[str]:
    """Refuse labels that can't be learned, or say which are accepted or left out.

    Args:
        found: by `find_bad_labels`.
        indices: that it looked at.
        slots: symbols that CTC may write in 4 px.
        on_error: "skip" leaves all of them out, up to 1 % of the split; "raise" accepts the few that are too dense.

    Returns:
        What a person should know, a sentence each.

    Raises:
        DatasetError: there are such labels, or too many of them; the message names lines and says what to do.
    """
    faults = []
    if found.dense:
        faults.append(
            _worded(found, f"have more symbols than CTC has slots at their width ({slots} in 4 px)", found.dense)
        )
    if found.wrong:
        faults.append(_worded(found, "have labels that are no text of one line", found.wrong))
    if on_error == "skip":
        out = found.dense.keys() | found.wrong.keys()
        if len(out) <= limit_of(found.lines):
            return [f"Left out: {words}." for words in faults]
        raise DatasetError(
            f"{'; '.join(faults)}. These are {len(out)} of {found.lines}, more than the 1 % that --on-error skip "
            f"leaves out. {_advice(found, indices)}"
        )
    if found.wrong or not found.dense_are_few:
        raise DatasetError(
            f"{'; '.join(faults)}. {_advice(found, indices)} --on-error skip leaves out up to 1 % of the lines."
        )
    return [f"{words}: they teach the decoder only." for words in faults]


def left_out(found: BadLabels, count: int) -> list[I64]:
    """Positions of the lines to be left out in each of `count` data sets, in order."""
    places = sorted(found.dense.keys() | found.wrong.keys())
    return [np.array([i for at, i in places if at == data_set], np.int64) for data_set in range(count)]


def _worded(found: BadLabels, what: str, lines: dict[tuple[int, int], str]) -> str:
    examples = list(islice(lines.values(), SHOWN))
    more = f", and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    name = "training" if found.split == "train" else found.split
    return f"{len(lines)} of {found.lines} {name} lines {what}: {', '.join(examples)}{more}"


def _advice(found: BadLabels, indices: Sequence[SplitIndex]) -> str:
    if found.dense and not found.wrong and all(drawn_here(index.root) for index in indices):
        return "Draw wider faces, or take a preset with more slots."
    return "Correct these labels."


def _lines_with(texts: Strings, asked: Callable[[str], bool]) -> Iterator[tuple[int, I64]]:
    """Code points that are asked for, some thousand lines at a time, and the positions of the lines that hold them."""
    first = 0
    for codes_M, lengths_N in code_points(texts):
        ends_N = np.cumsum(lengths_N)
        for code in np.unique(codes_M).tolist():
            if asked(chr(code)):
                lines_N = np.searchsorted(ends_N, np.flatnonzero(codes_M == code), "right")
                yield code, np.unique(lines_N).astype(np.int64) + first
        first += len(lengths_N)


@lru_cache(maxsize=1 << 14)
def _fault(character: str) -> str:
    """Why no label may hold a character; "" where it may."""
    between = normalize(f"a{character}a")
    if character in (" ", _ZWNJ) or between not in ("aa", "a a"):
        return ""
    name = f"U+{ord(character):04X}"
    if len(f"a{character}a".splitlines()) > 1:
        return f"holds a line end ({name})"
    return f"holds {name}, which {'has no ink' if between == 'aa' else 'is no plain space'}"


def _label(index: SplitIndex, i: int) -> str:
    return index.paths(i)[1]

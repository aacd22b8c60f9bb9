"""Lines to take pieces from: where each may be cut, and which syllables and Latin words they hold."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from khmer_ocr.errors import ConfigError
from khmer_ocr.text import letters
from khmer_ocr.text.syllables import split

MAX_LINES = 250_000
"""Lines that pieces are taken from; of a longer corpus every second, third, ... line."""
MOST_OF_ONE = 8
_NO_START = re.compile("[។៕៖ៗ,.;:?!…»”’)\\]%៛ ]")
_NO_END = re.compile("[«“‘(\\[ ]")
_WORD_CHARACTER = re.compile("[A-Za-z0-9\u17e0-\u17e9]")
_LATIN = re.compile("[A-Za-z][A-Za-z0-9]*(?:[._+/-][A-Za-z0-9]+)*")
_KHMER = re.compile("[\u1780-\u17b3]")


@dataclass(frozen=True)
class SourceLines:
    """What lines are made of.

    Attributes:
        lines: real lines.
        cuts: for each line the places where a piece of it may begin or end, its own ends included, ascending.
        syllables: the distinct Khmer syllables of all lines.
        latin: their Latin words, each as often as it occurs but at most `MOST_OF_ONE` times.
    """

    lines: tuple[str, ...]
    cuts: tuple[tuple[int, ...], ...]
    syllables: tuple[str, ...]
    latin: tuple[str, ...]


def index_source_lines(lines: Iterable[str]) -> SourceLines:
    """Find where lines may be cut, and the syllables and Latin words in them.

    Args:
        lines: normalised lines of the training split, at most about `MAX_LINES`: they are all held in memory.

    Raises:
        ConfigError: there is no line.
    """
    kept = list(lines)
    if not kept:
        raise ConfigError("there is no training line to take pieces from. Give --input PATH... or --sample.")
    cuts, syllables = [], {}
    latin: dict[str, int] = {}
    for line in kept:
        clusters = split(line)
        cuts.append(_cuts(line, clusters))
        syllables.update(dict.fromkeys(cluster for cluster in clusters if _KHMER.match(cluster)))
        for word in _LATIN.findall(line):
            latin[word] = latin.get(word, 0) + 1
    words = [word for word, count in latin.items() for _ in range(min(count, MOST_OF_ONE))]
    return SourceLines(tuple(kept), tuple(cuts), tuple(syllables) or ("ក",), (*words, *letters.LATIN_WORDS))


def _cuts(line: str, clusters: Sequence[str]) -> tuple[int, ...]:
    """Between syllables; not within a word of other letters or a number, nor where a piece should not begin or end."""
    places, at = [0], 0
    for cluster in clusters[:-1]:
        at += len(cluster)
        before, after = line[at - 1], line[at]
        within = _WORD_CHARACTER.match(before) and _WORD_CHARACTER.match(after)
        if not (within or _NO_START.match(after) or (before != " " and _NO_END.match(before))):
            places.append(at)
    return (*places, len(line))


def after_space(line: str, cuts: Sequence[int], number: int) -> int:
    """The last of the first `number` cuts that begins a line or follows a space: there words begin."""
    while number and line[cuts[number] - 1] != " ":
        number -= 1
    return number

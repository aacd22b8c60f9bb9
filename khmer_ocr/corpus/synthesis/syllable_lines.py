"""Lines of random but legal Khmer syllables, so that a model learns what running text hardly holds.

Line i is a pure function of (seed, i). The first lines walk through the whole inventory three items at a time; after
that every line is drawn, with the rare signs far more often than in print.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from khmer_ocr import rng
from khmer_ocr.corpus.synthesis.numbers import run_of
from khmer_ocr.corpus.synthesis.random_stream import RandomStream, random_streams
from khmer_ocr.errors import ConfigError
from khmer_ocr.text import letters
from khmer_ocr.text.letters import COENG, CONSONANTS, INDEPENDENT_VOWELS, KHMER_DIGITS, LATIN_DIGITS

WALK_ITEMS_PER_LINE = 3
_BLOCK_LINES = 256
_WORDS_PER_LINE = 256
_FINALS = "កងចញតនបមយរលវសហ"
_RARE_LETTERS = ("ឦ", "ឨ", "ឩ", "ឪ", "ឭ", "ឮ", "ឰ", "ឳ", "ឝ", "ឞ", "ឍ", "ឋ")
_RARE = (*_RARE_LETTERS, "ក៑", "ត៑", "ន៝", "ស៝", "ចា៎", "ណា៎", "ធម៌", "ពណ៌", "ក៏", "៕", "។ល។", "៙", "៚", "ៜ")
_STACKED = re.compile(f"[{CONSONANTS}{INDEPENDENT_VOWELS}](?:{COENG}[{CONSONANTS}])+")
_VOWEL_RUN = re.compile("[\u17b6-\u17c8]{2,}")


@lru_cache(maxsize=1)
def _pairs() -> tuple[str, ...]:
    return letters.classes()["subscript pairs"]


@lru_cache(maxsize=1)
def _shifted() -> tuple[str, ...]:
    plain = [c + "\u17c9" for c in letters.MUUSIKATOAN_LETTERS] + [c + "\u17ca" for c in letters.TRIISAP_LETTERS]
    stacked = [letters.stack(s) for s in ("មយ", "សគ", "សប", "ហគ", "បល", "សរ", "មល", "វល")]
    return (*plain, *(s + shifter for s in stacked for shifter in "\u17c9\u17ca"))


@lru_cache(maxsize=1)
def _rhymes() -> tuple[str, ...]:
    """What follows an onset, the common kinds several times over."""
    closed = [vowel + final for vowel in letters.VOWELS for final in _FINALS]
    shortened = [vowel + final + "\u17cb" for vowel in ("", "ា") for final in "កងចញតនបល"]
    samyok = ["\u17d0" + final for final in "កងណតនយរលវស"]
    silent = [vowel + final + "\u17cd" for vowel in ("", "ា", "ី", "ោ") for final in "កទនមយរស"]
    singles = list(letters.VOWELS) * 6 + list(letters.VOWEL_COMBINATIONS) * 3
    return (*[""] * 60, *["ំ", "ះ", "ៈ"] * 4, *singles, *closed * 2, *shortened * 2, *samyok, *silent, "ិ\u17cd")


def random_syllable(stream: RandomStream) -> str:
    """Write one legal syllable, common or rare."""
    kind = stream.below(100)
    if kind < 58:
        onset = stream.pick(CONSONANTS)
    elif kind < 88:
        onset = stream.pick(_pairs())
    elif kind < 91:
        onset = stream.pick(letters.classes()["stacks of three"])
    elif kind < 96:
        onset = stream.pick(_shifted())
    else:
        return stream.pick(INDEPENDENT_VOWELS) + ("", stream.pick(_FINALS))[stream.below(2)]
    if onset[0] in INDEPENDENT_VOWELS:
        return onset
    return onset + stream.pick(_rhymes())


def _word(stream: RandomStream) -> str:
    return "".join(random_syllable(stream) for _ in range(1 + stream.below(3)))


def _number(stream: RandomStream) -> str:
    """A digit run, date, time, price, share or phone number, in Khmer or Latin digits."""
    alphabet = (KHMER_DIGITS, LATIN_DIGITS)[stream.below(3) == 0]

    def run(count: int) -> str:
        return run_of(stream, count, alphabet)

    kind = stream.below(8)
    if kind == 0:
        return f"{run(2)}{'/-.'[(mark := stream.below(3))]}{run(2)}{'/-.'[mark]}{run(4)}"
    if kind == 1:
        return f"{run(1 + stream.below(3))}{',.'[stream.below(2)]}{run(3)}{' ៛' if stream.below(2) else '៛'}"
    if kind == 2:
        return f"${run(1 + stream.below(4))}.{run(2)}"
    if kind == 3:
        return f"{run(3)} {run(3)} {run(3)}" if stream.below(2) else f"(+{run(3)}) {run(2)}-{run(3)}-{run(3)}"
    if kind == 4:
        return f"{run(1 + stream.below(2))}.{run(1)}%" if stream.below(2) else f"{run(2)}%"
    if kind == 5:
        return f"{run(1 + stream.below(2))}:{run(2)}"
    return run(1 + stream.below(8))


def _latin(stream: RandomStream) -> str:
    kind = stream.below(4)
    if kind == 0:
        capitals = run_of(stream, 2 + stream.below(3), letters.LATIN_LETTERS[:26])
        return f"{capitals}-{run_of(stream, 2 + stream.below(4), LATIN_DIGITS)}"
    if kind == 1:
        return run_of(stream, 4 + stream.below(5), letters.LATIN_LETTERS + LATIN_DIGITS)
    return stream.pick(letters.LATIN_WORDS)


def _chunk(stream: RandomStream) -> str:
    """A word, or something that stands between words in print."""
    kind = stream.below(100)
    if kind < 70:
        return _word(stream)
    if kind < 78:
        return _number(stream)
    if kind < 83:
        return _latin(stream)
    if kind < 90:
        marks = stream.pick(("«»", "“”", "()"))
        return marks[0] + _word(stream) + marks[1]
    return _word(stream) + stream.pick(
        ("ៗ", "។", "។", "៖", ",", "!", "?", ";", ":", ".", "-" + _word(stream), "/" + _word(stream), "ៜ")
    )


def _exactly(stream: RandomStream, length: int) -> str:
    """Plain syllables of just so many code points."""
    parts = []
    while length:
        size = length if length < 4 else 2
        tail = ("", stream.pick(letters.VOWELS), stream.pick(letters.VOWEL_COMBINATIONS))[size - 1]
        parts.append(stream.pick(CONSONANTS) + tail)
        length -= size
    return "".join(parts)


@lru_cache(maxsize=1)
def _walk() -> tuple[str, ...]:
    """Every item of the inventory on a carrier of its own, in the order of the classes."""
    carriers = {"\u17c9": "ប", "\u17ca": "ស", "\u17cc": "ធ", "\u17cd": "រ", "\u17ce": "ណ", "\u17d0": "ម"}
    signs = [carriers.get(sign, "ក") + sign for sign in letters.SIGNS]
    turning = [
        CONSONANTS[i % len(CONSONANTS)] + v for i, v in enumerate((*letters.VOWELS, *letters.VOWEL_COMBINATIONS))
    ]
    enclosed = {"«": "«ខ្ញុំ", "“": "“យើង", "(": "(គេ"}
    rest = {**letters.classes()}
    for done in ("consonants", "subscript pairs", "stacks of three", "dependent vowels", "vowel combinations", "signs"):
        del rest[done]
    others = [enclosed.get(item, item) for items in rest.values() for item in items]
    return (*CONSONANTS, *_pairs(), *letters.classes()["stacks of three"], *turning, *signs, *others)


def _dressed(stream: RandomStream, item: str) -> str:
    return item + stream.pick(letters.VOWELS) if item[-1] in CONSONANTS and stream.below(3) == 0 else item


def _items_of(stream: RandomStream, index: int, max_chars: int) -> list[str]:
    """The items line `index` must hold: its part of the walk, later now and then a rare one."""
    walk = _walk()
    start = index * WALK_ITEMS_PER_LINE
    if start < len(walk):
        due = [_dressed(stream, item) for item in walk[start : start + WALK_ITEMS_PER_LINE]]
    else:
        due = [stream.pick(_RARE)] if stream.below(3) == 0 else []
    items, left = [], max_chars
    for item in due:
        if len(item) <= left:
            items.append(item)
            left -= len(item) + 1
    return items


def _line(stream: RandomStream, index: int, min_chars: int, max_chars: int) -> str:
    length = min_chars + stream.below(max_chars - min_chars + 1)
    items = _items_of(stream, index, length if index * WALK_ITEMS_PER_LINE >= len(_walk()) else max_chars)
    reserved = sum(len(item) + 1 for item in items)
    length = max(length, reserved - 1)
    text = ""
    while len(text) < length:
        chunk = _chunk(stream)
        runs_on = "\u1780" <= text[-1:] <= "\u17d3" and not chunk[0].isascii() and stream.below(5) >= 2
        space = "" if runs_on or not text else " "
        left = length - len(text) - len(space) - reserved
        if len(chunk) <= left:
            text += space + chunk
        elif items:
            item = items.pop(0)
            reserved -= len(item) + 1
            text += (" " if text else "") + item
        else:
            # The last stretch is too short for what was drawn; it is filled to the letter.
            text += space + _exactly(stream, left) if left > 0 else _exactly(stream, length - len(text))
    return text


def synthesize_lines(count: int, *, seed: int, min_chars: int = 1, max_chars: int = 90) -> Iterator[str]:
    """Write lines of random legal syllables, numbers, Latin and punctuation; lengths are uniform over the range.

    Each line is well formed and in its normal form. Where lines of 40 and more code points are allowed, the first 210
    hold every item of `letters.classes`.

    Args:
        count: how many lines.
        seed: the run's seed.
        min_chars: shortest line in code points, at least 1.
        max_chars: longest line in code points.

    Yields:
        Line 0, 1, ... count - 1; line i does not depend on count.

    Raises:
        ConfigError: the numbers make no range.
    """
    if count < 0 or not 1 <= min_chars <= max_chars:
        raise ConfigError(
            f"cannot write {count} lines of {min_chars} to {max_chars} characters; "
            "expected count >= 0 and 1 <= min_chars <= max_chars. Correct --synthesize, --min-chars or --max-chars."
        )
    return _lines(count, seed, min_chars, max_chars)


def _lines(count: int, seed: int, min_chars: int, max_chars: int) -> Iterator[str]:
    key_2 = rng.key(seed, "text", "synthesize")
    for start in range(0, count, _BLOCK_LINES):
        block = range(start, min(start + _BLOCK_LINES, count))
        for index, stream in zip(block, random_streams(key_2, block, _WORDS_PER_LINE), strict=True):
            yield _line(stream, index, min_chars, max_chars)


def random_line(stream: RandomStream, min_chars: int, max_chars: int) -> str:
    """Write one line of the kind that follows the walk through the inventory.

    Args:
        stream: the line's random stream.
        min_chars: shortest line in code points, at least 1.
        max_chars: longest line in code points.
    """
    return _line(stream, len(_walk()), min_chars, max_chars)


@dataclass(frozen=True)
class CoverageReport:
    """What share of each class of the inventory some lines hold, and which items are missing."""

    lines: int
    shares: dict[str, float]
    missing: dict[str, tuple[str, ...]]


def coverage(lines: Iterable[str]) -> CoverageReport:
    """Count which items of `letters.classes` occur in lines.

    Args:
        lines: normalised lines.

    Returns:
        Per class the share seen, 0 to 1, and the items not seen (only classes with any).
    """
    characters: set[str] = set()
    seen: set[str] = set()
    count = 0
    for line in lines:
        count += 1
        characters.update(line)
        seen.update(_STACKED.findall(line), _VOWEL_RUN.findall(line))
        if "។ល។" in line:
            seen.add("។ល។")
    seen |= characters
    shares, missing = {}, {}
    for name, items in letters.classes().items():
        absent = tuple(item for item in items if item not in seen)
        shares[name] = 1 - len(absent) / len(items)
        if absent:
            missing[name] = absent
    return CoverageReport(count, shares, missing)

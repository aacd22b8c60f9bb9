"""More training lines out of few: pieces of the training split's own lines, cut, joined and mixed with what it lacks.

Line i is a pure function of (seed, i) and of the lines it is made of. Lengths are drawn evenly from the whole range, so
that single words and full lines are as common as what lies between.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from khmer_ocr import chance
from khmer_ocr.text import figures, oddments
from khmer_ocr.text.dice import Dice, dice_of
from khmer_ocr.text.normalize import normalize
from khmer_ocr.text.pool import Pool, after_space
from khmer_ocr.text.spread import spread
from khmer_ocr.text.syllables import is_well_formed
from khmer_ocr.text.synthesize import random_line, random_syllable

_BLOCK_LINES = 1024
_WORDS_PER_LINE = 64
_ATTEMPTS = 8


class _Writer:
    """Writes the lines of one pool."""

    def __init__(self, pool: Pool, min_chars: int, max_chars: int) -> None:
        self.pool, self.min_chars, self.max_chars = pool, min_chars, max_chars
        kinds: list[Callable[[Dice], str]] = []
        for name, share in SHARES.items():
            kinds += [getattr(self, f"_{name}")] * share
        self._kinds = kinds
        self._ends = list(accumulate(map(len, pool.lines)))

    def write(self, dice: Dice) -> str:
        """One line; empty when what was drawn does not fit."""
        text = normalize(dice.pick(self._kinds)(dice))
        good = self.min_chars <= len(text) <= self.max_chars and is_well_formed(text)
        return text if good else ""

    def _length(self, dice: Dice) -> int:
        return self.min_chars + dice.below(self.max_chars - self.min_chars + 1)

    def _number(self, dice: Dice) -> int:
        """A line, long ones more often: every letter of the pool is as likely to be met."""
        return bisect_right(self._ends, dice.below(self._ends[-1]))

    def _piece(self, dice: Dice, length: int) -> str:
        """A stretch of a real line of about `length` code points, or all of a shorter one."""
        lines = self.pool.lines
        number = self._number(dice)
        line, cuts = lines[number], self.pool.cuts[number]
        if len(line) <= length:
            return line
        last = bisect_right(cuts, len(line) - length)
        first = dice.below(min(last + 1, len(cuts) - 1))
        if dice.below(2):
            first = after_space(line, cuts, first)
        end = max(bisect_right(cuts, cuts[first] + length) - 1, first + 1)
        return line[cuts[first] : cuts[end]].rstrip(" ")

    def _short_piece(self, dice: Dice, syllables: int) -> str:
        number = self._number(dice)
        cuts = self.pool.cuts[number]
        first = dice.below(len(cuts) - 1)
        if dice.below(2):
            first = after_space(self.pool.lines[number], cuts, first)
        return self.pool.lines[number][cuts[first] : cuts[min(first + syllables, len(cuts) - 1)]].strip(" ")

    def _fill(self, dice: Dice, length: int, make: Callable[[Dice, int], str], joiners: Sequence[str]) -> str:
        """Pieces with something between them until the length is reached; the last is no longer than what is left."""
        text = make(dice, length)
        while len(text) < length - 2:
            joiner = dice.pick(joiners)
            room = length - len(text) - len(joiner)
            if room < 1:
                break
            piece = make(dice, room)
            if len(piece) > room + 2:
                break
            text += joiner + piece
        return text

    def _whole(self, dice: Dice) -> str:
        return dice.pick(self.pool.lines)

    def _window(self, dice: Dice) -> str:
        return self._fill(dice, self._length(dice), self._piece, (" ",))

    def _joined(self, dice: Dice) -> str:
        length = self._length(dice)
        return self._fill(dice, length, lambda d, room: self._dressed(d, min(room, 4 + d.below(40))), oddments.JOINERS)

    def _dressed(self, dice: Dice, room: int) -> str:
        """A piece, half the time in quotes or brackets or with a mark at its end."""
        kind = dice.below(8)
        if room < 4 or kind < 4:
            return self._piece(dice, room)
        if kind < 6:
            marks = dice.pick(oddments.OPENERS)
            return marks[0] + self._piece(dice, room - 2) + marks[1]
        space = dice.pick(("", " "))
        return self._piece(dice, room - 1 - len(space)) + space + oddments.marks(dice)

    def _short(self, dice: Dice) -> str:
        syllables = 1 + dice.below(3)
        if dice.below(3):
            return self._short_piece(dice, syllables)
        return "".join(dice.pick(self.pool.syllables) for _ in range(syllables))

    def _mixed(self, dice: Dice) -> str:
        """Bits of one to four syllables from anywhere, run together: print that no sense helps to read."""
        return self._fill(dice, self._length(dice), lambda d, _: self._bit(d), ("", "", "", " "))

    def _bit(self, dice: Dice) -> str:
        kind = dice.below(10)
        if kind < 5:
            return self._short_piece(dice, 1 + dice.below(4))
        if kind < 9:
            return "".join(dice.pick(self.pool.syllables) for _ in range(1 + dice.below(3)))
        return random_syllable(dice)

    def _with(self, dice: Dice, odd: Callable[[Dice], str], joiners: Sequence[str] = (" ", " ", "")) -> str:
        """Real text and something odd by turns."""
        length, text = self._length(dice), ""
        turn = dice.below(2)
        while len(text) < length - 1:
            room = length - len(text) - 1
            piece = odd(dice) if turn else self._piece(dice, min(room, 1 + dice.below(24)))
            if len(piece) > room + 1 and text:
                break
            text += (dice.pick(joiners) if text else "") + piece
            turn ^= 1
        return text

    def _figures(self, dice: Dice) -> str:
        return self._with(dice, figures.figure)

    def _digits(self, dice: Dice) -> str:
        return figures.other_digits(dice, self._window(dice))

    def _only_figures(self, dice: Dice) -> str:
        return dice.pick((" ", " ", ", ", " - ", "/", ": ", "; ")).join(
            figures.figure(dice) for _ in range(1 + dice.below(4))
        )

    def _latin(self, dice: Dice) -> str:
        return self._with(dice, lambda d: oddments.latin(d, self.pool.latin))

    def _only_latin(self, dice: Dice) -> str:
        return dice.pick((" ", " ", " ", ", ", " - ", "/")).join(
            oddments.latin(dice, self.pool.latin) for _ in range(1 + dice.below(6))
        )

    def _marks(self, dice: Dice) -> str:
        return self._with(dice, oddments.marks, ("", "", " "))

    def _seldom(self, dice: Dice) -> str:
        return self._with(dice, oddments.seldom, (" ", " ", ""))

    def _rare(self, dice: Dice) -> str:
        return self._with(dice, oddments.rare_word, ("", " "))

    def _random(self, dice: Dice) -> str:
        return random_line(dice, self.min_chars, self.max_chars)


SHARES = {
    "whole": 8,  # a training line as it is
    "window": 28,  # a stretch of one or more training lines
    "joined": 9,  # such stretches with marks, quotes or brackets between or around them
    "short": 7,  # one to three syllables
    "mixed": 9,  # bits of one to four syllables run together, rare syllables as often as common ones
    "figures": 6,  # text and numbers of all kinds
    "digits": 3,  # a stretch with other digits
    "only_figures": 3,
    "latin": 6,  # text and Latin: the corpus's own words, made-up ones, keys, paths, addresses, codes
    "only_latin": 3,
    "marks": 2,  # text and runs of punctuation
    "seldom": 2,  # text and signs of Latin-1 and typography
    "rare": 4,  # text and words around rare letters, signs and stacks
    "random": 10,  # `synthesize.random_line`
}
"""Of 100 lines, how many are of each kind. Each is a method of the writer."""


class Drafts:
    """Draws lines before anybody has refused one.

    Args:
        pool: what they are made of.
        seed: the run's seed.
        min_chars: shortest line in code points, at least 1.
        max_chars: longest line in code points.
    """

    def __init__(self, pool: Pool, seed: int, min_chars: int, max_chars: int) -> None:
        self.pool = pool
        self._writer = _Writer(pool, min_chars, max_chars)
        self._key_2 = chance.key(seed, "text", "recombine")

    def block(self, numbers: range) -> list[str]:
        """Draw lines by number; one that comes out wrong eight times is a line of the pool."""
        lines = [self._writer.write(dice) for dice in dice_of(self._key_2, numbers, _WORDS_PER_LINE)]
        return [line or self.line(number, bool) for number, line in zip(numbers, lines, strict=True)]

    def line(self, number: int, good: Callable[[str], bool]) -> str:
        """Draw a line again and again until it is good."""
        for attempt in range(_ATTEMPTS):
            address = attempt << 48 | number
            (dice,) = dice_of(self._key_2, range(address, address + 1), _WORDS_PER_LINE)
            line = self._writer.write(dice)
            if line and good(line):
                return line
        return self.pool.lines[number % len(self.pool.lines)]


def recombine_lines(
    pool: Pool,
    count: int,
    *,
    seed: int,
    min_chars: int = 1,
    max_chars: int = 90,
    refuse: Callable[[Sequence[str]], Sequence[bool]] | None = None,
    workers: int = 1,
) -> Iterator[list[str]]:
    """Write lines out of pieces of others.

    Each line is well formed and in its normal form. One that comes out too long, or is refused, is drawn anew; after
    eight times a line of the pool takes its place.

    Args:
        pool: what they are made of.
        count: how many.
        seed: the run's seed.
        min_chars: shortest line in code points, at least 1.
        max_chars: longest line in code points.
        refuse: tells which of some lines must not be written, for instance because another split holds them.
        workers: processes that draw; the lines do not depend on it.

    Yields:
        Blocks of lines in order; line i does not depend on count.

    Raises:
        WorkerError: a process died.
    """
    drafts = Drafts(pool, seed, min_chars, max_chars)
    blocks = [range(start, min(start + _BLOCK_LINES, count)) for start in range(0, count, _BLOCK_LINES)]
    drawn = spread(drafts, blocks, workers) if workers > 1 else map(drafts.block, blocks)
    for block, lines in zip(blocks, drawn, strict=True):
        if refuse:
            for n in (n for n, no in enumerate(refuse(lines)) if no):
                lines[n] = drafts.line(block[n], lambda line: not refuse([line])[0])
        yield lines

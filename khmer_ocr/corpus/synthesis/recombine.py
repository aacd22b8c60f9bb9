"""More training lines out of few: pieces of the training split's own lines, cut, joined, and mixed with rarer text.

Line i is a pure function of (seed, i) and of the lines it is made of. Lengths are drawn evenly from the whole range, so
that single words and full lines are as common as what lies between.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from khmer_ocr import rng
from khmer_ocr.corpus.parallel_map import parallel_map
from khmer_ocr.corpus.synthesis import fragments, numbers
from khmer_ocr.corpus.synthesis.random_stream import RandomStream, random_streams
from khmer_ocr.corpus.synthesis.source_lines import SourceLines, after_space
from khmer_ocr.corpus.synthesis.syllable_lines import random_line, random_syllable
from khmer_ocr.text.normalize import normalize
from khmer_ocr.text.syllables import is_well_formed

_BLOCK_LINES = 1024
_WORDS_PER_LINE = 64
_ATTEMPTS = 8


class Drafts:
    """Draws lines before anybody has refused one.

    Args:
        pool: what they are made of.
        seed: the run's seed.
        min_chars: shortest line in code points, at least 1.
        max_chars: longest line in code points.
    """

    def __init__(self, pool: SourceLines, seed: int, min_chars: int, max_chars: int) -> None:
        self.pool, self.min_chars, self.max_chars = pool, min_chars, max_chars
        self._key_2 = rng.key(seed, "text", "recombine")
        kinds: list[Callable[[RandomStream], str]] = []
        for name, share in SHARES.items():
            kinds += [getattr(self, f"_{name}")] * share
        self._kinds = kinds
        self._ends = list(accumulate(map(len, pool.lines)))

    def block(self, numbers: range) -> list[str]:
        """Draw lines by number; one that comes out wrong eight times is a line of the pool."""
        lines = [self._write(stream) for stream in random_streams(self._key_2, numbers, _WORDS_PER_LINE)]
        return [line or self.line(number, bool) for number, line in zip(numbers, lines, strict=True)]

    def line(self, number: int, good: Callable[[str], bool]) -> str:
        """Draw a line again and again until it is good."""
        for attempt in range(_ATTEMPTS):
            address = attempt << 48 | number
            (stream,) = random_streams(self._key_2, range(address, address + 1), _WORDS_PER_LINE)
            line = self._write(stream)
            if line and good(line):
                return line
        return self.pool.lines[number % len(self.pool.lines)]

    def _write(self, stream: RandomStream) -> str:
        """One line; empty when what was drawn does not fit."""
        text = normalize(stream.pick(self._kinds)(stream))
        good = self.min_chars <= len(text) <= self.max_chars and is_well_formed(text)
        return text if good else ""

    def _length(self, stream: RandomStream) -> int:
        return self.min_chars + stream.below(self.max_chars - self.min_chars + 1)

    def _number(self, stream: RandomStream) -> int:
        """A line, long ones more often: every letter of the pool is as likely to be drawn."""
        return bisect_right(self._ends, stream.below(self._ends[-1]))

    def _piece(self, stream: RandomStream, length: int) -> str:
        """A stretch of a real line of about `length` code points, or all of a shorter one."""
        lines = self.pool.lines
        number = self._number(stream)
        line, cuts = lines[number], self.pool.cuts[number]
        if len(line) <= length:
            return line
        last = bisect_right(cuts, len(line) - length)
        first = stream.below(min(last + 1, len(cuts) - 1))
        if stream.below(2):
            first = after_space(line, cuts, first)
        end = max(bisect_right(cuts, cuts[first] + length) - 1, first + 1)
        return line[cuts[first] : cuts[end]].rstrip(" ")

    def _short_piece(self, stream: RandomStream, syllables: int) -> str:
        number = self._number(stream)
        cuts = self.pool.cuts[number]
        first = stream.below(len(cuts) - 1)
        if stream.below(2):
            first = after_space(self.pool.lines[number], cuts, first)
        return self.pool.lines[number][cuts[first] : cuts[min(first + syllables, len(cuts) - 1)]].strip(" ")

    def _fill(
        self, stream: RandomStream, length: int, make: Callable[[RandomStream, int], str], joiners: Sequence[str]
    ) -> str:
        """Pieces with something between them until the length is reached; the last is no longer than what is left."""
        text = make(stream, length)
        while len(text) < length - 2:
            joiner = stream.pick(joiners)
            left = length - len(text) - len(joiner)
            if left < 1:
                break
            piece = make(stream, left)
            if len(piece) > left + 2:
                break
            text += joiner + piece
        return text

    def _whole(self, stream: RandomStream) -> str:
        return stream.pick(self.pool.lines)

    def _window(self, stream: RandomStream) -> str:
        return self._fill(stream, self._length(stream), self._piece, (" ",))

    def _joined(self, stream: RandomStream) -> str:
        length = self._length(stream)
        return self._fill(
            stream, length, lambda d, left: self._dressed(d, min(left, 4 + d.below(40))), fragments.JOINERS
        )

    def _dressed(self, stream: RandomStream, left: int) -> str:
        """A piece, half the time in quotes or brackets or with a mark at its end."""
        kind = stream.below(8)
        if left < 4 or kind < 4:
            return self._piece(stream, left)
        if kind < 6:
            marks = stream.pick(fragments.OPENERS)
            return marks[0] + self._piece(stream, left - 2) + marks[1]
        space = stream.pick(("", " "))
        return self._piece(stream, left - 1 - len(space)) + space + fragments.marks(stream)

    def _short(self, stream: RandomStream) -> str:
        syllables = 1 + stream.below(3)
        if stream.below(3):
            return self._short_piece(stream, syllables)
        return "".join(stream.pick(self.pool.syllables) for _ in range(syllables))

    def _mixed(self, stream: RandomStream) -> str:
        """Bits of one to four syllables from anywhere, run together: print that no sense helps to read."""
        return self._fill(stream, self._length(stream), lambda d, _: self._bit(d), ("", "", "", " "))

    def _bit(self, stream: RandomStream) -> str:
        kind = stream.below(10)
        if kind < 5:
            return self._short_piece(stream, 1 + stream.below(4))
        if kind < 9:
            return "".join(stream.pick(self.pool.syllables) for _ in range(1 + stream.below(3)))
        return random_syllable(stream)

    def _with(
        self, stream: RandomStream, odd: Callable[[RandomStream], str], joiners: Sequence[str] = (" ", " ", "")
    ) -> str:
        """Real text and something odd by turns."""
        length, text = self._length(stream), ""
        turn = stream.below(2)
        while len(text) < length - 1:
            left = length - len(text) - 1
            piece = odd(stream) if turn else self._piece(stream, min(left, 1 + stream.below(24)))
            if len(piece) > left + 1 and text:
                break
            text += (stream.pick(joiners) if text else "") + piece
            turn ^= 1
        return text

    def _figures(self, stream: RandomStream) -> str:
        return self._with(stream, numbers.figure)

    def _digits(self, stream: RandomStream) -> str:
        return numbers.other_digits(stream, self._window(stream))

    def _only_figures(self, stream: RandomStream) -> str:
        return stream.pick((" ", " ", ", ", " - ", "/", ": ", "; ")).join(
            numbers.figure(stream) for _ in range(1 + stream.below(4))
        )

    def _latin(self, stream: RandomStream) -> str:
        return self._with(stream, lambda d: fragments.latin(d, self.pool.latin))

    def _only_latin(self, stream: RandomStream) -> str:
        return stream.pick((" ", " ", " ", ", ", " - ", "/")).join(
            fragments.latin(stream, self.pool.latin) for _ in range(1 + stream.below(6))
        )

    def _marks(self, stream: RandomStream) -> str:
        return self._with(stream, fragments.marks, ("", "", " "))

    def _seldom(self, stream: RandomStream) -> str:
        return self._with(stream, fragments.seldom, (" ", " ", ""))

    def _rare(self, stream: RandomStream) -> str:
        return self._with(stream, fragments.rare_word, ("", " "))

    def _random(self, stream: RandomStream) -> str:
        return random_line(stream, self.min_chars, self.max_chars)


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
"""Of 100 lines, how many are of each kind. Each is a method of `Drafts`."""


def recombine_lines(
    pool: SourceLines,
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
        refuse: says which of some lines must not be written, for instance because another split holds them.
        workers: processes that draw; the lines do not depend on it.

    Yields:
        Blocks of lines in order; line i does not depend on count.

    Raises:
        WorkerError: a process died.
    """
    drafts = Drafts(pool, seed, min_chars, max_chars)
    blocks = [range(start, min(start + _BLOCK_LINES, count)) for start in range(0, count, _BLOCK_LINES)]
    drawn = parallel_map(drafts.block, blocks, workers) if workers > 1 else map(drafts.block, blocks)
    for block, lines in zip(blocks, drawn, strict=True):
        if refuse:
            for n in (n for n, no in enumerate(refuse(lines)) if no):
                lines[n] = drafts.line(block[n], lambda line: not refuse([line])[0])
        yield lines

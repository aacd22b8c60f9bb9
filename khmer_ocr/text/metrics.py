"""How two texts differ: edits of code points and of orthographic syllables, plainly and after one order of the marks.

Two views of a text. `plain`: NFC, no zero-width characters, single spaces. `comparable`: beyond that the marks of every
syllable in one order and coeng DA as coeng TA, so that spellings which print alike are no error. Both are applied to
label and reading alike. `comparable` follows SIL's reordering as khmerspell 0.1.1 carries it out, effective rules only
(the flag that would bring its vowel-to-shifter rules to life is lost there): figures are then the same as those of
everybody who measures so. It is coarser than `normalize`, which never joins spellings that some font draws apart, since
it makes labels; on normalised labels without errors both agree. A reading that holds a misplaced mark differs now and
then: 0.1 points of CER where every eighth character is wrong. A third view, `printed`, may stand in its place: it folds
what a picture can't show or labels of real lines do not fix: spaces, shapes of quotes and dashes, two spellings of one
word.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein

from khmer_ocr.text.letters import COENG
from khmer_ocr.text.syllables import split

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff\u17b4\u17b5]+")
_PRINTED = str.maketrans(
    {**dict.fromkeys("\u200b\u200c\u200d \u00a0", ""), **dict.fromkeys("“”", '"'), **dict.fromkeys("–—", "-")}
)
_BLANKS = re.compile(r"\s+")
_BASE = "[\u1780-\u17a2\u17a5-\u17b3]"
_SYLLABLE = re.compile(f"(?<!{COENG}){_BASE}(?:{COENG}{_BASE}?|[\u17b6-\u17d1\u17d3\u17dd])+")
_PART = re.compile(f"{COENG}{_BASE}?|.")
_RANK = {
    "\u17cc": 0,
    COENG: 1,
    **dict.fromkeys("\u17c9\u17ca", 2),
    **dict.fromkeys("\u17be\u17bf\u17c0\u17c1\u17c2\u17c3\u17c4\u17c5", 3),
    **dict.fromkeys("\u17bb\u17bc\u17bd", 4),
    **dict.fromkeys("\u17b7\u17b8\u17b9\u17ba", 5),
    "\u17b6": 6,
    **dict.fromkeys("\u17c6\u17cb\u17cd\u17ce\u17cf\u17d0\u17d1\u17d3\u17dd", 7),
    **dict.fromkeys("\u17c7\u17c8", 8),
}
# In this order, on a sorted syllable: doubled coengs; vowels typed as two signs; u before oe; coeng ro behind another.
_RESPELLED = tuple(
    (re.compile(seen), expected)
    for seen, expected in (
        (f"{COENG}{{2,}}", COENG),
        ("\u17be\u17b6", "\u17c4\u17b8"),
        ("\u17c1([\u17bb-\u17bd]?)\u17b8", "\u17be\\1"),
        ("\u17c1([\u17bb-\u17bd]?)\u17b6", "\u17c4\\1"),
        ("\u17be\u17bb", "\u17bb\u17be"),
        (f"({COENG}\u179a)({COENG}[\u1780-\u17b3])", r"\2\1"),
    )
)


def plain(text: str) -> str:
    """Give the view that only what has no ink is taken from: NFC, zero-width characters out, blanks single."""
    return _BLANKS.sub(" ", _INVISIBLE.sub("", unicodedata.normalize("NFC", text))).strip()


def comparable(text: str) -> str:
    """Give the view in which spellings that print alike are one: `plain`, marks in one order, coeng DA as coeng TA."""
    return _SYLLABLE.sub(_ordered, plain(text)).replace("\u17d2\u178a", "\u17d2\u178f")


def _ordered(match: re.Match[str]) -> str:
    syllable = match[0]
    if len(syllable) < 3:
        return syllable
    syllable = syllable[0] + "".join(sorted(_PART.findall(syllable, 1), key=lambda part: _RANK[part[0]]))
    for seen, expected in _RESPELLED:
        syllable = seen.sub(expected, syllable)
    return syllable


def printed(text: str) -> str:
    """Give the view in which all is one that print does not tell apart: spaces out, quotes and dashes of one shape."""
    folded = unicodedata.normalize("NFC", text).translate(_PRINTED)
    return folded.replace("\u17d2\u178a", "\u17d2\u178f").replace("\u17b2\u17d2\u1799", "\u17b1\u17d2\u1799")


Fold = Literal["khmer", "print"]
_VIEWS: dict[Fold, Callable[[str], str]] = {"khmer": comparable, "print": printed}


@dataclass(frozen=True)
class Score:
    """Sums over some lines; scores of parts add up to the score of the whole.

    Attributes:
        lines: lines measured.
        characters_plain: code points of the labels, plain view.
        edits_plain: least insertions, deletions and replacements of code points, plain view.
        exact_plain: lines without an edit, plain view.
        characters: code points of the labels, comparable view.
        edits: edits of code points, comparable view.
        exact: lines without an edit, comparable view.
        syllables: orthographic syllables of the labels, a foreign character counting as one; comparable view.
        syllable_edits: edits of whole syllables, comparable view.
        spaces: spaces of the labels, plain view.
        space_edits: spaces missing, extra, or taken for another character, or it for them; plain view.

    Where a fold is given, "comparable view" is the view of that fold.
    """

    lines: int = 0
    characters_plain: int = 0
    edits_plain: int = 0
    exact_plain: int = 0
    characters: int = 0
    edits: int = 0
    exact: int = 0
    syllables: int = 0
    syllable_edits: int = 0
    spaces: int = 0
    space_edits: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def cer(self) -> float:
        """Character error rate after Khmer normalisation: edits / code points of the labels; can exceed 1."""
        return self.edits / max(self.characters, 1)

    @property
    def cer_plain(self) -> float:
        """Character error rate of the plain view."""
        return self.edits_plain / max(self.characters_plain, 1)

    @property
    def syllable_error_rate(self) -> float:
        """Edits of orthographic syllables / syllables of the labels."""
        return self.syllable_edits / max(self.syllables, 1)

    @property
    def space_error_rate(self) -> float:
        """Edits of spaces / spaces of the labels; can exceed 1."""
        return self.space_edits / max(self.spaces, 1)

    @property
    def exact_share(self) -> float:
        """Share of lines read without an error that shows."""
        return self.exact / max(self.lines, 1)

    @property
    def exact_plain_share(self) -> float:
        """Share of lines whose code points are all the same, plain view."""
        return self.exact_plain / max(self.lines, 1)


def score(label: str, reading: str, fold: Fold = "khmer") -> Score:
    """Compare one reading with its label.

    Args:
        label: what the line says.
        reading: what was read; empty where nothing was.
        fold: "khmer" compares the comparable view, "print" the printed one.

    Returns:
        The score of this one line.
    """
    label_plain, reading_plain = plain(label), plain(reading)
    expected, seen = _VIEWS[fold](label), _VIEWS[fold](reading)
    edits_plain = Levenshtein.distance(label_plain, reading_plain)
    edits = Levenshtein.distance(expected, seen)
    syllables = split(expected)
    return Score(
        lines=1,
        characters_plain=len(label_plain),
        edits_plain=edits_plain,
        exact_plain=int(edits_plain == 0),
        characters=len(expected),
        edits=edits,
        exact=int(edits == 0),
        syllables=len(syllables),
        syllable_edits=Levenshtein.distance(syllables, split(seen)) if edits else 0,
        spaces=label_plain.count(" "),
        space_edits=sum(" " in pair for pair in _edits(label_plain, reading_plain)) if edits_plain else 0,
    )


def confusions(pairs: Iterable[tuple[str, str]], fold: Fold = "khmer") -> Counter[tuple[str, str]]:
    """Count which code point was read as which, in the view of a fold.

    Args:
        pairs: (label, reading) of each line.
        fold: see `score`.

    Returns:
        (expected, seen) -> how often; expected is "" for a character too many, seen is "" for one that was missed.
    """
    view = _VIEWS[fold]
    return Counter(edit for label, reading in pairs for edit in _edits(view(label), view(reading)))


def _edits(expected: str, seen: str) -> Iterator[tuple[str, str]]:
    for edit in Levenshtein.editops(expected, seen):
        missed = "" if edit.tag == "insert" else expected[edit.src_pos]
        yield missed, "" if edit.tag == "delete" else seen[edit.dest_pos]

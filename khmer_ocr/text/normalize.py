"""The one normal form of a line's label: NFC, Khmer Encoding Structure order, nothing without ink.

Two spellings that print alike must become one label, and no line may change its looks: a label says what the ink
says. So a syllable that HarfBuzz can draw is put into the order of the Khmer Encoding Structure (M. Hosken, Unicode
Technical Note 61, 2025) only where Noto Sans Khmer then draws the same glyphs in the same places; one that it can't
draw has no ink to keep and is ordered outright. Counts of faces below are of 40 Khmer faces, shaped by HarfBuzz.

One thing may move ink: a sign typed twice is written once. Most faces draw the second over the first, where nobody can
see it; the others stack the two, but one spelling can't have a label in one face and another in the next.
"""

import re
import unicodedata
from functools import lru_cache

from khmer_ocr.text.letters import COENG
from khmer_ocr.text.syllables import is_well_formed

NORMALIZER_VERSION: int = 3
"""Grows whenever any text's normal form changes."""

_LETTER = "[\u1780-\u17b3]"
_SUBSCRIPT = f"{COENG}{_LETTER}"
_ZWNJ = "\u200c"
# The marks that take no room in the line. U+17C7, 17C8 and the vowels before or behind the letter do: two of them stand
# side by side in every face and stay two.
_OVERLAID = "[\u17b7-\u17bd\u17c6\u17c9-\u17d1\u17d3\u17dd]"
# Unicode's default ignorables without the Hangul fillers and ZWNJ, annotation marks, other controls, lone surrogates.
_INKLESS_CHARACTERS = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200b\u200d-\u200f\u202a-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufe00-\ufe0f\ufeff\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_INKLESS = re.compile(f"[{_INKLESS_CHARACTERS}]+")
_SPACES = re.compile("[\x09-\x0d\x20\x85\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
# U+17A3, 17A4 are deprecated and U+17D8 is discouraged: these are the spellings the standard gives instead. It
# discourages U+17D3 too but names nothing to put in its place, so that one keeps its ink.
_REPLACED = {"\u17a3": "\u17a2", "\u17a4": "\u17a2\u17b6", "\u17d8": "\u17d4\u179b\u17d4"}
_UNCLEAN = re.compile(
    "[\x00-\x1f\x7f-\xa0\u00ad\u034f\u061c\u1680\u17a3\u17a4\u17b4\u17b5\u17d8\u180b-\u180f\u2000-\u200b\u200d-\u200f"
    "\u2028-\u202f\u205f-\u206f\u3000\ud800-\udfff\ufe00-\ufe0f\ufeff\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]|  |\u17dd\u17d2|\u200c"
)

_TWICE = f"({_OVERLAID}){_OVERLAID}*?\\1"
_AGAIN = re.compile(_TWICE)

_UNSEEN = f"[{_INKLESS_CHARACTERS}{_ZWNJ}]"
CHANGED_IN: dict[int, re.Pattern[str]] = {
    3: re.compile(f"({_OVERLAID})(?:{COENG}{_UNSEEN}*{_LETTER}|[\u17b6-\u17d3\u17dd{_INKLESS_CHARACTERS}{_ZWNJ}])*?\\1")
}
"""What each version of the normal form changed. A text, as typed or in an older normal form, in which the patterns of
all later versions are found nowhere, has the same normal form still. Version 3: a sign typed twice is written once."""

_SYLLABLE = re.compile(f"{_LETTER}(?:{_SUBSCRIPT}|[\u17b6-\u17d1\u17d3\u17dd]|{_ZWNJ})+")
_PART = re.compile(f"{_SUBSCRIPT}|[\u17c9\u17ca]{_ZWNJ}|.")
_ORDER = {
    "\u17cc": 1,
    **dict.fromkeys("\u17c9\u17ca", 4),
    **dict.fromkeys("\u17be\u17bf\u17c0\u17c1\u17c2\u17c3\u17c4\u17c5", 5),
    **dict.fromkeys("\u17bb\u17bc\u17bd", 6),
    **dict.fromkeys("\u17b7\u17b8\u17b9\u17ba", 7),
    "\u17b6": 8,
    **dict.fromkeys("\u17c6\u17cb\u17cd\u17ce\u17cf\u17d0\u17d1", 9),
    **dict.fromkeys("\u17c7\u17c8\u17d3\u17dd", 10),
}
_SUBSCRIPT_ORDER, _RO_ORDER = 2, 3

# Every neighbourhood that some rule below may touch; a line without one is in order already.
_SUSPECT = re.compile(
    f"{_ZWNJ}|{COENG}(?:\u178a|{COENG}|{_LETTER}\u17cc|\u179a{COENG})|(?=[\u17b6-\u17d1\u17d3\u17dd][\u17b6-\u17d3\u17dd])(?:{_TWICE}|"
    f"[\u17b6-\u17cb\u17cd-\u17d1\u17d3\u17dd][{COENG}\u17cc]|[\u17b6-\u17c8\u17cb\u17cd-\u17d1\u17d3\u17dd][\u17c9\u17ca]"
    "|[\u17b6-\u17bd\u17c6-\u17c8\u17cb\u17cd-\u17d1\u17d3\u17dd][\u17be-\u17c5]"
    "|[\u17b6-\u17ba\u17c6-\u17c8\u17cb\u17cd-\u17d1\u17d3\u17dd][\u17bb-\u17bd]"
    "|[\u17b6\u17c6-\u17c8\u17cb\u17cd-\u17d1\u17d3\u17dd][\u17b7-\u17ba]"
    "|[\u17c6-\u17c8\u17cb\u17cd-\u17d1\u17d3\u17dd]\u17b6|[\u17c7\u17c8\u17d3\u17dd][\u17c6\u17cb\u17cd-\u17d1]"
    "|\u17c1[\u17b6\u17b8]|[\u17be\u17bf]\u17bb|\u17bb[\u17b6-\u17ba\u17d0])"
)

_ABOVE = "[\u17b7-\u17ba\u17be\u17c6\u17c9-\u17d1]"
_UPPER = "[\u17b7-\u17ba\u17be-\u17c0\u17c5\u17c6\u17d0\u17dd]"
_SIGN = "[\u17c6\u17cb\u17cd-\u17d1]"
# Orders that are no synonyms, so a drawable syllable that holds one stays as it was typed:
_CHANGES_INK = re.compile(
    # a subscript hanging from a vowel that stands behind or below its letter (there it is drawn by 23 to 38 faces),
    f"[\u17b6\u17bb-\u17bd\u17bf\u17c0\u17c4\u17c5][^{COENG}]*{COENG}[^\u179a]"
    # coeng ro after an e-sign, which then stands inside the ro (all faces),
    f"|[\u17be-\u17c5][^{COENG}]*{COENG}\u179a"
    # a shifter before a subscript and an upper sign: moved, it is lowered no more, or lowered now (all faces),
    f"|[\u17c9\u17ca](?=.*{_UPPER}).*{COENG}"
    # a sign before a vowel of its own height, where they would change places (37 faces); nikahit + aa, drawn alike by
    # 17 faces and apart by a nudge in the others, has one spelling all the same,
    f"|{_SIGN}[^{COENG}]*[\u17b7-\u17ba\u17bc-\u17c0\u17c4\u17c5]|[\u17cb\u17cd-\u17d1][^{COENG}]*\u17b6"
    # a mark above before a subscript that reaches up beside the letter, or on a narrow letter, or on nyo, which changes
    # its own shape by what follows it,
    f"|{_ABOVE}[^{COENG}]*{COENG}.*(?<={COENG})[\u1783\u1788\u178d\u1794\u1799\u179e\u179f\u17a1]"
    f"|^[\u1789\u179a\u179c\u17a3-\u17b3].*{_ABOVE}[^{COENG}]*{COENG}|^[\u1789\u179a\u179c\u17a3-\u17b3].*{COENG}.*\u17cc"
    f"|{COENG}[\u1783\u1788\u178d\u1794\u1799\u179e\u179f\u17a1].*\u17cc|{COENG}.*\u17cc.*[\u17bf\u17c0]"
    f"|{_SIGN}.*\u17bb.*{COENG}\u179a|(?:{COENG}\u179a|[\u17c9\u17ca]|^[\u1789\u179a\u179c\u17a3-\u17b3]).*{_SIGN}.*\u17bb"
    # two of robat and the shifters, three subscripts, or two with a mark before either.
    f"|[\u17c9\u17ca\u17cc].*[\u17c9\u17ca\u17cc]|{COENG}.*{COENG}.*{COENG}"
    f"|[\u17b6-\u17d1]{COENG}.*{COENG}|{COENG}.[^{COENG}]+{COENG}|{COENG}.*{COENG}.*\u17cc"
)
_RO_FIRST = re.compile(f"({COENG}\u179a)({COENG}[^\u179a])")
# The letters below which 18 to 38 faces draw a shifter as the sign u when an upper vowel follows. The Khmer Encoding
# Structure names far more for triisap, but under those no face lowers it, and u + vowel would change its looks.
_TRIISAP = "[\u179f\u17a0\u17a2]"
_MUUSIKATOAN = "[\u1784\u1789\u1793\u1794\u1798-\u179c]"
_U_FOR_SHIFTER = re.compile(
    f"^(?:({_TRIISAP})|({_MUUSIKATOAN}))({COENG}\u179a)?(?!.*{COENG})"
    "(?:([\u17be\u17bf])\u17bb|(\u17c1)\u17bb\u17b8|\u17bb(?=[\u17b7-\u17ba]|\u17b6\u17c6)|\u17bb(?=\u17d0))"
)
_HELD_UP = re.compile(
    f"^(?:{_TRIISAP}(?:{_SUBSCRIPT})*\u17ca{_ZWNJ}[\u17b7-\u17ba]|{_MUUSIKATOAN}(?:{_SUBSCRIPT})*\u17c9{_ZWNJ}[\u17b7-\u17ba\u17d0])"
)


def normalize(text: str) -> str:
    """Give a line its one normal form.

    NFC; marks in the order of the Khmer Encoding Structure, each once where a second would be drawn over the first;
    coeng DA as coeng TA, which modern fonts draw alike; every run of spaces, tabs and line ends as one space, none at
    the ends; no zero-width, control or bidi characters. ZWNJ stays only where it has ink: between a shifter and the
    upper vowel that would push it down.

    Args:
        text: any text; other scripts keep their spelling but lose joiners and variation selectors.

    Returns:
        The normal form; `normalize(normalize(text)) == normalize(text)`.
    """
    text = text.replace("\u200b", "")
    if _UNCLEAN.search(text):
        text = _clean(text)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    text = text.replace("\u17d2\u178a", "\u17d2\u178f")
    if _SUSPECT.search(text):
        text = re.sub(f"{COENG}{{2,}}", COENG, text).replace("\u17d2\u178a", "\u17d2\u178f")
        # Digits carry signs too: doubled ones are looked for in the whole text, not only in its syllables.
        text = unicodedata.normalize("NFC", _SYLLABLE.sub(lambda match: _canonical(match[0]), _each_once(text)))
    return text.strip(" ")


def _clean(text: str) -> str:
    text = _INKLESS.sub("", text)
    for old, new in _REPLACED.items():
        text = text.replace(old, new)
    text = re.sub(
        f"(?<![\u17c9\u17ca]){_ZWNJ}+|{_ZWNJ}+(?![\u17b7-\u17ba\u17d0{_ZWNJ}])|(?<={_ZWNJ}){_ZWNJ}+", "", text
    )
    text = _SPACES.sub(" ", text)  # only now: whatever stood between two spaces is gone
    # NFC would tear the subscript off its coeng, for U+17DD has the higher combining class.
    return re.sub(f"(\u17dd+)((?:{_SUBSCRIPT})+)", r"\2\1", text)


def _each_once(text: str) -> str:
    """Take out every overlaid mark that its run of such marks holds already."""
    while (once := _AGAIN.sub(lambda match: match[0][:-1], text)) != text:
        text = once
    return text


@lru_cache(maxsize=1 << 16)
def _canonical(syllable: str) -> str:
    syllable = syllable.replace("\u17c1\u17b8", "\u17be").replace("\u17c1\u17b6", "\u17c4")
    if syllable.count(COENG) == 2:
        # Both orders of coeng ro and another subscript are the same glyphs in the same places, in every face.
        syllable = _RO_FIRST.sub(r"\2\1", syllable)
    if not is_well_formed(syllable) or not _CHANGES_INK.search(syllable):
        parts = sorted(_PART.findall(syllable[1:]), key=_part_order)
        syllable = syllable[0] + "".join(parts).replace("\u17c1\u17b8", "\u17be").replace("\u17c1\u17b6", "\u17c4")
        syllable = _each_once(syllable)
    syllable = _U_FOR_SHIFTER.sub(_shifter, syllable)
    if _ZWNJ in syllable and not _HELD_UP.match(syllable):
        syllable = syllable.replace(_ZWNJ, "")
    return syllable


def _part_order(part: str) -> int:
    if part[0] == COENG:
        return _RO_ORDER if part[1] == "\u179a" else _SUBSCRIPT_ORDER
    return _ORDER[part[0]]


def _shifter(match: re.Match[str]) -> str:
    triisap, muusikatoan, ro, vowel, e_sign = match.groups()
    if triisap and match.string[match.end() : match.end() + 1] == "\u17d0":
        return match[0]
    shifter = "\u17ca" if triisap else "\u17c9"
    return (triisap or muusikatoan) + (ro or "") + shifter + (vowel or ("\u17be" if e_sign else ""))

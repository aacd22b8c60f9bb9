"""Orthographic syllables of Khmer, cut and judged exactly as HarfBuzz's Khmer shaper does.

Where HarfBuzz finds signs without a letter to carry them it draws a dotted circle that no label can name. The grammar
here is HarfBuzz's (`hb-ot-shaper-khmer-machine.rl`), rewritten over characters; which character plays which part was
measured on uharfbuzz 0.57, and the tests compare the two on random strings. It holds for NFC text of Khmer and of
scripts that share no characters with the Indic shapers.
"""

import re
import unicodedata

from khmer_ocr.text.letters import COENG

_LETTER = "[\u1780-\u17b3]"
# What may carry signs without being a Khmer letter: dashes, digits of both kinds, no-break space, bullet, ...
_PLACEHOLDER = "[\\-0-9\u00a0\u00d7\u17d9\u17e0-\u17e9\u2010-\u2015\u2022\u25cc\u25fb-\u25fe]"
_MARK = "[\u17b6-\u17d3\u17dd]"
_JOINER = "[\u200c\u200d]"
_ROBATIC = "[\u17c9\u17ca\u17cc]"
_X = f"(?:{_JOINER}*[\u17c6\u17cb\u17cd-\u17d1])*"
_Y = "[\u17c7\u17c8\u17d3\u17dd]*"
_STACKED = f"{_LETTER}(?:{_JOINER}?{_ROBATIC})?"
# HarfBuzz splits U+17BE-17C0, U+17C4, U+17C5 into the e-sign and a second sign before it looks for syllables: a vowel
# with a part above then still takes the sign aa, one with a part behind takes nothing more.
_VOWELS = (
    f"(?:\u17be{_X}\u17b6?|[\u17bf\u17c0\u17c4\u17c5]"
    f"|[\u17c1-\u17c3]?{_X}[\u17bb-\u17bd]?{_X}(?:{_JOINER}?[\u17b7-\u17ba])?{_X}\u17b6?)"
)
_TAIL = f"{_X}{_VOWELS}{_X}(?:{COENG}{_LETTER})?{_Y}"
_SUBSCRIPTS = f"{_ROBATIC}?(?:{COENG}{_STACKED})*"
_HEAD = f"(?:{_STACKED}|{_PLACEHOLDER})"

_CLUSTER = re.compile(f"(?:{_HEAD}{_SUBSCRIPTS}(?:{COENG}|{_TAIL}))|(?:{_SUBSCRIPTS}(?:{COENG}|{_TAIL}))", re.DOTALL)
# Nearly every line passes this narrower grammar, three times as fast: one vowel at most, one sign above, one behind.
_PLAIN = re.compile(
    f"(?:[^\u17b6-\u17d3\u17dd\u200c\u200d]++"
    f"(?:(?<={_LETTER})(?:{COENG}{_LETTER})*+{_ROBATIC}?+[\u17b6-\u17c5]?+[\u17c6\u17cb\u17cd-\u17d1]?+[\u17c7\u17c8]?+)?+)*+"
)
_CARRIER = re.compile(f"{_LETTER}|{_PLACEHOLDER}")


def _end_of_cluster(text: str, start: int) -> int:
    match = _CLUSTER.match(text, start)
    return max(match.end() if match else 0, start + 1)


def split(text: str) -> list[str]:
    """Cut a text into orthographic syllables, broken ones included, and single foreign characters.

    Args:
        text: NFC text.

    Returns:
        The clusters in order; joined they are the text.
    """
    clusters = []
    start = 0
    while start < len(text):
        end = _end_of_cluster(text, start)
        clusters.append(text[start:end])
        start = end
    return clusters


def _is_broken(cluster: str) -> bool:
    # A coeng with no letter below it draws a plus sign and no circle, but spells nothing.
    if _CARRIER.match(cluster):
        return cluster[-1] == COENG
    return re.search(_MARK, cluster) is not None


def find_broken(text: str) -> tuple[int, int] | None:
    """Find the first syllable that HarfBuzz would mend with a dotted circle, or that ends in a coeng without a letter.

    A combining mark of any script at the very beginning counts too: it has nothing to stand on.

    Args:
        text: NFC text, a line or a word.

    Returns:
        Start and end of the syllable in code points, or None when all is well.
    """
    if text and unicodedata.category(text[0])[0] == "M":
        return 0, _end_of_cluster(text, 0)
    if _PLAIN.fullmatch(text):
        return None
    start = 0
    while start < len(text):
        end = _end_of_cluster(text, start)
        if _is_broken(text[start:end]):
            return start, end
        start = end
    return None


def is_well_formed(text: str) -> bool:
    """Tell whether every sign of a text has a letter to stand on, so that no font draws a dotted circle."""
    return find_broken(text) is None

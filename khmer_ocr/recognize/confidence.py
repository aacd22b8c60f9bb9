"""How sure a model is of each syllable of what it read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from khmer_ocr.text.syllables import split

_SCALE, _POWER = 0.95, 1.3
"""Share of wrong code points by how unsure CTC is, fitted by likelihood on 1,144 lines: those that other engines drew
and the halves of the real ones that are there to tune by (scans, letters, signs). The weights' card has the curve."""


def line_confidence(log_prob: float, symbols: int) -> float:
    """Tell how much of a line's text is right, as far as its score tells.

    Args:
        log_prob: of the text and its end.
        symbols: code points of the text.

    Returns:
        0 to 1: the share of code points to be expected right; 0 for an empty text.
    """
    unsure = max(0.0, -log_prob / (symbols + 1))
    return math.exp(-_SCALE * unsure**_POWER) if symbols else 0.0


@dataclass(frozen=True)
class Syllable:
    """An orthographic syllable, or a single foreign character, of what was read.

    Attributes:
        text: its code points.
        confidence: 0 to 1, the product of the probabilities of its code points.
    """

    text: str
    confidence: float


def syllables_of(text: str, raw: str, log_probs: Sequence[float]) -> list[Syllable]:
    """Share the scores of what a model wrote out among the syllables of its normal form.

    Args:
        text: the normal form of `raw`.
        raw: what the model wrote.
        log_probs: one for each code point of `raw`.

    Returns:
        The syllables of `text` in order; joined they are the text.
    """
    of_text = list(log_probs) if text == raw else _carried_over(text, raw, log_probs)
    syllables, start = [], 0
    for part in split(text):
        score = sum(of_text[start : start + len(part)])
        syllables.append(Syllable(part, math.exp(min(score, 0.0))))
        start += len(part)
    return syllables


def _carried_over(text: str, raw: str, log_probs: Sequence[float]) -> list[float]:
    """Scores of the code points of `text`: their own where `raw` has them too, else an even share of what changed."""
    scores = [0.0] * len(text)
    for step in Levenshtein.opcodes(raw, text):
        before = log_probs[step.src_start : step.src_end]
        places = range(step.dest_start, step.dest_end)
        if step.tag == "equal":
            scores[step.dest_start : step.dest_end] = before
        for place in places if step.tag == "replace" else ():
            scores[place] = sum(before) / len(places)
    return scores

"""How far a rate may be trusted: intervals by bootstrap over lines, and whether one reading is better than another.

Lines are drawn, not characters: errors of one line hang together. Efron and Tibshirani, "An Introduction to the
Bootstrap" (1993), chapters 13 (percentile intervals) and 15 (permutation tests).

Letters: N lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from khmer_ocr.text.metrics import Score

RESAMPLES = 1000
PERMUTATIONS = 10_000
_SEED = 0
"""Figures of the same readings are the same every time."""
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Comparison:
    """One reading of some lines against another of the same lines.

    Attributes:
        difference: CER of the one less CER of the other, so that below 0 the one is better; a share of 1.
        low: lower end of its 95 % interval.
        high: upper end.
        p_value: how often a difference as large comes by chance, were both equally good: two-sided, at least
            1 / (PERMUTATIONS + 1).
    """

    difference: float
    low: float
    high: float
    p_value: float

    def __str__(self) -> str:
        points = [f"{100 * each:+.2f}" for each in (self.difference, self.low, self.high)]
        return f"CER {points[0]} points (95 %: {points[1]} to {points[2]}), p = {self.p_value:.4f}"


def cer_interval(scores: Sequence[Score]) -> tuple[float, float]:
    """Bound the CER of lines like these.

    Args:
        scores: of each line.

    Returns:
        Ends of the 95 % interval, shares of 1; both 0 of no lines.
    """
    return _interval(np.array([each.edits for each in scores]), np.array([each.characters for each in scores]))


def compare(scores: Sequence[Score], others: Sequence[Score]) -> Comparison:
    """Compare two readings line by line, which tells more than two intervals that overlap.

    Args:
        scores: of each line by the one reading.
        others: of the same lines, in the same order, by the other.
    """
    more_N = np.array([one.edits - other.edits for one, other in zip(scores, others, strict=True)], np.int64)
    characters_N = np.array([each.characters for each in scores], np.int64)
    if not len(more_N):
        return Comparison(0.0, 0.0, 0.0, 1.0)
    low, high = _interval(more_N, characters_N)
    differing = more_N[more_N != 0]
    draw, extreme, left = np.random.default_rng(_SEED), 0, PERMUTATIONS
    while left:
        count = min(left, max(_BLOCK // max(len(differing), 1), 1))
        signs = draw.integers(0, 2, (count, len(differing)), np.int8) * 2 - 1
        extreme += int((np.abs(signs @ differing) >= abs(differing.sum())).sum())
        left -= count
    difference = float(more_N.sum() / max(characters_N.sum(), 1))
    return Comparison(difference, low, high, (extreme + 1) / (PERMUTATIONS + 1))


def _interval(edits_N: npt.NDArray[np.int64], characters_N: npt.NDArray[np.int64]) -> tuple[float, float]:
    if not len(edits_N):
        return 0.0, 0.0
    draw, rates = np.random.default_rng(_SEED), np.empty(RESAMPLES)
    for resample in range(RESAMPLES):
        # How often each line is drawn: the same for any two readings of these lines.
        times_N = np.bincount(draw.integers(0, len(edits_N), len(edits_N)), minlength=len(edits_N))
        rates[resample] = int(times_N @ edits_N) / max(int(times_N @ characters_N), 1)
    low, high = np.percentile(rates, (2.5, 97.5))
    return float(low), float(high)

"""Intervals hold the truth as often as they say, and chance is not taken for progress."""

import itertools

import numpy as np
import pytest

from khmer_ocr import evaluate_lines
from khmer_ocr.recognize.significance import PERMUTATIONS, cer_interval, compare
from khmer_ocr.text.metrics import Score

CHARACTERS = 40


def scores(draw: np.random.Generator, lines: int, rate: float) -> list[Score]:
    """Lines with errors that come in clusters, as of real lines: some are read well and some badly."""
    rate_N = draw.beta(0.5, 0.5 / rate - 0.5, lines)
    return [Score(lines=1, characters=CHARACTERS, edits=int(n)) for n in draw.binomial(CHARACTERS, rate_N)]


def test_intervals_hold_the_true_rate_about_19_times_of_20() -> None:
    draw, held = np.random.default_rng(5), 0
    for _ in range(200):
        low, high = cer_interval(scores(draw, 150, 0.05))
        held += low <= 0.05 <= high
    assert 175 <= held <= 198


def test_intervals_narrow_with_the_root_of_the_lines() -> None:
    few, many = (cer_interval(scores(np.random.default_rng(1), lines, 0.05)) for lines in (200, 3200))
    assert (few[1] - few[0]) / (many[1] - many[0]) == pytest.approx(4, rel=0.35)


def test_p_is_that_of_all_sign_flips_counted_out() -> None:
    draw = np.random.default_rng(2)
    more = draw.integers(-2, 5, 10)
    one = [Score(lines=1, characters=9, edits=int(max(n, 0))) for n in more]
    other = [Score(lines=1, characters=9, edits=int(max(-n, 0))) for n in more]
    sums = [
        abs(sum(s * n for s, n in zip(signs, more, strict=True))) for signs in itertools.product((1, -1), repeat=10)
    ]
    exact = np.mean(np.array(sums) >= abs(more.sum()))
    found = compare(one, other)
    assert found.p_value == pytest.approx(exact, abs=0.015)
    assert found.difference == pytest.approx(more.sum() / 90) and found.low <= found.difference <= found.high
    turned = compare(other, one)
    assert (turned.difference, turned.p_value) == (-found.difference, found.p_value)


def test_equal_readers_seldom_look_different() -> None:
    draw = np.random.default_rng(3)
    found = [compare(scores(draw, 60, 0.05), scores(draw, 60, 0.05)).p_value < 0.05 for _ in range(60)]
    assert sum(found) <= 8


def test_a_better_reader_is_seen_line_by_line_though_intervals_overlap() -> None:
    worse = scores(np.random.default_rng(4), 300, 0.05)
    better = [Score(lines=1, characters=CHARACTERS, edits=each.edits - (each.edits > 3)) for each in worse]
    found = compare(better, worse)
    assert found.high < 0 and found.p_value == pytest.approx(1 / (PERMUTATIONS + 1))
    assert cer_interval(better)[1] > cer_interval(worse)[0]
    assert str(found).startswith(f"CER {100 * found.difference:+.2f} points (95 %: -")


def test_nothing_and_the_same_reading() -> None:
    same = scores(np.random.default_rng(6), 30, 0.1)
    assert compare(same, same).p_value == 1 and compare(same, same).difference == 0
    assert cer_interval([]) == (0, 0) and compare([], []).p_value == 1


def test_reports_give_the_same_intervals_every_time() -> None:
    labels = {f"{n}.png": "ខ្មែរ" * (n % 4 + 1) for n in range(40)}
    read = {name: text[: -(int(name[:-4]) % 3) or None] for name, text in labels.items()}
    report = evaluate_lines(labels, read, {"font": dict.fromkeys(labels, "Moul")}, against=labels)
    again = evaluate_lines(labels, read, {"font": dict.fromkeys(labels, "Moul")}, against=labels)
    assert report == again and report.interval[0] < report.total.cer < report.interval[1]
    assert report.intervals["font"]["Moul"] == report.interval
    assert report.against is not None and report.against.difference == pytest.approx(report.total.cer)
    values = report.as_json()
    assert values["cer_interval"] == list(report.interval) and values["by_font"]["Moul"]["cer_interval"]
    assert f"{100 * report.interval[0]:.2f}-{100 * report.interval[1]:.2f}" in str(report)

import itertools

import pytest
from khmerspell import khnormal

from khmer_ocr.corpus.synthesis.syllable_lines import coverage, synthesize_lines
from khmer_ocr.errors import ConfigError
from khmer_ocr.text import letters
from khmer_ocr.text.normalize import normalize
from khmer_ocr.text.syllables import find_broken, is_well_formed


def test_600_lines_cover_every_class() -> None:
    report = coverage(synthesize_lines(600, seed=42))
    assert report.missing == {}
    assert set(report.shares) == set(letters.classes())
    assert all(share == 1 for share in report.shares.values())
    assert report.lines == 600


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_walk_is_done_after_210_lines(seed: int) -> None:
    assert coverage(synthesize_lines(210, seed=seed)).missing == {}


def test_lines_are_normal_and_well_formed() -> None:
    for line in synthesize_lines(4_000, seed=7):
        assert normalize(line) == line
        assert find_broken(line) is None, line
        assert 1 <= len(line) <= 90


def test_lines_are_fixed_points_of_the_other_implementation() -> None:
    for line in synthesize_lines(1_500, seed=8):
        assert khnormal(line) == line


def test_every_item_is_normal_on_its_own() -> None:
    items = letters.classes()
    for text in (*items["subscript pairs"], *items["stacks of three"]):
        assert normalize(text) == text
        assert is_well_formed(text)
    assert all(len(set(members)) == len(members) for members in items.values())


def test_line_depends_on_seed_and_index_alone() -> None:
    first = list(synthesize_lines(700, seed=3))
    assert list(synthesize_lines(300, seed=3)) == first[:300]
    assert list(itertools.islice(synthesize_lines(10**9, seed=3), 700)) == first
    assert list(synthesize_lines(700, seed=4)) != first
    assert len(set(first)) > 680


@pytest.mark.parametrize(("low", "high"), [(1, 1), (1, 5), (5, 5), (30, 40), (88, 90), (200, 400)])
def test_lengths_stay_in_range(low: int, high: int) -> None:
    lengths = [len(line) for line in synthesize_lines(800, seed=1, min_chars=low, max_chars=high)]
    assert min(lengths) >= low
    assert max(lengths) <= high
    # Past the walk every length is exactly the one drawn, uniformly.
    assert set(lengths[300:]) == set(range(low, high + 1)) or high - low > 60


def test_lengths_are_spread_and_spaces_are_single() -> None:
    lines = list(synthesize_lines(3_000, seed=2))
    tenths = [sum(1 for line in lines[300:] if (len(line) - 1) // 10 == k) for k in range(9)]
    assert min(tenths) > 200
    assert not any("  " in line or line != line.strip() for line in lines)


def test_rare_signs_come_often() -> None:
    text = "\n".join(itertools.islice(synthesize_lines(6_000, seed=9), 300, None))
    for sign in ("៑", "ឦ", "ឩ", "ឝ", "ឰ", "ឳ", "៕", "។ល។", "៙", "៚", "ៜ", "៝", "៎"):
        assert text.count(sign) >= 40, sign


def test_coverage_names_what_is_missing() -> None:
    report = coverage(["ក្ក ា", "។ល"])
    assert "ក្ក" not in report.missing["subscript pairs"]
    assert "ខ្ញ" in report.missing["subscript pairs"]
    assert "។ល។" in report.missing["punctuation"]
    assert report.shares["consonants"] == pytest.approx(2 / 35)
    assert report.lines == 2
    assert coverage([]).shares["signs"] == 0


def test_impossible_ranges_are_refused_at_once() -> None:
    for count, low, high in ((-1, 1, 90), (1, 0, 90), (1, 10, 9)):
        with pytest.raises(ConfigError, match="expected count"):
            synthesize_lines(count, seed=1, min_chars=low, max_chars=high)

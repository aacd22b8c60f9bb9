"""Texts compared: by hand, against the measure everybody uses, and in sums."""

import importlib.util
import re
import unicodedata
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr.rng import draws, key
from khmer_ocr.text.metrics import Score, comparable, confusions, plain, printed, score
from khmer_ocr.text.normalize import normalize
from tests import SHARED

SETS, REAL = SHARED / "eval", SHARED / "real"
CONFUSED = {"វ": "រ", "ត": "គ", "គ": "ក", "ទ": "ន", "ប": "ម", "ុ": "ូ", "ូ": "ួ", "ើ": "ី", "ោ": "ា", "។": "ៗ", "1": "l"}
# Marks many times over: hypothesis seldom stacks them otherwise.
OFTEN = "\u17d2" * 30 + "\u17c1\u17b8\u17b6\u17be\u17bb\u17c9\u17ca" * 4
KHMER = "".join(map(chr, range(0x1780, 0x17DE))) + OFTEN + " 1a\u200b\u200c\u25cc៥"


def khnormal() -> Callable[[str], str]:
    """The reordering that the usual measure stands on, with the same two views around it."""
    module = pytest.importorskip("khmerspell")

    def norm(text: str) -> str:
        text = re.sub("[\u00ad\u200b-\u200f\u2060\ufeff\u17b4\u17b5]", "", unicodedata.normalize("NFC", text))
        text = module.khnormal(re.sub(r"\s+", " ", text).strip())
        return re.sub("\u17d2\u178a", "\u17d2\u178f", text)

    return norm


@pytest.fixture(scope="module")
def eval_lines() -> ModuleType:
    """The shared measure, as it stands."""
    pytest.importorskip("khmerspell")
    if not SETS.is_dir():
        pytest.skip("../shared/eval is not here")
    spec = importlib.util.spec_from_file_location("eval_lines", SETS / "eval_lines.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def labels(eval_lines: ModuleType) -> list[str]:
    """Labels of all four sets."""
    found: list[str] = []
    for folder in sorted(path for path in SETS.iterdir() if path.is_dir()):
        rows = (folder / "labels.tsv").read_text(encoding="utf-8").splitlines()
        found += [row.split("\t")[1] for row in rows]
    assert len(found) > 500
    return found


def misread(text: str, number: int, share: float) -> str:
    """A reading with errors of all kinds: dropped, doubled, swapped, confused characters."""
    address_L = np.arange(len(text), dtype=np.uint64) + np.uint64(4096 * number)
    chance_L2 = draws(key(3, "misread", "test"), address_L, 2)
    out: list[str] = []
    for character, (whether, kind) in zip(text, (chance_L2 / 2**32).tolist(), strict=True):
        if whether > share:
            out.append(character)
        elif kind < 0.2:
            out.append(character * 2)
        elif kind < 0.5:
            out.append(CONFUSED.get(character, "ក"))
        elif kind < 0.8 and out:
            out.insert(len(out) - 1, character)
    return "".join(out)


@given(st.text(alphabet=KHMER, max_size=12))
def test_the_comparable_view_is_khnormal_between_our_two_steps(text: str) -> None:
    assert comparable(text) == khnormal()(text)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_views_and_edits_are_those_of_the_shared_measure(
    eval_lines: ModuleType, labels: list[str], share: float
) -> None:
    total = Score()
    for number, label in enumerate(labels):
        reading = misread(label, number, share)
        assert (plain(reading), comparable(reading)) == (eval_lines.plain(reading), eval_lines.norm(reading))
        one = score(label, reading)
        assert one.edits == eval_lines.Levenshtein.distance(eval_lines.norm(label), eval_lines.norm(reading))
        total += one
    assert total.lines == len(labels) and (total.edits > 0) is (share > 0)
    named = {str(n): label for n, label in enumerate(labels)}
    said = eval_lines.score(named, {n: misread(label, int(n), share) for n, label in named.items()}, list(named))
    assert f"plain CER {100 * total.cer_plain:6.2f} %  exact {100 * total.exact_plain_share:5.1f} %" in said
    assert f"norm CER {100 * total.cer:6.2f} %  exact {100 * total.exact_share:5.1f} %" in said


def test_the_printed_view_and_its_edits_are_those_of_the_measure_of_real_lines() -> None:
    if not (REAL / "score.py").is_file():
        pytest.skip("../shared/real is not here")
    spec = importlib.util.spec_from_file_location("real_score", REAL / "score.py")
    assert spec is not None and spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    files = sorted(REAL.glob("*/labels.tsv"))
    labels = [label for file in files for label in theirs.load(file).values()]
    assert len(files) == 4 and len(labels) > 400
    for number, label in enumerate(labels):
        reading = misread(label, number, 0.1)
        one = score(label, reading, "print")
        expected, seen = theirs.norm(label), theirs.norm(reading)
        assert (printed(label), printed(reading)) == (expected, seen)
        assert (one.characters, one.edits) == (len(expected), theirs.distance(seen, expected))


def test_print_folds_what_a_picture_does_not_show() -> None:
    label, reading = "“ខ្មែរ” ឲ្យ – ក\u200bខ", '"ខ្មែរ"ឱ្យ-កខ'
    assert score(label, reading, "print").exact == 1 and score(label, reading).exact == 0
    assert score("កាត", "កាគ", "print").edits == 1
    # Of one word two spellings; the vowel alone is no other letter.
    assert score("ឲ", "ឱ", "print").edits == 1
    assert confusions([("ក ខ", "ក គ")], "print") == {("ខ", "គ"): 1}


@pytest.mark.parametrize(
    ("label", "reading", "spaces", "edits"),
    [
        ("ក ខ គ", "ក ខ គ", 2, 0),
        ("ក ខ គ", "កខ គ", 2, 1),
        ("កខ", "ក ខ", 0, 1),
        ("ក ខ", "ក។ខ", 1, 1),
        ("ក ខ", "គ  ង", 1, 0),
        ("ក ខ", "", 1, 1),
    ],
)
def test_spaces_have_a_rate_of_their_own(label: str, reading: str, spaces: int, edits: int) -> None:
    for fold in ("khmer", "print"):
        one = score(label, reading, fold)
        assert (one.spaces, one.space_edits) == (spaces, edits)
    assert one.space_error_rate == edits / max(spaces, 1)


def test_the_projects_labels_compare_as_they_stand(eval_lines: ModuleType, labels: list[str]) -> None:
    """Scoring normalised labels loses nothing: both normal forms are one view of the label as it was."""
    apart = [label for label in labels if comparable(normalize(label)) != comparable(label)]
    assert apart == []


def test_what_prints_alike_is_no_error() -> None:
    for label, reading in (
        ("ស្ត្រី", "ស្រ្តី"),
        ("បណ្ដាញ", "បណ្តាញ"),
        ("ស៊ី", "សី៊"),
        ("កោ", "កេា"),
        ("ក ខ", " ក\u00a0 ខ\u200b "),
    ):
        one = score(label, reading)
        assert (one.edits, one.syllable_edits, one.exact) == (0, 0, 1), label
    assert score("ស្ត្រី", "ស្រ្តី").edits_plain > 0


def test_edits_are_counted_in_code_points_and_in_syllables() -> None:
    one = score("ស្ត្រី ខ្មែរ", "ស្ត្រ ខ្មែ")
    assert (one.characters, one.edits) == (12, 2)
    assert (one.syllables, one.syllable_edits) == (4, 2)
    assert (one.cer, one.syllable_error_rate, one.exact_share) == (2 / 12, 2 / 4, 0.0)
    nothing = score("ខ្មែរ", "")
    assert nothing.cer == 1.0 and nothing.syllable_error_rate == 1.0
    assert score("", "កក").cer == 2.0 and score("", "").exact == 1


@given(st.lists(st.tuples(st.text(alphabet=KHMER, max_size=6), st.text(alphabet=KHMER, max_size=6)), max_size=5))
def test_scores_add_up(pairs: list[tuple[str, str]]) -> None:
    each = [score(label, reading) for label, reading in pairs]
    total = sum(each, Score())
    assert total.lines == len(pairs) and total.edits == sum(one.edits for one in each)
    assert total.exact == sum(comparable(label) == comparable(reading) for label, reading in pairs)
    assert sum(confusions(pairs).values()) == total.edits


def test_confusions_name_what_was_expected_and_what_was_read() -> None:
    found = confusions([("ការ", "កាវ"), ("ការ", "កាវ"), ("ខ្មែរ", "ខ្មែ"), ("ក", "ក១")])
    assert found == {("រ", "វ"): 2, ("រ", ""): 1, ("", "១"): 1}
    assert found.most_common(1) == [(("រ", "វ"), 2)]

"""The grammar against HarfBuzz itself: a sub-font that gives U+25CC its own glyph shows every circle inserted."""

import random
import re
import unicodedata
from functools import lru_cache

import fontpkg_noto_sans_khmer
import pytest
import uharfbuzz as hb
from hypothesis import given, settings
from hypothesis import strategies as st

from khmer_ocr.corpus.synthesis.syllable_lines import synthesize_lines
from khmer_ocr.samples import sample_lines
from khmer_ocr.text.syllables import find_broken, is_well_formed, split
from tests import SHARED

CIRCLE = 60_000
CORPUS = SHARED / "corpus"
KHMER = [chr(c) for c in range(0x1780, 0x1800)]
MARKS = [chr(c) for c in (*range(0x17B6, 0x17D4), 0x17DD, 0x17D2, 0x17D2, 0x200C, 0x200D)]
OTHERS = list("ab 09-().\u00a0\u25cc\u2022\u200b\ufeff\u0301\u19e0")


class Shaper:
    def __init__(self) -> None:
        font = hb.Font(hb.Face(hb.Blob.from_file_path(str(next(fontpkg_noto_sans_khmer.ROOT.rglob("*.ttf"))))))
        space = font.get_nominal_glyph(0x20)
        functions = hb.FontFuncs()
        functions.set_nominal_glyph_func(
            lambda _font, code, _data: CIRCLE if code == 0x25CC else font.get_nominal_glyph(code) or space
        )
        self.font, self.sub_font = font, hb.Font(font)
        self.sub_font.funcs = functions

    def circles(self, text: str) -> list[int]:
        """Where HarfBuzz inserts a circle: the positions of the syllables' first characters."""
        buffer = hb.Buffer()
        buffer.add_str(text)
        buffer.direction, buffer.script, buffer.language = "ltr", "Khmr", "km"
        buffer.cluster_level = hb.BufferClusterLevel.CHARACTERS
        buffer.flags = hb.BufferFlags.BOT | hb.BufferFlags.EOT
        hb.shape(self.sub_font, buffer, {})
        found = [info.cluster for info in buffer.glyph_infos if info.codepoint == CIRCLE]
        for i, character in enumerate(text):
            if character == "\u25cc":
                found.remove(min((c for c in found if c <= i), key=lambda c: i - c))
        return sorted(found)


@lru_cache(maxsize=1)
def the_shaper() -> Shaper:
    return Shaper()


@pytest.fixture
def shaper() -> Shaper:
    return the_shaper()


def check(shaper: Shaper, text: str) -> None:
    clusters = split(text)
    assert "".join(clusters) == text
    circles = shaper.circles(text)
    lone_coeng = re.search("\u17d2(?![\u1780-\u17b3])", text)
    broken = find_broken(text)
    assert (broken is not None) == bool(circles or lone_coeng), (text, [f"{ord(c):04X}" for c in text], broken, circles)
    if broken is not None and "\u25cc" not in text:
        starts = [0]
        for cluster in clusters:
            starts.append(starts[-1] + len(cluster))
        lone = [max(start for start in starts if start <= lone_coeng.start())] if lone_coeng else []
        assert broken[0] == min([*circles, *lone]), (text, [f"{ord(c):04X}" for c in text], broken, circles)
        assert broken[0] < broken[1] <= len(text)


@pytest.mark.parametrize("seed", range(4))
def test_equals_harfbuzz_on_random_strings(shaper: Shaper, seed: int) -> None:
    rng = random.Random(seed)
    broken = 0
    for _ in range(30_000):
        marks = rng.random()
        text = "".join(
            rng.choice(MARKS) if rng.random() < marks else rng.choice("ករញឥ" if rng.random() < 0.7 else KHMER + OTHERS)
            for _ in range(rng.randint(1, 9))
        )
        text = unicodedata.normalize("NFC", text)
        check(shaper, text)
        broken += find_broken(text) is not None
    assert 5_000 < broken < 27_000


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from(KHMER + MARKS * 2 + OTHERS), max_size=12))
def test_equals_harfbuzz_on_hypothesis(text: str) -> None:
    check(the_shaper(), unicodedata.normalize("NFC", text))


def test_what_may_carry_a_vowel_sign_equals_harfbuzz(shaper: Shaper) -> None:
    codes = (*range(0x20, 0x250), *range(0x0E80, 0x0F00), *KHMER, *range(0x19E0, 0x1A00), *range(0x2000, 0x2C00))
    for code in codes:
        text = (code if isinstance(code, str) else chr(code)) + "\u17b6"
        if unicodedata.is_normalized("NFC", text) and "\u25cc" not in text:
            assert is_well_formed(text) == (not shaper.circles(text) and "\u17d2" not in text), f"{ord(text[0]):04X}"


@pytest.mark.parametrize(
    ("text", "clusters"),
    [
        ("", []),
        ("ក", ["ក"]),
        ("ស្ត្រី", ["ស្ត្រី"]),
        ("ខ្ញុំស្រឡាញ់ភាសា", ["ខ្ញុំ", "ស្រ", "ឡា", "ញ់", "ភា", "សា"]),
        ("ប៉ុន្តែ A៥!", ["ប៉ុ", "ន្តែ", " ", "A", "៥", "!"]),
        ("ក្ស្មា", ["ក្ស្មា"]),
        (" ាក", [" ", "ា", "ក"]),
    ],
)
def test_split(text: str, clusters: list[str]) -> None:
    assert split(text) == clusters


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("ក្", (0, 2)),
        ("ខ្មែរ ក្", (6, 8)),
        ("កា ិក", (3, 4)),
        ("Aា", (1, 2)),
        ("ា", (0, 1)),
        ("កុុ", (2, 3)),
        ("ប៉ុុស្តិ៍", (3, 4)),
        ("\u0301a", (0, 1)),
        ("ក្a", (0, 2)),
        ("្ក", (0, 2)),
    ],
)
def test_find_broken_names_the_syllable(text: str, span: tuple[int, int]) -> None:
    assert find_broken(text) == span
    assert not is_well_formed(text)


@pytest.mark.parametrize("text", ["", "abc é", "ស្ត្រី", "ក៊ី", "ណា៎", "១២ ៛", "-ា", "ក៏មាន", "ឲ្យ", "e\u0301x", "៕"])
def test_well_formed(text: str) -> None:
    assert find_broken(text) is None


def test_equals_harfbuzz_on_bundled_and_random_lines(shaper: Shaper) -> None:
    for line in (*sample_lines(), *synthesize_lines(600, seed=6)):
        check(shaper, line)


@pytest.mark.slow
@pytest.mark.skipif(not CORPUS.is_dir(), reason="shared/corpus is not here")
def test_equals_harfbuzz_on_real_lines(shaper: Shaper) -> None:
    lines = [
        line for path in sorted(CORPUS.glob("*.txt")) for line in path.read_text(encoding="utf-8").split("\n")[:500]
    ]
    assert len(lines) > 3_000
    for line in lines:
        check(shaper, unicodedata.normalize("NFC", line.replace("\u200b", "")))

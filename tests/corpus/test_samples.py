import re
import unicodedata
from importlib import resources
from pathlib import Path

import fontpkg
import pytest
import uharfbuzz

from khmer_ocr.corpus.filter import near_copy_key
from khmer_ocr.corpus.synthesis.syllable_lines import synthesize_lines
from khmer_ocr.samples import sample_lines
from khmer_ocr.text.normalize import normalize
from khmer_ocr.text.syllables import find_broken


@pytest.fixture(scope="module")
def embedded_font() -> uharfbuzz.Font:
    """The font that comes with every installation."""
    (file,) = fontpkg.families()["noto-sans-khmer"].files
    return uharfbuzz.Font(uharfbuzz.Face(Path(file.path).read_bytes()))


def undrawable(font: uharfbuzz.Font, line: str) -> list[str]:
    buffer = uharfbuzz.Buffer()
    buffer.add_str(line)
    buffer.script, buffer.language, buffer.direction = "Khmr", "km", "ltr"
    uharfbuzz.shape(font, buffer)
    return [line[glyph.cluster] for glyph in buffer.glyph_infos if glyph.codepoint == 0]


def test_the_embedded_font_alone_draws_every_line(embedded_font: uharfbuzz.Font) -> None:
    assert undrawable(embedded_font, "ក□ខ") == ["□"]
    for line in (*sample_lines(), *synthesize_lines(400, seed=3)):
        assert undrawable(embedded_font, line) == [], line


def test_there_are_many_varied_lines() -> None:
    lines = sample_lines()
    assert len(lines) >= 450
    assert len({near_copy_key(line) for line in lines}) == len(lines)
    lengths = [len(line) for line in lines]
    assert min(lengths) <= 4
    assert max(lengths) <= 90
    assert sum(length > 60 for length in lengths) >= 50
    assert sum(length < 15 for length in lengths) >= 50


def test_no_two_lines_are_one_template_with_a_word_swapped() -> None:
    def trigrams(line: str) -> set[str]:
        key = near_copy_key(line)
        return {key[i : i + 3] for i in range(len(key) - 2)}

    long_lines = [(line, trigrams(line)) for line in sample_lines() if len(near_copy_key(line)) > 20]
    alike = [
        (a, b)
        for i, (a, in_a) in enumerate(long_lines)
        for b, in_b in long_lines[:i]
        if len(in_a & in_b) > 0.6 * len(in_a | in_b)
    ]
    assert alike == []


def test_lines_are_normalised_and_well_formed() -> None:
    for line in sample_lines():
        assert normalize(line) == line
        assert find_broken(line) is None, line


def test_documents_are_blocks_on_one_theme() -> None:
    text = resources.files("khmer_ocr.samples").joinpath("khmer_sample.txt").read_text(encoding="utf-8")
    blocks = text.removesuffix("\n").split("\n\n")
    assert all(8 <= len(block.split("\n")) <= 15 for block in blocks)
    assert len(blocks) >= 40


def test_what_ocr_must_read_occurs() -> None:
    text = "\n".join(sample_lines())
    consonants = {chr(code) for code in range(0x1780, 0x17A3)} - {"\u179d", "\u179e"}
    vowels = {chr(code) for code in range(0x17B6, 0x17C9)}
    signs = set("៉៊់៌៍៏័្")
    assert consonants | vowels | signs <= set(text)
    assert set("ឥឦឧឪឫឬឮឯឰឱ") <= set(text)
    assert set("០១២៣៤៥៦៧៨៩0123456789។៕៖ៗ៛«»“”()?!%$") <= set(text)
    assert all(word in text for word in ("Facebook", "USB", "km", "e-mail", "PDF"))
    assert len(re.findall(r"[០-៩][  ]?០០០ ?៛", text)) >= 5
    assert not {char for char in text if char != "\n" and unicodedata.category(char)[0] == "C"}

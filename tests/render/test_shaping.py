import pytest
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr.errors import FontError
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.render.shaping import EM16, Shaper, script_of, script_runs, to_em16, undrawn
from khmer_ocr.text.syllables import is_well_formed
from tests.render.oracles import has_dotted_circle


@pytest.fixture(scope="module")
def noto(embedded: list[FontFace]) -> Shaper:
    return Shaper(next(face for face in embedded if face.style == "Regular"))


@pytest.fixture(scope="module")
def by_name(faces: list[FontFace]):
    return {face.name: face for face in faces}


@given(st.text(alphabet="កខ្ាិៗ០ abcé-12«។‌αя", max_size=30))
def test_script_runs_cover_the_text_in_order(text):
    runs = list(script_runs(text))
    assert "".join(run for _, run in runs) == text
    assert all(text[start : start + len(run)] == run for start, run in runs)


def test_script_language_and_direction_do_not_depend_on_what_stands_first(noto):
    assert [run for _, run in script_runs("Word ភាសា 12 ខ្មែរ")] == ["Word ", "ភាសា ", "12 ", "ខ្មែរ"]
    assert script_of("ភាសា") == ("Khmr", "km")
    assert script_of("12.5 %") == ("Khmr", "km")
    assert script_of("(Word)") == ("Latn", "en")
    assert script_of("Ελλάδα") == ("Grek", "el")
    assert script_of("Слово") == ("Cyrl", "ru")
    assert script_of("中") == ("Latn", "en")
    # The Khmer of a line that begins with Latin is shaped as Khmer: the pre-base vowel comes first.
    first = noto.shape([run for _, run in script_runs("a កេ")][1])
    assert first[0].gid == noto.fonts[0].get_nominal_glyph(0x17C1)


def test_pre_base_vowels_move_and_coengs_stack(noto):
    letters = {glyph.gid for glyph in noto.shape("ក")}
    stacked = noto.shape("ក្ក")
    assert stacked[0].gid in letters and len(stacked) == 2 and stacked[1].advance == 0
    assert noto.fonts[0].get_nominal_glyph(0x17D2) not in {glyph.gid for glyph in stacked}


def test_missing_file_is_named(noto, tmp_path):
    gone = FontFace("Gone", "Gone", "Regular", (tmp_path / "Gone.ttf",))
    with pytest.raises(FontError, match=r"Gone\.ttf"):
        Shaper(gone)


def test_fallback_takes_whole_words_the_face_lacks(by_name):
    shaper = Shaper(by_name["KdamThmorPro-Regular"])
    assert len(shaper.fonts) == 2
    glyphs = shaper.shape_with_fallback("né 12")
    assert [glyph.font for glyph in glyphs] == [1, 1, 0, 0, 0]
    assert all(glyph.gid for glyph in glyphs)
    assert [glyph.cluster for glyph in glyphs] == [0, 1, 2, 3, 4]
    # Neighbours do not change the font of a word: the run cache looks words up one by one.
    digits = [(glyph.font, glyph.gid) for glyph in shaper.shape_with_fallback("12")]
    assert [(glyph.font, glyph.gid) for glyph in glyphs[3:]] == digits
    assert [glyph.gid for glyph in shaper.shape_with_fallback("a中")][1] == 0


def test_fallback_changes_nothing_where_the_face_has_all(by_name):
    shaper = Shaper(by_name["Battambang-Regular"])
    assert shaper.shape_with_fallback("ភាសាខ្មែរ") == shaper.shape("ភាសាខ្មែរ")


def test_a_zero_that_is_a_fragment_is_found(by_name, metrics):
    assert "0" in metrics["OdorMeanChey-Regular"].malformed
    assert not metrics["KhmerOS"].malformed


def test_a_full_stop_without_ink_counts_as_undrawn(by_name):
    shaper = Shaper(by_name["OdorMeanChey-Regular"])
    assert undrawn(shaper, "1.5", shaper.shape_with_fallback("1.5")) == ["."]
    good = Shaper(by_name["KhmerOS"])
    assert undrawn(good, "1.5", good.shape_with_fallback("1.5")) == []


def test_a_visible_coeng_counts_as_undrawn(by_name):
    # The fontsource faces have no subscript form of LO LAARGE: they draw the sign itself.
    shaper = Shaper(by_name["Battambang-Regular"])
    stacked = shaper.shape_with_fallback("ក្ឡ")
    assert any(shaper.is_visible_coeng(glyph.font, glyph.gid) for glyph in stacked)
    assert undrawn(shaper, "ក្ឡ", stacked) == ["ក្"]
    assert undrawn(shaper, "ក្រ", shaper.shape_with_fallback("ក្រ")) == []


def test_a_notdef_without_ink_counts_as_undrawn(by_name):
    shaper = Shaper(by_name["Khmer-Regular"])
    glyphs = shaper.shape_with_fallback("A")
    assert [glyph.gid for glyph in glyphs] == [0]
    assert shaper.extents(glyphs[0]) is None
    assert undrawn(shaper, "A", glyphs) == ["A"]


def test_spaces_and_joiners_need_no_ink(noto):
    assert undrawn(noto, "ក ខ", noto.shape("ក ខ")) == []
    assert undrawn(noto, "ម៉‌ឺ", noto.shape("ម៉‌ឺ")) == []
    assert undrawn(noto, "中", noto.shape("中")) == ["中"]


@pytest.mark.parametrize("broken", ["ា", "្ក", "កេែេ", "ំក", "ក្្ក"])
def test_the_watch_for_dotted_circles_works(noto, broken):
    assert has_dotted_circle(noto.fonts[0], broken)
    assert not is_well_formed(broken)
    assert not has_dotted_circle(noto.fonts[0], "ស្ត្រី ភាសាខ្មែរ")


@given(st.integers(-40_000, 40_000), st.sampled_from([1000, 1024, 2048, 4096]))
def test_em16_is_rounded_half_up(value, upem):
    assert abs(to_em16(value, upem) - value * EM16 / upem) <= 0.5
    assert to_em16(value, upem) == (value * EM16 / upem + 0.5) // 1

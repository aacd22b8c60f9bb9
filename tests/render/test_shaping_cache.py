"""The shaping cache: segments put together equal whole runs, in every face; its hash table never mixes texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.render import measure
from khmer_ocr.render.face_metrics import FaceMetrics
from khmer_ocr.render.glyph_table import BROKEN, MISSING
from khmer_ocr.render.segments import SCRIPT_RUN, SYLLABLE, WORD
from khmer_ocr.render.shaping import Shaper
from khmer_ocr.render.shaping_cache import ShapingCache
from khmer_ocr.text.syllables import split

mixed = st.text(alphabet="កខរវ្ាិីេៅុំះ៉ៗ០១។ abXé-1.«", max_size=40)


@pytest.fixture(scope="module")
def noto(embedded: list[FontFace]) -> FontFace:
    return next(face for face in embedded if face.style == "Regular")


def cache_of(faces, units, capacity=1 << 12, malformed=None):
    return ShapingCache(faces, units, malformed or [""] * len(faces), capacity)


def glyphs_of(cache: ShapingCache, text: str, face: int = 0):
    """Glyphs and places that the cache gives a line, from its arrays."""
    looked = cache.look_up([text], np.array([face], np.int32))
    out, pen = [], 0
    for run in looked.runs_T.tolist():
        begin, end = cache.glyph_span_R2[run].tolist()
        out += [
            (g, pen + x, y)
            for g, (x, y) in zip(cache.glyph_G[begin:end].tolist(), cache.place_G2[begin:end].tolist(), strict=True)
        ]
        pen += int(cache.advance_R[run])
    return out, pen


@given(mixed, st.sampled_from([SYLLABLE, WORD, SCRIPT_RUN]))
def test_segments_join_to_the_line(text, unit):
    parts = measure.segments_of(text, unit) if text else []
    assert "".join(parts) == text
    assert all(parts)


@given(mixed)
def test_smaller_units_only_cut_further(text):
    def cuts(unit):
        return set(np.cumsum([len(segment) for segment in measure.segments_of(text, unit)]).tolist())

    if text:
        assert cuts(SCRIPT_RUN) <= cuts(WORD) <= cuts(SYLLABLE)


@given(st.text(alphabet="កខរវ្ាិីេៅុំះ៉", min_size=1, max_size=30))
def test_syllables_are_never_cut(text):
    from khmer_ocr.text.syllables import is_well_formed

    if not is_well_formed(text):
        return
    ends = np.cumsum([len(segment) for segment in measure.segments_of(text, SYLLABLE)]).tolist()
    assert set(ends) <= set(np.cumsum([len(cluster) for cluster in split(text)]).tolist())


def test_segments_of_a_real_line():
    line = "តម្លៃ ១២ ៛ (USD 3.5)។"
    assert measure.segments_of(line, SYLLABLE) == ["ត", "ម្លៃ", " ", "១", "២", " ", "៛", " ", "(USD", " ", "3.5)", "។"]
    assert measure.segments_of(line, WORD) == ["តម្លៃ", " ", "១២", " ", "៛", " ", "(USD", " ", "3.5)", "។"]
    assert measure.segments_of(line, SCRIPT_RUN) == ["តម្លៃ ១២ ៛ ", "(USD 3.5)", "។"]


def exact(face: FontFace, unit: int, lines: list[str]) -> list[str]:
    """Script runs that the cache, put together from segments, draws otherwise than HarfBuzz does as a whole."""
    shaper, cache, wrong = Shaper(face), cache_of([face], [unit], 1 << 15), []
    base = cache.glyph_base[0]
    for run in dict.fromkeys(run for line in lines for run in measure.segments_of(line, SCRIPT_RUN)):
        expected, advance = measure.placed(shaper, shaper.shape_with_fallback(run))
        glyphs, pen = glyphs_of(cache, run)
        if glyphs != [(base[font] + gid, x, y) for font, gid, x, y in expected] or pen != advance:
            wrong.append(run)
    return wrong


def test_cached_segments_equal_whole_runs_in_every_face(faces, metrics, real_lines):
    # Instances of one variable font share its tables: the corners of its axes stand for the rest here.
    corners = ("Regular", "Black", "ExtraCondensedThin")
    for face in faces:
        if not metrics[face.name].fatal and (not face.variations or face.style in corners):
            assert exact(face, metrics[face.name].unit, real_lines[:300:4] + real_lines[630:1100:8]) == [], face.name


@pytest.mark.slow
def test_cached_segments_equal_whole_runs_in_every_face_over_the_corpus(faces, metrics, corpus_lines):
    for face in faces:
        if not metrics[face.name].fatal and metrics[face.name].unit != SCRIPT_RUN:
            assert exact(face, metrics[face.name].unit, corpus_lines[::9]) == [], face.name


def test_a_unit_that_is_too_small_is_noticed(faces, metrics):
    # The test above must be able to fail: these two faces choose a vowel's form by the letters before it.
    freehand = next(face for face in faces if face.name == "KhmerOSfreehand")
    assert metrics[freehand.name].unit == WORD
    assert exact(freehand, SYLLABLE, ["លោកមេឃុំថ្លែងថា"]) != []
    oureang = next(face for face in faces if face.name == "Mo9V55")
    assert metrics[oureang.name].unit == SCRIPT_RUN
    assert exact(oureang, WORD, ["តម្លៃ ។"]) != []


def test_a_small_cache_empties_itself_and_changes_nothing(noto, real_lines):
    lines = real_lines[:200]
    large, small = cache_of([noto], [SYLLABLE], 1 << 14), cache_of([noto], [SYLLABLE], 1 << 7)
    for line in lines:
        assert glyphs_of(small, line) == glyphs_of(large, line)
    assert small.capacity_runs == 1 << 7 and small.run_count <= 1 << 7 < large.run_count


def test_a_batch_larger_than_the_cache_is_done_all_the_same(noto, real_lines):
    lines = real_lines[:300]
    small = cache_of([noto], [SCRIPT_RUN], 1 << 4)
    looked = small.look_up(lines, np.zeros(len(lines), np.int32))
    assert small.capacity_runs > 1 << 4
    large = cache_of([noto], [SCRIPT_RUN])
    expected = large.look_up(lines, np.zeros(len(lines), np.int32))
    assert looked.offsets_L1.tolist() == expected.offsets_L1.tolist()
    assert small.advance_R[looked.runs_T].tolist() == large.advance_R[expected.runs_T].tolist()


def test_equal_hashes_do_not_mix_texts(noto):
    # Forge a collision: the run of one text gets the hash, and stands in the slot, of another of the same length.
    one, other = "កខ", "គឃ"
    cache, second = cache_of([noto], [WORD], 1 << 8), cache_of([noto], [WORD], 1 << 8)
    expected = glyphs_of(second, other)
    forged = second.hash_R[0]
    first = glyphs_of(cache, one)
    cache.slots_S.fill(-1)
    cache.hash_R[0] = forged
    cache.slots_S[int(forged) & (len(cache.slots_S) - 1)] = 0
    assert glyphs_of(cache, other) == expected != first
    assert cache.run_count == 2 and cache.hash_R[0] == cache.hash_R[1]


def test_faces_are_kept_apart(few_faces, metrics):
    cache = cache_of(few_faces, [metrics[face.name].unit for face in few_faces])
    text = "ភាសាខ្មែរ ABC"
    for number, face in enumerate(few_faces):
        alone = cache_of([face], [metrics[face.name].unit])
        base, end = cache.glyph_base[number][0], cache.glyph_base[number][0] + sum(cache.shapers[number].glyph_count)
        glyphs, advance = glyphs_of(cache, text, number)
        assert all(base <= glyph < end for glyph, _, _ in glyphs)
        assert ([(glyph - base, x, y) for glyph, x, y in glyphs], advance) == glyphs_of(alone, text)


def test_flags_of_broken_and_missing(noto):
    cache = cache_of([noto], [WORD], malformed=["7"])

    def flags(text):
        looked = cache.look_up([text], np.zeros(1, np.int32))
        return int(np.bitwise_or.reduce(cache.flags_R[looked.runs_T]))

    assert flags("ភាសា 12") == 0
    assert flags("ាក") & BROKEN and flags("aា") & BROKEN and flags("ក្") & BROKEN
    assert flags("中") & MISSING and flags("ក 17") & MISSING
    assert flags(" ") == 0


def test_empty_batches_and_empty_lines(noto):
    cache = cache_of([noto], [SYLLABLE])
    assert cache.look_up([], np.zeros(0, np.int32)).offsets_L1.tolist() == [0]
    looked = cache.look_up(["", "ក", ""], np.zeros(3, np.int32))
    assert looked.offsets_L1.tolist() == [0, 0, 1, 1]


@settings(deadline=None, max_examples=30)
@given(st.lists(mixed, max_size=8))
def test_a_line_does_not_depend_on_its_batch(embedded, texts):
    face = next(face for face in embedded if face.style == "CondensedBold")
    cache, fresh = cache_of([face], [SYLLABLE]), cache_of([face], [SYLLABLE])
    together = cache.look_up(texts, np.zeros(len(texts), np.int32))
    for line, text in enumerate(texts):
        mine = together.runs_T[together.offsets_L1[line] : together.offsets_L1[line + 1]]
        alone = fresh.look_up([text], np.zeros(1, np.int32)).runs_T
        assert cache.advance_R[mine].tolist() == fresh.advance_R[alone].tolist()


def test_memory_is_taken_once(noto, real_lines):
    cache = cache_of([noto], [SYLLABLE], 1 << 12)
    before = [array.ctypes.data for array in (cache.slots_S, cache.codes, cache.glyph_G, cache.place_G2)]
    for start in range(0, 600, 100):
        cache.look_up(real_lines[start : start + 100], np.zeros(100, np.int32))
    assert [array.ctypes.data for array in (cache.slots_S, cache.codes, cache.glyph_G, cache.place_G2)] == before


def test_metrics_that_the_cache_needs_have_defaults():
    assert FaceMetrics().unit == SYLLABLE

"""Lines as drawn: nothing cut, nothing missing, nothing that depends on more than a line's own address."""

import os

import numpy as np
import PIL.features
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from khmer_ocr import rng
from khmer_ocr.corpus.synthesis.syllable_lines import synthesize_lines
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.render import shaping_cache
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.face_metrics import FaceMetrics
from khmer_ocr.render.planner import LinePlan
from khmer_ocr.render.settings import RenderConfig
from khmer_ocr.render.shaping import Shaper, script_runs, undrawn
from khmer_ocr.text.normalize import normalize
from tests.render.oracles import cropped, draw_with_raqm, has_dotted_circle, overlap

KEY = rng.key(42, "train", "plan")
IOU_PPEM = 128


@pytest.fixture(scope="module")
def usable(faces: list[FontFace], metrics: dict[str, FaceMetrics]) -> list[FontFace]:
    return [face for face in faces if not metrics[face.name].fatal]


@pytest.fixture(scope="module")
def renderer(usable, metrics) -> LineRenderer:
    return LineRenderer(usable, metrics)


def drawn(renderer: LineRenderer, lines: list[str], first: int = 0):
    """The lines that can be drawn, their plan, and their images."""
    keep = [line for line, reason in zip(lines, renderer.planner.rejections(lines), strict=True) if not reason]
    address_B = np.arange(first, first + len(keep), dtype=np.uint64)
    plan = renderer.plan(keep, address_B, KEY)
    return keep, plan, renderer.draw(keep, plan)


def assert_right(renderer: LineRenderer, lines: list[str], shapers: dict[int, Shaper], every: int = 1) -> int:
    """Draw lines (drawing itself raises where ink is cut) and look for what no label names; how many were drawn."""
    keep, plan, _ = drawn(renderer, lines)
    for line, face in list(zip(keep, plan.face_B.tolist(), strict=True))[::every]:
        shaper = shapers.setdefault(face, Shaper(renderer.faces[face]))
        for _, run in script_runs(line):
            glyphs = shaper.shape_with_fallback(run)
            assert all(glyph.gid for glyph in glyphs), (line, shaper.face.name)
            assert undrawn(shaper, run, glyphs) == [], (line, shaper.face.name)
            assert not has_dotted_circle(shaper.fonts[0], run), (line, shaper.face.name)
    return len(keep)


def test_no_clipped_ink_no_notdef_no_dotted_circle(renderer, real_lines):
    lines = real_lines[:1600] + list(synthesize_lines(400, seed=5))
    assert assert_right(renderer, lines, {}, every=2) > 0.97 * len(lines)


@pytest.mark.slow
def test_the_same_over_the_whole_corpus(renderer, corpus_lines):
    shapers: dict[int, Shaper] = {}
    count = sum(assert_right(renderer, corpus_lines[a : a + 1024], shapers) for a in range(0, len(corpus_lines), 1024))
    assert count > 0.99 * len(corpus_lines) > 50_000


@pytest.mark.parametrize("height", [24, 48, 96])
@pytest.mark.parametrize("crop", ["line", "tight", "mixed"])
def test_the_same_at_other_heights(few_faces, metrics, real_lines, height, crop):
    renderer = LineRenderer(few_faces, metrics, RenderConfig(image_height=height, crop=crop))
    lines = real_lines[: 24_000 // height]
    assert assert_right(renderer, lines, {}, every=9) > 0.95 * len(lines)


@pytest.mark.slow
@pytest.mark.parametrize("height", [24, 48, 96])
def test_the_same_at_other_heights_in_every_face(usable, metrics, real_lines, height):
    for crop in ("line", "tight"):
        renderer = LineRenderer(usable, metrics, RenderConfig(image_height=height, crop=crop))
        assert assert_right(renderer, real_lines[:2000], {}, every=50) > 1900


anything = st.text(
    st.one_of(
        st.sampled_from("កខរវញឡ្្ាិេៅឿុំះ៉៊៌ៗ០១។៛ abAé1-.«»\u200c\u25cc"),
        st.characters(min_codepoint=0x1780, max_codepoint=0x17FF),
        st.characters(exclude_categories=("Cs",)),  # type: ignore[arg-type]
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(st.lists(anything, min_size=1, max_size=6), st.integers(0, 2**63))
def test_any_text_is_drawn_whole_or_rejected_with_a_reason(small_renderer, texts, first):
    # Labels are normalised before they come here; this must hold for what slips through all the same.
    assert_right(small_renderer, texts, {})
    assert_right(small_renderer, [normalize(text) for text in texts], {})


@pytest.fixture(scope="module")
def small_renderer(few_faces, metrics) -> LineRenderer:
    return LineRenderer(few_faces, metrics)


@pytest.mark.parametrize("crop", ["line", "tight", "mixed"])
def test_a_taller_image_shows_no_more_ink(usable, metrics, real_lines, crop):
    """Independent of the count of clipped pixels: what stands above and below the image is background."""
    renderer, margin = LineRenderer(usable, metrics, RenderConfig(crop=crop)), 20
    lines, plan, batch = drawn(renderer, real_lines[:700])
    moved = LinePlan(plan.face_B, plan.size64_B, plan.baseline_B + np.int32(margin), plan.left_B, plan.right_B)
    tall, clipped_B = renderer._compose(lines, moved, batch.height_px + 2 * margin)
    assert not clipped_B.any()
    for line in range(len(lines)):
        image = tall.image(line)
        assert (image[:margin] == 255).all() and (image[-margin:] == 255).all(), lines[line]
        assert np.array_equal(image[margin:-margin], batch.image(line))


def test_a_plan_that_cuts_ink_raises(few_faces, metrics):
    renderer = LineRenderer(few_faces, metrics)
    plan = renderer.plan(["ស្ត្រី"], np.zeros(1, np.uint64), KEY)
    low = LinePlan(plan.face_B, plan.size64_B, plan.baseline_B + np.int32(20), plan.left_B, plan.right_B)
    with pytest.raises(AssertionError, match="fell outside"):
        renderer.draw(["ស្ត្រី"], low)


def test_margins_are_background_and_begin_at_the_ink(renderer, real_lines):
    lines, plan, batch = drawn(renderer, real_lines[:500])
    for line in range(len(lines)):
        image = batch.image(line)
        assert image.shape == (batch.height_px, batch.width_B[line]) and image.dtype == np.uint8
        inked = np.flatnonzero((image < 255).any(0))
        assert inked[0] == plan.left_B[line]
        assert inked[-1] == batch.width_B[line] - plan.right_B[line] - 1
        assert image.min() < 128


def test_pixels_do_not_depend_on_batch_order_atlas_or_cache(few_faces, metrics, real_lines, tmp_path):
    one = LineRenderer(few_faces, metrics)
    lines, _, batch = drawn(one, real_lines[:240])
    expected = [batch.image(line).tobytes() for line in range(len(lines))]
    address_B = np.arange(len(lines), dtype=np.uint64)

    def pixels(renderer: LineRenderer, order) -> list[bytes]:
        texts = [lines[n] for n in order]
        got = renderer.draw(texts, renderer.plan(texts, address_B[order], KEY))
        return [got.image(line).tobytes() for line in range(len(texts))]

    backwards = list(range(len(lines)))[::-1]
    assert pixels(one, backwards) == expected[::-1]
    stored = LineRenderer(few_faces, metrics, atlas_dir=tmp_path)
    assert pixels(stored, backwards) == expected[::-1]
    stored.atlas.save()
    again = LineRenderer(few_faces, metrics, atlas_dir=tmp_path)
    assert [image for n in range(len(lines)) for image in pixels(again, [n])] == expected
    assert again.atlas.drawn == 0
    scarce = LineRenderer(few_faces, metrics)
    scarce.atlas = type(scarce.atlas)(few_faces, scarce.shaping_cache.glyph_base, None, 1 << 15, 1 << 8)
    scarce.shaping_cache._allocate(1 << 8)
    assert [
        image for a in range(0, len(lines), 20) for image in pixels(scarce, range(a, min(a + 20, len(lines))))
    ] == expected
    assert scarce.atlas.cleared > 1


def test_what_is_planned_is_looked_up_once(few_faces, metrics, real_lines, monkeypatch):
    renderer = LineRenderer(few_faces, metrics)
    lines, plan, batch = drawn(renderer, real_lines[:200])
    fresh = renderer.shaping_cache.look_up(lines, plan.face_B)
    assert np.array_equal(plan.shaped.runs_T, fresh.runs_T) and np.array_equal(plan.shaped.offsets_L1, fresh.offsets_L1)
    with monkeypatch.context() as patch:
        patch.setattr(shaping_cache, "_look_up", None)
        assert np.array_equal(renderer.draw(lines, plan).pixels_N, batch.pixels_N)
    renderer.shaping_cache.clear()  # what the plan knows is then wrong
    renderer.shaping_cache.look_up(["កខគ"], np.zeros(1, np.int32))
    assert np.array_equal(renderer.draw(lines, plan).pixels_N, batch.pixels_N)


def test_other_seeds_and_addresses_draw_otherwise(few_faces, metrics):
    renderer, texts = LineRenderer(few_faces, metrics), ["ភាសាខ្មែរ"] * 40
    batch = renderer.draw(texts, renderer.plan(texts, np.arange(40, dtype=np.uint64), KEY))
    assert len({batch.image(line).tobytes() for line in range(40)}) > 35


def test_empty_batches(few_faces, metrics):
    renderer = LineRenderer(few_faces, metrics)
    batch = renderer.draw([], renderer.plan([], np.zeros(0, np.uint64), KEY))
    assert len(batch.pixels_N) == 0 and batch.offsets_B1.tolist() == [0]
    assert renderer.draw_at([], np.zeros(0, np.int32), np.zeros(0, np.int64)) == []


def test_draw_at_shows_every_line_whole(few_faces, metrics):
    renderer = LineRenderer(few_faces, metrics)
    texts = ["ស្ត្រី", "x", " ", "ញ្ញុំ ២០២៦", "中", ""]
    for number in range(len(few_faces)):
        face_B = np.full(len(texts), number, np.int32)
        images = renderer.draw_at(texts, face_B, np.full(len(texts), 40 * 64, np.int64), margin_px=3)
        assert [image.ndim for image in images] == [2] * len(texts)
        assert all((image[:, :3] == 255).all() and (image[:, -3:] == 255).all() for image in images)
        # A much taller neighbour in the batch changes nothing but the room that is cut away again.
        beside = ["ស្ត្រ៊ី", *texts]
        tall = renderer.draw_at(beside, np.full(7, number, np.int32), np.array([90 * 64] + [40 * 64] * 6, np.int64), 3)
        assert all(np.array_equal(cropped_paper(a), cropped_paper(b)) for a, b in zip(images, tall[1:], strict=True))
        assert images[1].shape[0] < images[0].shape[0] and (images[2] == 255).all()


def cropped_paper(image):
    return cropped(image < 255) if (image < 255).any() else image[:0]


def test_sizes_scale_the_ink(few_faces, metrics):
    renderer = LineRenderer(few_faces, metrics)
    small, large = renderer.draw_at(
        ["ភាសា"] * 2, np.zeros(2, np.int32), np.array([20 * 64, 80 * 64], np.int64), margin_px=0
    )
    assert large.shape[1] == pytest.approx(4 * small.shape[1], abs=6)


def test_ink_overlaps_that_of_pillow_with_raqm(usable, metrics, renderer, real_lines, without):
    if not PIL.features.check("raqm"):
        without("Pillow has no RAQM (install libfribidi0)")
    plain = [line for line in real_lines if 12 <= len(line) <= 32 and set(map(script_is_khmer, line)) == {True}][:50]
    lowest: dict[str, float] = {}
    enlarged: set[str] = set()
    for number, face in enumerate(usable):
        if face.variations and face.style not in ("Regular", "CondensedBold", "ExtraCondensedThin"):
            continue
        able = [line for line in plain if not _lacks(renderer.shaping_cache.shapers[number], line)][:11]
        assert len(able) >= 8, face.name
        # Pillow puts glyphs on whole pixels: where a stem is thinner than 4 px that alone costs a tenth of the overlap.
        ppem = IOU_PPEM if metrics[face.name].stroke_em16 * IOU_PPEM >= 4 << 16 else 4 * IOU_PPEM
        if ppem > IOU_PPEM:
            enlarged.add(face.name)
        sizes = np.full(len(able), ppem * 64, np.int64)
        images = renderer.draw_at(able, np.full(len(able), number, np.int32), sizes)
        lowest[face.name] = float(
            np.median(
                [
                    overlap(cropped(image < 128), draw_with_raqm(face, line, ppem))
                    for line, image in zip(able, images, strict=True)
                ]
            )
        )
    assert len(lowest) > 30 and len(enlarged) <= 2, enlarged
    assert {name: iou for name, iou in lowest.items() if iou < 0.9} == {}


def script_is_khmer(character: str) -> bool:
    return character == " " or "\u1780" <= character <= "\u17ff"


def _lacks(shaper: Shaper, line: str) -> bool:
    return any(undrawn(shaper, run, shaper.shape(run)) for _, run in script_runs(line))


def test_this_machine_says_what_it_must_have():
    # Under KHMER_OCR_REQUIRE_FONTS=1 nothing above may have been skipped for want of an oracle.
    if os.environ.get("KHMER_OCR_REQUIRE_FONTS") == "1":
        assert PIL.features.check("raqm")

"""What is decided before any pixel: a pure function of each line's address."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr import rng
from khmer_ocr.errors import ConfigError, NoFontsError
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.glyph_table import MISSING, OVERDRAWN
from khmer_ocr.render.planner import REASONS, RESCUE_STEPS, LinePlan
from khmer_ocr.render.settings import RenderConfig

KEY = rng.key(42, "train", "plan")


@pytest.fixture(scope="module")
def renderer(faces, metrics) -> LineRenderer:
    return LineRenderer([face for face in faces if not metrics[face.name].fatal], metrics)


@pytest.fixture(scope="module")
def few(few_faces, metrics) -> LineRenderer:
    return LineRenderer(few_faces, metrics)


@pytest.fixture(scope="module")
def drawable(renderer, real_lines) -> list[str]:
    lines = real_lines[:1500]
    return [line for line, reason in zip(lines, renderer.planner.rejections(lines), strict=True) if not reason]


def rows(plan: LinePlan) -> list[tuple[int, ...]]:
    columns = (plan.face_B, plan.size64_B, plan.baseline_B, plan.left_B, plan.right_B)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def extents(renderer: LineRenderer, texts, face_B):
    cache = renderer.shaping_cache
    return cache.measure(cache.look_up(texts, face_B))


def addresses(n: int, first: int = 0):
    return np.arange(first, first + n, dtype=np.uint64)


def test_a_plan_does_not_depend_on_order_batch_or_history(renderer, faces, metrics, drawable):
    texts, address_B = drawable[:400], addresses(400)
    expected = rows(renderer.plan(texts, address_B, KEY))
    order = np.random.default_rng(0).permutation(400)
    shuffled = rows(renderer.plan([texts[n] for n in order.tolist()], address_B[order], KEY))
    assert [shuffled[n] for n in np.argsort(order).tolist()] == expected
    pieces = [rows(renderer.plan(texts[a : a + 37], address_B[a : a + 37], KEY)) for a in range(0, 400, 37)]
    assert [row for piece in pieces for row in piece] == expected
    fresh = LineRenderer(renderer.faces, metrics)
    assert rows(fresh.plan(texts[7:300:13], address_B[7:300:13], KEY)) == expected[7:300:13]


def test_val_and_test_lines_follow_their_text(renderer, drawable):
    key = rng.key(42, "val", "plan")
    texts = drawable[:50]
    address_B = np.array([rng.text_address(text) for text in texts], np.uint64)
    once = rows(renderer.plan(texts, address_B, key))
    assert rows(renderer.plan(texts[::-1], address_B[::-1], key)) == once[::-1]
    assert rows(renderer.plan(texts, address_B, rng.key(43, "val", "plan"))) != once


def test_every_step_baseline_and_margin_occurs(renderer):
    n = 6000
    plan = renderer.plan(["កា"] * n, addresses(n), KEY)
    config = renderer.config
    steps = renderer.planner.size64_FS[plan.face_B] == plan.size64_B[:, None]
    assert steps.any(1).all()
    used = Counter(steps.argmax(1).tolist())
    # A short line fits at every step, so none is rescued to a smaller one and all chosen ones are equally likely.
    first = len(RESCUE_STEPS)
    assert sorted(used) == list(range(first, first + config.size_steps))
    assert min(used.values()) > 0.85 * n / config.size_steps
    for margin_B in (plan.left_B, plan.right_B):
        assert sorted(set(margin_B.tolist())) == list(range(config.min_margin, config.max_margin + 1))
    face = plan.face_B == plan.face_B[0]
    jitters = set(plan.baseline_B[face & (plan.size64_B == plan.size64_B[0])].tolist())
    assert 2 <= len(jitters) <= 2 * config.baseline_jitter + 1


def test_sizes_lie_between_the_smallest_and_the_largest(renderer, metrics):
    sizes = renderer.planner.size64_FS
    assert (np.diff(sizes, axis=1) > 0).all()
    shares = sizes / sizes[:, -1:]
    assert np.allclose(shares, [[*RESCUE_STEPS, 0.8, 0.85, 0.9, 0.95, 1.0]] * len(sizes), atol=0.002)
    for face, largest in zip(renderer.faces, sizes[:, -1].tolist(), strict=True):
        measured = metrics[face.name]
        assert largest / 64 * (measured.ascent_em16 + measured.descent_em16) / 65536 <= renderer.config.image_height - 2


def test_families_are_equally_likely_and_faces_within_a_family(renderer):
    n = 20_000
    plan = renderer.plan(["ក"] * n, addresses(n), KEY)
    by_family = Counter(renderer.faces[face].family for face in plan.face_B.tolist())
    families = {face.family for face in renderer.faces}
    expected = n / len(families)
    assert set(by_family) == families
    assert all(abs(count - expected) < 6 * np.sqrt(expected) for count in by_family.values())
    noto = Counter(face for face in plan.face_B.tolist() if renderer.faces[face].family == "Noto Sans Khmer")
    assert len(noto) == sum(face.family == "Noto Sans Khmer" for face in renderer.faces)


def test_a_face_that_lacks_a_character_is_not_chosen(renderer, metrics):
    n = 3000
    plan = renderer.plan(["ខ Latin"] * n, addresses(n), KEY)
    chosen = {renderer.faces[face].name for face in plan.face_B.tolist()}
    without_latin = {face.name for face in renderer.faces if "L" in metrics[face.name].missing}
    assert without_latin and len(chosen) > 10
    assert not chosen & without_latin
    assert not any(
        "0" in renderer.faces[face].faulty for face in renderer.plan(["10"] * n, addresses(n), KEY).face_B.tolist()
    )


def test_a_line_few_faces_can_draw_goes_to_one_of_them(few):
    # One half is in three of the six faces; whatever face chance names first, the line ends there.
    plan = few.plan(["½ក"] * 300, addresses(300), KEY)
    able = {"KhmerOS", "KhmerOSfreehand", "Mondulkiri-R"}
    assert {few.faces[face].name for face in plan.face_B.tolist()} == able


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("ក" * 10_000, "too_long"),
        ("ក" * 900, "too_wide"),
        ("ភាសា عربي", "unsupported_script"),
        ("עברית", "unsupported_script"),
        ("ภาษาไทย", "unsupported_script"),
        ("हिन्दी", "unsupported_script"),
        ("ាក", "broken_syllable"),
        ("ភាសា ្ក", "broken_syllable"),
        ("កេែ", "broken_syllable"),
        ("aំ", "broken_syllable"),
        ("😀", "missing_glyph"),
        ("ភាសា 中文", "missing_glyph"),
        (" ", "no_ink"),
        ("   ", "no_ink"),
        ("ភាសាខ្មែរ", ""),
        ("A1", ""),
        ("១ំ", ""),
    ],
)
def test_reasons(few, text, reason):
    assert REASONS[few.planner.rejections([text])[0]] == reason
    # What stands beside it changes nothing.
    assert REASONS[few.planner.rejections(["ក", text, "ា"])[1]] == reason


@pytest.mark.parametrize("twice", ["ពុំំ", "ចាស់់", "ពណ៌៌", "ក៉៉", "ក័័", "កំ់ំ", "ន្ត្ត"])
def test_a_sign_without_ink_of_its_own_is_never_drawn(renderer, metrics, twice):
    # Drawn over itself by some faces, above or below itself by others: a label says what the ink says.
    every = np.arange(len(renderer.faces), dtype=np.int32)
    flags = extents(renderer, [twice] * len(every), every).flags_L
    hidden = (flags & OVERDRAWN) > 0
    assert 20 < hidden.sum() < len(every)
    plan = renderer.plan([twice] * 600, addresses(600), KEY)
    assert not hidden[np.unique(plan.face_B)].any()
    face = renderer.faces[int(np.flatnonzero(hidden & ((flags & MISSING) == 0))[0])]
    alone = LineRenderer([face], metrics).planner
    assert REASONS[alone.rejections([twice])[0]] == "drawn_over_itself"


def test_ordinary_lines_are_never_taken_for_drawn_over_themselves(renderer, drawable):
    for number in range(0, len(renderer.faces), 5):
        face_B = np.full(400, number, np.int32)
        assert not (extents(renderer, drawable[:400], face_B).flags_L & OVERDRAWN).any()


def test_too_tall_is_said(few_faces, metrics):
    # Measurements a third of the true ones ask for sizes three times too large.
    face = few_faces[0]
    wrong = replace(metrics[face.name], ascent_em16=metrics[face.name].ascent_em16 // 3, descent_em16=1)
    renderer = LineRenderer([face], {face.name: wrong})
    assert REASONS[renderer.planner.rejections(["ស្ត្រី"])[0]] == "too_tall"


def test_a_tall_line_takes_a_smaller_size(renderer):
    tall, n = "ស្ត្រ៊ីស្ត្រូវ", 400
    plan = renderer.plan([tall] * n, addresses(n), KEY)
    seen = extents(renderer, [tall] * n, plan.face_B)
    above = renderer.planner.ascent_px(seen.ascent_L, plan.face_B, plan.size64_B)
    below = renderer.planner.ascent_px(seen.descent_L, plan.face_B, plan.size64_B)
    assert (plan.baseline_B - above >= 0).all()
    assert (plan.baseline_B + below <= renderer.config.image_height).all()
    shares = plan.size64_B / renderer.planner.size64_FS[plan.face_B, -1]
    assert shares.min() < 0.8


def test_undrawable_lines_are_refused_by_choose(few):
    with pytest.raises(ValueError, match="rejections"):
        few.plan(["中"], addresses(1), KEY)


def test_no_faces_is_an_error():
    with pytest.raises(NoFontsError):
        LineRenderer([], {})


def test_empty_batches(few):
    assert few.planner.rejections([]).tolist() == []
    assert rows(few.plan([], addresses(0), KEY)) == []


@pytest.mark.parametrize("height", [24, 32, 48, 96])
@pytest.mark.parametrize("crop", ["line", "tight", "mixed"])
def test_the_plan_leaves_room_for_all_ink(few_faces, metrics, drawable, height, crop):
    config = RenderConfig(image_height=height, crop=crop, max_width=2000)
    renderer = LineRenderer(few_faces, metrics, config)
    lines = drawable[:300]
    lines = [line for line, reason in zip(lines, renderer.planner.rejections(lines), strict=True) if not reason]
    plan = renderer.plan(lines, addresses(len(lines)), KEY)
    seen = extents(renderer, lines, plan.face_B)
    above = renderer.planner.ascent_px(seen.ascent_L, plan.face_B, plan.size64_B)
    below = renderer.planner.ascent_px(seen.descent_L, plan.face_B, plan.size64_B)
    assert (plan.baseline_B >= above).all() and (plan.baseline_B + below <= height).all()
    assert (renderer.draw(lines, plan).width_B <= config.max_width).all()


def test_tight_fills_more_of_the_height(few_faces, metrics, drawable):
    line, tight = (LineRenderer(few_faces, metrics, RenderConfig(crop=crop)) for crop in ("line", "tight"))
    lines = [text for text in drawable[:300] if not line.planner.rejections([text])[0]]
    loose = line.plan(lines, addresses(len(lines)), KEY)
    full = tight.plan(lines, addresses(len(lines)), KEY)
    assert (full.size64_B >= loose.size64_B).all() and (full.size64_B > loose.size64_B).mean() > 0.5
    assert (full.face_B == loose.face_B).all()


def test_mixed_draws_half_of_the_lines_as_they_are_and_the_rest_up_to_the_whole_height(few_faces, metrics, drawable):
    line, mixed = (LineRenderer(few_faces, metrics, RenderConfig(crop=crop)) for crop in ("line", "mixed"))
    lines = [text for text in drawable[:400] if not line.planner.rejections([text])[0]]
    usual = line.plan(lines, addresses(len(lines)), KEY)
    plan = mixed.plan(lines, addresses(len(lines)), KEY)
    grown = plan.size64_B / usual.size64_B
    assert (plan.face_B == usual.face_B).all() and (plan.left_B == usual.left_B).all()
    assert (grown >= 1).all() and 0.4 < (grown == 1).mean() < 0.75
    # Short words without signs above and below take twice their faces' size.
    word = mixed.plan(["ការ"] * 200, addresses(200), KEY)
    small = line.plan(["ការ"] * 200, addresses(200), KEY)
    assert 0.4 < (word.size64_B == small.size64_B).mean() < 0.6
    assert (word.size64_B > 1.6 * small.size64_B).mean() > 0.15
    assert len(set(zip(plan.face_B.tolist(), plan.size64_B.tolist(), strict=True))) <= len(few_faces) * (7 + 4)


@given(
    st.sampled_from(
        [
            {"image_height": 23},
            {"image_height": 97},
            {"crop": "square"},
            {"size_steps": 0},
            {"min_size": 0.4},
            {"min_size": 1.1},
            {"min_margin": 7, "max_margin": 6},
            {"max_margin": 65},
            {"baseline_jitter": -1},
            {"max_width": -1},
            {"max_chars": -5},
        ]
    )
)
def test_settings_that_cannot_be_drawn_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting)).split("_")[-1]):
        RenderConfig(**setting)


def test_faces_numbered_otherwise_draw_the_same_chance(few_faces, metrics):
    # A plan names faces by number in the order given: with another order the same faces must still be legal numbers.
    reordered = LineRenderer(few_faces[::-1], metrics)
    plan = reordered.plan(["ក"] * 500, addresses(500), KEY)
    assert set(plan.face_B.tolist()) == set(range(len(few_faces)))

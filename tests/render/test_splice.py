"""Spliced lines: where they are cut, and that they are their two parts side by side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr import rng
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.splice import cut_in_two, spliced_plan, spliced_texts
from khmer_ocr.samples import sample_lines


@given(text=st.text("កខ គ", min_size=1, max_size=20), place=st.floats(0, 1))
def test_a_cut_loses_nothing_but_its_space(text: str, place: float) -> None:
    parts = cut_in_two(text, place)
    if parts is None:
        assert " " not in text
    else:
        assert " ".join(parts) == text


def test_place_runs_from_the_first_to_the_last_space() -> None:
    cuts = {cut_in_two("ក ខ គ", place) for place in (0.0, 0.49)}, {cut_in_two("ក ខ គ", place) for place in (0.5, 1.0)}
    assert cuts == ({("ក", "ខ គ")}, {("ក ខ", "គ")})


@pytest.fixture(scope="module")
def renderer(few_faces, metrics) -> LineRenderer:
    return LineRenderer(few_faces, metrics)


def test_spliced_lines_are_their_parts_side_by_side(renderer: LineRenderer) -> None:
    texts = [line for line in sample_lines() if " " in line][:40]
    address_B = np.arange(len(texts), dtype=np.uint64)
    plan = renderer.plan(texts, address_B, rng.key(1, "train", "plan"))
    cut_C = np.arange(0, len(texts), 3)
    cuts = {int(n): cut for n in cut_C if (cut := cut_in_two(texts[n], 0.5))}
    assert len(cuts) == len(cut_C)
    second = renderer.plan([cuts[int(n)][1] for n in cut_C], address_B[cut_C], rng.key(1, "train", "second"))
    parts, plan_P = spliced_texts(texts, cuts), spliced_plan(plan, second, cut_C)
    second_P = np.insert(np.zeros(len(texts), bool), cut_C + 1, True)
    apart = renderer.draw(parts, plan_P)
    spliced, clipped_B = renderer.submit(parts, plan_P, second_P)
    assert not clipped_B.any() and len(spliced) == len(texts) == len(clipped_B)
    assert len(parts) == len(texts) + len(cut_C)
    assert {plan.face_B[n] != face for n, face in zip(cut_C, second.face_B, strict=True)} == {True, False}
    part = 0
    for line in range(len(texts)):
        image = spliced.image(line)
        first = apart.image(part)
        assert np.array_equal(image[:, : first.shape[1]], first)
        if line in cuts:
            part += 1
            behind = apart.image(part)
            assert image.shape[1] == first.shape[1] + behind.shape[1]
            assert np.array_equal(image[:, first.shape[1] :], behind)
        else:
            assert image.shape == first.shape
        part += 1

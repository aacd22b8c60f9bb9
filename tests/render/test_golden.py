"""Glyphs and places against what an independent program, `hb-shape`, wrote down (see make_golden.py)."""

import hashlib
import json
from pathlib import Path

import pytest

from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.render.shaping import Shaper, script_of, script_runs
from tests.render.make_golden import RUNS

GOLDEN = Path(__file__).parent / "golden"
MANY = 30


@pytest.fixture(scope="module")
def golden_faces(faces: list[FontFace]) -> list[tuple[FontFace, dict]]:
    by_name = {face.name: face for face in faces}
    found = []
    for file in sorted(GOLDEN.glob("*.json")):
        golden = json.loads(file.read_text(encoding="utf-8"))
        face = by_name.get(golden["face"])
        if face is not None and hashlib.sha256(face.files[0].read_bytes()).hexdigest() == golden["file_sha256"]:
            found.append((face, golden))
    return found


def test_enough_faces_are_compared(golden_faces):
    assert len(golden_faces) >= MANY, "fonts were replaced: run tests/render/make_golden.py"
    assert len({face.family for face, _ in golden_faces}) >= MANY
    assert any(face.variations for face, _ in golden_faces)


def test_glyphs_clusters_offsets_and_advances_equal_hb_shape(golden_faces):
    compared = 0
    for face, golden in golden_faces:
        shaper = Shaper(face)
        assert len(golden["runs"]) >= 12
        for script, language, text, glyphs in golden["runs"]:
            assert script_of(text) == (script.capitalize(), language)
            got = [[g.gid, g.cluster, g.x_offset, g.y_offset, g.advance] for g in shaper.shape(text)]
            if face.variations:
                # HarfBuzz releases round interpolated anchors differently, by one font unit.
                assert [glyph[:2] + glyph[4:] for glyph in got] == [glyph[:2] + glyph[4:] for glyph in glyphs]
                assert all(abs(a - b) <= 1 for x, y in zip(got, glyphs, strict=True) for a, b in zip(x, y, strict=True))
            else:
                assert got == glyphs, (face.name, text)
            compared += len(glyphs)
    assert compared > 5000


def test_the_runs_are_varied():
    texts = "".join(text for _, _, text in RUNS)
    for needed in ("\u17d2", "\u17cc", "\u17c9", "\u17ca", "\u17c1", "\u17c2", "\u17d7", "\u17db", "\u17e0", "P", "6"):
        assert needed in texts
    assert all(len(list(script_runs(text))) == 1 for _, _, text in RUNS)


def test_golden_files_stay_small():
    assert sum(file.stat().st_size for file in GOLDEN.glob("*.json")) < 400_000

"""Lines to one height and one polarity, on lines that the project itself draws and wears."""

import numpy as np
import pytest
import torch

from khmer_ocr import rng
from khmer_ocr.augment.batch_augmenter import BatchAugmenter
from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.errors import ImageError
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.recognize.image_input import read_grey
from khmer_ocr.recognize.prepare import LIGHT, MAX_WIDTH_PX, light_ink_score, prepare
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.measured_faces import measure_all
from khmer_ocr.samples import sample_lines
from khmer_ocr.text.normalize import normalize
from tests import SHARED
from tests.recognize.reading import Grey

SETS = SHARED / "eval"


@pytest.fixture(scope="module")
def clean(embedded: list[FontFace]) -> list[Grey]:
    """Lines as the generator draws them, in all weights and widths of the embedded font."""
    renderer = LineRenderer(embedded, measure_all(embedded, progress=False))
    texts = [text for text in map(normalize, sample_lines()[:260]) if not renderer.planner.rejections([text])[0]]
    plan = renderer.plan(texts, np.arange(len(texts), dtype=np.uint64), rng.key(5, "train", "plan"))
    batch = renderer.draw(texts, plan)
    assert len(texts) > 200
    return [np.array(batch.image(line)) for line in range(len(texts))]


def augmented(lines: list[Grey], strength: str) -> list[Grey]:
    """Lines as the recipe `scan` leaves them."""
    recipe = load_recipe("scan", strength)
    assert recipe is not None
    width_B = torch.tensor([line.shape[1] for line in lines])
    images_B1HW = torch.full((len(lines), 1, 32, int(width_B.max())), 255, dtype=torch.uint8)
    for row_1HW, line in zip(images_B1HW, lines, strict=True):
        row_1HW[0, :, : line.shape[1]] = torch.from_numpy(line)
    out_B1HW, out_width_B = BatchAugmenter(recipe, seed=5)(images_B1HW, width_B, range(len(lines)), 0)
    return [row[0, :, :width].numpy() for row, width in zip(out_B1HW, out_width_B.tolist(), strict=True)]


@pytest.mark.parametrize("strength", ["none", "mild", "medium", "heavy"])
def test_polarity_of_lines_as_the_generator_wears_them(clean: list[Grey], strength: str) -> None:
    lines = clean if strength == "none" else augmented(clean, strength)
    assert [at for at, line in enumerate(lines) if light_ink_score(line) > LIGHT] == []
    missed = [at for at, line in enumerate(lines) if light_ink_score(255 - line) <= LIGHT]
    assert len(missed) <= (0.005 * len(lines) if strength == "heavy" else 0), missed


def test_polarity_of_lines_that_others_drew_and_wore() -> None:
    if not SETS.is_dir():
        pytest.skip("../shared/eval is not here")
    files = sorted(SETS.glob("*/*.png"))[::3]
    ready = [prepare(read_grey(file), 32) for file in files]
    opposite = [prepare(255 - read_grey(file), 32) for file in files]
    assert len(files) > 200 and not any(line.inverted for line in ready)
    assert sum(not line.inverted for line in opposite) <= 0.005 * len(files)
    for line, other in zip(ready, opposite, strict=True):
        if other.inverted:
            assert np.abs(line.pixels_HW.astype(int) - other.pixels_HW).max() <= 2


@pytest.fixture(scope="module")
def bold_words(embedded: list[FontFace]) -> list[Grey]:
    """Short words of the boldest face, cut out at their ink: nearly as much ink as background."""
    bold = [face for face in embedded if face.name == "NotoSansKhmer-Black"]
    words = {word for line in sample_lines()[:400] for word in normalize(line).split() if 1 <= len(word) <= 9}
    letters = sorted(word for word in words if all("ក" <= character <= "្" for character in word))
    renderer = LineRenderer(bold, measure_all(bold, progress=False))
    found = []
    for image in renderer.draw_at(letters, np.zeros(len(letters), np.int32), np.full(len(letters), 2560, np.int64)):
        rows, columns = np.flatnonzero((image < 128).any(1)), np.flatnonzero((image < 128).any(0))
        found.append(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy())
    assert len(found) > 100
    return found


def test_polarity_of_short_bold_words_cut_out_at_their_ink(bold_words: list[Grey]) -> None:
    """Nearly all are told by skewness and rim; of the others those in doubt are read both ways."""
    dark, light = [prepare(word, 32) for word in bold_words], [prepare(255 - word, 32) for word in bold_words]
    assert sum(line.inverted for line in dark) <= 0.04 * len(dark)
    assert sum(not line.inverted for line in light) <= 0.12 * len(light)
    assert sum(line.inverted and line.otherwise is None for line in dark) <= 0.02 * len(dark)
    assert sum(not line.inverted and line.otherwise is None for line in light) <= 0.02 * len(light)
    for line, other in zip(dark, light, strict=True):
        assert (line.otherwise is None) == (other.otherwise is None)
        if line.otherwise is not None:
            ways = [line.otherwise, line.pixels_HW] if line.inverted else [line.pixels_HW, line.otherwise]
            # As background is light in both, both have a light rim.
            assert all(np.mean([way[0].mean(), way[-1].mean()]) > 200 for way in ways)


def test_lines_of_the_ordinary_kind_are_in_no_doubt(clean: list[Grey]) -> None:
    """Doubt costs a second reading."""
    assert sum(prepare(line, 32).otherwise is not None for line in clean) <= 0.02 * len(clean)
    assert all(prepare(line, 32, ready_made=True).otherwise is None for line in clean[:20])


def test_polarity_of_lines_in_a_box_of_rules(clean: list[Grey]) -> None:
    """As a cell of a table: all of the rim is ink."""
    for line in clean[:60]:
        boxed = np.pad(line, 2, constant_values=0)
        assert not prepare(boxed, 32).inverted and prepare(255 - boxed, 32).inverted


def test_polarity_in_light_that_falls_off(lines: list[Grey]) -> None:
    """A shadow darker than half of the ink on the lit side."""
    for line in lines:
        shade_W = np.linspace(1.0, 0.35, line.shape[1])
        shaded = (line * 0.8 * shade_W + 10).astype(np.uint8)
        assert not prepare(shaded, 32).inverted and prepare(255 - shaded, 32).inverted


def test_polarity_with_wide_margins_and_with_none(lines: list[Grey]) -> None:
    for line in lines:
        tight = line[3:-3, 3:-3]
        wide = np.pad(line, ((30, 30), (200, 200)), constant_values=255)
        for each in (tight, wide):
            assert not prepare(each, 32).inverted and prepare(255 - each, 32).inverted


def test_height_and_aspect(lines: list[Grey]) -> None:
    for line in lines:
        ready = prepare(line, 32)
        assert ready.found is not None
        left, top, right, bottom = ready.found.box
        assert ready.pixels_HW.shape == (32, max(1, round((right - left) * 32 / (bottom - top))))
        assert ready.pixels_HW.dtype == np.uint8 and not ready.inverted and not ready.blank


def test_ready_made_lines_of_the_right_height_stay_as_they_are(lines: list[Grey]) -> None:
    """A stored data set's margins are what was drawn there, however wide."""
    line = np.ascontiguousarray(np.pad(lines[0], ((0, 40), (50, 50)), constant_values=255)[:32])
    ready = prepare(line, 32, ready_made=True)
    np.testing.assert_array_equal(ready.pixels_HW, line)
    assert ready.found is None


def test_thin_strokes_survive_shrinking() -> None:
    """A filter that skipped pixels would lose a stroke of 1 px in 16."""
    tall = np.full((512, 800), 255, np.uint8)
    tall[:, 100::200] = 0
    ready = prepare(tall, 32, ready_made=True).pixels_HW
    assert ready.shape == (32, 50) and (ready[16] < 250).sum() >= 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (200, 1), (3, 2), (32, 1), (2000, 30)])
def test_any_shape(shape: tuple[int, int]) -> None:
    pixels_HW = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    ready = prepare(pixels_HW, 32)
    assert ready.pixels_HW.shape[0] == 32 and ready.pixels_HW.shape[1] >= 1


@pytest.mark.parametrize("level", [0, 128, 255])
def test_paper_without_ink_is_blank(level: int) -> None:
    flat = np.full((40, 300), level, np.uint8)
    assert prepare(flat, 32).blank
    noisy = np.clip(flat.astype(int) + np.random.default_rng(0).integers(-2, 3, flat.shape), 0, 255).astype(np.uint8)
    assert prepare(noisy, 32).blank


def test_too_wide_says_what_to_do() -> None:
    assert prepare(np.zeros((32, MAX_WIDTH_PX), np.uint8), 32).pixels_HW.shape == (32, MAX_WIDTH_PX)
    with pytest.raises(ImageError, match=r"long\.png is 20000 x 32 px.*up to 8192\. Cut the line at spaces"):
        prepare(np.zeros((32, 20_000), np.uint8), 32, "long.png")
    # It is the aspect ratio that counts.
    assert prepare(np.zeros((640, 20_000), np.uint8), 32).pixels_HW.shape == (32, 1000)

"""What is no single upright line is said to be so, and upright lines are read; drawn here, and those of others."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from khmer_ocr.cli import main
from khmer_ocr.errors import NotOneLineError
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.recognize.confidence import line_confidence
from khmer_ocr.recognize.image_input import read_grey
from khmer_ocr.recognize.recognizer import Recognition, Recognizer
from khmer_ocr.recognize.single_line import beyond, cut_between, halves, is_tall, zones_of_text
from tests import SHARED
from tests.recognize.reading import Grey, draw

EVAL = SHARED / "eval"
REAL = EVAL.parent / "real"
LINES = (
    "សៀវភៅថ្មីរបស់សិស្សសាលា",
    "ថ្ងៃនេះមេឃស្រឡះល្អណាស់",
    "ទូរស័ព្ទលេខ ០១២ ៣៤៥ ៦៧៨",
    "ផ្លូវទៅកាន់ទីក្រុងបាត់ដំបង",
    "កសិករដាំស្រូវនៅវាលស្រែ",
    "ក្មេងៗលេងបាល់ក្នុងសួនច្បារ",
)
SHORT = ("ផ្ទះ", "ខ្ញុំ", "ក", "ស្ត្រី", "២៥", "ទឹក", "ឆ្មា", "រៀន")


@pytest.fixture(scope="module")
def shipped() -> Recognizer:
    return Recognizer(device="cpu")


@pytest.fixture(scope="module")
def upright(regular: list[FontFace]) -> list[Grey]:
    return draw(LINES, regular, 28, 4)


def page(lines: list[Grey], gap_px: int, margin_px: int, background: int = 255) -> Grey:
    """Lines one below the other, left-aligned."""
    width = max(line.shape[1] for line in lines)
    rows = [np.pad(line, ((0, gap_px), (0, width - line.shape[1])), constant_values=background) for line in lines]
    return np.pad(np.concatenate(rows), margin_px, constant_values=background)


TURNED: dict[str, Callable[[Grey], Grey]] = {
    "upside down": lambda line: np.rot90(line, 2),
    "mirrored": lambda line: line[:, ::-1],
    "upside down and mirrored": lambda line: line[::-1],
    "90° to the left": lambda line: np.rot90(line),
    "90° to the right": lambda line: np.rot90(line, -1),
}


@pytest.mark.parametrize("way", TURNED)
def test_turned_and_mirrored_lines_are_refused_and_said_to_be_so(
    shipped: Recognizer, upright: list[Grey], way: str
) -> None:
    found = list(shipped.stream(np.ascontiguousarray(TURNED[way](line)) for line in upright))
    assert [type(each) for each in found] == [NotOneLineError] * len(upright)
    for each in found:
        assert isinstance(each, NotOneLineError) and way in each.looks_like and way in str(each)


@pytest.mark.parametrize(("count", "gap_px", "margin_px"), [(2, 0, 0), (2, 12, 0), (3, 6, 20), (6, 14, 60)])
def test_several_lines_are_refused_and_counted(
    shipped: Recognizer, upright: list[Grey], count: int, gap_px: int, margin_px: int
) -> None:
    for first in range(len(upright) - count + 1):
        image = page(upright[first : first + count], gap_px, margin_px)
        for frame in (image, 255 - image):
            with pytest.raises(NotOneLineError, match=f"{count} lines of text"):
                shipped.recognize(frame)


def test_a_second_line_that_is_short_or_pale_is_not_passed_over(shipped: Recognizer, regular: list[FontFace]) -> None:
    long, short = draw((LINES[0], "ផ្ទះថ្មី"), regular, 28, 4)
    pale = (255 - (255 - draw((LINES[1],), regular, 28, 4)[0]) * 0.35).astype(np.uint8)
    for other in (short, pale):
        with pytest.raises(NotOneLineError, match="2 lines of text"):
            shipped.recognize(page([long, other], 16, 2))


def test_a_whole_page_of_small_type_is_refused(shipped: Recognizer, regular: list[FontFace]) -> None:
    lines = draw(LINES, regular, 14, 1) * 4
    image = page(lines, 6, 120)
    with pytest.raises(NotOneLineError, match="lines of text"):
        shipped.recognize(image)


def test_upright_lines_of_every_length_are_read(
    shipped: Recognizer, upright: list[Grey], regular: list[FontFace]
) -> None:
    assert [each.text for each in shipped.recognize_lines(upright)] == list(LINES)
    bold = draw(SHORT, regular, 30, 2)
    framed = [np.pad(line, 40, constant_values=255) for line in bold]
    for images in (bold, framed):
        found = list(shipped.stream(images))
        assert all(isinstance(each, Recognition) and each.looks_like is None for each in found)


def test_force_reads_it_all_the_same_and_still_tells(shipped: Recognizer, upright: list[Grey]) -> None:
    forced = Recognizer(shipped.loaded, device="cpu", force=True)
    turned = np.ascontiguousarray(np.rot90(upright[0], 2))
    found = forced.recognize(turned)
    assert found.text and found.looks_like is not None and "upside down" in found.looks_like
    assert found.confidence < 0.85 < 0.97 < forced.recognize(upright[0]).confidence
    ready = list(shipped.stream([turned], ready_made=True))
    assert isinstance(ready[0], Recognition)  # lines of stored data sets are not doubted


def test_the_verb_says_so_leaves_with_1_and_keeps_the_others(
    upright: list[Grey], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for name, frame in (("turned", np.rot90(upright[0], 2)), ("right", upright[1]), ("two", page(upright[:2], 8, 4))):
        Image.fromarray(np.ascontiguousarray(frame)).save(tmp_path / f"{name}.png")
    names = [str(tmp_path / f"{name}.png") for name in ("turned", "right", "two")]
    with pytest.raises(SystemExit) as left:
        main(["recognize", *names, "--json"])
    assert left.value.code == 1
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert ["text" in row for row in rows] == [False, True, False]
    assert "upside down" in rows[0]["looks_like"] and rows[2]["looks_like"] == "2 lines of text"
    assert "--force" in rows[0]["error"] and rows[1]["text"] == LINES[1]
    main(["recognize", *names, "--json", "--force"])
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert all("text" in row for row in rows) and ["looks_like" in row for row in rows] == [True, False, True]


def test_a_right_line_of_hundreds_of_letters_is_sure(shipped: Recognizer, upright: list[Grey]) -> None:
    height = max(len(line) for line in upright)
    padded = [np.pad(line, ((0, height - len(line)), (0, 12)), constant_values=255) for line in upright]
    long = shipped.recognize(np.concatenate(padded * 4, 1))
    assert len(long.text) > 500 and long.confidence > 0.95


def test_confidence_falls_with_every_doubt() -> None:
    assert line_confidence(0.0, 0) == 0.0 and line_confidence(0.0, 5) == 1.0
    doubts = [line_confidence(-doubt * 11, 10) for doubt in (0.0, 0.01, 0.1, 0.3, 1.0, 5.0)]
    assert doubts == sorted(doubts, reverse=True) and doubts[-1] < 0.001


def test_zones_parts_and_halves_of_odd_frames(upright: list[Grey]) -> None:
    for shape in ((1, 1), (1, 50), (50, 1), (2, 2), (5, 300), (300, 5)):
        frame = np.full(shape, 255, np.uint8)
        assert zones_of_text(frame) == zones_of_text(frame, fine=True) == [] and beyond(frame, 0, shape[0]) == []
        assert all(part.size for part in halves(frame))
    two = page(upright[:2], 10, 5)
    parts = cut_between(two, zones_of_text(two))
    assert len(parts) == 2 and sum(map(len, parts)) == len(two)
    assert is_tall(np.zeros((40, 20), np.uint8)) and not is_tall(np.zeros((30, 20), np.uint8))


def _shared(folder: Path) -> list[Path]:
    rows = (folder / "labels.tsv").read_text(encoding="utf-8").splitlines()
    return [folder / row.split("\t")[0] for row in rows if "\t" in row]


@pytest.mark.slow
@pytest.mark.skipif(not EVAL.is_dir(), reason="../shared/eval is not here")
def test_of_200_odd_images_of_others_95_per_cent_are_refused(shipped: Recognizer) -> None:
    draws = np.random.default_rng(5)
    odd: list[Grey] = []
    for folder in ("clean", "degraded", "pages", "unseen_fonts"):
        files = _shared(EVAL / folder)
        for way in ("upside down", "mirrored", "90° to the left", "90° to the right"):
            odd += [TURNED[way](read_grey(files[at])) for at in draws.integers(0, len(files), 8)]
        for count in (2, 2, 5):
            for _ in range(6):
                lines = [read_grey(files[at]) for at in draws.integers(0, len(files), count)]
                odd.append(page(lines, 10, 12, int(np.median(np.concatenate([line.ravel() for line in lines])))))
    found = list(shipped.stream(map(np.ascontiguousarray, odd)))
    assert len(odd) == 200
    assert sum(isinstance(each, NotOneLineError) for each in found) >= 190


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real is not here")
def test_upright_lines_of_others_are_hardly_ever_refused(shipped: Recognizer) -> None:
    for folders, most in (
        ([EVAL / name for name in ("clean", "degraded", "pages", "unseen_fonts")], 0.005),
        ([REAL / name for name in ("constitution", "gazette", "letters", "signs")], 0.01),
    ):
        files = [file for folder in folders for file in _shared(folder)]
        refused = [
            str(each)
            for each in Recognizer(shipped.loaded, decode="ctc").stream(files)
            if not isinstance(each, Recognition)
        ]
        assert len(refused) <= most * len(files), refused

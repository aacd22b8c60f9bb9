"""Previews of recipes: each cell is what its label says, and what can't be shown is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from khmer_ocr_kernels.ragged import RaggedLines
from PIL import Image

from khmer_ocr.augment import fused
from khmer_ocr.augment.limits import DRAWN
from khmer_ocr.augment.recipe import STRENGTHS, Recipe, load_recipe, parse_recipe
from khmer_ocr.cli import main
from khmer_ocr.errors import ConfigError, OutputError
from khmer_ocr.preview import recipe_sheet as recipe_sheet_module
from khmer_ocr.preview.recipe_sheet import (
    HIGH,
    LOW,
    MIDDLE,
    SAMPLE,
    PreviewLine,
    Sheet,
    at_share,
    columns_of,
    recipe_sheet,
)
from khmer_ocr.samples import sample_lines

FACE = "NotoSansKhmer-Regular"


@pytest.fixture(scope="module")
def line() -> PreviewLine:
    return PreviewLine(SAMPLE, FACE, 0)


def recipe_of(name: str, strength: str = "medium") -> Recipe:
    recipe = load_recipe(name, strength)
    assert recipe is not None
    return recipe


def preview(*arguments: str) -> None:
    main(["preview", *arguments])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        preview(*arguments)
    assert left.value.code == 2
    return capsys.readouterr().err


def test_the_sample_is_one_of_ours_and_others_stand_around_it(line: PreviewLine) -> None:
    assert SAMPLE in sample_lines()
    images = [line.lines.image(n) for n in range(3)]
    assert len(line.lines.width_B) == 3 and len({image.tobytes() for image in images}) == 3


@pytest.mark.parametrize("name", ["basic", "scan"])
def test_a_preview_of_each_recipe(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "p.png"
    preview("--recipe", name, "--font", FACE, "--count", "2", "-o", str(output))
    said = capsys.readouterr().out
    with Image.open(output) as image:
        assert f"{image.size[0]} x {image.size[1]} px" in said
        assert image.mode == "L" and image.size[0] < 3000
        sheet_HW = np.asarray(image)
    steps = sum(step.op not in DRAWN for step in recipe_of(name).steps)
    assert f"recipe {name}, {steps} ops and 2 samples in {FACE}" in said
    clean_HW = PreviewLine(SAMPLE, FACE, 0).lines.image(0).repeat(2, 0).repeat(2, 1)
    places = np.lib.stride_tricks.sliding_window_view(sheet_HW[:200, :700], clean_HW.shape)
    assert (places == clean_HW).all((2, 3)).any(), "the clean line is not at the head of the sheet"


def test_the_same_picture_twice_and_another_by_seed(tmp_path: Path) -> None:
    pictures = []
    for n, seed in enumerate((0, 0, 1)):
        recipe_sheet("basic", tmp_path / f"{n}.png", font=FACE, count=1, seed=seed)
        pictures.append((tmp_path / f"{n}.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_columns_are_strengths_or_places_in_ranges() -> None:
    scan = columns_of(recipe_of("scan", "mixed"))
    assert [(column.strength, column.share) for column in scan] == [(s, p) for s in STRENGTHS for p in (LOW, HIGH)]
    one = columns_of(recipe_of("scan", "heavy"))
    assert [(column.strength, column.share, column.place) for column in one] == [
        ("heavy", LOW, 0),
        ("heavy", MIDDLE, 1),
        ("heavy", HIGH, 2),
    ]
    alike = columns_of(recipe_of("basic", "mixed"))
    assert [column.title for column in alike] == [f"every strength, {e}" for e in ("low end", "middle", "high end")]


@pytest.mark.parametrize("name", ["basic", "scan"])
def test_an_op_alone_has_the_values_of_its_place(name: str, line: PreviewLine) -> None:
    recipe = recipe_of(name, "mixed")
    for step in recipe.steps:
        for strength, number in (("mild", 0), ("heavy", 2)):
            for share in (LOW, HIGH):
                only = replace(recipe, strength=strength, steps=(at_share(step, number, share),))
                image_HW, record = line.augmented(only, 0)
                assert list(record) == [step.op] and image_HW.shape[0] == 32
                for parameter, value in record[step.op].items():
                    low, high = step.ranges[parameter][number]
                    if parameter in ("weight", "sigma_px"):  # bounded by the stroke thickness
                        assert abs(value) <= abs(low + (high - low) * share)
                    else:
                        assert value == pytest.approx(low + (high - low) * share, abs=1e-4)


def test_a_cell_is_the_op_done_to_the_line(line: PreviewLine) -> None:
    recipe = recipe_of("basic")
    image_HW, record = line.augmented(replace(recipe, steps=(at_share(recipe.steps[1], 1, HIGH),)), 0)
    clean_HW = line.lines.image(0)
    nothing = np.zeros(1)
    sigma_px = np.array([record["blur"]["sigma_px"]])
    key_B2 = np.zeros((1, 2), np.uint32)
    expected = fused.augment(RaggedLines.of_images([clean_HW]), nothing, sigma_px, nothing, key_B2)
    assert np.array_equal(image_HW, expected.image(0)) and not np.array_equal(image_HW, clean_HW)


def test_every_op_of_scan_shows_at_its_high_end_when_heavy(line: PreviewLine) -> None:
    recipe = recipe_of("scan", "heavy")
    for step in recipe.steps:
        if step.op in DRAWN:
            continue
        image_HW, _ = line.augmented(replace(recipe, steps=(at_share(step, 2, HIGH),)), 1)
        assert not np.array_equal(image_HW, line.lines.image(0)), step.op


def test_an_op_that_never_happens_says_so(line: PreviewLine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [{"op": "blur", "probability": [0, 0.5, 1], "sigma_px": [[0, 0], [0, 1], [1, 2]]}]
    recipe = parse_recipe({"name": "mine", "engine": "fused", "steps": steps}, "mixed", "test")
    sheet, written = Sheet(line, columns_of(recipe)), list[str]()
    write = sheet.notes

    def keep(lines: Sequence[str]) -> list[np.ndarray]:
        written.extend(lines)
        return write(lines)

    monkeypatch.setattr(sheet, "notes", keep)
    cells = recipe_sheet_module._op_cells(sheet, recipe, recipe.steps[0])
    assert len(cells) == 7 and written.count("never when mild") == 2
    assert "happens to 0 / 50 / 100 % of lines" in written
    assert sum(note.startswith("sigma_px") for note in written) == 4


def test_a_long_line_is_shown_as_stored_and_cut(tmp_path: Path) -> None:
    output = tmp_path / "long.png"
    long = " ".join(line for line in sample_lines() if len(line) > 40)[:300].strip()
    recipe_sheet("basic", output, text=long, font=FACE, count=1)
    with Image.open(output) as image:
        assert 2800 < image.size[0] < 3100


def test_a_face_that_draws_the_text_is_found_by_itself(tmp_path: Path) -> None:
    said = recipe_sheet("basic", tmp_path / "a.png", text="ក្ក café", count=1)
    assert "samples in" in said and (tmp_path / "a.png").exists()


def test_a_folder_or_a_recipe_but_not_both_or_neither(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "got nothing to show: give a data set's folder, or --recipe" in refusal(capsys)
    assert "got nothing to show" in refusal(capsys, "--strength", "mild")
    for more in (("--text", "ក"), ("--recipe", "scan"), ("--font", FACE), ("--strength", "mild")):
        said = refusal(capsys, str(tmp_path), *more)
        assert f"got DIRECTORY and {more[0][2:]}: expected either a data set's folder, or a recipe and a text" in said
    assert "got split and recipe" in refusal(capsys, "--recipe", "scan", "--split", "val")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "none"), "The recipe none leaves lines clean: there is nothing to show"),
        (("--recipe", "scam"), "no recipe 'scam'. Did you mean 'scan'?"),
        (("--recipe", "basic", "--count", "0"), "count is 0; expected 1 or more"),
        (("--text", " "), "can't draw '' (empty)"),
        (("--text", "שלום", "--font", FACE), f"{FACE} can't draw 'שלום' (unsupported_script). Give another --text"),
        (("--text", "中", "--font", FACE), f"{FACE} can't draw '中' (missing_glyph)"),
        (("--text", "ក", "--font", "Nope"), "No font file, folder, family or face is called 'Nope'"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "p.png"
    assert message in refusal(capsys, *arguments, "-o", str(output))
    assert not output.exists()


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no/p\.png can't be written"):
        recipe_sheet("basic", tmp_path / "no" / "p.png", font=FACE, count=1)
    with pytest.raises(ConfigError, match=r"Recipe .* can't be read"):
        recipe_sheet(str(tmp_path / "my.yaml"), tmp_path / "p.png")

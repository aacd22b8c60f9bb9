"""Rates over sets: parts add up to the whole, names are matched, the sheet shows what went wrong."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from khmer_ocr import evaluate_lines
from khmer_ocr.cli import model_verbs
from khmer_ocr.dataset.metadata import iter_samples
from khmer_ocr.errors import ConfigError, DatasetError, ImageError, OutputError, SplitNotFoundError
from khmer_ocr.model.weights import LoadedModel
from khmer_ocr.preview.error_sheet import worst_sheet
from khmer_ocr.recognize.label_files import parse_label_file
from khmer_ocr.recognize.labelled_sets import labelled_set, open_set, read_set, split_set
from khmer_ocr.recognize.recognizer import Recognizer
from khmer_ocr.recognize.settings import EvaluateConfig, RecognizeConfig
from khmer_ocr.text.metrics import Score
from tests.dataset.trees import write_tree
from tests.recognize.reading import TEXTS, Grey

LABELS = {"a.png": "ខ្មែរ", "b.png": "ស្ត្រី", "c.png": "ភាសាខ្មែរ ងាយស្រួល", "d.png": "១២"}
FONTS = {"a.png": "Moul", "b.png": "Moul", "c.png": "Bokor"}


def evaluated(model: Path, directory: Path | None = None, *, json: bool = False, **lines: Any) -> str:
    """What `khmer-ocr evaluate` prints."""
    reading = RecognizeConfig(model=model, decode="greedy", device="cpu")
    with redirect_stdout(StringIO()) as said:
        model_verbs.evaluate(EvaluateConfig(**lines), reading, directory, json=json, quiet=True)
    return said.getvalue()


@pytest.fixture
def folder(tmp_path: Path, lines: list[Grey]) -> Path:
    """A set as ../shared/eval has them: images, labels.tsv, meta.tsv."""
    for number, line in enumerate(lines):
        Image.fromarray(line).save(tmp_path / f"{number}.png")
    rows = [f"{number}.png\t{text}\n" for number, text in enumerate(TEXTS)]
    (tmp_path / "labels.tsv").write_text("".join(rows), encoding="utf-8")
    kinds = [f"{n}.png\t{'Moul' if n % 2 else 'Bokor'}\tnews\tdoc\tmild;dpi{n}\n" for n in range(len(TEXTS))]
    (tmp_path / "meta.tsv").write_text("file\tfont\tsource\tdoc\tdetail\n" + "".join(kinds), encoding="utf-8")
    return tmp_path


def test_rates_and_groups() -> None:
    read = {"a.png": "ខ្មែ", "b.png": "ស្រ្តី", "c.png": "ភាសាខ្មែរ ងាយស្រួល"}
    report = evaluate_lines(LABELS, read, {"font": FONTS})
    assert (report.total.lines, report.total.edits, report.total.exact, report.total.exact_plain) == (4, 3, 2, 1)
    assert report.total.characters == sum(map(len, LABELS.values()))
    assert {font: part.edits for font, part in report.groups["font"].items()} == {"Bokor": 0, "Moul": 1, "unknown": 2}
    assert {size: part.lines for size, part in report.groups["length"].items()} == {" 0-5": 2, " 6-10": 1, "11-20": 1}
    for parts in report.groups.values():
        assert sum(parts.values(), Score()) == report.total
    assert report.confusions[0][2] == 1 and ("រ", "", 1) in report.confusions
    assert [line.name for line in report.worst()] == ["d.png", "a.png"] and len(report.worst(1)) == 1
    shown = str(report)
    assert "by font" in shown and "Bokor" in shown and "រ (179A) as nothing 1" in shown
    values = json.loads(json.dumps(report.as_json()))
    assert values["cer"] == pytest.approx(3 / report.total.characters) and values["exact"] == 0.5
    assert values["by_font"]["Moul"]["lines"] == 2 and values["worst"][0] == {
        "image": "d.png",
        "label": "១២",
        "text": "",
        "cer": 1.0,
    }


def test_texts_in_order_and_texts_by_name_give_the_same() -> None:
    read = ["ខ្មែរ", "", "ភាសា", "១២៣"]
    named = evaluate_lines(LABELS, dict(zip(LABELS, read, strict=True)))
    assert evaluate_lines(list(LABELS.values()), read).total == named.total
    assert evaluate_lines([], []).total == Score() and evaluate_lines({}, {}).as_json()["cer"] == 0.0
    strange: list[tuple[Any, Any]] = [
        (["a"], ["a", "b"]),
        (["a", "b"], ["a"]),
        (["a"], {"0": "a"}),
        ({"x": "a"}, {"y": "a"}),
    ]
    for labels, predictions in strange:
        with pytest.raises(ConfigError):
            evaluate_lines(labels, predictions)


def test_a_reading_of_nothing_is_exactly_everything_wrong() -> None:
    report = evaluate_lines(LABELS, {})
    assert report.total.cer == report.total.syllable_error_rate == 1.0 and report.total.exact == 0


def test_a_set_of_labels_is_read_and_judged(folder: Path, taught_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tsv"
    report = json.loads(evaluated(taught_folder, labels=folder / "labels.tsv", predictions=out, json=True))
    assert report["cer"] == 0 and report["exact"] == 1 and report["lines"] == len(TEXTS)
    assert set(report["by_font"]) == {"Moul", "Bokor"} and set(report["by_detail"]) == {"mild"}
    assert report["ms_per_line"] > 0 and report["decode"] == "greedy" and report["device"] == "cpu"
    assert [row.text for row in parse_label_file(out).rows] == list(TEXTS)
    assert not list(tmp_path.glob(".*"))
    assert "ms a line on cpu" in evaluated(taught_folder, labels=folder / "labels.tsv", max_lines=2)


def test_another_reading_of_the_same_lines_is_compared(folder: Path, taught_folder: Path, tmp_path: Path) -> None:
    worse = tmp_path / "worse.tsv"
    worse.write_text("".join(f"{n}.png\t{text[:-1]}\n" for n, text in enumerate(TEXTS)), encoding="utf-8")
    options: dict[str, Any] = {"labels": folder / "labels.tsv", "against": worse, "fold": "print"}
    report = json.loads(evaluated(taught_folder, json=True, **options))
    lost = sum(bool(text[-1:].strip()) for text in TEXTS) / report["characters"]
    assert report["fold"] == "print" and report["against"]["difference"] == pytest.approx(-lost)
    assert report["against"]["low"] <= -lost <= report["against"]["high"] < 0 < report["against"]["p_value"]
    assert "against the other reading: CER -" in evaluated(taught_folder, **options)
    worse.write_text("other.png\tក\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'other\.png' has no label"):
        evaluated(taught_folder, **options)


def test_a_split_of_a_data_set_is_read_and_judged(taught: LoadedModel, lines: list[Grey], tmp_path: Path) -> None:
    images = tmp_path / "val/images"
    images.mkdir(parents=True)
    (tmp_path / "val/labels").mkdir()
    for number, (text, line) in enumerate(zip(TEXTS, lines, strict=True)):
        Image.fromarray(line).save(images / f"val_{number:06d}.png")
        (tmp_path / f"val/labels/val_{number:06d}.txt").write_text(text, encoding="utf-8")
    read = read_set(split_set(tmp_path, "val"), Recognizer(taught, device="cpu", decode="greedy"))
    assert list(read.values()) == list(TEXTS)
    assert len(split_set(tmp_path, "val", 3).labels) == 3
    with pytest.raises(SplitNotFoundError):
        split_set(tmp_path, "test")


def test_fonts_of_a_split_come_from_its_metadata(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"train": 9})
    found = split_set(root, "train")
    fonts = {f"{sample['filename']}.png": sample["font"] for sample in iter_samples(root / "train/metadata.json")}
    assert found.groups["font"] == fonts and len(fonts) == len(found.labels)
    assert isinstance(found.image(next(iter(fonts))), np.ndarray)


@pytest.mark.parametrize("as_json", [False, True])
def test_one_image_that_cannot_be_read_costs_itself_alone_where_asked(
    folder: Path, taught_folder: Path, as_json: bool
) -> None:
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"3\.png is damaged"):
        evaluated(taught_folder, labels=folder / "labels.tsv")
    rows = (folder / "labels.tsv").read_text(encoding="utf-8")
    (folder / "labels.tsv").write_text(rows + "no label\n", encoding="utf-8")
    said = evaluated(taught_folder, labels=folder / "labels.tsv", on_error="skip", json=as_json)
    if as_json:
        report = json.loads(said)
        assert report["lines"] == len(TEXTS) - 1 and report["cer"] == 0
        assert [left["image"] for left in report["left_out"]] == [f"labels.tsv, line {len(TEXTS) + 1}", "3.png"]
        assert "is damaged or cut short" in report["left_out"][1]["why"]
    else:
        assert "2 lines were left out:" in said and "3.png is damaged" in said and "no TAB in 'no label'" in said


def test_where_no_line_can_be_read_there_is_no_rate(folder: Path, taught_folder: Path) -> None:
    for image in folder.glob("*.png"):
        image.write_bytes(b"no image")
    with pytest.raises(DatasetError, match=rf"None of {len(TEXTS)} lines can be read; the first: 0\.png"):
        evaluated(taught_folder, labels=folder / "labels.tsv", on_error="skip")


def test_characters_that_the_model_cannot_write_are_named(folder: Path, taught_folder: Path) -> None:
    (folder / "labels.tsv").write_text("0.png\tក\n1.png\t១២៣៤Ж\n", encoding="utf-8")
    report = json.loads(evaluated(taught_folder, labels=folder / "labels.tsv", json=True))
    assert len(report["notes"]) == 1 and "'Ж' (U+0416) in 1 (first: 1.png)" in report["notes"][0]


def test_a_tree_of_others_is_judged_by_the_names_of_its_files(
    lines: list[Grey], taught_folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tree"
    for name in ("images", "labels"):
        (root / "val" / name).mkdir(parents=True)
    suffixes = [".png", ".jpg", ".PNG", ".tif", ".webp", ".png"]
    for number, (text, line) in enumerate(zip(TEXTS, lines, strict=True)):
        Image.fromarray(line).save(root / f"val/images/{number}{suffixes[number]}")
        (root / f"val/labels/{number}.txt").write_text("\u200b".join(text) + "\r\n", encoding="utf-8")
    out = tmp_path / "read.tsv"
    report = json.loads(evaluated(taught_folder, root, predictions=out, json=True))
    assert report["lines"] == len(TEXTS) and report["cer"] == 0 and "by_font" not in report
    assert "zero-width spaces taken out in 5" in report["notes"][0]
    assert [row.name for row in parse_label_file(out).rows] == [
        f"{number}{suffix}" for number, suffix in enumerate(suffixes)
    ]
    (root / "val/labels/2.txt").write_text("")
    (root / "val/images/4.webp").write_bytes((root / "val/images/4.webp").read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"labels/2\.txt: its label is empty"):
        evaluated(taught_folder, root)
    left = json.loads(evaluated(taught_folder, root, json=True, on_error="skip"))
    assert left["lines"] == len(TEXTS) - 2 and [each["image"] for each in left["left_out"]] == ["2.PNG", "4.webp"]


def test_a_tree_without_a_line_that_can_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "val/images").mkdir(parents=True)
    (tmp_path / "val/images/0.heic").write_bytes(b"x")
    with pytest.raises(
        DatasetError, match=r"no lines that can be read(.|\n)*no known image format: 1 \(images/0\.heic"
    ):
        split_set(tmp_path, "val")


def test_what_to_evaluate_has_to_be_said(folder: Path, tmp_path: Path) -> None:
    for directory, labels in ((None, None), (tmp_path, folder / "labels.tsv")):
        with pytest.raises(ConfigError, match="either a data set's folder, or --labels"):
            open_set(directory, EvaluateConfig(labels=labels))
    with pytest.raises(ConfigError, match=r"labels\.tsv is a file; .* or --labels .*labels\.tsv"):
        open_set(folder / "labels.tsv", EvaluateConfig())
    with pytest.raises(ConfigError, match="is a folder; give --labels the file in it"):
        open_set(None, EvaluateConfig(labels=folder))
    with pytest.raises(ConfigError, match="max_lines is 0"):
        EvaluateConfig(max_lines=0)


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow is without FriBiDi")
def test_the_sheet_shows_image_label_and_errors_in_red(folder: Path, tmp_path: Path) -> None:
    found = labelled_set(folder / "labels.tsv")
    read = {**found.labels, "2.png": "ខ្មែ", "3.png": ""}
    report = evaluate_lines(found.labels, read)
    said = worst_sheet(report.worst(), found.image, tmp_path / "sheet.png")
    assert "the 2 worst lines" in said
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image.convert("RGB")).astype(int)
    red = (sheet[..., 0] > 150) & (sheet[..., 1] < 80)
    assert red.sum() > 20 and (sheet.sum(2) == 0).sum() > 20
    with Image.open(folder / "3.png") as image:
        line = np.asarray(image)
    left = sheet[:, 8 : 8 + line.shape[1], 0]
    rows = [top for top in range(len(left) - len(line)) if (left[top : top + len(line)] == line).all()]
    assert len(rows) == 1
    said = worst_sheet([], found.image, tmp_path / "none.png")
    assert "the 0 worst lines" in said and (tmp_path / "none.png").exists()
    with pytest.raises(OutputError, match="can't be written"):
        worst_sheet([], found.image, tmp_path / "no/such/folder.png")


def test_without_fribidi_no_sheet_is_drawn_wrongly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from khmer_ocr.preview import error_sheet

    error_sheet._font.cache_clear()
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(ConfigError, match="libfribidi0"):
        worst_sheet([], lambda name: name, tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())

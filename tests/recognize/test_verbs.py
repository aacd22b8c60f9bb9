"""The verbs as a stranger types them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rapidfuzz.distance import Levenshtein

from khmer_ocr.cli.model_verbs import recognize
from khmer_ocr.errors import ConfigError
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.recognize.settings import RecognizeConfig
from tests.command_line import khmer_ocr
from tests.recognize.reading import TEXTS, Grey, draw

SHIPPED_TEXTS = ("ព្រះរាជាណាចក្រកម្ពុជា", "ជ្រើសរើសមួយពីបញ្ជី", "ភូមិអន្លង់កញ្ចុះ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, lines: list[Grey]) -> Path:
    folder = tmp_path_factory.mktemp("lines")
    for number, line in enumerate(lines):
        Image.fromarray(line).save(folder / f"{number}.png")
    (folder / "cut.png").write_bytes((folder / "1.png").read_bytes()[:60])
    rows = "".join(f"{number}.png\t{text}\n" for number, text in enumerate(TEXTS))
    (folder / "labels.tsv").write_text(rows, encoding="utf-8")
    return folder


def test_json_has_an_object_a_line_and_a_failing_image_loses_no_other(folder: Path, taught_folder: Path) -> None:
    how = ["--json", "--model", str(taught_folder), "--decode", "greedy", "--device", "cpu"]
    done = khmer_ocr("recognize", "2.png", "cut.png", "no such.png", "3.png", *how, cwd=folder, status=1)
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    assert [row["image"] for row in rows] == ["2.png", "cut.png", "no such.png", "3.png"]
    assert [row.get("text") for row in rows] == [TEXTS[2], None, None, TEXTS[3]]
    assert "cut.png is damaged or cut short" in rows[1]["error"] and "does not exist" in rows[2]["error"]
    assert 0 < rows[0]["confidence"] <= 1
    assert "".join(syllable["text"] for syllable in rows[3]["syllables"]) == TEXTS[3]


def test_evaluate_writes_report_predictions_and_sheet(folder: Path, taught_folder: Path, tmp_path: Path) -> None:
    how = ["--model", str(taught_folder), "--decode", "greedy", "--device", "cpu", "--quiet"]
    files = ["--predictions", str(tmp_path / "read.tsv"), "--worst", str(tmp_path / "worst.png")]
    done = khmer_ocr("evaluate", "--labels", "labels.tsv", *how, *files, cwd=folder)
    assert done.stdout.splitlines()[1].split()[:4] == ["all", str(len(TEXTS)), "0.00", "%"]
    assert (tmp_path / "read.tsv").read_text(encoding="utf-8") == (folder / "labels.tsv").read_text(encoding="utf-8")
    with Image.open(tmp_path / "worst.png") as sheet:
        assert sheet.width > 100


def test_one_image_prints_its_text_and_many_their_names(
    folder: Path, taught_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RecognizeConfig(taught_folder, "greedy", "cpu")
    recognize(config, (folder / "1.png",))
    assert capsys.readouterr().out == f"{TEXTS[1]}\n"
    with pytest.raises(SystemExit) as left:
        recognize(config, (folder / "1.png", folder / "cut.png"))
    assert left.value.code == 1
    said = capsys.readouterr()
    assert said.out == f"{folder}/1.png\t{TEXTS[1]}\n" and "cut.png is damaged" in said.err


@pytest.fixture
def drawn(regular: list[FontFace]) -> list[Grey]:
    """Three lines that the shipped weights read."""
    return draw(SHIPPED_TEXTS, regular, 26)


def test_pages_are_lines_and_one_bad_path_costs_that_path_only(drawn: list[Grey], tmp_path: Path) -> None:
    first, second, third = map(Image.fromarray, drawn)
    first.save(tmp_path / "two.tif", save_all=True, append_images=[second])
    third.save(tmp_path / "ok.png")
    (tmp_path / "doc.png").write_bytes(b"%PDF-1.4\n")
    long = "ក" * 120 + ".png"
    how = ["--decode", "ctc", "--device", "cpu"]
    done = khmer_ocr("recognize", "--json", "two.tif", long, "doc.png", "ok.png", *how, cwd=tmp_path, status=1)
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    assert [row["image"] for row in rows] == ["two.tif#1", "two.tif#2", long, "doc.png", "ok.png"]
    assert [row.get("text") for row in rows] == [*SHIPPED_TEXTS[:2], None, None, SHIPPED_TEXTS[2]]
    assert "File name too long" in rows[2]["error"] and "PDF document" in rows[3]["error"]
    done = khmer_ocr("recognize", "two.tif", *how, cwd=tmp_path)
    assert done.stdout == f"two.tif#1\t{SHIPPED_TEXTS[0]}\ntwo.tif#2\t{SHIPPED_TEXTS[1]}\n"


def test_margins_change_no_reading_and_the_box_says_where_the_line_was_found(drawn: list[Grey], tmp_path: Path) -> None:
    for number, line in enumerate(drawn):
        tall = line.shape[0]
        for share in (0, 20, 50, 100, 300):
            wide = np.pad(line, share * tall // 100, constant_values=255)
            Image.fromarray(wide).save(tmp_path / f"{number}_{share:03d}.png")
    files = sorted(path.name for path in tmp_path.glob("*.png"))
    done = khmer_ocr("recognize", "--json", *files, "--decode", "ctc", "--device", "cpu", cwd=tmp_path)
    for name, row in zip(files, map(json.loads, done.stdout.splitlines()), strict=True):
        number, share = int(name[0]), int(name[2:5])
        tall, wide = drawn[number].shape
        margin = share * tall // 100
        left, top, right, bottom = row["box"]
        assert Levenshtein.distance(row["text"], SHIPPED_TEXTS[number]) <= 1, name
        assert abs(left - margin) <= tall / 3 and abs(top - margin) <= tall / 4
        assert abs(right - margin - wide) <= tall / 3 and abs(bottom - margin - tall) <= tall / 4


def test_no_image_and_no_model_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"for example lines/\*\.png"):
        recognize(RecognizeConfig())
    done = khmer_ocr("recognize", "1.png", "--model", "nowhere", cwd=folder, status=2)
    assert done.stderr.startswith("khmer-ocr: nowhere holds no model") and done.stdout == ""


def test_reading_asks_for_nothing_that_draws() -> None:
    """Start-up is what a user waits for: no kornia, no DALI, no HarfBuzz, none of the drawing half."""
    code = "import sys, khmer_ocr.cli, khmer_ocr.recognize.recognizer, khmer_ocr.recognize.labelled_sets\n"
    code += "print([m for m in sys.modules if m.startswith(%r) and not m.endswith('.settings')])"
    heavy = ("kornia", "nvidia.dali", "uharfbuzz", "torchvision", "khmer_ocr.render.", "khmer_ocr.generate.", "scipy")
    done = subprocess.run([sys.executable, "-c", code % (heavy,)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from khmer_ocr.dataset import layout
from tests.dataset.trees import as_older_scripts_wrote_it, edit_metadata, pixels, png, write_tree

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "scripts" / "test_synthetic_dataset.py"
COUNTS = {"train": 9, "val": 3, "test": 3}


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("script_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize("format", layout.FORMATS)
def test_a_right_tree_passes_and_is_described(tmp_path, main, capsys, format):
    root = write_tree(tmp_path / "data", COUNTS, format)
    assert main(["--synthetic-dir", str(root), "--batch-size", "4", "--max-samples", "5"]) == 0
    shown = capsys.readouterr().out
    for word in ("train: 5 samples", "batch: images (4, 1, 32,", "label:", "Nothing is wrong", "width, px"):
        assert word in shown
    assert "torch: 5 lines in 2 batches" in shown
    if importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali"):
        assert "dali: 5 lines in 2 batches" in shown
        assert "torch and dali give the same batches to the last bit" in shown


def test_a_tree_of_one_split_passes(tmp_path, main, capsys):
    assert main(["--synthetic-dir", str(write_tree(tmp_path / "data", {"train": 3}))]) == 0
    assert "val/: not generated" in capsys.readouterr().out


def blank(root):
    as_older_scripts_wrote_it(root, "train")  # without hashes, which would tell
    page = pixels("train", 1)
    page[:] = 255
    (root / "train/images/train_000001.png").write_bytes(png(page))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda root: (root / "train/images/train_000001.png").write_bytes(b""), "train_000001.png is empty"),
        (lambda root: (root / "train/labels/train_000001.txt").write_text("other"), "says 'other'"),
        (lambda root: (root / "train/labels/train_000001.txt").unlink(), "train_000001.txt is missing"),
        (lambda root: (root / "val/metadata.json").write_text("{"), "val/metadata.json: cut short"),
        (lambda root: (root / "val/metadata.json").unlink(), "val/metadata.json is missing"),
        (lambda root: (root / "generation_metadata.json").unlink(), "generation_metadata.json is missing"),
        (lambda root: edit_metadata(root, "test", 0, image_width=5), "metadata.json says 5 x 32"),
        (blank, "is blank"),
    ],
)
def test_a_wrong_tree_fails_and_says_why(tmp_path, main, capsys, damage, reason):
    root = write_tree(tmp_path / "data", COUNTS)
    damage(root)
    assert main(["--synthetic-dir", str(root)]) == 1
    wrong = capsys.readouterr().out.partition("Wrong:")[2]
    assert reason in wrong


def test_nothing_there_fails_and_says_what_to_run(tmp_path, main, capsys):
    assert main(["--synthetic-dir", str(tmp_path / "none")]) == 1
    assert main(["--synthetic-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("khmer-ocr generate") == 2


def test_flags_out_of_range_are_refused(main):
    with pytest.raises(SystemExit):
        main(["--batch-size", "0"])


def test_it_runs_as_a_script(tmp_path):
    root = write_tree(tmp_path / "data", {"train": 3})
    done = subprocess.run([sys.executable, SCRIPT, "--synthetic-dir", root], capture_output=True, text=True)
    assert done.returncode == 0 and "Nothing is wrong" in done.stdout

"""A run goes on only with the data that it began with, wherever they lie now."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from khmer_ocr.dataset.index import load_index
from khmer_ocr.errors import ModelError, RunConflictError
from khmer_ocr.train.data_fingerprint import difference, record
from khmer_ocr.train.loop import train
from tests.dataset import trees
from tests.train import runs

COUNTS = {"train": 24, "val": 8}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, `tree`, and a run of two steps on it."""
    folder = tmp_path_factory.mktemp("begun")
    runs.write_tree(folder / "tree", COUNTS)
    train(runs.settings(folder / "tree", folder, max_steps=2))
    return folder


@pytest.fixture
def out(begun: Path, tmp_path: Path) -> Path:
    shutil.copytree(begun, tmp_path / "copy")
    return tmp_path / "copy"


def go_on(tree: Path, out: Path, **changes: Any) -> Path:
    return train(runs.settings(tree, out, max_steps=4, resume="last", **changes))


def test_data_that_were_moved_are_the_same(out: Path, tmp_path: Path) -> None:
    (out / "tree").rename(tmp_path / "elsewhere")
    go_on(tmp_path / "elsewhere", out)
    assert [row["step"] for row in runs.rows(out, "train")] == [1, 2, 3, 4]


def test_lines_that_came_to_the_data_are_noticed(out: Path, tmp_path: Path) -> None:
    grown = runs.write_tree(tmp_path / "grown", {**COUNTS, "train": 30})
    with pytest.raises(RunConflictError, match=r"grown: 24 lines there, 30 now.*--init .*last\.pth"):
        go_on(grown, out)


def test_one_letter_is_noticed(out: Path) -> None:
    trees.edit_metadata(out / "tree", "train", 5, text="កកក")
    with pytest.raises(RunConflictError, match=r"as many lines, 24, but other texts\)"):
        go_on(out / "tree", out)


def test_other_images_of_the_same_texts_are_noticed(out: Path) -> None:
    trees.edit_metadata(out / "tree", "train", 5, pixel_hash="0123456789abcdef")
    with pytest.raises(RunConflictError, match=r"but other images\)"):
        go_on(out / "tree", out)


def test_several_data_sets_count_in_their_order(tmp_path: Path) -> None:
    trees_of_two = [runs.write_tree(tmp_path / name, {"train": n}) for name, n in (("a", 4), ("b", 5))]
    a, b = (load_index(root, "train") for root in trees_of_two)
    assert difference(record([a, b]), record([a, b]), trees_of_two) == ""
    assert "a: 5 lines there, 4 now" in difference(record([b, a]), record([a, b]), trees_of_two)
    assert difference(record([a]), record([a, b]), trees_of_two) == "1 data sets there, 2 now"


def test_other_val_is_told_and_best_begins_anew(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.write_tree(tmp_path / "other", {"train": 1, "val": 6})
    shutil.rmtree(out / "tree" / "val")
    shutil.copytree(tmp_path / "other" / "val", out / "tree" / "val")
    last = out / "checkpoints" / "last.pth"
    content = torch.load(last, weights_only=True)
    content["position"]["best"] = 0.0
    torch.save(content, last)
    go_on(out / "tree", out)
    assert "val is not that of the run so far" in capsys.readouterr().out
    assert torch.load(last, weights_only=True)["position"]["best"] > 0


def test_checkpoint_from_before_data_were_recorded_goes_on_with_a_note(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = out / "checkpoints" / "last.pth"
    content = torch.load(last, weights_only=True)
    del content["data"], content["run"]
    torch.save(content, last)
    go_on(out / "tree", out)
    assert "does not say which data it learned from" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage",
    [
        {"config": 7},
        {"characters": 7},
        {"data": 7},
        {"data": {"train": [{}], "val": []}},
        {"position": {}},
        {"position": {"step": "x"}},
        {"optimiser": {}},
        {"ema": {"nothing": torch.zeros(1)}},
        {"model": {}},
    ],
    ids=str,
)
def test_damaged_state_is_said_and_nothing_is_written(out: Path, damage: dict[str, Any]) -> None:
    last = out / "checkpoints" / "last.pth"
    torch.save({**torch.load(last, weights_only=True), **damage}, last)
    before = last.read_bytes()
    with pytest.raises(ModelError, match=r"last\.pth"):
        go_on(out / "tree", out)
    assert last.read_bytes() == before


def test_names_and_fonts_are_no_part_of_the_content(tmp_path: Path) -> None:
    root = runs.write_tree(tmp_path, {"train": 4})
    before = record([load_index(root, "train")])
    trees.edit_metadata(root, "train", 2, font="Another")
    assert record([load_index(root, "train")]) == before
    assert np.unique([len(part) for part in (before[0]["texts"], before[0]["pixels"])]).tolist() == [32]

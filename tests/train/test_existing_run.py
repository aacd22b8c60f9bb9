"""A folder that holds a run: training refuses to write over it, replaces it where asked, and nothing beside it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from khmer_ocr.cli import main
from khmer_ocr.errors import ConfigError, OutputError, RunConflictError, TrainingError
from khmer_ocr.io.locks import let_go, take
from khmer_ocr.model.weights import load_model
from khmer_ocr.train import loop as loop
from khmer_ocr.train.loop import train
from khmer_ocr.train.trainer import Trainer
from tests.train import runs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_tree(tmp_path_factory.mktemp("tree"), {"train": 24, "val": 8})


def content(folder: Path) -> dict[str, bytes]:
    """Every byte of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_second_run_refuses_to_write_over_the_first(tree: Path, tmp_path: Path) -> None:
    config = runs.settings(tree, tmp_path, max_steps=4)
    train(config)
    before = content(tmp_path)
    with pytest.raises(RunConflictError, match=r"a run at step 4\. --resume last .*--overwrite .*--checkpoint-dir"):
        train(config)
    assert content(tmp_path) == before


def test_the_command_refuses_with_status_2(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(runs.settings(tree, tmp_path, max_steps=2))
    command = ["train", "--synthetic-dir", str(tree), "--checkpoint-dir", str(tmp_path / "checkpoints")]
    command += ["--log-dir", str(tmp_path / "logs"), "--preset", "tiny", "--device", "cpu"]
    with pytest.raises(SystemExit) as left:
        main(command)
    assert left.value.code == 2
    assert "holds a run at step 2" in capsys.readouterr().err


def test_overwrite_replaces_the_files_of_the_run_and_nothing_else(tree: Path, tmp_path: Path) -> None:
    train(runs.settings(tree, tmp_path, num_epochs=3))
    folder = tmp_path / "checkpoints"
    own = {"notes.txt": b"mine", "checkpoint_epoch_x.pth": b"mine", "model/README.md": b"mine"}
    for name, words in own.items():
        (folder / name).write_bytes(words)
    first = torch.load(folder / "last.pth", weights_only=True)["run"]
    train(runs.settings(tree, tmp_path, num_epochs=1, overwrite=True))
    names = set(content(folder))
    assert names == {
        "last.pth", "best.pth", "checkpoint_epoch_001.pth", "model/model.safetensors", "model/model.json", *own
    }  # fmt: skip
    assert {name: (folder / name).read_bytes() for name in own} == own
    assert torch.load(folder / "last.pth", weights_only=True)["run"] != first
    assert [row["step"] for row in runs.rows(tmp_path, "train")] == [1, 2, 3]


def test_overwriting_run_that_fails_first_leaves_the_other(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(runs.settings(tree, tmp_path, max_steps=4))
    before = content(tmp_path)

    def refuse(*_: Any) -> None:
        raise TrainingError("no step today")

    monkeypatch.setattr(Trainer, "update", refuse)
    with pytest.raises(TrainingError, match="no step today"):
        train(runs.settings(tree, tmp_path, max_steps=4, overwrite=True))
    assert content(tmp_path) == before


def test_model_that_is_a_link_is_not_removed_through(tree: Path, tmp_path: Path) -> None:
    train(runs.settings(tree, tmp_path, max_steps=2))
    (tmp_path / "checkpoints" / "model").rename(tmp_path / "kept")
    (tmp_path / "checkpoints" / "model").symlink_to(tmp_path / "kept")
    before = content(tmp_path / "kept")
    with pytest.raises(OutputError, match="is a symbolic link"):
        train(runs.settings(tree, tmp_path, max_steps=2, overwrite=True))
    assert content(tmp_path / "kept") == before


@pytest.mark.parametrize("left", ["model/model.safetensors", "best.pth", "checkpoint_epoch_012.pth", "last.pth"])
def test_whatever_is_left_of_a_run_counts(tree: Path, tmp_path: Path, left: str) -> None:
    path = tmp_path / "checkpoints" / left
    path.parent.mkdir(parents=True)
    path.write_bytes(b"some bytes")
    with pytest.raises(RunConflictError, match=r"--overwrite replaces it"):
        train(runs.settings(tree, tmp_path, max_steps=2))
    assert path.read_bytes() == b"some bytes"


def test_run_of_elsewhere_does_not_go_on_over_another(tree: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    train(runs.settings(tree, one, max_steps=2))
    train(runs.settings(tree, other, max_steps=2))
    before = content(other / "checkpoints")
    last = str(one / "checkpoints" / "last.pth")
    with pytest.raises(RunConflictError, match=r"holds a run at step 2, which .*last\.pth does not belong to"):
        train(runs.settings(tree, other, max_steps=3, resume=last))
    assert content(other / "checkpoints") == before
    train(runs.settings(tree, tmp_path / "third", max_steps=3, resume=last))
    train(runs.settings(tree, one, max_steps=3, resume=last))


def test_two_runs_never_share_a_log(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(runs.settings(tree, tmp_path, max_steps=2))
    first = content(tmp_path / "logs")
    second = runs.settings(tree, tmp_path, max_steps=3, checkpoint_dir=tmp_path / "second")
    train(second)
    assert (
        f"holds the log of another run; this one's goes to {tmp_path / 'logs' / 'run_002'}" in capsys.readouterr().out
    )
    train(runs.settings(tree, tmp_path, max_steps=5, checkpoint_dir=tmp_path / "second", resume="last"))
    assert {name: words for name, words in content(tmp_path / "logs").items() if "/" not in name} == first
    moved = tmp_path / "moved"
    (moved / "logs").parent.mkdir()
    (tmp_path / "logs" / "run_002").rename(moved / "logs")
    assert [row["step"] for row in runs.rows(moved, "train")] == [1, 2, 3, 4, 5]
    train(runs.settings(tree, tmp_path, max_steps=3, resume="last"))
    assert [row["step"] for row in runs.rows(tmp_path, "train")] == [1, 2, 3]


def test_run_that_learns_nothing_leaves_nothing(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop._Run, "progress", property(lambda self: 1.0))
    with pytest.raises(TrainingError, match="before the first update"):
        train(runs.settings(tree, tmp_path, max_minutes=0.01))
    assert content(tmp_path) == {}
    monkeypatch.undo()
    assert load_model(train(runs.settings(tree, tmp_path, max_steps=1))).card["steps"] == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_where_another_process_trains_is_left_alone(tree: Path, tmp_path: Path, overwrite: bool) -> None:
    config = runs.settings(tree, tmp_path, max_steps=1, overwrite=overwrite)
    holder = take(config.checkpoint_dir / ".lock", wait=False)
    with pytest.raises(RunConflictError, match=r"Another process trains in .* right now"):
        train(config)
    let_go(holder)
    train(config)
    assert not (config.checkpoint_dir / ".lock").exists()


def test_overwrite_and_resume_contradict_each_other(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="overwrite and resume"):
        runs.settings(tree, tmp_path, overwrite=True, resume="last")

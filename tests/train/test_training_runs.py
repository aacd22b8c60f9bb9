"""Whole runs: they learn, stop, go on as if never stopped, agree between processes, and lose nothing."""

import errno
import json
import math
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from khmer_ocr.errors import ConfigError, DatasetError, ModelError, OutputError, TrainingError
from khmer_ocr.model.weights import load_model, save_model
from khmer_ocr.train import trainer
from khmer_ocr.train.checkpoint import write_checkpoint
from khmer_ocr.train.loop import train
from khmer_ocr.train.losses import joint_losses
from khmer_ocr.train.settings import check_same_run, plain
from khmer_ocr.train.trainer import Trainer
from tests.dataset import trees
from tests.snapshots import everything
from tests.train import runs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_tree(tmp_path_factory.mktemp("tree"), {"train": 80, "val": 16})


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in runs.rows(out, "train")]


def test_run_learns_and_leaves_what_reading_and_resuming_need(tree: Path, tmp_path: Path) -> None:
    config = runs.settings(tree, tmp_path, num_epochs=30, learning_rate=1e-2, ema_decay=0.9)
    folder = train(config)
    seen = losses(tmp_path)
    assert len(seen) == 300
    assert sum(seen[-10:]) / 10 < 0.25 * sum(seen[:10]) / 10
    names = {path.name for path in config.checkpoint_dir.iterdir()}
    assert names == {"last.pth", "best.pth", "model", *(f"checkpoint_epoch_{n:03d}.pth" for n in range(1, 31))}
    loaded = load_model(folder)
    assert loaded.card["steps"] == 300
    assert loaded.card["lines_seen"] == 30 * 80
    assert load_model(config.checkpoint_dir / "best.pth").charset == loaded.charset
    cers = [row["cer_ctc"] for row in runs.rows(tmp_path, "val")]
    assert len(cers) == 30
    assert cers[-1] < 0.5
    assert list(config.log_dir.glob("events.out.tfevents.*"))


def test_resumed_run_is_the_very_same_run(tree: Path, tmp_path: Path) -> None:
    """Stopped in the middle of the second epoch, with dropout and augmentation drawn anew at every step."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    changes = {"num_epochs": 4, "recipe": "basic", "max_steps": 36}
    train(runs.settings(tree, whole, **changes))
    first = Trainer(runs.settings(tree, halves, **changes))
    for epoch in range(2):
        for number, batch in enumerate(first.loader.epoch(epoch)):
            if (epoch, number) == (1, 6):
                break
            first.update([batch], epoch, first.step / 36)
            first.epoch, first.batch = epoch, number + 1
    assert first.step == 16
    first.save("last.pth")
    train(runs.settings(tree, halves, **changes, resume="last"))
    assert losses(halves) == losses(whole)[16:]
    one, other = (load_model(out / "checkpoints" / "model").model.state_dict() for out in (whole, halves))
    assert all(torch.equal(one[name], other[name]) for name in one)


started: list["subprocess.Popen[str]"] = []


def launch(tmp_path: Path, tree: Path, out: Path, *launcher: str, **changes: Any) -> "subprocess.Popen[str]":
    given = tmp_path / f"{out.name}-{time.monotonic_ns()}.json"
    given.write_text(json.dumps({"tree": str(tree), "out": str(out), "changes": changes}))
    started.append(runs.start(str(Path(__file__).with_name("run_tiny.py")), str(given), launcher=launcher))
    return started[-1]


def finished(process: "subprocess.Popen[str]", seconds: float = 300, status: int = 0) -> str:
    said, _ = process.communicate(timeout=seconds)
    assert process.returncode == status, said
    return said


def test_two_processes_learn_what_one_does_from_twice_the_batch(tree: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    changes = {"num_epochs": 3, "dropout": 0.0, "max_steps": 14}
    train(runs.settings(tree, one, **changes, batch_size=16))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    finished(launch(tmp_path, tree, two, *torchrun, **changes, batch_size=8))
    alone, together = losses(one), losses(two)
    assert len(alone) == len(together) == 14
    # Sums are taken in another order: float32 rounding, grown over the steps.
    assert together == pytest.approx(alone, rel=2e-3)
    assert together[0] == pytest.approx(alone[0], rel=1e-5)


def test_gathered_batches_count_by_their_tokens(tree: Path, tmp_path: Path) -> None:
    """Reported loss of an update over two batches of different size: all losses over all tokens."""
    config = runs.settings(tree, tmp_path, dropout=0.0, learning_rate=1e-9, weight_decay=0.0)
    run = Trainer(config)
    batches = [batch for _, batch in zip(range(2), run.loader.epoch(0), strict=False)]
    tokens = [int(batch["target_lengths"].sum()) + len(batch["texts"]) for batch in batches]
    assert tokens[0] != tokens[1]
    each = [float(run.update([batch], 0, 0.0)[0][0]) for batch in batches]
    both = float(run.update(batches, 0, 0.0)[0][0])
    assert both == pytest.approx((each[0] * tokens[0] + each[1] * tokens[1]) / sum(tokens), rel=1e-4)


@pytest.mark.parametrize(
    "changes", [{"log_steps": 7}, {"log_steps": 1000, "max_steps": 14}], ids=["within", "at the end"]
)
def test_loss_that_is_no_number_stops_and_keeps_the_last_good(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int]
) -> None:
    real, calls = joint_losses, iter(range(10**6))

    def spoilt(*arguments: Any) -> Any:
        found = real(*arguments)
        if next(calls) == 13:
            found.joint.data.fill_(math.nan)
        return found

    monkeypatch.setattr(trainer, "joint_losses", spoilt)
    config = runs.settings(tree, tmp_path, num_epochs=5, **changes)
    with pytest.raises(TrainingError, match=r"no number any more.*kept"):
        train(config)
    kept = torch.load(config.checkpoint_dir / "last.pth", weights_only=True)
    assert kept["position"]["step"] == 10
    assert all(value.isfinite().all() for value in kept["model"].values())


def test_overfitting_one_batch_is_checked_and_forgotten(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(runs.settings(tree, tmp_path / "checked", check=True, max_steps=3, batch_size=3, dropout=0.0))
    assert "one batch overfitted" in capsys.readouterr().out
    train(runs.settings(tree, tmp_path / "plain", max_steps=3, batch_size=3, dropout=0.0))
    assert losses(tmp_path / "checked") == losses(tmp_path / "plain")


def test_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pth"
    write_checkpoint(path, {"step": 1})

    def fills_up(content: Any, target: Path) -> None:
        target.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fills_up)
    with pytest.raises(OutputError, match=r"No space left.*The last checkpoint written before is whole"):
        write_checkpoint(path, {"step": 2})
    monkeypatch.undo()
    assert torch.load(path, weights_only=True)["step"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["last.pth"]


def test_frozen_norms_need_something_seen(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--init"):
        runs.settings(tree, tmp_path, freeze_norms=True)


def test_checkpoint_from_before_a_setting_was_there_goes_on(tree: Path, tmp_path: Path) -> None:
    config = runs.settings(tree, tmp_path)
    recorded = plain(config)
    del recorded["freeze_norms"]
    check_same_run(recorded, config, tmp_path)
    with pytest.raises(ConfigError, match="freeze_norms: False there, True now"):
        check_same_run(recorded, replace(config, freeze_norms=True, resume="last"), tmp_path)


def test_line_whose_label_cannot_be_learned_is_left_out_and_the_rest_learned(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [runs.text_of("train", i) for i in range(110)]
    for name, label in (("good", texts[40]), ("bad", "ក" * 100)):
        texts[40] = label
        runs.write_tree(tmp_path / name, {"train": 110, "val": 4}, {"train": texts})
    # The image of the bad label is as wide as its text; cut it, so that the text does not fit.
    path = tmp_path / "bad" / "train" / "images" / "train_000040.png"
    path.write_bytes((tmp_path / "good" / "train" / "images" / "train_000040.png").read_bytes())
    size = json.loads((tmp_path / "good" / "train" / "metadata.json").read_bytes())["samples"][40]
    keys = ("image_width", "pixel_hash")
    trees.edit_metadata(tmp_path / "bad", "train", 40, **{key: size[key] for key in keys})
    with pytest.raises(DatasetError, match=r"train_000040\.txt"):
        train(runs.settings(tmp_path / "bad", tmp_path / "refused", num_epochs=1))
    train(runs.settings(tmp_path / "bad", tmp_path / "skipped", num_epochs=1, on_error="skip"))
    assert "train_000040.txt (199 symbols" in capsys.readouterr().out
    assert load_model(tmp_path / "skipped" / "checkpoints" / "model").card["lines_seen"] == 109


def test_other_settings_do_not_resume(tree: Path, tmp_path: Path) -> None:
    train(runs.settings(tree, tmp_path, max_steps=2))
    with pytest.raises(ConfigError, match=r"learning_rate: 0.003 there, 0.5 now"):
        train(runs.settings(tree, tmp_path, max_steps=4, resume="last", learning_rate=0.5))


def test_other_characters_do_not_resume_or_begin(tree: Path, tmp_path: Path) -> None:
    train(runs.settings(tree, tmp_path, max_steps=2))
    other = runs.write_tree(tmp_path / "other", {"train": 20, "val": 4}, {"train": ["ក\u4e2d"] * 20})
    with pytest.raises(ModelError, match=r"another charset.*中"):
        train(runs.settings(other, tmp_path, max_steps=4, resume="last"))
    init = tmp_path / "checkpoints" / "model"
    with pytest.raises(
        ModelError, match=r"another charset, without 1 of .*'中' \(U\+4E2D\) in 20 lines, e\.g\. "
    ) as told:
        train(runs.settings(other, tmp_path / "new", max_steps=4, init=init))
    assert f"{other}/train/labels/train_000000.txt" in str(told.value)
    train(runs.settings(other, tmp_path / "new", max_steps=1, init=init, charset="default"))
    assert load_model(tmp_path / "new" / "checkpoints" / "model").charset == load_model(init).charset
    # Weights that know more characters than the data begin another run, and that one goes on.
    more = runs.settings(other, tmp_path / "more", max_steps=1)
    train(more)
    fewer = {"init": tmp_path / "more" / "checkpoints" / "model", "max_steps": 1}
    train(runs.settings(tree, tmp_path / "fewer", **fewer))
    train(runs.settings(tree, tmp_path / "fewer", max_steps=2, resume="last"))
    assert "中" in load_model(tmp_path / "fewer" / "checkpoints" / "model").charset


def test_another_stretch_begins_with_the_weights_of_the_last(tree: Path, tmp_path: Path) -> None:
    train(runs.settings(tree, tmp_path / "a", num_epochs=12, learning_rate=1e-2, ema_decay=0.5))
    train(runs.settings(tree, tmp_path / "b", max_steps=3, init=tmp_path / "a" / "checkpoints" / "model"))
    assert losses(tmp_path / "b")[0] < 0.7 * losses(tmp_path / "a")[0]
    assert losses(tmp_path / "b")[0] < 1.5 * losses(tmp_path / "a")[-1]


def test_another_preset_does_not_begin_with_these_weights(tree: Path, tmp_path: Path) -> None:
    train(runs.settings(tree, tmp_path, max_steps=2))
    init = tmp_path / "checkpoints" / "model"
    with pytest.raises(ModelError, match=r"preset 'tiny', expected 'compact'"):
        train(runs.settings(tree, tmp_path / "other", max_steps=2, preset="compact", init=init))


def test_missing_checkpoint_is_named(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"last\.pth does not exist"):
        train(runs.settings(tree, tmp_path, resume="last"))


def test_gpu_asked_for_and_absent_is_said(tree: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ConfigError, match="CUDA was asked for and there is none"):
        train(runs.settings(tree, tmp_path, device="cuda"))


def test_clock_ends_the_schedule(tree: Path, tmp_path: Path) -> None:
    train(runs.settings(tree, tmp_path, num_epochs=10**4, max_minutes=0.05))
    rates = [row["learning_rate"] for row in runs.rows(tmp_path, "train")]
    assert 5 < len(rates) < 10**4
    assert rates[-1] < 0.1 * max(rates)


@pytest.mark.parametrize("name", ["last.pth", "model", "log/metrics.jsonl"])
def test_a_run_writes_through_no_link(tree: Path, tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    (home / "kept").write_text("mine")
    config = runs.settings(tree, tmp_path / "run", num_epochs=1)
    place = config.log_dir / "metrics.jsonl" if name.startswith("log/") else config.checkpoint_dir / name
    place.parent.mkdir(parents=True)
    place.symlink_to(home / ("folder" if name == "model" else "kept"))
    before = everything(home)
    with pytest.raises(OutputError, match="symbolic link"):
        train(config)
    assert everything(home) == before


def test_a_checkpoint_and_weights_go_through_no_link(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    (tmp_path / "epoch.pth").symlink_to(tmp_path / "kept")
    with pytest.raises(OutputError, match="symbolic link"):
        write_checkpoint(tmp_path / "epoch.pth", {})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").symlink_to(tmp_path / "kept")
    loaded = load_model()
    with pytest.raises(OutputError, match="symbolic link"):
        save_model(tmp_path / "model", loaded.model, loaded.charset, {})
    assert (tmp_path / "kept").read_text() == "mine"

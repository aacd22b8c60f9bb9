"""Runs that signals stop: for real, in processes of their own. They have saved, say so by their status, and go on."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from khmer_ocr.model.weights import load_model
from khmer_ocr.train.loop import train
from tests.train import runs
from tests.train.test_training_runs import finished, launch, losses, started

CHANGES: dict[str, Any] = {"num_epochs": 1000, "max_steps": 60, "recipe": "basic"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_tree(tmp_path_factory.mktemp("tree"), {"train": 80, "val": 16})


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    yield
    while started:
        process = started.pop()
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def whole(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing stops."""
    out = tmp_path_factory.mktemp("whole")
    train(runs.settings(tree, out, **CHANGES))
    return out


def after(process: "subprocess.Popen[str]", out: Path, steps: int) -> None:
    """Wait until a run has come so far."""
    deadline, log = time.monotonic() + 300, out / "logs" / "metrics.jsonl"
    while not (log.exists() and len(runs.rows(out, "train")) >= steps):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that these started, parents first."""
    own = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*own, *(further for each in own for further in descendants(each))]


@pytest.mark.parametrize(
    ("name", "status"),
    [("SIGTERM", 143), *(pytest.param(*each, marks=pytest.mark.slow) for each in (("SIGINT", 130), ("SIGUSR1", 138)))],
)
def test_stopped_run_has_saved_and_goes_on_as_if_never_stopped(
    tree: Path, whole: Path, tmp_path: Path, name: str, status: int
) -> None:
    out = tmp_path / "stopped"
    process = launch(tmp_path, tree, out, **CHANGES)
    after(process, out, 15)
    process.send_signal(getattr(signal, name))
    said = finished(process, status=status)
    assert f"stopped by {name} at step" in said
    assert "go on with --resume last" in said
    assert 15 <= len(losses(out)) < 60
    assert load_model(out / "checkpoints" / "last.pth")
    train(runs.settings(tree, out, **CHANGES, resume="last"))
    assert losses(out) == losses(whole)
    ends = [[row["epoch"] for row in runs.rows(each, "val")] for each in (out, whole)]
    assert ends[0] == ends[1]


def test_signal_to_the_group_does_not_take_the_workers_along(tree: Path, tmp_path: Path) -> None:
    """As Ctrl-C, `timeout` and schedulers send it: to the run and to the processes that load for it."""
    out = tmp_path / "stopped"
    changes = {"num_epochs": 1000, "cache": False, "engine": "torch", "num_workers": 2}
    process = launch(tmp_path, tree, out, **changes)
    after(process, out, 15)
    workers = descendants(process.pid)
    assert len(workers) >= 2
    for each in (*workers, process.pid):
        os.kill(each, signal.SIGINT)
    assert "go on with --resume last" in finished(process, status=130)
    assert (out / "checkpoints" / "last.pth").exists()


def test_warning_that_comes_twice_is_one_warning(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    process = launch(tmp_path, tree, out, num_epochs=1000)
    after(process, out, 5)
    for _ in range(3):
        process.send_signal(signal.SIGUSR1)
    finished(process, status=138)
    assert (out / "checkpoints" / "last.pth").exists()


def test_any_process_of_several_stops_all_at_one_step(tree: Path, tmp_path: Path) -> None:
    """The signal goes to the process that does not write."""
    out, changes = tmp_path / "stopped", {"num_epochs": 1000, "batch_size": 4}
    process = launch(
        tmp_path, tree, out, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", **changes
    )
    after(process, out, 10)
    second = [pid for pid in descendants(process.pid) if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    os.kill(second[0], signal.SIGUSR1)
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "stopped by SIGUSR1 at step" in said
    content = torch.load(out / "checkpoints" / "last.pth", weights_only=True)
    assert 10 <= content["position"]["step"] == len(losses(out)) < 10000
    assert (out / "checkpoints" / "model" / "model.safetensors").exists()

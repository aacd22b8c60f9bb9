"""Who starts a run several times over: torchrun may, others are refused with the line to type."""

import os
from pathlib import Path

import pytest

from khmer_ocr.cli import main
from khmer_ocr.errors import ConfigError
from khmer_ocr.train.distributed import DistributedContext, join

LAUNCHED = ("SLURM_", "OMPI_", "PMI_", "WORLD_SIZE", "RANK", "LOCAL_RANK")


@pytest.fixture(autouse=True)
def launched_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(LAUNCHED)]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2"}, r"Slurm started 4 tasks .*srun --ntasks-per-node=1 torchrun"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, "SLURM_STEP_NUM_TASKS=2"),
        ({"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "0"}, r"mpirun started 3 tasks"),
        ({"PMI_SIZE": "3", "PMI_RANK": "1"}, r"MPI launcher started 3 tasks"),
    ],
)
def test_tasks_that_nothing_joins_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said) as told:
        join("cpu")
    assert "torchrun --nproc-per-node GPUS -m khmer_ocr train" in str(told.value)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_NTASKS": "4"},  # a shell in an allocation: one process
        {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
    ],
)
def test_a_single_task_is_fine(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert join("cpu") == DistributedContext()


def test_one_task_a_machine_with_torchrun_in_it_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert join("cpu") == DistributedContext(0, 1, 0)


def test_the_command_writes_nothing_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["train", "--device", "cpu"])
    assert left.value.code == 2
    assert "Slurm started 2 tasks" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

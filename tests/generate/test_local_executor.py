"""Workers that die, fail, hang and come back: real processes, with a stand-in for the drawing."""

import errno
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from khmer_ocr.errors import FontError, OutputError, WorkerError
from khmer_ocr.generate import local_executor
from khmer_ocr.generate.local_executor import FontCrashError, LocalExecutor
from khmer_ocr.io import worker_process
from tests import REPOSITORY
from tests.generate.generating import alive, names
from tests.generate.stand_in_job import StandInJob

STAND_IN = """
import mmap, os, pickle, signal, struct, sys, time
from pathlib import Path
from khmer_ocr.io.worker_process import parent_pipe

pipe, state = parent_pipe(), mmap.mmap(int(sys.argv[1]), mmap.PAGESIZE)
job = pickle.load(sys.stdin.buffer)
marks = Path(job.folder)
for number in (signal.SIGTERM, signal.SIGXCPU, signal.SIGHUP):  # nohup has the tests ignore one, and their children too
    signal.signal(number, signal.SIG_DFL)
if job.start_with:
    os.kill(os.getpid(), job.start_with)
(marks / f"started-{os.getpid()}").touch()
pipe.send(("ready", os.getpid()))

def first_time(name):
    try:
        (marks / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

while True:
    kind, *rest = pipe.recv()
    if kind == "close":
        (marks / f"closed-{os.getpid()}").touch()
        break
    name, number = rest[0], rest[1]
    if kind == "die" or (kind == "die_once" and first_time(f"died-{number}")):
        state[:4] = struct.pack("=i", rest[2])
        os.kill(os.getpid(), rest[3])
    elif kind == "half" and first_time(f"half-{number}"):
        os.write(pipe.fileno(), struct.pack("!i", 1000) + b"only a part")
        os._exit(3)
    elif kind == "fail":
        pipe.send(("failed", rest[2]))
    elif kind == "crash":
        pipe.send(("crashed", "ZeroDivisionError\\nTraceback of the worker"))
    else:
        time.sleep(rest[2] if kind == "sleep" else 0)
        (marks / f"done-{number}-{os.getpid()}").touch()
        pipe.send(("done", number * number))
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInJob:
    script = tmp_path / "stand_in.py"
    # The job comes by pickle, which imports the module of its class there too.
    script.write_text(f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{STAND_IN}", encoding="utf-8")
    monkeypatch.setattr(worker_process, "child_python", lambda module: [sys.executable, "-P", str(script)])
    (tmp_path / "marks").mkdir()
    return StandInJob(str(tmp_path / "marks"))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = names(Path("/proc/self/fd"))
    yield
    assert len(names(Path("/proc/self/fd"))) <= len(before), "descriptors were left open"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # neither a running child nor a zombie


def make(job: Any, workers: int = 2) -> LocalExecutor:
    return LocalExecutor(job, workers)


def squares(count: int) -> list[tuple[Any, ...]]:
    return [("square", "train", n) for n in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_task_is_done_once(job: StandInJob, workers: int) -> None:
    with make(job, workers) as made:
        results = list(made.imap(squares(30)))
        pids = made.pids
        more = list(made.imap(squares(5)))
    assert sorted((task[2], result) for task, result in results) == [(n, n * n) for n in range(30)]
    assert len(more) == 5 and len(pids) <= workers
    assert not any(alive(pid) for pid in pids)
    done = [name for name in names(Path(job.folder)) if name.startswith("done-")]
    assert len(done) >= 30 and any(name.startswith("closed-") for name in names(Path(job.folder)))


def test_nothing_to_do_starts_nothing(job: StandInJob) -> None:
    with make(job) as made:
        assert list(made.imap([])) == [] and made.pids == []
    assert names(Path(job.folder)) == []


def test_a_death_is_survived(job: StandInJob, caplog: pytest.LogCaptureFixture) -> None:
    tasks = squares(8)
    tasks[3] = ("die_once", "train", 3, 1, signal.SIGSEGV)
    with make(job) as made, caplog.at_level(logging.WARNING):
        results = list(made.imap(tasks))
    assert sorted(task[2] for task, _ in results) == list(range(8))
    assert "died (SIGSEGV) while handling font Bad; it is replaced" in caplog.text


def test_many_deaths_on_different_tasks_are_survived(job: StandInJob) -> None:
    tasks = [("die_once", "train", n, 0, signal.SIGABRT if n % 2 else signal.SIGKILL) for n in range(3)]
    with make(job) as made:
        assert sorted(task[2] for task, _ in made.imap(tasks)) == list(range(3))


def test_a_font_that_kills_again_is_named(job: StandInJob) -> None:
    tasks = [*squares(2), ("die", "train", 2, 1, signal.SIGSEGV), *squares(2)]
    with (
        pytest.raises(FontCrashError, match=r"died \(SIGSEGV\) while handling font Bad.*2\. death") as caught,
        make(job) as made,
    ):
        list(made.imap(tasks))
    assert caught.value.face == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGXCPU, signal.SIGHUP])
def test_a_font_is_not_blamed_for_a_signal_from_outside(job: StandInJob, number: signal.Signals) -> None:
    with (
        pytest.raises(WorkerError, match=rf"died \({number.name}\).*goes on where it stopped") as caught,
        make(job, 1) as made,
    ):
        dict(made.imap([("die", "train", 2, 1, number)]))
    assert not isinstance(caught.value, FontCrashError)


def test_deaths_without_a_font_blame_none(job: StandInJob) -> None:
    with pytest.raises(WorkerError, match="SIGBUS") as caught, make(job) as made:
        list(made.imap([("die", "train", 0, -1, signal.SIGBUS)]))
    assert not isinstance(caught.value, FontCrashError) and "font" not in str(caught.value)


def test_kills_from_outside_blame_no_font(job: StandInJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_executor, "KILLS_ALLOWED", 2)
    with pytest.raises(WorkerError, match="try fewer --workers") as caught, make(job, 1) as made:
        list(made.imap([("die", "train", 0, 1, signal.SIGKILL)]))
    assert not isinstance(caught.value, FontCrashError)
    started = [name for name in names(Path(job.folder)) if name.startswith("started-")]
    assert len(started) == local_executor.KILLS_ALLOWED + 1


def test_workers_that_never_start_are_given_up(job: StandInJob) -> None:
    broken = StandInJob(job.folder, start_with=signal.SIGILL)
    with pytest.raises(WorkerError, match=r"SIGILL.*before it did anything"), make(broken) as made:
        list(made.imap(squares(3)))


def test_a_command_that_fails_at_once_is_given_up(job: StandInJob, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "raise SystemExit(7)"]
    monkeypatch.setattr(worker_process, "child_python", lambda module: command)
    with (
        pytest.raises(WorkerError, match=r"exit status 7.*before it did anything"),
        make(job) as made,
    ):
        list(made.imap(squares(3)))


def test_a_death_in_the_middle_of_a_message_is_a_death(job: StandInJob, caplog: pytest.LogCaptureFixture) -> None:
    tasks = [("half", "train", n) for n in range(2)]
    with make(job) as made:
        results = sorted((task[2], result) for task, result in made.imap(tasks))
    assert results == [(0, 0), (1, 1)] and "exit status 3" in caplog.text


def test_what_a_dead_worker_had_finished_is_not_done_again(job: StandInJob) -> None:
    asked = []

    def finished(task: tuple[Any, ...]) -> Any:
        asked.append(task[2])
        return "kept" if task[2] == 1 else None

    tasks = [("square", "train", 0), ("die", "train", 1, 1, signal.SIGSEGV), ("square", "train", 2)]
    with make(job, 1) as made:
        results = {task[2]: result for task, result in made.imap(tasks, finished)}
    assert results == {0: 0, 1: "kept", 2: 4} and asked[0] == 1


def test_results_of_nothing_count_as_finished(job: StandInJob) -> None:
    with make(job, 1) as made:
        results = dict(made.imap([("die", "train", 0, 1, signal.SIGSEGV)], lambda task: (0, 0)))
    assert list(results.values()) == [(0, 0)]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), FontError("glyph 7 does not load"), OutputError("full")],
)
def test_what_a_worker_met_is_raised_here(job: StandInJob, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error.args[-1])) as caught, make(job) as made:
        list(made.imap([*squares(3), ("fail", "train", 3, error)]))
    assert getattr(caught.value, "errno", None) == getattr(error, "errno", None)


def test_a_fault_of_ours_comes_with_its_traceback(job: StandInJob) -> None:
    with (
        pytest.raises(WorkerError, match=r"(?s)'crash', 'train', 3.*Please report.*Traceback of the worker"),
        make(job) as made,
    ):
        list(made.imap([("crash", "train", 3)]))


def test_leaving_early_stops_workers_at_once(job: StandInJob) -> None:
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), make(job, 2) as made:
        for _ in made.imap([("square", "train", 0), *(("sleep", "train", n, 60) for n in range(1, 9))]):
            pids = made.pids
            raise KeyboardInterrupt
    assert time.monotonic() - begin < 20
    assert pids and not any(alive(pid) for pid in pids)


def test_workers_not_yet_ready_are_not_waited_for(job: StandInJob) -> None:
    # Three of four are still starting when the only task is done.
    with make(job, 4) as made:
        assert len(list(made.imap(squares(1)))) == 1
        pids = made.pids
    assert not any(alive(pid) for pid in pids)


def test_ctrl_c_does_not_reach_workers(job: StandInJob) -> None:
    with make(job, 1) as made:
        tasks = made.imap([("square", "train", 0), ("sleep", "train", 1, 0.5), ("square", "train", 2)])
        next(tasks)
        for pid in made.pids:
            os.kill(pid, signal.SIGINT)
        assert sorted(task[2] for task, _ in tasks) == [1, 2]


def test_errors_of_a_worker_travel() -> None:
    for error in (OutputError("a"), FontError("b"), WorkerError("c"), OSError(28, "No space")):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error) and back.args == error.args


def test_an_orphan_worker_leaves() -> None:
    command = [sys.executable, "-m", "khmer_ocr.generate.render_worker", "0", "1", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")

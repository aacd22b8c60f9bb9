"""Locks where the file system has none: who holds one is named in a file, and a dead holder holds nothing."""

import errno
import fcntl
import json
import logging
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from khmer_ocr.io import locks
from tests import REPOSITORY

NO_FLOCK_C = "#include <errno.h>\nint flock(int fd, int op) { errno = ENOLCK; return -1; }\n"
NO_FLOCK_PY = """
import errno, fcntl
def flock(fd, operation):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""
HOLD = """
import sys, time
from pathlib import Path
from khmer_ocr.io import locks
with locks.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""
COUNT = """
import sys
from pathlib import Path
from khmer_ocr.io import locks
folder = Path(sys.argv[1])
for _ in range(25):
    with locks.held(folder / "x.lock"):
        number = int((folder / "count").read_text())
        (folder / "count").write_text(str(number + 1))
"""


OWN = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "kernels")))}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of processes on whose file system `flock` fails as on some NFS: by a library where there is a C compiler."""
    folder = tmp_path_factory.mktemp("noflock")
    paths, variables = [str(REPOSITORY), str(REPOSITORY / "kernels")], {}
    if compiler := shutil.which("cc"):
        (folder / "noflock.c").write_text(NO_FLOCK_C)
        library = folder / "noflock.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "noflock.c"], check=True)
        variables["LD_PRELOAD"] = str(library)
    else:
        (folder / "sitecustomize.py").write_text(NO_FLOCK_PY)
        paths.insert(0, str(folder))
    return {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in this process."""

    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    locks._warn_once.cache_clear()


def hold(file: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    line = [sys.executable, "-c", HOLD, str(file)]
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_holder_keeps_others_out_until_it_is_killed(
    tmp_path: Path, environment: dict[str, str], no_flock: None
) -> None:
    file = tmp_path / "x.lock"
    with hold(file, environment) as process:
        assert json.loads((tmp_path / "x.lock.holder").read_bytes())["pid"] == process.pid
        with pytest.raises(BlockingIOError):
            locks.take(file, wait=False)
        assert list(locks.held_by_others([file])) == [file]
        process.kill()
        process.wait()
    assert list(locks.held_by_others([file])) == []
    locks.let_go(locks.take(file, wait=False))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.lock"]


def test_several_processes_take_turns(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "count").write_text("0")
    line = [sys.executable, "-c", COUNT, str(tmp_path)]
    running = [subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=240)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert (tmp_path / "count").read_text() == "75"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["count", "x.lock"]


@pytest.mark.parametrize("what", ["removed", "replaced", "folder moved away"])
def test_a_lock_is_on_the_file_that_has_the_name(tmp_path: Path, what: str) -> None:
    """Whatever becomes of the file while another process waits for it: no two hold what has its name."""
    file = tmp_path / "journal/x.lock"
    first = locks.take(file, wait=True)
    line = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(line, env=OWN, stdout=subprocess.PIPE, text=True) as waiting:
        descriptors = Path(f"/proc/{waiting.pid}/fd")
        while not any(each.is_symlink() and each.readlink() == file for each in descriptors.iterdir()):
            time.sleep(0.01)
        if what == "folder moved away":
            file.parent.rename(tmp_path / "aside")
        elif what == "replaced":
            (tmp_path / "other").touch()
            (tmp_path / "other").replace(file)
        else:
            file.unlink()
        second = locks.take(file, wait=False)
        locks.let_go(first)
        time.sleep(0.3)
        assert waiting.stdout is not None and not select.select([waiting.stdout], [], [], 0)[0], "two hold it"
        locks.let_go(second)
        assert waiting.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            locks.take(file, wait=False)
        waiting.kill()


def test_it_is_said_once_that_there_are_no_locks(
    tmp_path: Path, no_flock: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            locks.let_go(locks.take(tmp_path / "x.lock", wait=True))
    (record,) = caplog.records
    assert f"{tmp_path} lies on a file system without locks (No locks available)" in record.message


@pytest.mark.parametrize("reason", [errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK])
def test_each_way_of_having_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locks.held(tmp_path / "x.lock"), pytest.raises(BlockingIOError):
        locks.take(tmp_path / "x.lock", wait=False)


def test_other_errors_are_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output"):
        locks.take(tmp_path / "x.lock", wait=True)


def test_a_process_number_given_anew_is_not_the_holder(tmp_path: Path, no_flock: None) -> None:
    holder = tmp_path / "x.lock.holder"
    holder.write_text(json.dumps({**locks._whoami(), "started": "1", "token": "t"}))
    locks.let_go(locks.take(tmp_path / "x.lock", wait=False))
    assert not holder.exists()


@pytest.mark.parametrize(
    ("content", "limit_s"), [('{"machine": "elsewhere", "pid": 1, "started": "7"}', 300.0), ("half wri", 20.0)]
)
def test_a_holder_elsewhere_lives_while_it_says_so(
    tmp_path: Path, no_flock: None, content: str, limit_s: float
) -> None:
    holder, now = tmp_path / "x.lock.holder", time.time()
    holder.write_text(content)
    for idle_s, free in ((0.0, False), (limit_s - 10, False), (limit_s + 10, True)):
        os.utime(holder, (now - idle_s, now - idle_s))
        if free:
            locks.let_go(locks.take(tmp_path / "x.lock", wait=False))
        else:
            with pytest.raises(BlockingIOError):
                locks.take(tmp_path / "x.lock", wait=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.lock"]


def test_who_holds_a_lock_says_so_again_and_again(
    tmp_path: Path, no_flock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TOUCH_S", 0.02)
    with locks.held(tmp_path / "x.lock"):
        holder = tmp_path / "x.lock.holder"
        os.utime(holder, (0, 0))
        deadline = time.monotonic() + 30
        while holder.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert holder.stat().st_mtime > 0


def test_a_link_in_the_place_of_a_holder_leads_nowhere(tmp_path: Path, no_flock: None) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x.lock.holder").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic links"):
        locks.take(tmp_path / "data/x.lock", wait=False)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_holder_that_is_no_longer_ones_own_is_left(tmp_path: Path, no_flock: None) -> None:
    lock = locks.take(tmp_path / "x.lock", wait=False)
    (tmp_path / "x.lock.holder").write_text("of another")
    locks.let_go(lock)
    assert (tmp_path / "x.lock.holder").read_text() == "of another"


def test_verbs_go_on_without_locks(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(f"ភាសាខ្មែរ {n} ស្រុកស្រែចម្ការ" for n in range(40)), encoding="utf-8")
    common = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 240}
    drawing = (
        "--corpus-dir corpus --output-dir out --fonts NotoSansKhmer-Regular --workers 1 --splits train --no-augment"
    )
    for line in (
        ["corpus", "--input", "text.txt", "--output-dir", "corpus"],
        ["generate", *drawing.split()],
        ["cache", "out", "--splits", "train"],
    ):
        done = subprocess.run([sys.executable, "-m", "khmer_ocr", *line], check=False, **common)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr
        assert "file system without locks" in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(locks.HOLDER)]

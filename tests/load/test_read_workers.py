"""Workers that die, stand still or have no shared memory: an error that names the cause, or batches; never a wait."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests import REPOSITORY
from tests.dataset.trees import write_tree

torch = pytest.importorskip("torch")

from khmer_ocr.errors import WorkerError  # noqa: E402
from khmer_ocr.load import read_workers  # noqa: E402
from khmer_ocr.load.prefetch import ahead  # noqa: E402
from khmer_ocr.load.read_workers import ReadingWorkers, StallWatch  # noqa: E402
from tests.load.loading import ENGINES, assert_equal, open_split  # noqa: E402

COUNT = 300


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree") / "data", {"train": COUNT})


def double(order):
    return 2 * order


def slow(order):
    time.sleep(0.05)
    return order


def wide(order):
    return np.full(3_000_000, order, np.uint8)


def wrong(order):
    if order == 3:
        raise KeyError("no such thing")
    return order


def dies(order):
    if order == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return order


def unsendable(order):
    return lambda: order


def asleep(order):
    time.sleep(1000)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("ahead", [1, 4])
def test_answers_come_in_turn(count, ahead):
    readers = ReadingWorkers(double, count, ahead)
    for orders in ([], [7], list(range(20))):
        assert list(readers.map(orders)) == [2 * order for order in orders]
    left = readers.map(list(range(50)))
    assert [next(left) for _ in range(5)] == [0, 2, 4, 6, 8]
    left.close()
    assert list(readers.map([1, 2, 3])) == [2, 4, 6]
    assert readers.alive
    readers.close()
    assert not readers.alive


def test_orders_and_answers_wider_than_a_pipe_do_not_block():
    readers = ReadingWorkers(wide, 2, 3)
    assert [int(answer[-1]) for answer in readers.map(list(range(9)))] == list(range(9))
    readers.close()
    readers = ReadingWorkers(double, 2, 3)
    order = np.arange(1_000_000)
    assert all(np.array_equal(answer, 2 * order) for answer in readers.map([order] * 7))
    readers.close()


def test_what_reading_raises_ends_the_run_and_is_named():
    readers = ReadingWorkers(wrong, 2, 2)
    with pytest.raises(
        WorkerError, match=r"Reading process \d+ failed: KeyError: 'no such thing'\. Run with"
    ) as raised:
        list(readers.map(list(range(9))))
    assert any("in wrong" in note for note in raised.value.__notes__)
    assert not readers.alive


def test_an_answer_that_can_not_be_sent_is_named():
    readers = ReadingWorkers(unsendable, 1, 2)
    with pytest.raises(WorkerError, match=r"failed: .*pickle"):
        list(readers.map([1, 2]))


@pytest.mark.parametrize("method", [pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
def test_they_may_be_started_in_other_ways(method, monkeypatch):
    context = read_workers.multiprocessing.get_context(method)
    monkeypatch.setattr(read_workers.multiprocessing, "get_context", lambda: context)
    readers = ReadingWorkers(double, 2, 2)
    answers = readers.map(list(range(6)))
    assert next(answers) == 0
    time.sleep(read_workers._PARENT_LOOK_S + 1)  # by then they have looked for their parent
    assert list(answers) == [2, 4, 6, 8, 10]
    readers.close()


def test_a_worker_that_is_killed_is_named_with_its_cause():
    readers = ReadingWorkers(dies, 2, 2)
    begin = time.perf_counter()
    with pytest.raises(WorkerError, match=r"Reading process \d+ died: it was killed \(SIGKILL\), .* memory"):
        list(readers.map(list(range(9))))
    assert time.perf_counter() - begin < 30
    assert not readers.alive


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_the_whole_group_ends_no_worker(number):
    readers = ReadingWorkers(slow, 2, 2)
    answers = readers.map(list(range(9)))
    assert next(answers) == 0
    for process in readers._processes:
        os.kill(process.pid, number)
    assert list(answers) == list(range(1, 9))
    readers.close()


def test_a_worker_killed_in_an_epoch_is_an_error_and_the_next_epoch_has_others(root):
    loader = open_split(root, num_workers=2, batch_size=4, prefetch=1)
    batches = loader.epoch(0)
    next(batches)
    for process in loader._busy[0]._processes:
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"died: it was killed \(SIGKILL\).*--num-workers 0"):
        list(batches)
    assert_equal(open_split(root, batch_size=4).epoch(1), loader.epoch(1))
    loader.close()


def test_a_stopped_worker_is_named(root, monkeypatch):
    monkeypatch.setattr(read_workers, "STALL_S", 2)
    loader = open_split(root, num_workers=1, batch_size=4, prefetch=1)
    batches = loader.epoch(0)
    next(batches)
    os.kill(loader._busy[0]._processes[0].pid, signal.SIGSTOP)
    begin = time.perf_counter()
    with pytest.raises(WorkerError, match=r"none is being made: reading process \d+ was stopped by a signal"):
        list(batches)
    assert time.perf_counter() - begin < 30
    assert not loader._busy
    assert_equal(open_split(root, batch_size=4).epoch(1), loader.epoch(1))
    loader.close()


def test_who_leaves_a_loop_is_not_kept_by_a_stopped_worker(root, monkeypatch):
    monkeypatch.setattr("khmer_ocr.load.prefetch._JOIN_S", 0.5)
    loader = open_split(root, num_workers=1, batch_size=4, prefetch=1)
    batches = loader.epoch(0)
    next(batches)
    os.kill(loader._busy[0]._processes[0].pid, signal.SIGSTOP)
    time.sleep(1)
    begin = time.perf_counter()
    batches.close()
    assert time.perf_counter() - begin < 20
    assert_equal(open_split(root, batch_size=4).epoch(1), loader.epoch(1))
    loader.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reading_thread_that_stands_still_is_named(root, monkeypatch, engine):
    monkeypatch.setattr(read_workers, "STALL_S", 2)
    monkeypatch.setattr("khmer_ocr.load.prefetch._JOIN_FAILED_S", 0.1)
    loader, hold = open_split(root, engine=engine), threading.Event()
    list(loader.epoch(0))
    for name in ("pixels", "encoded"):
        monkeypatch.setattr(type(loader.lines), name, lambda self, i: hold.wait())
    try:
        with pytest.raises(WorkerError, match="the reading thread sleeps"):
            list(loader.epoch(1))
    finally:
        hold.set()


def test_who_uses_time_is_not_accused(monkeypatch):
    monkeypatch.setattr(read_workers, "STALL_S", 3)
    readers = ReadingWorkers(asleep, 1, 1)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        watch = StallWatch()
        for _ in range(12):
            watch.look([("busy", f"/proc/{busy.pid}")])
            watch.look([("gone", "/proc/nothing")])
        with pytest.raises(WorkerError, match="asleep sleeps"):
            for _ in range(40):
                time.sleep(0.1)
                watch.look([("asleep", f"/proc/{readers._processes[0].pid}")])
    finally:
        busy.kill()
        busy.wait()
        readers.close()


def test_a_thread_that_is_gone_is_an_error():
    items = ahead(iter(range(100)), 2)
    assert next(items) == 0
    pid = os.fork()
    if not pid:
        status = 1
        try:
            for _ in items:
                pass
        except WorkerError:
            status = 7
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert list(items) == list(range(1, 100))


ORPHANS = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tests.load.loading import open_split
loader = open_split(sys.argv[2], num_workers=2, batch_size=4)
batches = loader.epoch(0)
next(batches)
print(*(process.pid for process in loader._busy[0]._processes), flush=True)
{end}
"""


@pytest.mark.parametrize(
    "end",
    [
        "os.kill(os.getpid(), 9)",
        "raise KeyError",
        *(pytest.param(end, marks=pytest.mark.slow) for end in ("", "sys.exit(3)")),
    ],
)
def test_workers_end_with_their_parent(root, end):
    command = [sys.executable, "-c", ORPHANS.format(end=end), REPOSITORY, root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids]
        if set(states) <= {"Z"}:
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)


SMALL_SHM = """
import sys
from khmer_ocr import create_synthetic_dataloaders
if __name__ == "__main__":
    train, _, _ = create_synthetic_dataloaders(batch_size=256, num_workers=2, synthetic_dir=sys.argv[1], engine="torch")
    print(sum(len(batch["texts"]) for _ in range(2) for batch in train))
"""


def test_without_shared_memory_batches_come_all_the_same(root, tmp_path):
    script = tmp_path / "load.py"
    script.write_text(SMALL_SHM)
    tree = shutil.copytree(root, tmp_path / "data")
    for split in ("val", "test"):
        write_tree(tree, {split: 2})
    # Filled to the last byte: batches, semaphores or whatever else goes there finds no room.
    inner = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && (yes > /dev/shm/full || true) 2>/dev/null; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", inner, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("a mount namespace of our own is not allowed here")
    done = subprocess.run([*command, sys.executable, script, tree], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.split() == [str(2 * COUNT)], done.stderr

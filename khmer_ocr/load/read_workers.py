"""Processes that read batches, and hand them over through pipes.

A pipe needs no `/dev/shm`, which containers keep at 64 MB: torch's own loader puts each batch there, and where one does
not fit it waits for ever. A worker that dies is noticed by the end of its pipe, one that stands still by the CPU time
that it does not use.
"""

import fcntl
import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from khmer_ocr.errors import WorkerError
from khmer_ocr.io.worker_process import end_of

Order = TypeVar("Order")
Answer = TypeVar("Answer")

STALL_S = 45
"""Seconds of waiting, in which what is waited for uses no CPU time, until that is called a standstill."""
_PIPE_BYTES = 1 << 20
_PARENT_LOOK_S = 5.0
_STATES = {
    "D": "waits for a disk or the network",
    "S": "sleeps",
    "T": "was stopped by a signal",
    "t": "is held by a debugger",
    "Z": "has ended",
}
_WITHOUT = "Run with --num-workers 0, or read from the packed cache (--cache), which needs no worker processes."


class _Failure(NamedTuple):
    """What a worker answers where reading raised something that is no fault of a line."""

    what: str
    trace: str


class StallWatch:
    """Distinguishes waiting from a standstill; `look` at it about once a second while waiting.

    A task that waits for a disk uses CPU time now and then: only one that uses none for `STALL_S` stands still.
    Looks are counted, not seconds, so that suspending the machine is no standstill.
    """

    def __init__(self) -> None:
        self._looks = 0
        self._before: list[int] = []

    def begin(self) -> None:
        """Start to count anew: something came."""
        self._looks = 0

    def look(self, tasks: Sequence[tuple[str, str]]) -> None:
        """Look once more.

        Args:
            tasks: (name, folder of its `stat` in `/proc`) of those who should be working.

        Raises:
            WorkerError: none of them has used CPU time in `STALL_S` looks, nor could any have.
        """
        seen = [(name, *_task(folder)) for name, folder in tasks]
        ticks = [task[2] for task in seen]
        if ticks != self._before or any(state in ("R", "") for _, state, _ in seen):
            self._looks, self._before = 0, ticks
            return
        self._looks += 1
        if self._looks >= STALL_S:
            states = "; ".join(f"{name} {_STATES.get(state, f'is in state {state}')}" for name, state, _ in seen)
            raise WorkerError(
                f"No batch has come for {self._looks} s, and none is being made: {states}. Look whether the file "
                f"system of the data set still answers (ls). {_WITHOUT}"
            )


def _task(folder: str) -> tuple[str, int]:
    """State letter and used CPU time, in clock ticks, of a process or thread; ("", 0) where that can't be seen."""
    try:
        fields = Path(folder, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[11]) + int(fields[12])


class ReadingWorkers(Generic[Order, Answer]):
    """Worker processes that answer orders, each answer in the turn of its order.

    Args:
        read: makes the answer to an order; what it raises ends the run with `WorkerError`.
        count: how many processes, at least 1; they start here, so let this be the thread that consumes.
        ahead: orders that each holds at most.

    Raises:
        WorkerError: a process can't be started.
    """

    def __init__(self, read: Callable[[Order], Answer], count: int, ahead: int) -> None:
        context = multiprocessing.get_context()
        method = context.get_start_method()
        # A child of the fork server is no child of ours; it inherits no pipes, so that the end of its own is enough.
        parent = os.getpid() if method in ("fork", "spawn") else None
        self._ahead, self._serial = ahead, 0
        self._processes: list[BaseProcess] = []
        self._orders: list[Connection] = []
        self._answers: list[Connection] = []
        self._open: list[deque[int]] = []
        self._awaited = 0
        # At exit before multiprocessing waits for its children: these ignore the signal by which it ends them.
        self.close = util.Finalize(self, _kill, (self._processes,), exitpriority=10)
        for place in range(count):
            theirs_in, ours_out = context.Pipe(duplex=False)
            ours_in, theirs_out = context.Pipe(duplex=False)
            with suppress(OSError):  # a smaller pipe only makes a worker wait a little for its reader
                fcntl.fcntl(ours_in.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            inherited = [*self._orders, *self._answers, ours_out, ours_in] if method == "fork" else []
            process = context.Process(
                target=_work,
                args=(read, theirs_in, theirs_out, parent, inherited),
                name=f"khmer_ocr reader {place}",
                daemon=True,
            )
            try:
                process.start()
            except (OSError, AssertionError) as fault:  # the latter in a daemon of multiprocessing
                self.close()
                raise WorkerError(f"Reading process {place} can't be started: {fault}. {_WITHOUT}") from fault
            finally:
                theirs_in.close()
                theirs_out.close()
            self._processes.append(process)
            self._orders.append(ours_out)
            self._answers.append(ours_in)
            self._open.append(deque())

    @property
    def alive(self) -> bool:
        """False once they were ended, or one of them died."""
        return self.close.still_active() and all(process.is_alive() for process in self._processes)

    def map(self, orders: Sequence[Order]) -> Iterator[Answer]:
        """Have orders answered; one `map` at a time.

        Yields:
            The answers, in the order of their orders.

        Raises:
            WorkerError: a worker died, or could not do its work.
        """
        count, first = len(self._processes), self._serial
        self._serial += len(orders)
        given = 0
        for number in range(len(orders)):
            self._awaited = number % count
            while given < len(orders) and (given == number or len(self._open[given % count]) < self._ahead):
                if len(self._open[given % count]) >= self._ahead:
                    self._receive(given % count)  # answers a `map` that was left early
                    continue
                self._send(given % count, first + given, orders[given])
                given += 1
            yield self._answer(self._awaited, first + number)

    def tasks(self) -> list[tuple[str, str]]:
        """The worker that is waited for, as `StallWatch.look` takes it."""
        pid = self._processes[self._awaited].pid
        return [(f"reading process {pid}", f"/proc/{pid}")]

    def _send(self, worker: int, serial: int, order: Order) -> None:
        try:
            self._orders[worker].send((serial, order))
        except OSError as fault:
            raise self._died(worker) from fault
        self._open[worker].append(serial)

    def _receive(self, worker: int) -> tuple[int, Any]:
        try:
            serial, answer = self._answers[worker].recv()
        except (EOFError, OSError) as fault:
            raise self._died(worker) from fault
        self._open[worker].popleft()
        return serial, answer

    def _answer(self, worker: int, expected: int) -> Answer:
        while True:
            serial, answer = self._receive(worker)
            if serial != expected:
                continue
            if isinstance(answer, _Failure):
                pid = self._processes[worker].pid
                self.close()
                error = WorkerError(f"Reading process {pid} failed: {answer.what}. {_WITHOUT}")
                error.add_note(answer.trace)
                raise error
            return answer  # type: ignore[no-any-return]

    def _died(self, worker: int) -> WorkerError:
        process = self._processes[worker]
        process.join(1.0)
        code = process.exitcode
        self.close()
        return WorkerError(f"Reading process {process.pid} died: {_cause(code)} {_WITHOUT}")


def _cause(code: int | None) -> str:
    """Say why a process has ended, as far as its exit code tells."""
    if code is None:
        return "it closed its pipe."
    if -code == signal.SIGKILL:
        return (
            "it was killed (SIGKILL), as the kernel does where memory has run out (dmesg says so); give the machine or "
            "container more memory, or use fewer workers and smaller batches."
        )
    if -code == signal.SIGBUS:
        return (
            "it met SIGBUS: a file was cut while it was read, or /dev/shm is full (docker run --shm-size=1g enlarges "
            "it)."
        )
    return f"it left with status {code}." if code >= 0 else f"it met {end_of(code)}."


def _kill(processes: list[BaseProcess]) -> None:
    """End processes that hold nothing worth saving."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join(5.0)


def _work(
    read: Callable[[Any], Any],
    orders: Connection,
    answers: Connection,
    parent: int | None,
    inherited: list[Connection],
) -> None:
    """Answer orders until the parent closes the pipe or is gone; runs in a worker."""
    for connection in inherited:
        connection.close()
    # A signal to the whole process group is for the parent, which ends its workers itself.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    made: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

    def hand_over() -> None:
        while True:
            serial, answer = made.get()
            try:
                answers.send((serial, answer))
            except OSError:
                os._exit(0)  # the parent is gone
            except Exception as fault:  # out of memory, or an answer that can't be sent
                answers.send((serial, _Failure(f"{type(fault).__name__}: {fault}", traceback.format_exc())))

    # A thread of its own, so that the next batch is read while this one waits for its reader.
    threading.Thread(target=hand_over, daemon=True).start()
    while True:
        try:
            # The end of the pipe is not enough: other children of the parent may have inherited its other end.
            while not orders.poll(_PARENT_LOOK_S):
                if parent is not None and os.getppid() != parent:
                    os._exit(0)
            serial, order = orders.recv()
        except (EOFError, OSError):
            os._exit(0)
        try:
            answer = read(order)
        except Exception as fault:  # handed on: the parent raises it
            answer = _Failure(f"{type(fault).__name__}: {fault}", traceback.format_exc())
        made.put((serial, answer))

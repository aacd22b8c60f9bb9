"""Worker processes that may die: tasks in, results out, in whatever order they finish.

Plain subprocesses with a pipe each, not `multiprocessing`: a user's script needs no `__main__` guard, and a worker that a
font kills is replaced, its tasks done again, and the font named if it kills a second time.
"""

import errno
import logging
import mmap
import os
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import numpy as np

from khmer_ocr.errors import OutputError, WorkerError
from khmer_ocr.generate.worker import Job

log = logging.getLogger(__name__)
IN_FLIGHT = 2
"""Tasks a worker holds: one it does and one that waits, so that it never idles for the parent."""
DEATHS_ALLOWED = 1
_CLOSE_TIMEOUT_S = 30.0

Task = tuple[Any, ...]
"""(method of `worker.Artist`, split, number, lines, whether they are normalised)."""


class FontCrash(WorkerError):
    """A worker died twice on the same task; `face` is the number of the face it was handling."""

    def __init__(self, message: str, face: int) -> None:
        super().__init__(message)
        self.face = face


class _Worker:
    def __init__(self, job: Job) -> None:
        self.pipe, theirs = Pipe()
        state_fd = os.memfd_create("khmer_ocr-worker", 0)
        os.ftruncate(state_fd, mmap.PAGESIZE)
        self._state = mmap.mmap(state_fd, mmap.PAGESIZE)
        fds = (theirs.fileno(), state_fd)
        command = [sys.executable, "-m", "khmer_ocr.generate.worker", *map(str, fds)]
        self.process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL)
        theirs.close()
        os.close(state_fd)
        self.tasks: deque[Task] = deque()
        self.ready = False
        self.pipe.send(job)

    def face(self) -> int:
        """The face that was being handled last."""
        return int(np.frombuffer(self._state, np.int32, count=1)[0])

    def kill(self) -> int:
        self.process.kill()
        self.pipe.close()
        return self.process.wait()


class Pool:
    """A fixed number of workers; use it as a context manager.

    Args:
        job: what every worker needs.
        workers: how many processes.
    """

    def __init__(self, job: Job, workers: int) -> None:
        self._job, self._size = job, workers
        self._workers: list[_Worker] = []
        self._deaths: Counter[tuple[str, ...]] = Counter()

    def __enter__(self) -> "Pool":
        # The first worker compiles and caches the kernels; the others start when it is ready and find them.
        self._workers.append(_Worker(self._job))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            if kind is not None or worker.tasks:
                worker.kill()
                continue
            try:
                worker.pipe.send(("close",))
                worker.process.wait(_CLOSE_TIMEOUT_S)
            except (OSError, subprocess.TimeoutExpired) as slow:
                log.warning("worker %d did not close (%s); it is stopped", worker.process.pid, slow)
            worker.kill()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [worker.process.pid for worker in self._workers]

    def imap(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Any]]:
        """Do tasks, any order.

        Args:
            tasks: see `Task`; consumed as workers get free.

        Yields:
            Each task with its result.

        Raises:
            WorkerError: a task killed two workers or failed by a fault of ours.
            KhmerOcrError, OSError: what a worker met, e.g. no space left on device.
        """
        source, again = iter(tasks), deque[Task]()
        exhausted = False
        while True:
            for worker in self._workers:
                while worker.ready and len(worker.tasks) < IN_FLIGHT and not (exhausted and not again):
                    task = again.popleft() if again else next(source, None)
                    if task is None:
                        exhausted = True
                        break
                    self._send(worker, task)
            if exhausted and not again and not any(worker.tasks for worker in self._workers):
                return
            by_pipe = {worker.pipe: worker for worker in self._workers}
            for pipe in wait(list(by_pipe)):
                assert isinstance(pipe, Connection)
                yield from self._receive(by_pipe[pipe], again)

    def _send(self, worker: _Worker, task: Task) -> None:
        worker.tasks.append(task)
        try:
            worker.pipe.send(task)
        except BrokenPipeError:
            log.debug("worker %d is gone; its death is handled when its pipe is read", worker.process.pid)

    def _receive(self, worker: _Worker, again: deque[Task]) -> Iterator[tuple[Task, Any]]:
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._replace(worker, again)
            return
        if kind == "ready":
            worker.ready = True
            if len(self._workers) < self._size:
                self._workers += [_Worker(self._job) for _ in range(self._size - len(self._workers))]
            return
        task = worker.tasks.popleft()
        if kind == "done":
            yield task, content
        elif kind == "failed":
            raise content
        else:
            raise WorkerError(f"A worker met a fault of khmer_ocr in task {task[:3]!r}. Please report it:\n{content}")

    def _replace(self, worker: _Worker, again: deque[Task]) -> None:
        """Start a new process for one that died; its tasks go first."""
        code, face = worker.kill(), self._job.faces[worker.face()].name
        culprit = worker.tasks[0] if worker.tasks else None
        name = tuple(map(str, culprit[:3])) if culprit else ()
        self._deaths[name] += 1
        what = f"Worker {worker.process.pid} died (exit {code}) while handling font {face}"
        if self._deaths[name] > DEATHS_ALLOWED:
            if code == -9:
                what += " (killed from outside, perhaps for want of memory: try fewer --workers)"
            raise FontCrash(f"{what}, for the second time", worker.face())
        log.warning("%s; it is replaced", what)
        again.extend(worker.tasks)
        self._workers[self._workers.index(worker)] = _Worker(self._job)


def translate_os_error(error: OSError, root: str) -> OutputError:
    """Turn what writing met into an error that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"No space left on device while writing to {root}"
        return OutputError(f"{what}. Free some space and run the same command: it goes on where it stopped.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{root} can't be written ({error.strerror}). Choose another --output-dir or change its rights.")
    if error.errno == errno.EMFILE:
        return OutputError("Too many open files. Raise the limit (ulimit -n) and run the same command.")
    return OutputError(f"Writing to {root} failed: {error}. Mend it and run the same command: it goes on where it stopped.")

"""Worker processes that may die: tasks in, results out, in whatever order they finish.

A worker that a font kills is replaced, its tasks done again, and the font named if it kills a second time.
"""

import logging
import mmap
import os
import pickle
import signal
import subprocess
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from multiprocessing.connection import Connection, wait
from time import monotonic
from types import TracebackType
from typing import Any

import numpy as np

from khmer_ocr.errors import WorkerError
from khmer_ocr.generate.chunk_renderer import RenderJob
from khmer_ocr.io.worker_process import DYING_S, OWN_CRASHES, WorkerProcess, end_of

log = logging.getLogger(__name__)
_MODULE = "khmer_ocr.generate.render_worker"
WORKER_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 28), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}
"""For glibc: keep what torch's ops free, which is a few MB each; given back, every op would fault it in again."""
IN_FLIGHT = 2
"""Tasks a worker holds: one it does and one that waits, so that it never idles for the parent."""
DEATHS_ALLOWED = 1
KILLS_ALLOWED = 4
"""Deaths by SIGKILL come from outside (an operator, want of memory) more often than from a font: more are forgiven."""
_CLOSE_TIMEOUT_S = 30.0

Task = tuple[Any, ...]
"""(method of `ChunkRenderer`, split, number, lines, whether they are normalised)."""


class FontCrashError(WorkerError):
    """Workers died again and again on the same task; `face` is the number of the face that was being handled."""

    def __init__(self, message: str, face: int) -> None:
        super().__init__(message)
        self.face = face


class _Worker(WorkerProcess):
    """A worker, the tasks it holds, and a page of memory in which it notes the face that it handles, -1 for none."""

    def __init__(self, job: RenderJob) -> None:
        state_fd = os.memfd_create("khmer_ocr-worker")
        try:
            os.ftruncate(state_fd, mmap.PAGESIZE)
            self._state = mmap.mmap(state_fd, mmap.PAGESIZE)
            self._state[:4] = np.int32(-1).tobytes()
            environment = {**WORKER_ENVIRONMENT, **os.environ}
            super().__init__(_MODULE, pickle.dumps(job), [str(state_fd)], pass_fds=[state_fd], environment=environment)
        finally:
            os.close(state_fd)
        self.tasks: deque[Task] = deque()
        self.ready = False

    def send(self, message: object) -> None:
        try:
            self.pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            log.debug("worker %d is gone; its death is handled when its pipe is read", self.process.pid)

    def end(self, wait_s: float = 0.0) -> int:
        code = super().end(wait_s)
        if not self._state.closed:
            self.last_face = int(np.frombuffer(self._state[:4], np.int32)[0])
            self._state.close()
        return code


class LocalExecutor:
    """A fixed number of workers, started when there is something to do; use it as a context manager.

    Args:
        job: what every worker needs.
        workers: how many processes.
    """

    def __init__(self, job: RenderJob, workers: int) -> None:
        self._job, self._size = job, workers
        self._workers: list[_Worker] = []
        self._deaths: Counter[tuple[Any, ...]] = Counter()

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._let_close([worker for worker in self._workers if worker.ready and not worker.tasks])
        finally:
            while self._workers:
                self._workers.pop().end()

    @staticmethod
    def _let_close(workers: list[_Worker]) -> None:
        """Give workers the time to keep their rasters."""
        for worker in workers:
            worker.send(("close",))
        deadline = monotonic() + _CLOSE_TIMEOUT_S
        for worker in workers:
            try:
                worker.process.wait(max(deadline - monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                log.warning(
                    "worker %d did not close within %.0f s; it is stopped", worker.process.pid, _CLOSE_TIMEOUT_S
                )

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [worker.process.pid for worker in self._workers]

    def imap(
        self, tasks: Iterable[Task], finished: Callable[[Task], Any | None] = lambda task: None
    ) -> Iterator[tuple[Task, Any]]:
        """Do tasks, any order.

        Args:
            tasks: see `Task`; consumed as workers get free.
            finished: asked of a task whose worker died: its result if it was finished all the same, else None.

        Yields:
            Each task with its result.

        Raises:
            FontCrashError: workers die on a task.
            WorkerError: workers die for no font's sake, or a task failed by a fault of ours.
            KhmerOcrError, OSError: raised in a worker, e.g. no space left on device.
        """
        source, again = iter(tasks), deque[Task]()
        first = next(source, None)
        if first is None:
            return
        source = chain([first], source)
        if not self._workers:
            # The first worker compiles and caches the kernels; the others start when it is ready and find them.
            self._workers.append(_Worker(self._job))
        exhausted = False
        while True:
            for worker in self._workers:
                while worker.ready and len(worker.tasks) < IN_FLIGHT:
                    task = again.popleft() if again else next(source, None)
                    if task is None:
                        exhausted = True
                        break
                    worker.tasks.append(task)
                    worker.send(task)
            if exhausted and not again and not any(worker.tasks for worker in self._workers):
                return
            by_pipe = {worker.pipe: worker for worker in self._workers}
            for pipe in wait(list(by_pipe)):
                assert isinstance(pipe, Connection)
                yield from self._receive(by_pipe[pipe], again, finished)

    def _receive(
        self, worker: _Worker, again: deque[Task], finished: Callable[[Task], Any | None]
    ) -> Iterator[tuple[Task, Any]]:
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, OSError):  # OSError: it died while it sent
            yield from self._replace(worker, again, finished)
            return
        if kind == "ready":
            worker.ready = True
            self._workers += [_Worker(self._job) for _ in range(self._size - len(self._workers))]
        elif kind == "done":
            yield worker.tasks.popleft(), content
        elif kind == "failed":
            raise content
        else:
            task = worker.tasks[0][:3] if worker.tasks else "start"
            raise WorkerError(f"A worker hit a bug of khmer_ocr in task {task!r}. Please report it:\n{content}")

    def _replace(
        self, worker: _Worker, again: deque[Task], finished: Callable[[Task], Any | None]
    ) -> Iterator[tuple[Task, Any]]:
        """Start a new process for one that died; its tasks go first."""
        place = self._workers.index(worker)
        code, face = worker.end(DYING_S), worker.last_face
        del self._workers[place]
        task_id = worker.tasks[0][:3] if worker.tasks else ()
        self._deaths[task_id] += 1
        name = self._job.faces[face].name if face >= 0 else None
        what = f"Worker {worker.process.pid} died ({end_of(code)})"
        what += f" while handling font {name}" if name else ""
        what += "" if worker.ready else ", before it did anything"
        killed = code == -signal.SIGKILL
        if self._deaths[task_id] > (KILLS_ALLOWED if killed else DEATHS_ALLOWED):
            what += f", the {self._deaths[task_id]}. death on the same task"
            if killed:
                what += ". It was killed from outside, perhaps for want of memory: try fewer --workers"
            if face < 0 or -code not in OWN_CRASHES:
                raise WorkerError(f"{what}. Run the same command again: it goes on where it stopped.")
            raise FontCrashError(what, face)
        log.warning("%s; it is replaced", what)
        for task in worker.tasks:
            result = finished(task)
            if result is None:
                again.append(task)
            else:
                yield task, result
        self._workers.insert(place, _Worker(self._job))

"""Items made ahead of their use by one thread."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from khmer_ocr.errors import WorkerError

Item = TypeVar("Item")
_LOOK_S = 1.0
_JOIN_S, _JOIN_FAILED_S = 20.0, 5.0


class _Producer(Generic[Item]):
    """The thread, and the queue that it fills: (item,), then () at the end or what `make` raised."""

    def __init__(self, make: Iterator[Item], depth: int, on_full: Callable[[float], None] | None) -> None:
        self._make, self._on_full = make, on_full
        self.queue: queue.Queue[tuple[Item] | tuple[()] | BaseException] = queue.Queue(depth)
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._work, name="khmer_ocr reader", daemon=True)
        self.thread.start()

    def _put(self, item: tuple[Item] | tuple[()] | BaseException) -> bool:
        begin = time.perf_counter()
        while not self._stop.is_set():
            try:
                self.queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            if self._on_full is not None:
                self._on_full(time.perf_counter() - begin)
            return True
        return False

    def _work(self) -> None:
        try:
            if all(self._put((item,)) for item in self._make):
                self._put(())
        except BaseException as fault:  # handed on: the consumer raises it
            self._put(fault)
        finally:
            if (close := getattr(self._make, "close", None)) is not None:
                close()

    def get(self) -> tuple[Item] | tuple[()] | BaseException | None:
        """What comes next; None where nothing has come for a while."""
        with suppress(queue.Empty):
            return self.queue.get(timeout=_LOOK_S)
        if not self.thread.is_alive() and self.queue.empty():
            raise WorkerError(
                "The thread that reads batches is gone. A loop over batches can't go on in a forked process: "
                "begin it there, or call set_epoch and iterate anew."
            )
        return None

    def end(self, wait_s: float) -> None:
        """Stop the thread; one that stands still takes no more items, and ends with the process at the latest."""
        self._stop.set()
        self.thread.join(wait_s)


def ahead(
    make: Iterator[Item],
    depth: int,
    on_full: Callable[[float], None] | None = None,
    on_wait: Callable[[int], None] | None = None,
) -> Iterator[Item]:
    """Take items from an iterator in a thread, at most `depth` more than have been used.

    Args:
        make: what makes the items; it is driven, and closed, by the thread alone.
        depth: items waiting at most; 0 makes each when it is asked for, without a thread.
        on_full: called with the seconds for which the thread waited for room.
        on_wait: called with the thread's native id about once a second while no item comes; what it raises ends the
            wait.

    Yields:
        The same items; what `make` raises is raised here, in its turn. Closing this iterator ends the thread.

    Raises:
        WorkerError: the thread is gone and has not said why, as in a process that was forked from the one it ran in.
    """
    if depth < 1:
        yield from make
        return
    producer, wait_s = _Producer(make, depth, on_full), _JOIN_S
    try:
        while (found := producer.get()) != ():
            if isinstance(found, BaseException):
                raise found
            if found:
                yield found[0]
            elif on_wait is not None:
                wait_s = _JOIN_FAILED_S
                on_wait(producer.thread.native_id or 0)
                wait_s = _JOIN_S
    finally:
        producer.end(wait_s)

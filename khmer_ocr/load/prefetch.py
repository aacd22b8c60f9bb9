"""Items made ahead of their use by one thread."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from khmer_ocr.errors import WorkerError

Item = TypeVar("Item")
_END = object()
_LOOK_S = 1.0
_JOIN_S, _JOIN_FAILED_S = 20.0, 5.0


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
        on_full: is told the seconds for which the thread waited for room.
        on_wait: is told the thread's native id about once a second while no item comes; what it raises ends the wait.

    Yields:
        The same items; what `make` raises is raised here, in its turn. Closing this iterator ends the thread.

    Raises:
        WorkerError: the thread is gone and has not said why, as in a process that was forked from the one it ran in.
    """
    if depth < 1:
        yield from make
        return
    items: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: object, fault: BaseException | None = None) -> bool:
        begin = time.perf_counter()
        while not stop.is_set():
            try:
                items.put((item, fault), timeout=0.1)
            except queue.Full:
                continue
            if on_full is not None:
                on_full(time.perf_counter() - begin)
            return True
        return False

    def work() -> None:
        try:
            for item in make:
                if not put(item):
                    break
            else:
                put(_END)
        except BaseException as fault:  # handed on: the consumer raises it
            put(_END, fault)
        finally:
            close = getattr(make, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="khmer_ocr reader", daemon=True)
    thread.start()
    failed = False
    try:
        while True:
            try:
                item, fault = items.get(timeout=_LOOK_S)
            except queue.Empty:
                if not thread.is_alive() and items.empty():
                    raise WorkerError(
                        "The thread that reads batches is gone. A loop over batches can't go on in a forked process: "
                        "begin it there, or call set_epoch and iterate anew."
                    ) from None
                if on_wait is not None:
                    failed = True
                    on_wait(thread.native_id or 0)
                    failed = False
                continue
            if fault is not None:
                raise fault
            if item is _END:
                return
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        # One that stands still can't be waited for: it takes no more items, and ends with the process at the latest.
        thread.join(_JOIN_FAILED_S if failed else _JOIN_S)

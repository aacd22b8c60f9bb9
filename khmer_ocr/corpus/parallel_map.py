"""Blocks of lines drawn by several processes, in order: the parent's `parallel_map` and the child's program."""

import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from khmer_ocr.errors import WorkerError
from khmer_ocr.io.worker_process import DYING_S, WorkerProcess, end_of, parent_pipe


def parallel_map(write: Callable[[range], list[str]], blocks: Sequence[range], workers: int) -> Iterator[list[str]]:
    """Let processes write blocks of lines.

    Process w of W writes blocks w, w + W, ... and waits when its pipe is full, so that memory stays bounded.

    Args:
        write: writes the lines of some numbers; it is pickled for other processes.
        blocks: numbers of the lines of each block.
        workers: how many processes, at least 1.

    Yields:
        The lines of each block, in the order of `blocks`.

    Raises:
        WorkerError: a process died.
    """
    count = max(min(workers, len(blocks)), 1)
    task = pickle.dumps((write, blocks))
    with ExitStack() as stack:
        children = []
        for place in range(count):
            children.append(WorkerProcess(__name__, task, [str(place), str(count)]))
            stack.callback(children[-1].end)
        for number in range(len(blocks)):
            child = children[number % count]
            try:
                lines: list[str] = child.pipe.recv()
            except (EOFError, OSError):
                raise WorkerError(
                    f"A process that writes lines of text ended early ({end_of(child.end(DYING_S))}). "
                    "It may have been killed for want of memory: make fewer lines at a time, or start again."
                ) from None
            yield lines


def main() -> None:
    """Write every so many blocks, and send each as it is done."""
    pipe = parent_pipe()
    place, count = map(int, sys.argv[1:])
    write, blocks = pickle.load(sys.stdin.buffer)
    for numbers in blocks[place::count]:
        pipe.send(write(numbers))


if __name__ == "__main__":
    main()

"""Blocks of lines drawn by several processes, in order.

Plain subprocesses, as in `generate.local_executor`: a user's script needs no `__main__` guard. Process w of W
draws blocks w, w + W, ... and waits when its pipe is full, so that memory stays bounded.
"""

import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Protocol

from khmer_ocr.errors import WorkerError
from khmer_ocr.io.worker_process import child_environment, child_python

_COMMAND = child_python("khmer_ocr.corpus.parallel_map")
_LENGTH_BYTES = 8


class Drawer(Protocol):
    """Draws lines by number; it is pickled for other processes."""

    def block(self, numbers: range) -> list[str]:
        """Draw the lines of these numbers, none with a line end in it."""


def parallel_map(drawer: Drawer, blocks: Sequence[range], workers: int) -> Iterator[list[str]]:
    """Let processes draw blocks of lines.

    Args:
        drawer: what draws them.
        blocks: numbers of the lines of each block.
        workers: how many processes, at least 1.

    Yields:
        The lines of each block, in the order of `blocks`.

    Raises:
        WorkerError: a process died.
    """
    workers = max(min(workers, len(blocks)), 1)
    with ExitStack() as stack:
        pipes = []
        for number in range(workers):
            # A session of its own: Ctrl-C is the parent's business.
            process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=child_environment(),
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdin is not None and process.stdout is not None
            try:
                pickle.dump((drawer, blocks[number::workers]), process.stdin)
                process.stdin.close()
            except BrokenPipeError:
                raise _died(process) from None
            pipes.append((process, process.stdout))
        for number in range(len(blocks)):
            process, pipe = pipes[number % workers]
            yield _received(process, pipe)


def _received(process: "subprocess.Popen[bytes]", pipe: IO[bytes]) -> list[str]:
    length = pipe.read(_LENGTH_BYTES)
    expected = int.from_bytes(length, "little")
    body = pipe.read(expected)
    if len(length) < _LENGTH_BYTES or len(body) < expected:
        raise _died(process)
    return body.decode().split("\n")


def _died(process: "subprocess.Popen[bytes]") -> WorkerError:
    return WorkerError(
        f"A process that draws lines of text ended early (exit status {process.wait()}). "
        "It may have been killed for want of memory: make fewer lines at a time, or start again."
    )


def _serve() -> None:
    drawer, blocks = pickle.load(sys.stdin.buffer)
    for numbers in blocks:
        body = "\n".join(drawer.block(numbers)).encode()
        sys.stdout.buffer.write(len(body).to_bytes(_LENGTH_BYTES, "little") + body)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()

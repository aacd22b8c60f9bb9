"""The process that draws: chunks of texts come in through a pipe, files go out, the journal is told.

Run by `pool.Pool` as `python -m khmer_ocr.generate.render_worker FD`.
"""

import ctypes
import logging
import mmap
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from khmer_ocr.errors import KhmerOcrError
from khmer_ocr.generate.chunk_renderer import ChunkRenderer

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve tasks until the pipe closes; failures go back as (kind, message), never as silence."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe_fd, state_fd, parent = map(int, sys.argv[1:])
    if sys.platform == "linux":
        # A worker must not outlive a parent that was killed: the next start draws the same files.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    pipe, state = Connection(pipe_fd), mmap.mmap(state_fd, mmap.PAGESIZE)
    # Read ahead, or the parent would wait with its next task, which no pipe holds whole, until this one is done.
    inbox: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
    try:
        artist = ChunkRenderer(pipe.recv(), np.frombuffer(state, np.int32, count=1))
        artist.warm_up()
        pipe.send(("ready", os.getpid()))
        Thread(target=_fill, args=(pipe, inbox), daemon=True).start()
        while (task := inbox.get()) is not None:
            kind, *arguments = task
            if kind == "close":
                artist.close()
                return
            pipe.send(("done", getattr(artist, kind)(*arguments)))
    except (BrokenPipeError, ConnectionResetError, EOFError):
        return  # the parent is gone
    except (KhmerOcrError, OSError) as error:
        pipe.send(("failed", error))
    except Exception as error:
        pipe.send(("crashed", f"{error!r}\n{traceback.format_exc()}"))


def _fill(pipe: "Connection[Any, Any]", inbox: "SimpleQueue[tuple[Any, ...] | None]") -> None:
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        inbox.put(None)


if __name__ == "__main__":
    main()

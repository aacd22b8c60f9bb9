"""The process that draws: chunks of texts come in through a pipe, files go out, each chunk is committed to the journal.

Run by `local_executor.LocalExecutor`.
"""

import logging
import mmap
import os
import pickle
import sys
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from khmer_ocr.errors import KhmerOcrError
from khmer_ocr.generate.chunk_renderer import ChunkRenderer
from khmer_ocr.io.worker_process import parent_pipe


def main() -> None:
    """Serve tasks until the pipe closes; failures go back as (kind, message), never as silence."""
    pipe = parent_pipe()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    state = mmap.mmap(int(sys.argv[1]), mmap.PAGESIZE)
    # Read ahead, or the parent would wait with its next task, which no pipe holds whole, until this one is done.
    inbox: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
    try:
        renderer = ChunkRenderer(pickle.load(sys.stdin.buffer), np.frombuffer(state, np.int32, count=1))
        renderer.warm_up()
        pipe.send(("ready", os.getpid()))
        Thread(target=_fill, args=(pipe, inbox), daemon=True).start()
        while (task := inbox.get()) is not None:
            kind, *arguments = task
            if kind == "close":
                renderer.close()
                return
            pipe.send(("done", getattr(renderer, kind)(*arguments)))
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

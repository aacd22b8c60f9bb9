"""Child processes that may die: started safely, spoken to by a pipe, and ended with a word about how they died.

Plain subprocesses, not `multiprocessing`: a user's script needs no `__main__` guard. A child runs our modules and the
installed ones, never those of the current folder: Python looks there first, so that a `json.py` or `numpy.py` in a
folder of somebody's data would run. `-P` keeps it out, and an empty entry of `sys.path`, which means the same, is left
out too.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

OWN_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
"""Signals that a process gets for what it does itself; any other comes from outside, or from a limit."""
DYING_S = 10.0
"""What a child whose pipe is closed may take to end by itself, so that its own end is seen and not our SIGKILL."""
_PR_SET_PDEATHSIG = 1


class WorkerProcess:
    """A module of ours, run as `python -m` in a process of its own, which calls `parent_pipe` first.

    It has its own process group: Ctrl-C stops the parent, which ends its children.

    Args:
        module: the module.
        task: what it finds on standard input.
        arguments: what `parent_pipe` leaves in its `sys.argv[1:]`.
        pass_fds: descriptors that it inherits.
        environment: its environment, in which the places of our modules are filled in; None takes this process's.
        keep_stderr: keep its standard error for `last_words`, instead of showing it.

    Attributes:
        process: the process.
        pipe: our end of its pipe; both ends send and receive.
        last_words: once it has ended, the last line of what was kept of its standard error.
    """

    def __init__(
        self,
        module: str,
        task: bytes,
        arguments: Sequence[str] = (),
        *,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        keep_stderr: bool = False,
    ) -> None:
        self.pipe, theirs = Pipe()
        self.last_words = ""
        self._stderr = tempfile.TemporaryFile() if keep_stderr else None  # noqa: SIM115 (closed with this object)
        with theirs, tempfile.TemporaryFile() as stdin:  # a file never makes us wait for a child that is starting
            stdin.write(task)
            stdin.seek(0)
            self.process = subprocess.Popen(
                [*child_python(module), str(theirs.fileno()), str(os.getpid()), *arguments],
                pass_fds=(theirs.fileno(), *pass_fds),
                stdin=stdin,
                stderr=self._stderr,
                env=child_environment(environment),
                process_group=0,
            )

    def end(self, wait_s: float = 0.0) -> int:
        """Kill the process unless it ends by itself within `wait_s`, and close all it had; returns its exit code."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(wait_s)
        self.process.kill()
        self.pipe.close()
        code = self.process.wait()
        if self._stderr is not None and not self._stderr.closed:
            with self._stderr as stream:
                stream.seek(0)
                self.last_words = (stream.read().decode(errors="replace").strip().splitlines() or [""])[-1]
        return code


def parent_pipe() -> "Connection[Any, Any]":
    """Called first in a child of ours: its end of the pipe. From here on it ignores Ctrl-C and dies with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fd, parent = int(sys.argv.pop(1)), int(sys.argv.pop(1))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            raise SystemExit(0)  # it died before that
    return Connection(fd)


def end_of(code: int) -> str:
    """How a process ended, in words, from the return code that `subprocess` gives."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def child_python(module: str) -> list[str]:
    """Command that runs a module of ours, to be started with `child_environment`."""
    return [sys.executable, "-P", "-m", module]


def child_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment, this process's by default, in which modules are looked for where this process looks.

    The current folder is left out. The folders of our own packages come last: where they are known only as the current
    folder (`python -c` in a checkout), nothing there takes the place of an installed module.
    """
    places = [path for path in sys.path if path]
    for package in ("khmer_ocr", "khmer_ocr_kernels"):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            places.append(str(Path(spec.origin).resolve().parents[1]))
    return {**(os.environ if base is None else base), "PYTHONPATH": os.pathsep.join(dict.fromkeys(places))}

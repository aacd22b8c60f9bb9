"""How children of ours are started: with our modules and the installed ones, never with those of the current folder.

Python puts the current folder first where a module is looked for, so that a `json.py` or `numpy.py` in a folder of
somebody's data would run. `-P` keeps it out, and an empty entry of `sys.path`, which means the same, is left out too.
"""

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

OWN_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
"""Signals that a process gets for what it does itself; any other comes from outside, or from a limit."""


def child_python(module: str) -> list[str]:
    """Command that runs a module of ours, to be started with `child_environment`."""
    return [sys.executable, "-P", "-m", module]


def end_of(code: int) -> str:
    """How a process ended, in words, from the return code that `subprocess` gives."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def child_environment() -> dict[str, str]:
    """This process's environment; modules are looked for where this process looks, less the current folder.

    The folders of our own packages come last: where they are known only as the current folder (`python -c` in a
    checkout), nothing there takes the place of an installed module.
    """
    places = [path for path in sys.path if path]
    for package in ("khmer_ocr", "khmer_ocr_kernels"):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            places.append(str(Path(spec.origin).resolve().parents[1]))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places))}

"""The command `khmer-ocr` in the process of the tests: what it prints, how it ends, without a second's start."""

import io
import logging
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from khmer_ocr.cli import main


class Done(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


def khmer_ocr(*arguments: str | Path, cwd: Path, status: int = 0) -> Done:
    """Run a verb in a folder, and check its exit status; log lines are part of the standard error stream."""
    stdout, stderr, root, left = io.StringIO(), io.StringIO(), logging.getLogger(), 0
    handler, level = logging.StreamHandler(stderr), root.level
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with chdir(cwd), redirect_stdout(stdout), redirect_stderr(stderr):
            main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        assert isinstance(leaving.code, int)
        left = leaving.code
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    done = Done(stdout.getvalue(), stderr.getvalue())
    assert left == status, f"exit {left}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done

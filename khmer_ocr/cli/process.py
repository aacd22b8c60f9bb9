"""A command as a well-behaved process: its streams, and what becomes of an unforeseen error.

Texts and names are written as UTF-8 whatever the locale says, as the product's output is Khmer; a name that is no UTF-8
is written escaped. An output that can't be written is an error. No traceback reaches a user unasked: it goes to a file.
"""

import codecs
import io
import logging
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from khmer_ocr.errors import KhmerOcrError, OutputError, missing_extra_of

DEBUG_VARIABLE = "KHMER_OCR_DEBUG"
"""Set to anything, tracebacks are printed too."""
FAULT_STATUS = 70
"""Exit status after an unforeseen error (EX_SOFTWARE); 2 is that of errors of ours and of wrong usage."""
NAME_ERRORS = "khmer_ocr.names"
"""Error handler of UTF-8 for file names as Python has them: see `_name_bytes`."""
_UTF8_TRIED = "KHMER_OCR_UTF8"
"""Set in a process that `use_utf8` began, so that none begins for ever."""
_PACKAGE = Path(__file__).resolve().parents[1]


def _name_bytes(error: UnicodeError) -> tuple[bytes, int]:
    """Give the bytes of a name that Python could not decode: as they are if they are UTF-8, escaped if not."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    try:
        # Where the locale is ASCII, every name that is not comes so.
        name = text.encode("ascii", "surrogateescape")
        name.decode("utf-8")
    except UnicodeError:
        name = text.encode("ascii", "backslashreplace")
    return name, error.end


codecs.register_error(NAME_ERRORS, _name_bytes)


class _OutputClosedError(Exception):
    """The other end of the standard output was closed, as by `| head -n 1`: what is left to do is of no use."""


class _StandardOutput(io.FileIO):
    """File descriptor 1, whose faults are distinguished from those of other files."""

    failed = False

    def write(self, data: "bytes | memoryview", /) -> int:  # type: ignore[override]
        """Write bytes; after a fault has been raised nothing more is written."""
        if self.failed:
            return len(data)
        try:
            return super().write(data)
        except BrokenPipeError:
            self.failed = True
            raise _OutputClosedError from None
        except OSError as error:
            self.failed = True
            raise OutputError(
                f"standard output can't be written: {(error.strerror or str(error)).lower()}. What was said so far "
                "may be incomplete."
            ) from error


def use_utf8() -> None:
    """Begin this process again in Python's UTF-8 mode where the locale has another encoding.

    Names of files are bytes; under another encoding, Khmer ones would be other names in metadata and reports than they
    are under UTF-8. Processes that this one starts are in that mode too.
    """
    if sys.getfilesystemencoding() == "utf-8" or _UTF8_TRIED in os.environ:
        return
    environment = {**os.environ, "PYTHONUTF8": "1", _UTF8_TRIED: "1"}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)


def run_command(command: Callable[[], object], name: str = "khmer-ocr", stopped: str = "") -> None:
    """Run a command, and turn every error into a line on the standard error stream and an exit status.

    Args:
        command: what to do.
        name: what messages begin with.
        stopped: what to say after Ctrl-C.

    Raises:
        SystemExit: with what the command itself left with; 2 for nearly all errors of ours, 70 for unforeseen
            ones, 130 for Ctrl-C, 128 + its number for another signal that stopped training.
    """
    with _streams(name):
        status: int | str | None = None
        try:
            status = _outcome(command, name, stopped)
        except SystemExit as leaving:
            status = leaving.code
        # What was printed may still be in a buffer, and the place it goes to full.
        flushed = _outcome(sys.stdout.flush, name, stopped)
    if status or flushed:
        raise SystemExit(status or flushed)


def _outcome(command: Callable[[], object], name: str, stopped: str) -> int:
    """Run a part of a command; returns its exit status when it ends by an error, and says what it was."""
    try:
        command()
    except KhmerOcrError as error:
        _say(f"{name}: {error}")
        _say_traceback(error)
        return error.exit_status
    except KeyboardInterrupt:
        _say(f"\n{name}: stopped.{f' {stopped}' if stopped else ''}")
        return 130
    except _OutputClosedError:
        return 0
    except ImportError as error:
        missing = missing_extra_of(error, "this")
        _say(f"{name}: {missing}" if missing else _unforeseen(error, name))
        _say_traceback(error)
        return 2 if missing else FAULT_STATUS
    except Exception as error:
        _say(_unforeseen(error, name))
        _say_traceback(error)
        return FAULT_STATUS
    return 0


def _unforeseen(error: Exception, name: str) -> str:
    """Word an unforeseen error, and leave its traceback in a file."""
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    place = f" at {Path(own[-1].filename).relative_to(_PACKAGE.parent)}:{own[-1].lineno}" if own else ""
    report = _write_report(error)
    said = f"{type(error).__name__}: {error}".replace("\n", " ")
    said = f"{said:.500}{' ...' if len(said) > 500 else ''}"
    if isinstance(error, MemoryError):
        return f"{name}: memory ran out{place}. Give fewer workers or a smaller batch, or less at a time. {report}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name}: the system refused ({said}){place}. Mend that and run the same command again. {report}"
    return f"{name}: a fault of ours: {said}{place}. Please report it. {report}"


def _write_report(error: Exception) -> str:
    """Write all that a report needs into a new file of the user's own; returns a sentence that says where it is."""
    from khmer_ocr.version import __version__

    facts = [
        f"khmer_ocr {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"command: {sys.argv!r}",
        f"folder: {Path.cwd()}" if Path.cwd().is_dir() else "folder: gone",
    ]
    text = "\n".join([*facts, "", *traceback.format_exception(error)])
    try:
        handle, path = tempfile.mkstemp(prefix="khmer-ocr-error-", suffix=".txt")
        with open(handle, "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except OSError as fault:
        return f"{DEBUG_VARIABLE}=1 shows the traceback, which could not be written to a file ({fault.strerror})."
    return f"The traceback and what a report needs are in {path}"


def _say(line: str) -> None:
    # Where standard error is closed too, the exit status is all that is left.
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _say_traceback(error: BaseException) -> None:
    if DEBUG_VARIABLE in os.environ or logging.getLogger().isEnabledFor(logging.DEBUG):
        _say("".join(traceback.format_exception(error)))


@contextmanager
def _streams(name: str) -> Iterator[None]:
    """Make the standard streams UTF-8; closed ones are opened on nothing, or a file of ours would take their place.

    Raises:
        SystemExit: the standard output is closed: what a command says would be lost without a word.
    """
    closed = [descriptor for descriptor in (0, 1, 2) if not _is_open(descriptor)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None or 2 in closed:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors=NAME_ERRORS)
    if 1 in closed or sys.stdout is None:
        _say(f"{name}: standard output is closed. Give it a file, or /dev/null.")
        raise SystemExit(2)
    previous = sys.stdout
    if previous is not sys.__stdout__ or not isinstance(previous, io.TextIOWrapper):
        yield
        return
    previous.flush()
    raw = _StandardOutput(previous.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        raw if previous.write_through else io.BufferedWriter(raw),
        encoding="utf-8",
        errors=NAME_ERRORS,
        line_buffering=previous.line_buffering,
        write_through=previous.write_through,
    )
    try:
        yield
    finally:
        sys.stdout = previous


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True

"""What to say where the operating system refuses to write: one table for every stage."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from khmer_ocr.errors import KhmerOcrError, OutputError

_NO_FOLDER = "A file stands where a folder is expected: move it away"
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Make it writable"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), _NO_FOLDER),
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
}


def output_error(fault: Exception, place: str | Path, otherwise: str = "", then: str = "") -> OutputError:
    """Word a failure to write, and what to do about it.

    Args:
        fault: what Python raised; a full disk is called that whichever limit was reached.
        place: the file or folder that was written to.
        otherwise: what else can be done, e.g. "name another folder".
        then: a sentence on what becomes of the work.
    """
    code = fault.errno if isinstance(fault, OSError) else None
    advice = _ADVICE.get(code or 0, "Check it")
    reason = "No space left on device" if advice == _ADVICE[errno.ENOSPC] else getattr(fault, "strerror", None) or fault
    said = f"{place} can't be written: {reason}. {advice}{f', or {otherwise}' if otherwise else ''}. {then}"
    return OutputError(said.rstrip())


@contextmanager
def output_errors(place: str | Path, otherwise: str = "", then: str = "") -> Iterator[None]:
    """Turn what the operating system raises into what `output_error` says; errors of ours stay as they are."""
    try:
        yield
    except KhmerOcrError:
        raise
    except OSError as fault:
        raise output_error(fault, place, otherwise, then) from fault

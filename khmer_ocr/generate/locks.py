"""Advisory file locks that die with their process, on files that may be removed while somebody waits for them."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_ATTEMPTS = 100


def take(file: Path, *, wait: bool) -> int:
    """Lock a file, made if need be; the lock is on the file that has this name when the lock is had.

    Args:
        file: the lock file; its folder is made too.
        wait: wait for whoever holds it.

    Returns:
        A descriptor for `let_go`.

    Raises:
        BlockingIOError: somebody holds it and `wait` is False.
    """
    attempts = _ATTEMPTS
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except (FileNotFoundError, FileExistsError):
            # The folder was removed between two calls or within `mkdir`, or a file stands where it should be.
            attempts -= 1
            if not attempts:
                raise
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(fd, file):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_at(fd: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), file.stat())
    except FileNotFoundError:
        return False


def let_go(fd: int) -> None:
    """Unlock what `take` locked."""
    os.close(fd)


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold a lock, waiting for it."""
    fd = take(file, wait=True)
    try:
        yield
    finally:
        let_go(fd)


def held_by_others(files: Iterable[Path]) -> Iterator[Path]:
    """Those of some lock files that a process holds."""
    for file in files:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield file
        finally:
            os.close(fd)

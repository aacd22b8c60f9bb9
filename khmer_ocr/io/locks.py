"""Advisory file locks that die with their process, on files that may be removed while a process waits for them.

Where the file system has no locks (some NFS, Lustre, FUSE), a file made exclusively beside the lock file stands in: it
names its holder, which touches it while it lives. On the holder's own machine it is free as soon as that process is
gone; on another one, when it was not touched for `STALE_S`.

The package `filelock` (4.3.1) is not used: where the folder of a lock file is moved away, as a finished journal is,
between opening and locking, two processes hold the lock (it looks for links to the inode and not for the name, see
`test_a_lock_is_on_the_file_that_has_the_name`), and of the ways of having no locks it knows ENOSYS alone.
"""

import errno
import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)
STALE_S, TOUCH_S = 300.0, 20.0
"""A holder on another machine is taken for dead after so long; how often one that lives says so."""
HOLDER = ".holder"
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
_ATTEMPTS, _POLL_S = 100, 0.02
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True)
class Lock:
    """A lock that is held.

    Attributes:
        fd: the descriptor that a lock of the file system is on; -1 where there are none.
        holder: the file that stands in for one, or None.
        content: what it holds, by which its owner knows it.
        released: set when it is let go.
    """

    fd: int
    holder: Path | None = None
    content: bytes = b""
    released: threading.Event = field(default_factory=threading.Event)


def take(file: Path, *, wait: bool) -> Lock:
    """Lock a file, made if need be; the lock is on the file that has this name when the lock is had.

    Args:
        file: the lock file; its folder is made too. A symbolic link is not followed.
        wait: wait for the process that holds it.

    Returns:
        What `let_go` takes.

    Raises:
        BlockingIOError: another process holds it and `wait` is False.
    """
    attempts = _ATTEMPTS
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(file, _FLAGS | os.O_CREAT, 0o644)
        except (FileNotFoundError, FileExistsError):
            # The folder was removed between two calls or within `mkdir`, or a file stands where it should be.
            attempts -= 1
            if not attempts:
                raise
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(fd, file):
                return Lock(fd)
        except OSError as fault:
            os.close(fd)
            if fault.errno not in _NO_LOCKS:
                raise
            _warn_once(str(file.parent), fault.strerror)
            if (lock := _stand_in(file, wait=wait)) is not None:
                return lock
            continue
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_at(fd: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), file.stat())
    except FileNotFoundError:
        return False


def let_go(lock: Lock) -> None:
    """Unlock what `take` locked."""
    if lock.holder is None:
        os.close(lock.fd)
        return
    lock.released.set()
    # Its folder may have been taken away, and another be there by now with a holder of its own.
    with suppress(FileNotFoundError, NotADirectoryError):
        if _read(lock.holder) == lock.content:
            lock.holder.unlink()


@contextmanager
def sole(file: Path, refusal: Exception) -> Iterator[None]:
    """Hold a lock, its file made for this and removed after it; raises `refusal` where another process holds it."""
    try:
        lock = take(file, wait=False)
    except BlockingIOError as fault:
        raise refusal from fault
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        let_go(lock)


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold a lock, waiting for it."""
    lock = take(file, wait=True)
    try:
        yield
    finally:
        let_go(lock)


def held_by_others(files: Iterable[Path]) -> Iterator[Path]:
    """Those of some lock files that a process holds, this one included if it does."""
    for file in files:
        fd = os.open(file, _FLAGS)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield file
        except OSError as fault:
            if fault.errno not in _NO_LOCKS:
                raise
            if _is_held(_holder_of(file)):
                yield file
        finally:
            os.close(fd)


@cache
def _warn_once(folder: str, reason: str) -> None:
    log.warning(
        "%s lies on a file system without locks (%s): files that name their holder stand in for them. "
        "Where a holder on another machine died, wait %.0f minutes, or remove *%s.",
        folder,
        reason,
        STALE_S / 60,
        HOLDER,
    )


def _holder_of(file: Path) -> Path:
    return file.with_name(file.name + HOLDER)


def _stand_in(file: Path, *, wait: bool) -> Lock | None:
    """Take a lock by making its holder's file; None where its folder went meanwhile."""
    holder = _holder_of(file)
    content = json.dumps({**_whoami(), "token": secrets.token_hex(8)}).encode()
    while True:
        try:
            fd = os.open(holder, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:
            return None
        except FileExistsError:
            if _is_held(holder):
                if not wait:
                    raise BlockingIOError(errno.EWOULDBLOCK, "held by another process", str(holder)) from None
                time.sleep(_POLL_S)
            continue
        with open(fd, "wb") as stream:
            stream.write(content)
        lock = Lock(-1, holder, content)
        threading.Thread(target=_touch, args=(lock,), name="touches a lock", daemon=True).start()
        return lock


def _is_held(holder: Path) -> bool:
    """Whether a holder lives; the file of one that is dead is taken away."""
    try:
        content = _read(holder)
        if _lives(holder, content):
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    # Renamed first: if another process was faster, this is its file and not the dead one's, and goes back.
    aside = holder.with_name(f".{holder.name}.{secrets.token_hex(8)}")
    with suppress(FileNotFoundError):
        holder.rename(aside)
        if _read(aside) != content:
            with suppress(FileExistsError):
                os.link(aside, holder)
            aside.unlink()
            return True
        aside.unlink()
    return False


def _lives(holder: Path, content: bytes) -> bool:
    me = _whoami()
    try:
        them = json.loads(content)
        same_machine, pid, started = them["machine"] == me["machine"], int(them["pid"]), them["started"]
    except (ValueError, KeyError, TypeError):
        return _idle_s(holder) < TOUCH_S  # not written yet, or damaged
    if not same_machine:
        return _idle_s(holder) < STALE_S
    with suppress(PermissionError):  # it lives, and is another user's
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return bool(started == _started(pid))


def _read(file: Path) -> bytes:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(fd, "rb") as stream:
        return stream.read(1 << 12)


def _idle_s(holder: Path) -> float:
    """For how long a holder's file was not touched, by the clock of the file server, which need not be ours."""
    probe = holder.with_name(f".{holder.name}.{secrets.token_hex(8)}")
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644))
    try:
        return probe.stat().st_mtime - holder.lstat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _whoami() -> dict[str, object]:
    pid = os.getpid()
    return {"machine": _machine(), "pid": pid, "started": _started(pid)}


@cache
def _machine() -> str:
    """Where numbers of processes mean something: a host since its last start, and in it a container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _started(pid: int) -> str:
    """When a process was started, which differs where a number was given anew; "" where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "dead" if fields[0] in "ZX" else fields[19]


def _touch(lock: Lock) -> None:
    """Say again and again, until it is let go, that the holder of a lock lives."""
    assert lock.holder is not None
    while not lock.released.wait(TOUCH_S):
        with suppress(FileNotFoundError):
            os.utime(lock.holder, follow_symlinks=False)

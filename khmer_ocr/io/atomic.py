"""Files that are whole or not there, written and removed without ever following a symbolic link.

A file is made beside its place under a fresh name and moved there, so that a reader never sees half of it and a file
with a second name (a hard link) keeps its bytes under that one. Below a root (the folder of a data set, a corpus, a
cache, checkpoints) nothing is written or removed through a link: one in a data set from elsewhere could lead anywhere.
The root itself, as it was given, may be one.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from khmer_ocr.errors import OutputError
from khmer_ocr.io.os_errors import output_errors

FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags of a file that must not have been there: `O_EXCL` refuses links too, wherever they lead."""
_MODE = 0o666  # less what the umask takes away, as for any file that a program makes


def refuse_links(root: Path, *paths: Path) -> None:
    """Refuse paths that are symbolic links, or lie behind one, below `root`.

    Args:
        root: the folder as it was given; whether it is a link itself is its owner's business.
        paths: files or folders under it, which need not exist.

    Raises:
        OutputError: one is or lies behind a link, or is not under `root` as it is spelt.
    """
    for path in paths:
        parts = path.parts[len(root.parts) :]
        if path.parts[: len(root.parts)] != root.parts or ".." in parts:
            raise OutputError(f"{path} does not lie in {root}; nothing is written or removed there.")
        place = root
        for part in parts:
            place = place / part
            if place.is_symlink():
                raise OutputError(
                    f"{place} is a symbolic link (to {os.fspath(place.readlink())!r}). Inside {root} nothing is "
                    "written or removed through links. Put the files themselves there, or choose another folder."
                )


def make_folder(root: Path, folder: Path) -> None:
    """Make a folder under `root`, and `root`, where they do not exist; see `refuse_links`."""
    refuse_links(root, folder)
    folder.mkdir(parents=True, exist_ok=True)


def remove_file(root: Path, file: Path) -> None:
    """Remove a file under `root` if it is there; see `refuse_links`."""
    refuse_links(root, file)
    file.unlink(missing_ok=True)


def remove_folder(root: Path, folder: Path) -> None:
    """Remove a folder under `root` and all in it, if it is there; links in it go and what they lead to stays.

    Raises:
        OutputError: it is a link or lies behind one.
        OSError: something in it can't be removed.
    """
    refuse_links(root, folder)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        if folder.exists():
            raise


def create_fresh(path: str | Path, mode: int = _MODE, dir_fd: int | None = None) -> int:
    """Open a new file for writing; whatever had its name loses that name and nothing else.

    Args:
        path: the file.
        mode: its permissions, less the umask.
        dir_fd: an open folder that `path` is relative to.

    Returns:
        The descriptor.
    """
    try:
        return os.open(path, FRESH, mode, dir_fd=dir_fd)
    except FileExistsError:
        os.unlink(path, dir_fd=dir_fd)
    return os.open(path, FRESH, mode, dir_fd=dir_fd)


def partial_of(path: Path, tag: str = "") -> Path:
    """The name a file has until it is whole."""
    return path.with_name(f".{path.name}{'.' if tag else ''}{tag}.partial")


@contextmanager
def replacing(path: Path, root: Path | None = None, *, tag: str | None = None) -> Iterator[Path]:
    """Give a fresh empty file beside `path` to write to; it takes that place, unless something is raised.

    Args:
        path: the file to be made or replaced, in a folder that exists.
        root: folder below which no link may be on the way to `path`; None trusts the folder that `path` names. A link
            at `path` itself is then replaced, and what it leads to is left alone.
        tag: part of the temporary name; None takes one that nobody else has. With "" the name is always the same, so
            that what a killed process left is taken away by the next one that does its work.

    Raises:
        OutputError: see `refuse_links`.
    """
    if root is not None:
        refuse_links(root, path)
    partial = partial_of(path, secrets.token_hex(8) if tag is None else tag)
    os.close(create_fresh(partial))
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def replace(path: Path, data: bytes, root: Path | None = None, *, tag: str | None = None) -> None:
    """Write a whole file; see `replacing`."""
    with replacing(path, root, tag=tag) as partial:
        partial.write_bytes(data)


def write_output(path: Path, content: bytes) -> None:
    """Write a file that somebody asked for.

    Raises:
        OutputError: it can't be written; what was there before still is.
    """
    with output_errors(path, "give a file in a folder that exists"):
        replace(path, content)

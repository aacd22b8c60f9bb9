"""Checks of names and symbolic links inside a data set; every path that is read or written passes them.

Names that stand in metadata are plain, splits that are written or removed are ours, and what is read lies under the
root: a symbolic link is followed only while it stays there, so that trees kept as links by content-addressed stores go
on working. Writing and removing never follow one; that half is `khmer_ocr.io.atomic`.
"""

import errno
import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.repair_advice import advice_to_repair
from khmer_ocr.errors import DatasetError
from khmer_ocr.io.atomic import refuse_links

MAX_FILE_BYTES = 1 << 27
"""More than any line image or label has."""
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def is_plain_name(name: str) -> bool:
    """Whether a name can only mean something in the folder it is looked up in."""
    return name not in ("", ".", "..") and not any(char in name for char in "/\\\0")


def safe_name(name: str, where: str | Path) -> str:
    """Refuse a file name that could lead out of the folder it belongs to.

    Args:
        name: file name as it stands in the metadata.
        where: the file that holds the name, for the message.

    Returns:
        The same name.

    Raises:
        DatasetError: the name is empty, is "." or "..", or holds a slash, a backslash or a NUL.
    """
    if not is_plain_name(name):
        raise DatasetError(
            f"{where}: {name!r} is not a plain file name. Names must not lead out of their folder; "
            "this data set was damaged or tampered with."
        )
    return name


def own_split(name: str, where: str | Path) -> str:
    """Refuse the name of a split that this project does not draw, before anything is written or removed there.

    Args:
        name: as it stands in the metadata.
        where: the file that holds the name, for the message.

    Returns:
        The same name.

    Raises:
        DatasetError: it is not one of `layout.SPLITS`.
    """
    if name not in layout.SPLITS:
        raise DatasetError(
            f"{where} names a split {name!r}; splits that are drawn are {', '.join(layout.SPLITS)}. Nothing was "
            "written or removed: this data set was damaged or tampered with."
        )
    return name


def refuse_links_of(root: Path, splits: Iterable[str]) -> None:
    """Refuse a data set whose folders and metadata are links, before any of them is written to.

    Files within are looked at when their turn comes; `refuse_links` says what is allowed.

    Raises:
        OutputError: one is a symbolic link.
    """
    refuse_links(root, root / layout.GENERATION_METADATA, root / layout.JOURNAL)
    for split in splits:
        folder = root / own_split(split, root)
        refuse_links(root, *(folder / name for name in _PARTS))


_PARTS = (layout.SPLIT_METADATA, layout.IMAGES, layout.LABELS, layout.SHARDS)


def is_contained(root: Path, path: str | Path) -> bool:
    """Whether `path`, its links followed, lies under `root`; one that does not exist is judged by its name."""
    return Path(path).resolve().is_relative_to(root.resolve())


def check_contained(root: Path, path: str | Path) -> None:
    """Raise `DatasetError` where a symbolic link takes `path` out of `root`; a path that does not exist passes."""
    try:
        contained = is_contained(root, path)
    except (OSError, RuntimeError) as fault:  # a link that leads to itself
        raise DatasetError(f"{path} is a symbolic link that leads nowhere ({fault}).") from fault
    if not contained:
        raise DatasetError(f"{path} leads out of {root} through a symbolic link. Copy the files into the data set.")


def open_contained(root: Path, path: str | Path) -> io.BufferedReader:
    """Open a plain file under `root` for reading; a symbolic link is followed only while it stays under `root`.

    Only the last component is examined here: `check_contained` guards the folders once for a whole split.
    """
    try:
        try:
            descriptor = os.open(path, _READ | os.O_NOFOLLOW)
        except OSError as fault:
            if fault.errno != errno.ELOOP:
                raise
            check_contained(root, path)
            descriptor = os.open(path, _READ)
    except FileNotFoundError as fault:
        raise DatasetError(f"{path} is missing. {advice_to_repair(root)}") from fault
    except OSError as fault:
        raise DatasetError(f"{path} cannot be opened: {fault.strerror}.") from fault
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DatasetError(f"{path} is not a plain file.")
    return open(descriptor, "rb")


def read_contained(root: Path, path: str | Path) -> bytes:
    """Read a whole file under `root`; see `open_contained`."""
    with open_contained(root, path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise DatasetError(f"{path} has {size} bytes, more than any line image or label ({MAX_FILE_BYTES}).")
        try:
            return file.read()
        except OSError as fault:
            raise DatasetError(f"{path} cannot be read: {fault.strerror}.") from fault

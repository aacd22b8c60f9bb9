"""Every byte and every name below a folder, so that a test can say that nothing there was touched."""

import os
import stat
from pathlib import Path


def everything(folder: Path) -> dict[str, tuple[object, ...]]:
    """Name to kind, permissions and bytes (of a link: where it leads) of all that lies below a folder."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = os.fspath(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[os.fspath(path.relative_to(folder))] = (status.st_mode, status.st_nlink, content)
    return found

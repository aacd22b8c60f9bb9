"""Files that are whole or not there: written beside their place, then moved to it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from khmer_ocr.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; what is written there takes its place, unless something is raised.

    Args:
        path: the file to be made or replaced, in a folder that exists.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_output(path: Path, content: bytes) -> None:
    """Write a file that somebody asked for.

    Raises:
        OutputError: it can't be written; what was there before still is.
    """
    try:
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path} can't be written ({error}). Give a file in a folder that exists.") from error

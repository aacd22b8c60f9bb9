"""Inputs named by a URL (https://, s3://, memory:// ...), which fsspec finds and opens."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeAlias, cast

from khmer_ocr.errors import CorpusError


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL, as much like a `Path` as the readers ask for; `size_bytes` is 0 where it is not known."""

    url: str
    size_bytes: int = 0

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the path, without a query."""
        return re.split(r"\?|::", self.url)[0].rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The last suffix of the name."""
        return PurePosixPath(self.name).suffix

    def open(self) -> IO[bytes]:
        """Open it for reading from its start, in pieces."""
        file_system, path = _file_system(self.url)
        return cast(IO[bytes], file_system.open(path, "rb"))


InputPath: TypeAlias = Path | RemoteFile


def size_bytes(file: InputPath) -> int:
    """Bytes of a file before decompression."""
    return file.stat().st_size if isinstance(file, Path) else file.size_bytes


def unreadable(file: InputPath | str, error: Exception) -> CorpusError:
    """Word a failure to open or read a file."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    todo = "Check the file and its permissions." if isinstance(file, Path) else "Check the address and the network."
    return CorpusError(f"{file} cannot be read: {reason}. {todo}")


def find_remote_files(url: str) -> list[RemoteFile]:
    """The file behind a URL, or the files below it where it is a folder, in sorted order.

    Raises:
        CorpusError: the scheme is unknown or needs a package that is missing, or nothing can be read there.
    """
    file_system, path = _file_system(url)
    try:
        entry = file_system.info(path)
        if entry["type"] != "directory":
            return [RemoteFile(url if "::" in url else file_system.unstrip_protocol(path), entry.get("size") or 0)]
        below = sorted(file_system.find(path, detail=True).items())
        return [RemoteFile(file_system.unstrip_protocol(name), entry.get("size") or 0) for name, entry in below]
    except Exception as error:  # what a file system of fsspec raises has no common base
        raise unreadable(url, error) from error


def _file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        return cast(tuple[Any, str], url_to_fs(url))
    except (ImportError, ValueError) as error:
        raise CorpusError(
            f"{url} can't be opened: {error}. Install what fsspec needs for {url.partition('://')[0]}:// "
            "(https://: pip install 'fsspec[http]'), or fetch the file and name your copy."
        ) from error

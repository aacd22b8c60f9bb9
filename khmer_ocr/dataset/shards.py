"""Tar shards: where their members lie, and the bytes of one member."""

import io
import mmap
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from khmer_ocr.dataset.paths import open_contained
from khmer_ocr.errors import DatasetError

TAR_BLOCK = 512


def tar_members(root: Path, path: str | Path) -> dict[str, tuple[int, int]]:
    """Find where each member of a tar shard lies, from its headers alone.

    Args:
        root: the data set's root, which the shard must not leave.
        path: an uncompressed tar file.

    Returns:
        Member name to (offset, size), both in bytes, in the order of the tar.

    Raises:
        DatasetError: missing, not a tar, cut short, or it names a member twice.
    """
    with open_contained(root, path) as file:
        if not os.fstat(file.fileno()).st_size:
            raise DatasetError(f"{path} is empty (0 bytes).")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            found = list(_plain_members(view, path) or _any_members(file, path, len(view)))
    members = {name: (offset, size) for name, offset, size in found}
    if len(members) != len(found):
        raise DatasetError(f"{path} names a member twice.")
    return members


def _plain_members(view: mmap.mmap, path: str | Path) -> list[tuple[str, int, int]] | None:
    """Walk a tar of plain ustar files, 40 times faster than `tarfile`; None when it holds anything else."""
    found, at = [], 0
    while len(header := view[at : at + TAR_BLOCK]) == TAR_BLOCK and any(header[:1]):
        if header[257:262] != b"ustar" or header[156:157] not in b"0\0" or header[345]:
            return None
        try:
            size, checksum = (int(header[a:b].strip(b"\0 "), 8) for a, b in ((124, 136), (148, 156)))
            name = header[:100].rstrip(b"\0").decode()
        except ValueError:
            return None
        if size < 0:
            return None
        if sum(header) - sum(header[148:156]) + 8 * 32 != checksum:
            raise DatasetError(f"{path} is damaged: the tar header at byte {at} fails its checksum.")
        offset = at + TAR_BLOCK
        at = offset + -(-size // TAR_BLOCK) * TAR_BLOCK
        found.append((name.removeprefix("./"), offset, size))
    if at + TAR_BLOCK > len(view) or any(header):
        raise DatasetError(f"{path} is cut short: {len(view)} bytes, and no end-of-archive mark there.")
    return found


def _any_members(file: io.BufferedReader, path: str | Path, file_size: int) -> Iterator[tuple[str, int, int]]:
    """Walk any tar (GNU or PAX headers, long names) by the standard library."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.offset_data + member.size > file_size:
                    raise DatasetError(f"{path} is cut short within its member {member.name!r}.")
                if member.isreg():
                    yield member.name.removeprefix("./"), member.offset_data, member.size
    except (tarfile.TarError, OSError, ValueError) as fault:
        raise DatasetError(f"{path} is not a readable tar: {fault}.") from fault


def read_member(root: Path, path: str | Path, offset: int, size: int) -> bytes:
    """Read `size` bytes of a shard from `offset` on."""
    with open_contained(root, path) as file:
        data = os.pread(file.fileno(), size, offset)
    if len(data) != size:
        raise DatasetError(f"{path} is cut short: {len(data)} of {size} bytes at byte {offset}.")
    return data

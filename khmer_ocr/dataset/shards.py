"""Tar shards: where their members lie, the bytes of one member, the blocks and the index that make a shard."""

import io
import mmap
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from khmer_ocr.dataset.paths import open_contained
from khmer_ocr.errors import DatasetError
from khmer_ocr.io.atomic import replace

TAR_BLOCK = 512
TAR_END = b"\0" * 2 * TAR_BLOCK


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
        if (member := _plain_header(header)) is None:
            return None
        name, size, whole = member
        if not whole:
            raise DatasetError(f"{path} is damaged: the tar header at byte {at} fails its checksum.")
        offset = at + TAR_BLOCK
        at = offset + -(-size // TAR_BLOCK) * TAR_BLOCK
        found.append((name, offset, size))
    if at + TAR_BLOCK > len(view) or any(header):
        raise DatasetError(f"{path} is cut short: {len(view)} bytes, and no end-of-archive mark there.")
    return found


def _plain_header(header: bytes) -> tuple[str, int, bool] | None:
    """Name and size in bytes of a plain ustar file, and whether its header has its checksum; None for other headers."""
    if header[257:262] != b"ustar" or header[156:157] not in b"0\0" or header[345]:
        return None
    try:
        size, checksum = (int(header[a:b].strip(b"\0 "), 8) for a, b in ((124, 136), (148, 156)))
        name = header[:100].rstrip(b"\0").decode().removeprefix("./")
    except ValueError:
        return None
    return None if size < 0 else (name, size, sum(header) - sum(header[148:156]) + 8 * 32 == checksum)


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


def tar_header(name: str, size: int) -> bytes:
    """A ustar header (POSIX.1-1988) of a plain file without owner or time: equal content gives equal bytes."""
    # Mode, owner and group: seven octal digits each. Written out, "\0" before a digit would read as an octal escape.
    rights = b"".join(b"%07o\0" % number for number in (0o644, 0, 0))
    sizes = b"%011o\0%011o\0" % (size, 0)
    kind = b"0".ljust(101, b"\0") + b"ustar\x0000"
    head = b"".join((name.encode("ascii").ljust(100, b"\0"), rights, sizes, b" " * 8, kind)).ljust(TAR_BLOCK, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def member_block(name: str, data: bytes) -> bytes:
    """A member as it stands in a tar: header, bytes, and zeros to the end of the last block."""
    return tar_header(name, len(data)) + data + b"\0" * (-len(data) % TAR_BLOCK)


def write_shard(root: Path, tar: Path, members: Mapping[str, tuple[bytes, int]]) -> int:
    """Write a shard, then its index, each whole or not at all.

    Args:
        root: the data set's folder.
        tar: where it belongs.
        members: name to the member as it stands in a tar (see `member_block`) and the size of its content in bytes.

    Returns:
        The tar's bytes.
    """
    places, offset = dict[str, tuple[int, int]](), 0
    for name, (block, size) in members.items():
        places[name] = offset + TAR_BLOCK, size
        offset += len(block)
    # The same temporary name each time: what a killed process left goes when its chunk is drawn again.
    replace(tar, b"".join([block for block, _ in members.values()] + [TAR_END]), root, tag="")
    replace(tar.with_suffix(".idx"), dali_index(places), root, tag="")
    return offset + len(TAR_END)


def dali_index(members: Mapping[str, tuple[int, int]]) -> bytes:
    """Write the index of a shard in DALI's format v1.2.

    Args:
        members: name to (offset, size) as in the tar, the members of a sample one after the other.

    Returns:
        A line a sample: suffix, offset, size and name of each of its members.
    """
    lines: dict[str, list[str]] = {}
    for name, (offset, size) in members.items():
        stem, _, suffix = name.rpartition(".")
        lines.setdefault(stem, []).append(f"{suffix} {offset} {size} {name}")
    return f"v1.2 {len(lines)}\n{''.join(' '.join(entries) + chr(10) for entries in lines.values())}".encode()


def index_fault(index: bytes, members: Mapping[str, tuple[int, int]]) -> str | None:
    """What is wrong with a shard's index, of version 1.1 (without names) or 1.2; None where it fits its shard."""
    try:
        head, *lines = index.decode().splitlines()
        version, count = head.split()
        width = {"v1.1": 3, "v1.2": 4}[version]
        entries = [parts[at : at + width] for parts in map(str.split, lines) for at in range(0, len(parts), width)]
        places = [(entry[0], (int(entry[1]), int(entry[2])), entry[3:]) for entry in entries]
    except (ValueError, KeyError, IndexError):
        return "is no index of a shard"
    if int(count) != len(lines):
        return f"says {count} samples and lists {len(lines)}"
    by_place = {place: name for name, place in members.items()}
    for suffix, place, name in places:
        member = by_place.get(place, "")
        if not member.endswith(f".{suffix}") or (name and name[0].removeprefix("./") != member):
            return f"names {' '.join([suffix, *map(str, place), *name])!r}, which does not lie there"
    missing = len(members) - len({place for _, place, _ in places})
    return f"leaves out {missing} members of its shard" if missing else None


def salvaged_members(data: bytes) -> dict[str, tuple[int, int]]:
    """Find the members of a tar that may be damaged or cut: every header that is whole, and all its bytes.

    Args:
        data: the whole file.

    Returns:
        Name to (offset, size) of plain files; of two with one name, the first.
    """
    found, at = dict[str, tuple[int, int]](), 0
    while at + TAR_BLOCK <= len(data):
        name, size, whole = _plain_header(data[at : at + TAR_BLOCK]) or ("", 0, False)
        at += TAR_BLOCK
        end = at + -(-size // TAR_BLOCK) * TAR_BLOCK
        if whole and end <= len(data):
            found.setdefault(name, (at, size))
            at = end
    return found

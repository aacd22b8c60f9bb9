"""Archives of packages: out of a folder, from an address in the environment, or by a package client; read in memory."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from time import monotonic
from urllib.error import HTTPError
from urllib.request import urlopen

from khmer_ocr.errors import FontError
from khmer_ocr.fonts.catalogue import PackageEntry
from khmer_ocr.fonts.package_clients import PackageClients
from khmer_ocr.io.decompression import DAMAGED, OPENERS

ADDRESSES = {"npm": "KHMER_OCR_NPM", "debian": "KHMER_OCR_DEBIAN"}
"""Environment variables with the base address of a registry or mirror to ask instead of the package clients."""
LICENCES = {"npm": "package/LICENSE", "debian": "usr/share/doc/{name}/copyright"}
_LIMIT_BYTES = 64 << 20  # ten times the largest archive of the catalogue, unpacked
_SILENCE_S = 30.0


def fetch(
    package: PackageEntry, folder: Path, clients: PackageClients, archives: Path | None = None
) -> tuple[str, bytes]:
    """Name and content of a package's archive.

    Args:
        package: the package, of npm or Debian.
        folder: empty folder that a package client may fill.
        clients: the package clients, used where neither `archives` nor an address is given.
        archives: a folder that holds archives.

    Raises:
        FontError: there is no such archive, or it could not be had.
    """
    bare, name, version = package.slug, package.name, package.version
    if archives is not None:
        patterns = {
            "npm": (f"{name.lstrip('@').replace('/', '-')}-{version}.tgz", f"{bare}-{version}.tgz"),
            # Releases of Debian differ in the package's version while the fonts stay the same; their sha256 decides.
            "debian": (f"{name}_{version}_*.deb", f"{name}_*.deb"),
        }[package.source]
        for pattern in patterns:
            for file in sorted(archives.glob(pattern)):
                return file.name, file.read_bytes()
        by_hand = {"npm": f"npm pack {name}@{version}", "debian": f"apt-get download {name}"}[package.source]
        raise FontError(f"{archives} holds no {' or '.join(patterns)}. Make it where that works: {by_hand}")
    if base := os.environ.get(ADDRESSES[package.source]):
        path = {
            "npm": f"{name}/-/{bare}-{version}.tgz",
            "debian": f"pool/main/{name[0]}/{name}/{name}_{version}_all.deb",
        }[package.source]
        url = f"{base.rstrip('/')}/{path}"
        return path.rpartition("/")[2], _download(url, ADDRESSES[package.source], clients)
    file = clients.download(package, folder)
    return file.name, file.read_bytes()


def _download(url: str, variable: str, clients: PackageClients) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise FontError(f"{variable} gives {url}; an address that begins with http:// or https:// is expected")
    deadline_s, content = monotonic() + clients.timeout_s, bytearray()
    try:
        with urlopen(url, timeout=min(clients.timeout_s, _SILENCE_S)) as reply:
            while piece := reply.read1(1 << 16):
                content += piece
                clients.check_running()
                if len(content) > _LIMIT_BYTES:
                    raise FontError(f"{url} gives more than {_LIMIT_BYTES} bytes; it is not the package expected")
                if monotonic() > deadline_s:
                    raise TimeoutError(f"not done within {clients.timeout_s:g} s")
    except HTTPError as error:
        error.close()
        raise FontError(f"{url} was answered by {error.code} ({error.reason}). Check {variable}") from error
    except (OSError, HTTPException) as error:
        raise FontError(f"{url} could not be fetched: {error}. Try again, or check {variable}") from error
    return bytes(content)


def read_members(archive: bytes, expected: set[str], origin: str) -> dict[str, bytes]:
    """Read the named plain files of a .tgz or .deb; nothing is written and no other member is looked into.

    Args:
        archive: content of the archive.
        expected: names of its members to read.
        origin: its name, whose suffix says what it is.

    Raises:
        FontError: it is damaged, unpacks to more than 64 MiB, or a member is missing or no plain file.
    """
    tar = _tar_of(archive, origin)
    if len(tar) > _LIMIT_BYTES:
        raise FontError(f"{origin} unpacks to more than {_LIMIT_BYTES} bytes; it is not the package that was expected")
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as members:
            for member in members:
                name = member.name.removeprefix("./")
                if name not in expected:
                    continue
                stream = members.extractfile(member) if member.isreg() and member.size <= len(tar) else None
                if stream is None:
                    raise FontError(f"{origin}: {name} is not a plain file. Do not use this archive")
                found[name] = stream.read()
    except tarfile.TarError as error:
        raise FontError(f"{origin} is damaged: {error}. Try again") from error
    missing = sorted(expected - found.keys())
    if missing:
        raise FontError(f"{origin} has no {', '.join(missing)}. Compare its contents with fonts.toml")
    return found


def _tar_of(archive: bytes, origin: str) -> bytes:
    """The tar in an archive, at most one byte more than the limit."""
    opener: Callable[..., object] = gzip.open
    try:
        if origin.endswith(".deb"):
            member, archive = _data_of_deb(archive)
            opener = OPENERS.get(Path(member).suffix, io.BufferedReader)
        with opener(io.BytesIO(archive)) as stream:  # type: ignore[attr-defined]
            return bytes(stream.read(_LIMIT_BYTES + 1))
    except (*DAMAGED, ValueError) as error:
        raise FontError(
            f"{origin} is damaged: {error}. Clear the client's cache (npm cache clean --force), then try again"
        ) from error


def _data_of_deb(deb: bytes) -> tuple[str, bytes]:
    """Name and content of a Debian package's files: the member data.tar.* of an ar archive."""
    at = len(b"!<arch>\n")
    while deb.startswith(b"!<arch>\n") and at + 60 <= len(deb):
        name, size = deb[at : at + 16].decode("ascii").rstrip(" /"), int(deb[at + 48 : at + 58])
        if name.startswith("data.tar"):
            return name, deb[at + 60 : at + 60 + size]
        at += 60 + max(size, 0) + size % 2
    raise ValueError("it is no Debian package")

"""The ordinary package clients: run, ended in time, and made to fetch one archive of a package, read in memory."""

import gzip
import io
import os
import signal
import subprocess
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from khmer_ocr.errors import FontError
from khmer_ocr.fonts.catalogue import PackageEntry

_ARCHIVE_LIMIT_BYTES = 64 << 20  # ten times the largest archive of the catalogue, unpacked
_MISSING_CLIENT = {
    "npm": "Install Node.js, which brings npm",
    "apt-cache": "This package comes from Debian or Ubuntu only; on other systems name the packages you want",
    "apt-get": "This package comes from Debian or Ubuntu only; on other systems name the packages you want",
    "dpkg-deb": "Install the package dpkg",
}


class PackageClients:
    """Runs the package clients; none outlives its time limit or the install that started it."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._live: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._guard = threading.Lock()
        self._apt_lists = threading.Lock()
        self._apt_updated = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill what runs and start nothing more."""
        with self._guard:
            self._stopped = True
            live = list(self._live)
        for process in live:
            _kill(process)

    def run(self, command: Sequence[str], folder: Path) -> bytes:
        """Run a client in a folder and return what it printed, at most one byte more than the limit of an archive."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            process = self._start(command, folder, output, complaints)
            try:
                status = process.wait(self._timeout_s)
            except subprocess.TimeoutExpired as error:
                _kill(process)
                process.wait()
                raise FontError(f"{' '.join(command)} did not end within {self._timeout_s:g} s. Try again") from error
            finally:
                with self._guard:
                    self._live.discard(process)
            if status != 0:
                complaints.seek(0)
                said = " ".join(complaints.read().decode(errors="replace").split())[-600:]
                raise FontError(f"{' '.join(command)} failed with status {status}: {said}")
            output.seek(0)
            return output.read(_ARCHIVE_LIMIT_BYTES + 1)

    def _start(self, command: Sequence[str], folder: Path, out: IO[bytes], err: IO[bytes]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "LC_ALL": "C"}
        with self._guard:
            if self._stopped:
                raise FontError("the install was interrupted")
            try:
                # A session of its own, so that a client's children (npm starts node) can be killed with it.
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise FontError(f"{command[0]} was not found. {_MISSING_CLIENT[command[0]]}") from error
            except PermissionError as error:
                raise FontError(f"{command[0]} cannot be run: {error.strerror}") from error
            self._live.add(process)
        return process

    def debian_versions(self, name: str, folder: Path) -> list[str]:
        """List the versions of a Debian package that apt can fetch; fetch apt's lists once if it knows none."""
        versions = self._known_versions(name, folder)
        if not versions:
            with self._apt_lists:
                if not self._apt_updated and not (versions := self._known_versions(name, folder)):
                    if os.geteuid() != 0:
                        raise FontError(f"apt knows no package {name}. Run: sudo apt-get update")
                    self.run(("apt-get", "update"), folder)
                    self._apt_updated = True
            versions = versions or self._known_versions(name, folder)
        if not versions:
            raise FontError(
                f"no package source of this system offers {name}. Add one of Debian's, or name the packages you want"
            )
        return versions

    def _known_versions(self, name: str, folder: Path) -> list[str]:
        """Read `apt-cache madison`: a line "name | version | source" for each version."""
        lines = self.run(("apt-cache", "madison", name), folder).decode().splitlines()
        return [columns[1].strip() for columns in (line.split("|") for line in lines) if len(columns) == 3]


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # it may have ended in the meantime
        os.killpg(process.pid, signal.SIGKILL)


def _fetch_npm(package: PackageEntry, folder: Path, clients: PackageClients) -> tuple[str, bytes]:
    expected = f"{package.name}@{package.version}"
    clients.run(("npm", "pack", "--ignore-scripts", "--loglevel=error", expected), folder)
    archive = _only_file(folder, "*.tgz", expected)
    try:
        with gzip.open(archive) as stream:
            return archive.name, stream.read(_ARCHIVE_LIMIT_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FontError(
            f"{archive.name} is damaged: {error}. Clear the cache (npm cache clean --force), then try again"
        ) from error


def _fetch_debian(package: PackageEntry, folder: Path, clients: PackageClients) -> tuple[str, bytes]:
    versions = clients.debian_versions(package.name, folder)
    # Releases of Debian differ in the package's version while the fonts stay the same; their sha256 decides.
    expected = f"{package.name}={package.version}" if package.version in versions else package.name
    clients.run(("apt-get", "download", expected), folder)
    archive = _only_file(folder, "*.deb", expected)
    return archive.name, clients.run(("dpkg-deb", "--fsys-tarfile", archive.name), folder)


def _only_file(folder: Path, pattern: str, expected: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise FontError(f"the download of {expected} left {len(found)} files {pattern}, 1 was expected")
    return found[0]


LICENCE_AND_FETCH = {
    "npm": ("package/LICENSE", _fetch_npm),
    "debian": ("usr/share/doc/{name}/copyright", _fetch_debian),
}


def read_members(tar: bytes, expected: set[str], origin: str) -> dict[str, bytes]:
    """Read the named plain files of a tar; nothing is written and no other member is looked into."""
    if len(tar) > _ARCHIVE_LIMIT_BYTES:
        raise FontError(
            f"{origin} unpacks to more than {_ARCHIVE_LIMIT_BYTES} bytes; it is not the package that was expected"
        )
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name not in expected:
                    continue
                stream = archive.extractfile(member) if member.isreg() and member.size <= len(tar) else None
                if stream is None:
                    raise FontError(f"{origin}: {name} is not a plain file. Do not use this archive")
                found[name] = stream.read()
    except tarfile.TarError as error:
        raise FontError(f"{origin} is damaged: {error}. Try again") from error
    missing = sorted(expected - found.keys())
    if missing:
        raise FontError(f"{origin} lacks {', '.join(missing)}. Compare its contents with fonts.toml")
    return found

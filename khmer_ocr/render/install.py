"""Fetch the fonts of the catalogue by the ordinary package clients, check every byte, and put them in place.

A folder `fonts/<package>/` belongs to this module: it appears whole or not at all, and is replaced whole. Archives are
read in memory and only the members that the catalogue names are written, under the catalogue's names: what else an
archive holds has no effect.
"""

import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Literal

from tqdm import tqdm

from khmer_ocr.errors import ConfigError, FontError, OutputError
from khmer_ocr.render.catalogue import Catalogue, FileEntry, PackageEntry, load_catalogue

RECORD = ".installed.json"
_WORKSHOP = ".installing"
_AT_ONCE = 4
_ARCHIVE_LIMIT_BYTES = 64 << 20  # ten times the largest archive of the catalogue, unpacked
_KHMER_KA = 0x1780
_MISSING_CLIENT = {
    "npm": "Install Node.js, which brings npm",
    "apt-cache": "This package comes from Debian or Ubuntu only; on other systems leave it out (--only)",
    "apt-get": "This package comes from Debian or Ubuntu only; on other systems leave it out (--only)",
    "dpkg-deb": "Install the package dpkg",
}


@dataclass(frozen=True)
class InstallReport:
    """What became of each package: newly installed, in place before, or failed with its reason."""

    installed: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()


def install_fonts(
    destination: Path = Path("fonts"),
    *,
    only: Sequence[str] = (),
    progress: bool = True,
    catalogue: Catalogue | None = None,
    timeout_s: float = 300.0,
) -> InstallReport:
    """Install the catalogue's fonts; what is there already, with the right bytes, is not fetched again.

    Args:
        destination: folder that gets one folder per package.
        only: packages to install, by package name, its last part, or a family name; empty means all.
        progress: show a bar on a terminal.
        catalogue: what to install; None means the project's own catalogue.
        timeout_s: time limit in seconds of each call of a package client.

    Returns:
        What was installed and what was in place; `failed` is empty.

    Raises:
        ConfigError: `only` names something that the catalogue does not have.
        OutputError: the destination cannot be written.
        FontError: at least one package failed (the others are in place), or another install runs in that folder.
    """
    chosen = _select(load_catalogue() if catalogue is None else catalogue, only)
    outcome: dict[str, str] = {}
    failed: dict[str, str] = {}
    with _workshop(destination) as workshop, _Clients(timeout_s) as clients, ThreadPoolExecutor(_AT_ONCE) as pool:
        jobs = {pool.submit(_install_package, package, destination, workshop, clients): package for package in chosen}
        try:
            for job in tqdm(as_completed(jobs), "fonts", len(jobs), unit="package", disable=None if progress else True):
                name = jobs[job].name
                try:
                    outcome[name] = job.result()
                except (FontError, OSError) as error:
                    failed[name] = str(error)
        except BaseException:  # Ctrl-C: without this the pool would wait for downloads that nobody wants any more
            pool.shutdown(wait=False, cancel_futures=True)
            clients.stop()
            raise
    names = [package.name for package in chosen]
    report = InstallReport(
        installed=tuple(name for name in names if outcome.get(name) == "installed"),
        present=tuple(name for name in names if outcome.get(name) == "present"),
        failed=tuple((name, failed[name]) for name in names if name in failed),
    )
    if report.failed:
        raise FontError(_describe(report))
    return report


def _describe(report: InstallReport) -> str:
    total = len(report.installed) + len(report.present) + len(report.failed)
    reasons = "".join(f"\n  {name}: {reason}" for name, reason in report.failed)
    return (
        f"{len(report.failed)} of {total} font packages could not be installed ({len(report.installed)} installed, "
        f"{len(report.present)} in place before). Run the same command again once the cause is gone.{reasons}"
    )


def _select(catalogue: Catalogue, only: Sequence[str]) -> list[PackageEntry]:
    if not only:
        return list(catalogue.packages)
    wanted = {name.casefold() for name in only}
    names = {
        package: {name.casefold() for name in (package.name, package.slug, *package.families)}
        for package in catalogue.packages
    }
    unknown = wanted.difference(*names.values())
    if unknown:
        known = ", ".join(package.slug for package in catalogue.packages)
        raise ConfigError(f"no font package or family is called {', '.join(sorted(unknown))}. Known packages: {known}")
    return [package for package in catalogue.packages if names[package] & wanted]


@contextmanager
def _workshop(destination: Path) -> Iterator[Path]:
    """Lock the destination and lend an empty folder inside it, so that finished work is moved by a rename."""
    workshop = destination / _WORKSHOP
    try:
        destination.mkdir(parents=True, exist_ok=True)
        handle = os.open(destination, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"cannot write fonts to {destination}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise FontError(f"another install is at work in {destination}; wait for it to end") from error
    try:
        # Under the lock, whatever lies there was left by an install that was killed.
        shutil.rmtree(workshop, ignore_errors=True)
        try:
            workshop.mkdir()
        except OSError as error:
            raise OutputError(f"cannot write fonts to {destination}: {error.strerror}") from error
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        os.close(handle)


def _install_package(
    package: PackageEntry, destination: Path, workshop: Path, clients: "_Clients"
) -> Literal["installed", "present"]:
    if package.source == "pypi":
        _check_distribution(package)
        return "present"
    target = destination / package.slug
    if _is_installed(package, target):
        return "present"
    if target.exists() and not (target / RECORD).is_file():
        raise FontError(f"{target} exists but was not made by this command. Move it away, then run the command again")
    room = workshop / package.slug
    archive_folder, new = room / "archive", room / "new"
    archive_folder.mkdir(parents=True)
    new.mkdir()
    licence, fetch = _LICENCE_AND_FETCH[package.source]
    licence = licence.format(name=package.name)
    origin, tar = fetch(package, archive_folder, clients)
    contents = _read_members(tar, {licence, *(entry.member for entry in package.files)}, origin)
    for entry in package.files:
        _check_sha256(entry, contents[entry.member], origin)
    own = {face.file for face in package.faces}
    record = {}
    for entry in package.files:
        font = _as_ttf(contents[entry.member], entry)
        if entry.file in own:
            _check_khmer(font, entry.file)
        (new / entry.file).write_bytes(font)
        record[entry.file] = _seal(entry, font)
    (new / Path(licence).name).write_bytes(contents[licence])
    (new / RECORD).write_text(json.dumps({"version": package.version, "archive": origin, "files": record}, indent=1))
    _swap(new, target, room / "old")
    return "installed"


def _swap(new: Path, target: Path, old: Path) -> None:
    if target.exists():
        target.replace(old)
    try:
        new.replace(target)
    except OSError:
        if old.exists():
            old.replace(target)
        raise


def _is_installed(package: PackageEntry, folder: Path) -> bool:
    """Tell whether the folder holds this version, from sources with the right bytes, and undamaged since."""
    try:
        record = json.loads((folder / RECORD).read_text())
        return bool(record["version"] == package.version) and all(
            record["files"][entry.file] == _seal(entry, (folder / entry.file).read_bytes()) for entry in package.files
        )
    except (OSError, ValueError, KeyError, TypeError):  # no record, or a damaged one: install anew
        return False


def _seal(entry: FileEntry, font: bytes) -> dict[str, str]:
    return {"source_sha256": entry.sha256, "sha256": hashlib.sha256(font).hexdigest()}


def _check_distribution(package: PackageEntry) -> None:
    """Check a font that pip installs; a version other than the catalogue's is pip's choice and not judged here."""
    try:
        distribution = metadata.distribution(package.name)
    except metadata.PackageNotFoundError as error:
        wanted = f"{package.name}=={package.version}"
        raise FontError(f"not installed in this Python. Run: python -m pip install {wanted}") from error
    if distribution.version == package.version:
        for entry in package.files:
            data = Path(str(distribution.locate_file(entry.member))).read_bytes()
            _check_sha256(entry, data, f"{package.name} {package.version}")


def _fetch_npm(package: PackageEntry, folder: Path, clients: "_Clients") -> tuple[str, bytes]:
    wanted = f"{package.name}@{package.version}"
    clients.run(("npm", "pack", "--ignore-scripts", "--loglevel=error", wanted), folder)
    archive = _only_file(folder, "*.tgz", wanted)
    try:
        with gzip.open(archive) as stream:
            return archive.name, stream.read(_ARCHIVE_LIMIT_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FontError(
            f"{archive.name} is damaged: {error}. Clear the cache (npm cache clean --force), then try again"
        ) from error


def _fetch_debian(package: PackageEntry, folder: Path, clients: "_Clients") -> tuple[str, bytes]:
    versions = clients.debian_versions(package.name, folder)
    # Releases of Debian differ in the package's version while the fonts stay the same; their sha256 decides.
    wanted = f"{package.name}={package.version}" if package.version in versions else package.name
    clients.run(("apt-get", "download", wanted), folder)
    archive = _only_file(folder, "*.deb", wanted)
    return archive.name, clients.run(("dpkg-deb", "--fsys-tarfile", archive.name), folder)


_LICENCE_AND_FETCH = {
    "npm": ("package/LICENSE", _fetch_npm),
    "debian": ("usr/share/doc/{name}/copyright", _fetch_debian),
}


def _only_file(folder: Path, pattern: str, wanted: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise FontError(f"the download of {wanted} left {len(found)} files {pattern}, 1 was wanted")
    return found[0]


def _read_members(tar: bytes, wanted: set[str], origin: str) -> dict[str, bytes]:
    """Read the named plain files of a tar; nothing is written and no other member is looked into."""
    if len(tar) > _ARCHIVE_LIMIT_BYTES:
        raise FontError(
            f"{origin} unpacks to more than {_ARCHIVE_LIMIT_BYTES} bytes; it is not the package that was wanted"
        )
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name not in wanted:
                    continue
                stream = archive.extractfile(member) if member.isreg() and member.size <= len(tar) else None
                if stream is None:
                    raise FontError(f"{origin}: {name} is not a plain file. Do not use this archive")
                found[name] = stream.read()
    except tarfile.TarError as error:
        raise FontError(f"{origin} is damaged: {error}. Try again") from error
    missing = sorted(wanted - found.keys())
    if missing:
        raise FontError(f"{origin} lacks {', '.join(missing)}. Compare its contents with fonts.toml")
    return found


def _check_sha256(entry: FileEntry, data: bytes, origin: str) -> None:
    seen = hashlib.sha256(data).hexdigest()
    if seen != entry.sha256:
        raise FontError(
            f"{entry.member} in {origin} has sha256 {seen}, wanted {entry.sha256}. "
            "It was not installed; fonts.toml is right unless the package was published anew"
        )


def _as_ttf(data: bytes, entry: FileEntry) -> bytes:
    """Turn a woff2 into a ttf, the same bytes each time: fontTools would otherwise stamp the time of the conversion."""
    if not entry.member.endswith(".woff2"):
        return data
    from fontTools.ttLib import TTFont, TTLibError

    out = io.BytesIO()
    try:
        with TTFont(io.BytesIO(data), recalcBBoxes=False, recalcTimestamp=False) as font:
            font.flavor = None
            font.save(out)
    except TTLibError as error:
        raise FontError(f"{entry.member} is no woff2 font: {error}") from error
    return out.getvalue()


def _check_khmer(font: bytes, file_name: str) -> None:
    import uharfbuzz

    if _KHMER_KA not in uharfbuzz.Face(font).unicodes:
        raise FontError(f"{file_name} does not map U+1780, so it has no Khmer. Take it out of fonts.toml")


class _Clients:
    """Runs the package clients; none outlives its time limit or the install that started it."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._live: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._guard = threading.Lock()
        self._apt_lists = threading.Lock()
        self._apt_updated = False

    def __enter__(self) -> "_Clients":
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
                f"no package source of this system offers {name}. Add one of Debian's, or leave it out (--only)"
            )
        return versions

    def _known_versions(self, name: str, folder: Path) -> list[str]:
        """Read `apt-cache madison`: a line "name | version | source" for each version."""
        lines = self.run(("apt-cache", "madison", name), folder).decode().splitlines()
        return [columns[1].strip() for columns in (line.split("|") for line in lines) if len(columns) == 3]


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # it may have ended in the meantime
        os.killpg(process.pid, signal.SIGKILL)

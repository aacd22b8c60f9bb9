"""Fetch the fonts of the catalogue, check every byte, and put them in place.

A folder `fonts/<package>/` belongs to this module: it appears whole or not at all, and is replaced whole. Archives are
read in memory and only the members that the catalogue names are written, under the catalogue's names: what else an
archive holds has no effect.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from khmer_ocr.errors import ConfigError, FontError
from khmer_ocr.fonts.catalogue import Catalogue, FileEntry, PackageEntry, load_catalogue
from khmer_ocr.fonts.font_files import as_opentype
from khmer_ocr.fonts.package_archives import LICENCES, fetch, read_members
from khmer_ocr.fonts.package_clients import PackageClients
from khmer_ocr.io import locks
from khmer_ocr.io.os_errors import output_errors

RECORD = ".installed.json"
_STAGING = ".installing"
_LOCK = ".install.lock"
_AT_ONCE = 4
_KHMER_KA = 0x1780
_FEW = 6
"""So many packages get a line each in the report."""


@dataclass(frozen=True)
class InstallReport:
    """What became of each package: newly installed, in place before, or failed with its reason.

    Attributes:
        installed: names of packages fetched and put in place now.
        present: names of packages that were in place.
        failed: names and reasons.
        destination: the folder that holds them; packages of pip lie in this Python instead.
        files: how many font files that draw Khmer the packages in place have.
        families: of how many families.
    """

    installed: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    destination: Path = field(default=Path("fonts"), compare=False)
    files: int = field(default=0, compare=False)
    families: int = field(default=0, compare=False)

    def __str__(self) -> str:
        states = {"installed": self.installed, "in place before": self.present}
        total = sum(map(len, states.values()))
        lines = [
            f"Font packages in {self.destination}",
            *(f"  {state:<15} {len(names):>4}" for state, names in states.items()),
            f"  {'font files':<15} {self.files:>4}",
            f"  {'families':<15} {self.families:>4}",
        ]
        if total <= _FEW:
            width = max((len(name) for names in states.values() for name in names), default=0)
            lines += [f"  {name:<{width}}  {state}" for state, names in states.items() for name in names]
        where = "" if self.destination == Path("fonts") else f" --fonts-dir {self.destination}"
        return "\n".join([*lines, f"Next: khmer-ocr fonts check{where}"])


def install_fonts(
    destination: Path = Path("fonts"),
    *,
    only: Sequence[str] = (),
    progress: bool = True,
    catalogue: Catalogue | None = None,
    archives: Path | None = None,
    timeout_s: float = 300.0,
) -> InstallReport:
    """Install the catalogue's fonts; what is there already, with the right bytes, is not fetched again.

    Args:
        destination: folder that gets one folder per package.
        only: packages to install, by package name, its last part, or a family name; empty means all.
        progress: show a bar on a terminal.
        catalogue: what to install; None means the project's own catalogue.
        archives: folder of archives (.tgz of npm, .deb) to install from, instead of fetching them.
        timeout_s: time limit in seconds of each call of a package client, and of each download.

    Returns:
        What was installed and what was in place; `failed` is empty.

    Raises:
        ConfigError: `only` names something that the catalogue does not have, or `archives` is no folder.
        OutputError: the destination cannot be written.
        FontError: at least one package failed (the others are in place), or another install runs in that folder.
    """
    chosen = _select(load_catalogue() if catalogue is None else catalogue, only)
    if archives is not None and not archives.is_dir():
        raise ConfigError(f"{archives} is no folder. Name one that holds archives (.tgz of npm, .deb)")
    outcome: dict[str, str] = {}
    failed: dict[str, str] = {}
    with (
        _staging_folder(destination) as staging,
        PackageClients(timeout_s) as clients,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        jobs = {
            pool.submit(_install_package, package, destination, staging, clients, archives): package
            for package in chosen
        }
        try:
            for job in tqdm(as_completed(jobs), "fonts", len(jobs), unit="package", disable=None if progress else True):
                name = jobs[job].name
                try:
                    outcome[name] = job.result()
                except (FontError, OSError) as error:
                    failed[name] = str(error)
        except BaseException:  # Ctrl-C: without this the pool would wait for downloads that are no longer needed
            pool.shutdown(wait=False, cancel_futures=True)
            clients.stop()
            raise
    names = [package.name for package in chosen]
    faces = [face for package in chosen if package.name in outcome for face in package.faces]
    report = InstallReport(
        installed=tuple(name for name in names if outcome.get(name) == "installed"),
        present=tuple(name for name in names if outcome.get(name) == "present"),
        failed=tuple((name, failed[name]) for name in names if name in failed),
        destination=destination,
        files=len(faces),
        families=len({face.family for face in faces}),
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
    asked = {name.casefold() for name in only}
    names = {
        package: {name.casefold() for name in (package.name, package.slug, *package.families)}
        for package in catalogue.packages
    }
    unknown = asked.difference(*names.values())
    if unknown:
        known = ", ".join(package.slug for package in catalogue.packages)
        raise ConfigError(f"no font package or family is called {', '.join(sorted(unknown))}. Known packages: {known}")
    return [package for package in catalogue.packages if names[package] & asked]


@contextmanager
def _staging_folder(destination: Path) -> Iterator[Path]:
    """Lock the destination and lend an empty folder inside it, so that finished work is moved by a rename."""
    staging_root = destination / _STAGING
    refusal = FontError(f"another install is at work in {destination}; wait for it to end")
    with ExitStack() as stack:
        with output_errors(destination, "name another folder for fonts"):
            destination.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locks.sole(destination / _LOCK, refusal))
            # Under the lock, whatever lies there was left by an install that was killed.
            shutil.rmtree(staging_root, ignore_errors=True)
            staging_root.mkdir()
        stack.callback(shutil.rmtree, staging_root, ignore_errors=True)
        yield staging_root


def _install_package(
    package: PackageEntry, destination: Path, staging_root: Path, clients: PackageClients, archives: Path | None
) -> Literal["installed", "present"]:
    if package.source == "pypi":
        _check_distribution(package)
        return "present"
    target = destination / package.slug
    if _is_installed(package, target):
        return "present"
    if target.exists() and not (target / RECORD).is_file():
        raise FontError(f"{target} exists but was not made by this command. Move it away, then run the command again")
    staging = staging_root / package.slug
    archive_folder, new = staging / "archive", staging / "new"
    archive_folder.mkdir(parents=True)
    new.mkdir()
    licence = LICENCES[package.source].format(name=package.name)
    origin, archive = fetch(package, archive_folder, clients, archives)
    contents = read_members(archive, {licence, *(entry.member for entry in package.files)}, origin)
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
    _swap(new, target, staging / "old")
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
        pinned = f"{package.name}=={package.version}"
        raise FontError(f"not installed in this Python. Run: python -m pip install {pinned}") from error
    if distribution.version == package.version:
        for entry in package.files:
            data = Path(str(distribution.locate_file(entry.member))).read_bytes()
            _check_sha256(entry, data, f"{package.name} {package.version}")


def _check_sha256(entry: FileEntry, data: bytes, origin: str) -> None:
    seen = hashlib.sha256(data).hexdigest()
    if seen != entry.sha256:
        raise FontError(
            f"{entry.member} in {origin} has sha256 {seen}, expected {entry.sha256}. "
            "It was not installed; fonts.toml is right unless the package was published anew"
        )


def _as_ttf(data: bytes, entry: FileEntry) -> bytes:
    """Turn a woff2 into a ttf; any other file as it is."""
    if not entry.member.endswith(".woff2"):
        return data
    from fontTools.ttLib import TTLibError

    try:
        return as_opentype(data)
    except TTLibError as error:
        raise FontError(f"{entry.member} is no woff2 font: {error}") from error


def _check_khmer(font: bytes, file_name: str) -> None:
    import uharfbuzz

    if _KHMER_KA not in uharfbuzz.Face(font).unicodes:
        raise FontError(f"{file_name} does not map U+1780, so it has no Khmer. Take it out of fonts.toml")

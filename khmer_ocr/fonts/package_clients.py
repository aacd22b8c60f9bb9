"""The ordinary package clients: run, ended in time, and made to fetch one archive of a package."""

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from khmer_ocr.errors import FontError
from khmer_ocr.fonts.catalogue import PackageEntry

_MISSING_CLIENT = {
    "npm": "Install Node.js, which brings npm",
    "apt-cache": "This package comes from Debian or Ubuntu only; on other systems name the packages you want",
    "apt-get": "This package comes from Debian or Ubuntu only; on other systems name the packages you want",
}


class PackageClients:
    """Runs the package clients; none outlives its time limit or the install that started it."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
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

    def check_running(self) -> None:
        """Raise FontError once `stop` was called."""
        if self._stopped:
            raise FontError("the install was interrupted")

    def run(self, command: Sequence[str], folder: Path) -> bytes:
        """Run a client in a folder and return what it printed."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            process = self._start(command, folder, output, complaints)
            try:
                status = process.wait(self.timeout_s)
            except subprocess.TimeoutExpired as error:
                _kill(process)
                process.wait()
                raise FontError(f"{' '.join(command)} did not end within {self.timeout_s:g} s. Try again") from error
            finally:
                with self._guard:
                    self._live.discard(process)
            if status != 0:
                complaints.seek(0)
                said = " ".join(complaints.read().decode(errors="replace").split())[-600:]
                raise FontError(f"{' '.join(command)} failed with status {status}: {said}")
            output.seek(0)
            return output.read()

    def _start(self, command: Sequence[str], folder: Path, out: IO[bytes], err: IO[bytes]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "LC_ALL": "C"}
        with self._guard:
            self.check_running()
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
                todo = f"{_MISSING_CLIENT[command[0]]}, or name a folder of archives with --from"
                raise FontError(f"{command[0]} was not found. {todo}") from error
            except PermissionError as error:
                raise FontError(f"{command[0]} cannot be run: {error.strerror}") from error
            self._live.add(process)
        return process

    def download(self, package: PackageEntry, folder: Path) -> Path:
        """Have the client of its registry fetch a package's archive into an empty folder."""
        if package.source == "npm":
            chosen = f"{package.name}@{package.version}"
            self.run(("npm", "pack", "--ignore-scripts", "--loglevel=error", chosen), folder)
        else:
            versions = self._debian_versions(package.name, folder)
            # Releases of Debian differ in the package's version while the fonts stay the same; their sha256 decides.
            chosen = f"{package.name}={package.version}" if package.version in versions else package.name
            self.run(("apt-get", "download", chosen), folder)
        found = sorted(folder.glob("*.tgz" if package.source == "npm" else "*.deb"))
        if len(found) != 1:
            raise FontError(f"the download of {chosen} left {len(found)} files, 1 was expected")
        return found[0]

    def _debian_versions(self, name: str, folder: Path) -> list[str]:
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

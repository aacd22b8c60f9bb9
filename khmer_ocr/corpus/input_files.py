"""Files and folders as a user names them, to the files that are read; what is passed over is counted and named.

Links are followed, to files and to folders, each of which is read once, so that links that lead in circles end. A path
that the system refuses costs that path only.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from khmer_ocr.corpus.remote_files import InputPath, find_remote_files
from khmer_ocr.corpus.text_streams import COMPRESSIONS
from khmer_ocr.errors import CorpusError

FORMATS = (".txt", ".jsonl", ".parquet", ".xml")
_SHOWN = 3


@dataclass
class InputFiles:
    """What `scan_input_files` found.

    Attributes:
        files: those of known format, each once, in the order they will be read.
        folders: real path of every folder that was walked, to the path it was reached by.
        passed_over: why files in folders are not read, to these files.
        unreadable: what the system refused, one message each.
    """

    files: list[InputPath] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)
    passed_over: dict[str, list[InputPath]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def notes(self) -> Iterator[str]:
        """Say what was passed over, a sentence a reason."""
        for reason, paths in self.passed_over.items():
            names = ", ".join(path.name for path in paths[:_SHOWN]) + (" ..." if len(paths) > _SHOWN else "")
            yield f"Passed over {reason}: {len(paths)} file(s) in the input folders ({names})."
        for message in self.unreadable[:_SHOWN]:
            yield f"Left out: {message}"
        if len(self.unreadable) > _SHOWN:
            yield f"Left out as well: {len(self.unreadable) - _SHOWN} more path(s) that can't be read."


def scan_input_files(paths: Iterable[InputPath | str]) -> InputFiles:
    """List the files to read: files as they are given, folders walked in sorted order, links followed.

    Args:
        paths: files or folders, also as URLs that fsspec can open; in folders, files of unknown suffix, hidden ones,
            and what is no file are passed over.

    Raises:
        CorpusError: a path does not exist, a file named on its own has an unknown suffix, or a folder holds
            nothing to read.
    """
    inputs = InputFiles()
    taken: set[str] = set()
    for name in map(str, paths):
        if "://" in name and not name.startswith("file://"):
            inputs.files += [file for file in _remote_inputs(name, inputs) if file not in inputs.files]
            continue
        path = Path(unquote(name.removeprefix("file://")) if name.startswith("file://") else name)
        unreadable = len(inputs.unreadable)
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise CorpusError(f"{path} is a link to {path.readlink()}, which does not exist.") from None
            where = f"the current folder is {Path.cwd()}"
            raise CorpusError(f"{path} does not exist. Check the spelling; {where}.") from None
        except (OSError, ValueError) as error:
            inputs.unreadable.append(_refused(path, error))
            continue
        if stat.S_ISDIR(mode):
            found = list(_walk(path, inputs))
            if not found and unreadable == len(inputs.unreadable):
                raise CorpusError(" ".join([f"{path} holds no file to read. {known_formats()}", *inputs.notes()]))
        elif not stat.S_ISREG(mode):
            raise CorpusError(f"{path} is neither a file nor a folder. Save its content to a file and name that.")
        elif not format_of(path):
            raise CorpusError(
                f"{path} is of unknown format {''.join(path.suffixes[-2:]) or '(no suffix)'}. {known_formats()}"
            )
        else:
            found = [(path, os.path.realpath(path))] if _readable(path, inputs) else []
        for file, real in found:
            if real not in taken:
                taken.add(real)
                inputs.files.append(file)
    return inputs


def _remote_inputs(url: str, inputs: InputFiles) -> list[InputPath]:
    found: list[InputPath] = []
    for file in find_remote_files(url):
        if not file.name.startswith(".") and format_of(file):
            found.append(file)
        else:
            reason = "as hidden" if file.name.startswith(".") else "for their unknown format"
            inputs.passed_over.setdefault(reason, []).append(file)
    if not found:
        raise CorpusError(" ".join([f"{url} holds no file to read. {known_formats()}", *inputs.notes()]))
    return found


def find_input_files(paths: Iterable[InputPath | str]) -> list[InputPath]:
    """List the files to read, and let none that can't be read pass.

    Args:
        paths: files or folders, see `scan_input_files`.

    Raises:
        CorpusError: as `scan_input_files`, or a path can't be read.
    """
    inputs = scan_input_files(paths)
    if inputs.unreadable:
        raise CorpusError(inputs.unreadable[0])
    return inputs.files


def known_formats() -> str:
    """Say in a sentence what can be read."""
    return f"Known are {', '.join(FORMATS)}, each also with {', '.join(COMPRESSIONS)}."


def format_of(path: InputPath) -> str:
    """Return the suffix of the format, without the one of the compression; "" when unknown."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    suffix = Path(name).suffix
    return suffix if suffix in FORMATS else ""


def _walk(top: Path, inputs: InputFiles) -> Iterator[tuple[Path, str]]:
    """Give the files to read under a folder, with their real paths; of a folder its files come first."""
    walked: set[str] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in walked:
            continue
        walked.add(real)
        inputs.folders.setdefault(real, folder)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            inputs.unreadable.append(_refused(folder, error))
            continue
        folders = []
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                inputs.passed_over.setdefault("as hidden", []).append(path)
                continue
            kind = _kind_of(entry, path, inputs)
            if kind == "folder":
                folders.append(path)
            elif kind == "input" and _readable(path, inputs):
                yield path, os.path.realpath(path) if entry.is_symlink() else f"{real}/{entry.name}"
        waiting += reversed(folders)


def _kind_of(entry: "os.DirEntry[str]", path: Path, inputs: InputFiles) -> str:
    """What an entry is: "folder", "input" for a file of known format, else "", and it is noted why."""
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        inputs.passed_over.setdefault("as links that lead nowhere", []).append(path)
    except OSError as error:
        inputs.unreadable.append(_refused(path, error))
    else:
        if stat.S_ISDIR(mode):
            return "folder"
        if not stat.S_ISREG(mode):
            inputs.passed_over.setdefault("as pipes, sockets or devices", []).append(path)
        elif format_of(path):
            return "input"
        else:
            inputs.passed_over.setdefault("for their unknown format", []).append(path)
    return ""


def _readable(path: Path, inputs: InputFiles) -> bool:
    if os.access(path, os.R_OK):
        return True
    inputs.unreadable.append(f"{path} can't be read: permission denied")
    return False


def _refused(path: Path, error: OSError | ValueError) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    name = str(path) if len(str(path)) <= 200 else f"{path!s:.100}... ({len(os.fsencode(path)):,} bytes)"
    return f"{name} can't be read: {reason.lower()}"

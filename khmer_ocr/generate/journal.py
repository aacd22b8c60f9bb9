"""What a run has finished: one fragment a chunk, and the run's configuration.

`{root}/.journal/run.json` says what the run is; `{root}/.journal/{split}/{chunk:06d}.jsonl` appears, whole, when a
chunk's files are complete: its first line sums the chunk up, the others are its samples. Shards and restarts need no
other word. When every chunk of a split is there, the fragments become `metadata.json` and go.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import xxhash

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.repair_advice import to_begin_anew
from khmer_ocr.errors import OutputError, RunConflictError
from khmer_ocr.io import locks
from khmer_ocr.io.atomic import make_folder, refuse_links, remove_file, replace
from khmer_ocr.io.json_bytes import json_bytes

log = logging.getLogger(__name__)
RUN_FILE = "run.json"
_CLEARING_FILE = "clearing.json"
_RUN_COPY = "run.copy.json"
_CHECKSUM = "checksum"
_EXCLUSIVE = "exclusive.lock"
_SUM_BYTES = 8


class Journal:
    """The journal of one output folder.

    Args:
        root: the data set's folder.

    Attributes:
        finished: set when nothing of the run is left to do: the last process to leave then removes the journal.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / layout.JOURNAL
        self.finished = False

    def fragment(self, split: str, chunk: int) -> Path:
        """Where a committed chunk's samples stand."""
        return self.folder / split / f"{chunk:06d}.jsonl"

    def commit(self, split: str, chunk: int, summary: Mapping[str, Any], sample_lines: list[bytes]) -> None:
        """Declare a chunk's files complete."""
        body = b"\n".join(sample_lines)
        head = json_bytes({**summary, "hash": xxhash.xxh3_64_hexdigest(json_bytes(dict(summary)) + b"\n" + body)})
        self._replace(self.fragment(split, chunk), head + b"\n" + body)

    def is_committed(self, split: str, chunk: int) -> bool:
        """Whether a chunk's files are complete."""
        return self.fragment(split, chunk).is_file()

    def committed(self, split: str) -> set[int]:
        """Chunks whose files are complete."""
        folder = self.folder / split
        found = folder.glob("[0-9]*.jsonl") if folder.is_dir() else ()
        return {int(path.stem) for path in found if path.stem.isdecimal()}

    def summary(self, split: str, chunk: int) -> dict[str, Any]:
        """First line of a fragment: samples, bytes, fonts."""
        with self.fragment(split, chunk).open("rb") as stream:
            summary: dict[str, Any] = json.loads(stream.readline())
        return summary

    def summaries(self, split: str, chunks: int) -> Iterator[dict[str, Any]]:
        """First lines of a split's fragments, in order."""
        return (self.summary(split, chunk) for chunk in range(chunks))

    def sample_lines(self, split: str, chunks: int) -> Iterator[bytes]:
        """Samples of a split's fragments, in order, one at a time."""
        for chunk in range(chunks):
            with self.fragment(split, chunk).open("rb") as stream:
                next(stream)
                yield from (line.rstrip(b"\n") for line in stream)

    def damaged(self, split: str, chunks: Iterable[int]) -> set[int]:
        """Chunks whose fragments are not what was committed; a failing disk or a curious hand may do that."""
        return {chunk for chunk in chunks if not self._is_whole(split, chunk)}

    def _is_whole(self, split: str, chunk: int) -> bool:
        refuse_links(self.root, self.fragment(split, chunk))
        if not self.is_committed(split, chunk):  # gone, or a pipe of that name, which would never end
            return False
        with self.fragment(split, chunk).open("rb") as stream:
            head, body = stream.readline(), stream.read()
        try:
            summary = json.loads(head)
            known = summary.pop("hash")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        if known == xxhash.xxh3_64_hexdigest(json_bytes(summary) + b"\n" + body):
            return True
        # Version 0.1.0 hashed the samples alone; of its summary only the count can be told.
        return bool(known == xxhash.xxh3_64_hexdigest(body) and summary.get("samples") == body.count(b"\n") + 1)

    def read_plan(self, split: str, lines: int) -> npt.NDArray[np.uint8] | None:
        """Reasons of rejection by line, if an earlier start of this run has left them whole."""
        file = self.folder / split / "plan.bin"
        refuse_links(self.root, file)
        if not file.is_file():
            return None
        data = file.read_bytes()
        if len(data) == lines + _SUM_BYTES and _sum(data[_SUM_BYTES:]) == data[:_SUM_BYTES]:
            return np.frombuffer(data, np.uint8, lines, _SUM_BYTES)
        old = len(data) == lines
        log.warning(
            "%s %s; lines are planned again", file, "is of version 0.1.0, without a checksum" if old else "is damaged"
        )
        return None

    def write_plan(self, split: str, reasons_L: npt.NDArray[np.uint8]) -> None:
        """Keep the planning pass for a restart."""
        make_folder(self.root, self.folder / split)
        data = reasons_L.tobytes()
        self._replace(self.folder / split / "plan.bin", _sum(data) + data)

    def forget(self, split: str, chunks: set[int] | None = None) -> None:
        """Drop a split's fragments: all, or those of some chunks."""
        refuse_links(self.root, self.folder / split)
        if chunks is None:
            shutil.rmtree(self.folder / split, ignore_errors=True)
            return
        for chunk in chunks:
            self.fragment(split, chunk).unlink(missing_ok=True)

    def known_run(self) -> dict[str, Any] | None:
        """What the folder was made of: of a run under way, else of the last complete one.

        Raises:
            OutputError: the file that says so is damaged.
        """
        begun, copy, overall = self.folder / RUN_FILE, self.folder / _RUN_COPY, self.root / layout.GENERATION_METADATA
        refuse_links(self.root, begun, copy, overall)
        if begun.is_file():
            try:
                return _read_run(begun, self.root)
            except OutputError as damage:
                if not copy.is_file():
                    raise
                run = _read_run(copy, self.root)
                log.warning("%s is damaged; its copy is taken", begun)
                log.debug("%s", damage)
                return run
        if overall.is_file():
            run = read_object(overall, self.root).get("run", {})
            return run if isinstance(run, dict) and run else None
        return None

    def begin(self, run: dict[str, Any]) -> None:
        """Record what the run is made of before anything is drawn."""
        make_folder(self.root, self.folder)
        data = json_bytes({**run, _CHECKSUM: _sum(json_bytes(run)).hex()}, indent=1)
        for name in (_RUN_COPY, RUN_FILE):
            self._replace(self.folder / name, data)

    def _replace(self, file: Path, data: bytes) -> None:
        # Shards on several machines write the same plan at once, so that the temporary name has to be one's own.
        # What a killed process leaves of it goes with the journal.
        replace(file, data, self.root)

    def clear_begins(self, samples: Mapping[str, int]) -> None:
        """Record which splits of ours are about to be removed, and how many samples each may have; see `cleared`."""
        make_folder(self.root, self.folder)
        self._replace(self.folder / _CLEARING_FILE, json.dumps({**self.half_cleared(), **samples}).encode())

    def half_cleared(self) -> dict[str, int]:
        """Splits of ours, with the samples each may have had, that a killed process may have removed in part."""
        file = self.folder / _CLEARING_FILE
        refuse_links(self.root, file)
        try:
            content = json.loads(file.read_bytes()) if file.is_file() else {}
            return {name: content[name] for name in layout.SPLITS if type(content.get(name)) is int}
        except (OSError, ValueError, RecursionError, AttributeError):
            return {}

    def cleared(self) -> None:
        """Record that nothing of them is left."""
        remove_file(self.root, self.folder / _CLEARING_FILE)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until no other process begins, completes or leaves this run."""
        refuse_links(self.root, self.folder / _EXCLUSIVE)
        with locks.held(self.folder / _EXCLUSIVE):
            yield

    @contextmanager
    def locked(self, shard: int, shards: int) -> Iterator[None]:
        """Keep a second process from doing the same part of the work; the lock dies with the process.

        Raises:
            RunConflictError: another process does it, or the work is being divided in another way.
        """
        name = f"shard-{shard}-of-{shards}.lock"
        with self.exclusive():
            refuse_links(self.root, *self.folder.glob("shard-*.lock"))
            others = set(locks.held_by_others(self.folder.glob("shard-*.lock")))
            if any(other.name == name for other in others):
                raise RunConflictError(
                    f"Another process is writing to {self.root} (shard {shard} of {shards}). "
                    "Wait for it, or give each its own --shard."
                )
            if wrong := [other.stem for other in others if not other.stem.endswith(f"-of-{shards}")]:
                raise RunConflictError(
                    f"{self.root} is being written in another division ({', '.join(sorted(wrong))}). "
                    "Wait for it, or take the same number of shards."
                )
            own = locks.take(self.folder / name, wait=True)
        try:
            yield
        finally:
            with self.exclusive():
                # Let go first: of several that leave together, the last then finds nobody and tidies up.
                locks.let_go(own)
                idle = not (self.folder / RUN_FILE).exists() and not self.half_cleared()
                if (self.finished or idle) and not self._at_work():
                    self._remove()

    def leftovers(self) -> list[Path]:
        """What is left of this or an earlier journal: empty when nobody is at work and nothing is half done."""
        return [*self.root.glob(f"{layout.JOURNAL}*")]

    def _remove(self) -> None:
        # Renamed first: whoever comes meanwhile makes a journal of their own, and nothing is taken from under them.
        self.folder.replace(self.folder.with_name(f"{layout.JOURNAL}-{uuid4().hex}"))
        for gone in self.root.glob(f"{layout.JOURNAL}-*"):
            shutil.rmtree(gone, ignore_errors=True)

    def is_alone(self) -> bool:
        """Whether no process but this one, which is within `locked`, is at work here."""
        return self._at_work() <= 1

    def _at_work(self) -> int:
        return sum(1 for _ in locks.held_by_others(self.folder.glob("shard-*.lock")))


def _sum(data: bytes) -> bytes:
    return xxhash.xxh3_64_digest(data)


def _read_run(file: Path, root: Path) -> dict[str, Any]:
    """A run as `Journal.begin` recorded it, compared with its checksum; version 0.1.0 wrote none."""
    run = read_object(file, root)
    known = run.pop(_CHECKSUM, None)
    if known is not None and known != _sum(json_bytes(run)).hex():
        raise OutputError(f"{file} is damaged (its checksum is that of other content). {to_begin_anew(root)}")
    return run


def read_object(file: Path, root: Path) -> dict[str, Any]:
    """A JSON object from a file of a data set's folder.

    Raises:
        OutputError: it is damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{file} is damaged ({error}). {to_begin_anew(root)}") from error
    if not isinstance(content, dict):
        raise OutputError(f"{file} is damaged (no JSON object). {to_begin_anew(root)}")
    return content


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines that say which settings differ: `key: old -> new`."""
    out = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            out += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            out.append(f"  {prefix}{key}: {_short(before)} -> {_short(after)}")
    return out


def _short(value: object) -> str:
    text = "(none)" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."

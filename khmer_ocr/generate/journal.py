"""What a run has finished: one fragment a chunk, and the run's configuration.

`{root}/.journal/run.json` says what the run is; `{root}/.journal/{split}/{chunk:06d}.jsonl` appears, whole, when a chunk's
files are complete: its first line sums the chunk up, the others are its samples. Shards and restarts need no other word.
When every chunk of a split is there, the fragments become `metadata.json` and go.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from khmer_ocr.dataset import layout
from khmer_ocr.errors import OutputError, RunConflictError
from khmer_ocr.generate.sinks import replace

RUN_FILE = "run.json"


class Journal:
    """The journal of one output folder.

    Args:
        root: the data set's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / layout.JOURNAL

    def fragment(self, split: str, chunk: int) -> Path:
        """Where a committed chunk's samples stand."""
        return self.folder / split / f"{chunk:06d}.jsonl"

    def commit(self, split: str, chunk: int, summary: Mapping[str, Any], sample_lines: list[bytes]) -> None:
        """Declare a chunk's files complete."""
        replace(self.fragment(split, chunk), b"\n".join([json.dumps(summary).encode(), *sample_lines]))

    def committed(self, split: str) -> set[int]:
        """Chunks whose files are complete."""
        folder = self.folder / split
        return {int(path.stem) for path in folder.glob("[0-9]*.jsonl")} if folder.is_dir() else set()

    def summaries(self, split: str, chunks: int) -> Iterator[dict[str, Any]]:
        """First lines of a split's fragments, in order."""
        for chunk in range(chunks):
            with self.fragment(split, chunk).open("rb") as stream:
                yield json.loads(stream.readline())

    def sample_lines(self, split: str, chunks: int) -> Iterator[bytes]:
        """Samples of a split's fragments, in order, one at a time."""
        for chunk in range(chunks):
            with self.fragment(split, chunk).open("rb") as stream:
                next(stream)
                yield from (line.rstrip(b"\n") for line in stream)

    def read_plan(self, split: str, lines: int) -> npt.NDArray[np.uint8] | None:
        """Reasons of rejection by line, if an earlier start of this run has left them."""
        file = self.folder / split / "plan.bin"
        if not file.is_file() or file.stat().st_size != lines:
            return None
        return np.frombuffer(file.read_bytes(), np.uint8)

    def write_plan(self, split: str, reasons_L: npt.NDArray[np.uint8]) -> None:
        """Keep the planning pass for a restart."""
        (self.folder / split).mkdir(parents=True, exist_ok=True)
        replace(self.folder / split / "plan.bin", reasons_L.tobytes())

    def forget(self, split: str, chunks: set[int] | None = None) -> None:
        """Drop a split's fragments: all, or those of some chunks."""
        if chunks is None:
            shutil.rmtree(self.folder / split, ignore_errors=True)
            return
        for chunk in chunks:
            self.fragment(split, chunk).unlink(missing_ok=True)

    def known_run(self) -> dict[str, Any] | None:
        """What the folder was made of: of a run under way, else of the last complete one."""
        for file, key in ((self.folder / RUN_FILE, None), (self.root / layout.GENERATION_METADATA, "run")):
            if file.is_file():
                try:
                    content = json.loads(file.read_text(encoding="utf-8"))
                except ValueError as error:
                    raise OutputError(f"{file} is damaged ({error}). Run again with --overwrite, or delete it.") from error
                run = content if key is None else content.get(key)
                return run if isinstance(run, dict) else None
        return None

    def begin(self, run: dict[str, Any]) -> None:
        """Record what the run is made of before anything is drawn."""
        self.folder.mkdir(parents=True, exist_ok=True)
        replace(self.folder / RUN_FILE, json.dumps(run, ensure_ascii=False, indent=1).encode())

    def close(self) -> None:
        """Drop the journal of a run that is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Wait for whichever shard is completing a split; the last of several finds it done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "finish.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep a second process from doing the same part of the work; the lock dies with the process.

        Raises:
            RunConflictError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunConflictError(
                    f"Another process is writing to {self.root} ({name}). Wait for it, or give this one its own --shard."
                ) from error
            yield
        finally:
            os.close(fd)


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

"""What a run has done so far: for each split under way its run record, its plan, and a fragment a finished chunk.

`{root}/.journal/{split}/run.json` says what the split is made of; `{root}/.journal/{split}/{chunk:06d}.jsonl` appears,
whole, when a chunk's files are complete: its first line sums the chunk up, the others are its samples. Shards and
restarts need no other word. When every chunk of a split is there, the fragments become `metadata.json`, the record
becomes part of `run` in `generation_metadata.json`, and both go.
"""

import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import xxhash

from khmer_ocr.augment.recipe import NONE
from khmer_ocr.dataset import generation_metadata, layout
from khmer_ocr.dataset.metadata_writer import split_facts, write_overall, write_split
from khmer_ocr.dataset.repair_advice import advice_to_start_over
from khmer_ocr.errors import OutputError, RunConflictError
from khmer_ocr.io import locks
from khmer_ocr.io.atomic import make_folder, refuse_links, remove_file, replace
from khmer_ocr.io.json_bytes import json_bytes
from khmer_ocr.io.run_record import RUN_COPY, RUN_FILE, read_record, write_record

log = logging.getLogger(__name__)
RECORDED_ROOT = "output_dir"
"""Key of a run record: the folder as it was first given, which the metadata carry wherever the folder is mounted."""
_CLEARING_FILE = "clearing.json"
_EXCLUSIVE = "exclusive.lock"
_SUM_BYTES = 8
_NAME_WITH_SUFFIX = re.compile(rb'(\{"filename": "[^"\\]*)\.png"')
"""How version 0.1.0 began a fragment's sample; a run that it began is completed in the spelling that users know."""


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
        body = b"\n".join(sample_lines)
        head = json_bytes({**summary, "hash": xxhash.xxh3_64_hexdigest(json_bytes(dict(summary)) + b"\n" + body)})
        # Shards on several machines write the same plan at once, so that the temporary name has to be one's own.
        # What a killed process leaves of it goes with the journal.
        replace(self.fragment(split, chunk), head + b"\n" + body, self.root)

    def is_committed(self, split: str, chunk: int) -> bool:
        """Whether a chunk's files are complete."""
        return self.fragment(split, chunk).is_file()

    def committed(self, split: str) -> set[int]:
        """Chunks whose files are complete."""
        return {int(path.stem) for path in (self.folder / split).glob("[0-9]*.jsonl") if path.stem.isdecimal()}

    def summary(self, split: str, chunk: int) -> dict[str, Any]:
        """First line of a fragment: samples, bytes, fonts."""
        with self.fragment(split, chunk).open("rb") as stream:
            summary: dict[str, Any] = json.loads(stream.readline())
        return summary

    def sample_lines(self, split: str, chunks: int) -> Iterator[bytes]:
        """Samples of a split's fragments, in order, one at a time."""
        for chunk in range(chunks):
            with self.fragment(split, chunk).open("rb") as stream:
                next(stream)
                for line in stream:
                    old = _NAME_WITH_SUFFIX.match(line)
                    yield line.rstrip(b"\n") if old is None else old[1] + b'"' + line[old.end() :].rstrip(b"\n")

    def damaged(self, split: str, chunks: Iterable[int]) -> set[int]:
        """Chunks whose fragments are not what was committed; a failing disk or an edit by hand may do that."""
        return {chunk for chunk in chunks if not self._is_whole(split, chunk)}

    def _is_whole(self, split: str, chunk: int) -> bool:
        refuse_links(self.root, self.fragment(split, chunk))
        if not self.is_committed(split, chunk):  # gone, or a pipe of that name, which would never end
            return False
        try:
            with self.fragment(split, chunk).open("rb") as stream:
                head, body = stream.readline(), stream.read()
        except FileNotFoundError:  # another shard has just completed the split
            return False
        try:
            summary = json.loads(head)
            known = summary.pop("hash")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        if known == xxhash.xxh3_64_hexdigest(json_bytes(summary) + b"\n" + body):
            return True
        # Version 0.1.0 hashed the samples alone; of its summary only the count can be checked.
        return bool(known == xxhash.xxh3_64_hexdigest(body) and summary.get("samples") == body.count(b"\n") + 1)

    def read_plan(self, split: str, lines: int) -> npt.NDArray[np.uint8] | None:
        """Reasons of rejection by line, if an earlier start of this run has left them whole."""
        file = self.folder / split / "plan.bin"
        refuse_links(self.root, file)
        if not file.is_file():
            return None
        data = file.read_bytes()
        if len(data) == lines + _SUM_BYTES and xxhash.xxh3_64_digest(data[_SUM_BYTES:]) == data[:_SUM_BYTES]:
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
        replace(self.folder / split / "plan.bin", xxhash.xxh3_64_digest(data) + data, self.root)

    def forget(self, split: str, chunks: set[int] | None = None) -> None:
        """Drop what is here of a split, or the fragments of some of its chunks."""
        refuse_links(self.root, self.folder / split)
        if chunks is None:
            shutil.rmtree(self.folder / split, ignore_errors=True)
            return
        for chunk in chunks:
            self.fragment(split, chunk).unlink(missing_ok=True)

    def begin(self, runs: Mapping[str, Mapping[str, Any]]) -> None:
        """Record what splits are made of, by name, before anything of them is drawn."""
        for split, run in runs.items():
            write_record(self.folder / split, run, self.root)
        for name in (RUN_FILE, RUN_COPY):  # one for all splits, as earlier commits of 0.1.0 had it
            remove_file(self.root, self.folder / name)

    def under_way(self) -> dict[str, dict[str, Any]]:
        """Run records of the splits that were begun and are not complete.

        Raises:
            OutputError: one is damaged.
        """
        try:
            found = dict[str, dict[str, Any]]()
            for folder in (self.folder, *(self.folder / split for split in layout.SPLITS)):
                found |= by_split(read_record(folder, self.root))
        except ValueError as fault:
            raise OutputError(f"{fault}. {advice_to_start_over(self.root)}") from fault
        return found

    def finalise(
        self, split: str, chunks: int, rejected: dict[str, int], run: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        """Write a split's metadata from its fragments, sample by sample, then note the split as complete.

        Args:
            split: name of the split; every chunk of it is committed.
            chunks: how many chunks it has.
            rejected: lines left out, by reason.
            run: the split's record.
            settings: `generation_config` as users know it.
        """
        fonts: Counter[str] = Counter()
        samples = stored_bytes = 0
        for chunk in range(chunks):
            summary = self.summary(split, chunk)
            fonts.update(summary["fonts"])
            samples += summary["samples"]
            stored_bytes += summary["bytes"]
        header = header_of(split, samples, fonts, rejected, run, settings)
        write_split(self.root, split, header, self.sample_lines(split, chunks))
        overall = read_overall(self.root)
        before = by_split(overall.get("run"))
        splits = {**{name: other["splits"][name] for name, other in before.items()}, **run["splits"]}
        content = {
            "generation_config": settings,
            "splits": {},
            "total_images": 0,
            "format": run["format"],
            "schema_version": layout.SCHEMA_VERSION,
            "run": {key: value for key, value in {**run, "splits": splits}.items() if key != RECORDED_ROOT},
        }
        facts = split_facts(header, fonts, stored_bytes)
        write_overall(self.root, content, {**overall.get("splits", {}), split: facts})
        self.forget(split)

    @contextmanager
    def clearing(self, samples: Mapping[str, int]) -> Iterator[None]:
        """Record, until it is done, which splits of ours are removed, and how many samples each may have."""
        make_folder(self.root, self.folder)
        replace(self.folder / _CLEARING_FILE, json_bytes({**self.half_cleared(), **samples}), self.root)
        yield
        remove_file(self.root, self.folder / _CLEARING_FILE)

    def half_cleared(self) -> dict[str, int]:
        """Splits of ours, with the samples each may have had, that a killed process may have removed in part."""
        file = self.folder / _CLEARING_FILE
        refuse_links(self.root, file)
        try:
            content = json.loads(file.read_bytes()) if file.is_file() else {}
            return {name: content[name] for name in layout.SPLITS if type(content.get(name)) is int}
        except (OSError, ValueError, RecursionError, AttributeError):
            return {}

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until no other process begins, completes or leaves this run."""
        refuse_links(self.root, self.folder / _EXCLUSIVE)
        with locks.held(self.folder / _EXCLUSIVE):
            yield

    @contextmanager
    def locked(self, shard: int, shards: int) -> Iterator[None]:
        """Keep a second process from doing the same part of the work; the lock dies with the process.

        The last process to leave removes the journal if no split is under way.

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
                # Unlock first: of several that end together, the last then finds no other process and tidies up.
                locks.let_go(own)
                under_way = any(self.folder.glob(f"**/{RUN_FILE}")) or self.half_cleared()
                if not under_way and not self._writers():
                    self._remove()

    def leftovers(self) -> list[Path]:
        """What is left of this or an earlier journal: empty when no process writes and nothing is half done."""
        return [*self.root.glob(f"{layout.JOURNAL}*")]

    def _remove(self) -> None:
        # Renamed first: a process that comes meanwhile makes a journal of its own, and nothing is taken from under it.
        self.folder.replace(self.folder.with_name(f"{layout.JOURNAL}-{uuid4().hex}"))
        for gone in self.root.glob(f"{layout.JOURNAL}-*"):
            shutil.rmtree(gone, ignore_errors=True)

    def is_alone(self) -> bool:
        """Whether no process but this one, which is within `locked`, writes here."""
        return self._writers() <= 1

    def _writers(self) -> int:
        return sum(1 for _ in locks.held_by_others(self.folder.glob("shard-*.lock")))


def by_split(run: Any) -> dict[str, dict[str, Any]]:
    """A run of several splits as one of each; nothing of what is no run."""
    splits = run.get("splits") if isinstance(run, dict) else None
    known = splits if isinstance(splits, dict) else {}
    return {name: {**run, "splits": {name: known[name]}} for name in layout.SPLITS if name in known}


def header_of(
    split: str,
    samples: int,
    fonts: Iterable[str],
    rejected: Mapping[str, int],
    run: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """A split's metadata, all but `samples`, by its run record and `generation_config`."""
    return {
        "split": split,
        "total_samples": samples,
        "augmentation_applied": split == layout.AUGMENTED_SPLIT and run["recipe"] != NONE,
        "fonts_used": sorted(fonts),
        "image_height": settings["image_height"],
        "schema_version": layout.SCHEMA_VERSION,
        "format": run["format"],
        "rejected": rejected,
    }


def read_overall(root: Path) -> dict[str, Any]:
    """`generation_metadata.json` of a folder to be written to, or an empty object where there is none.

    Raises:
        OutputError: it is damaged.
    """
    try:
        content = generation_metadata.read_overall(root)
        splits = content.get("splits", None if content else {})
        if not isinstance(splits, dict) or not all(map(_is_facts, splits.values())):
            raise ValueError(f"`splits` is {splits!r:.80}")
    except ValueError as fault:
        raise OutputError(
            f"{root / layout.GENERATION_METADATA} is damaged ({fault}). {advice_to_start_over(root)}"
        ) from fault
    return content


def _is_facts(facts: object) -> bool:
    return (
        isinstance(facts, dict)
        and isinstance(facts.get("total_samples"), int)
        and isinstance(facts.get("rejected", {}), dict)
    )


def complete_splits(root: Path) -> dict[str, dict[str, Any]]:
    """Facts of the splits that are complete, by name."""
    splits: dict[str, dict[str, Any]] = read_overall(root).get("splits", {})
    return {name: facts for name, facts in splits.items() if (root / name / layout.SPLIT_METADATA).is_file()}

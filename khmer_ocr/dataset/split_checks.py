"""What can be wrong with a split: its numbering, a part of its samples, files that do not belong there.

Letters: N samples.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from khmer_ocr.dataset import layout, paths, shards
from khmer_ocr.dataset.reader import SplitIndex
from khmer_ocr.dataset.repair_advice import without_advice
from khmer_ocr.dataset.scan import system_file
from khmer_ocr.errors import DatasetError

MAX_TOTAL = 1 << 31
_EXTRA = "is extra"
_OURS = {layout.IMAGES: ("_", "png"), layout.LABELS: ("_", "txt"), layout.SHARDS: ("-", "tar|idx")}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        split: the split it is in, "" for the whole data set.
        index: number of the sample to make again, or None where no single sample is concerned.
        filename: the image, label, shard or metadata file.
        fault: what is wrong with it.
    """

    split: str
    index: int | None
    filename: str
    fault: str

    @property
    def extra(self) -> bool:
        """True for a file that belongs to no sample: nothing is damaged by it, and nothing can be made again."""
        return self.fault.startswith(_EXTRA)

    @property
    def leftover(self) -> bool:
        """True for a temporary file of ours; where no process is writing, a killed one left it and it holds no data."""
        folder, _, name = self.filename.partition("/")
        return _is_leftover(self.split, folder, name)


def _is_leftover(split: str, folder: str, name: str) -> bool:
    """Whether a name is that of one of our files while it is written, with or without the number of the process."""
    ours = _OURS.get(folder)
    if ours is None:
        return False
    divider, suffixes = ours
    pattern = rf"\.{re.escape(split)}{divider}[0-9]{{6,18}}\.(?:{suffixes})(?:\.[0-9]+)?\.partial"
    return re.fullmatch(pattern, name, re.ASCII) is not None


def brief(fault: Exception, path: str | Path) -> str:
    """A message without the path, which the report prints itself, and without the advice, which it gives once."""
    text = str(fault).removeprefix(str(path)).removeprefix(str(Path(path).parent)).lstrip(": ")
    return without_advice(text)


def count_problems(index: SplitIndex, total: Any, *, ours: bool = True) -> Iterator[Problem]:
    """Numbering from 0 without gaps, each number once, and as many as `generation_metadata.json` records.

    Args:
        index: the split.
        total: how many samples are recorded, None where nothing says.
        ours: whether we drew it; others number as they like, but give a name once.
    """
    if total is not None and total != len(index):
        fault = f"records {total} samples of {index.split}, which has {len(index)}"
        yield Problem(index.split, None, layout.GENERATION_METADATA, fault)
    if not ours:
        names = Counter((index.shard(i), index.filename(i)) for i in range(len(index)))
        for (_, name), count in names.items():
            if count > 1:
                yield Problem(index.split, None, name, f"stands in the metadata {count} times")
        return
    numbers = []
    for i in range(len(index)):
        name = index.filename(i)
        number = layout.number_of(index.split, name)
        if number is None:
            yield Problem(index.split, None, name, f"is not named like {layout.stem(index.split, i)}.png")
        else:
            numbers.append(number)
    present, times = np.unique(np.array(numbers, np.int64), return_counts=True)
    for number in present[times > 1].tolist():
        yield Problem(index.split, number, layout.stem(index.split, number) + ".png", "stands in the metadata twice")
    if not index.scanned and numbers != list(range(len(index))):
        fault = (
            "does not number its samples 0, 1, 2, ... in this order"  # so that rows are not numbers: no chunk is right
        )
        yield Problem(index.split, None, layout.SPLIT_METADATA, fault)
    end = total if type(total) is int and total < MAX_TOTAL else 0
    for before, after in pairwise([-1, *present.tolist(), max(end, int(present.max(initial=-1)) + 1)]):
        start = before + 1
        while start < after:
            stop = min(after, (start // layout.CHUNK + 1) * layout.CHUNK)
            name = layout.stem(index.split, start) + ".png"
            fault = "is missing" if stop - start == 1 else f"and the following {stop - start - 1} are missing"
            yield Problem(index.split, start, name, fault)
            start = stop


def parts(index: SplitIndex) -> list[npt.NDArray[np.int64]]:
    """Rows to check together: those of one shard, or as many as a chunk has."""
    if index.shard_ids is None:
        return [np.arange(start, min(start + layout.CHUNK, len(index))) for start in range(0, len(index), layout.CHUNK)]
    order = np.argsort(index.shard_ids, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(index.shard_ids[order])) + 1)


def part_problems(index: SplitIndex, rows_N: npt.NDArray[np.int64], *, ours: bool = True) -> list[Problem]:
    """What is wrong with the images, labels and shard members of some rows, all of one shard where there are shards.

    Shards of others need not hold the JSON of each sample, and may hold more than we know of.
    """
    numbered = [(i, index.filename(i), layout.number_of(index.split, index.filename(i))) for i in rows_N.tolist()]
    shard_name = index.shard(numbered[0][0])
    shard = None if shard_name is None else index.shard_path(shard_name)
    try:
        members = {} if shard is None else shards.tar_members(index.root, shard)
    except DatasetError as error:
        assert shard is not None
        return [Problem(index.split, numbered[0][2], shard.name, brief(error, shard))]
    problems = [
        Problem(index.split, number, name, fault) for i, name, number in numbered for fault in _faults(index, i)
    ]
    if shard is None:
        return problems
    expected = set[str]()
    for i, name, number in numbered:
        stem = layout.without_suffix(name)
        expected |= {name, f"{stem}.txt", f"{stem}.json"}
        fault = _json_fault(index, i, shard, members.get(f"{stem}.json"))
        if fault is not None and ours:
            problems.append(Problem(index.split, number, f"{stem}.json", fault))
    index_file = shard.with_suffix(".idx")
    if os.path.lexists(index_file):  # DALI reads by it; a tree made by other tools may have none
        try:
            fault = shards.index_fault(paths.read_contained(index.root, index_file), members)
        except DatasetError as error:
            fault = brief(error, index_file)
        if fault is not None:
            problems.append(Problem(index.split, None, f"{layout.SHARDS}/{index_file.name}", fault))
    for name in sorted(members.keys() - expected) if ours else ():
        fault = f"{_EXTRA}: the metadata does not know it"
        problems.append(Problem(index.split, None, f"{shard.name}/{name}", fault))
    return problems


def _json_fault(index: SplitIndex, i: int, shard: Path, place: tuple[int, int] | None) -> str | None:
    if place is None:
        return "is missing"
    try:
        text = json.loads(shards.read_member(index.root, shard, *place))["text"]
    except (DatasetError, KeyError, TypeError, ValueError, RecursionError) as fault:
        return f"is not the sample's JSON object ({fault})"
    return None if text == index.text(i) else f"says {text!r}, {layout.SPLIT_METADATA} says {index.text(i)!r}"


def _faults(index: SplitIndex, i: int) -> Iterator[str]:
    """What is wrong with the image and the label of row i."""
    image, label = index.paths(i)
    try:
        index.reader.decoded(i)
    except DatasetError as fault:
        yield brief(fault, image)
    try:
        index.reader.check_label(i)
    except DatasetError as fault:
        yield f"label {brief(fault, label)}"


def link_problems(root: Path, split: str, known: Container[str]) -> Iterator[Problem]:
    """Symbolic links of a folder that lead out of the data set: of a cache, a journal, a lock.

    Args:
        root: the data set's root.
        split: the split whose folder is looked at, "" for the root itself.
        known: names that are read, and reported with what is read.
    """
    for entry in sorted(os.scandir(root / split), key=lambda entry: entry.name):
        if entry.name in known or not entry.is_symlink():
            continue
        try:
            paths.check_contained(root, entry.path)
        except DatasetError as fault:
            yield Problem(split, None, entry.name, brief(fault, entry.path))


def extra_problems(index: SplitIndex, known_files: set[str]) -> Iterator[Problem]:
    """Files beside those of the samples; `known_files` have been reported already."""
    files = index.shard_ids is None
    names = {*map(index.filename, range(len(index)) if files else ()), *known_files}
    shard_names = {*index.shards, *known_files}
    for folder, expected in (
        (layout.IMAGES, names),
        (layout.LABELS, {f"{layout.without_suffix(name)}.txt" for name in names}),
        (layout.SHARDS, shard_names | {f"{layout.without_suffix(name)}.idx" for name in shard_names}),
    ):
        path = index.root / index.split / folder
        for name in sorted(e.name for e in os.scandir(path)) if path.is_dir() else ():
            if name not in expected and system_file(name) is None:
                left = _is_leftover(index.split, folder, name)
                fault = "a process that was killed left it behind" if left else "the metadata does not know it"
                if (path / name).is_symlink() and not paths.is_contained(index.root, path / name):
                    fault = f"a symbolic link that leads out of {index.root}"
                yield Problem(index.split, None, f"{folder}/{name}", f"{_EXTRA}: {fault}")


def count_left_by_systems(folders: Iterable[Path]) -> Counter[str]:
    """Count the files in some folders that systems left there, by the patterns of their names."""
    found = Counter[str]()
    for folder in folders:
        if folder.is_dir():
            found.update(filter(None, (system_file(entry.name) for entry in os.scandir(folder))))
    return found

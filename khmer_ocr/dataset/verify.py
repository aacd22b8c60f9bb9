"""Compare a stored data set with its metadata and name everything that is damaged, missing or extra."""

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from khmer_ocr.dataset import images, layout
from khmer_ocr.dataset.index import SplitIndex, build_index, load_index, read_header, split_folder
from khmer_ocr.errors import DatasetError, SplitNotFoundError

SHOWN = 20
MAX_TOTAL = 1 << 31


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


@dataclass
class VerifyReport:
    """What `verify` saw.

    Attributes:
        root: the data set.
        problems: everything found wrong, split by split.
        checked: samples examined in each split.
        elapsed_s: how long it took.
    """

    root: Path
    problems: list[Problem] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0

    @property
    def ok(self) -> bool:
        """True where nothing is wrong."""
        return not self.problems

    def damaged_chunks(self) -> dict[str, list[int]]:
        """Chunks whose samples must be made again, per split, in order."""
        chunks: defaultdict[str, set[int]] = defaultdict(set)
        for problem in self.problems:
            if problem.index is not None:
                chunks[problem.split].add(problem.index // layout.CHUNK)
        return {split: sorted(numbers) for split, numbers in chunks.items()}

    def damaged_metadata(self) -> list[str]:
        """Splits whose `metadata.json` is missing, damaged or wrong; "" stands for `generation_metadata.json`."""
        names = (layout.SPLIT_METADATA, layout.GENERATION_METADATA)
        return sorted({problem.split for problem in self.problems if problem.filename in names})

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {count:,}" for split, count in self.checked.items())
        total = sum(self.checked.values())
        head = f"{self.root}: {total:,} samples checked ({counts or 'no split'}) in {self.elapsed_s:.1f} s"
        if self.ok:
            return f"{head}. Nothing is wrong."
        lines = [f"{head}. {len(self.problems):,} problems:"]
        for problem in self.problems[:SHOWN]:
            lines.append(f"  {'/'.join(filter(None, (problem.split, problem.filename)))}: {problem.fault}")
        if len(self.problems) > SHOWN:
            lines.append(f"  ... and {len(self.problems) - SHOWN:,} more")
        return "\n".join([*lines, f"To make the damaged chunks again: khmer-ocr verify {self.root} --repair"])


def verify(
    root: str | Path, splits: Sequence[str] | None = None, *, progress: bool = True, workers: int = 0
) -> VerifyReport:
    """Check that every image decodes to what the metadata records, every label says its text, nothing lacks or is over.

    Args:
        root: the data set's root.
        splits: which splits to check; None checks those of `generation_metadata.json` and those found on disk.
        progress: show a bar.
        workers: threads that read and decode; 0 works in the calling thread.

    Returns:
        The report; damage of any kind is a problem in it, not an exception.

    Raises:
        SplitNotFoundError: the root, or a split asked for by name, does not exist.
    """
    root, begin = Path(root), time.perf_counter()
    if not root.is_dir():
        raise SplitNotFoundError(f"{root} does not exist. Run: khmer-ocr generate --output-dir {root}")
    for split in splits or ():
        if not (root / split).is_dir():
            split_folder(root, split)
    report = VerifyReport(root)
    overall = _overall_metadata(root, report)
    recorded = overall.get("splits") if isinstance(overall.get("splits"), dict) else {}
    for split in _found_splits(root, recorded or ()) if splits is None else splits:
        entry = (recorded or {}).get(split)
        total = entry.get("total_samples") if isinstance(entry, dict) else None
        report.problems += _split_problems(root, split, total, report, progress=progress, workers=workers)
    if splits is None and overall and overall.get("total_images") != sum(report.checked.values()):
        fault = f"total_images is {overall.get('total_images')}, the splits hold {sum(report.checked.values())}"
        report.problems.append(Problem("", None, layout.GENERATION_METADATA, fault))
    report.elapsed_s = time.perf_counter() - begin
    return report


def _overall_metadata(root: Path, report: VerifyReport) -> dict[str, Any]:
    path = root / layout.GENERATION_METADATA
    try:
        overall = json.loads(images.read_contained(root, path))
        if not isinstance(overall, dict) or not isinstance(overall.get("splits"), dict):
            raise DatasetError("holds no object `splits`")
    except (DatasetError, ValueError, RecursionError) as fault:
        report.problems.append(Problem("", None, path.name, _brief(fault, path)))
        return {}
    return overall


def _found_splits(root: Path, recorded: Iterable[str]) -> list[str]:
    """Splits recorded or on disk, in the usual order first."""
    contents = (layout.SPLIT_METADATA, layout.IMAGES, layout.SHARDS)
    found = {
        e.name for e in os.scandir(root) if e.is_dir() and any((root / e.name / name).exists() for name in contents)
    }
    order = {split: place for place, split in enumerate(layout.SPLITS)}
    return sorted(found | set(recorded), key=lambda split: (order.get(split, len(order)), split))


def _brief(fault: Exception, path: str | Path) -> str:
    """A message without the path, which the report prints itself, and without the advice, which it gives once."""
    text = str(fault).removeprefix(str(path)).removeprefix(str(Path(path).parent)).lstrip(": ")
    return text.split(". Run: ")[0].removesuffix(".")


def _split_problems(
    root: Path, split: str, total: Any, report: VerifyReport, *, progress: bool, workers: int
) -> Iterator[Problem]:
    try:
        split_folder(root, split)
    except (SplitNotFoundError, DatasetError) as fault:
        yield Problem(split, None, layout.SPLIT_METADATA, _brief(fault, root / split))
        return
    index, problems = _open(root, split)
    if not index.scanned and (named := read_header(root / split / layout.SPLIT_METADATA).get("split")) != split:
        problems.append(Problem(split, None, layout.SPLIT_METADATA, f"calls this split {named!r}"))
    yield from problems
    report.checked[split] = len(index)
    yield from _count_problems(index, total)
    parts = _parts(index)
    with (
        tqdm(total=len(index), desc=f"verify {split}", unit="line", disable=not progress) as bar,
        ThreadPoolExecutor(workers) if workers > 0 else nullcontext() as pool,
    ):
        for rows, found in zip(
            parts, (map if pool is None else pool.map)(lambda rows: _part_problems(index, rows), parts), strict=True
        ):
            bar.update(len(rows))
            yield from found
    yield from _extra_problems(index, {problem.filename for problem in problems})


def _open(root: Path, split: str) -> tuple[SplitIndex, list[Problem]]:
    """Open a split; where its metadata is missing or damaged, scan the folder and note what that finds."""
    path, problems = root / split / layout.SPLIT_METADATA, list[Problem]()
    if path.exists():
        try:
            return load_index(root, split), problems
        except DatasetError as fault:
            problems.append(Problem(split, None, path.name, _brief(fault, path)))
    else:
        problems.append(Problem(split, None, path.name, "is missing"))

    def note(name: str, fault: DatasetError) -> None:
        problems.append(Problem(split, _number(split, name), name, _brief(fault, root / split)))

    try:
        return build_index(root, split, images.scan(root, split, note), scanned=True), problems
    except DatasetError as fault:
        problems.append(Problem(split, None, path.name, _brief(fault, path)))
        return build_index(root, split, (), scanned=True), problems


def _number(split: str, filename: str) -> int | None:
    """Number of a sample, or of the first sample of a shard, by its file name; None where the name is not ours."""
    match = re.fullmatch(r"(.+)[_-]([0-9]{6,18})\.(png|tar)", filename)
    if match is None:
        return None
    number = int(match[2])
    if filename == layout.stem(split, number) + ".png":
        return number
    return number * layout.CHUNK if filename == layout.shard_name(split, number) else None


def _count_problems(index: SplitIndex, total: Any) -> Iterator[Problem]:
    """Numbering from 0 without gaps, each number once, and as many as `generation_metadata.json` records."""
    numbers = []
    for i in range(len(index)):
        name = index.filename(i)
        number = _number(index.split, name)
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
    if total is not None and total != len(index):
        fault = f"records {total} samples of {index.split}, which has {len(index)}"
        yield Problem(index.split, None, layout.GENERATION_METADATA, fault)
    end = total if type(total) is int and total < MAX_TOTAL else 0
    for before, after in pairwise([-1, *present.tolist(), max(end, int(present.max(initial=-1)) + 1)]):
        start = before + 1
        while start < after:
            stop = min(after, (start // layout.CHUNK + 1) * layout.CHUNK)
            name = layout.stem(index.split, start) + ".png"
            fault = "is missing" if stop - start == 1 else f"and the following {stop - start - 1} are missing"
            yield Problem(index.split, start, name, fault)
            start = stop


def _parts(index: SplitIndex) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """Rows to check together: those of one shard, or as many as a chunk has."""
    if index.shard_ids is None:
        return [np.arange(start, min(start + layout.CHUNK, len(index))) for start in range(0, len(index), layout.CHUNK)]
    order = np.argsort(index.shard_ids, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(index.shard_ids[order])) + 1)


def _part_problems(index: SplitIndex, rows_N: np.ndarray[Any, np.dtype[np.int64]]) -> list[Problem]:
    numbered = [(i, index.filename(i), _number(index.split, index.filename(i))) for i in rows_N.tolist()]
    shard_name = index.shard(numbered[0][0])
    shard = None if shard_name is None else index.shard_path(shard_name)
    try:
        members = {} if shard is None else images.tar_members(index.root, shard)
    except DatasetError as error:
        assert shard is not None
        return [Problem(index.split, numbered[0][2], shard.name, _brief(error, shard))]
    problems = [
        Problem(index.split, number, name, fault) for i, name, number in numbered for fault in _faults(index, i)
    ]
    if shard is None:
        return problems
    expected = set[str]()
    for i, name, number in numbered:
        stem = name.removesuffix(".png")
        expected |= {name, f"{stem}.txt", f"{stem}.json"}
        fault = _json_fault(index, i, shard, members.get(f"{stem}.json"))
        if fault is not None:
            problems.append(Problem(index.split, number, f"{stem}.json", fault))
    for name in sorted(members.keys() - expected):
        problems.append(Problem(index.split, None, f"{shard.name}/{name}", "is extra: the metadata does not know it"))
    return problems


def _json_fault(index: SplitIndex, i: int, shard: Path, place: tuple[int, int] | None) -> str | None:
    if place is None:
        return "is missing"
    try:
        text = json.loads(images.read_member(index.root, shard, *place))["text"]
    except (DatasetError, KeyError, TypeError, ValueError, RecursionError) as fault:
        return f"is not the sample's JSON object ({fault})"
    return None if text == index.text(i) else f"says {text!r}, the metadata says {index.text(i)!r}"


def _faults(index: SplitIndex, i: int) -> Iterator[str]:
    """What is wrong with the image and the label of row i."""
    image, label = index.paths(i)
    try:
        pixels_HW = images.decode_image(index.image_bytes(i), image)
    except DatasetError as fault:
        yield _brief(fault, image)
    else:
        seen, recorded = pixels_HW.shape[::-1], (int(index.widths[i]), int(index.heights[i]))
        if seen != recorded:
            yield f"is {seen[0]} x {seen[1]} px, the metadata says {recorded[0]} x {recorded[1]}"
        elif index.pixel_hashes is not None:
            pixel_hash = images.pixel_hash(pixels_HW)
            if int(pixel_hash, 16) != index.pixel_hashes[i]:
                yield f"has other pixels than recorded: hash {pixel_hash}, recorded {int(index.pixel_hashes[i]):016x}"
    try:
        text = index.label_text(i)
    except DatasetError as fault:
        yield f"label {_brief(fault, label)}"
    else:
        if text != index.text(i):
            yield f"label says {text!r}, the metadata says {index.text(i)!r}"


def _extra_problems(index: SplitIndex, known_files: set[str]) -> Iterator[Problem]:
    """Files beside those of the samples; `known_files` have been reported already."""
    stems = {index.filename(i).removesuffix(".png") for i in range(len(index))}
    stems |= {name.removesuffix(".png") for name in known_files}
    shard_stems = {name.removesuffix(".tar") for name in {*index.shards, *known_files}}
    files = index.shard_ids is None
    for folder, suffixes, wanted in (
        (layout.IMAGES, (".png",), stems if files else set()),
        (layout.LABELS, (".txt",), stems if files else set()),
        (layout.SHARDS, (".tar", ".idx"), shard_stems),
    ):
        path = index.root / index.split / folder
        for name in sorted(e.name for e in os.scandir(path)) if path.is_dir() else ():
            if not name.endswith(suffixes) or name[:-4] not in wanted:
                yield Problem(index.split, None, f"{folder}/{name}", "is extra: the metadata does not know it")

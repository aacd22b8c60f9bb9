"""Compare a stored data set with its metadata and name everything that is damaged, missing or extra."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from khmer_ocr.dataset import advice, layout, paths
from khmer_ocr.dataset.checks import (
    Problem,
    brief,
    count_problems,
    extra_problems,
    link_problems,
    number_of,
    part_problems,
    parts,
)
from khmer_ocr.dataset.index import SplitIndex, build_index, load_index, split_folder
from khmer_ocr.dataset.metadata import drawn_here, read_header
from khmer_ocr.dataset.scan import scan
from khmer_ocr.errors import DatasetError, SplitNotFoundError

SHOWN = 20


@dataclass
class VerifyReport:
    """What `verify` saw.

    Attributes:
        root: the data set.
        problems: everything found wrong, split by split.
        checked: samples examined in each split.
        without_hashes: splits whose metadata hold no hashes of pixels.
        notes: what one should know though it is no damage.
        elapsed_s: how long it took.
        repaired: whether a repair was tried before, so that advising one would go round in circles.
    """

    root: Path
    problems: list[Problem] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0
    without_hashes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    repaired: bool = False

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

    def leftovers(self) -> list[Path]:
        """Plain files that killed processes left among the samples; safe to delete where no run is at work."""
        paths = (self.root / problem.split / problem.filename for problem in self.problems if problem.leftover)
        return [path for path in paths if path.is_file() and not path.is_symlink()]

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {count:,}" for split, count in self.checked.items())
        total = sum(self.checked.values())
        head = f"{self.root}: {total:,} samples checked ({counts or 'no split'}) in {self.elapsed_s:.1f} s"
        if self.ok:
            return "\n".join([f"{head}. Nothing is wrong.", *self.notes])
        lines = [f"{head}. {len(self.problems):,} problems:"]
        for problem in self.problems[:SHOWN]:
            lines.append(f"  {'/'.join(filter(None, (problem.split, problem.filename)))}: {problem.fault}")
        if len(self.problems) > SHOWN:
            lines.append(f"  ... and {len(self.problems) - SHOWN:,} more")
        advice = f"To make the damaged chunks again: khmer-ocr verify {self.root} --repair"
        if self.repaired:
            advice = "A repair was tried: restore what is left from where it came from, or remove what is extra."
        return "\n".join([*lines, *self.notes, advice])


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
        raise SplitNotFoundError(f"{root} does not exist. {advice.to_have(root)}")
    for split in splits or ():
        if not (root / split).is_dir():
            split_folder(root, split)
    report = VerifyReport(root)
    overall = _overall_metadata(root, report)
    recorded = overall.get("splits") if isinstance(overall.get("splits"), dict) else {}
    looked_at = _found_splits(root, recorded or ()) if splits is None else splits
    report.problems += link_problems(root, "", {layout.GENERATION_METADATA, *looked_at})
    for split in looked_at:
        entry = (recorded or {}).get(split)
        total = entry.get("total_samples") if isinstance(entry, dict) else None
        report.problems += _split_problems(root, split, total, report, progress=progress, workers=workers)
    if splits is None and overall and overall.get("total_images") != sum(report.checked.values()):
        fault = f"total_images is {overall.get('total_images')}, the splits hold {sum(report.checked.values())}"
        report.problems.append(Problem("", None, layout.GENERATION_METADATA, fault))
    if report.without_hashes:
        names = ", ".join(report.without_hashes)
        report.notes.append(f"The metadata of {names} hold no hashes: sizes and labels were compared, pixels were not.")
    report.elapsed_s = time.perf_counter() - begin
    return report


def _overall_metadata(root: Path, report: VerifyReport) -> dict[str, Any]:
    path = root / layout.GENERATION_METADATA
    try:
        overall = json.loads(paths.read_contained(root, path))
        if not isinstance(overall, dict) or not isinstance(overall.get("splits"), dict):
            raise DatasetError("holds no object `splits`")
    except (DatasetError, ValueError, RecursionError) as fault:
        report.problems.append(Problem("", None, path.name, brief(fault, path)))
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


def _split_problems(
    root: Path, split: str, total: Any, report: VerifyReport, *, progress: bool, workers: int
) -> Iterator[Problem]:
    try:
        split_folder(root, split)
    except (SplitNotFoundError, DatasetError) as fault:
        yield Problem(split, None, layout.SPLIT_METADATA, brief(fault, root / split))
        return
    index, problems = _open(root, split)
    if not index.scanned and (named := read_header(root / split / layout.SPLIT_METADATA).get("split")) != split:
        problems.append(Problem(split, None, layout.SPLIT_METADATA, f"calls this split {named!r}"))
    yield from problems
    report.checked[split] = len(index)
    if len(index) and index.pixel_hashes is None and not index.scanned:
        report.without_hashes.append(split)
    yield from count_problems(index, total)
    chunks = parts(index)
    with (
        tqdm(total=len(index), desc=f"verify {split}", unit="line", disable=not progress) as bar,
        ThreadPoolExecutor(workers) if workers > 0 else nullcontext() as pool,
    ):
        run = map if pool is None else pool.map
        for rows, found in zip(chunks, run(lambda rows: part_problems(index, rows), chunks), strict=True):
            bar.update(len(rows))
            yield from found
    yield from extra_problems(index, {problem.filename for problem in problems})
    read = (layout.SPLIT_METADATA, layout.IMAGES, layout.LABELS, layout.SHARDS)
    yield from link_problems(root, split, read)


def _open(root: Path, split: str) -> tuple[SplitIndex, list[Problem]]:
    """Open a split; where its metadata is missing or damaged, scan the folder and note what that finds."""
    path, problems = root / split / layout.SPLIT_METADATA, list[Problem]()
    if path.exists():
        try:
            return load_index(root, split), problems
        except DatasetError as fault:
            problems.append(Problem(split, None, path.name, brief(fault, path)))
    else:
        problems.append(Problem(split, None, path.name, "is missing"))

    def note(name: str, fault: DatasetError) -> None:
        problems.append(Problem(split, number_of(split, name), name, brief(fault, root / split)))

    try:
        outside = not drawn_here(root)
        found = scan(root, split, note, outside=outside)
        return build_index(root, split, found, scanned=True, outside=outside), problems
    except DatasetError as fault:
        problems.append(Problem(split, None, path.name, brief(fault, path)))
        return build_index(root, split, (), scanned=True), problems

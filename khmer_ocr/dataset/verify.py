"""Compare a stored data set with its metadata and name everything that is damaged, missing or extra."""

import os
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from khmer_ocr.dataset import layout, repair_advice
from khmer_ocr.dataset.generation_metadata import read_overall
from khmer_ocr.dataset.index import build_index, load_index, split_folder
from khmer_ocr.dataset.metadata import read_header
from khmer_ocr.dataset.reader import SplitIndex
from khmer_ocr.dataset.scan import LEFT_BEHIND, TreeReport, is_left_by_system, scan
from khmer_ocr.dataset.split_checks import (
    Problem,
    brief,
    count_left_by_systems,
    count_problems,
    extra_problems,
    link_problems,
    part_problems,
    parts,
)
from khmer_ocr.errors import DatasetError, SplitNotFoundError

SHOWN = 20
_FOLDERS = (layout.IMAGES, layout.LABELS, layout.SHARDS)


@dataclass
class VerifyReport:
    """What `verify` saw.

    Attributes:
        root: the data set.
        problems: everything found wrong, split by split.
        checked: samples examined in each split.
        without_hashes: splits whose metadata hold no hashes of pixels.
        notes: what one should know though it is no damage.
        left_by_systems: files that macOS and Windows leave in folders, by the patterns of their names.
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
    left_by_systems: Counter[str] = field(default_factory=Counter)

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
            return "\n".join([f"{head}. Nothing is wrong.", *self.notes, *self._note_on_systems()])
        lines = [f"{head}. {len(self.problems):,} problems:"]
        for problem in self.problems[:SHOWN]:
            lines.append(f"  {'/'.join(filter(None, (problem.split, problem.filename)))}: {problem.fault}")
        if len(self.problems) > SHOWN:
            lines.append(f"  ... and {len(self.problems) - SHOWN:,} more")
        return "\n".join([*lines, *self.notes, *self._note_on_systems(), *self._advice()])

    def _note_on_systems(self) -> list[str]:
        """Say what macOS and Windows left, and how to be rid of it."""
        if not self.left_by_systems:
            return []
        counts = ", ".join(f"{count:,} {pattern}" for pattern, count in sorted(self.left_by_systems.items()))
        names = " -o ".join(f"-iname {shlex.quote(pattern)}" for pattern in sorted(self.left_by_systems))
        chosen = names if len(self.left_by_systems) == 1 else f"\\( {names} \\)"
        return [
            f"Passed over files that macOS and Windows leave in folders ({counts}); they are no part of the data set. "
            f"To remove them: find {shlex.quote(str(self.root))} {chosen} -type f -delete"
        ]

    def _advice(self) -> list[str]:
        """What to do, for each kind of problem that is there."""
        advice_to_repair = {problem.split: None for problem in self.problems if not problem.extra or problem.leftover}
        said = dict.fromkeys(repair_advice.advice_to_repair(self.root, split or None) for split in advice_to_repair)
        if self.repaired and said:
            said = dict.fromkeys(["A repair was tried: restore what is left from where it came from"])
        if any(problem.extra and not problem.leftover for problem in self.problems):
            said["Extra files belong to no sample: move them away, or delete them if nobody needs them"] = None
        return list(said)


def verify(
    root: str | Path, splits: Sequence[str] | None = None, *, progress: bool = True, workers: int = 0
) -> VerifyReport:
    """Check that images and labels are what the metadata record, and that no file is missing or extra.

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
        raise SplitNotFoundError(f"{root} does not exist. {repair_advice.advice_to_create(root)}")
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
    folders = (root / split / name for split in report.checked for name in ("", *_FOLDERS))
    report.left_by_systems = count_left_by_systems((root, *folders))
    if report.without_hashes:
        names = ", ".join(report.without_hashes)
        report.notes.append(f"The metadata of {names} hold no hashes: sizes and labels were compared, pixels were not.")
    report.elapsed_s = time.perf_counter() - begin
    return report


def _overall_metadata(root: Path, report: VerifyReport) -> dict[str, Any]:
    there = os.path.lexists(root / layout.GENERATION_METADATA)
    if not there and not repair_advice.begun_here(root):
        return {}  # others need not write one
    try:
        overall = read_overall(root)
        if not isinstance(overall.get("splits"), dict):
            raise ValueError("holds no object `splits`" if there else "is missing")
    except ValueError as fault:
        report.problems.append(Problem("", None, layout.GENERATION_METADATA, str(fault)))
        return {}
    return overall


def _found_splits(root: Path, recorded: Iterable[str]) -> list[str]:
    """Splits recorded or on disk, in the usual order first."""
    contents = (layout.SPLIT_METADATA, layout.IMAGES, layout.SHARDS)
    found = {
        e.name
        for e in os.scandir(root)
        if e.is_dir() and not is_left_by_system(e.name) and any((root / e.name / name).exists() for name in contents)
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
    ours = repair_advice.drawn_here(root, split) or repair_advice.has_our_keys(root / split / layout.SPLIT_METADATA)
    index, problems = _open(root, split, report, ours=ours, recorded=total is not None)
    if not index.scanned and (named := read_header(root / split / layout.SPLIT_METADATA).get("split")) != split:
        problems.append(Problem(split, None, layout.SPLIT_METADATA, f"calls this split {named!r}"))
    yield from problems
    report.checked[split] = len(index)
    if len(index) and index.pixel_hashes is None and not index.scanned:
        report.without_hashes.append(split)
    yield from count_problems(index, total, ours=ours)
    chunks = parts(index)
    with (
        tqdm(total=len(index), desc=f"verify {split}", unit="line", disable=not progress) as bar,
        ThreadPoolExecutor(workers) if workers > 0 else nullcontext() as threads,
    ):
        run = map if threads is None else threads.map
        for rows, found in zip(chunks, run(lambda rows: part_problems(index, rows, ours=ours), chunks), strict=True):
            bar.update(len(rows))
            yield from found
    if ours or not index.scanned:  # in a scan of others' folders the notes say what was passed over
        yield from extra_problems(index, {problem.filename for problem in problems})
    read = (layout.SPLIT_METADATA, layout.IMAGES, layout.LABELS, layout.SHARDS)
    yield from link_problems(root, split, read)


def _open(
    root: Path, split: str, report: VerifyReport, *, ours: bool, recorded: bool
) -> tuple[SplitIndex, list[Problem]]:
    """Open a split; where its metadata is missing or damaged, scan the folder and note what that finds.

    Args:
        root: the data set's root.
        split: a split that is there.
        report: takes the notes.
        ours: whether we drew it.
        recorded: whether `generation_metadata.json` knows it.
    """
    path, problems = root / split / layout.SPLIT_METADATA, list[Problem]()

    def note(name: str, fault: DatasetError) -> None:
        problems.append(Problem(split, layout.number_of(split, name), name, brief(fault, root / split)))

    if path.exists():
        try:
            index = load_index(root, split, on_fault=note)
            report.notes += index.notes
            return index, problems
        except DatasetError as fault:
            problems.append(Problem(split, None, path.name, brief(fault, path)))
    elif ours or recorded:
        problems.append(Problem(split, None, path.name, "is missing"))
    found = TreeReport(split)
    try:
        index = build_index(
            root, split, scan(root, split, note, found, outside=not ours), scanned=True, outside=not ours
        )
    except DatasetError as fault:
        problems.append(Problem(split, None, path.name, brief(fault, path)))
        index = build_index(root, split, (), scanned=True)
    if not ours:
        if not problems:
            report.notes.append(f"{split}: no {path.name}, so that there was nothing to compare its lines with.")
        # What systems leave behind is said at the end, with how to remove it.
        report.notes += [note for note in found.sentences() if LEFT_BEHIND not in note]
    return index, problems

"""Opens a split: from its metadata or, where that is absent, from a scan of its folder."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from khmer_ocr.dataset import layout, paths
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.dataset.metadata import damaged, iter_samples
from khmer_ocr.dataset.reader import SplitIndex, Strings
from khmer_ocr.dataset.repair_advice import advice_to_create, drawn_here
from khmer_ocr.dataset.scan import OnFault, TreeReport, normal_samples, scan
from khmer_ocr.errors import DatasetError, SplitNotFoundError

_FAULTS_SHOWN = 5


class _Columns:
    """Grows the arrays of a `SplitIndex` sample by sample."""

    def __init__(self) -> None:
        self.widths, self.heights = array("i"), array("i")
        self.texts, self.filenames = bytearray(), bytearray()
        self.text_ends, self.filename_ends = array("q", [0]), array("q", [0])
        self.font_ids, self.shard_ids, self.hashes = array("i"), array("i"), array("Q")
        self.fonts: dict[str, int] = {}
        self.shards: dict[str, int] = {}

    def add(self, sample: Sample) -> None:
        self.widths.append(sample["image_width"])
        self.heights.append(sample["image_height"])
        self.texts += sample["text"].encode()
        self.text_ends.append(len(self.texts))
        self.filenames += layout.image_name(sample["filename"], sample["image_path"]).encode("utf-8", "surrogateescape")
        self.filename_ends.append(len(self.filenames))
        self.font_ids.append(self.fonts.setdefault(sample["font"], len(self.fonts)))
        if "shard" in sample:
            self.shard_ids.append(self.shards.setdefault(sample["shard"], len(self.shards)))
        if "pixel_hash" in sample:
            self.hashes.append(int(sample["pixel_hash"], 16))

    def index(self, root: Path, split: str, source: Path, scanned: bool) -> SplitIndex:
        count = len(self.font_ids)
        for name, column in (("shard", self.shard_ids), ("pixel_hash", self.hashes)):
            if len(column) not in (0, count):
                raise damaged(source, f"only {len(column)} of {count} samples have {name!r}")
        return SplitIndex(
            root=root,
            split=split,
            widths=np.frombuffer(self.widths, np.int32),
            heights=np.frombuffer(self.heights, np.int32),
            texts=Strings(np.frombuffer(self.texts, np.uint8), np.frombuffer(self.text_ends, np.int64)),
            filenames=Strings(np.frombuffer(self.filenames, np.uint8), np.frombuffer(self.filename_ends, np.int64)),
            font_ids=np.frombuffer(self.font_ids, np.int32),
            fonts=tuple(self.fonts),
            pixel_hashes=np.frombuffer(self.hashes, np.uint64) if self.hashes else None,
            shard_ids=np.frombuffer(self.shard_ids, np.int32) if self.shard_ids else None,
            shards=tuple(self.shards),
            scanned=scanned,
        )


def build_index(
    root: Path,
    split: str,
    samples: Iterable[Sample],
    *,
    scanned: bool = False,
    outside: bool = False,
    notes: Callable[[], tuple[str, ...]] = tuple,
) -> SplitIndex:
    """Gather samples into arrays; `load_index` is the usual way to them. `notes` is asked when all have been seen."""
    columns, source = _Columns(), root / split / layout.SPLIT_METADATA
    for position, sample in enumerate(samples):
        try:
            columns.add(sample)
        except (ValueError, TypeError, OverflowError) as fault:
            raise damaged(source, f"sample {position} holds a value that cannot be stored ({fault})") from fault
    return replace(columns.index(root, split, source, scanned), outside=outside, notes=notes())


def split_folder(root: str | Path, split: str) -> Path:
    """Find a split's folder and refuse links that lead out of the root.

    Raises:
        SplitNotFoundError: the folder does not exist.
        DatasetError: it is locked, or one of its folders is a symbolic link out of the root.
    """
    folder = Path(root) / paths.safe_name(split, root)
    try:
        there = folder.is_dir()
    except OSError as fault:
        raise DatasetError(f"{folder} can't be looked at: {fault.strerror}.") from fault
    if not there:
        raise SplitNotFoundError(f"{folder} does not exist. {advice_to_create(root, split)}")
    for name in ("", layout.SPLIT_METADATA, layout.IMAGES, layout.LABELS, layout.SHARDS):
        paths.check_contained(Path(root), folder / name)
    return folder


def load_index(
    root: str | Path, split: str, *, max_samples: int | None = None, on_fault: OnFault | None = None
) -> SplitIndex:
    """Open one split: from its metadata, or by scanning the folder where the metadata is absent.

    Labels that this project did not write are brought to the normal form; `notes` of the result say what that changed
    and what was passed over.

    Args:
        root: the data set's root, wherever it has been moved to.
        split: name of the split, e.g. "train".
        max_samples: take only the first so many; what follows them is not read and not checked.
        on_fault: is given name and fault of each sample whose image or label can't be used, which is then left out;
            None raises, when all have been looked at.

    Returns:
        The split as arrays; images and labels are read through it.

    Raises:
        SplitNotFoundError: the split's folder does not exist.
        DatasetError: the metadata is damaged, or samples can't be used: an image or label is missing or unreadable, a
            label is empty where there is ink, or of several lines.
    """
    root, faults = Path(root), list[DatasetError]()
    metadata = split_folder(root, split) / layout.SPLIT_METADATA
    scanned, outside, report = not metadata.exists(), not drawn_here(root, split), TreeReport(split)
    note = on_fault or (lambda name, fault: faults.append(fault))
    samples: Iterator[Sample] = iter_samples(metadata)
    if scanned:
        samples = scan(root, split, note, report, outside=outside)
    elif outside:
        samples = normal_samples(root, split, samples, note, report)
    index = build_index(
        root, split, islice(samples, max_samples), scanned=scanned, outside=outside, notes=report.sentences
    )
    if faults:
        raise _unusable(root / split, faults, len(index) + len(faults))
    return index


def _unusable(folder: Path, faults: list[DatasetError], total: int) -> DatasetError:
    if len(faults) == 1:
        return faults[0]
    shown = [f"  {fault}" for fault in faults[:_FAULTS_SHOWN]]
    more = [f"  ... and {len(faults) - _FAULTS_SHOWN:,} more"] if len(faults) > _FAULTS_SHOWN else []
    advice = "Correct them, or leave them out where that is offered (--on-error skip)."
    return DatasetError(
        "\n".join([f"{folder}: {len(faults):,} of {total:,} samples can't be used:", *shown, *more, advice])
    )

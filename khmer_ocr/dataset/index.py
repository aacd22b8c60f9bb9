"""A split as arrays, gathered from its metadata or, where that is absent, from a scan of its folder.

Letters: N samples.
"""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from khmer_ocr.dataset import layout, paths
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.dataset.metadata import damaged, iter_samples
from khmer_ocr.dataset.reader import SplitReader
from khmer_ocr.dataset.repair_advice import drawn_here, to_have
from khmer_ocr.dataset.scan import OnFault, TreeReport, normal_samples, scan
from khmer_ocr.errors import DatasetError, SplitNotFoundError

_FAULTS_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Strings:
    """N strings as one UTF-8 blob: `blob[offsets[i]:offsets[i + 1]]` is string i.

    A file name that is no UTF-8 is there as the bytes it has on disk.
    """

    blob: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        return self.blob[self.offsets[i] : self.offsets[i + 1]].tobytes().decode("utf-8", "surrogateescape")

    def lengths(self) -> npt.NDArray[np.int64]:
        """Count the code points of each string: the bytes that do not continue one."""
        starts = np.append((self.blob & 0xC0) != 0x80, False).view(np.uint8)
        counts = np.add.reduceat(starts, self.offsets[:-1], dtype=np.int64) if len(self) else np.zeros(0, np.int64)
        return np.where(np.diff(self.offsets) > 0, counts, 0)


@dataclass(frozen=True, eq=False)
class SplitIndex:
    """One split as arrays; reads its images and labels, from files or from shards alike.

    Attributes:
        root: the root the split was opened under.
        split: its name.
        widths: int32 (N,), px.
        heights: int32 (N,), px.
        texts: N texts.
        filenames: N image file names, e.g. "train_000000.png".
        font_ids: int32 (N,), positions in `fonts`.
        fonts: names of the fonts.
        pixel_hashes: uint64 (N,), or None where the metadata has none.
        shard_ids: int32 (N,), positions in `shards`, or None for the format "files".
        shards: names of the tar files.
        scanned: True where the metadata was absent and the folder was scanned.
        outside: True where this project did not draw the lines: `texts` are the normal form of their labels.
        notes: what a person should know of such labels and files, a sentence each.
    """

    root: Path
    split: str
    widths: npt.NDArray[np.int32]
    heights: npt.NDArray[np.int32]
    texts: Strings
    filenames: Strings
    font_ids: npt.NDArray[np.int32]
    fonts: tuple[str, ...]
    pixel_hashes: npt.NDArray[np.uint64] | None
    shard_ids: npt.NDArray[np.int32] | None
    shards: tuple[str, ...]
    scanned: bool
    outside: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.widths)

    def text(self, i: int) -> str:
        """Text of sample i."""
        return self.texts[i]

    def filename(self, i: int) -> str:
        """Image file name of sample i."""
        return self.filenames[i]

    def font(self, i: int) -> str:
        """Font name of sample i."""
        return self.fonts[int(self.font_ids[i])]

    def shard(self, i: int) -> str | None:
        """File name of the tar that holds sample i, or None for the format "files"."""
        return None if self.shard_ids is None else self.shards[int(self.shard_ids[i])]

    def shard_path(self, shard: str) -> Path:
        """Where a shard lies."""
        return self.root / self.split / layout.SHARDS / shard

    def paths(self, i: int) -> tuple[str, str]:
        """Where the image and the label of sample i lie now: files, or members behind the path of their shard."""
        # Strings, since joining paths by pathlib took half of the time of reading a line.
        name = self.filename(i)
        image, label = layout.recorded_paths(str(self.root), self.split, name, self.shard(i))
        if self.scanned and "/" in name and not os.path.lexists(label):
            label = str(self.root / self.split / layout.LABELS / layout.label_names(name)[1])
        return image, label

    @cached_property
    def reader(self) -> SplitReader:
        """What reads and checks the images and labels."""
        return SplitReader(self)

    def image_bytes(self, i: int) -> bytes:
        """Bytes of image i, as stored; raises `DatasetError` where they are missing."""
        return self.reader.image_bytes(i)

    def label_text(self, i: int) -> str:
        """Text of the label file of sample i, which may differ from the metadata where the data set is damaged."""
        return self.reader.label_text(i)

    def image(self, i: int) -> npt.NDArray[np.uint8]:
        """Decode the image of sample i and compare it with what is recorded; see `SplitReader.pixels`."""
        return self.reader.pixels(i)

    def line(self, i: int) -> npt.NDArray[np.uint8]:
        """Do what `image` does, and compare the label file with the metadata too."""
        return self.reader.line(i)


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
        raise SplitNotFoundError(f"{folder} does not exist. {to_have(root, split)}")
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
        on_fault: is told name and fault of each sample whose image or label can't be used, which is then left out; None
            raises, when all have been looked at.

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
    tell = on_fault or (lambda name, fault: faults.append(fault))
    samples: Iterator[Sample] = iter_samples(metadata)
    if scanned:
        samples = scan(root, split, tell, report, outside=outside)
    elif outside:
        samples = normal_samples(root, split, samples, tell, report)
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

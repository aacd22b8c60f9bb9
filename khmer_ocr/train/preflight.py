"""What is looked at before the first step, so that a night is not lost to a wrong tree."""

import shutil
import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash
from khmer_ocr_kernels.arrays import U64

from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.reader import SplitIndex
from khmer_ocr.dataset.repair_advice import advice_to_create, drawn_here
from khmer_ocr.errors import DatasetError, ModelError, OutputError, SplitNotFoundError
from khmer_ocr.io.os_errors import output_errors
from khmer_ocr.load.read_errors import OnError
from khmer_ocr.text.charset import Charset
from khmer_ocr.train.label_checks import SHOWN, find_bad_labels, judge, missing_characters, named

_SPARE_BYTES = 64 << 20


@dataclass
class Preflight:
    """What was seen.

    Attributes:
        lines: split to number of lines.
        unknown: character missing from the charset to number of training lines with it.
        infeasible: training lines with more symbols than slots.
        longest: code points of the longest training line.
        shared: split to number of its lines whose text stands in train too.
        notes: what a person should know, a sentence each.
    """

    lines: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    infeasible: int = 0
    longest: int = 0
    shared: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {count:,}" for split, count in self.lines.items())
        head = f"Pre-flight: {counts} lines; longest {self.longest} code points; {self.infeasible} too dense for CTC."
        return "\n".join([head, *(f"  {note}" for note in self.notes)])


def open_splits(
    roots: tuple[Path, ...], max_samples: int | None, on_error: OnError = "raise"
) -> dict[str, list[SplitIndex]]:
    """Open train of every root, and val and test of the first.

    Args:
        roots: of the data sets.
        max_samples: take only the first so many of each split.
        on_error: "skip" opens a split without the lines that can't be used; the loader counts and names them.

    Raises:
        SplitNotFoundError: train or val is missing; the message says how to make it.
        DatasetError: metadata is damaged, or a split is empty.
    """

    def opened(root: Path, split: str) -> SplitIndex:
        lost: list[DatasetError] = []
        try:
            index = load_index(root, split, max_samples=max_samples, on_fault=lambda name, fault: lost.append(fault))
        except SplitNotFoundError as fault:
            raise SplitNotFoundError(_no_split(root, split)) from fault
        if lost and on_error == "raise":
            raise _unusable(root / split, lost, len(index) + len(lost))
        if not len(index):
            lines = f"none of its {len(lost)} lines can be used ({lost[0]})" if lost else "it holds no lines"
            raise DatasetError(f"Split {split!r} in {root}: {lines}. {_no_split(root, split)}")
        return index

    splits = {"train": [opened(root, "train") for root in roots], "val": [opened(roots[0], "val")]}
    splits["test"] = [opened(roots[0], "test")] if (roots[0] / "test").is_dir() else []
    return splits


def _unusable(folder: Path, lost: list[DatasetError], total: int) -> DatasetError:
    advice = "--on-error skip leaves out such lines, up to 1 % of a split."
    if len(lost) == 1:
        return DatasetError(f"{str(lost[0]).removesuffix('.')}. {advice}")
    shown = [f"  {fault}" for fault in lost[:SHOWN]]
    more = [f"  ... and {len(lost) - SHOWN:,} more"] if len(lost) > SHOWN else []
    head = f"{folder}: {len(lost):,} of {total:,} lines can't be used:"
    return DatasetError("\n".join([head, *shown, *more, advice]))


def _no_split(root: Path, split: str) -> str:
    if (root / split).is_dir():
        said = f"Training needs lines in {root / split}"
    else:
        said = f"{root / split} does not exist, and training needs it"
    if split == "val" and not drawn_here(root):
        said += " to tell how well it reads (one line in twenty, moved from train, will do)"
    return f"{said}. {advice_to_create(root, split)}"


def charset_of(indices: list[SplitIndex]) -> Charset:
    """The default characters, and after them those of training texts missing from these, in code point order."""
    default = Charset.default()
    extra = tuple(missing_characters(indices, default))
    return Charset(default.characters + extra) if extra else default


def charset_for(
    indices: list[SplitIndex], asked: Literal["corpus", "default"], held: Charset | None, source: Path | None
) -> Charset:
    """Choose the characters of a run.

    Args:
        indices: the training data.
        asked: "corpus" reads every character of theirs, "default" reads those beyond the charset as unknown.
        held: characters of the weights to begin with or of the run to resume; None for a new model.
        source: where these come from.

    Raises:
        ModelError: characters of the data are not in the weights' charset; they are named, with lines that hold them.
    """
    if held is None:
        return Charset.default() if asked == "default" else charset_of(indices)
    if asked == "corpus" and (found := missing_characters(indices, held)):
        raise ModelError(
            f"{source} is of another charset, without {len(found)} of these lines' characters: {named(found)}. If "
            "they are slips, correct the labels; --charset default reads them as unknown; a model that is to learn "
            "them begins anew, without --init and --resume."
        )
    return held


def preflight(
    splits: dict[str, list[SplitIndex]],
    charset: Charset,
    slots: int,
    height_px: int,
    checkpoint_dir: Path,
    model_bytes: int,
    on_error: OnError = "raise",
) -> Preflight:
    """Check opened splits against what is going to be trained.

    Args:
        splits: from `open_splits`.
        charset: of the model.
        slots: symbols CTC may write in 4 px.
        height_px: of the model.
        checkpoint_dir: where checkpoints will go.
        model_bytes: size of one checkpoint.
        on_error: "skip" leaves out lines whose labels can't be learned, up to 1 %.

    Returns:
        What was seen.

    Raises:
        DatasetError: lines of another height, or too many that CTC cannot spell.
        OutputError: no space for two checkpoints.
    """
    seen = Preflight({split: sum(map(len, indices)) for split, indices in splits.items()})
    for index in (index for indices in splits.values() for index in indices):
        if (wrong := index.heights != height_px).any():
            raise DatasetError(
                f"{int(wrong.sum())} lines of {index.root} ({index.split}) are not {height_px} px high, e.g. "
                f"{index.filename(int(wrong.argmax()))}. Generate with --image-height {height_px}."
            )
    seen.notes += [note for indices in splits.values() for index in indices for note in index.notes]
    seen.longest = max(int(index.texts.lengths().max()) for index in splits["train"])
    for split in ("train", "val"):
        found = find_bad_labels(split, splits[split], slots)
        seen.notes += judge(found, splits[split], slots, on_error)
        if split == "train":
            seen.infeasible = len(found.dense)
    _note_missing_characters(splits, charset, seen)
    _count_shared_texts(splits, seen)
    folder = checkpoint_dir.absolute()
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if free < 2 * model_bytes + _SPARE_BYTES:
        raise OutputError(
            f"{checkpoint_dir} has {free >> 20} MiB free; two checkpoints need {2 * model_bytes >> 20} MiB."
        )
    return seen


def _note_missing_characters(splits: dict[str, list[SplitIndex]], charset: Charset, seen: Preflight) -> None:
    """Note the characters that become unknown, and those that the charset has for these data alone."""
    unknown = missing_characters(splits["train"], charset)
    seen.unknown = {character: each.lines for character, each in unknown.items()}
    if unknown:
        seen.notes.append(f"Characters of training lines are not in the charset and become unknown: {named(unknown)}.")
    joined = missing_characters(splits["train"], Charset.default())
    if joined := {character: each for character, each in joined.items() if character in charset}:
        seen.notes.append(
            f"Characters beyond the default charset, which the model learns to write: {named(joined)}. If they are "
            "slips, correct the labels; --charset default reads them as unknown."
        )
    if strange := missing_characters(splits["val"], charset):
        seen.notes.append(f"Characters of val are not in the charset and can't be read right: {named(strange)}.")


def _count_shared_texts(splits: dict[str, list[SplitIndex]], seen: Preflight) -> None:
    of_split = {split: _hashes(indices) for split, indices in splits.items() if indices}
    for split in of_split.keys() - {"train"}:
        count = seen.shared[split] = int(np.isin(of_split[split], of_split["train"]).sum())
        if count:
            share = count / len(of_split[split])
            seen.notes.append(f"{count} lines of {split} ({share:.1%}) have a text that stands in train too.")


def _hashes(indices: list[SplitIndex]) -> U64:
    blobs = ((index.texts.blob.tobytes(), index.texts.offsets.tolist()) for index in indices)
    hashes = [xxhash.xxh3_64_intdigest(blob[a:b]) for blob, ends in blobs for a, b in pairwise(ends)]
    return np.array(hashes, np.uint64)


def check_writable(folder: Path) -> None:
    """Make a folder and write a file in it, as a run does hours later.

    Raises:
        OutputError: that is refused.
    """
    with output_errors(folder, "give another folder", "Training would lose what it learns."):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))

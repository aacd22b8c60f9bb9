"""What is looked at before the first step, so that a night is not lost to a wrong tree.

Letters: N lines, M code points of some lines.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from khmer_ocr.dataset.advice import to_have
from khmer_ocr.dataset.index import SplitIndex, Strings, load_index
from khmer_ocr.errors import DatasetError, OutputError, SplitNotFoundError
from khmer_ocr.model.seq2seq import slots_for
from khmer_ocr.text.charset import Charset

MOST_INFEASIBLE = 0.001
"""Share of lines with more symbols than CTC has slots above which training is refused: they teach only their length."""
_LINES_AT_ONCE = 1 << 16
_SPARE_BYTES = 64 << 20


@dataclass
class Preflight:
    """What was seen.

    Attributes:
        lines: split to number of lines.
        unknown: character that the charset lacks to number of training lines with it.
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


def open_splits(roots: tuple[Path, ...], max_samples: int | None) -> dict[str, list[SplitIndex]]:
    """Open train of every root, and val and test of the first.

    Raises:
        SplitNotFoundError: train or val is missing; the message holds the command that makes it.
        DatasetError: metadata is damaged, or a split is empty.
    """
    opened = {"train": [load_index(root, "train", max_samples=max_samples) for root in roots]}
    opened["val"] = [load_index(roots[0], "val", max_samples=max_samples)]
    try:
        opened["test"] = [load_index(roots[0], "test", max_samples=max_samples)]
    except SplitNotFoundError:
        opened["test"] = []
    for split, indices in opened.items():
        for index in indices:
            if not len(index):
                raise DatasetError(f"Split {split!r} in {index.root} holds no lines. {to_have(index.root, split)}")
    return opened


def charset_of(indices: list[SplitIndex]) -> Charset:
    """The default characters, and after them those of training texts that it lacks, in code point order."""
    default, seen = Charset.default(), set[int]()
    for index in indices:
        for codes_M, _ in code_points(index.texts):
            seen.update(np.unique(codes_M).tolist())
    extra = sorted(character for character in map(chr, seen) if character not in default)
    return Charset(default.characters + tuple(extra)) if extra else default


def code_points(texts: Strings) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]]:
    """Texts as code points, some thousand lines at a time: uint32 (M,), and their lengths int64 (N,)."""
    lengths_N = texts.lengths()
    for first in range(0, len(texts), _LINES_AT_ONCE):
        last = min(first + _LINES_AT_ONCE, len(texts))
        blob = texts.blob[texts.offsets[first] : texts.offsets[last]].tobytes()
        yield np.frombuffer(blob.decode().encode("utf-32-le"), np.uint32), lengths_N[first:last]


def ctc_symbols(texts: Strings) -> npt.NDArray[np.int64]:
    """Slots that CTC needs for each text: its code points, and a blank between two that are equal; int64 (N,)."""
    needed = []
    for codes_M, lengths_N in code_points(texts):
        line_M = np.repeat(np.arange(len(lengths_N)), lengths_N)
        twins_M = (codes_M[1:] == codes_M[:-1]) & (line_M[1:] == line_M[:-1])
        needed.append(lengths_N + np.bincount(line_M[1:][twins_M], minlength=len(lengths_N)))
    return np.concatenate(needed) if needed else np.zeros(0, np.int64)


def preflight(
    splits: dict[str, list[SplitIndex]],
    charset: Charset,
    slots: int,
    height_px: int,
    checkpoint_dir: Path,
    model_bytes: int,
) -> Preflight:
    """Check opened splits against what is going to be trained.

    Args:
        splits: from `open_splits`.
        charset: of the reader.
        slots: symbols CTC may write in 4 px.
        height_px: of the reader.
        checkpoint_dir: where checkpoints will go.
        model_bytes: size of one checkpoint.

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
    for index in splits["train"]:
        _look_at_texts(index, charset, slots, seen)
    if seen.unknown:
        listed = ", ".join(f"{character!r} in {count}" for character, count in sorted(seen.unknown.items())[:20])
        seen.notes.append(f"The charset lacks characters of training lines, which become unknown: {listed}.")
    if seen.infeasible > MOST_INFEASIBLE * seen.lines["train"]:
        raise DatasetError(
            f"{seen.infeasible} of {seen.lines['train']} training lines have more symbols than CTC has slots at their "
            f"width ({slots} in 4 px); at most {MOST_INFEASIBLE:.1%} is accepted. Draw wider faces, or take a preset "
            "with more slots."
        )
    _look_for_twins(splits, seen)
    free = shutil.disk_usage(_existing(checkpoint_dir)).free
    if free < 2 * model_bytes + _SPARE_BYTES:
        raise OutputError(
            f"{checkpoint_dir} has {free >> 20} MiB free; two checkpoints need {2 * model_bytes >> 20} MiB."
        )
    return seen


def _look_at_texts(index: SplitIndex, charset: Charset, slots: int, seen: Preflight) -> None:
    slots_N = slots_for(index.widths.astype(np.int64), slots)
    seen.infeasible += int((ctc_symbols(index.texts) > slots_N).sum())
    seen.longest = max(seen.longest, int(index.texts.lengths().max()))
    for codes_M, lengths_N in code_points(index.texts):
        ends_N = np.cumsum(lengths_N)
        for code in np.unique(codes_M).tolist():
            if chr(code) not in charset:
                lines = len(np.unique(np.searchsorted(ends_N, np.flatnonzero(codes_M == code), "right")))
                seen.unknown[chr(code)] = seen.unknown.get(chr(code), 0) + lines


def _look_for_twins(splits: dict[str, list[SplitIndex]], seen: Preflight) -> None:
    of_split = {split: _hashes(indices) for split, indices in splits.items() if indices}
    for split in of_split.keys() - {"train"}:
        count = seen.shared[split] = int(np.isin(of_split[split], of_split["train"]).sum())
        if count:
            share = count / len(of_split[split])
            seen.notes.append(f"{count} lines of {split} ({share:.1%}) have a text that stands in train too.")


def _hashes(indices: list[SplitIndex]) -> npt.NDArray[np.uint64]:
    blobs = ((index.texts.blob.tobytes(), index.texts.offsets.tolist()) for index in indices)
    hashes = [xxhash.xxh3_64_intdigest(blob[a:b]) for blob, ends in blobs for a, b in pairwise(ends)]
    return np.array(hashes, np.uint64)


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder

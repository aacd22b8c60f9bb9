"""Fingerprint of the data a run learns from, as checkpoints record it: by content, so that moved data stay the same."""

from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from khmer_ocr.dataset.reader import SplitIndex
from khmer_ocr.errors import RunConflictError

Record = list[dict[str, Any]]
_PARTS = {"texts": "other texts", "sizes": "images of other sizes", "pixels": "other images"}


def record(indices: list[SplitIndex]) -> Record:
    """Describe a split of one or several data sets, in their order: plain values that a checkpoint holds.

    Lines, and hashes over their texts, sizes and recorded hashes of pixels ("" where the metadata have none). Names,
    fonts and places are not in it.
    """
    found = []
    for index in indices:
        texts = _hash(index.texts.offsets.astype("<i8"), index.texts.blob)
        sizes = _hash(index.widths.astype("<i4"), index.heights.astype("<i4"))
        pixels = "" if index.pixel_hashes is None else _hash(index.pixel_hashes.astype("<u8"))
        found.append({"lines": len(index), "texts": texts, "sizes": sizes, "pixels": pixels})
    return found


def difference(recorded: Record, now: Record, roots: list[Path]) -> str:
    """Say in words how the data of a run differ from those of now; "" where they don't.

    Args:
        recorded: by the run.
        now: of the data given.
        roots: of the data given.
    """
    if len(recorded) != len(now):
        return f"{len(recorded)} data sets there, {len(now)} now"
    found = []
    for one, other, root in zip(recorded, now, roots, strict=True):
        if one["lines"] != other["lines"]:
            found.append(f"{root}: {one['lines']:,} lines there, {other['lines']:,} now")
            continue
        changed = [words for part, words in _PARTS.items() if one[part] and other[part] and one[part] != other[part]]
        if changed:
            found.append(f"{root}: as many lines, {other['lines']:,}, but {', '.join(changed)}")
    return "; ".join(found)


def check_same_data(content: dict[str, Any], splits: dict[str, list[SplitIndex]], source: Path) -> list[str]:
    """Refuse to resume a run on data that it did not begin with.

    Args:
        content: of the checkpoint.
        splits: that are open now.
        source: the checkpoint's file.

    Returns:
        What a person should know: that nothing could be compared, or that val is another.

    Raises:
        RunConflictError: the training data are others.
    """
    recorded = content.get("data")
    if recorded is None:
        return [f"{source} does not say which data it learned from (older versions): they are taken as the same."]
    changed = {
        name: difference(recorded[name], record(splits[name]), [index.root for index in splits[name]])
        for name in ("train", "val")
    }
    if changed["train"]:
        raise RunConflictError(
            f"{source} learned from other training data ({changed['train']}). To go on, give the data of that run, in "
            f"its order; to begin another run with its weights, --init {source} and another --checkpoint-dir."
        )
    if changed["val"]:
        return [f"val is not that of the run so far ({changed['val']}): what counts as best begins anew."]
    return []


def _hash(*columns: np.ndarray[Any, Any]) -> str:
    state = xxhash.xxh3_128()
    for column in columns:
        state.update(np.ascontiguousarray(column).data)
    return state.hexdigest()

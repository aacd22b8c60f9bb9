"""Figures of a stored data set: counts, sizes, text lengths, characters, fonts, rejections, bytes.

Letters: N samples.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.generation_metadata import read_overall
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.reader import SplitIndex
from khmer_ocr.dataset.repair_advice import advice_to_create, advice_to_repair
from khmer_ocr.errors import DatasetError, SplitNotFoundError

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
HISTOGRAM_BINS = 10
FONTS_SHOWN = 40
BAR_CHARS = 40


def split_statistics(index: SplitIndex) -> dict[str, Any]:
    """Describe one split.

    Args:
        index: the split.

    Returns:
        `total_samples`; `image_height` (the heights seen, px); `image_width` and `text_length` (min, quantiles, max,
        mean; px and code points); `text_length_histogram` (pairs of first length and count); `characters`
        (how many distinct) and `character_set` (sorted, joined); `fonts` (name to share of samples, largest first).
    """
    lengths_N = index.texts.lengths()
    counts = np.bincount(index.font_ids, minlength=len(index.fonts))
    fonts = sorted(zip(index.fonts, counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    characters = sorted(set(index.texts.blob.tobytes().decode()))
    return {
        "total_samples": len(index),
        "image_height": np.unique(index.heights).tolist(),
        "image_width": _distribution(index.widths),
        "text_length": _distribution(lengths_N),
        "text_length_histogram": _histogram(lengths_N),
        "characters": len(characters),
        "character_set": "".join(characters),
        "fonts": {name: count / len(index) for name, count in fonts},
    }


def _distribution(values_N: npt.NDArray[Any]) -> dict[str, float]:
    if not len(values_N):
        return {}
    quantiles = np.quantile(values_N, QUANTILES).tolist()
    names = ["min", *(f"p{round(100 * q):02d}" for q in QUANTILES[1:-1]), "max"]
    return {**dict(zip(names, quantiles, strict=True)), "mean": float(values_N.mean())}


def _histogram(lengths_N: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Count lengths in at most `HISTOGRAM_BINS` classes of equal whole width."""
    if not len(lengths_N):
        return []
    low, high = int(lengths_N.min()), int(lengths_N.max())
    step = -(-(high - low + 1) // HISTOGRAM_BINS)
    counts = np.bincount((lengths_N - low) // step).tolist()
    return [(low + place * step, count) for place, count in enumerate(counts)]


def _bytes_on_disk(folder: Path) -> int:
    total = 0
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            total += _bytes_on_disk(Path(entry.path))
        else:
            total += entry.stat(follow_symlinks=False).st_size
    return total


def dataset_statistics(root: str | Path) -> dict[str, Any]:
    """Describe a whole data set.

    Args:
        root: the data set's root.

    Returns:
        `root`, `format`, `total_images`, `bytes_on_disk` and `splits`: for each split what `split_statistics` says,
        with `bytes_on_disk`, `notes` (what was passed over or changed) and `rejected` (reason to count, from
        `generation_metadata.json`, where recorded).

    Raises:
        SplitNotFoundError: the root does not exist or holds no split.
        DatasetError: metadata is damaged.
    """
    root = Path(root)
    try:
        overall = read_overall(root)
    except ValueError as fault:
        raise DatasetError(f"{root / layout.GENERATION_METADATA} {fault}. {advice_to_repair(root)}") from fault
    recorded = overall.get("splits") if isinstance(overall.get("splits"), dict) else {}
    splits: dict[str, Any] = {}
    for split in (*layout.SPLITS, *sorted((recorded or {}).keys() - set(layout.SPLITS))):
        if not (root / split).is_dir():
            continue
        index = load_index(root, split)
        entry = (recorded or {}).get(split)
        rejected: dict[str, int] | None = entry.get("rejected") if isinstance(entry, dict) else None
        splits[split] = {
            **split_statistics(index),
            "format": layout.FORMATS[index.shard_ids is not None],
            "bytes_on_disk": _bytes_on_disk(root / split),
            "notes": list(index.notes),
            "rejected": {reason: int(count) for reason, count in (rejected or {}).items()},
        }
    if not splits:
        raise SplitNotFoundError(f"{root} holds no split. {advice_to_create(root)}")
    return {
        "root": str(root),
        "format": overall.get("format", next(iter(splits.values()))["format"]),
        "total_images": sum(entry["total_samples"] for entry in splits.values()),
        "bytes_on_disk": _bytes_on_disk(root),
        "splits": splits,
    }


def format_statistics(stats: dict[str, Any]) -> str:
    """Lay out what `dataset_statistics` returned as text in aligned columns."""
    splits: dict[str, Any] = stats["splits"]
    lines = [f"{stats['root']}  ({stats['format']}, {stats['total_images']:,} images, {_size(stats['bytes_on_disk'])})"]
    rows: list[list[str]] = [["", *splits]]
    rows.append(["samples", *(f"{s['total_samples']:,}" for s in splits.values())])
    rows.append(["on disk", *(_size(s["bytes_on_disk"]) for s in splits.values())])
    rows.append(["height, px", *(", ".join(map(str, s["image_height"])) or "-" for s in splits.values())])
    for key, title in (("image_width", "width, px"), ("text_length", "text, characters")):
        for name in ("min", "p05", "p25", "p50", "p75", "p95", "max", "mean"):
            values = (s[key].get(name) for s in splits.values())
            rows.append([f"{title}: {name}", *("-" if value is None else f"{value:,.0f}" for value in values)])
    rows.append(["distinct characters", *(f"{s['characters']:,}" for s in splits.values())])
    lines += ["", *_aligned(rows)]
    for split, entry in splits.items():
        lines += ["", f"{split}: text length, characters", *_bars(entry["text_length_histogram"])]
    shares = sum((Counter(s["fonts"]) for s in splits.values()), Counter[str]())
    names = sorted(shares, key=lambda name: (-shares[name], name))
    rows = [["font", *splits]]
    rows += [[n, *(f"{100 * s['fonts'].get(n, 0):.1f} %" for s in splits.values())] for n in names[:FONTS_SHOWN]]
    lines += ["", *_aligned(rows)]
    if len(names) > FONTS_SHOWN:
        lines.append(f"... and {len(names) - FONTS_SHOWN} more fonts")
    reasons = sorted({reason for s in splits.values() for reason in s["rejected"]})
    rows = [["rejected", *splits]]
    rows += [[r, *(f"{s['rejected'].get(r, 0):,}" for s in splits.values())] for r in reasons]
    lines += ["", *_aligned(rows)] if reasons else ["", "rejected: nothing on record"]
    notes = [note for entry in splits.values() for note in entry["notes"]]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _aligned(rows: list[list[str]]) -> list[str]:
    """First column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def _bars(histogram: list[tuple[int, int]]) -> list[str]:
    if not histogram:
        return ["  (no samples)"]
    most = max(count for _, count in histogram)
    step = histogram[1][0] - histogram[0][0] if len(histogram) > 1 else 1
    names = [f"{low}" if step == 1 else f"{low}-{low + step - 1}" for low, _ in histogram]
    left = _aligned([["", name, f"{count:,}"] for name, (_, count) in zip(names, histogram, strict=True)])
    return [
        f"{row}  {'#' * round(BAR_CHARS * count / most)}".rstrip()
        for row, (_, count) in zip(left, histogram, strict=True)
    ]

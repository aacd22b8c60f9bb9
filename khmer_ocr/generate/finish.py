"""Complete splits: fragments become `metadata.json`, the run becomes `generation_metadata.json`, the journal goes."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from khmer_ocr.dataset import layout
from khmer_ocr.errors import OutputError
from khmer_ocr.generate.journal import Journal
from khmer_ocr.generate.sinks import replace

BUFFER_BYTES = 1 << 20


def read_overall(root: Path) -> dict[str, Any]:
    """`generation_metadata.json`, or an empty object where there is none.

    Raises:
        OutputError: it is damaged.
    """
    file = root / layout.GENERATION_METADATA
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OutputError(f"{file} is damaged ({error}). Run again with --overwrite, or delete it.") from error
    if not isinstance(content, dict):
        raise OutputError(f"{file} is damaged (no JSON object). Run again with --overwrite, or delete it.")
    return content


def complete_splits(root: Path) -> dict[str, dict[str, Any]]:
    """Facts of the splits that are complete, by name."""
    splits: dict[str, dict[str, Any]] = read_overall(root).get("splits", {})
    return {name: facts for name, facts in splits.items() if (root / name / layout.SPLIT_METADATA).is_file()}


def finish_split(
    journal: Journal, split: str, chunks: int, rejected: dict[str, int], identity: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Write a split's metadata from its fragments, sample by sample, then note the split as complete.

    Args:
        journal: the run's journal; every chunk of the split is committed.
        split: name of the split.
        chunks: how many chunks it has.
        rejected: lines left out, by reason.
        identity: what the run is made of.
        settings: `generation_config` as users know it.
    """
    fonts: Counter[str] = Counter()
    samples = stored_bytes = 0
    for summary in journal.summaries(split, chunks):
        fonts.update(summary["fonts"])
        samples += summary["samples"]
        stored_bytes += summary["bytes"]
    header = {
        "split": split,
        "total_samples": samples,
        "augmentation_applied": False,
        "fonts_used": sorted(fonts),
        "image_height": settings["image_height"],
        "schema_version": layout.SCHEMA_VERSION,
        "format": identity["format"],
        "rejected": rejected,
    }
    target = journal.root / split / layout.SPLIT_METADATA
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with partial.open("wb", buffering=BUFFER_BYTES) as stream:
        stream.writelines(layout.split_metadata(header, journal.sample_lines(split, chunks)))
    partial.replace(target)
    overall = read_overall(journal.root)
    splits = {**overall.get("splits", {})}
    splits[split] = {
        "total_samples": samples,
        "augmentation_applied": False,
        "fonts_used": sorted(fonts),
        "fonts": dict(sorted(fonts.items())),
        "rejected": rejected,
        "bytes": stored_bytes,
    }
    splits = {name: splits[name] for name in layout.SPLITS if name in splits}
    content = {
        "generation_config": settings,
        "splits": splits,
        "total_images": sum(facts["total_samples"] for facts in splits.values()),
        "format": identity["format"],
        "schema_version": layout.SCHEMA_VERSION,
        "run": identity,
    }
    file = journal.root / layout.GENERATION_METADATA
    replace(file, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())
    journal.forget(split)

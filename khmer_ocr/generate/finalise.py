"""Complete splits: fragments become `metadata.json`, the run becomes `generation_metadata.json`, the journal goes."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from khmer_ocr.augment.recipe import NONE
from khmer_ocr.dataset import layout
from khmer_ocr.dataset.repair_advice import to_begin_anew
from khmer_ocr.errors import OutputError
from khmer_ocr.generate.journal import Journal, read_object
from khmer_ocr.io.atomic import replace, replacing
from khmer_ocr.io.json_bytes import json_bytes

BUFFER_BYTES = 1 << 20
_NAME_WITH_SUFFIX = re.compile(rb'(\{"filename": "[^"\\]*)\.png"')
"""How version 0.1.0 began a fragment's sample; a run that it began is finished in the spelling that users know."""


def read_overall(root: Path) -> dict[str, Any]:
    """`generation_metadata.json`, or an empty object where there is none.

    Raises:
        OutputError: it is damaged.
    """
    file = root / layout.GENERATION_METADATA
    if not file.is_file():
        return {}
    content = read_object(file, root)
    splits = content.get("splits")
    if not isinstance(splits, dict) or not all(_is_facts(facts) for facts in splits.values()):
        raise OutputError(f"{file} is damaged (`splits` is {splits!r:.80}). {to_begin_anew(root)}")
    return content


def _is_facts(facts: object) -> bool:
    return (
        isinstance(facts, dict)
        and isinstance(facts.get("total_samples"), int)
        and isinstance(facts.get("rejected", {}), dict)
    )


def complete_splits(root: Path) -> dict[str, dict[str, Any]]:
    """Facts of the splits that are complete, by name."""
    splits: dict[str, dict[str, Any]] = read_overall(root).get("splits", {})
    return {name: facts for name, facts in splits.items() if (root / name / layout.SPLIT_METADATA).is_file()}


def write_overall(root: Path, content: dict[str, Any], splits: dict[str, Any]) -> None:
    """Write `generation_metadata.json` with these splits."""
    splits = {name: splits[name] for name in layout.SPLITS if name in splits}
    total = sum(facts["total_samples"] for facts in splits.values())
    content = {**content, "splits": splits, "total_images": total}
    replace(root / layout.GENERATION_METADATA, json_bytes(content, indent=2) + b"\n", root, tag="")


def split_header(
    split: str,
    samples: int,
    fonts: Mapping[str, int],
    rejected: dict[str, int],
    identity: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """A split's metadata, all but `samples`; see `finish_split`."""
    return {
        "split": split,
        "total_samples": samples,
        "augmentation_applied": split == layout.WORN_SPLIT and identity["recipe"] != NONE,
        "fonts_used": sorted(fonts),
        "image_height": settings["image_height"],
        "schema_version": layout.SCHEMA_VERSION,
        "format": identity["format"],
        "rejected": rejected,
    }


def split_facts(header: Mapping[str, Any], fonts: Mapping[str, int], stored_bytes: int) -> dict[str, Any]:
    """What `generation_metadata.json` says of a split."""
    return {**header, "fonts": dict(sorted(fonts.items())), "bytes": stored_bytes}


def finish_split(
    journal: Journal,
    split: str,
    chunks: int,
    rejected: dict[str, int],
    identity: dict[str, Any],
    settings: dict[str, Any],
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
    header = split_header(split, samples, fonts, rejected, identity, settings)
    target = journal.root / split / layout.SPLIT_METADATA
    with (
        replacing(target, journal.root, tag="") as partial,
        partial.open("wb", buffering=BUFFER_BYTES) as stream,
    ):
        stream.writelines(layout.split_metadata(header, _sample_lines(journal, split, chunks)))
    facts = split_facts(header, fonts, stored_bytes)
    content = {
        "generation_config": settings,
        "splits": {},
        "total_images": 0,
        "format": identity["format"],
        "schema_version": layout.SCHEMA_VERSION,
        "run": identity,
    }
    write_overall(journal.root, content, {**read_overall(journal.root).get("splits", {}), split: facts})
    journal.forget(split)


def _sample_lines(journal: Journal, split: str, chunks: int) -> Iterator[bytes]:
    for line in journal.sample_lines(split, chunks):
        old = _NAME_WITH_SUFFIX.match(line)
        yield line if old is None else old[1] + b'"' + line[old.end() :]

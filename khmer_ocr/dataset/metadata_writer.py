"""A split's `metadata.json` and the data set's `generation_metadata.json`, written whole or not at all."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from khmer_ocr.dataset import layout
from khmer_ocr.io.atomic import replace, replacing
from khmer_ocr.io.json_bytes import json_bytes

_BUFFER_BYTES = 1 << 20


def split_facts(header: Mapping[str, Any], fonts: Mapping[str, int], stored_bytes: int) -> dict[str, Any]:
    """What `generation_metadata.json` says of a split: its header, samples by font, and bytes."""
    return {**header, "fonts": dict(sorted(fonts.items())), "bytes": stored_bytes}


def write_split(root: Path, split: str, header: Mapping[str, Any], sample_lines: Iterable[bytes]) -> None:
    """Write a split's metadata sample by sample.

    Args:
        root: the data set's folder.
        split: name of the split.
        header: every key but `samples`.
        sample_lines: the samples' JSON objects.
    """
    target = root / split / layout.SPLIT_METADATA
    with replacing(target, root, tag="") as partial, partial.open("wb", buffering=_BUFFER_BYTES) as stream:
        stream.writelines(layout.split_metadata(header, sample_lines))


def write_overall(root: Path, content: Mapping[str, Any], splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the file with these splits, in their usual order; of others its `run` says nothing either.

    Args:
        root: the data set's folder.
        content: every other key.
        splits: what is to be said of each complete split.
    """
    content, names = dict(content), [name for name in layout.SPLITS if name in splits]
    run = content.get("run")
    if isinstance(run, dict) and isinstance(run.get("splits"), dict):
        content["run"] = {**run, "splits": {name: run["splits"][name] for name in names if name in run["splits"]}}
    total = sum(splits[name]["total_samples"] for name in names)
    content = {**content, "splits": {name: splits[name] for name in names}, "total_images": total}
    replace(root / layout.GENERATION_METADATA, json_bytes(content, indent=2) + b"\n", root, tag="")

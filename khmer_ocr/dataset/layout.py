"""Names, paths and the metadata schema of a stored data set: the one thing the drawing and the reading half share.

```
{root}/generation_metadata.json
{root}/{split}/metadata.json
{root}/{split}/images/{split}_{i:06d}.png     {root}/{split}/labels/{split}_{i:06d}.txt     format "files"
{root}/{split}/shards/{split}-{chunk:06d}.tar (+ .idx)                                      format "webdataset"
```
A sample of `metadata.json` stands on a line of its own, so that millions of them stream in both directions.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

SCHEMA_VERSION = 1
SPLITS = ("train", "val", "test")
CHUNK = 1024
"""Consecutive samples per chunk: the unit of work, of commit, of resume, of a shard."""
FORMATS = ("files", "webdataset")
WORN_SPLIT = "train"
"""The only split that recipes touch: what a reader is measured on stays clean."""

GENERATION_METADATA = "generation_metadata.json"
SPLIT_METADATA = "metadata.json"
IMAGES, LABELS, SHARDS = "images", "labels", "shards"
JOURNAL = ".journal"


class Sample(TypedDict, total=False):
    """One entry of `samples`; the first seven keys are those users know, the others are ours."""

    filename: str
    text: str
    font: str
    image_path: str
    label_path: str
    image_width: int
    image_height: int
    shard: str
    pixel_hash: str
    size_ppem: float
    augmentation: dict[str, Any]


REQUIRED_KEYS = ("filename", "text", "font", "image_path", "label_path", "image_width", "image_height")


def stem(split: str, index: int) -> str:
    """Name of sample `index` without its suffix; past 999,999 it grows a digit."""
    return f"{split}_{index:06d}"


def shard_name(split: str, chunk: int) -> str:
    """File name of the tar that holds one chunk."""
    return f"{split}-{chunk:06d}.tar"


def image_file(root: Path, split: str, filename: str) -> Path:
    """Where the image of `filename` lies under `root`."""
    return root / split / IMAGES / filename


def label_file(root: Path, split: str, filename: str) -> Path:
    """Where the label of the image `filename` lies under `root`."""
    return root / split / LABELS / (filename.removesuffix(".png") + ".txt")


def recorded_paths(root: str, split: str, stem: str, shard: str | None) -> tuple[str, str]:
    """`image_path` and `label_path` as the metadata carry them: the folder as it was given, then the place in it."""
    if shard is not None:
        return f"{root}/{split}/{SHARDS}/{shard}/{stem}.png", f"{root}/{split}/{SHARDS}/{shard}/{stem}.txt"
    return f"{root}/{split}/{IMAGES}/{stem}.png", f"{root}/{split}/{LABELS}/{stem}.txt"


def write_header(header: Mapping[str, Any]) -> bytes:
    """Open a split's metadata: every key but `samples`, which follow one a line, divided by `SAMPLE_DIVIDER`."""
    body = json.dumps(header, ensure_ascii=False, indent=2)
    return (body[: body.rindex("}")].rstrip() + ',\n  "samples": [\n').encode()


SAMPLE_DIVIDER = b",\n"
FOOTER = b"\n  ]\n}\n"


def split_metadata(header: Mapping[str, Any], sample_lines: Iterable[bytes]) -> Iterable[bytes]:
    """Stream a split's `metadata.json` from its header and its samples' JSON objects, one bytes object each."""
    yield write_header(header)
    divider = b""
    for line in sample_lines:
        yield divider + line
        divider = SAMPLE_DIVIDER
    yield FOOTER

"""Names, paths and the metadata schema of a stored data set: the one thing the drawing and the reading half share.

```
{root}/generation_metadata.json
{root}/{split}/metadata.json
{root}/{split}/images/{split}_{i:06d}.png     {root}/{split}/labels/{split}_{i:06d}.txt     format "files"
{root}/{split}/shards/{split}-{chunk:06d}.tar (+ .idx)                                      format "webdataset"
```
A sample's `filename` in the metadata is the name without its suffix, `{split}_{i:06d}`; trees of version 0.1.0 have it
with the suffix, and both are read. A sample of `metadata.json` stands on a line of its own, so that millions of them
stream in both directions.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from khmer_ocr.io.json_bytes import json_bytes

SCHEMA_VERSION = 1
Split = Literal["train", "val", "test"]
SPLITS: tuple[str, ...] = get_args(Split)
CHUNK = 1024
"""Consecutive samples per chunk: the unit of work, of commit, of resume, of a shard."""
Format = Literal["files", "webdataset"]
FORMATS: tuple[str, ...] = get_args(Format)
AUGMENTED_SPLIT = "train"
"""The only split that recipes touch: what a model is measured on stays clean."""

GENERATION_METADATA = "generation_metadata.json"
SPLIT_METADATA = "metadata.json"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".pgm", ".ppm")
"""What the name of an image may end with, in any case; our own end with the first."""
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
"""Five strings, then two numbers of pixels."""


def stem(split: str, index: int) -> str:
    """Name of sample `index` without its suffix; past 999,999 it grows a digit."""
    return f"{split}_{index:06d}"


def number_of(split: str, name: str) -> int | None:
    """Number of a sample by the name of its image, label or member, or of a shard's first one; None for other names."""
    match = re.fullmatch(rf"{re.escape(split)}[_-]([0-9]{{6,18}})(?:\.(?:png|txt|json|tar))?", name, re.ASCII)
    if match is None:
        return None
    number = int(match[1])
    if name.endswith(".tar"):
        return number * CHUNK if name == shard_name(split, number) else None
    return number if name.partition(".")[0] == stem(split, number) else None


def image_name(filename: str, image_path: str) -> str:
    """Name of a sample's image file, suffix included, from the two places where the metadata carry it.

    Args:
        filename: as it stands in the metadata, without suffix ("train_000000") or, in older trees, with it.
        image_path: as it stands in the metadata; of it only the suffix counts, since a data set may have been moved.
    """
    recorded = image_path[image_path.rfind("/") + 1 :]
    if recorded == filename:
        known = filename[filename.rfind(".") :].lower() in IMAGE_SUFFIXES
        return filename if known else f"{filename}.png"
    end = recorded.rfind(".")
    if recorded[:end] == filename and recorded[end:].lower() in IMAGE_SUFFIXES:
        return recorded
    return filename if filename.lower().endswith(IMAGE_SUFFIXES) else f"{filename}.png"


def is_image_name(name: str) -> bool:
    """Whether a file's name is that of an image of a format that is read."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def without_suffix(image_name: str) -> str:
    """Name of a sample as the metadata carry it, and of its label and JSON but for their suffix."""
    end = image_name.rfind(".")
    return image_name[:end] if end > 0 else image_name


def label_names(image_name: str) -> tuple[str, ...]:
    """Where an image's label may lie below labels/: as the image does below images/, or without its sub-folders."""
    own = without_suffix(image_name) + ".txt"
    return (own, own.rpartition("/")[2]) if "/" in own else (own,)


def shard_name(split: str, chunk: int) -> str:
    """File name of the tar that holds one chunk."""
    return f"{split}-{chunk:06d}.tar"


def image_file(root: Path, split: str, filename: str) -> Path:
    """Where the image of `filename` lies under `root`."""
    return root / split / IMAGES / filename


def recorded_paths(root: str, split: str, image_name: str, shard: str | None) -> tuple[str, str]:
    """`image_path` and `label_path` as the metadata carry them: the folder as it was given, then the place in it."""
    label = without_suffix(image_name) + ".txt"
    if shard is not None:
        return f"{root}/{split}/{SHARDS}/{shard}/{image_name}", f"{root}/{split}/{SHARDS}/{shard}/{label}"
    return f"{root}/{split}/{IMAGES}/{image_name}", f"{root}/{split}/{LABELS}/{label}"


FOOTER = b"\n  ]\n}\n"


def split_metadata(header: Mapping[str, Any], sample_lines: Iterable[bytes]) -> Iterable[bytes]:
    """Stream a split's `metadata.json` from its header and its samples' JSON objects, one bytes object each."""
    body = json_bytes(header, indent=2)
    yield body[: body.rindex(b"}")].rstrip() + b',\n  "samples": [\n'
    divider = b""
    for line in sample_lines:
        yield divider + line
        divider = b",\n"
    yield FOOTER

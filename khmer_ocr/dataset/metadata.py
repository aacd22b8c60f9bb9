"""A split's `metadata.json` as a stream: its header, its samples one after the other, in bounded memory."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import ijson

from khmer_ocr.dataset import layout, paths
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.dataset.repair_advice import advice_to_repair
from khmer_ocr.errors import DatasetError

MAX_SIDE_PX = 1 << 24
_SAMPLES_KEY = b'\n  "samples": [\n'
_HEADER_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 18
_MAX_DEPTH = 8
_SAMPLE = "samples[]"


def damaged(path: Path, what: str) -> DatasetError:
    """Say what is wrong with a split's metadata file and what to do."""
    advice = advice_to_repair(path.parent.parent, path.parent.name)
    return DatasetError(f"{path}: {what}. {advice} (or move this file away to let the folder be scanned).")


def checked_sample(entry: Any, position: int, path: Path) -> Sample:
    """Refuse an entry of `samples` without a key users rely on, or with a value no line can have."""
    try:
        width, height = entry["image_width"], entry["image_height"]
        if type(width) is not int or type(height) is not int or not (0 < width < MAX_SIDE_PX > height > 0):
            raise damaged(path, f"sample {position} has the size {width!r} x {height!r}")
        for name in layout.REQUIRED_KEYS[:5]:
            if type(entry[name]) is not str:
                raise damaged(path, f"sample {position} has {name} = {entry[name]!r} where a string belongs")
        paths.safe_name(entry["filename"], path)
        if "shard" in entry:
            paths.safe_name(entry["shard"], path)
    except KeyError as fault:
        raise damaged(path, f"sample {position} has no {fault.args[0]!r}") from fault
    except TypeError as fault:
        raise damaged(path, f"sample {position} is not an object of the known keys") from fault
    return cast(Sample, entry)


def _own_layout(path: Path) -> tuple[dict[str, Any], int, int] | None:
    """Header, first and last byte of the samples if the file stands one sample a line, as `layout` writes it."""
    with paths.open_contained(path.parent.parent, path) as file:
        head = file.read(_HEADER_BYTES)
        at = head.find(_SAMPLES_KEY)
        end = os.fstat(file.fileno()).st_size - len(layout.FOOTER)
        start = at + len(_SAMPLES_KEY)
        if at < 0 or end < start or head[start : start + 1] not in b"{\n":
            return None
        file.seek(start)
        first = file.readline().rstrip()
        file.seek(end)
        if file.read() != layout.FOOTER or (first and not first.endswith((b"}", b"},"))):
            return None
    try:
        header = json.loads(head[:start] + b"]}")
    except (ValueError, RecursionError):
        return None
    return header, start, end


def _own_samples(path: Path, start: int, end: int) -> Iterator[Any]:
    """Parse blocks of whole lines: half the time of one `json.loads` a line."""
    with paths.open_contained(path.parent.parent, path) as file:
        file.seek(start)
        at, position = start, 0
        while at < end:
            block = file.read(min(_BLOCK_BYTES, end - at)) + file.readline()
            at += len(block)
            try:
                entries = json.loads("[" + block.decode().strip().removesuffix(",") + "]")
            except (ValueError, RecursionError) as fault:
                raise damaged(path, f"damaged soon after sample {position} ({fault})") from fault
            yield from entries
            position += len(entries)


def _top_level(path: Path) -> Iterator[tuple[str, Any]]:
    """Walk JSON of any layout: yield each top-level key with its value, and each sample alone under `_SAMPLE`.

    `ijson.items` is no help here: on deeply nested input its prefixes grow with the square of the depth.
    """
    stack: list[Any] = []
    keys: list[Any] = []
    with paths.open_contained(path.parent.parent, path) as file:
        for event, value in ijson.basic_parse(file, use_float=True, buf_size=_BLOCK_BYTES):
            if event == "map_key":
                keys[-1] = value
                continue
            if event in ("start_map", "start_array"):
                if len(stack) == _MAX_DEPTH:
                    raise damaged(path, f"nested more than {_MAX_DEPTH} levels deep")
                stack.append({} if event == "start_map" else [])
                keys.append("")
                continue
            if event in ("end_map", "end_array"):
                value = stack.pop()
                keys.pop()
            if len(stack) == 1:
                yield keys[0], value
            elif len(stack) == 2 and keys[0] == "samples":
                yield _SAMPLE, value
            elif stack and isinstance(stack[-1], list):
                stack[-1].append(value)
            elif stack:
                stack[-1][keys[-1]] = value


def read_header(path: Path) -> dict[str, Any]:
    """Read a split's `metadata.json` without its samples, in bounded memory.

    Args:
        path: a split's metadata file of any JSON layout.

    Returns:
        Every top-level key, `samples` as an empty list.

    Raises:
        DatasetError: the file is not whole JSON.
    """
    try:
        own = _own_layout(path)
        return own[0] if own is not None else {key: value for key, value in _top_level(path) if key != _SAMPLE}
    except (ijson.JSONError, ValueError) as fault:
        raise damaged(path, f"cut short or not JSON ({_first_line(fault)})") from fault
    except OSError as fault:
        raise damaged(path, f"cannot be read ({fault.strerror})") from fault


def iter_samples(path: Path) -> Iterator[Sample]:
    """Stream the samples of a split's `metadata.json` in bounded memory.

    Args:
        path: a split's metadata file: ours, one sample a line, or any other layout of the same keys.

    Yields:
        One checked sample after another, in the order of the file.

    Raises:
        DatasetError: the file is damaged or cut, or `total_samples` is not the number of samples.
    """
    count, header = 0, dict[str, Any]()
    try:
        own = _own_layout(path)
        if own is not None:
            header = own[0]
            for entry in _own_samples(path, own[1], own[2]):
                yield checked_sample(entry, count, path)
                count += 1
        else:
            for key, value in _top_level(path):
                if key == _SAMPLE:
                    yield checked_sample(value, count, path)
                    count += 1
                else:
                    header[key] = value
    except (ijson.JSONError, UnicodeDecodeError) as fault:
        raise damaged(path, f"cut short or not JSON after {count} samples ({_first_line(fault)})") from fault
    except OSError as fault:
        raise damaged(path, f"cannot be read ({fault.strerror})") from fault
    if header.get("samples") != []:
        raise damaged(path, "holds no list `samples`")
    if header.get("total_samples", count) != count:
        raise damaged(path, f"total_samples is {header['total_samples']}, but {count} samples follow")


def _first_line(fault: Exception) -> str:
    return str(fault).partition("\n")[0]

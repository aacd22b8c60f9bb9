"""What an output is made of: recorded before anything is made, read when the work goes on, compared with what is asked.

A record is a JSON object with a checksum and stands twice, so that damage to one file of two loses nothing.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from khmer_ocr.io.atomic import make_folder, refuse_links, replace
from khmer_ocr.io.json_bytes import json_bytes

log = logging.getLogger(__name__)
RUN_FILE, RUN_COPY = "run.json", "run.copy.json"
_CHECKSUM = "checksum"


def write_record(folder: Path, record: Mapping[str, Any], root: Path) -> None:
    """Write a record into a folder below `root`, made if need be."""
    make_folder(root, folder)
    data = json_bytes({**record, _CHECKSUM: _checksum(record)}, indent=1)
    for name in (RUN_COPY, RUN_FILE):
        replace(folder / name, data, root)


def read_record(folder: Path, root: Path) -> dict[str, Any] | None:
    """Read the record of a folder, from its copy where it is damaged; None where there is none.

    Raises:
        ValueError: both are damaged, or it is and has no copy; the text says what is wrong.
    """
    file, copy = folder / RUN_FILE, folder / RUN_COPY
    refuse_links(root, file, copy)
    if not file.is_file():
        return None
    try:
        return _read(file)
    except ValueError as damage:
        if not copy.is_file():
            raise
        record = _read(copy)
        log.warning("%s is damaged; its copy is taken", file)
        log.debug("%s", damage)
        return record


def _read(file: Path) -> dict[str, Any]:
    """A record, compared with its checksum; version 0.1.0 wrote none."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        known = record.pop(_CHECKSUM, None)
    except (ValueError, RecursionError, AttributeError, TypeError) as fault:
        raise ValueError(f"{file} is damaged ({fault})") from fault
    if known is not None and known != _checksum(record):
        raise ValueError(f"{file} is damaged (its checksum is that of other content)")
    return dict(record)


def _checksum(record: Mapping[str, Any]) -> str:
    return xxhash.xxh3_64_digest(json_bytes(dict(record))).hex()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say which settings differ, one a string: `key: old -> new`."""
    out = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            out += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            out.append(f"{prefix}{key}: {_short(before)} -> {_short(after)}")
    return out


def _short(value: object) -> str:
    text = "(none)" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."

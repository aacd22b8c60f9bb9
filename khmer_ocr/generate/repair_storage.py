"""The stored side of a repair: reading what stands of a chunk, and replacing parts of it.

A part is replaced by a whole file that is moved to its place; nothing is written through a link, and of a shard every
member that is not replaced keeps its bytes.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from khmer_ocr.dataset import layout, paths, shards
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.errors import DatasetError
from khmer_ocr.generate.repair_evidence import Row, record_of
from khmer_ocr.io.atomic import make_folder, replace
from khmer_ocr.io.json_bytes import json_bytes

_SUFFIXES = ("png", "txt", "json")


class StoredFiles:
    """One split of the format "files".

    Args:
        root: the data set's folder.
        split: name of the split.
    """

    def __init__(self, root: Path, split: str) -> None:
        self._root, self._split = root, split

    def numbers(self) -> set[int]:
        """Numbers of all samples that have an image or a label."""
        found = set[int]()
        for name in (layout.IMAGES, layout.LABELS):
            folder = self._root / self._split / name
            entries = folder.iterdir() if folder.is_dir() else ()
            found |= {number for entry in entries if (number := layout.number_of(self._split, entry.name)) is not None}
        return found

    def read(self, rows: Sequence[Row]) -> None:
        """Note what stands of some samples."""
        for row in rows:
            image, label = self._places(row.number)
            row.see_image(self._bytes(row, image), image)
            row.see_label(self._bytes(row, label), label)

    def _places(self, number: int) -> tuple[Path, Path]:
        folder, stem = self._root / self._split, layout.stem(self._split, number)
        return folder / layout.IMAGES / f"{stem}.png", folder / layout.LABELS / f"{stem}.txt"

    def _bytes(self, row: Row, path: Path) -> bytes | None:
        if path.is_symlink():
            row.link = path
        try:
            return paths.read_contained(self._root, path)
        except DatasetError as fault:
            row.why = str(fault)
            # Something stands there, so that it is not taken for a place where nothing can be lost.
            return b"" if os.path.lexists(path) else None

    def is_whole(self, row: Row) -> bool:
        """Whether a sample is whole; see `Row.whole`."""
        return row.whole

    def bytes_of(self, rows: Sequence[Row]) -> int:
        """Bytes that proven samples take."""
        return sum(len(row.drawn[1]) + len(row.drawn[0]["text"].encode()) for row in rows if row.drawn is not None)

    def write(self, rows: Sequence[Row], records: Mapping[int, Sample]) -> int:
        """Store proven samples where what stands is another; returns how many files that took."""
        written = 0
        for row in rows:
            if row.drawn is None:
                continue
            (sample, data), (image, label) = row.drawn, self._places(row.number)
            stored = {image: data if row.image_hash != sample["pixel_hash"] else None}
            stored[label] = sample["text"].encode() if row.label != sample["text"] else None
            for path, content in stored.items():
                if content is not None:
                    make_folder(self._root, path.parent)
                    replace(path, content, self._root, tag="")
                    written += 1
        return written


class StoredShards:
    """One split of the format "webdataset"; see `StoredFiles`."""

    def __init__(self, root: Path, split: str) -> None:
        self._root, self._split = root, split
        self._folder = root / split / layout.SHARDS
        self._blocks: dict[str, bytes] = {}
        self._path = self._folder
        self._whole = False

    def numbers(self) -> set[int]:
        """Numbers of all samples that have a member in a shard."""
        found = set[int]()
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            members = self._found(path)[0] if path.suffix == ".tar" else {}
            found |= {number for member in members if (number := layout.number_of(self._split, member)) is not None}
        return found

    def _found(self, path: Path) -> tuple[dict[str, tuple[int, int]], bytes]:
        try:
            data = paths.read_contained(self._root, path)
        except DatasetError:
            return {}, b""  # what is missing or can't be read has no member to keep
        return shards.salvaged_members(data), data

    def read(self, rows: Sequence[Row]) -> None:
        """Note what stands of the samples of one chunk."""
        chunk = rows[0].number // layout.CHUNK
        self._path = self._folder / layout.shard_name(self._split, chunk)
        members, data = self._found(self._path)
        try:
            self._whole = list(shards.tar_members(self._root, self._path)) == list(members)
        except DatasetError:
            self._whole = False
        self._blocks = {name: _block(data, offset, size) for name, (offset, size) in members.items()}
        for row in rows:
            stem = layout.stem(self._split, row.number)
            parts = {
                suffix: data[at : at + size]
                for suffix in _SUFFIXES
                for at, size in [members.get(f"{stem}.{suffix}", (0, 0))]
                if at
            }
            if self._path.is_symlink():
                row.link = self._path
            row.see_image(parts.get("png"), self._path / f"{stem}.png")
            row.see_label(parts.get("txt"), self._path / f"{stem}.txt")
            record = record_of(parts["json"], self._path) if "json" in parts else None
            if record is not None and layout.number_of(self._split, record["filename"]) == row.number:
                row.records.append(record)

    def is_whole(self, row: Row) -> bool:
        """Whether a sample is whole, its JSON member and the shard it lies in too."""
        records = row.records
        return self._whole and row.whole and len(records) > 1 and records[-1]["text"] == records[0]["text"]

    def write(self, rows: Sequence[Row], records: Mapping[int, Sample]) -> int:
        """Store proven samples where what stands is another, then the shard's index.

        Args:
            rows: those of the chunk that was read.
            records: what metadata are to say of each sample that was proven.

        Returns:
            How many members that took. A shard that can't be walked is replaced only when nothing in it is given up.
        """
        blocks, written = dict(self._blocks), 0
        if not rows:
            return 0
        for row in rows:
            for name, content in self._new(row, records).items():
                block = shards.member_block(name, content)
                written += block != blocks.get(name)
                blocks[name] = block
        order = [f"{layout.stem(self._split, row.number)}.{suffix}" for row in rows for suffix in _SUFFIXES]
        given_up = not self._whole and not all(name in blocks for name in order)
        if given_up or (not written and self._whole):
            return 0
        names = [name for name in order if name in blocks] + [name for name in blocks if name not in set(order)]
        data = b"".join(blocks[name] for name in names) + shards.TAR_END
        make_folder(self._root, self._folder)
        replace(self._path, data, self._root, tag="")
        replace(self._path.with_suffix(".idx"), shards.dali_index(shards.salvaged_members(data)), self._root, tag="")
        return max(written, 1)

    def bytes_of(self, rows: Sequence[Row]) -> int:
        """Bytes of the shard that was read or written last, which is that of these samples."""
        return self._path.stat().st_size if self._path.exists() else 0

    def _new(self, row: Row, records: Mapping[int, Sample]) -> dict[str, bytes]:
        """Members to be replaced for a proven sample, by name."""
        if row.drawn is None or self.is_whole(row):
            return {}
        (sample, data), stem = row.drawn, layout.stem(self._split, row.number)
        new = {f"{stem}.json": json_bytes(records[row.number])}
        if row.image_hash != sample["pixel_hash"]:
            new[f"{stem}.png"] = data
        if row.label != sample["text"]:
            new[f"{stem}.txt"] = sample["text"].encode()
        return new


def _block(data: bytes, offset: int, size: int) -> bytes:
    """A member of a tar with its header and the zeros behind it."""
    return data[offset - shards.TAR_BLOCK : offset + -(-size // shards.TAR_BLOCK) * shards.TAR_BLOCK]

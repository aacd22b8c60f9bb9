"""The stored side of a repair: reading what stands of a chunk, and replacing parts of it.

A part is replaced by a whole file that is moved to its place; nothing is written through a link, and of a shard every
member that is not replaced keeps its bytes.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
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
        return self._numbers(name for folder in (layout.IMAGES, layout.LABELS) for name in self._names(folder))

    def _names(self, folder: str) -> list[str]:
        path = self._root / self._split / folder
        return [entry.name for entry in path.iterdir()] if path.is_dir() else []

    def _numbers(self, names: Iterable[str]) -> set[int]:
        return {number for name in names if (number := layout.number_of(self._split, name)) is not None}

    def _places(self, number: int, shard: str | None = None) -> tuple[Path, Path]:
        """Where a sample's image and label lie."""
        name = f"{layout.stem(self._split, number)}.png"
        image, label = layout.recorded_paths(str(self._root), self._split, name, shard)
        return Path(image), Path(label)

    def read(self, rows: Sequence[Row]) -> None:
        """Note what stands of the samples of one chunk."""
        for row in rows:
            places = self._places(row.number)
            for path in places:
                if path.is_symlink():
                    row.link = path
                try:
                    row.stored[path.suffix[1:]] = paths.read_contained(self._root, path)
                except DatasetError as fault:
                    row.why = str(fault)
                    if os.path.lexists(path):  # so that it is not taken for a place where nothing can be lost
                        row.stored[path.suffix[1:]] = b""
            row.decode(*places)

    def write(self, rows: Sequence[Row], records: Mapping[int, Sample]) -> int:
        """Store proven samples where what stands is another.

        Args:
            rows: those of the chunk that was read.
            records: what metadata are to say of each sample that was proven.

        Returns:
            How many files or members of a shard that took.
        """
        written = 0
        for row in rows:
            new = self._new(row, records)
            for path in self._places(row.number):
                if path.suffix[1:] in new:
                    make_folder(self._root, path.parent)
                    replace(path, new[path.suffix[1:]], self._root, tag="")
                    written += 1
        return written

    def _new(self, row: Row, records: Mapping[int, Sample]) -> dict[str, bytes]:
        """What is to be replaced of a proven sample, by suffix."""
        if row.drawn is None or row.whole:
            return {}
        sample, image = row.drawn
        new = {"json": json_bytes(records[row.number])}
        if row.image_hash != sample["pixel_hash"]:
            new["png"] = image
        if row.label != sample["text"]:
            new["txt"] = sample["text"].encode()
        return new

    def bytes_of(self, rows: Sequence[Row]) -> int:
        """Bytes that proven samples take."""
        return sum(len(row.drawn[1]) + len(row.drawn[0]["text"].encode()) for row in rows if row.drawn is not None)


class StoredShards(StoredFiles):
    """One split of the format "webdataset"."""

    def numbers(self) -> set[int]:
        """Numbers of all samples that have a member in a shard."""
        tars = (name for name in self._names(layout.SHARDS) if name.endswith(".tar"))
        return self._numbers(member for tar in tars for member in self._members_of(self._tar(tar)))

    def _tar(self, name: str) -> Path:
        return self._root / self._split / layout.SHARDS / name

    def _members_of(self, tar: Path) -> dict[str, tuple[bytes, int]]:
        """Members of a shard that are whole: the bytes from the header to the zeros behind it, the content's size."""
        try:
            data = paths.read_contained(self._root, tar)
        except DatasetError:
            return {}  # what is missing or can't be read has no member to keep
        return {
            name: (data[offset - shards.TAR_BLOCK : offset + -(-size // shards.TAR_BLOCK) * shards.TAR_BLOCK], size)
            for name, (offset, size) in shards.salvaged_members(data).items()
        }

    def read(self, rows: Sequence[Row]) -> None:
        """Note what stands of the samples of one chunk."""
        shard = layout.shard_name(self._split, rows[0].number // layout.CHUNK)
        self._path = self._tar(shard)
        self._members = self._members_of(self._path)
        try:
            self._whole = list(shards.tar_members(self._root, self._path)) == list(self._members)
        except DatasetError:
            self._whole = False
        for row in rows:
            stem = layout.stem(self._split, row.number)
            for suffix in _SUFFIXES:
                if (member := self._members.get(f"{stem}.{suffix}")) is not None:
                    row.stored[suffix] = member[0][shards.TAR_BLOCK :][: member[1]]
            if self._path.is_symlink():
                row.link = self._path
            row.decode(*self._places(row.number, shard))
            record, row.intact = record_of(row.stored.get("json", b""), self._path), False
            if record is not None and layout.number_of(self._split, record["filename"]) == row.number:
                row.records.append(record)
                row.intact = self._whole and len(row.records) > 1 and record["text"] == row.records[0]["text"]

    def write(self, rows: Sequence[Row], records: Mapping[int, Sample]) -> int:
        """Do what `StoredFiles.write` does, then write the shard's index.

        A shard that can't be walked is replaced only when nothing in it is given up.
        """
        members, written = dict(self._members), 0
        for row in rows:
            for suffix, content in self._new(row, records).items():
                name = f"{layout.stem(self._split, row.number)}.{suffix}"
                member = shards.member_block(name, content), len(content)
                written += member != members.get(name)
                members[name] = member
        order = [f"{layout.stem(self._split, row.number)}.{suffix}" for row in rows for suffix in _SUFFIXES]
        given_up = not self._whole and not all(name in members for name in order)
        if not rows or given_up or (not written and self._whole):
            return 0
        names = dict.fromkeys([*(name for name in order if name in members), *members])
        make_folder(self._root, self._path.parent)
        shards.write_shard(self._root, self._path, {name: members[name] for name in names})
        return max(written, 1)

    def bytes_of(self, rows: Sequence[Row]) -> int:
        """Bytes of the shard that was read or written last, which is that of these samples."""
        return self._path.stat().st_size if self._path.exists() else 0

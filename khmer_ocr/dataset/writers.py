"""Where a chunk's encoded lines go: the known tree of files, or one tar shard with an index for DALI.

A writer stores the images and labels of a chunk completely; only then does the worker commit the chunk to the journal.
What a killed worker left half done is written again by the one that draws the chunk next, with the same bytes.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from khmer_ocr.dataset import layout, shards
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.io.atomic import FRESH, create_fresh, make_folder, refuse_links
from khmer_ocr.io.json_bytes import json_bytes


class FileWriter:
    """`images/{split}_{i:06d}.png` beside `labels/{split}_{i:06d}.txt`.

    Args:
        root: the data set's folder.
        split: name of the split.
    """

    def __init__(self, root: Path, split: str) -> None:
        folders = (root / split / layout.IMAGES, root / split / layout.LABELS)
        self._images, self._labels = folders
        for folder in folders:
            make_folder(root, folder)
        # Names relative to an open folder spare the kernel four path look-ups a file.
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._images_fd, self._labels_fd = (os.open(folder, flags) for folder in folders)

    def write(self, chunk: int, samples: Sequence[Sample], images: Sequence[bytes]) -> int:
        """Write two files a sample; returns the bytes."""
        total = 0
        for sample, image in zip(samples, images, strict=True):
            name, label = sample["filename"], sample["text"].encode()
            _write_file(self._images, self._images_fd, f"{name}.png", image)
            _write_file(self._labels, self._labels_fd, f"{name}.txt", label)
            total += len(image) + len(label)
        return total

    def close(self) -> None:
        """Let go of the folders."""
        os.close(self._images_fd)
        os.close(self._labels_fd)


def _write_file(folder: Path, folder_fd: int, name: str, data: bytes) -> None:
    """Write a file of an open folder under its own name; what had that name before is not written into."""
    try:
        fd = os.open(name, FRESH, 0o644, dir_fd=folder_fd)
    except FileExistsError:
        # Left by a killed process, or planted: a link would lead elsewhere, a second name (hard link) keeps its bytes.
        if stat.S_ISLNK(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
            refuse_links(folder, folder / name)
        fd = create_fresh(name, 0o644, dir_fd=folder_fd)
    try:
        written = os.write(fd, data)
        while written < len(data):
            written += os.write(fd, data[written:])
    finally:
        os.close(fd)


class ShardWriter:
    """`shards/{split}-{chunk:06d}.tar` in WebDataset's naming, and its `.idx` in DALI's format v1.2.

    Args:
        root: the data set's folder.
        split: name of the split.
    """

    def __init__(self, root: Path, split: str) -> None:
        self._root, self._folder, self._split = root, root / split / layout.SHARDS, split
        make_folder(root, self._folder)

    def write(self, chunk: int, samples: Sequence[Sample], images: Sequence[bytes]) -> int:
        """Write one tar with three members a sample, then its index; returns the tar's bytes."""
        members: dict[str, tuple[bytes, int]] = {}
        for sample, image in zip(samples, images, strict=True):
            for suffix, data in (("png", image), ("txt", sample["text"].encode()), ("json", json_bytes(sample))):
                name = f"{sample['filename']}.{suffix}"
                members[name] = shards.member_block(name, data), len(data)
        return shards.write_shard(self._root, self._folder / layout.shard_name(self._split, chunk), members)

    def close(self) -> None:
        """Nothing is held open."""


def open_writer(format_name: str, root: Path, split: str) -> FileWriter | ShardWriter:
    """The writer of a format of `layout.FORMATS`."""
    return FileWriter(root, split) if format_name == "files" else ShardWriter(root, split)

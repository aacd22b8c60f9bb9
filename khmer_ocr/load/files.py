"""Bytes of images and labels, from files or shards, with as few system calls as reading safely needs.

`SplitIndex` reads the same bytes; here a file costs half the time, which is a tenth of decoding it. Whatever is not a
plain file of the expected size is left to `SplitIndex`, so that faults have one wording.

Letters: N samples of the split.
"""

import os
import stat
from contextlib import suppress

import numpy as np

from khmer_ocr.dataset import layout, shards
from khmer_ocr.dataset.images import MAX_FILE_BYTES
from khmer_ocr.dataset.index import SplitIndex

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_ABSENT = (-1, 0)


def read_plain(path: str, offset: int = 0, size: int | None = None) -> bytes | None:
    """Read a plain file, or a part of it.

    Args:
        path: the file; a symbolic link is not followed.
        offset: where to begin, in bytes.
        size: how many bytes; None reads to the end.

    Returns:
        All of them, or None where that is not possible for any reason.
    """
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            status = os.fstat(descriptor)
            if size is None:
                size = status.st_size - offset
            if not stat.S_ISREG(status.st_mode) or not 0 <= size <= MAX_FILE_BYTES:
                return None
            data = os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return data if len(data) == size else None


class SplitFiles:
    """Reads the images and labels of one split; can be sent to worker processes.

    Args:
        index: the split.
    """

    def __init__(self, index: SplitIndex) -> None:
        self._index = index
        self._folder = f"{index.root}/{index.split}/"
        if index.shard_ids is not None:
            # Offset and size of the image, then of the label, filled shard by shard.
            self._places_N4 = np.zeros((len(index), 4), np.int64)
            self._known = set[int]()

    def image(self, i: int) -> bytes:
        """PNG bytes of sample i; raises `DatasetError` where they are missing."""
        index = self._index
        if index.shard_ids is None:
            data = read_plain(f"{self._folder}{layout.IMAGES}/{index.filename(i)}")
        else:
            data = self._member(i, int(index.shard_ids[i]), 0)
        return index.image_bytes(i) if data is None else data

    def label(self, i: int) -> str:
        """Text of the label of sample i; raises `DatasetError` where it is missing or no UTF-8."""
        index = self._index
        if index.shard_ids is None:
            stem = index.filename(i).removesuffix(".png")
            data = read_plain(f"{self._folder}{layout.LABELS}/{stem}.txt")
        else:
            data = self._member(i, int(index.shard_ids[i]), 2)
        if data is not None:
            with suppress(UnicodeDecodeError):  # the index says what is wrong
                return data.decode().removesuffix("\n").removesuffix("\r")
        return index.label_text(i)

    def _member(self, i: int, shard_id: int, column: int) -> bytes | None:
        if shard_id not in self._known:
            self._find_members(shard_id)
        offset, size = self._places_N4[i, column : column + 2].tolist()
        path = f"{self._folder}{layout.SHARDS}/{self._index.shards[shard_id]}"
        return None if offset < 0 else read_plain(path, offset, size)

    def _find_members(self, shard_id: int) -> None:
        index = self._index
        assert index.shard_ids is not None
        members = shards.tar_members(index.root, index.shard_path(index.shards[shard_id]))
        for row in np.flatnonzero(index.shard_ids == shard_id).tolist():
            stem = index.filename(row).removesuffix(".png")
            image, label = members.get(f"{stem}.png", _ABSENT), members.get(f"{stem}.txt", _ABSENT)
            self._places_N4[row] = (*image, *label)
        self._known.add(shard_id)

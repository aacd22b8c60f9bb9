"""The one reader of a split's stored images and labels, from files or shards, with the checks of all that is recorded.

No image leaves it with the text of another: whoever decodes compares the pixels with the recorded hash, which costs a
fiftieth of decoding them. Who decodes elsewhere (DALI) takes the bytes by `encoded` and hands what became of them to
`confirm`, once for each state of a file: size, times and inode tell whether it is still the one that was compared.
Nothing of this is kept on disk, where it could be stale or forged.

Letters: N samples of the split, H rows, W columns.
"""

import logging
import os
import stat
from array import array
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from khmer_ocr.dataset import layout, paths, sample_decoding, shards
from khmer_ocr.dataset.image_io import has_ink
from khmer_ocr.dataset.repair_advice import to_mend
from khmer_ocr.errors import DatasetError
from khmer_ocr.text.normalize import normalize

log = logging.getLogger(__name__)
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_ABSENT = (-1, 0)
_UNKNOWN = 0
"""Signature of bytes whose file was not looked at: never equal to one that was compared."""
_told = set[tuple[Path, str]]()


class StoredSplit(Protocol):
    """What the reader needs to know of a split; `SplitIndex` is one, and describes the attributes."""

    @property
    def root(self) -> Path: ...  # noqa: D102
    @property
    def split(self) -> str: ...  # noqa: D102
    @property
    def widths(self) -> npt.NDArray[np.int32]: ...  # noqa: D102
    @property
    def heights(self) -> npt.NDArray[np.int32]: ...  # noqa: D102
    @property
    def pixel_hashes(self) -> npt.NDArray[np.uint64] | None: ...  # noqa: D102
    @property
    def shard_ids(self) -> npt.NDArray[np.int32] | None: ...  # noqa: D102
    @property
    def shards(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def scanned(self) -> bool: ...  # noqa: D102
    @property
    def outside(self) -> bool: ...  # noqa: D102
    def __len__(self) -> int: ...
    def text(self, i: int) -> str: ...  # noqa: D102
    def filename(self, i: int) -> str: ...  # noqa: D102
    def paths(self, i: int) -> tuple[str, str]: ...  # noqa: D102
    def shard_path(self, shard: str) -> Path: ...  # noqa: D102


Stored = tuple[bytes, int]
"""Bytes of a file or shard member, and the signature of the file's size, times and inode when it was read, or 0 where
they are not known. A plain tuple: this is made for every line."""


class EncodedSample(NamedTuple):
    """An image that another decoder is to decode.

    Attributes:
        data: the whole file: a PNG, or another format where the data set is not ours.
        to_confirm: where its pixels were not compared with their hash yet: what `confirm` wants to be given with them.
    """

    data: bytes
    to_confirm: int | None


def tell_unhashed(index: StoredSplit) -> None:
    """Say once in a process that a split records no pixel hashes."""
    if index.pixel_hashes is None and len(index):
        tell_once(
            index,
            f"{index.root / index.split}: no pixel hashes are recorded; two images of equal size that changed places "
            "can't be noticed.",
        )


def tell_once(index: StoredSplit, *sentences: str) -> None:
    """Warn of what a person should know of a split, each sentence once in a process."""
    for sentence in sentences:
        if (index.root, sentence) not in _told:
            _told.add((index.root, sentence))
            log.warning("%s", sentence)


def read_plain(path: str, offset: int = 0, size: int | None = None) -> Stored | None:
    """Read a plain file, or a part of it, with as few system calls as reading safely needs.

    Args:
        path: the file; a symbolic link is not followed.
        offset: where to begin, in bytes.
        size: how many bytes; None reads to the end.

    Returns:
        All of them, or None where that is not possible for any reason: who asks has another way, which says it.
    """
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            status = os.fstat(descriptor)
            if size is None:
                size = status.st_size - offset
            if not stat.S_ISREG(status.st_mode) or not 0 <= size <= paths.MAX_FILE_BYTES:
                return None
            data = os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)
    except (OSError, ValueError):  # a name with a NUL is a ValueError
        return None
    return (data, _signature(status)) if len(data) == size else None


def _signature(status: os.stat_result) -> int:
    seen = hash((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    return seen & 0xFFFF_FFFF_FFFF_FFFF or 1


def _signature_of(path: Path) -> int:
    """Signature of a file that may be reached by a link; of one that is not there, that of unknown files."""
    try:
        return _signature(path.stat())
    except OSError:
        return _UNKNOWN


class SplitReader:
    """Reads the images and labels of one split; can be sent to worker processes.

    Args:
        index: the split.
    """

    def __init__(self, index: StoredSplit) -> None:
        self._index = index
        self._images = f"{index.root}/{index.split}/{layout.IMAGES}/" if index.shard_ids is None else None
        self._labels_seen_N = np.zeros(len(index), np.bool_)
        # Signature of the file whose pixels were compared; an array of Python's is read in a third of numpy's time.
        self._compared = array("Q", bytes(8 * len(index)))
        if index.shard_ids is not None:
            # Offset and size of the image, then of the label, filled shard by shard; which state of the shard that was.
            self._places_N4 = np.zeros((len(index), 4), np.int64)
            self._walked = dict[int, int]()

    def image_bytes(self, i: int) -> bytes:
        """Bytes of image i as stored; raises `DatasetError` where they are missing."""
        return self._read(i, 0, self._name(i))[0]

    def label_text(self, i: int) -> str:
        """Text of the label file of sample i, which may differ from the metadata where the data set is damaged.

        Where labels come from outside, in their normal form, as the texts of the index are.

        Raises:
            DatasetError: it is missing, or no UTF-8.
        """
        path = self._index.paths(i)[1]
        outside = self._index.outside
        label = sample_decoding.decode_label(self._read(i, 1, path)[0], path, outside=outside)
        return normalize(label) if outside else label

    def pixels(self, i: int) -> npt.NDArray[np.uint8]:
        """Decode image i and compare it with all that is recorded of it.

        Args:
            i: position in the split, 0 <= i < N.

        Returns:
            uint8 (H, W), 255 is white.

        Raises:
            DatasetError: missing, unreadable, of another size or of other pixels than recorded.
        """
        name = self._name(i)
        pixels_HW = sample_decoding.decode_image(self._read(i, 0, name)[0], name)
        self._check_size(i, name, pixels_HW.shape[1], pixels_HW.shape[0])
        fault = self._hash_fault(i, name, pixels_HW)
        if fault is not None:
            raise DatasetError(fault)
        if self._index.outside and self._index.text(i) and not has_ink(pixels_HW):
            raise DatasetError(f"{name} is blank, and its label says {self._index.text(i)!r:.80}. Mend one of both.")
        return pixels_HW

    def line(self, i: int) -> npt.NDArray[np.uint8]:
        """Decode image i, and compare it and its label file with what is recorded; see `pixels`."""
        pixels_HW = self.pixels(i)
        self._check_label(i)
        return pixels_HW

    def encoded(self, i: int) -> EncodedSample:
        """Read image i for another decoder, and check it as far as is possible without decoding it.

        Args:
            i: position in the split, 0 <= i < N.

        Returns:
            A PNG whose chunks are whole, or an image of another format, of the recorded size.

        Raises:
            DatasetError: missing, cut short, failing a CRC, of another size or with another label than recorded.
        """
        name = self._name(i)
        data, signature = self._read(i, 0, name)
        if data.startswith(sample_decoding.PNG_SIGNATURE):
            width, height = sample_decoding.png_size(data, name)
            sample_decoding.png_chunks(data, name)
        else:
            width, height = sample_decoding.image_size(data[: sample_decoding.PNG_HEADER_BYTES], name, lambda: data)
        self._check_size(i, name, width, height)
        self._check_label(i)
        known = self._index.pixel_hashes is None or signature == self._compared[i] != _UNKNOWN
        return EncodedSample(data, None if known else signature)

    def confirm(self, i: int, signature: int, pixels_HW: npt.NDArray[np.uint8]) -> str | None:
        """Compare pixels that another decoder made of what `encoded` gave.

        Args:
            i: position in the split.
            signature: `to_confirm` of the bytes.
            pixels_HW: uint8 (H, W), without padding.

        Returns:
            What is wrong, or None; what is right is remembered for this state of the file.
        """
        fault = self._hash_fault(i, self._name(i), pixels_HW)
        if fault is None:
            self._compared[i] = signature
        return fault

    def _name(self, i: int) -> str:
        """Path of image i: what `index.paths` says, in a third of the time where nothing more is asked for."""
        return self._index.paths(i)[0] if self._images is None else self._images + self._index.filename(i)

    def _hash_fault(self, i: int, name: str, pixels_HW: npt.NDArray[np.uint8]) -> str | None:
        hashes_N = self._index.pixel_hashes
        if hashes_N is None:
            return None
        seen, recorded = xxhash.xxh3_64_intdigest(np.ascontiguousarray(pixels_HW).data), int(hashes_N[i])
        if seen == recorded:
            return None
        return self._differs(name, f"has other pixels than recorded (hash {seen:016x}, not {recorded:016x})")

    def _check_size(self, i: int, name: str, width: int, height: int) -> None:
        index = self._index
        if width != index.widths[i] or height != index.heights[i]:
            recorded = f"{index.widths[i]} x {index.heights[i]}"
            raise DatasetError(
                self._differs(name, f"is {width} x {height} px, but {layout.SPLIT_METADATA} says {recorded}")
            )

    def _check_label(self, i: int) -> None:
        """Compare a label file with the metadata, once in a process; in a scan the text was taken from it."""
        if self._labels_seen_N[i] or self._index.scanned:
            return
        label, text = self.label_text(i), self._index.text(i)
        if label != text:
            name = self._index.paths(i)[1]
            raise DatasetError(self._differs(name, f"says {label!r}, {layout.SPLIT_METADATA} says {text!r}"))
        self._labels_seen_N[i] = True

    def _differs(self, name: str, what: str) -> str:
        return f"{name} {what}. {to_mend(self._index.root, self._index.split)}"

    def _read(self, i: int, which: int, path: str) -> Stored:
        """Stored bytes of the image (0) or the label (1) of sample i, whose path is given."""
        index = self._index
        if index.shard_ids is not None:
            return self._member(i, int(index.shard_ids[i]), which, path)
        # What is no plain file of a usual size is left to the careful way, so that faults have one wording.
        return read_plain(path) or (paths.read_contained(index.root, path), _UNKNOWN)

    def _member(self, i: int, shard_id: int, which: int, path: str) -> Stored:
        """Bytes of a shard's member; the headers are walked once for each state of the shard."""
        shard = self._index.shard_path(self._index.shards[shard_id])
        if shard_id not in self._walked:
            self._walk(shard_id, shard)
        offset, size = self._places_N4[i, 2 * which : 2 * which + 2].tolist()
        read = read_plain(str(shard), offset, size) if offset >= 0 else None
        if read is not None and read[1] == self._walked[shard_id]:
            return read
        # It lacks the member, is reached by a link, or has been replaced since it was walked.
        if _signature_of(shard) != self._walked[shard_id]:
            self._walk(shard_id, shard)
            offset, size = self._places_N4[i, 2 * which : 2 * which + 2].tolist()
        if offset < 0:
            member = path.rpartition("/")[2]
            raise DatasetError(f"{shard} lacks {member}. {to_mend(self._index.root, self._index.split)}")
        return shards.read_member(self._index.root, shard, offset, size), _UNKNOWN

    def _walk(self, shard_id: int, shard: Path) -> None:
        index = self._index
        assert index.shard_ids is not None
        signature = _signature_of(shard)
        members = shards.tar_members(index.root, shard)
        for row in np.flatnonzero(index.shard_ids == shard_id).tolist():
            image, label = (members.get(path.rpartition("/")[2], _ABSENT) for path in index.paths(row))
            self._places_N4[row] = (*image, *label)
        self._walked[shard_id] = signature

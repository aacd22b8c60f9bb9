"""A split as arrays, and the one reader of its images and labels, from files or shards, with all checks of them.

No image leaves it with the text of another: its pixels are compared with the recorded hash as they are decoded, at a
fiftieth of decoding them. Another decoder (DALI) takes the bytes by `encoded` and hands the pixels it made of them to
`confirm`, once for each state of a file: size, times and inode show whether it is still the one that was compared.
Nothing of this is kept on disk, where it could be stale or forged.

Letters: N samples of the split, H rows, W columns.
"""

import logging
import os
import stat
from array import array
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from khmer_ocr.dataset import layout, paths, sample_decoding, shards
from khmer_ocr.dataset.image_io import has_ink
from khmer_ocr.dataset.repair_advice import advice_to_repair
from khmer_ocr.errors import DatasetError
from khmer_ocr.text.normalize import normalize

log = logging.getLogger(__name__)
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_ABSENT = (-1, 0)
_UNKNOWN = 0
"""Signature of bytes whose file was not looked at: never equal to one that was compared."""
_warned = set[tuple[Path, str]]()


Stored = tuple[bytes, int]
"""Bytes of a file or shard member, and the signature of the file's size, times and inode when it was read, or 0 where
they are not known. A plain tuple: this is made for every line."""


class EncodedSample(NamedTuple):
    """An image that another decoder is to decode.

    Attributes:
        data: the whole file: a PNG, or another format where the data set is not ours.
        to_confirm: where its pixels were not compared with their hash yet: what to give to `confirm` with them.
    """

    data: bytes
    to_confirm: int | None


def read_plain(path: str, offset: int = 0, size: int | None = None) -> Stored | None:
    """Read a plain file, or a part of it, with as few system calls as reading safely needs.

    Args:
        path: the file; a symbolic link is not followed.
        offset: where to begin, in bytes.
        size: how many bytes; None reads to the end.

    Returns:
        All of them, or None where that is not possible for any reason; the caller then reads in a way that says why.
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


@dataclass(frozen=True, eq=False)
class Strings:
    """N strings as one UTF-8 blob: `blob[offsets[i]:offsets[i + 1]]` is string i.

    A file name that is no UTF-8 is there as the bytes it has on disk.
    """

    blob: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        return self.blob[self.offsets[i] : self.offsets[i + 1]].tobytes().decode("utf-8", "surrogateescape")

    def lengths(self) -> npt.NDArray[np.int64]:
        """Count the code points of each string: the bytes that do not continue one."""
        starts = np.append((self.blob & 0xC0) != 0x80, False).view(np.uint8)
        counts = np.add.reduceat(starts, self.offsets[:-1], dtype=np.int64) if len(self) else np.zeros(0, np.int64)
        return np.where(np.diff(self.offsets) > 0, counts, 0)


@dataclass(frozen=True, eq=False)
class SplitIndex:
    """One split as arrays; reads its images and labels, from files or from shards alike.

    Attributes:
        root: the root the split was opened under.
        split: its name.
        widths: int32 (N,), px.
        heights: int32 (N,), px.
        texts: N texts.
        filenames: N image file names, e.g. "train_000000.png".
        font_ids: int32 (N,), positions in `fonts`.
        fonts: names of the fonts.
        pixel_hashes: uint64 (N,), or None where the metadata has none.
        shard_ids: int32 (N,), positions in `shards`, or None for the format "files".
        shards: names of the tar files.
        scanned: True where the metadata was absent and the folder was scanned.
        outside: True where this project did not draw the lines: `texts` are the normal form of their labels.
        notes: what a person should know of such labels and files, a sentence each.
    """

    root: Path
    split: str
    widths: npt.NDArray[np.int32]
    heights: npt.NDArray[np.int32]
    texts: Strings
    filenames: Strings
    font_ids: npt.NDArray[np.int32]
    fonts: tuple[str, ...]
    pixel_hashes: npt.NDArray[np.uint64] | None
    shard_ids: npt.NDArray[np.int32] | None
    shards: tuple[str, ...]
    scanned: bool
    outside: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.widths)

    def text(self, i: int) -> str:
        """Text of sample i."""
        return self.texts[i]

    def filename(self, i: int) -> str:
        """Image file name of sample i."""
        return self.filenames[i]

    def font(self, i: int) -> str:
        """Font name of sample i."""
        return self.fonts[int(self.font_ids[i])]

    def shard(self, i: int) -> str | None:
        """File name of the tar that holds sample i, or None for the format "files"."""
        return None if self.shard_ids is None else self.shards[int(self.shard_ids[i])]

    def shard_path(self, shard: str) -> Path:
        """Where a shard lies."""
        return self.root / self.split / layout.SHARDS / shard

    def paths(self, i: int) -> tuple[str, str]:
        """Where the image and the label of sample i lie now: files, or members behind the path of their shard."""
        # Strings, since joining paths by pathlib took half of the time of reading a line.
        name = self.filename(i)
        image, label = layout.recorded_paths(str(self.root), self.split, name, self.shard(i))
        if self.scanned and "/" in name and not os.path.lexists(label):
            label = str(self.root / self.split / layout.LABELS / layout.label_names(name)[1])
        return image, label

    @cached_property
    def reader(self) -> "SplitReader":
        """What reads and checks the images and labels."""
        return SplitReader(self)

    def label_text(self, i: int) -> str:
        """Text of the label file of sample i, which may differ from the metadata where the data set is damaged."""
        return self.reader.label_text(i)

    def image(self, i: int) -> npt.NDArray[np.uint8]:
        """Decode the image of sample i and compare it with what is recorded; see `SplitReader.pixels`."""
        return self.reader.pixels(i)

    def line(self, i: int) -> npt.NDArray[np.uint8]:
        """Do what `image` does, and compare the label file with the metadata too."""
        return self.reader.line(i)


def tell_unhashed(index: SplitIndex) -> None:
    """Say once in a process that a split records no pixel hashes."""
    if index.pixel_hashes is None and len(index):
        tell_once(
            index,
            f"{index.root / index.split}: no pixel hashes are recorded; two images of equal size that changed places "
            "can't be noticed.",
        )


def tell_once(index: SplitIndex, *sentences: str) -> None:
    """Warn of what a person should know of a split, each sentence once in a process."""
    for sentence in sentences:
        if (index.root, sentence) not in _warned:
            _warned.add((index.root, sentence))
            log.warning("%s", sentence)


class SplitReader:
    """Reads the images and labels of one split; can be sent to worker processes.

    Args:
        index: the split.
    """

    def __init__(self, index: SplitIndex) -> None:
        self._index = index
        self._images = f"{index.root}/{index.split}/{layout.IMAGES}/" if index.shard_ids is None else None
        self._labels_seen_N = np.zeros(len(index), np.bool_)
        # Signature of the file whose pixels were compared; an array of Python's is read in a third of numpy's time.
        self._compared = array("Q", bytes(8 * len(index)))
        if index.shard_ids is not None:
            # Offset and size of the image, then of the label, filled shard by shard; which state of the shard that was.
            self._places_N4 = np.zeros((len(index), 4), np.int64)
            self._walked = dict[int, int]()

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

    def decoded(self, i: int) -> npt.NDArray[np.uint8]:
        """Decode image i and compare it with what is recorded of it.

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
        return pixels_HW

    def pixels(self, i: int) -> npt.NDArray[np.uint8]:
        """Do what `decoded` does, and refuse an image from outside that is blank and has a label that is not."""
        pixels_HW = self.decoded(i)
        if self._index.outside and self._index.text(i) and not has_ink(pixels_HW):
            raise DatasetError(
                f"{self._name(i)} is blank, and its label says {self._index.text(i)!r:.80}. Mend one of both."
            )
        return pixels_HW

    def line(self, i: int) -> npt.NDArray[np.uint8]:
        """Decode image i, and compare it and its label file with what is recorded; see `pixels`."""
        pixels_HW = self.pixels(i)
        self.check_label(i)
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
        self.check_label(i)
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

    def check_label(self, i: int) -> None:
        """Compare a label file with the metadata, once in a process; in a scan the text was taken from it."""
        if self._labels_seen_N[i] or self._index.scanned:
            return
        label, text = self.label_text(i), self._index.text(i)
        if label != text:
            name = self._index.paths(i)[1]
            raise DatasetError(self._differs(name, f"says {label!r}, {layout.SPLIT_METADATA} says {text!r}"))
        self._labels_seen_N[i] = True

    def _differs(self, name: str, what: str) -> str:
        return f"{name} {what}. {advice_to_repair(self._index.root, self._index.split)}"

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
        # The member is missing, the shard is reached by a link, or has been replaced since it was walked.
        if _signature_of(shard) != self._walked[shard_id]:
            self._walk(shard_id, shard)
            offset, size = self._places_N4[i, 2 * which : 2 * which + 2].tolist()
        if offset < 0:
            member = path.rpartition("/")[2]
            raise DatasetError(
                f"{shard} does not hold {member}. {advice_to_repair(self._index.root, self._index.split)}"
            )
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

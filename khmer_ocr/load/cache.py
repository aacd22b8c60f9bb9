"""A split's decoded pixels in one memory-mapped file: the fast path for training.

```
{root}/{split}/packed-{key}.lines    4096 bytes: JSON header | pixels, each line at a multiple of 8 bytes |
                                     int64 begin of each line | uint64 sum of each line | JSON of lines left out
```
The key is a hash of everything the metadata record (pixel hashes, sizes, names, texts), so a tree that was made anew
never meets an old cache. Opening checks the header, all sizes and the tables. A line's pixels are compared with the
hash that the metadata record, or where they have none with its sum, when they are first used, and again after the file
was written to.

Letters: N lines of the split, L lines asked for, K words of 8 bytes, B lines of a batch, H rows, X columns.
"""

import io
import json
import logging
import mmap
import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
from khmer_ocr_kernels.arrays import I64, U8, U64, Bools
from khmer_ocr_kernels.jit import compiled
from khmer_ocr_kernels.pad_normalize import pad_into

from khmer_ocr.dataset import layout, paths
from khmer_ocr.dataset.reader import SplitIndex
from khmer_ocr.errors import DatasetError

log = logging.getLogger(__name__)
FORMAT, VERSION = "khmer_ocr packed lines", 1
HEADER_BYTES = 4096
NAME, SUFFIX = "packed-", ".lines"
WORD_BYTES = 8
"""A line begins at a multiple of it, so that sums go word by word."""
_FNV_BASIS, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


def tree_key(index: SplitIndex) -> str:
    """Hash what is recorded of a split: 32 hexadecimal digits.

    Sizes, names, texts and pixel hashes; where these are not recorded, the size and time of change of every file.
    """
    state = xxhash.xxh3_128()
    for column in (index.widths, index.heights, index.texts.offsets, index.texts.blob, index.filenames.blob):
        state.update(column.data)
    if index.pixel_hashes is not None:
        state.update(index.pixel_hashes.data)
        return state.hexdigest()
    files = index.shards or (index.filename(i) for i in range(len(index)))
    for name in files:
        path = index.shard_path(name) if index.shards else layout.image_file(index.root, index.split, name)
        with suppress(FileNotFoundError):  # a file that is missing is named when it is read
            stat = path.stat()
            state.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return state.hexdigest()


def cache_file(index: SplitIndex, key: str) -> Path:
    """Where the cache of a split with this key lies."""
    return index.root / index.split / f"{NAME}{key}{SUFFIX}"


def line_begins(widths_N: npt.NDArray[np.integer[Any]], height_px: int) -> I64:
    """Where lines of these widths begin in the pixels, and where the last one ends: int64 (N + 1,)."""
    words_N = -(-widths_N.astype(np.int64) * height_px // WORD_BYTES)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(words_N * WORD_BYTES)])


@compiled
def line_sums(word_K: U64, begin_L: I64, bytes_L: I64) -> U64:
    """Sum each line: FNV-1a over words, of which no changed word goes unseen; the bytes of a last part word are zeros.

    Source: Fowler, Noll, Vo, "The FNV Non-Cryptographic Hash Algorithm", RFC 9923, over words of 64 bits.
    """
    sums_L = np.empty(len(begin_L), np.uint64)
    for line in range(len(begin_L)):
        first = begin_L[line] // WORD_BYTES
        total = _FNV_BASIS
        for k in range(first, first + (bytes_L[line] + WORD_BYTES - 1) // WORD_BYTES):
            total = (total ^ word_K[k]) * _FNV_PRIME
        sums_L[line] = total
    return sums_L


class _Contents(NamedTuple):
    """What a cache file says beside its pixels; `tables_2N` are begins and sums."""

    height_px: int
    pixel_bytes: int
    tables_2N: U64
    faults: dict[int, str]


def _read(path: Path, file: io.BufferedReader, key: str, count: int) -> _Contents:
    """Header, tables and faults of a cache file, checked; whatever bytes it holds, it is these or `DatasetError`."""
    try:
        header = json.loads(file.read(HEADER_BYTES))
        own = (FORMAT, VERSION, key, path.parent.name, count)
        known = tuple(header[name] for name in ("format", "version", "key", "split", "samples")) == own
        height_px, pixel_bytes, tail_bytes = (int(header[name]) for name in ("height_px", "pixel_bytes", "tail_bytes"))
        tail_hash = header["tail_hash"]
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as fault:
        raise unusable(path, f"its header is damaged ({fault!r})") from fault
    if not known:
        raise unusable(path, "its header is that of another cache")
    size, expected = os.fstat(file.fileno()).st_size, HEADER_BYTES + pixel_bytes + tail_bytes
    if size != expected or tail_bytes < 16 * count:
        raise unusable(path, f"it has {size} bytes, its header says {expected}")
    file.seek(HEADER_BYTES + pixel_bytes)
    tail = file.read(tail_bytes)
    if xxhash.xxh3_64_hexdigest(tail) != tail_hash:
        raise unusable(path, "its tables are damaged")
    try:
        faults = {int(i): str(message) for i, message in json.loads(tail[16 * count :]).items()}
    except (ValueError, AttributeError, RecursionError) as fault:
        raise unusable(path, f"its list of lines left out is damaged ({fault!r})") from fault
    tables_2N = np.frombuffer(tail, np.uint64, 2 * count).reshape(2, count)
    return _Contents(height_px, pixel_bytes, tables_2N, faults)


def unusable(path: Path, why: str) -> DatasetError:
    """Say what is wrong with a cache and what to do."""
    root, split = path.parents[1], path.parent.name
    return DatasetError(f"{path} can't be used: {why}. Run: khmer-ocr cache {root} --splits {split} --overwrite")


class PackedCache:
    """Decoded lines of one split; open it with `open` or `open_or_build`. Can be sent to worker processes.

    Attributes:
        path: the file.
        height_px: height of every line.
        faults: position to message of each line that could not be read when the cache was built.
        pixels_M: uint8, all lines, memory-mapped.
        begins_N: int64, where each line begins in `pixels_M`.
        widths_N: int64, px.
    """

    def __init__(self, path: Path, index: SplitIndex, key: str) -> None:
        self.path, self._index, self._key = path, index, key
        self._file = paths.open_contained(path.parents[1], path)
        weakref.finalize(self, self._file.close)
        found = _read(path, self._file, key, len(index))
        self.height_px, self.faults = found.height_px, found.faults
        self.widths_N = index.widths.astype(np.int64)
        self.begins_N: I64 = found.tables_2N[0].view(np.int64)
        self._sums_N = found.tables_2N[1]
        self._checked_N = np.zeros(len(index), np.bool_)
        begins_N1 = line_begins(index.widths, self.height_px)
        if (index.heights != self.height_px).any() or begins_N1[-1] != found.pixel_bytes:
            raise unusable(path, "its lines have other sizes than the metadata say")
        if not np.array_equal(self.begins_N, begins_N1[:-1]):
            raise unusable(path, "its lines lie elsewhere than their sizes say")
        self._state = self._look()
        # Of the file that was checked, whatever takes its name meanwhile.
        self.pixels_M = np.memmap(self._file, np.uint8, "r", HEADER_BYTES, (found.pixel_bytes,))
        # What fits the memory is read ahead as a whole; of more, reading around each line fetches 20 times too much.
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        fits = self.pixels_M.nbytes < memory_bytes // 2
        self.pixels_M._mmap.madvise(mmap.MADV_WILLNEED if fits else mmap.MADV_RANDOM)  # type: ignore[attr-defined]

    @classmethod
    def open(cls, index: SplitIndex) -> "PackedCache":
        """Open the cache of a split.

        Raises:
            DatasetError: there is none for what the tree holds now, or it is damaged.
        """
        key = tree_key(index)
        path = cache_file(index, key)
        if not path.exists():
            older = any(path.parent.glob(f"{NAME}*{SUFFIX}"))
            seen = "holds a cache of other data than it has now" if older else "has no cache"
            raise DatasetError(f"{path.parent} {seen}. Run: khmer-ocr cache {index.root} --splits {index.split}")
        return cls(path, index, key)

    def __len__(self) -> int:
        return len(self.begins_N)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self._index, self._key)

    def _look(self) -> tuple[int, int]:
        """Size and time of change of the file that is mapped."""
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def _look_again(self) -> None:
        """Forget which lines were checked if the file was written to since; a cut one must not be touched."""
        state = self._look()
        if state == self._state:
            return
        if state[0] < self._state[0]:
            raise unusable(self.path, "it was cut while it was read")
        self._state = state
        self._checked_N[:] = False

    def faults_of(self, positions_L: I64) -> dict[int, str]:
        """Check lines that were not used before in this process.

        Args:
            positions_L: int64 positions in the split.

        Returns:
            Position to fault of each line that can't be used.

        Raises:
            DatasetError: the file was cut since it was opened.
        """
        self._look_again()
        found = {}
        if self.faults:
            found = {i: self.faults[i] for i in positions_L.tolist() if i in self.faults}
        fresh_L = positions_L[~self._checked_N[positions_L]]
        if len(fresh_L):
            right_L = self._right(fresh_L)
            self._checked_N[fresh_L[right_L]] = True
            for i in fresh_L[~right_L].tolist():
                if i not in found:
                    found[i] = (
                        f"{self.path}: the pixels of {self._index.filename(i)} are not those that were stored. "
                        f"Run: khmer-ocr cache {self._index.root} --splits {self._index.split} --overwrite"
                    )
        return found

    def _right(self, positions_L: I64) -> Bools:
        """Whether pixels are those of the data set: by its hashes, or where it has none by our own sums."""
        begins_L, bytes_L = self.begins_N[positions_L], self.widths_N[positions_L] * self.height_px
        if self._index.pixel_hashes is None:
            right_L: Bools = line_sums(self.pixels_M.view(np.uint64), begins_L, bytes_L) == self._sums_N[positions_L]
            return right_L
        view = memoryview(self.pixels_M)  # type: ignore[arg-type]
        seen = (
            xxhash.xxh3_64_intdigest(view[begin : begin + size])
            for begin, size in zip(begins_L.tolist(), bytes_L.tolist(), strict=True)
        )
        right_L = np.fromiter(seen, np.uint64, len(positions_L)) == self._index.pixel_hashes[positions_L]
        return right_L

    def damaged(self) -> list[int]:
        """Check every line; positions of those that can't be used but were not left out when the cache was built."""
        return sorted(self.faults_of(np.arange(len(self))).keys() - self.faults.keys())

    def line(self, i: int) -> U8:
        """Pixels of line i.

        Args:
            i: position in the split, 0 <= i < N.

        Returns:
            uint8 (H, W), 255 is background; read-only, in the mapped file.

        Raises:
            DatasetError: the line is damaged, or was unreadable when the cache was built.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"line {i} of {len(self)} in {self.path}")
        for message in self.faults_of(np.array([i])).values():
            raise DatasetError(message)
        begin, width = int(self.begins_N[i]), int(self.widths_N[i])
        return self.pixels_M[begin : begin + width * self.height_px].reshape(self.height_px, width)

    def gather(
        self, positions_L: I64, rows_L: I64, out_BHX: npt.NDArray[Any], bits_256: npt.NDArray[Any] | None = None
    ) -> None:
        """Copy lines into rows of a batch and fill the rest of these rows with background; no pixel is checked here.

        Args:
            positions_L: int64 positions in the split.
            rows_L: int64, the row of each, 0 <= row < B.
            out_BHX: written in these rows; at least as wide as every line and as high.
            bits_256: what each pixel value becomes, of the unsigned dtype of `out_BHX`; None copies uint8.
        """
        if out_BHX.shape[1] != self.height_px:
            raise ValueError(f"lines are {self.height_px} px high, the batch {out_BHX.shape[1]}")
        pad_into(out_BHX, self.pixels_M, self.begins_N[positions_L], self.widths_N[positions_L], rows_L, bits_256)

"""The lines of a split, of one data set or of several one after the other, each read and checked by its position.

Letters: N lines of all data sets, P data sets, H rows, W columns.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from khmer_ocr.dataset import images, layout
from khmer_ocr.dataset.index import SplitIndex, build_index, load_index, split_folder
from khmer_ocr.dataset.scan import scan
from khmer_ocr.errors import ConfigError, DatasetError
from khmer_ocr.load.files import SplitFiles

OnFault = Callable[[str, DatasetError], None]


def load_lines(
    root: str | Path | Sequence[str | Path],
    split: str,
    *,
    max_samples: int | None = None,
    on_fault: OnFault | None = None,
) -> "Lines":
    """Open a split of one or several data sets.

    Args:
        root: root of a data set, or several whose lines follow each other.
        split: name of the split, in each of them.
        max_samples: take only the first so many of each.
        on_fault: is told name and fault of each sample that a scan of a folder without metadata can't read, which is
            left out; None raises.

    Raises:
        SplitNotFoundError: a split's folder does not exist.
        DatasetError: metadata is damaged, the split is empty, or its lines have different heights.
        ConfigError: no root is given.
    """
    roots = [root] if isinstance(root, str | Path) else list(root)
    if not roots:
        raise ConfigError("no root of a data set is given; give at least one folder.")
    return Lines([_open(Path(one), split, max_samples, on_fault) for one in roots])


def _open(root: Path, split: str, max_samples: int | None, on_fault: OnFault | None) -> SplitIndex:
    if on_fault is None or (split_folder(root, split) / layout.SPLIT_METADATA).exists():
        return load_index(root, split, max_samples=max_samples)
    return build_index(root, split, islice(scan(root, split, on_fault), max_samples), scanned=True)


class Lines:
    """Lines of one or several splits by one running position; can be sent to worker processes.

    Attributes:
        indices: the P splits.
        begins_P1: int64, position of the first line of each, and the end.
        widths_N: int32, true widths in px.
        height_px: height of every line.
    """

    def __init__(self, indices: Sequence[SplitIndex]) -> None:
        self.indices = tuple(indices)
        for index in self.indices:
            if not len(index):
                raise DatasetError(
                    f"Split {index.split!r} in {index.root} holds no samples. "
                    f"Run: khmer-ocr generate --output-dir {index.root} --splits {index.split}"
                )
        self._files = tuple(map(SplitFiles, self.indices))
        self.begins_P1 = np.cumsum([0, *map(len, self.indices)])
        self.widths_N = _joined([index.widths for index in self.indices])
        heights_N = _joined([index.heights for index in self.indices])
        self.height_px = int(heights_N[0])
        if (odd := np.flatnonzero(heights_N != self.height_px)).size:
            raise DatasetError(
                f"{self.name(int(odd[0]))} is {heights_N[odd[0]]} px high, {self.name(0)} is {self.height_px}. "
                "Batches need one height: generate with one --image-height."
            )
        self._labels_seen_N = np.zeros(len(heights_N), np.bool_)

    def __len__(self) -> int:
        return len(self.widths_N)

    def _locate(self, i: int) -> tuple[SplitIndex, int, SplitFiles]:
        """Split that holds line i, the line's position there, and what reads its files."""
        if len(self.indices) == 1:
            return self.indices[0], i, self._files[0]
        part = int(np.searchsorted(self.begins_P1, i, "right")) - 1
        return self.indices[part], i - int(self.begins_P1[part]), self._files[part]

    def name(self, i: int) -> str:
        """Path of the image of line i, or of its place in its shard."""
        index, own, _ = self._locate(i)
        return index.paths(own)[0]

    def text(self, i: int) -> str:
        """Text of line i."""
        index, own, _ = self._locate(i)
        return index.text(own)

    def pixels(self, i: int) -> npt.NDArray[np.uint8]:
        """Read line i and check all that is recorded of it.

        Args:
            i: position, 0 <= i < N.

        Returns:
            uint8 array (H, W), 255 is paper.

        Raises:
            DatasetError: missing, unreadable, of another size, of other pixels or with another label than recorded.
        """
        index, own, files = self._locate(i)
        name = index.paths(own)[0]
        pixels_HW = images.decode_image(files.image(own), name)
        _check_size(index, own, name, pixels_HW.shape[1], pixels_HW.shape[0])
        if index.pixel_hashes is not None:
            seen, recorded = images.pixel_hash(pixels_HW), f"{int(index.pixel_hashes[own]):016x}"
            if seen != recorded:
                raise _differs(index, name, f"has other pixels than recorded (hash {seen}, not {recorded})")
        self._check_label(i, index, own, files)
        return pixels_HW

    def png(self, i: int) -> bytes:
        """Read the file of line i and check it as far as is possible without decoding it.

        Args:
            i: position, 0 <= i < N.

        Returns:
            A PNG whose chunks are whole, of the recorded size.

        Raises:
            DatasetError: missing, cut short, failing a CRC, of another size or with another label than recorded.
        """
        index, own, files = self._locate(i)
        data, name = files.image(own), index.paths(own)[0]
        width, height = images.png_size(data, name)
        images.png_chunks(data, name)
        _check_size(index, own, name, width, height)
        self._check_label(i, index, own, files)
        return data

    def _check_label(self, i: int, index: SplitIndex, own: int, files: SplitFiles) -> None:
        """Compare a label file with the metadata, once in a process; in a scan the text was taken from it."""
        if self._labels_seen_N[i] or index.scanned:
            return
        label, text = files.label(own), index.text(own)
        if label != text:
            raise _differs(index, index.paths(own)[1], f"says {label!r}, {layout.SPLIT_METADATA} says {text!r}")
        self._labels_seen_N[i] = True


def _check_size(index: SplitIndex, own: int, name: str, width: int, height: int) -> None:
    if width != index.widths[own] or height != index.heights[own]:
        recorded = f"{index.widths[own]} x {index.heights[own]}"
        raise _differs(index, name, f"is {width} x {height} px, but {layout.SPLIT_METADATA} says {recorded}")


def _joined(parts: list[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _differs(index: SplitIndex, name: str, what: str) -> DatasetError:
    return DatasetError(f"{name} {what}. Run: khmer-ocr verify {index.root} --repair")

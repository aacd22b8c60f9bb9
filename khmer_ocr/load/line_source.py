"""The lines of a split, of one data set or of several one after the other, each read and checked by its position.

Letters: N lines of all data sets, P data sets, H rows, W columns.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from khmer_ocr_kernels.arrays import I32, U8

from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.reader import EncodedSample, SplitIndex, tell_unhashed
from khmer_ocr.dataset.repair_advice import advice_to_create
from khmer_ocr.dataset.scan import OnFault
from khmer_ocr.errors import ConfigError, DatasetError


def load_lines(
    root: str | Path | Sequence[str | Path],
    split: str,
    *,
    max_samples: int | None = None,
    on_fault: OnFault | None = None,
) -> "LineSource":
    """Open a split of one or several data sets.

    Args:
        root: root of a data set, or several whose lines follow each other.
        split: name of the split, in each of them.
        max_samples: take only the first so many of each.
        on_fault: called with name and fault of each sample of a data set that we did not draw whose image or label
            can't be used, which is left out; None raises.

    Raises:
        SplitNotFoundError: a split's folder does not exist.
        DatasetError: metadata is damaged, the split is empty, or its lines have different heights.
        ConfigError: no root is given.
    """
    roots = [root] if isinstance(root, str | Path) else list(root)
    if not roots:
        raise ConfigError("no root of a data set is given; give at least one folder.")
    return LineSource([load_index(one, split, max_samples=max_samples, on_fault=on_fault) for one in roots])


class LineSource:
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
                advice = advice_to_create(index.root, index.split)
                raise DatasetError(f"Split {index.split!r} in {index.root} holds no samples. {advice}")
            tell_unhashed(index)
        self.begins_P1 = np.cumsum([0, *map(len, self.indices)])
        self.widths_N = _joined([index.widths for index in self.indices])
        heights_N = _joined([index.heights for index in self.indices])
        self.height_px = int(heights_N[0])
        if (odd := np.flatnonzero(heights_N != self.height_px)).size:
            raise DatasetError(
                f"{self.name(int(odd[0]))} is {heights_N[odd[0]]} px high, {self.name(0)} is {self.height_px}. "
                "Batches need one height: generate with one --image-height."
            )

    def __len__(self) -> int:
        return len(self.widths_N)

    def _locate(self, i: int) -> tuple[SplitIndex, int]:
        """Split that holds line i, and the line's position there."""
        if len(self.indices) == 1:
            return self.indices[0], i
        part = int(np.searchsorted(self.begins_P1, i, "right")) - 1
        return self.indices[part], i - int(self.begins_P1[part])

    def name(self, i: int) -> str:
        """Path of the image of line i, or of its place in its shard."""
        index, own = self._locate(i)
        return index.paths(own)[0]

    def text(self, i: int) -> str:
        """Text of line i."""
        index, own = self._locate(i)
        return index.text(own)

    def pixels(self, i: int) -> U8:
        """Read line i and check all that is recorded of it.

        Args:
            i: position, 0 <= i < N.

        Returns:
            uint8 array (H, W), 255 is white.

        Raises:
            DatasetError: missing, unreadable, of another size, of other pixels or with another label than recorded.
        """
        index, own = self._locate(i)
        return index.reader.line(own)

    def encoded(self, i: int) -> EncodedSample:
        """Read the image of line i undecoded; see `SplitReader.encoded`."""
        index, own = self._locate(i)
        return index.reader.encoded(own)

    def confirm(self, i: int, signature: int, pixels_HW: U8) -> str | None:
        """Compare pixels decoded elsewhere with what is recorded; see `SplitReader.confirm`."""
        index, own = self._locate(i)
        return index.reader.confirm(own, signature, pixels_HW)


def _joined(parts: list[I32]) -> I32:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

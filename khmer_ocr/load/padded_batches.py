"""Lines of a batch as one padded array: decoded from files or shards, or copied from caches.

Letters: B lines, H rows, X columns of the padded batch, N samples of the split.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from khmer_ocr_kernels.reference import BACKGROUND

from khmer_ocr.errors import DatasetError
from khmer_ocr.load.cache import PackedCache
from khmer_ocr.load.line_source import LineSource

Empty = Callable[[int, int], npt.NDArray[Any]]


def padded_width(widths_B: npt.NDArray[np.integer[Any]], align_px: int) -> int:
    """Width of a batch of lines of these widths."""
    return -(-int(widths_B.max()) // align_px) * align_px


def without(positions_B: npt.NDArray[np.int64], faults: dict[int, str]) -> npt.NDArray[np.int64]:
    """Positions that have no fault, in their order."""
    return positions_B[~np.isin(positions_B, list(faults))] if faults else positions_B


def read_pages(
    lines: LineSource, positions_B: npt.NDArray[np.int64], align_px: int
) -> tuple[npt.NDArray[np.uint8] | None, dict[int, str]]:
    """Read lines from files or shards and pad them with paper.

    Args:
        lines: where they are read from.
        positions_B: which ones.
        align_px: the padded width is a multiple of it.

    Returns:
        uint8 (lines that could be read, H, X), or None for none, and position to fault of the others.
    """
    pages, faults = [], dict[int, str]()
    for i in positions_B.tolist():
        try:
            pages.append(lines.pixels(i))
        except DatasetError as fault:
            faults[i] = str(fault)
    if not pages:
        return None, faults
    columns = padded_width(np.array([page.shape[1] for page in pages]), align_px)
    padded_BHX = np.empty((len(pages), lines.height_px, columns), np.uint8)
    for padded_HX, page in zip(padded_BHX, pages, strict=True):
        width = page.shape[1]
        padded_HX[:, :width] = page
        padded_HX[:, width:] = BACKGROUND
    return padded_BHX, faults


def gather_pages(
    lines: LineSource,
    caches: Sequence[PackedCache],
    positions_B: npt.NDArray[np.int64],
    align_px: int,
    empty: Empty,
    bits_256: npt.NDArray[Any] | None = None,
) -> tuple[npt.NDArray[Any] | None, dict[int, str]]:
    """Copy lines from caches and pad them with paper.

    Args:
        lines: the lines, as `caches` hold them.
        caches: one for each of `lines.indices`.
        positions_B: which lines.
        align_px: the padded width is a multiple of it.
        empty: makes an array (B, H, X) to be filled, given B and X: uint8, or of the dtype of `bits_256`.
        bits_256: what each pixel value becomes; None leaves uint8.

    Returns:
        (lines that can be used, H, X), or None for none, and position to fault of the others.
    """
    part_B = np.searchsorted(lines.begins_P1, positions_B, "right") - 1
    faults = dict[int, str]()
    for part, cache in enumerate(caches):
        begin = int(lines.begins_P1[part])
        found = cache.faults_of(positions_B[part_B == part] - begin)
        faults |= {begin + i: message for i, message in found.items()}
    if faults:
        positions_B = without(positions_B, faults)
        if not len(positions_B):
            return None, faults
        part_B = np.searchsorted(lines.begins_P1, positions_B, "right") - 1
    out_BHX = empty(len(positions_B), padded_width(lines.widths_N[positions_B], align_px))
    for part, cache in enumerate(caches):
        rows_L = np.flatnonzero(part_B == part)
        cache.gather(positions_B[rows_L] - int(lines.begins_P1[part]), rows_L, out_BHX, bits_256)
    return out_BHX, faults

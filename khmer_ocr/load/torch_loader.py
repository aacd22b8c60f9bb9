"""The plan through torch alone: from a cache in this process, from files also by worker processes.

Letters: B lines, H rows, X columns of the padded batch, N samples of the split.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from khmer_ocr_kernels.pad_normalize import normalisation_table
from torch.utils.data import DataLoader, Dataset, Sampler

from khmer_ocr.errors import DatasetError
from khmer_ocr.load.cache import PAPER, PackedCache
from khmer_ocr.load.engine import LineLoader, ReadBatch, normalised
from khmer_ocr.load.lines import Lines
from khmer_ocr.load.planner import EpochPlan
from khmer_ocr.load.settings import DtypeName, LoadConfig
from khmer_ocr.load.targets import Vocabulary


class Order(NamedTuple):
    """One batch to read: its place in the plan, and the positions of its lines."""

    number: int
    positions_B: npt.NDArray[np.int64]


def padded_width(widths_B: npt.NDArray[np.integer[Any]], align_px: int) -> int:
    """Width of a batch of lines of these widths."""
    return -(-int(widths_B.max()) // align_px) * align_px


class TorchLoader(LineLoader):
    """The twin of the DALI engine, and its equal to the last bit; the faster of the two on a cache."""

    engine = "torch"

    def __init__(
        self, lines: Lines, caches: Sequence[PackedCache] | None, config: LoadConfig, split: str, vocab: Vocabulary
    ) -> None:
        super().__init__(lines, caches, config, split, vocab)
        # For a GPU the bytes cross as they are and become numbers there.
        self._dtype: DtypeName = config.dtype if self.device.type == "cpu" else "uint8"
        self._bits_256 = None if self._dtype == "uint8" else normalisation_table(self._dtype, 0.0, 1.0)
        self._pin = self.device.type == "cuda"
        self._orders = _Orders()
        self._workers: DataLoader | None = None
        if caches is None and config.num_workers:
            self._workers = DataLoader(
                _Pages(lines, config.align_px),
                batch_size=None,
                sampler=self._orders,
                num_workers=config.num_workers,
                prefetch_factor=max(config.prefetch, 1),
                persistent_workers=True,
                pin_memory=self._pin,
            )

    def _read(self, plan: EpochPlan, start_batch: int) -> Iterator[ReadBatch]:
        orders = [Order(number, plan.batch(number)) for number in range(start_batch, len(plan))]
        if self.caches is not None:
            yield from map(self._gather, orders)
        elif self._workers is None:
            for order in orders:
                yield self._finish(order, *read_pages(self.lines, order.positions_B, self.config.align_px))
        elif orders:
            self._orders.orders = orders
            for order, (pages, faults) in zip(orders, self._workers, strict=True):
                yield self._finish(order, pages, faults)

    @property
    def _depth(self) -> int:
        # Worker processes read ahead themselves, and a thread that forks is asking for trouble.
        return self.config.prefetch if self._workers is None else 0

    def close(self) -> None:
        """End worker processes; the next epoch would start them anew."""
        if self._workers is not None and self._workers._iterator is not None:
            self._workers._iterator._shutdown_workers()
            self._workers._iterator = None

    def _gather(self, order: Order) -> ReadBatch:
        """Read a batch from the caches."""
        assert self.caches is not None
        positions_B, faults = order.positions_B, dict[int, str]()
        part_B = np.searchsorted(self.lines.begins_P1, positions_B, "right") - 1
        for part, cache in enumerate(self.caches):
            begin = int(self.lines.begins_P1[part])
            found = cache.faults_of(positions_B[part_B == part] - begin)
            faults |= {begin + i: message for i, message in found.items()}
        if faults:
            good_B = ~np.isin(positions_B, list(faults))
            positions_B, part_B = positions_B[good_B], part_B[good_B]
            if not len(positions_B):
                return ReadBatch(order.number, positions_B, None, faults)
        columns = padded_width(self.lines.widths_N[positions_B], self.config.align_px)
        images = self._empty(len(positions_B), columns)
        bits = images[:, 0] if self._bits_256 is None else images[:, 0].view(_bits_dtype(self._bits_256))
        for part, cache in enumerate(self.caches):
            rows_L = np.flatnonzero(part_B == part)
            own_L = positions_B[rows_L] - int(self.lines.begins_P1[part])
            cache.gather(own_L, rows_L, bits.numpy(), self._bits_256)
        return ReadBatch(order.number, positions_B, images, faults)

    def _empty(self, lines: int, columns: int) -> torch.Tensor:
        dtype = getattr(torch, self._dtype)
        return torch.empty((lines, 1, self.lines.height_px, columns), dtype=dtype, pin_memory=self._pin)

    def _finish(self, order: Order, pages: torch.Tensor | None, faults: dict[int, str]) -> ReadBatch:
        """Turn pages into images of the dtype, pinned where they go to a GPU."""
        positions_B = order.positions_B
        if faults:
            positions_B = positions_B[~np.isin(positions_B, list(faults))]
        if pages is not None and self._bits_256 is not None:
            pages = normalised(pages, getattr(torch, self._dtype))
        if pages is not None and self._pin and not pages.is_pinned():
            pages = pages.pin_memory()
        return ReadBatch(order.number, positions_B, pages, faults)


def _bits_dtype(bits_256: npt.NDArray[Any]) -> torch.dtype:
    return torch.uint32 if bits_256.dtype.itemsize == 4 else torch.uint16


def read_pages(
    lines: Lines, positions_B: npt.NDArray[np.int64], align_px: int
) -> tuple[torch.Tensor | None, dict[int, str]]:
    """Read lines from files or shards and pad them with paper.

    Args:
        lines: where they are read from.
        positions_B: which ones.
        align_px: the padded width is a multiple of it.

    Returns:
        uint8 (lines that could be read, 1, H, X), or None for none, and position to fault of the others.
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
        padded_HX[:, width:] = PAPER
    return torch.from_numpy(padded_BHX[:, None]), faults


class _Orders(Sampler):  # type: ignore[misc]
    """Tells persistent workers what to read in the present epoch."""

    def __init__(self) -> None:
        self.orders: list[Order] = []

    def __iter__(self) -> Iterator[Order]:
        return iter(self.orders)

    def __len__(self) -> int:
        return len(self.orders)


class _Pages(Dataset):  # type: ignore[misc]
    """What a worker process does with an order."""

    def __init__(self, lines: Lines, align_px: int) -> None:
        self._lines, self._align_px = lines, align_px

    def __getitem__(self, order: Order) -> tuple[torch.Tensor | None, dict[int, str]]:
        return read_pages(self._lines, order.positions_B, self._align_px)

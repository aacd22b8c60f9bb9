"""The plan through torch alone: from a cache in this process, from files also by worker processes.

Letters: B lines, H rows, X columns of the padded batch.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from khmer_ocr.load.cache import PackedCache
from khmer_ocr.load.engine import LineLoader, ReadBatch, normalised
from khmer_ocr.load.lines import Lines
from khmer_ocr.load.pages import gather_pages, read_pages, without
from khmer_ocr.load.planner import EpochPlan
from khmer_ocr.load.settings import LoadConfig
from khmer_ocr.load.targets import Vocabulary

Pages = tuple[torch.Tensor | None, dict[int, str]]


class Order(NamedTuple):
    """One batch to read: its place in the plan, and the positions of its lines."""

    number: int
    positions_B: npt.NDArray[np.int64]


class TorchLoader(LineLoader):
    """The twin of the DALI engine, and its equal to the last bit; the faster of the two on a cache."""

    engine = "torch"

    def __init__(
        self, lines: Lines, caches: Sequence[PackedCache] | None, config: LoadConfig, split: str, vocab: Vocabulary
    ) -> None:
        super().__init__(lines, caches, config, split, vocab)
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
        if self._workers is None:
            read = partial(_read_files, self.lines, self.config.align_px) if self.caches is None else self._gather
            for order in orders:
                yield self._finish(order, *read(order))
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

    def _gather(self, order: Order) -> Pages:
        """Read a batch from the caches, in its final dtype and, for a GPU, in pinned memory."""
        assert self.caches is not None
        made: list[torch.Tensor] = []

        def empty(lines: int, columns: int) -> npt.NDArray[Any]:
            made.append(torch.empty((lines, self.lines.height_px, columns), dtype=self._dtype, pin_memory=self._pin))
            bits = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32}[self._dtype.itemsize]
            array: npt.NDArray[Any] = made[0].view(bits).numpy()
            return array

        align_px = self.config.align_px
        _, faults = gather_pages(self.lines, self.caches, order.positions_B, align_px, empty, self._bits_256)
        return (made[0].unsqueeze(1) if made else None), faults

    def _finish(self, order: Order, pages: torch.Tensor | None, faults: dict[int, str]) -> ReadBatch:
        """Turn pages into images of the dtype, pinned where they go to a GPU."""
        if pages is not None and pages.dtype != self._dtype:
            pages = normalised(pages, self._dtype)
        if pages is not None and self._pin and not pages.is_pinned():
            pages = pages.pin_memory()
        return ReadBatch(order.number, without(order.positions_B, faults), pages, faults)


def _read_files(lines: Lines, align_px: int, order: Order) -> Pages:
    padded_BHX, faults = read_pages(lines, order.positions_B, align_px)
    return (None if padded_BHX is None else torch.from_numpy(padded_BHX[:, None])), faults


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

    def __getitem__(self, order: Order) -> Pages:
        return _read_files(self._lines, self._align_px, order)

"""The plan through torch alone: from a cache in this process, from files also by worker processes.

Letters: B lines, H rows, X columns of the padded batch.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from khmer_ocr.load.base_loader import LineLoader, ReadBatch, normalised
from khmer_ocr.load.cache import PackedCache
from khmer_ocr.load.line_source import LineSource
from khmer_ocr.load.padded_batches import gather_pages, read_pages, without
from khmer_ocr.load.planner import EpochPlan
from khmer_ocr.load.read_workers import ReadingWorkers
from khmer_ocr.load.settings import LoadConfig
from khmer_ocr.load.targets import Vocabulary

Pages = tuple[torch.Tensor | None, dict[int, str]]
Workers = ReadingWorkers[npt.NDArray[np.int64], tuple[npt.NDArray[np.uint8] | None, dict[int, str]]]


class Order(NamedTuple):
    """One batch to read: its place in the plan, and the positions of its lines."""

    number: int
    positions_B: npt.NDArray[np.int64]


class TorchLoader(LineLoader):
    """The reference of the DALI engine, equal to it to the last bit; the faster of the two on a cache."""

    engine = "torch"

    def __init__(
        self, lines: LineSource, caches: Sequence[PackedCache] | None, config: LoadConfig, split: str, vocab: Vocabulary
    ) -> None:
        super().__init__(lines, caches, config, split, vocab)
        self._pin = self.device.type == "cuda"
        self._helped = caches is None and config.num_workers > 0
        self._idle: Workers | None = None
        self._at_work: list[Workers] = []

    def _read(self, plan: EpochPlan, start_batch: int) -> Iterator[ReadBatch]:
        orders = [Order(number, plan.batch(number)) for number in range(start_batch, len(plan))]
        if self._helped and orders:
            return self._read_by_workers(orders, self._take_workers())
        return self._read_here(orders)

    def _read_here(self, orders: list[Order]) -> Iterator[ReadBatch]:
        read = partial(_read_files, self.lines, self.config.align_px) if self.caches is None else self._gather
        for order in orders:
            yield self._finish(order, *read(order))

    def _read_by_workers(self, orders: list[Order], workers: Workers) -> Iterator[ReadBatch]:
        try:
            answers = workers.map([order.positions_B for order in orders])
            for order, (padded_BHX, faults) in zip(orders, answers, strict=True):
                yield self._finish(order, _tensor(padded_BHX), faults)
        finally:
            self._at_work.remove(workers)
            if self._idle is None and workers.alive:
                self._idle = workers
            else:
                workers.close()

    def _take_workers(self) -> Workers:
        """Take those of the last epoch; start others where it is still under way or one of them has died."""
        workers, self._idle = self._idle, None
        if workers is None or not workers.alive:
            read = partial(read_pages, self.lines, align_px=self.config.align_px)
            workers = ReadingWorkers(read, self.config.num_workers, max(self.config.prefetch, 1))
        self._at_work.append(workers)
        return workers

    @property
    def _depth(self) -> int:
        # What workers have made is taken from them by a thread, so that one that stands still is noticed.
        return max(self.config.prefetch, 1) if self._helped else self.config.prefetch

    def _tasks(self, thread: int) -> list[tuple[str, str]]:
        at_work = self._at_work[-1:]
        return at_work[0].tasks() if at_work else super()._tasks(thread)

    def close(self) -> None:
        """End worker processes; the next epoch would start them anew."""
        for workers in (*self._at_work, *filter(None, [self._idle])):
            workers.close()
        self._idle = None

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


def _read_files(lines: LineSource, align_px: int, order: Order) -> Pages:
    padded_BHX, faults = read_pages(lines, order.positions_B, align_px)
    return _tensor(padded_BHX), faults


def _tensor(padded_BHX: npt.NDArray[np.uint8] | None) -> torch.Tensor | None:
    return None if padded_BHX is None else torch.from_numpy(padded_BHX[:, None])

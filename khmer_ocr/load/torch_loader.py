"""The plan through torch alone: from a cache in this process, from files also by worker processes.

Letters: B lines, H rows, X columns of the padded batch.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy.typing as npt
import torch
from khmer_ocr_kernels.arrays import I64, U8
from khmer_ocr_kernels.pad_normalize import to_unit

from khmer_ocr.load.base_loader import LineLoader, ReadBatch
from khmer_ocr.load.cache import PackedCache
from khmer_ocr.load.collate import collate_cached, collate_files, without
from khmer_ocr.load.line_source import LineSource
from khmer_ocr.load.planner import EpochPlan
from khmer_ocr.load.read_workers import ReadingWorkers
from khmer_ocr.load.settings import LoadConfig
from khmer_ocr.load.targets import Vocabulary

Collated = tuple[torch.Tensor | None, dict[int, str]]
Workers = ReadingWorkers[I64, tuple[U8 | None, dict[int, str]]]


class TorchLoader(LineLoader):
    """The reference of the DALI engine, equal to it to the last bit; the faster of the two on a cache."""

    engine = "torch"

    def __init__(
        self, lines: LineSource, caches: Sequence[PackedCache] | None, config: LoadConfig, split: str, vocab: Vocabulary
    ) -> None:
        super().__init__(lines, caches, config, split, vocab)
        self._pin = self.device.type == "cuda"
        self._uses_workers = caches is None and config.num_workers > 0
        self._idle: Workers | None = None
        self._busy: list[Workers] = []

    def _read(self, plan: EpochPlan, start_batch: int) -> Iterator[ReadBatch]:
        orders = [plan.batch(number) for number in range(start_batch, len(plan))]
        # Processes are started here, in the consumer's thread.
        workers = self._take_workers() if self._uses_workers and orders else None
        return self._read_orders(orders, start_batch, workers)

    def _read_orders(self, orders: list[I64], start_batch: int, workers: Workers | None) -> Iterator[ReadBatch]:
        if workers is None:
            read = self._collate_files if self.caches is None else self._collate_cached
            for number, positions_B in enumerate(orders, start_batch):
                yield self._finish(number, positions_B, *read(positions_B))
            return
        try:
            answers = zip(orders, workers.map(orders), strict=True)
            for number, (positions_B, (padded_B1HX, faults)) in enumerate(answers, start_batch):
                yield self._finish(number, positions_B, _tensor(padded_B1HX), faults)
        finally:
            self._busy.remove(workers)
            if self._idle is None and workers.alive:
                self._idle = workers
            else:
                workers.close()

    def _take_workers(self) -> Workers:
        """Take those of the last epoch; start others where it is still under way or one of them has died."""
        workers, self._idle = self._idle, None
        if workers is None or not workers.alive:
            read = partial(collate_files, self.lines, align_px=self.config.align_px)
            workers = ReadingWorkers(read, self.config.num_workers, max(self.config.prefetch, 1))
        self._busy.append(workers)
        return workers

    @property
    def _depth(self) -> int:
        # What workers have made is taken from them by a thread, so that one that stands still is noticed.
        return max(self.config.prefetch, 1) if self._uses_workers else self.config.prefetch

    def _tasks(self, thread: int) -> list[tuple[str, str]]:
        at_work = self._busy[-1:]
        return at_work[0].tasks() if at_work else super()._tasks(thread)

    def close(self) -> None:
        """End worker processes; the next epoch would start them anew."""
        for workers in (*self._busy, *filter(None, [self._idle])):
            workers.close()
        self._idle = None

    def _collate_files(self, positions_B: I64) -> Collated:
        padded_B1HX, faults = collate_files(self.lines, positions_B, self.config.align_px)
        return _tensor(padded_B1HX), faults

    def _collate_cached(self, positions_B: I64) -> Collated:
        """Read a batch from the caches, in its final dtype and, for a GPU, in pinned memory."""
        assert self.caches is not None
        made: list[torch.Tensor] = []

        def empty(lines: int, columns: int) -> npt.NDArray[Any]:
            made.append(torch.empty((lines, self.lines.height_px, columns), dtype=self._dtype, pin_memory=self._pin))
            bits = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32}[self._dtype.itemsize]
            array: npt.NDArray[Any] = made[0].view(bits).numpy()
            return array

        align_px = self.config.align_px
        _, faults = collate_cached(self.lines, self.caches, positions_B, align_px, empty, self._bits_256)
        return (made[0].unsqueeze(1) if made else None), faults

    def _finish(self, number: int, positions_B: I64, images: torch.Tensor | None, faults: dict[int, str]) -> ReadBatch:
        """Give images the dtype, and pinned memory where they go to a GPU."""
        if images is not None and images.dtype != self._dtype:
            images = to_unit(images, self._dtype)
        if images is not None and self._pin and not images.is_pinned():
            images = images.pin_memory()
        return ReadBatch(number, without(positions_B, faults), images, faults)


def _tensor(padded_B1HX: U8 | None) -> torch.Tensor | None:
    return None if padded_B1HX is None else torch.from_numpy(padded_B1HX)

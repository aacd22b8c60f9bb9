"""What both engines share: the batch, its epoch, faults and statistics; an engine adds how images are read.

Letters: B lines, H rows, X columns of the padded batch, T tokens of the longest text, N samples of the split.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np
import numpy.typing as npt
import torch
from khmer_ocr_kernels.arrays import I64
from khmer_ocr_kernels.pad_normalize import to_unit, unit_table

from khmer_ocr.dataset.repair_advice import advice_to_repair
from khmer_ocr.errors import ConfigError, DatasetError, WorkerError
from khmer_ocr.load.cache import PackedCache
from khmer_ocr.load.line_source import LineSource
from khmer_ocr.load.planner import EpochPlan, plan_epoch
from khmer_ocr.load.prefetch import ahead
from khmer_ocr.load.read_errors import ReadErrorLog
from khmer_ocr.load.read_workers import StallWatch
from khmer_ocr.load.settings import LoadConfig
from khmer_ocr.load.targets import TargetEncoder, Vocabulary


class Batch(TypedDict):
    """Lines padded to one width.

    Attributes:
        images: (B, 1, H, X) on the loader's device: uint8 with background 255, or floating-point with background 1.
        targets: int64 (B, T), 0 where a text has ended.
        image_lengths: int64 (B,), true widths in px.
        target_lengths: int64 (B,).
        texts: B texts.
        index: int64 (B,), positions in the split (of several roots: in all of them, one after the other).
        number: place of the batch in its epoch, from 0; with the epoch it is where to resume.
    """

    images: torch.Tensor
    targets: torch.Tensor
    image_lengths: torch.Tensor
    target_lengths: torch.Tensor
    texts: list[str]
    index: torch.Tensor
    number: int


class ReadBatch(NamedTuple):
    """What an engine hands over.

    Attributes:
        number: place of the batch in the plan.
        positions_B: int64, the lines that could be read.
        images: (B, 1, H, X) of the loader's dtype, on its device; None where no line could be read.
        faults: position to fault of the others.
    """

    number: int
    positions_B: I64
    images: torch.Tensor | None
    faults: dict[int, str]


@dataclass
class LoadStatistics:
    """What a loader has delivered since it was opened or since `reset`.

    Attributes:
        batches: batches delivered.
        samples: lines in them.
        line_px: sum of their true widths.
        padded_px: sum of their padded widths.
        left_out: lines that could not be read.
        wait_s: time in which the consumer waited for a batch.
        use_s: time in which the consumer had one in hand.
        full_s: time in which the reader waited for the consumer, its queue being full.
    """

    batches: int = 0
    samples: int = 0
    line_px: int = 0
    padded_px: int = 0
    left_out: int = 0
    wait_s: float = 0.0
    use_s: float = 0.0
    full_s: float = 0.0

    def reset(self) -> None:
        """Begin anew."""
        self.__init__()  # type: ignore[misc]

    @property
    def rate_samples_per_s(self) -> float:
        """Lines delivered per second, consumer included."""
        elapsed_s = self.wait_s + self.use_s
        return self.samples / elapsed_s if elapsed_s else 0.0

    @property
    def padding_waste(self) -> float:
        """Share of all columns that is padding."""
        return 1 - self.line_px / self.padded_px if self.padded_px else 0.0

    @property
    def waiting_share(self) -> float:
        """Share of time in which the consumer waited."""
        elapsed_s = self.wait_s + self.use_s
        return self.wait_s / elapsed_s if elapsed_s else 0.0

    def __str__(self) -> str:
        return (
            f"{self.samples:,} lines in {self.batches:,} batches, {self.rate_samples_per_s:,.0f} lines/s, "
            f"padding {100 * self.padding_waste:.1f} %, consumer waited {100 * self.waiting_share:.1f} % of the time, "
            f"reader waited {self.full_s:.2f} s for room, {self.left_out} left out"
        )


class LineLoader(ABC):
    """Batches of one split, epoch by epoch; open it with `open_loader`.

    Attributes:
        lines: the split's lines.
        config: the settings it was opened with.
        engine: "dali" or "torch".
        statistics: counts since it was opened; call its `reset` to begin anew.
        left_out: position to fault of each line left out in the last epoch, or so far in this one.
    """

    engine: str

    def __init__(
        self, lines: LineSource, caches: Sequence[PackedCache] | None, config: LoadConfig, split: str, vocab: Vocabulary
    ) -> None:
        self.lines, self.caches, self.config, self.split = lines, caches, config, split
        self.device = torch.device(config.device)
        self.statistics = LoadStatistics()
        self.left_out: dict[int, str] = {}
        self._encode = TargetEncoder(vocab)
        # What engines make in this process: for a GPU the bytes cross as they are and become numbers there.
        on_cpu = self.device.type == "cpu"
        self._dtype: torch.dtype = getattr(torch, config.dtype) if on_cpu else torch.uint8
        self._bits_256: npt.NDArray[np.unsignedinteger[Any]] | None = None
        if config.dtype != "uint8" and on_cpu:
            self._bits_256 = unit_table(config.dtype)
        self._planned: tuple[int, EpochPlan] | None = None
        self._kept_M: I64 | None = None

    def plan(self, epoch: int) -> EpochPlan:
        """This rank's plan of an epoch; the last one is kept."""
        if self._planned is None or self._planned[0] != epoch:
            widths_N = self.lines.widths_N
            if self._kept_M is not None:
                widths_N = widths_N[self._kept_M]
            plan = plan_epoch(widths_N, self.config, epoch, self.split)
            if self._kept_M is not None:
                plan = replace(plan, order_M=self._kept_M[plan.order_M])
            self._planned = epoch, plan
        return self._planned[1]

    def leave_out(self, positions: Sequence[I64]) -> None:
        """Plan all epochs without some lines, e.g. those whose labels can't be learned.

        Args:
            positions: of the lines in each data set, int64.
        """
        begins = self.lines.begins_P1[:-1].tolist()
        out = np.concatenate([begin + own for begin, own in zip(begins, positions, strict=True)])
        self._kept_M = np.setdiff1d(np.arange(len(self.lines)), out) if len(out) else None
        self._planned = None

    def batch_count(self, epoch: int) -> int:
        """Count the batches of an epoch, which every rank has as many of."""
        return len(self.plan(epoch))

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Read one epoch.

        Args:
            epoch: its number, at least 0.
            start_batch: go on at this batch, as if those before it had been read.

        Yields:
            Batches of the plan in its order. With `on_error="skip"` lines that can't be read are missing from a
            batch; one without any line is left out, so that the `number` of batches may have gaps.

        Raises:
            DatasetError: a line can't be read (on_error="raise"), or more than 1 % can't ("skip").
            ConfigError: no such epoch or batch.
        """
        plan = self.plan(epoch)
        if not 0 <= start_batch <= len(plan):
            raise ConfigError(f"start_batch is {start_batch}; epoch {epoch} has {len(plan)} batches, from 0 on.")
        return self._deliver(plan, epoch, start_batch)

    @property
    def _depth(self) -> int:
        """How many batches a thread is to make ahead."""
        return self.config.prefetch

    @abstractmethod
    def _read(self, plan: EpochPlan, start_batch: int) -> Iterator[ReadBatch]:
        """Read the batches of a plan from `start_batch` on.

        This is called in the consumer's thread, and may start processes; what it returns runs in the thread that reads
        ahead.
        """

    def _tasks(self, thread: int) -> list[tuple[str, str]]:
        """Who is at work while the consumer waits; see `StallWatch.look`."""
        return [("the reading thread", f"/proc/self/task/{thread}")]

    def close(self) -> None:  # noqa: B027 - an engine without processes has nothing to do
        """End worker processes; the next epoch would start them anew."""

    def _deliver(self, plan: EpochPlan, epoch: int, start_batch: int) -> Iterator[Batch]:
        faults, counts = ReadErrorLog(self.config.on_error, plan.samples), self.statistics
        self.left_out = faults.messages

        def full(seconds: float) -> None:
            counts.full_s += seconds

        watch = StallWatch()

        def waiting(thread: int) -> None:
            try:
                watch.look(self._tasks(thread))
            except WorkerError:
                self.close()  # so that the thread that waits for them ends too
                raise

        items = ahead(self._with_targets(self._read(plan, start_batch)), self._depth, full, waiting)
        try:
            while True:
                begin = time.perf_counter()
                watch.begin()
                item = next(items, None)
                counts.wait_s += time.perf_counter() - begin
                if item is None:
                    break
                read, batch = item
                faults.add(read.faults)
                counts.left_out += len(read.faults)
                if batch is None:
                    self._refuse_empty_batch(read)
                    continue
                self._count(batch)
                begin = time.perf_counter()
                yield self._to_device(batch)
                counts.use_s += time.perf_counter() - begin
        except GeneratorExit:
            faults.report(f"{self.split}, epoch {epoch}, left early")
            raise
        finally:
            items.close()  # type: ignore[attr-defined]
        faults.report(f"{self.split}, epoch {epoch}")

    def _with_targets(self, batches: Iterator[ReadBatch]) -> Iterator[tuple[ReadBatch, Batch | None]]:
        """Add texts, targets and lengths to the images, in the thread that reads."""
        for read in batches:
            if read.images is None:
                yield read, None
                continue
            texts = [self.lines.text(i) for i in read.positions_B.tolist()]
            targets_BT, length_B = self._encode(texts)
            yield (
                read,
                Batch(
                    images=read.images,
                    targets=torch.from_numpy(targets_BT),
                    image_lengths=torch.from_numpy(self.lines.widths_N[read.positions_B].astype(np.int64)),
                    target_lengths=torch.from_numpy(length_B),
                    texts=texts,
                    index=torch.from_numpy(read.positions_B.copy()),
                    number=read.number,
                ),
            )

    def _to_device(self, batch: Batch) -> Batch:
        """Move images to the device and make them of the dtype; for the CPU engines have done so."""
        images, expected = batch["images"], cast(torch.dtype, getattr(torch, self.config.dtype))
        if images.device != self.device:
            images = images.to(self.device, non_blocking=True)
        elif images.is_cuda:
            # Another thread had them made in the default stream.
            torch.cuda.current_stream(self.device).wait_stream(torch.cuda.default_stream(self.device))
        if images.dtype != expected:
            images = to_unit(images, expected)
        return {**batch, "images": images}

    def _refuse_empty_batch(self, read: ReadBatch) -> None:
        if self.config.world > 1:
            raise DatasetError(
                f"no line of batch {read.number} can be read, and rank {self.config.rank} would be a batch behind the "
                f"others. {advice_to_repair(self.lines.indices[0].root, self.lines.indices[0].split)}"
            )

    def _count(self, batch: Batch) -> None:
        counts, images = self.statistics, batch["images"]
        counts.batches += 1
        counts.samples += len(images)
        counts.line_px += int(batch["image_lengths"].sum())
        counts.padded_px += len(images) * images.shape[-1]

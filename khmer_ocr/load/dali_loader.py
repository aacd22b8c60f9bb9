"""The plan through NVIDIA DALI; the only file that imports it.

Bytes are read and checked here before DALI sees them, since one bad sample costs it the whole batch. The source has no
state: what it gives depends on the plan and the number of the batch, so that (epoch, batch) is all there is to resume.

Letters: B lines, H rows, X columns of the padded batch.
"""

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from khmer_ocr_kernels.arrays import I64, U8
from khmer_ocr_kernels.pad_normalize import to_unit
from khmer_ocr_kernels.reference import BACKGROUND
from PIL import Image

from khmer_ocr.dataset.sample_decoding import decode_image, is_plain_grey
from khmer_ocr.errors import DatasetError, missing_extra
from khmer_ocr.load.base_loader import LineLoader, ReadBatch
from khmer_ocr.load.cache import PackedCache
from khmer_ocr.load.collate import collate_cached, collate_files, padded_width, without
from khmer_ocr.load.line_source import LineSource
from khmer_ocr.load.planner import EpochPlan
from khmer_ocr.load.settings import LoadConfig
from khmer_ocr.load.targets import Vocabulary

try:
    # By name, since its stubs describe neither its executor nor its types.
    dali: Any = import_module("nvidia.dali")
    fn, types = dali.fn, dali.types
except ImportError as fault:
    raise missing_extra(
        'engine "dali"', "nvidia.dali", seen=str(fault), otherwise='Give engine "torch", or install it anew.'
    ) from fault

_QUEUE = 2
"""Batches in DALI's own queue; more are held ready by the loader's thread."""
_NOTHING = np.zeros((1, 1), np.uint8)


def _png_of(pixels_HW: U8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


class _Feed(NamedTuple):
    """What is fed to DALI for the lines of a batch.

    Attributes:
        samples: at least one.
        positions_B: the lines they are of.
        faults: position to fault of the lines left out.
        to_confirm: position to signature of the lines whose pixels are to be compared with what is recorded.
    """

    samples: list[npt.NDArray[Any]]
    positions_B: I64
    faults: dict[int, str]
    to_confirm: dict[int, int]


class _Source(ABC):
    """Gives DALI the batches of a plan by their number, and keeps for its caller which lines are in them.

    Attributes:
        batches_per_run: how many batches of the plan DALI gets in one iteration.
        given: number of a batch to what was given for it, without the samples, until it is delivered.
    """

    batches_per_run = 1

    def __init__(self, lines: LineSource) -> None:
        self._lines = lines
        self._plan: EpochPlan | None = None
        self._start = 0
        self.given = dict[int, _Feed]()

    def begin(self, plan: EpochPlan, start_batch: int) -> None:
        """Let iteration 0 be this batch of this plan."""
        self._plan, self._start = plan, start_batch
        self.given.clear()

    def __call__(self, info: Any) -> list[npt.NDArray[Any]]:
        """Give the samples of one iteration; DALI delivers what becomes of them in the same order."""
        assert self._plan is not None
        first, samples = self._start + info.iteration * self.batches_per_run, list[npt.NDArray[Any]]()
        if first >= len(self._plan):
            raise StopIteration
        for number in range(first, min(first + self.batches_per_run, len(self._plan))):
            given = self._read_lines(self._plan.batch(number))
            self.given[number] = given._replace(samples=[])
            samples += given.samples
        return samples

    @abstractmethod
    def _read_lines(self, positions_B: I64) -> _Feed:
        """Read these lines."""


class _Files(_Source):
    """Checked PNG files, one a sample."""

    def __init__(self, lines: LineSource, undecodable: dict[int, str]) -> None:
        super().__init__(lines)
        self._undecodable = undecodable

    def _read_lines(self, positions_B: I64) -> _Feed:
        files, faults, to_confirm = list[npt.NDArray[Any]](), dict[int, str](), dict[int, int]()
        for i in positions_B.tolist():
            if i in self._undecodable:
                faults[i] = self._undecodable[i]
                continue
            try:
                data, signature = self._lines.encoded(i)
                if not is_plain_grey(data):  # DALI's own way to grey differs from ours
                    data = _png_of(decode_image(data, self._lines.name(i)))
            except DatasetError as fault:
                faults[i] = str(fault)
            else:
                files.append(np.frombuffer(data, np.uint8))
                if signature is not None:
                    to_confirm[i] = signature
        # DALI knows no empty batch: this stands for it and is never delivered.
        samples = files or [np.frombuffer(_png_of(_NOTHING), np.uint8)]
        return _Feed(samples, without(positions_B, faults), faults, to_confirm)


class _Cached(_Source):
    """Whole padded batches as samples: nothing is left to do for a line, and DALI's cost is by samples and runs."""

    batches_per_run = 4

    def __init__(
        self, lines: LineSource, caches: Sequence[PackedCache], align_px: int, bits_256: npt.NDArray[Any] | None
    ) -> None:
        super().__init__(lines)
        self._caches, self._align_px, self._bits_256 = caches, align_px, bits_256
        self._dtype = np.dtype(np.uint8) if bits_256 is None else bits_256.dtype
        # DALI copies what it is given before it asks again; memory that was touched before is faster to write.
        self._buffers = [np.empty(0, self._dtype) for _ in range(self.batches_per_run)]

    def _read_lines(self, positions_B: I64) -> _Feed:
        def empty(lines: int, columns: int) -> npt.NDArray[Any]:
            buffer, shape = self._buffers.pop(0), (lines, self._lines.height_px, columns)
            if buffer.size < math.prod(shape):
                buffer = np.empty(2 * math.prod(shape), self._dtype)
            self._buffers.append(buffer)
            return buffer[: math.prod(shape)].reshape(shape)

        caches, align_px = self._caches, self._align_px
        padded_BHX, faults = collate_cached(self._lines, caches, positions_B, align_px, empty, self._bits_256)
        batch = _NOTHING[None].astype(self._dtype) if padded_BHX is None else padded_BHX
        return _Feed([batch], without(positions_B, faults), faults, {})


class _Pipeline(NamedTuple):
    """A built pipeline, what feeds it, and the most samples that it takes at once."""

    pipeline: Any
    source: _Source
    most_samples: int


class DaliLoader(LineLoader):
    """Reads by DALI: decodes in its threads, and delivers to a GPU without a copy of ours."""

    engine = "dali"

    def __init__(
        self, lines: LineSource, caches: Sequence[PackedCache] | None, config: LoadConfig, split: str, vocab: Vocabulary
    ) -> None:
        super().__init__(lines, caches, config, split, vocab)
        self._undecodable = dict[int, str]()
        self._idle: _Pipeline | None = None

    def _read(self, plan: EpochPlan, start_batch: int) -> Iterator[ReadBatch]:
        number = start_batch
        while number < len(plan):
            line = self._take_pipeline(plan, number)
            try:
                while number < len(plan):
                    (samples,) = line.pipeline.run()
                    for images in (samples,) if self.caches is None else samples:
                        yield self._finish(number, images, line.source.given.pop(number))
                        number += 1
                self._return_pipeline(line)
            except RuntimeError as fault:
                self._find_undecodable(plan, number, fault)

    def _take_pipeline(self, plan: EpochPlan, start_batch: int) -> _Pipeline:
        """Take the pipeline of the last epoch; build one where that is at work, broke off or had smaller batches."""
        most_samples = int(np.diff(plan.batch_offsets_B1).max()) if self.caches is None else _Cached.batches_per_run
        line, self._idle = self._idle, None
        if line is None or most_samples > line.most_samples:
            source: _Source = (
                _Files(self.lines, self._undecodable)
                if self.caches is None
                else _Cached(self.lines, self.caches, self.config.align_px, self._bits_256)
            )
            line = _Pipeline(self._build(source, most_samples), source, most_samples)
        line.source.begin(plan, start_batch)
        return line

    def _return_pipeline(self, line: _Pipeline) -> None:
        """Keep a pipeline whose source has run dry for the next epoch."""
        try:
            line.pipeline.run()
        except StopIteration:
            line.pipeline.reset()
            self._idle = line

    def _build(self, source: _Source, most_samples: int) -> Any:
        on_gpu, decode, align_px = self.device.type == "cuda", self.caches is None, self.config.align_px

        @dali.pipeline_def(  # type: ignore[untyped-decorator]
            batch_size=most_samples,
            num_threads=max(self.config.num_workers, 1),
            device_id=(self.device.index or 0) if on_gpu else None,
            prefetch_queue_depth=_QUEUE,
            exec_dynamic=True,
            # Where nothing is decoded there is nothing to do meanwhile, and going from thread to thread costs 0.1 ms.
            exec_async=decode or on_gpu,
        )
        def lines() -> Any:
            bits_type = {1: types.UINT8, 2: types.UINT16, 4: types.UINT32}[self._dtype.itemsize]
            data = fn.external_source(
                source,
                batch=True,
                batch_info=True,
                dtype=types.UINT8 if decode else bits_type,
                ndim=1 if decode else 3,
            )
            if decode:
                # "mixed" decodes PNG on the CPU too, and leaves the copy to the GPU to DALI.
                data = fn.decoders.image(data, device="mixed" if on_gpu else "cpu", output_type=types.GRAY)
                # Padding (H, W) copies rows; padding (H, W, 1) goes pixel by pixel and takes three times as long.
                data = fn.pad(fn.squeeze(data, axes=[2]), axes=(1,), align=(align_px,), fill_value=BACKGROUND)
            elif on_gpu:
                data = data.gpu()
            return data

        pipeline = lines()
        pipeline.build()
        return pipeline

    def _finish(self, number: int, images: Any, given: _Feed) -> ReadBatch:
        """See what DALI made, the samples of a batch or one that is a batch, as a tensor; its memory is DALI's."""
        _, positions_B, faults, to_confirm = given
        if not len(positions_B):
            return ReadBatch(number, positions_B, None, faults)
        images_B1HX = torch.utils.dlpack.from_dlpack(images.as_tensor() if self.caches is None else images)
        images_B1HX = images_B1HX.reshape(len(positions_B), 1, self.lines.height_px, -1)
        if self.caches is not None:
            images_B1HX = images_B1HX.view(self._dtype)
        if to_confirm and (wrong := self._confirm(positions_B, images_B1HX, to_confirm)):
            faults, right_B = {**faults, **wrong}, ~np.isin(positions_B, list(wrong))
            positions_B = positions_B[right_B]
            if not len(positions_B):
                return ReadBatch(number, positions_B, None, faults)
            columns = padded_width(self.lines.widths_N[positions_B], self.config.align_px)
            images_B1HX = images_B1HX[torch.from_numpy(right_B).to(images_B1HX.device), ..., :columns].contiguous()
        if self.config.dtype != "uint8" and images_B1HX.dtype == torch.uint8:
            images_B1HX = to_unit(images_B1HX, getattr(torch, self.config.dtype))
        return ReadBatch(number, positions_B, images_B1HX, faults)

    def _confirm(self, positions_B: I64, images_B1HX: torch.Tensor, to_confirm: dict[int, int]) -> dict[int, str]:
        """Compare decoded lines with what is recorded of them; position to fault of those that differ."""
        pixels_BHX, wrong = images_B1HX[:, 0].cpu().numpy(), dict[int, str]()
        for i, pixels_HX in zip(positions_B.tolist(), pixels_BHX, strict=True):
            if i in to_confirm:
                fault = self.lines.confirm(i, to_confirm[i], pixels_HX[:, : self.lines.widths_N[i]])
                if fault is not None:
                    wrong[i] = fault
        return wrong

    def _find_undecodable(self, plan: EpochPlan, number: int, fault: RuntimeError) -> None:
        """Find the lines that made DALI fail, in the batches it had in hand; they will count as faults.

        Raises:
            RuntimeError: every line can be decoded: what failed was something else.
        """
        if self.caches is not None:
            raise fault
        found = dict[int, str]()
        for ahead in range(number, min(number + _QUEUE + 2, len(plan))):
            found |= collate_files(self.lines, plan.batch(ahead), self.config.align_px)[1]
        if not found.keys() - self._undecodable.keys():
            raise fault
        self._undecodable.update(found)  # sources share it

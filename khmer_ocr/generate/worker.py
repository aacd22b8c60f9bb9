"""The process that draws: chunks of texts come in through a pipe, files go out, the journal is told.

Run by `pool.Pool` as `python -m khmer_ocr.generate.worker FD`. It holds no state that a chunk's bytes depend on.
"""

import ctypes
import json
import logging
import mmap
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from khmer_ocr import chance
from khmer_ocr.augment.recipe import Recipe
from khmer_ocr.augment.wear import Wearer
from khmer_ocr.dataset import layout
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.errors import ConfigError, KhmerOcrError
from khmer_ocr.generate.journal import Journal
from khmer_ocr.generate.png import encode_lines
from khmer_ocr.generate.sinks import open_sink
from khmer_ocr.generate.source import blocks
from khmer_ocr.render.compose import LineRenderer
from khmer_ocr.render.fonts import FontFace
from khmer_ocr.render.metrics import FaceMetrics
from khmer_ocr.render.plan import LinePlan, RenderConfig
from khmer_ocr.render.shape import EM16
from khmer_ocr.text.normalize import normalize
from khmer_ocr.transfer import Download, warn_of_memory

BATCH_LINES = 512
BATCH_AREA = 1 << 26
"""Characters drawn at once, times height squared: a line's pixels grow with both, and a worker's memory is bounded."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """Everything a worker needs once.

    Attributes:
        faces: the run's faces, in order.
        metrics: by face name.
        render: how to draw.
        root: output folder.
        format: one of `layout.FORMATS`.
        seed: the run's seed.
        atlas_dir: raster cache, None for none.
        recorded_root: output folder as the metadata carry it, empty where it is `root`.
        recipe: how training lines are worn, None to leave them clean.
        device: where lines are drawn and worn, "cpu" or "cuda".
    """

    faces: tuple[FontFace, ...]
    metrics: dict[str, FaceMetrics]
    render: RenderConfig
    root: str
    format: str
    seed: int
    atlas_dir: Path | None
    recorded_root: str = ""
    recipe: Recipe | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class _Block:
    """Lines drawn and worn, or about to be: a device may still be at it while the host does something else."""

    split: str
    first: int
    texts: list[str]
    plan: LinePlan
    pixels: Download
    clipped: Download
    offsets_B1: npt.NDArray[np.int64]
    width_B: npt.NDArray[np.int32]
    worn: list[dict[str, Any]]


class Artist:
    """Does a worker's tasks; used in-process by tests and benchmarks too.

    Args:
        job: what the run is.
        at_face_1: int32 (1,) shared with the parent: the face being handled, so that a death has a name.
    """

    def __init__(self, job: Job, at_face_1: npt.NDArray[np.int32] | None = None) -> None:
        self.job = job
        self.renderer = LineRenderer(job.faces, job.metrics, job.render, job.atlas_dir, job.device)
        if at_face_1 is not None:
            self.renderer.runs.at_face_1 = self.renderer.atlas.at_face_1 = at_face_1
        self.journal = Journal(Path(job.root))
        self._keys: dict[str, npt.NDArray[np.uint32]] = {}
        self._sinks: dict[str, Any] = {}
        self._wearer = Wearer(job.recipe, job.seed, job.device) if job.recipe else None
        self._stem_em_F = np.array([job.metrics[face.name].stem_em16 for face in job.faces]) / EM16
        self._out_of_memory: tuple[type[Exception], ...] = ()
        if job.device != "cpu":
            import torch

            self._out_of_memory = (torch.cuda.OutOfMemoryError,)

    def plan(self, split: str, first: int, texts: list[str], normalised: bool) -> bytes:
        """Say for each line why it is rejected, a byte a line; `split` and `first` only name the task."""
        lines = texts if normalised else [normalize(text) for text in texts]
        return self.renderer.planner.rejections(lines).tobytes()

    def lines(self, split: str, first: int, texts: list[str]) -> tuple[list[Sample], list[bytes]]:
        """Draw, wear and encode consecutive samples; lines worn together are those of one call.

        Args:
            split: name of the split; "train" samples are addressed by number, others by the hash of their text.
            first: number of the first sample.
            texts: normalised, drawable lines.

        Returns:
            The samples' metadata and their PNG files.
        """
        return self._finished(self._submitted(split, first, texts))

    def drawn(self, split: str, chunk: int, lines: list[str]) -> tuple[list[Sample], list[bytes]]:
        """Draw one chunk's normalised lines, in blocks that depend on nothing but these lines."""
        first, height_px = chunk * layout.CHUNK, self.job.render.image_height
        submitted = (
            block
            for begin, texts in blocks(lines, BATCH_LINES, BATCH_AREA // height_px**2)
            for block in self._submitted(split, first + begin, texts)
        )
        return self._finished(submitted if self.job.device == "cpu" else one_ahead(submitted))

    def _submitted(self, split: str, first: int, texts: list[str]) -> Iterator[_Block]:
        """The lines as one block, or in halves if the device has no memory for so many."""
        try:
            block = self._submit(split, first, texts)
        except self._out_of_memory as error:
            if len(texts) == 1:
                raise ConfigError(
                    f"The GPU has no memory left for a single line ({error}). Give fewer --workers, or --device cpu."
                ) from error
            block = None
        # Not within `except`: an exception being handled holds on to the tensors of what failed.
        if block is not None:
            yield block
            return
        warn_of_memory(len(texts))
        half = len(texts) // 2
        yield from self._submitted(split, first, texts[:half])
        yield from self._submitted(split, first + half, texts[half:])

    def _submit(self, split: str, first: int, texts: list[str]) -> _Block:
        key_2 = self._keys.setdefault(split, chance.key(self.job.seed, split, "plan"))
        if split == "train":
            address_B = np.arange(first, first + len(texts), dtype=np.uint64)
        else:
            address_B = np.array([chance.text_address(text) for text in texts], np.uint64)
        batch, clipped_B = self.renderer.submit(texts, self.renderer.plan(texts, address_B, key_2))
        pixels_N, offsets_B1, width_B, worn = batch.pixels_N, batch.offsets_B1, batch.width_B, list[dict[str, Any]]()
        if self._wearer is not None and split == layout.WORN_SPLIT:
            stem_px_B = self._stem_em_F[batch.plan.face_B] * batch.plan.size64_B / 64
            pixels_N, offsets_B1, width_B, worn = self._wearer.wear(
                pixels_N, offsets_B1, width_B, batch.height_px, split, address_B, stem_px_B
            )
        coming = Download(pixels_N), Download(clipped_B)
        return _Block(split, first, texts, batch.plan, *coming, offsets_B1, width_B, worn)

    def _finished(self, submitted: Iterable[_Block]) -> tuple[list[Sample], list[bytes]]:
        samples, images = list[Sample](), list[bytes]()
        for block in submitted:
            self.renderer.refuse_clipped(block.texts, block.plan, block.clipped.take())
            # Taken out of the block, which lives until the next one is there: only one block's pixels are held.
            pixels_N, height_px = block.pixels.take(), self.job.render.image_height
            samples += self._samples(block, pixels_N)
            images += encode_lines(pixels_N, block.offsets_B1, block.width_B, height_px)
            del pixels_N
        return samples, images

    def _samples(self, block: _Block, pixels_N: npt.NDArray[np.uint8]) -> list[Sample]:
        """Metadata of a block's lines."""
        job, split, worn = self.job, block.split, block.worn
        offsets, pixels = block.offsets_B1.tolist(), memoryview(pixels_N.data)
        shard = layout.shard_name(split, block.first // layout.CHUNK) if job.format == "webdataset" else None
        samples: list[Sample] = []
        face_B, size64_B, width_B = block.plan.face_B.tolist(), block.plan.size64_B.tolist(), block.width_B.tolist()
        for n, (text, face, size64, width) in enumerate(zip(block.texts, face_B, size64_B, width_B, strict=True)):
            stem = layout.stem(split, block.first + n)
            image_path, label_path = layout.recorded_paths(job.recorded_root or job.root, split, stem, shard)
            sample: Sample = {
                "filename": f"{stem}.png",
                "text": text,
                "font": job.faces[face].name,
                "image_path": image_path,
                "label_path": label_path,
                "image_width": width,
                "image_height": job.render.image_height,
                "pixel_hash": xxhash.xxh3_64_hexdigest(pixels[offsets[n] : offsets[n + 1]]),
                "size_ppem": size64 / 64,
            }
            if shard is not None:
                sample["shard"] = shard
            if worn:
                sample["augmentation"] = worn[n]
            samples.append(sample)
        return samples

    def chunk(self, split: str, chunk: int, texts: list[str], normalised: bool) -> tuple[int, int]:
        """Draw, store and commit one chunk; returns (samples, bytes written)."""
        lines = texts if normalised else [normalize(text) for text in texts]
        samples, images = self.drawn(split, chunk, lines)
        if split not in self._sinks:
            self._sinks[split] = open_sink(self.job.format, Path(self.job.root), split)
        written = self._sinks[split].write(chunk, samples, images)
        fonts = Counter(sample["font"] for sample in samples)
        rows = [json.dumps(sample, ensure_ascii=False).encode() for sample in samples]
        self.journal.commit(split, chunk, {"samples": len(samples), "bytes": written, "fonts": dict(fonts)}, rows)
        return len(samples), written

    def close(self) -> None:
        """Keep the rasters, let go of the folders."""
        self.renderer.atlas.save()
        for sink in self._sinks.values():
            sink.close()
        self._sinks.clear()


def one_ahead(blocks: Iterable[_Block]) -> Iterator[_Block]:
    """Each block once the next is submitted: a device works on that one while the host encodes this one."""
    waiting: _Block | None = None
    for block in blocks:
        if waiting is not None:
            yield waiting
        waiting = block
    if waiting is not None:
        yield waiting


def main() -> None:
    """Serve tasks until the pipe closes; failures go back as (kind, message), never as silence."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe_fd, state_fd, parent = map(int, sys.argv[1:])
    if sys.platform == "linux":
        # A worker must not outlive a parent that was killed: the next start draws the same files.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    pipe, state = Connection(pipe_fd), mmap.mmap(state_fd, mmap.PAGESIZE)
    # Read ahead, or the parent would wait with its next task, which no pipe holds whole, until this one is done.
    inbox: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
    try:
        artist = Artist(pipe.recv(), np.frombuffer(state, np.int32, count=1))
        artist.lines("train", 0, ["\u1780"])  # compiles the kernels, or loads them compiled
        pipe.send(("ready", os.getpid()))
        Thread(target=_fill, args=(pipe, inbox), daemon=True).start()
        while (task := inbox.get()) is not None:
            kind, *arguments = task
            if kind == "close":
                artist.close()
                return
            pipe.send(("done", getattr(artist, kind)(*arguments)))
    except (BrokenPipeError, ConnectionResetError, EOFError):
        return  # the parent is gone
    except (KhmerOcrError, OSError) as error:
        pipe.send(("failed", error))
    except Exception as error:
        pipe.send(("crashed", f"{error!r}\n{traceback.format_exc()}"))


def _fill(pipe: "Connection[Any, Any]", inbox: "SimpleQueue[tuple[Any, ...] | None]") -> None:
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        inbox.put(None)


if __name__ == "__main__":
    main()

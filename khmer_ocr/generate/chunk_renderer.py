"""Texts in, samples and PNG files out, chunks stored and committed; no state that bytes depend on is held."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from khmer_ocr_kernels.ragged import RaggedLines

from khmer_ocr import rng
from khmer_ocr.augment.augmenter import Augmenter
from khmer_ocr.augment.limits import TWO_PARTS
from khmer_ocr.augment.recipe import AugmentPlan, Recipe
from khmer_ocr.dataset import layout
from khmer_ocr.dataset.index import build_index
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.dataset.metadata import checked_sample
from khmer_ocr.dataset.png import encode_lines
from khmer_ocr.dataset.split_checks import part_problems
from khmer_ocr.dataset.writers import open_writer
from khmer_ocr.errors import ConfigError, DatasetError
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.generate.journal import Journal
from khmer_ocr.generate.split_text import blocks
from khmer_ocr.io.json_bytes import json_bytes
from khmer_ocr.io.transfer import Download, out_of_memory, warn_of_memory
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.face_metrics import FaceMetrics
from khmer_ocr.render.planner import LinePlan
from khmer_ocr.render.settings import RenderConfig
from khmer_ocr.render.shaping import EM16
from khmer_ocr.render.splice import cut_in_two, spliced_plan, spliced_texts
from khmer_ocr.text.normalize import normalize

BATCH_LINES = 512
BATCH_AREA = 1 << 26
"""Characters drawn at once, times height squared: a line's pixels grow with both, and a worker's memory is bounded."""


@dataclass(frozen=True)
class RenderJob:
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
        recipe: how training lines are augmented, None to leave them clean.
        device: where lines are drawn and augmented, "cpu" or "cuda".
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
    """Lines drawn and augmented, or about to be: a device may still be working on them while the host goes on."""

    split: str
    first: int
    texts: list[str]
    plan: LinePlan
    pixels: Download
    clipped: Download
    width_B: npt.NDArray[np.int32]
    augmented: list[dict[str, Any]]


class ChunkRenderer:
    """Does a worker's tasks; used in-process by tests and benchmarks too.

    Args:
        job: what the run is.
        at_face_1: int32 (1,) shared with the parent: the face being handled, so that a death has a name.

    Raises:
        ConfigError: the device has no memory for one more process, or the recipe needs torch, which is not installed.
    """

    def __init__(self, job: RenderJob, at_face_1: npt.NDArray[np.int32] | None = None) -> None:
        self.job = job
        try:
            self.renderer = LineRenderer(job.faces, job.metrics, job.render, job.atlas_dir, job.device)
        except RuntimeError as error:
            if job.device == "cpu" or not out_of_memory(error):
                raise
            raise ConfigError(
                f"The GPU has no memory left for one more process ({error}). Give fewer --workers, or --device cpu."
            ) from error
        if at_face_1 is not None:
            self.renderer.shaping_cache.at_face_1 = self.renderer.atlas.at_face_1 = at_face_1
        self.journal = Journal(Path(job.root))
        self._keys: dict[str, npt.NDArray[np.uint32]] = {}
        self._writers: dict[str, Any] = {}
        self._augmenter = Augmenter(job.recipe, job.seed, job.device) if job.recipe else None
        self._stroke_em_F = np.array([job.metrics[face.name].stroke_em16 for face in job.faces]) / EM16

    def warm_up(self) -> None:
        """Draw a line, any that a face of this run can draw: kernels are compiled, or loaded as they are."""
        texts = [chr(code) for code in (*range(0x1780, 0x17A3), *range(0x17E0, 0x17EA))]
        drawable = np.flatnonzero(self.renderer.planner.rejections(texts) == 0)
        if len(drawable):
            self.lines("train", 0, [texts[int(drawable[0])]])

    def plan(self, split: str, first: int, texts: list[str], normalised: bool) -> bytes:
        """Say for each line why it is rejected, a byte a line; `split` and `first` only name the task."""
        lines = texts if normalised else [normalize(text) for text in texts]
        return self.renderer.planner.rejections(lines).tobytes()

    def lines(self, split: str, first: int, texts: list[str]) -> tuple[list[Sample], list[bytes]]:
        """Draw, augment and encode consecutive samples; lines augmented together are those of one call.

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
        except RuntimeError as error:
            if self.job.device == "cpu" or not out_of_memory(error):
                raise
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
        key_2 = self._keys.setdefault(split, rng.key(self.job.seed, split, "plan"))
        if split == "train":
            address_B = np.arange(first, first + len(texts), dtype=np.uint64)
        else:
            address_B = np.array([rng.text_address(text) for text in texts], np.uint64)
        plan = self.renderer.plan(texts, address_B, key_2)
        if self._augmenter is None or split != layout.AUGMENTED_SPLIT:
            lines, clipped_B = self.renderer.submit(texts, plan)
            return _Block(split, first, texts, plan, Download(lines.pixels_N), Download(clipped_B), lines.width_B, [])
        stroke_px_B = self._stroke_em_F[plan.face_B] * plan.size64_B / 64
        decided = self._augmenter.decide(split, address_B, stroke_px_B)
        clean, clipped_B, seconds = self._spliced(split, texts, plan, address_B, decided)
        augmented = [self._augmenter.recipe.record(decided, n) for n in range(len(texts))]
        for n, facts in seconds.items():
            augmented[n][TWO_PARTS].update(facts)
        lines = self._augmenter.apply(clean, decided)
        coming = Download(lines.pixels_N), Download(clipped_B)
        return _Block(split, first, texts, plan, *coming, lines.width_B, augmented)

    def _spliced(
        self, split: str, texts: list[str], plan: LinePlan, address_B: npt.NDArray[np.uint64], decided: AugmentPlan
    ) -> tuple[RaggedLines, Any, dict[int, dict[str, Any]]]:
        """Draw lines, some spliced from two parts if the recipe says so; font and size of second parts."""
        steps = [step.op for step in self.job.recipe.steps] if self.job.recipe else []
        if TWO_PARTS not in steps:
            return *self.renderer.submit(texts, plan), {}
        step = steps.index(TWO_PARTS)
        place_B, active_B = decided.values_S[step]["place"], decided.active_SB[step]
        cuts = {n: cut_in_two(texts[n], place_B[n]) for n in np.flatnonzero(active_B).tolist()}
        parted = {n: cut for n, cut in cuts.items() if cut is not None}
        active_B[[n for n, cut in cuts.items() if cut is None]] = False
        if not parted:
            return *self.renderer.submit(texts, plan), {}
        cut_C = np.array(list(parted), np.int64)
        key_2 = rng.key(self.job.seed, split, "plan of second parts")
        second = self.renderer.plan([behind for _, behind in parted.values()], address_B[cut_C], key_2)
        second_P = np.insert(np.zeros(len(texts), bool), cut_C + 1, True)
        drawn = self.renderer.submit(spliced_texts(texts, parted), spliced_plan(plan, second, cut_C), second_P)
        facts = zip(parted, second.face_B.tolist(), second.size64_B.tolist(), strict=True)
        return *drawn, {n: {"font": self.job.faces[f].name, "size_ppem": size64 / 64} for n, f, size64 in facts}

    def _finished(self, submitted: Iterable[_Block]) -> tuple[list[Sample], list[bytes]]:
        samples, images = list[Sample](), list[bytes]()
        for block in submitted:
            self.renderer.refuse_clipped(block.texts, block.plan, block.clipped.take())
            # Taken out of the block, which lives until the next one is there: only one block's pixels are held.
            lines = RaggedLines(block.pixels.take(), block.width_B, self.job.render.image_height)
            samples += self._samples(block, lines)
            images += encode_lines(lines)
            del lines
        return samples, images

    def _samples(self, block: _Block, lines: RaggedLines) -> list[Sample]:
        """Metadata of a block's lines."""
        job, split, augmented = self.job, block.split, block.augmented
        offsets, pixels = lines.offsets_B1.tolist(), memoryview(lines.pixels_N.data)
        shard = layout.shard_name(split, block.first // layout.CHUNK) if job.format == "webdataset" else None
        samples: list[Sample] = []
        face_B, size64_B, width_B = block.plan.face_B.tolist(), block.plan.size64_B.tolist(), lines.width_B.tolist()
        for n, (text, face, size64, width) in enumerate(zip(block.texts, face_B, size64_B, width_B, strict=True)):
            stem = layout.stem(split, block.first + n)
            image_path, label_path = layout.recorded_paths(job.recorded_root or job.root, split, f"{stem}.png", shard)
            sample: Sample = {
                "filename": stem,
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
            if augmented:
                sample["augmentation"] = augmented[n]
            samples.append(sample)
        return samples

    def chunk(self, split: str, chunk: int, texts: list[str], normalised: bool) -> tuple[int, int]:
        """Draw, store and commit one chunk; returns (samples, bytes written)."""
        lines = texts if normalised else [normalize(text) for text in texts]
        samples, images = self.drawn(split, chunk, lines)
        if split not in self._writers:
            self._writers[split] = open_writer(self.job.format, Path(self.job.root), split)
        written = self._writers[split].write(chunk, samples, images)
        fonts = Counter(sample["font"] for sample in samples)
        rows = [json_bytes(sample) for sample in samples]
        self.journal.commit(split, chunk, {"samples": len(samples), "bytes": written, "fonts": dict(fonts)}, rows)
        return len(samples), written

    def stored(self, split: str, chunk: int, texts: list[str], normalised: bool) -> str:
        """Say what is wrong with a chunk that was committed before; nothing where its files are what was drawn."""
        root, file = Path(self.job.root), self.journal.fragment(split, chunk)
        try:
            if self.journal.damaged(split, [chunk]):
                return f"{file.name} is damaged"
            rows = file.read_bytes().split(b"\n")[1:]
            samples = [checked_sample(json.loads(row), n, file) for n, row in enumerate(rows)]
        except FileNotFoundError:
            return ""  # another shard has completed the split, or is drawing the chunk
        except (DatasetError, ValueError) as fault:
            return f"{file.name} is damaged ({fault})"
        lines = texts if normalised else [normalize(text) for text in texts]
        names = [layout.stem(split, chunk * layout.CHUNK + n) for n in range(len(lines))]
        if [sample["filename"].removesuffix(".png") for sample in samples] != names:
            return f"{file.name} names other samples"
        if [sample["text"] for sample in samples] != lines:
            return f"{file.name} holds other texts than this run draws"
        index = build_index(root, split, samples)
        return next((f"{p.filename}: {p.fault}" for p in part_problems(index, np.arange(len(index)))), "")

    def close(self) -> None:
        """Keep the rasters, let go of the folders."""
        self.renderer.atlas.save()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def one_ahead(blocks: Iterable[_Block]) -> Iterator[_Block]:
    """Each block once the next is submitted: a device works on that one while the host encodes this one."""
    waiting: _Block | None = None
    for block in blocks:
        if waiting is not None:
            yield waiting
        waiting = block
    if waiting is not None:
        yield waiting

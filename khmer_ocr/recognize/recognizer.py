"""Images of lines to texts: prepared one by one, read in batches of like width, given back in the order they came.

Letters: B lines, H rows, W columns.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
from khmer_ocr_kernels.pad_normalize import pad_normalize, to_unit
from khmer_ocr_kernels.ragged import RaggedLines

from khmer_ocr.dataset.image_io import MAX_PIXELS
from khmer_ocr.errors import ImageError, NotOneLineError, missing_extra
from khmer_ocr.io.devices import Device, Precision, multiplies_bfloat16, pick_device
from khmer_ocr.recognize.confidence import Syllable, line_confidence, syllables_of
from khmer_ocr.recognize.image_input import Grey, ImageSource, Page, read_grey
from khmer_ocr.recognize.prepare import Line, prepare
from khmer_ocr.recognize.settings import RecognizeConfig
from khmer_ocr.recognize.single_line import DOUBTFUL, Reading, beyond, is_tall, probe, what_it_looks_like, zones_of_text
from khmer_ocr.text.normalize import normalize

try:
    import torch
except ModuleNotFoundError as fault:
    raise missing_extra("Recognising", "torch") from fault

from khmer_ocr.model.decoding import DecodeMethod
from khmer_ocr.model.decoding.decode import Hypothesis, decode
from khmer_ocr.model.weights import LoadedModel, load_model

_BATCHES_AHEAD = 16
"""Batches' worth of images that are held at most, to be sorted by width."""
_BATCH_WIDTH_PX = 32_768
"""Padded columns of a batch at most: very wide lines go four at a time; that took 450 MB with preset compact."""
_COLUMNS_STEP = 32
"""Batches are padded to a multiple of this: torch prepares its convolutions anew for every width it has not seen, which
took 15 % of the time of lines read one by one."""


@dataclass(frozen=True)
class Recognition:
    """What was read on a line.

    Attributes:
        text: in the normal form of labels; empty where nothing is written.
        confidence: 0 to 1, the share of the text's code points to be expected right; 0 for an empty text.
        syllables: the text's orthographic syllables, each with a confidence of its own.
        inverted: whether the line was light on dark.
        box: where the line was found on the image, as it is shown: left, top, right, bottom in px; None where nothing
            is written and for ready-made lines.
        looks_like: what the image looks like if it is no single upright line, e.g. "2 lines of text"; None where it is
            one, and for ready-made lines.
    """

    text: str
    confidence: float
    syllables: list[Syllable]
    inverted: bool = False
    box: tuple[int, int, int, int] | None = None
    looks_like: str | None = None


class Recognizer:
    """Reads images of Khmer text lines.

    Args:
        model: folder of weights, a checkpoint of training (.pth), or a model already loaded; None takes the weights
            that come with the package.
        device: "cpu", "cuda", or "auto", which takes a GPU if torch sees one.
        decode: "beam" weighs CTC and attention together, "greedy" is attention alone, "ctc" CTC alone and fastest.
        beam_size: texts of a line weighed against each other.
        batch_size: lines read at a time.
        precision: what weights are multiplied in. "auto" takes bfloat16 on CPUs with AMX (Intel's servers since 2023),
            where it halves the time, and float32 elsewhere. A doubtful text may depend on it.
        force: give the text of an image that is no single upright line too; by default that is a `NotOneLineError`.

    Raises:
        ModelError: the model is missing, damaged or hostile.
        ConfigError: a setting out of range, or a GPU asked for and absent.
    """

    def __init__(
        self,
        model: str | Path | LoadedModel | None = None,
        *,
        device: Device = "auto",
        decode: DecodeMethod = "beam",
        beam_size: int = 8,
        batch_size: int = 16,
        precision: Precision = "auto",
        force: bool = False,
    ) -> None:
        config = RecognizeConfig(
            decode=decode, device=device, batch_size=batch_size, precision=precision, force=force, beam_size=beam_size
        )
        self.device = torch.device(pick_device(config.device))
        self.loaded = model if isinstance(model, LoadedModel) else load_model(model, self.device)
        self.method: DecodeMethod = decode
        if precision == "auto":
            precision = "bfloat16" if self.device.type == "cpu" and multiplies_bfloat16() else "float32"
        self.precision: Precision = precision
        self._model = self.loaded.model if precision == "float32" else deepcopy(self.loaded.model).halve()
        self.beam_size, self.batch_size, self.force = beam_size, batch_size, force
        self.height_px = self.loaded.model.config.height_px

    @classmethod
    def of(cls, config: RecognizeConfig) -> "Recognizer":
        """Load the model that settings name; raises as the constructor does."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(config)})

    def recognize(self, image: ImageSource, name: str | None = None) -> Recognition:
        """Read one line.

        Args:
            image: a path, bytes, a Pillow image or an array; see `khmer_ocr.recognize.image_input.read_grey`.
            name: what to call it in messages.

        Raises:
            ImageError: it can't be read, is far wider than a line of text, or is no single upright line
                (`NotOneLineError`).
        """
        found = self._read([prepare(read_grey(image, name), self.height_px, name or _name(image))])[0]
        if isinstance(found, ImageError):
            raise found
        return found

    def recognize_lines(self, images: Iterable[ImageSource]) -> list[Recognition]:
        """Read many lines.

        Args:
            images: as for `recognize`.

        Returns:
            One recognition an image, in their order.

        Raises:
            ImageError: one of them can't be read; `stream` reads the others all the same.
        """
        found = []
        for recognition in self.stream(images):
            if isinstance(recognition, ImageError):
                raise recognition
            found.append(recognition)
        return found

    def stream(self, images: Iterable[ImageSource], *, ready_made: bool = False) -> Iterator[Recognition | ImageError]:
        """Read any number of lines in bounded memory.

        Args:
            images: as for `recognize`.
            ready_made: whether every image is a line and nothing else, as in a stored data set: its frame then stays.

        Yields:
            For each image, in their order, what was read or why it can't be.
        """
        source, ahead = iter(images), 1  # the first texts soon
        while window := self._window(islice(source, self.batch_size * ahead), ready_made):
            yield from self._read_window(window)
            ahead = min(4 * ahead, _BATCHES_AHEAD)

    def _window(self, images: Iterable[ImageSource], ready_made: bool) -> list[Line | ImageError]:
        """Prepare images, no more of them than may be held."""
        window, held_px = list[Line | ImageError](), 0
        for image in images:
            line = self._prepared(image, ready_made)
            window.append(line)
            if isinstance(line, Line) and line.frame_HW is not None:
                held_px += line.frame_HW.size
            if held_px > MAX_PIXELS:
                break
        return window

    def _prepared(self, image: ImageSource, ready_made: bool) -> Line | ImageError:
        try:
            return prepare(read_grey(image), self.height_px, _name(image), ready_made=ready_made)
        except ImageError as error:
            return error

    def _read_window(self, lines: Sequence[Line | ImageError]) -> list[Recognition | ImageError]:
        found: list[Recognition | ImageError] = [line if isinstance(line, ImageError) else _NOTHING for line in lines]
        widths = {place: line.pixels_HW.shape[1] for place, line in enumerate(lines) if isinstance(line, Line)}
        for batch in _batches(widths, self.batch_size):
            ready = [line for line in (lines[place] for place in batch) if isinstance(line, Line)]
            for place, recognition in zip(batch, self._read(ready), strict=True):
                found[place] = recognition
        return found

    def _read(self, lines: Sequence[Line]) -> list[Recognition | ImageError]:
        """Read lines as one batch; those without ink are not looked at."""
        seen = [line for line in lines if not line.blank]
        exchanged = [
            replace(line, pixels_HW=line.otherwise, inverted=not line.inverted)
            for line in seen
            if line.otherwise is not None
        ]
        if not seen:
            return [_NOTHING] * len(lines)
        images_B1HW, width_B = padded_batch([line.pixels_HW for line in (*seen, *exchanged)], self.device)
        read = decode(self._model, images_B1HW, width_B, self.method, self.beam_size)
        ways = list(zip(read, [*seen, *exchanged], strict=True))
        likely, other = iter(ways[: len(seen)]), iter(ways[len(seen) :])
        found: list[Recognition | ImageError] = []
        for line in lines:
            if line.blank:
                found.append(_NOTHING)
                continue
            best = next(likely)
            if line.otherwise is not None:
                best = max(best, next(other), key=lambda way: _confidence(way[0]))
            found.append(self._recognition(*best))
        return found

    def _recognition(self, hypothesis: Hypothesis, line: Line) -> Recognition | NotOneLineError:
        looks_like = self._looks_like(line, hypothesis)
        if looks_like is not None and not self.force:
            return NotOneLineError(
                f"{line.name} looks like {looks_like}; expected a single upright line of text. Turn the image, or cut "
                "the lines out of it; with --force (force=True in Python) it is read as it is.",
                looks_like,
            )
        raw = self.loaded.charset.decode(hypothesis.ids)
        text = normalize(raw)
        confidence = _confidence(hypothesis) if text else 0.0
        box = None if line.found is None else line.found.box
        syllables = syllables_of(text, raw, hypothesis.token_log_probs)
        return Recognition(text, confidence, syllables, line.inverted, box, looks_like)

    def _looks_like(self, line: Line, hypothesis: Hypothesis) -> str | None:
        """What an image looks like that is no single upright line; only doubtful ones are looked at more closely."""
        frame_HW = line.frame_HW
        if frame_HW is None:
            return None
        zones = zones_of_text(frame_HW)
        strips = [] if line.found is None else beyond(frame_HW, line.found.box[1], line.found.box[3])
        surely = hypothesis.ids and not is_tall(frame_HW)
        log_prob = _log_prob(hypothesis) / (len(hypothesis.ids) + 1) if surely else -math.inf
        if log_prob >= DOUBTFUL and len(zones) < 2 and not strips:
            return None
        return what_it_looks_like(frame_HW, line.pixels_HW, zones, strips, log_prob, self._probe)

    def _probe(self, lines_at_height: Sequence[Grey], frames: Sequence[Grey]) -> list[Reading]:
        """What CTC alone makes of lines at the model's height, and of frames of any size."""
        lines = [Line(np.ascontiguousarray(line_HW), inverted=False, blank=False) for line_HW in lines_at_height]
        lines += [_line_of(frame_HW, self.height_px) for frame_HW in frames]
        readings = [Reading(0, -math.inf)] * len(lines)
        widths = {place: line.pixels_HW.shape[1] for place, line in enumerate(lines) if not line.blank}
        for batch in _batches(widths, self.batch_size):
            read = decode(self._model, *padded_batch([lines[place].pixels_HW for place in batch], self.device), "ctc")
            for place, hypothesis in zip(batch, read, strict=True):
                count = len(hypothesis.ids)
                readings[place] = Reading(count, hypothesis.log_prob / (count + 1))
        return readings


_NOTHING = Recognition("", 0.0, [])


def _log_prob(hypothesis: Hypothesis) -> float:
    """By CTC where it was computed: the decoder alone is overconfident where CTC sees nothing, and drifts."""
    return hypothesis.log_prob if hypothesis.ctc_log_prob is None else hypothesis.ctc_log_prob


def _confidence(hypothesis: Hypothesis) -> float:
    return line_confidence(_log_prob(hypothesis), len(hypothesis.ids))


def _line_of(frame_HW: Grey, height_px: int) -> Line:
    """The middle of the line on a part of an image; one that is far too flat for that is as good as blank."""
    try:
        line = prepare(np.ascontiguousarray(frame_HW), height_px)
        return replace(line, pixels_HW=np.ascontiguousarray(probe(line.pixels_HW)))
    except ImageError:
        return Line(np.full((height_px, 1), 255, np.uint8), inverted=False, blank=True)


def _name(image: ImageSource) -> str:
    return str(image) if isinstance(image, str | Path | Page) else "the image"


def _batches(width_of: dict[int, int], batch_size: int) -> Iterator[list[int]]:
    """Places of lines in batches of like width."""
    batch: list[int] = []
    for place in sorted(width_of, key=lambda place: width_of[place]):
        if len(batch) == batch_size or (batch and (len(batch) + 1) * width_of[place] > _BATCH_WIDTH_PX):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def padded_batch(images: Sequence[Grey], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (H, W) of one height as a batch: float32 (B, 1, H, W) in 0..1, and their widths in px, int64 (B,)."""
    ragged = RaggedLines.of_images(images)
    columns = -(-int(ragged.width_B.max()) // _COLUMNS_STEP) * _COLUMNS_STEP
    images_B1HW = to_unit(torch.from_numpy(pad_normalize(ragged, columns)).to(device))
    return images_B1HW, torch.from_numpy(ragged.width_B.astype(np.int64)).to(device)

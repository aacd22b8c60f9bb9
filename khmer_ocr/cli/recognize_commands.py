"""What the verbs recognize, evaluate and export do."""

import json
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, tee
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from tqdm import tqdm

from khmer_ocr.errors import ConfigError, DatasetError, ImageError, ModelError, NotOneLineError
from khmer_ocr.io.atomic import write_output
from khmer_ocr.model.weights import load_model
from khmer_ocr.preview.error_sheet import worst_sheet
from khmer_ocr.recognize.evaluate import evaluate_lines
from khmer_ocr.recognize.image_input import ImageSource, pages_of
from khmer_ocr.recognize.labelled_sets import LineSet, OnError, labelled_set, split_set
from khmer_ocr.recognize.recognizer import Method, Precision, Recognition, Recognizer
from khmer_ocr.text.charset import Charset
from khmer_ocr.text.label_normalizer import some

_LITTLE = 0.2
"""Confidence below which a text is mostly wrong: of real lines 3 % of the letters were right there."""


@dataclass(frozen=True)
class ReadingOptions:
    """How lines are read; see `Recognizer`.

    Attributes:
        model: folder of weights or checkpoint; None takes the weights that come with the package.
        decode: "beam", "greedy" or "ctc".
        device: "auto", "cpu" or "cuda".
        batch_size: lines read at a time.
        precision: "auto", "float32" or "bfloat16".
        force: give the text of what is no single upright line too.
    """

    model: Path | None = None
    decode: Method = "beam"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: int = 16
    precision: Precision = "auto"
    force: bool = False

    def recognizer(self) -> Recognizer:
        """Load the model."""
        return Recognizer(
            self.model,
            decode=self.decode,
            device=self.device,
            batch_size=self.batch_size,
            precision=self.precision,
            force=self.force,
        )


def recognize_images(images: Sequence[Path], options: ReadingOptions, as_json: bool = False) -> int:
    """Read images of lines and print their texts, in order, some hundred at a time.

    Args:
        images: files; a TIFF of several pages is a line a page, named FILE#1, FILE#2 and so on.
        options: how they are read.
        as_json: print one JSON object a line.

    Returns:
        How many could not be read; each of them is told of, on its line of JSON or on the standard error stream.

    Raises:
        ConfigError: no image was given.
    """
    if not images:
        raise ConfigError("recognize got no image; expected files of text lines, for example lines/*.png")
    failures = 0
    alone = len(images) == 1 and len(pages_of(images[0])) == 1
    sources, named = tee(chain.from_iterable(map(pages_of, images)))
    for path, found in zip(named, options.recognizer().stream(sources), strict=True):
        failures += isinstance(found, ImageError)
        if as_json:
            print(json.dumps({"image": str(path), **_as_json(found)}, ensure_ascii=False), flush=True)
        elif isinstance(found, ImageError):
            print(f"khmer-ocr: {found}", file=sys.stderr)
        else:
            if found.confidence < _LITTLE and found.text:
                said = f"{path} was read with little confidence ({found.confidence:.2f}): is it a line of Khmer print?"
                print(f"khmer-ocr: {said}", file=sys.stderr)
            print(found.text if alone else f"{path}\t{found.text}", flush=True)
    return failures


def _as_json(found: Recognition | ImageError) -> dict[str, Any]:
    if isinstance(found, NotOneLineError):
        return {"error": str(found), "looks_like": found.looks_like}
    if isinstance(found, ImageError):
        return {"error": str(found)}
    return {
        "text": found.text,
        "confidence": round(found.confidence, 4),
        "syllables": [{"text": each.text, "confidence": round(each.confidence, 4)} for each in found.syllables],
        "inverted": found.inverted,
        "box": found.box,
        **({"looks_like": found.looks_like} if found.looks_like is not None else {}),
    }


def evaluate_set(
    directory: Path | None,
    labels: Path | None,
    options: ReadingOptions,
    *,
    split: str = "val",
    max_lines: int | None = None,
    predictions: Path | None = None,
    worst: Path | None = None,
    worst_count: int = 20,
    as_json: bool = False,
    progress: bool = True,
    on_error: OnError = "raise",
) -> str:
    """Read labelled lines and say how right that was.

    Args:
        directory: a data set's folder, or
        labels: a file of labels; one of both.
        options: how lines are read.
        split: which split of the data set.
        max_lines: only the first so many.
        predictions: write what was read here: image, TAB, text.
        worst: draw the worst lines here (.png).
        worst_count: how many of them.
        as_json: give the report as JSON.
        progress: show a progress bar.
        on_error: what to do about a line whose image or label can't be used: "raise", since an evaluation of fewer
            lines says something else, or "skip", which leaves it out and says so in the report.

    Returns:
        The report.

    Raises:
        ConfigError: neither or both of a folder and labels, or a count below 1.
        DatasetError: labels or the data set are missing or damaged, or no line of them can be used.
        ImageError: an image can't be read, where that is not to be skipped.
        OutputError: a file can't be written.
    """
    if worst_count < 1 or (max_lines is not None and max_lines < 1):
        raise ConfigError(f"worst_count is {worst_count} and max_lines is {max_lines}; expected 1 or more of each")
    lines = _line_set(directory, labels, split, max_lines, on_error)
    # All are read: whoever made the labels took each image for a line, and the report tells which look otherwise.
    recognizer = replace(options, force=True).recognizer()
    begin = perf_counter()
    left_out, odd = dict(lines.left_out), dict[str, str]()
    read = read_set(lines, recognizer, progress, None if on_error == "raise" else left_out, odd)
    ms_per_line = 1000 * (perf_counter() - begin) / max(len(read), 1)
    if not read:
        name, why = next(iter(left_out.items()))
        raise DatasetError(f"None of {len(left_out):,} lines can be read; the first: {name}: {why}")
    taken = {name: lines.labels[name] for name in read}
    report = replace(
        evaluate_lines(taken, read, lines.groups),
        left_out=left_out,
        notes=[*lines.notes, *_unwritable(taken, recognizer.loaded.charset), *_odd(odd)],
    )
    if predictions is not None:
        lines_read = "".join(f"{name}\t{text}\n" for name, text in read.items())
        # Names that are no UTF-8 keep their bytes, so that they go on naming files.
        write_output(predictions, lines_read.encode("utf-8", "surrogateescape"))
    drawn = worst_sheet(report.worst(worst_count), lines.image, worst) if worst is not None else None
    if as_json:
        facts = {"model": str(recognizer.loaded.source), "decode": options.decode, "device": str(recognizer.device)}
        timing = {"ms_per_line": round(ms_per_line, 2)}
        return json.dumps({**report.as_json(), **facts, **timing}, ensure_ascii=False)
    return "\n".join([str(report), f"{ms_per_line:.1f} ms a line on {recognizer.device}", *([drawn] if drawn else [])])


def _line_set(
    directory: Path | None, labels: Path | None, split: str, max_lines: int | None, on_error: OnError
) -> LineSet:
    if labels is not None and directory is None:
        if labels.is_dir():
            raise ConfigError(
                f"{labels} is a folder; give --labels the file in it, or leave --labels out for a data set"
            )
        return labelled_set(labels, max_lines, on_error)
    if directory is not None and labels is None:
        if directory.is_file():
            raise ConfigError(f"{directory} is a file; evaluate takes a data set's folder, or --labels {directory}")
        return split_set(directory, split, max_lines, on_error)
    raise ConfigError("evaluate takes either a data set's folder, or --labels FILE (image, TAB, text)")


def _odd(looks_like: Mapping[str, str]) -> Iterator[str]:
    """Say which images look like something else than a line."""
    if looks_like:
        named = [f"{name} ({what})" for name, what in looks_like.items()]
        yield f"{len(named):,} images do not look like single upright lines: {some(named, 10)}."


def _unwritable(labels: Mapping[str, str], charset: Charset) -> Iterator[str]:
    """Say which characters of labels a model can't write, whatever it sees: they count as errors."""
    lines: Counter[str] = Counter()
    first: dict[str, str] = {}
    for name, text in labels.items():
        for character in charset.missing(text):
            lines[character] += 1
            first.setdefault(character, name)
    if lines:
        named = [
            f"{character!r} (U+{ord(character):04X}) in {count:,} (first: {first[character]})"
            for character, count in lines.most_common()
        ]
        yield f"The model can't write characters of these labels, which count as errors: {some(named, 10)}."


def export_model(onnx: Path, model: Path | None, labels: Path | None = None, max_lines: int = 100) -> str:
    """Write a reader as ONNX, and compare it with torch on real lines if there are some.

    Args:
        onnx: file to write.
        model: folder of weights or checkpoint; None takes the weights that come with the package.
        labels: a file of labels whose images both read.
        max_lines: only the first so many.

    Returns:
        A sentence that says what was written and how it compares.

    Raises:
        ModelError: ONNX Runtime reads a line otherwise than torch.
    """
    from khmer_ocr.recognize.export_onnx import export_onnx, texts_apart

    loaded = load_model(model)
    encoder, decoder, difference = export_onnx(loaded, onnx)
    said = f"{encoder}, {decoder}: log-probabilities differ from torch by {difference:.1e} at most"
    if labels is None:
        return said
    lines = labelled_set(labels, max_lines)
    apart = texts_apart(loaded, encoder, lines.images())
    if apart:
        raise ModelError(f"{encoder} reads {apart} of {len(lines.labels)} lines of {labels} otherwise than torch")
    return f"{said}; the same CTC texts of {len(lines.labels)} lines of {labels}"


def read_set(
    lines: LineSet,
    recognizer: Recognizer,
    progress: bool = False,
    left_out: dict[str, str] | None = None,
    odd: dict[str, str] | None = None,
) -> dict[str, str]:
    """Read every line of a set.

    Args:
        lines: the set.
        recognizer: what reads.
        progress: show a progress bar.
        left_out: takes up the lines that can't be read, name -> why; None raises at the first.
        odd: takes up the images that were read but look like no single upright line, name -> what they look like.

    Returns:
        Image name -> text, in order.

    Raises:
        ImageError: an image can't be read.
        DatasetError: an image of a data set is missing or damaged.
    """
    read = dict[str, str]()
    names: deque[str] = deque()

    def sources() -> Iterator[ImageSource]:
        for name in lines.labels:
            try:
                source = lines.image(name)
            except DatasetError as fault:
                if left_out is None:
                    raise
                left_out[name] = str(fault)
                continue
            names.append(name)
            yield source

    with tqdm(total=len(lines.labels), unit="line", disable=not progress) as bar:
        for recognition in recognizer.stream(sources(), ready_made=lines.ready_made):
            bar.update()
            name = names.popleft()
            if not isinstance(recognition, ImageError):
                read[name] = recognition.text
                if odd is not None and recognition.looks_like is not None:
                    odd[name] = recognition.looks_like
            elif left_out is None:
                raise recognition
            else:
                left_out[name] = str(recognition)
    return read

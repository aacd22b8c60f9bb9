"""What the verbs recognize, evaluate and export do."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from tqdm import tqdm

from khmer_ocr.errors import ConfigError, ImageError, ModelError
from khmer_ocr.io.atomic import write_output
from khmer_ocr.model.weights import load_model
from khmer_ocr.recognize.evaluate import evaluate_lines
from khmer_ocr.recognize.recognizer import Method, Precision, Recognition, Recognizer
from khmer_ocr.recognize.sets import LineSet, labelled_set, split_set
from khmer_ocr.recognize.worst import worst_sheet


@dataclass(frozen=True)
class ReadingOptions:
    """How lines are read; see `Recognizer`.

    Attributes:
        model: folder of weights or checkpoint; None takes the weights that come with the package.
        decode: "beam", "greedy" or "ctc".
        device: "auto", "cpu" or "cuda".
        batch_size: lines read at a time.
        precision: "auto", "float32" or "bfloat16".
    """

    model: Path | None = None
    decode: Method = "beam"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: int = 16
    precision: Precision = "auto"

    def recognizer(self) -> Recognizer:
        """Load the model."""
        return Recognizer(
            self.model,
            decode=self.decode,
            device=self.device,
            batch_size=self.batch_size,
            precision=self.precision,
        )


def recognize_images(images: Sequence[Path], options: ReadingOptions, as_json: bool = False) -> int:
    """Read images of lines and print their texts, in order, some hundred at a time.

    Args:
        images: files.
        options: how they are read.
        as_json: print one JSON object a line.

    Returns:
        How many could not be read; each of them is told of, on its line of JSON or on the standard error stream.

    Raises:
        ConfigError: no image was given.
    """
    if not images:
        raise ConfigError("recognize got no image; wanted files of text lines, for example lines/*.png")
    failures = 0
    for path, found in zip(images, options.recognizer().stream(images), strict=True):
        failures += isinstance(found, ImageError)
        if as_json:
            print(json.dumps({"image": str(path), **_as_json(found)}, ensure_ascii=False), flush=True)
        elif isinstance(found, ImageError):
            print(f"khmer-ocr: {found}", file=sys.stderr)
        else:
            print(found.text if len(images) == 1 else f"{path}\t{found.text}", flush=True)
    return failures


def _as_json(found: Recognition | ImageError) -> dict[str, Any]:
    if isinstance(found, ImageError):
        return {"error": str(found)}
    return {
        "text": found.text,
        "confidence": round(found.confidence, 4),
        "syllables": [{"text": each.text, "confidence": round(each.confidence, 4)} for each in found.syllables],
        "inverted": found.inverted,
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

    Returns:
        The report.

    Raises:
        ConfigError: neither or both of a folder and labels, or a count below 1.
        DatasetError: labels or the data set are missing or damaged.
        ImageError: an image can't be read: an evaluation of fewer lines would say something else.
        OutputError: a file can't be written.
    """
    if (directory is None) == (labels is None):
        raise ConfigError("evaluate wants either a data set's folder, or --labels FILE (image, TAB, text)")
    if worst_count < 1 or (max_lines is not None and max_lines < 1):
        raise ConfigError(f"worst_count is {worst_count} and max_lines is {max_lines}; wanted 1 or more of each")
    lines = labelled_set(labels, max_lines) if labels else split_set(directory, split, max_lines)  # type: ignore[arg-type]
    recognizer = options.recognizer()
    begin = perf_counter()
    read = read_set(lines, recognizer, progress)
    elapsed_s = perf_counter() - begin
    report = evaluate_lines(lines.labels, read, lines.groups)
    if predictions is not None:
        write_output(predictions, "".join(f"{name}\t{text}\n" for name, text in read.items()).encode())
    drawn = worst_sheet(report.worst(worst_count), lines.image, worst) if worst is not None else None
    ms_per_line = 1000 * elapsed_s / len(read)
    if as_json:
        facts = {"model": str(recognizer.loaded.source), "decode": options.decode, "device": str(recognizer.device)}
        timing = {"ms_per_line": round(ms_per_line, 2)}
        return json.dumps({**report.as_json(), **facts, **timing}, ensure_ascii=False)
    return "\n".join([str(report), f"{ms_per_line:.1f} ms a line on {recognizer.device}", *([drawn] if drawn else [])])


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
    from khmer_ocr.recognize.export import export_onnx, texts_apart

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


def read_set(lines: LineSet, recognizer: Recognizer, progress: bool = False) -> dict[str, str]:
    """Read every line of a set.

    Args:
        lines: the set.
        recognizer: what reads.
        progress: show a progress bar.

    Returns:
        Image name -> text, in order.

    Raises:
        ImageError: an image can't be read.
    """
    read = {}
    found = zip(lines.labels, recognizer.stream(lines.images()), strict=True)
    for name, recognition in tqdm(found, total=len(lines.labels), unit="line", disable=not progress):
        if isinstance(recognition, ImageError):
            raise recognition
        read[name] = recognition.text
    return read

"""Verbs of the recogniser: train, recognize, evaluate, export."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, tee
from json import dumps as to_json
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from khmer_ocr.cli.flags import settings
from khmer_ocr.errors import ConfigError, DatasetError, ImageError, ModelError, NotOneLineError, require
from khmer_ocr.io.atomic import write_output
from khmer_ocr.recognize.settings import EvaluateConfig, RecognizeConfig
from khmer_ocr.text.charset import Charset
from khmer_ocr.text.label_normalizer import some
from khmer_ocr.train.settings import TrainConfig

if TYPE_CHECKING:
    from khmer_ocr.recognize.recognizer import Recognition

_LOW_CONFIDENCE = 0.2
"""Below it a text is mostly wrong: of real lines 3 % of the letters were right there."""


def train(config: Annotated[TrainConfig, tyro.conf.arg(name="")]) -> None:
    """Train a recogniser on stored lines; a run that was stopped goes on with --resume last.

    SIGTERM, Ctrl-C and SIGUSR1 (Slurm's warning: sbatch --signal=USR1@120) save first. Exit status: 0 done; 143, 130,
    138 stopped by that signal and to be resumed; 2 refused or failed. Several GPUs: torchrun --nproc-per-node 4
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 -m khmer_ocr train ...; its own status is then 1.

    Args:
        config: How it learns.
    """
    require("train", "torch", "safetensors")
    from khmer_ocr.train.loop import train as run

    print(f"Weights: {run(config)}")


def recognize(
    config: Annotated[
        RecognizeConfig,
        settings(RecognizeConfig, "model", "decode", "device", "batch_size", "precision", "force"),
    ],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    json: bool = False,
) -> None:
    """Read images of text lines. One that can't be read does not lose the others; exit status 1 then.

    What is no single upright line (a page, two lines, a line turned or mirrored) is said to be so and not read.

    Args:
        config: How they are read.
        images: Image files of one line each: any size, any margins, dark on light or light on dark. A TIFF of several
            pages is a line a page, named FILE#1, FILE#2 and so on.
        json: Print one JSON object a line: image, text, confidence (the share of letters to be expected right),
            syllables, inverted, and box, where on the image the line was found (left, top, right, bottom in px); or
            error, and looks_like where the image is no single upright line.
    """
    require("recognize", "torch", "safetensors")
    from khmer_ocr.recognize.image_input import pages_of
    from khmer_ocr.recognize.recognizer import Recognizer

    if not images:
        raise ConfigError("recognize got no image; expected files of text lines, for example lines/*.png")
    failures = 0
    alone = len(images) == 1 and len(pages_of(images[0])) == 1
    sources, named = tee(chain.from_iterable(map(pages_of, images)))
    for path, found in zip(named, Recognizer.of(config).stream(sources), strict=True):
        failures += isinstance(found, ImageError)
        if json:
            print(to_json({"image": str(path), **_as_json(found)}, ensure_ascii=False), flush=True)
        elif isinstance(found, ImageError):
            print(f"khmer-ocr: {found}", file=sys.stderr)
        else:
            if found.confidence < _LOW_CONFIDENCE and found.text:
                said = f"{path} was read with little confidence ({found.confidence:.2f}): is it a line of Khmer print?"
                print(f"khmer-ocr: {said}", file=sys.stderr)
            print(found.text if alone else f"{path}\t{found.text}", flush=True)
    if failures:
        raise SystemExit(1)


def _as_json(found: "Recognition | ImageError") -> dict[str, Any]:
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


def evaluate(
    lines: Annotated[EvaluateConfig, tyro.conf.arg(name="")],
    config: Annotated[
        RecognizeConfig, settings(RecognizeConfig, "model", "decode", "device", "batch_size", "precision")
    ],
    directory: Annotated[Path | None, tyro.conf.Positional] = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Read labelled lines and say how right that was: CER plain and after Khmer normalisation, syllables, exact lines.

    Args:
        lines: Which lines.
        config: How they are read.
        directory: A data set's folder; or give --labels.
        json: Print the report as one JSON object; rates are shares of 1.
        quiet: No progress bar.
    """
    require("evaluate", "torch", "safetensors")
    from khmer_ocr.preview.error_sheet import worst_sheet
    from khmer_ocr.recognize.evaluate import evaluate_lines
    from khmer_ocr.recognize.labelled_sets import open_set, read_predictions, read_set
    from khmer_ocr.recognize.recognizer import Recognizer

    line_set = open_set(directory, lines)
    against = None if lines.against is None else read_predictions(lines.against)
    # All are read: the labels take each image for a line, and the report tells which look otherwise.
    recognizer = Recognizer.of(replace(config, force=True))
    begin = perf_counter()
    left_out, odd = dict(line_set.left_out), dict[str, str]()
    read = read_set(line_set, recognizer, not quiet, None if lines.on_error == "raise" else left_out, odd)
    ms_per_line = 1000 * (perf_counter() - begin) / max(len(read), 1)
    if not read:
        name, why = next(iter(left_out.items()))
        raise DatasetError(f"None of {len(left_out):,} lines can be read; the first: {name}: {why}")
    labels = {name: line_set.labels[name] for name in read}
    notes = [*line_set.notes, *_unwritable(labels, recognizer.loaded.charset), *_not_lines(odd)]
    report = evaluate_lines(labels, read, line_set.groups, fold=lines.fold, against=against)
    report = replace(report, left_out=left_out, notes=notes)
    if lines.predictions is not None:
        rows = "".join(f"{name}\t{text}\n" for name, text in read.items())
        # Names that are no UTF-8 keep their bytes, so that they go on naming files.
        write_output(lines.predictions, rows.encode("utf-8", "surrogateescape"))
    drawn = worst_sheet(report.worst(lines.worst_count), line_set.image, lines.worst) if lines.worst else None
    if json:
        facts = {"model": str(recognizer.loaded.source), "decode": config.decode, "device": str(recognizer.device)}
        timing = {"ms_per_line": round(ms_per_line, 2)}
        print(to_json({**report.as_json(), **facts, **timing}, ensure_ascii=False))
        return
    print(report, f"{ms_per_line:.1f} ms a line on {recognizer.device}", *([drawn] if drawn else []), sep="\n")


def _not_lines(looks_like: Mapping[str, str]) -> Iterator[str]:
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


def export(
    onnx: Path,
    model: Path | None = None,
    labels: Path | None = None,
    max_lines: int = 100,
) -> None:
    """Write a recogniser as ONNX, compared with torch before: lines to frames and CTC, and the decoder beside it.

    Args:
        onnx: File to write: NAME or NAME.onnx; the decoder goes to NAME.decoder.onnx beside it.
        model: Folder of weights or checkpoint (.pth); default the weights that come with the package.
        labels: File of image, TAB, text: real lines that ONNX Runtime has to read as torch does.
        max_lines: Only the first so many of them.
    """
    require("export", "torch", "safetensors", "onnx", "onnxruntime", "onnxscript")
    from khmer_ocr.model.weights import load_model
    from khmer_ocr.recognize.export_onnx import export_onnx, texts_apart
    from khmer_ocr.recognize.labelled_sets import labelled_set

    loaded = load_model(model)
    encoder, decoder, difference = export_onnx(loaded, onnx)
    said = f"{encoder}, {decoder}: log-probabilities differ from torch by {difference:.1e} at most"
    if labels is not None:
        lines = labelled_set(labels, max_lines)
        if apart := texts_apart(loaded, encoder, lines.images()):
            raise ModelError(f"{encoder} reads {apart} of {len(lines.labels)} lines of {labels} otherwise than torch")
        said += f"; the same CTC texts of {len(lines.labels)} lines of {labels}"
    print(said)

"""Verbs that read data and images: cache, bench, train, recognize, evaluate, export."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from khmer_ocr.errors import require
from khmer_ocr.train.settings import TrainConfig

Folder = Annotated[Path, tyro.conf.Positional]


def cache(
    directory: Folder,
    splits: tuple[str, ...] = (),
    on_error: Literal["raise", "skip"] = "raise",
    overwrite: bool = False,
    workers: int = 0,
    quiet: bool = False,
) -> None:
    """Decode a data set once and pack its pixels beside it, memory-mapped: the fast path for training.

    Args:
        directory: The data set's folder.
        splits: Which splits; default all.
        on_error: What to do about lines that can't be read: raise, or skip up to 1 % of a split.
        overwrite: Pack anew what is packed already.
        workers: Threads that decode; default every core.
        quiet: No progress bar.
    """
    require("cache", "torch")
    from khmer_ocr.cli.load_commands import build_caches

    for said in build_caches(
        directory, splits, on_error=on_error, overwrite=overwrite, workers=workers, progress=not quiet
    ):
        print(said)


def bench(
    what: Annotated[Literal["load"], tyro.conf.Positional],
    directory: Folder,
    split: str = "train",
    engines: tuple[Literal["dali", "torch"], ...] = ("torch", "dali"),
    cache: bool = False,
    batch_size: int = 64,
    num_workers: int = 0,
    device: str = "cpu",
    dtype: Literal["uint8", "float32", "float16", "bfloat16"] = "uint8",
    epochs: int = 3,
    max_samples: int | None = None,
    step_ms: float = 0.0,
    quiet: bool = False,
) -> None:
    """Measure how fast a data set becomes batches here: lines a second, padding, and who waits for whom.

    Args:
        what: What to measure.
        directory: The data set's folder.
        split: Which split.
        engines: Which engines.
        cache: Read the packed cache, which is built if need be.
        batch_size: Lines in a batch.
        num_workers: Worker processes (torch, files) or threads (DALI) that decode.
        device: Where images are delivered: cpu or cuda.
        dtype: Of the images.
        epochs: Timed epochs, after one that warms up.
        max_samples: Use only the first so many.
        step_ms: Pretend to train for so long on each batch.
        quiet: No progress bar.
    """
    require("bench load", "torch")
    from khmer_ocr.cli.load_commands import LoadBench, bench_load
    from khmer_ocr.load.settings import LoadConfig

    settings = LoadConfig(
        batch_size=batch_size,
        num_workers=num_workers,
        cache=cache,
        device=device,
        dtype=dtype,
        max_samples=max_samples,
        progress=not quiet,
    )
    for said in bench_load(directory, LoadBench(split, engines, epochs, step_ms, settings)):
        print(said, flush=True)


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
    images: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    json: bool = False,
    model: Path | None = None,
    decode: Literal["beam", "greedy", "ctc"] = "beam",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: int = 16,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    force: bool = False,
) -> None:
    """Read images of text lines. One that can't be read does not lose the others; exit status 1 then.

    What is no single upright line (a page, two lines, a line turned or mirrored) is said to be so and not read.

    Args:
        images: Image files of one line each: any size, any margins, dark on light or light on dark. A TIFF of several
            pages is a line a page, named FILE#1, FILE#2 and so on.
        json: Print one JSON object a line: image, text, confidence (the share of letters to be expected right),
            syllables, inverted, and box, where on the image the line was found (left, top, right, bottom in px); or
            error, and looks_like where the image is no single upright line.
        model: Folder of weights or checkpoint (.pth); default the weights that come with the package.
        decode: beam weighs CTC and attention together; greedy is attention alone; ctc is CTC alone, and fastest.
        device: auto (default) takes a GPU if there is one.
        batch_size: Lines read at a time.
        precision: auto (default) takes bfloat16 on CPUs with AMX, twice as fast there, and float32 elsewhere.
        force: Read what is no single upright line too.
    """
    require("recognize", "torch", "safetensors")
    from khmer_ocr.cli.recognize_commands import ReadingOptions, recognize_images

    if recognize_images(images, ReadingOptions(model, decode, device, batch_size, precision, force), json):
        raise SystemExit(1)


def evaluate(
    directory: Annotated[Path | None, tyro.conf.Positional] = None,
    labels: Path | None = None,
    split: Literal["train", "val", "test"] = "val",
    json: bool = False,
    predictions: Path | None = None,
    worst: Path | None = None,
    worst_count: int = 20,
    max_lines: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    model: Path | None = None,
    decode: Literal["beam", "greedy", "ctc"] = "beam",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: int = 16,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    quiet: bool = False,
) -> None:
    """Read labelled lines and say how right that was: CER plain and after Khmer normalisation, syllables, exact lines.

    Args:
        directory: A data set's folder; or give --labels.
        labels: File of labels, one image a line: its name, TAB, its text. The images lie beside it, and meta.tsv (font,
            source) if there is one.
        split: Which split of the data set.
        json: Print the report as one JSON object; rates are shares of 1.
        predictions: Write what was read: image, TAB, text.
        worst: Draw the worst lines, their labels and what was read (.png).
        worst_count: How many of them.
        max_lines: Only the first so many.
        on_error: What to do about a line whose image or label can't be used: raise, or skip, which leaves it out and
            says so in the report.
        model: Folder of weights or checkpoint (.pth); default the weights that come with the package.
        decode: beam, greedy or ctc; see recognize.
        device: auto (default) takes a GPU if there is one.
        batch_size: Lines read at a time.
        precision: auto (default) takes bfloat16 on CPUs with AMX, twice as fast there, and float32 elsewhere.
        quiet: No progress bar.
    """
    require("evaluate", "torch", "safetensors")
    from khmer_ocr.cli.recognize_commands import ReadingOptions, evaluate_set

    print(
        evaluate_set(
            directory,
            labels,
            ReadingOptions(model, decode, device, batch_size, precision),
            split=split,
            max_lines=max_lines,
            predictions=predictions,
            worst=worst,
            worst_count=worst_count,
            as_json=json,
            progress=not quiet,
            on_error=on_error,
        )
    )


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
    from khmer_ocr.cli.recognize_commands import export_model

    print(export_model(onnx, model, labels, max_lines))

"""How well and how fast lines are read, and Tesseract beside it in the same run, on one core each.

    python benchmarks/bench_recognize.py --set ../shared/eval/clean --set ../shared/eval/pages [--model FOLDER]

A set is a folder with labels.tsv (image, TAB, text). Tesseract reads what it likes best: lines 48 px high with a
border, once white, as it is usually fed, and once of the line's own paper, which halves its errors on grey scans. Both
readers run on one core; where Tesseract is not installed that is said and only our figures are given. Ours reads every
set twice: the first time kernels are made for batches of new widths.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

import numpy as np
from common import store
from PIL import Image, ImageOps

from khmer_ocr.io.devices import Precision
from khmer_ocr.recognize.evaluate import EvaluationReport, evaluate_lines
from khmer_ocr.recognize.image_input import read_grey
from khmer_ocr.recognize.labelled_sets import LineSet, labelled_set, read_set
from khmer_ocr.recognize.recognizer import Recognizer

TESSERACT_HEIGHT_PX, TESSERACT_BORDER_PX = 48, 10
BORDERS = ("white", "paper")
FIRST_TEXT = """
import sys
from khmer_ocr import Recognizer
print(Recognizer(*sys.argv[2:]).recognize(sys.argv[1]).text)
"""


@dataclass(frozen=True)
class Tesseract:
    """How it is run: page segmentation mode, and the colour of the border."""

    psm: int
    border: str


class Clock:
    """Seconds on the wall, and of CPU time of this process and its children, in which other processes hardly show."""

    def __init__(self) -> None:
        self.begin = self._now()

    def _now(self) -> tuple[float, float]:
        times = os.times()
        return perf_counter(), times.user + times.system + times.children_user + times.children_system

    def taken(self) -> tuple[float, float]:
        return tuple(after - before for after, before in zip(self._now(), self.begin, strict=True))


def tesseract(lines: LineSet, how: Tesseract) -> tuple[dict[str, str], tuple[float, float]]:
    """Read a set with one Tesseract process on one core: texts by image, and what that took, its start included."""
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for number, name in enumerate(lines.labels):
            line = Image.fromarray(read_grey(lines.image(name)))
            width = max(1, round(line.width * TESSERACT_HEIGHT_PX / line.height))
            # Bilinear: it makes fewer errors so than with sharper filters, on every set tried.
            line = line.resize((width, TESSERACT_HEIGHT_PX), Image.Resampling.BILINEAR)
            border, paper = TESSERACT_BORDER_PX, 255 if how.border == "white" else int(np.median(np.asarray(line)))
            page = ImageOps.expand(line, border, paper)
            files.append(Path(scratch) / f"{number:06d}.png")
            page.save(files[-1])
        listed = Path(scratch) / "lines.txt"
        listed.write_text("\n".join(map(str, files)) + "\n")
        command = ["tesseract", str(listed), "stdout", "-l", "khm", "--psm", str(how.psm)]
        begin = Clock()
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_THREAD_LIMIT": "1"}
        )
        taken = begin.taken()
    texts = done.stdout.split("\f")[: len(files)]
    if len(texts) != len(files):
        raise SystemExit(f"tesseract gave {len(texts)} pages for {len(files)} lines:\n{done.stderr[-500:]}")
    return {name: " ".join(text.split()) for name, text in zip(lines.labels, texts, strict=True)}, taken


def tesseract_version() -> str | None:
    """Version, or None where it or its Khmer is not installed."""
    if shutil.which("tesseract") is None:
        return None
    said = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, check=False).stdout
    if "khm" not in said.split():
        return None
    first = subprocess.run(["tesseract", "--version"], capture_output=True, text=True, check=True)
    return (first.stdout or first.stderr).splitlines()[0]


def figures(report: EvaluationReport, taken_s: tuple[float, float], first_s: tuple[float, float]) -> dict[str, Any]:
    """What the table shows, per cent and ms."""
    total = report.total
    return {
        "cer": round(100 * total.cer, 2),
        "cer_plain": round(100 * total.cer_plain, 2),
        "syllables": round(100 * total.syllable_error_rate, 2),
        "exact": round(100 * total.exact_share, 1),
        "ms_per_line": round(1000 * taken_s[0] / total.lines, 1),
        "cpu_ms_per_line": round(1000 * taken_s[1] / total.lines, 1),
        "first_ms_per_line": round(1000 * first_s[0] / total.lines, 1),
    }


def measure(lines: LineSet, readers: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every reader on one set."""
    row = {}
    for name, reader in readers.items():
        if isinstance(reader, Recognizer):
            begin = Clock()
            read_set(lines, reader)
            first_s, begin = begin.taken(), Clock()
            read = read_set(lines, reader)
            taken_s = begin.taken()
        else:
            read, taken_s = tesseract(lines, reader)
            first_s = taken_s
        row[name] = figures(evaluate_lines(lines.labels, read), taken_s, first_s)
    return row


def first_text_s(lines: LineSet, model: Path | None) -> float:
    """Seconds from the start of Python to the first text, best of three."""
    image = lines.image(next(iter(lines.labels)))
    command = [sys.executable, "-c", FIRST_TEXT, str(image), *([str(model)] if model else [])]
    taken = []
    for _ in range(3):
        begin = perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(perf_counter() - begin)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="sets", type=Path, action="append", required=True, help="folder with labels.tsv")
    parser.add_argument("--model", type=Path, help="folder of weights or checkpoint; default those of the package")
    parser.add_argument("--decode", choices=["beam", "greedy", "ctc"], nargs="+", default=["beam", "greedy", "ctc"])
    parser.add_argument("--precision", choices=get_args(Precision), nargs="+", default=["auto"])
    parser.add_argument("--psm", type=int, nargs="*", default=[7], help="page segmentation modes of Tesseract")
    parser.add_argument("--no-ours", action="store_true", help="Tesseract only")
    parser.add_argument("--max-lines", type=int)
    args = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    import torch

    torch.set_num_threads(1)
    readers: dict[str, Any] = {}
    for decode in () if args.no_ours else args.decode:
        for lot, batch_size in (("batch 16", 16), ("alone", 1)):
            for precision in args.precision:
                options: dict[str, Any] = {"decode": decode, "batch_size": batch_size, "precision": precision}
                readers[f"ours, {decode}, {precision}, {lot}"] = Recognizer(args.model, device="cpu", **options)
    version = tesseract_version()
    if version is None and args.psm:
        print("Tesseract or its Khmer model is not installed: no figures of it. apt-get install tesseract-ocr-khm")
    elif args.psm:
        readers |= {f"tesseract, psm {psm}, {border}": Tesseract(psm, border) for psm in args.psm for border in BORDERS}
    sets = {folder.name: labelled_set(folder / "labels.tsv", args.max_lines) for folder in args.sets}
    result: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "tesseract": version, "sets": {}}
    titles = ("CER", "plain", "syll.", "exact", "ms/line", "CPU ms", "first")
    print(f"{'set':14s}{'lines':>6s}  {'reader':30s}{''.join(f'{title:>8s}' for title in titles)}")
    for name, lines in sets.items():
        if readers and not args.no_ours:
            read_set(labelled_set(args.sets[0] / "labels.tsv", 16), next(iter(readers.values())))  # compiles and warms
        row = measure(lines, readers)
        result["sets"][name] = {"lines": len(lines.labels), **row}
        for reader, seen in row.items():
            cells = "".join(f"{value:8.2f}" for value in seen.values())
            print(f"{name:14s}{len(lines.labels):6d}  {reader:30s}{cells}", flush=True)
    if not args.no_ours:
        result["first_text_s"] = round(first_text_s(next(iter(sets.values())), args.model), 2)
        print(f"from the start of Python to the first text: {result['first_text_s']} s, on one core")
    print(json.dumps(result["sets"], indent=1) if args.max_lines else store("recognize", result))


if __name__ == "__main__":
    main()

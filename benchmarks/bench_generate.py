"""Generation against plain Pillow: python benchmarks/bench_generate.py [--text FOLDER] [--scratch /dev/shm]

Plain Pillow is what scripts of this kind do: RAQM `draw.text` on a 32 px image, `save`, `open().write()` of the label,
with the same lines, faces and sizes. Everything in one run on one core, cases in turn, ratios round by round.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from common import interleaved, lines_of, ratio, store
from PIL import Image, ImageDraw, ImageFont, features

from khmer_ocr import rng
from khmer_ocr.dataset.layout import CHUNK
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.generate.chunk_renderer import ChunkRenderer, RenderJob
from khmer_ocr.generate.split_text import PLAN_LINES
from khmer_ocr.render.measured_faces import usable_faces
from khmer_ocr.render.planner import LinePlan
from khmer_ocr.render.settings import RenderConfig

HEIGHT_PX = 32
PILLOW_LINES = 600


@contextmanager
def one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class PlainPillow:
    """The baseline: one `draw.text` a line, fonts opened once."""

    def __init__(self, faces: list[FontFace], plan: LinePlan, texts: list[str]) -> None:
        self.texts, self.plan, self.faces = texts, plan, faces
        self._fonts: dict[tuple[int, int], ImageFont.FreeTypeFont] = {}

    def font(self, n: int) -> ImageFont.FreeTypeFont:
        place = (int(self.plan.face_B[n]), int(self.plan.size64_B[n]))
        if place not in self._fonts:
            face = self.faces[place[0]]
            font = ImageFont.truetype(str(face.files[0]), place[1] / 64, layout_engine=ImageFont.Layout.RAQM)
            if face.variations:
                settings = dict(face.variations)
                font.set_variation_by_axes([settings["wght"], settings["wdth"]])
            self._fonts[place] = font
        return self._fonts[place]

    def image(self, n: int) -> Image.Image:
        font, text = self.font(n), self.texts[n]
        left, _, right, _ = font.getbbox(text, language="km")
        image = Image.new("L", (int(right - left) + 8, HEIGHT_PX), 255)
        place = (4 - left, int(self.plan.baseline_B[n]))
        ImageDraw.Draw(image).text(place, text, fill=0, font=font, language="km", anchor="ls")
        return image

    def in_memory(self) -> int:
        for n in range(len(self.texts)):
            self.image(n).save(io.BytesIO(), "PNG")
        return len(self.texts)

    def to_files(self, folder: Path) -> int:
        for n, text in enumerate(self.texts):
            self.image(n).save(folder / f"train_{n:06d}.png")
            with open(folder / f"train_{n:06d}.txt", "w", encoding="utf-8") as label:
                label.write(text)
        return len(self.texts)


def renderer_for(
    faces: list[FontFace], metrics: dict[str, Any], root: Path, render: RenderConfig | None = None
) -> ChunkRenderer:
    return ChunkRenderer(RenderJob(tuple(faces), metrics, render or RenderConfig(), str(root), "files", 42, None))


def drawable(renderer: ChunkRenderer, texts: list[str]) -> list[str]:
    reasons = renderer.renderer.planner.rejections(texts)
    return [text for text, reason in zip(texts, reasons, strict=True) if not reason]


def chunks(texts: list[str]) -> list[list[str]]:
    return [texts[n : n + CHUNK] for n in range(0, len(texts), CHUNK)]


def bench_one_core(
    faces: list[FontFace], metrics: dict[str, Any], texts: list[str], scratch: Path, rounds: int
) -> dict[str, Any]:
    """Speed of one core against plain Pillow; every round draws lines that no round before has seen."""
    renderer = renderer_for(faces, metrics, scratch / "ours")
    texts = drawable(renderer, texts)
    renderer.journal.fragment("train", 0).parent.mkdir(parents=True)
    size = len(texts) // (2 * rounds + 2) // CHUNK * CHUNK
    blocks = iter([texts[n : n + size] for n in range(0, len(texts) - size + 1, size)])
    plan = renderer.renderer.plan(
        texts[:PILLOW_LINES], np.arange(PILLOW_LINES, dtype=np.uint64), rng.key(42, "train", "plan")
    )
    baseline = PlainPillow(faces, plan, texts[:PILLOW_LINES])
    plain = scratch / "plain"
    plain.mkdir()

    def ours_in_memory() -> int:
        return sum(len(renderer.lines("train", n * CHUNK, part)[1]) for n, part in enumerate(chunks(next(blocks))))

    def ours_to_files() -> int:
        return sum(renderer.chunk("train", n, part, True)[0] for n, part in enumerate(chunks(next(blocks))))

    def planning() -> int:
        renderer.plan("train", 0, texts[:size], True)
        return size

    cases: dict[str, Callable[[], int]] = {
        "plain Pillow, PNG in memory": baseline.in_memory,
        "khmer_ocr, PNG in memory": ours_in_memory,
        "plain Pillow, PNG + txt files": lambda: baseline.to_files(plain),
        "khmer_ocr, PNG + txt files, metadata": ours_to_files,
        "khmer_ocr, planning pass": planning,
    }
    with one_core():
        interleaved(cases, 1)
        seconds = interleaved(cases, rounds)
    names = list(cases)
    return {
        "lines a round": size,
        "faces": len(faces),
        "us_per_line": {name: round(median(values) * 1e6, 1) for name, values in seconds.items()},
        "ratio_memory": ratio(seconds[names[0]], seconds[names[1]]),
        "ratio_files": ratio(seconds[names[2]], seconds[names[3]]),
        "ratio_files_with_planning": ratio(
            seconds[names[2]], [a + b for a, b in zip(seconds[names[3]], seconds[names[4]], strict=True)]
        ),
    }


def bench_cold(
    faces: list[FontFace], metrics: dict[str, Any], texts: list[str], scratch: Path, rounds: int
) -> dict[str, Any]:
    """24 faces x 5 sizes from nothing: speed of lines 5,000 to 10,000 against the same lines drawn again."""
    families: dict[str, FontFace] = {}
    for face in sorted(faces, key=lambda face: face.style != "Regular"):
        families.setdefault(face.family, face)
    picked = list(families.values())[:24]
    # Compiling is not what is measured: another renderer has the kernels loaded before.
    warm_up = renderer_for(picked[:1], metrics, scratch / "cold")
    warm_up.lines("train", 0, drawable(warm_up, texts[:100]))
    every = drawable(renderer_for(picked, metrics, scratch / "cold"), texts)
    first, second = every[:5000], every[5000:10000]
    seconds: dict[str, list[float]] = {"first 5,000": [], "next 5,000": [], "next 5,000 again, warm": []}

    def draw(renderer: ChunkRenderer, part: list[str], begin: int) -> float:
        start = perf_counter()
        for n, block in enumerate(chunks(part)):
            renderer.lines("train", begin + n * CHUNK, block)
        return (perf_counter() - start) / len(part)

    with one_core():
        for _ in range(rounds):
            renderer = renderer_for(picked, metrics, scratch / "cold")
            for name, part, begin in zip(seconds, (first, second, second), (0, 5 * CHUNK, 5 * CHUNK), strict=True):
                seconds[name].append(draw(renderer, part, begin))
    cold, warm = seconds["next 5,000"], seconds["next 5,000 again, warm"]
    return {
        "faces": len(picked),
        "us_per_line": {name: round(median(values) * 1e6, 1) for name, values in seconds.items()},
        "share_of_warm_speed": [round(share, 2) for share in ratio(warm, cold)],
    }


def bench_workers(texts: list[str], scratch: Path, rounds: int) -> dict[str, Any]:
    """Whole runs of the command line with one and with two workers, start-up taken off; busy loops beside them."""
    corpus = scratch / "corpus"
    corpus.mkdir()
    sizes = {"small": 2 * CHUNK, "large": len(texts)}
    for name, count in sizes.items():
        (corpus / name).mkdir()
        (corpus / name / "train.txt").write_text("\n".join(texts[:count]), encoding="utf-8")

    def run(workers: int, name: str) -> float:
        output = scratch / "runs"
        command = [sys.executable, "-m", "khmer_ocr", "generate", "--corpus-dir", str(corpus / name)]
        command += ["--output-dir", str(output), "--splits", "train", "--workers", str(workers), "--quiet"]
        begin = perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        elapsed_s = perf_counter() - begin
        shutil.rmtree(output)
        return elapsed_s

    run(2, "large")
    times: dict[str, list[float]] = {"1": [], "2": []}
    busy: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(rounds):
        for workers in (1, 2):
            times[str(workers)].append(run(workers, "large") - run(workers, "small"))
            busy[str(workers)].append(_busy_loops(workers) / workers)
    lines = sizes["large"] - sizes["small"]
    return {
        "lines": lines,
        "lines_per_s": {workers: round(lines / median(values)) for workers, values in times.items()},
        "ratio": ratio(times["1"], times["2"]),
        "ratio_of_busy_loops": ratio(busy["1"], busy["2"]),
    }


def _busy_loops(processes: int) -> float:
    """Seconds that so many processes take to count to 60 million each: what this machine's cores give at most."""
    loop = [sys.executable, "-c", "n = 0\nwhile n < 60_000_000: n += 1"]
    begin = perf_counter()
    for process in [subprocess.Popen(loop) for _ in range(processes)]:
        process.wait()
    return perf_counter() - begin


def bench_memory(texts: list[str], scratch: Path, counts: tuple[int, ...]) -> dict[str, Any]:
    """Resident memory of one worker after so many lines."""
    file = scratch / "lines.txt"
    file.write_text("\n".join(texts), encoding="utf-8")
    out = {}
    for count in counts:
        command = [sys.executable, __file__, "--memory-of", str(count), "--text", str(file), "--scratch", str(scratch)]
        out[str(count)] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"resident_mb": out}


def memory_of(count: int, file: Path, scratch: Path) -> None:
    faces, metrics = usable_faces(None, fonts_dir=Path("fonts"), system=False)
    renderer = renderer_for(faces, metrics, scratch / "memory")
    every = file.read_text(encoding="utf-8").split("\n")
    # As many at once as a worker is given to plan.
    texts = [text for n in range(0, len(every), PLAN_LINES) for text in drawable(renderer, every[n : n + PLAN_LINES])]
    done = 0
    while done < count:
        start = done % (len(texts) - CHUNK)
        renderer.lines("train", done, texts[start : start + CHUNK])
        done += CHUNK
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({"now": int(status["VmRSS"].split()[0]) >> 10, "peak": int(status["VmHWM"].split()[0]) >> 10}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="folder of .txt files; default: synthesised lines")
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"), help="where files are written; a tmpfs")
    parser.add_argument("--lines", type=int, default=48 * CHUNK, help="distinct lines for the first comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=["core", "cold", "workers", "memory"])
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        memory_of(args.memory_of, args.text, args.scratch)
        return
    if not features.check("raqm"):
        raise SystemExit("Pillow lacks RAQM (install libfribidi0): the baseline would draw Khmer wrongly and too fast")
    scratch = args.scratch / "khmer_ocr-bench"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    faces, metrics = usable_faces(None, fonts_dir=Path("fonts"), system=False)
    expected = args.only or ["core", "cold", "workers", "memory"]
    result: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "text": args.text.name if args.text else "synthetic",
    }
    try:
        if "core" in expected:
            result["one core, warm"] = bench_one_core(
                faces, metrics, lines_of(args.text, args.lines), scratch, args.rounds
            )
        if "cold" in expected:
            result["cold start, 24 faces x 5 sizes"] = bench_cold(
                faces, metrics, lines_of(args.text, 10400), scratch, args.rounds
            )
        if "workers" in expected:
            result["workers"] = bench_workers(lines_of(args.text, 48 * CHUNK), scratch, args.rounds)
        if "memory" in expected:
            result["memory"] = bench_memory(lines_of(args.text, 50000), scratch, (10_000, 300_000))
    finally:
        shutil.rmtree(scratch)
    print(json.dumps(result, ensure_ascii=False, indent=1))
    print(store("generate", result))


if __name__ == "__main__":
    main()

"""Worn lines against clean plain Pillow: python benchmarks/bench_augment.py [--text FOLDER]

The baseline is `bench_generate.PlainPillow` without any wear: RAQM `draw.text` and `save` with the same lines, faces
and sizes. One core, cases in turn, ratios round by round; every round draws lines not seen before.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from bench_generate import PILLOW_LINES, PlainPillow, chunks, drawable, one_core, renderer_for
from common import interleaved, lines_of, ratio, store

from khmer_ocr import rng
from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.dataset.layout import CHUNK
from khmer_ocr.generate.chunk_renderer import ChunkRenderer
from khmer_ocr.generate.local_executor import WORKER_ENVIRONMENT
from khmer_ocr.render.measured_faces import usable_faces

RECIPES = (("none", "medium"), ("basic", "medium"), ("scan", "mild"), ("scan", "medium"), ("scan", "heavy"))
BASELINE = "plain Pillow, clean"


def bench(texts: list[str], scratch: Path, rounds: int) -> dict[str, Any]:
    """Time every recipe in the same run."""
    faces, metrics = usable_faces(None, fonts_dir=Path("fonts"), system=False)
    first = renderer_for(faces, metrics, scratch)
    texts = drawable(first, texts)
    size = len(texts) // ((rounds + 1) * len(RECIPES)) // CHUNK * CHUNK
    unseen = iter([texts[n : n + size] for n in range(0, len(texts) - size + 1, size)])
    key_2 = rng.key(42, "train", "plan")
    plan = first.renderer.plan(texts[:PILLOW_LINES], np.arange(PILLOW_LINES, dtype=np.uint64), key_2)
    baseline = PlainPillow(faces, plan, texts[:PILLOW_LINES])

    def case(renderer: ChunkRenderer) -> Callable[[], int]:
        def run() -> int:
            parts = chunks(next(unseen))
            return sum(len(renderer.drawn("train", n, part)[1]) for n, part in enumerate(parts))

        return run

    cases: dict[str, Callable[[], int]] = {BASELINE: baseline.in_memory}
    for name, strength in RECIPES:
        recipe = load_recipe(name, strength)
        label = f"{name}, {strength}" if recipe and recipe.engine == "kornia" else name
        cases[label] = case(ChunkRenderer(replace(first.job, recipe=recipe)))
    with one_core():
        torch.set_num_threads(1)
        interleaved(cases, 1)
        seconds = interleaved(cases, rounds)
    return {
        "lines a round": size,
        "faces": len(faces),
        "us_per_line": {name: round(median(values) * 1e6, 1) for name, values in seconds.items()},
        "ratio_to_clean_plain_pillow": {
            name: [round(value, 2) for value in ratio(seconds[BASELINE], values)]
            for name, values in seconds.items()
            if name != BASELINE
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="folder of .txt files; default: synthesised lines")
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"), help="where nothing is written but locks")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if not WORKER_ENVIRONMENT.items() <= os.environ.items():  # as a worker has it, from its first allocation on
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **WORKER_ENVIRONMENT})
    scratch = args.scratch / "khmer_ocr-bench-augment"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        lines = lines_of(args.text, 2 * CHUNK * (args.rounds + 1) * len(RECIPES))
        result = {"command": " ".join(["python", *sys.argv]), "text": args.text.name if args.text else "synthetic"}
        result |= bench(lines, scratch, args.rounds)
    finally:
        shutil.rmtree(scratch)
    print(json.dumps(result, ensure_ascii=False, indent=1))
    print(store("augment", result))


if __name__ == "__main__":
    main()

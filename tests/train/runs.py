"""Small data sets that can be learned, a reader small enough to learn them, runs in processes of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from khmer_ocr.dataset import layout
from khmer_ocr.model import presets
from khmer_ocr.train.settings import TrainConfig
from tests import REPOSITORY
from tests.dataset import trees

LETTERS = "កខគឃងចឆជឈញ"
TINY = replace(
    presets.PRESETS["compact"],
    preset="tiny",
    channels=(4, 8, 12, 16),
    blocks=(0, 0, 0, 0),
    width=24,
    layers=1,
    heads=2,
    embedding=24,
    decoder_layers=1,
    dropout=0.1,
)
presets.PRESETS["tiny"] = TINY


def page(text: str, seed: int) -> np.ndarray:
    """Each letter its own pattern of 8 x 8 blocks, on a line of its own width."""
    drawn = np.full((32, 8 * len(text) + 4), 255, np.uint8)
    for at, letter in enumerate(text):
        blocks = np.random.default_rng(ord(letter)).integers(0, 2, (3, 1)).repeat(8, 0).repeat(6, 1)
        marks = np.random.default_rng([7, ord(letter)]).integers(0, 2, (24, 6))
        drawn[4:28, 2 + 8 * at : 8 + 8 * at] = 255 - 220 * (blocks | (marks & (np.arange(24)[:, None] % 3 == 0)))
    noise = np.random.default_rng(seed).integers(0, 20, drawn.shape, dtype=np.uint8)
    return drawn - np.minimum(drawn, noise)


def text_of(split: str, i: int) -> str:
    rng = np.random.default_rng([11, i, *split.encode()])
    return "".join(rng.choice(list(LETTERS), rng.integers(1, 9)))


def write_tree(root: Path, counts: dict[str, int], texts: Mapping[str, Sequence[str]] | None = None) -> Path:
    """Write splits whose lines say what `text_of`, or the given texts, say."""
    for split, count in counts.items():
        folder, entries = root / split, []
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True)
        for i in range(count):
            text = texts[split][i] if texts and split in texts else text_of(split, i)
            drawn, name = page(text, i), layout.stem(split, i)
            entries.append({**trees.sample(split, i, drawn), "text": text})
            (folder / "images" / f"{name}.png").write_bytes(trees.png(drawn))
            (folder / "labels" / f"{name}.txt").write_text(text, encoding="utf-8")
        trees.write_metadata(folder, split, entries)
    return root


def settings(tree: Path, out: Path, **changes: Any) -> TrainConfig:
    """Settings of a small run on the CPU."""
    config = TrainConfig(
        synthetic_dir=(tree,),
        checkpoint_dir=out / "checkpoints",
        log_dir=out / "logs",
        preset="tiny",
        num_epochs=2,
        batch_size=8,
        warmup_steps=5,
        learning_rate=3e-3,
        log_steps=1,
        validate_lines=8,
        num_workers=0,
        device="cpu",
        progress=False,
    )
    return replace(config, **changes)


def rows(out: Path, kind: str) -> list[dict[str, Any]]:
    """Lines of one kind in the run's log."""
    lines = (out / "logs" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def environment() -> dict[str, str]:
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "kernels")))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def start(script: str, *arguments: str, launcher: Sequence[str] = ()) -> "subprocess.Popen[str]":
    """Start Python on a script that may import this module, in a process of its own."""
    command = [sys.executable, *launcher, script, *arguments]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY
    )

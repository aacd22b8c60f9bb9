"""Loading beside DataLoader + PIL: python benchmarks/bench_load.py --files DIR --shards DIR [--rounds 5]

Every case delivers the same: each line of the split once, shuffled, padded, float32 in 0..1 (or uint8 where it says so),
with its targets. One core, warm page cache, cases in turn; a first epoch, which also checks labels and sums, is timed
apart. Ratios are taken round by round.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import circumstances, interleaved, ratio, store
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.index import load_index
from khmer_ocr.load.collate import collate_lines
from khmer_ocr.load.dataset import SyntheticImageDataset
from khmer_ocr.load.loader import LineLoader, LoadConfig, open_loader
from khmer_ocr.text.charset import Charset

BATCH_SIZE = 64
BASE = "DataLoader + PIL"


class PilLines(Dataset):
    """What a stranger would write."""

    def __init__(self, root: Path, split: str) -> None:
        index = load_index(root, split)
        self.paths = [str(layout.image_file(root, split, index.filename(i))) for i in range(len(index))]
        self.texts = [index.text(i) for i in range(len(index))]
        self.charset = Charset.default()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> dict[str, Any]:
        with Image.open(self.paths[i]) as image:
            pixels = np.asarray(image, np.float32) / 255.0
        targets = torch.tensor(self.charset.encode(self.texts[i]), dtype=torch.int64)
        return {"image": torch.from_numpy(pixels)[None], "targets": targets, "text": self.texts[i], "filename": i}


def plain(dataset: Dataset) -> Callable[[], int]:
    """An epoch of a DataLoader without workers."""
    shuffle = torch.Generator().manual_seed(1)
    loader = DataLoader(dataset, BATCH_SIZE, shuffle=True, collate_fn=collate_lines, generator=shuffle)
    return lambda: sum(len(batch["texts"]) for batch in loader)


def ours(loader: LineLoader) -> Callable[[], int]:
    """The next epoch of a loader of ours."""
    epochs = iter(range(1_000_000))
    return lambda: sum(len(batch["texts"]) for batch in loader.epoch(next(epochs)))


def open_ours(root: Path, split: str, **settings: Any) -> LineLoader:
    return open_loader(root, split, LoadConfig(batch_size=BATCH_SIZE, progress=False, **settings), Charset.default())


def cases_of(files: Path, shards: Path | None, split: str) -> dict[str, Callable[[], int]]:
    cases = {BASE: plain(PilLines(files, split)), "SyntheticImageDataset": plain(SyntheticImageDataset(split, files))}
    roots = {"files": files} if shards is None else {"files": files, "shards": shards}
    for name, root in roots.items():
        for engine in ("torch", "dali"):
            cases[f"{engine}, {name}"] = ours(open_ours(root, split, engine=engine, dtype="float32"))
    for dtype in ("float32", "uint8"):
        for engine in ("torch", "dali"):
            cases[f"{engine}, cache, {dtype}"] = ours(open_ours(files, split, engine=engine, cache=True, dtype=dtype))
    return cases


def on_cpu_time(case: Callable[[], int], spent: list[float]) -> Callable[[], int]:
    """Note the CPU seconds per line too: on a machine shared with others they say more than the clock."""

    def timed() -> int:
        begin = time.process_time()
        lines = case()
        spent.append((time.process_time() - begin) / lines)
        return lines

    return timed


def throughput(files: Path, shards: Path | None, split: str, rounds: int) -> dict[str, Any]:
    cases = cases_of(files, shards, split)
    first = {name: seconds[0] for name, seconds in interleaved(cases, 1).items()}
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    wall = interleaved({name: on_cpu_time(case, cpu[name]) for name, case in cases.items()}, rounds)
    return {
        name: {
            "us_per_line": round(1e6 * statistics.median(wall[name]), 1),
            "us_per_line_first_epoch": round(1e6 * first[name], 1),
            "ratio": [round(r, 2) for r in ratio(wall[BASE], wall[name])],
            "cpu_us_per_line": round(1e6 * statistics.median(cpu[name]), 1),
            "cpu_ratio": [round(r, 2) for r in ratio(cpu[BASE], cpu[name])],
        }
        for name in cases
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, required=True, help="generated data set, format files")
    parser.add_argument("--shards", type=Path, help="the same, format webdataset")
    parser.add_argument("--split", default="train")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    result = throughput(args.files, args.shards, args.split, args.rounds)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

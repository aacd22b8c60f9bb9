"""Loading beside DataLoader + PIL: python benchmarks/bench_load.py --files DIR --shards DIR [--rounds 7]

Every case delivers the same: each line of the split once, shuffled, padded, float32 in 0..1 (uint8 where it says so),
with its targets. One core, warm page cache, cases in turn; a first epoch, which also checks labels and sums, is timed
apart. Ratios are taken round by round. Also: how long a training loop waits, memory over epochs, opening a large tree.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import interleaved, ratio, store
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.metadata import iter_samples
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


class Reader(torch.nn.Module):
    """A dummy: as much work as the first layers of a small reader."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, 24, 3, 2, 1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(24, 48, 3, 2, 1),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d((1, 40)),
            torch.nn.Flatten(1, 2),
            torch.nn.Conv1d(48, 200, 1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


def waiting(files: Path, split: str, batches: int) -> dict[str, Any]:
    """Share of time for which a training loop waits for its batches, after the first ones."""
    result = {}
    for name, settings in {"defaults": {}, "defaults, torch": {"engine": "torch"}, "cache": {"cache": True}}.items():
        loader = open_ours(files, split, **settings)
        for consumer in ("conv net on the CPU", "20 ms asleep, as while a GPU works"):
            model = Reader()
            optimizer = torch.optim.SGD(model.parameters(), 0.01)
            for number, batch in enumerate(loader.epoch(0)):
                if number == 5:
                    loader.statistics.reset()
                if number == batches + 5:
                    break
                if consumer.startswith("conv"):
                    images = batch["images"].to(torch.float32).div_(255)
                    optimizer.zero_grad()
                    model(images).square().mean().backward()
                    optimizer.step()
                else:
                    time.sleep(0.02)
            counts = loader.statistics
            result[f"{name}, {consumer}"] = {
                "engine": loader.engine,
                "step_ms": round(1000 * counts.use_s / counts.batches, 1),
                "waiting_percent": round(100 * counts.waiting_share, 2),
            }
    return result


def memory_mb(key: str) -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) >> 10


def memory(root: Path, split: str, engine: str, cache: bool) -> dict[str, Any]:
    """Resident memory after each of five epochs; a cache's mapped pages are not counted."""
    loader, seen = open_ours(root, split, engine=engine, cache=cache), []
    for epoch in range(6):
        for batch in loader.epoch(epoch):
            del batch
        seen.append(memory_mb("RssAnon"))
    return {"anonymous_mb_after_epoch": seen[1:]}


def opening(root: Path, split: str) -> dict[str, Any]:
    """Time and memory to the first plan, beside those of imports."""
    open_ours(root.parent / "one", split, engine="torch")
    before_mb, begin = memory_mb("VmRSS"), time.perf_counter()
    loader = open_ours(root, split, engine="torch")
    loader.plan(0)
    elapsed_s = time.perf_counter() - begin
    return {
        "samples": len(loader.lines),
        "elapsed_s": round(elapsed_s, 2),
        "peak_mb": memory_mb("VmHWM"),
        "before_mb": before_mb,
    }


def write_large(files: Path, split: str, scratch: Path, samples: int) -> Path:
    """Metadata of many samples, which is all that opening reads, and of one."""
    source = list(iter_samples(files / split / layout.SPLIT_METADATA))
    for name, count in (("one", 1), ("large", samples)):
        folder = scratch / name / split
        folder.mkdir(parents=True)
        rows = ({**source[i % len(source)], "filename": layout.stem(split, i)} for i in range(count))
        lines = (json.dumps(row, ensure_ascii=False).encode() for row in rows)
        with (folder / layout.SPLIT_METADATA).open("wb") as file:
            file.writelines(layout.split_metadata({"split": split, "total_samples": count}, lines))
    return scratch / "large"


def in_a_process(step: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step, *map(str, arguments)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def run_step(step: str, arguments: list[str]) -> dict[str, Any]:
    if step == "open":
        return opening(Path(arguments[0]), arguments[1])
    return memory(Path(arguments[0]), arguments[1], arguments[2], arguments[3] == "True")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, help="generated data set, format files")
    parser.add_argument("--shards", type=Path, help="the same, format webdataset")
    parser.add_argument("--split", default="train")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(run_step(args.step[0], args.step[1:])))
        return
    if args.files is None:
        parser.error("--files is missing")
    split, result = args.split, dict[str, Any]()
    result["command"] = " ".join(["python", *sys.argv])
    result["waiting"] = waiting(args.files, split, 150)
    ways = [(engine, cache) for engine in ("torch", "dali") for cache in (False, True)]
    result["memory"] = {
        f"{engine}, {'cache' if cache else 'files'}": in_a_process("memory", args.files, split, engine, cache)
        for engine, cache in ways
    }
    with tempfile.TemporaryDirectory() as scratch:
        result["opening"] = in_a_process("open", write_large(args.files, split, Path(scratch), 300_000), split)
    loader = open_ours(args.files, split, engine="torch")
    result["padding_waste"] = round(loader.plan(0).padding_waste, 4)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    result["throughput"] = throughput(args.files, args.shards, split, args.rounds)
    packages = {name: version(name) for name in ("torch", "nvidia-dali-cuda130")}
    print(json.dumps(result, indent=1))
    print(store("load", {"packages": packages, **result}))


if __name__ == "__main__":
    main()

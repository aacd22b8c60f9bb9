"""metadata.json of millions of samples, written and read: python benchmarks/bench_metadata.py [--samples 10000000]

Peak memory must not grow with the number of samples; a small run before the large one shows that it does not.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from common import store

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.metadata import iter_samples
from khmer_ocr.generate.journal import Journal

SETTINGS = {"corpus_dir": "c", "output_dir": "o", "image_height": 32, "augment_train": True, "fonts": []}
TEXT = "ភូមិត្រពាំងស្វាយ ឃុំត្រពាំងព្រះ ស្រុកព្រៃកប្បាស ខេត្តតាកែវ"


def write(root: Path, samples: int) -> None:
    """Fragments as workers leave them, then the split's metadata from them."""
    journal = Journal(root)
    (root / "train").mkdir(parents=True)
    chunks = -(-samples // layout.CHUNK)
    journal.fragment("train", 0).parent.mkdir(parents=True)
    for chunk in range(chunks):
        first = chunk * layout.CHUNK
        rows = [row(i) for i in range(first, min(first + layout.CHUNK, samples))]
        journal.commit("train", chunk, {"samples": len(rows), "bytes": 0, "fonts": {"A": len(rows)}}, rows)
    begin = perf_counter()
    run = {"format": "files", "recipe": "none", "splits": {"train": {}}}
    journal.finalise("train", chunks, {}, run, SETTINGS)
    report(perf_counter() - begin, root)


def row(i: int) -> bytes:
    """One sample's line."""
    stem = layout.stem("train", i)
    image_path, label_path = layout.recorded_paths("data/synthetic", "train", f"{stem}.png", None)
    return json.dumps(
        {
            "filename": stem,
            "text": TEXT,
            "font": "A",
            "image_path": image_path,
            "label_path": label_path,
            "image_width": 300,
            "image_height": 32,
            "pixel_hash": f"{i:016x}",
            "size_ppem": 18.0,
        },
        ensure_ascii=False,
    ).encode()


def read(root: Path, samples: int) -> None:
    """Every sample, one at a time."""
    begin = perf_counter()
    seen = sum(1 for _ in iter_samples(root / "train" / layout.SPLIT_METADATA))
    if seen != samples:
        raise SystemExit(f"{seen} samples read, {samples} written")
    report(perf_counter() - begin, root)


def report(elapsed_s: float, root: Path) -> None:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    file_mb = (root / "train" / layout.SPLIT_METADATA).stat().st_size >> 20
    peak_mb = int(status["VmHWM"].split()[0]) >> 10
    print(json.dumps({"elapsed_s": round(elapsed_s, 1), "peak_mb": peak_mb, "file_mb": file_mb}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--step", choices=["write", "read"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    root = args.scratch / f"khmer_ocr-metadata-{args.samples}"
    if args.step:
        {"write": write, "read": read}[args.step](root, args.samples)
        return
    result: dict[str, object] = {"command": " ".join(["python", *sys.argv])}
    for samples in (100_000, args.samples):
        figures = {}
        for step in ("write", "read"):
            command = [
                sys.executable,
                __file__,
                "--step",
                step,
                "--samples",
                str(samples),
                "--scratch",
                str(args.scratch),
            ]
            figures[step] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        folder = args.scratch / f"khmer_ocr-metadata-{samples}"
        subprocess.run(["rm", "-r", str(folder)], check=True)
        result[f"{samples:,} samples"] = figures
    print(json.dumps(result, indent=1))
    print(store("metadata", result))


if __name__ == "__main__":
    main()

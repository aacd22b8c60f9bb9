"""What benchmarks share: text, circumstances, ratios taken pair by pair."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

RESULTS = Path(__file__).parent / "results"


def lines_of(source: Path | None, count: int) -> list[str]:
    """Normalised lines: of a folder of texts, or synthesised where there is none."""
    from khmer_ocr.corpus.line_breaking import cut
    from khmer_ocr.corpus.synthesis.syllable_lines import synthesize_lines

    if source is None:
        return list(synthesize_lines(count, seed=1))
    raw = [line for file in sorted(source.glob("*.txt")) for line in file.read_text(encoding="utf-8").splitlines()]
    every = [line for text in raw for line in cut(text, 90)]
    step = max(len(every) // count, 1)
    return (every[::step] * (count // max(len(every[::step]), 1) + 1))[:count]


def circumstances() -> dict[str, str]:
    """Commit, machine and versions, for every result."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    packages = ("numpy", "numba", "uharfbuzz", "freetype-py", "pillow")
    return {
        "commit": commit.stdout.strip() or "unknown",
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "load_1min": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def interleaved(cases: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Run cases in turn, A B C A B C ...; seconds per item of each round. A case returns how many items it did."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            begin = perf_counter()
            items = case()
            seconds[name].append((perf_counter() - begin) / items)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> tuple[float, float, float]:
    """(lowest, median, highest) of slow/fast, round by round, so that a drifting machine cancels out."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return min(ratios), statistics.median(ratios), max(ratios)


def store(name: str, result: dict[str, object]) -> Path:
    """Write a result with its circumstances."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps({"circumstances": circumstances(), **result}, ensure_ascii=False, indent=1) + "\n")
    return file

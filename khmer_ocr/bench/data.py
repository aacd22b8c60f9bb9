"""Which data teach more: the same small proxy trained on each of some data sets, measured on the same labelled lines.

A run is one data set and one seed. Its result is stored when it is done, under what decided it, so that a comparison
that was stopped goes on, and a data set that is added later is compared with those before it.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from tqdm import tqdm

from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.bench.proxy import SHAPE, ProxyRun, read_lines, train_proxy
from khmer_ocr.bench.settings import DataBenchConfig
from khmer_ocr.dataset.index import load_index
from khmer_ocr.errors import ConfigError, DatasetError, RunConflictError
from khmer_ocr.io.atomic import write_output
from khmer_ocr.io.devices import pick_device
from khmer_ocr.io.json_bytes import json_bytes
from khmer_ocr.recognize.image_input import read_grey
from khmer_ocr.recognize.labelled_sets import labelled_set
from khmer_ocr.recognize.prepare import prepare
from khmer_ocr.text.metrics import Score, score
from khmer_ocr.train.data_fingerprint import record

VERSION = 1
"""Of the proxy and its training: results of another version are not comparable."""


@dataclass(frozen=True)
class MeasuredSet:
    """Labelled lines, ready to be read.

    Attributes:
        name: what it is called.
        labels: texts, in order.
        images: uint8 (H, W) of the proxy's height, dark ink.
        digest: of both.
    """

    name: str
    labels: list[str]
    images: list[npt.NDArray[np.uint8]]
    digest: str


@dataclass(frozen=True)
class DataComparison:
    """CER of each run; prints as a table.

    Attributes:
        data: names of the data sets, in the order given.
        sets: names of the sets measured on.
        cer: data set -> set -> CER of each seed, shares of 1.
        lines_per_s: data set -> lines trained on in a second, of each seed.
    """

    data: list[str]
    sets: list[str]
    cer: dict[str, dict[str, list[float]]]
    lines_per_s: dict[str, list[float]]

    def ranking(self) -> list[str]:
        """Names of the data sets, the one with the lowest mean over all sets first."""
        return sorted(self.data, key=lambda name: statistics.fmean(map(statistics.fmean, self.cer[name].values())))

    def __str__(self) -> str:
        wide = max(map(len, [*self.data, "data"]))
        columns = [max(len(name), 14) for name in self.sets]
        rows = [f"{'data':{wide}s}  " + "  ".join(f"{name:>{w}s}" for name, w in zip(self.sets, columns, strict=True))]
        for name in self.ranking():
            cells = (_mean_and_spread(self.cer[name][each]) for each in self.sets)
            rows.append(f"{name:{wide}s}  " + "  ".join(f"{c:>{w}s}" for c, w in zip(cells, columns, strict=True)))
        seeds = len(next(iter(self.lines_per_s.values()), []))
        rows.append(f"CER in %, mean and deviation of {seeds} seeds; the lowest mean over all sets first.")
        return "\n".join(rows)


def compare_data(roots: Sequence[Path], config: DataBenchConfig, *, progress: bool = True) -> DataComparison:
    """Train the proxy on each data set from each seed and read the labelled lines.

    Args:
        roots: the data sets' folders.
        config: what is measured and how.
        progress: show a progress bar for each run.

    Raises:
        SplitNotFoundError, DatasetError: a data set or a set of labels is missing, damaged or too small.
        ImageError: a labelled image can't be read.
        RunConflictError: `results` holds something else.
        OutputError: it can't be written.
    """
    names = _names(roots)
    device, sets = pick_device(config.device), [_measured(*_name_and_file(each)) for each in config.labels]
    if doubled := [each.name for each in sets if [one.name for one in sets].count(each.name) > 1]:
        raise ConfigError(f"two sets are called {doubled[0]!r}: give them names, --labels NAME=FILE")
    stored = _stored(config.results)
    comparison = DataComparison(names, [each.name for each in sets], {}, {})
    # Seed by seed, so that a comparison that is stopped early has measured all data sets as often.
    runs = [(seed, name, root) for seed in range(1, config.seeds + 1) for name, root in zip(names, roots, strict=True)]
    contents = {name: _content(root, config.lines) for name, root in zip(names, roots, strict=True)}
    for seed, name, root in runs:
        run = ProxyRun(root, config.lines, config.epochs, config.recipe, config.strength, seed, device)
        key = _key(run, contents[name], config)
        result = stored.setdefault(key, {"data": name, "seed": seed, "edits": {}})
        missing = [each for each in sets if each.digest not in result["edits"]]
        if missing:
            result.update(_measure(run, f"{name}, seed {seed}", missing, config, progress, result["edits"]))
            write_output(config.results, json_bytes({"version": VERSION, "runs": stored}, indent=1) + b"\n")
        for each in sets:
            edits, characters = result["edits"][each.digest]
            comparison.cer.setdefault(name, {}).setdefault(each.name, []).append(edits / max(characters, 1))
        comparison.lines_per_s.setdefault(name, []).append(result["lines_per_s"])
    return comparison


def _measure(
    run: ProxyRun,
    title: str,
    sets: Sequence[MeasuredSet],
    config: DataBenchConfig,
    progress: bool,
    edits: Mapping[str, list[int]],
) -> dict[str, Any]:
    """Train one proxy and read sets with it; values as they are stored."""
    begin = perf_counter()
    total_lines, found = run.lines * run.epochs, dict(edits)
    with tqdm(total=total_lines, unit="line", desc=title, disable=not progress) as bar:
        model, charset = train_proxy(run, lambda seen: bar.update(seen - bar.n))
    rate = total_lines / (perf_counter() - begin)
    for each in sets:
        texts = read_lines(model, charset, each.images, run.device)
        total = sum((score(*pair, config.fold) for pair in zip(each.labels, texts, strict=True)), Score())
        found[each.digest] = [total.edits, total.characters]
    return {"lines_per_s": rate, "edits": found}


def _names(roots: Sequence[Path]) -> list[str]:
    """Folder names, with as much of the path before them as tells them apart."""
    if not roots:
        raise ConfigError("bench data got no data set: give the folders of some, drawn by khmer-ocr generate")
    parts = [root.resolve().parts for root in roots]
    if len(set(parts)) < len(parts):
        raise ConfigError("bench data got the same data set twice: give each folder once")
    depth = next(n for n in range(1, max(map(len, parts)) + 1) if len({each[-n:] for each in parts}) == len(parts))
    return ["/".join(each[-depth:]) for each in parts]


def _name_and_file(given: str) -> tuple[str, Path]:
    name, equals, file = given.partition("=")
    if equals and not Path(given).exists():
        return name, Path(file)
    path = Path(given)
    folder = path.resolve().parent.name
    return (folder if path.stem == "labels" else f"{folder}/{path.stem}"), path


def _measured(name: str, file: Path) -> MeasuredSet:
    lines = labelled_set(file)
    images = [prepare(read_grey(source), SHAPE.height_px, str(source)).pixels_HW for source in lines.images()]
    digest = xxhash.xxh3_64()
    for label, image in zip(lines.labels.values(), images, strict=True):
        digest.update(label.encode())
        digest.update(image.tobytes())
    return MeasuredSet(name, list(lines.labels.values()), images, digest.hexdigest())


def _content(root: Path, lines: int) -> list[dict[str, Any]]:
    """What a data set teaches; see `record`."""
    index = load_index(root, "train", max_samples=lines)
    if len(index) < lines:
        raise DatasetError(
            f"{root} holds {len(index):,} training lines, and {lines:,} of each data set are compared. Draw more, or "
            f"give --lines {len(index)}."
        )
    return record([index])


def _key(run: ProxyRun, content: Any, config: DataBenchConfig) -> str:
    """What decided a result, and not where it lies."""
    decided = {name: value for name, value in asdict(run).items() if name != "root"}
    recipe = load_recipe(run.recipe, run.strength)
    decided |= {"content": content, "recipe": None if recipe is None else repr(recipe), "fold": config.fold}
    return xxhash.xxh3_64_hexdigest(json_bytes(decided))


def _stored(path: Path) -> dict[str, dict[str, Any]]:
    try:
        stored = json.loads(path.read_bytes())
        version, runs = stored["version"], stored["runs"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise RunConflictError(
            f"{path} holds no results of bench data ({fault!r}). Name another file with --results, or remove it."
        ) from fault
    if version != VERSION:
        raise RunConflictError(
            f"{path} holds results of version {version} of bench data, which can't be compared with those of version "
            f"{VERSION}. Name another file with --results."
        )
    return dict(runs)


def _mean_and_spread(rates: Sequence[float]) -> str:
    spread = statistics.stdev(rates) if len(rates) > 1 else 0.0
    return f"{100 * statistics.fmean(rates):.2f} +- {100 * spread:.2f}"

#!/usr/bin/env python3
"""Look at a generated data set the way training will: structure, batches by both engines, labels, statistics.

Leaves with 1 and says why when something is wrong. To check every single file: khmer-ocr verify DIR.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

try:
    from khmer_ocr.cli.process import run_command
    from khmer_ocr.dataset import layout
    from khmer_ocr.dataset.repair_advice import advice_to_create, begun_here
    from khmer_ocr.dataset.stats import dataset_statistics, format_statistics
    from khmer_ocr.errors import ConfigError, KhmerOcrError
except ModuleNotFoundError as lacking:
    sys.exit(
        f"{lacking.name} is not installed in {sys.executable}. Run: pip install '.[torch]' in the project's folder"
    )

if TYPE_CHECKING:
    from khmer_ocr.load.loader import Batch

ENGINES: tuple[Literal["torch", "dali"], ...] = ("torch", "dali")
LINES_READ = 2000
LABELS_SHOWN = 5
LABELS_COMPARED = 200


def check_structure(root: Path) -> tuple[list[str], list[str]]:
    """Print which files and folders are there; returns the splits found and what is wrong."""
    print(f"Structure of {root}")
    if not root.is_dir():
        return [], [f"{root} does not exist. {advice_to_create(root)}"]
    reasons = []
    present = (root / layout.GENERATION_METADATA).is_file()
    print(f"  {layout.GENERATION_METADATA}: {'there' if present else 'missing'}")
    if not present:
        reasons.append(f"{root / layout.GENERATION_METADATA} is missing: {_why_missing(root)}.")
    splits = [split for split in layout.SPLITS if (root / split).is_dir()]
    for split in layout.SPLITS:
        names = (layout.SPLIT_METADATA, layout.IMAGES, layout.LABELS, layout.SHARDS)
        found = [name for name in names if (root / split / name).exists()]
        print(f"  {split}/: {', '.join(found) if split in splits else 'not generated'}")
        if split in splits and layout.SPLIT_METADATA not in found:
            reasons.append(f"{root / split / layout.SPLIT_METADATA} is missing: {_why_missing(root)}.")
    if not splits:
        reasons.append(f"{root} holds no split. {advice_to_create(root)}")
    return splits, reasons


def _why_missing(root: Path) -> str:
    if begun_here(root):
        return "the generation has not finished"
    return "khmer-ocr did not draw this data set; khmer-ocr verify and stats look at it as it is"


def check_batch(split: str, batch: "Batch") -> list[str]:
    """Print the shapes and ranges of a batch; returns what is wrong with it."""
    images, widths, lengths = batch["images"], batch["image_lengths"], batch["target_lengths"]
    low, high = float(images.min()), float(images.max())
    print(f"  batch: images {tuple(images.shape)} {images.dtype}, {low:.3f} to {high:.3f}, mean {images.mean():.3f}")
    print(f"         targets {tuple(batch['targets'].shape)} {batch['targets'].dtype}, lengths {lengths.tolist()}")
    print(f"         image_lengths {widths.tolist()}")
    reasons = []
    if not (0.0 <= low < high <= 1.0):
        reasons.append(f"{split}: pixels of a batch run from {low} to {high}; expected ink and paper within 0 to 1.")
    for at, text in enumerate(batch["texts"]):
        if not bool((images[at, :, :, int(widths[at]) :] == 1.0).all()):
            reasons.append(f"{split}: line {at} of the batch is padded with something else than paper (1.0).")
        if float(images[at].min()) == 1.0 and text.strip():
            reasons.append(f"{split}: the image of {text!r} is blank.")
        if int(lengths[at]) != int((batch["targets"][at] != 0).sum()):
            reasons.append(f"{split}: the targets of {text!r} hold the padding id 0 within the text.")
    return reasons


def check_split(split: str, arguments: argparse.Namespace) -> list[str]:
    """Print what one split holds; returns what is wrong with it."""
    from khmer_ocr.load.dataset import SyntheticImageDataset
    from khmer_ocr.text.charset import Charset

    dataset = SyntheticImageDataset(split, arguments.synthetic_dir, max_samples=arguments.max_samples)
    print(f"\n{split}: {len(dataset):,} samples")
    if not len(dataset):
        return [f"{split} holds no samples."]
    reasons = []
    for i in range(min(LABELS_COMPARED, len(dataset))):
        stored, text = dataset.index.label_text(i), dataset.index.text(i)
        if stored != text:
            reasons.append(f"{dataset.index.paths(i)[1]} says {stored!r}, the metadata says {text!r}.")
    for text in dataset.get_text_sample(LABELS_SHOWN):
        print(f"  label: {text}")
    characters = dataset.get_statistics()["character_set"]
    unknown = sorted(Charset.default().missing(characters))
    print(f"  {len(characters)} distinct characters, {len(unknown)} unknown to the vocabulary {unknown or ''}")
    return reasons + check_engines(split, arguments)


def check_engines(split: str, arguments: argparse.Namespace) -> list[str]:
    """Read the split by each engine, its first lines if it is large, and compare; returns what is wrong with them."""
    from khmer_ocr.load.loader import LoadConfig, choose_engine, open_loader
    from khmer_ocr.text.charset import Charset

    loaders = []
    for engine in ENGINES:
        most = arguments.max_samples or LINES_READ
        config = LoadConfig(engine=engine, batch_size=arguments.batch_size, max_samples=most, dtype="float32")
        try:
            choose_engine(config)
        except ConfigError as fault:
            print(f"  {engine}: not looked at, {fault}")
            continue
        loaders.append(open_loader(arguments.synthetic_dir, split, config, Charset.default()))
    reasons: list[str] = []
    for number, batches in enumerate(zip(*(loader.epoch(0) for loader in loaders), strict=True)):
        if not number:
            reasons += check_batch(split, batches[0])
        for loader, batch in zip(loaders[1:], batches[1:], strict=True):
            same = batch["index"].equal(batches[0]["index"]) and batch["texts"] == batches[0]["texts"]
            if not same or not batch["images"].equal(batches[0]["images"]):
                reasons.append(f"{split}: batch {number} of {loader.engine} is not that of {loaders[0].engine}.")
    for loader in loaders:
        print(f"  {loader.engine}: {loader.statistics}")
    if len(loaders) > 1 and not reasons:
        print(f"  {' and '.join(loader.engine for loader in loaders)} give the same batches to the last bit")
    return reasons


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic-dir", type=Path, default=Path("data/synthetic"), help="the data set's folder")
    parser.add_argument("--batch-size", type=int, default=32, help="lines in the batch that is looked at")
    parser.add_argument("--max-samples", type=int, default=None, help="look at the first so many of each split only")
    parsed = parser.parse_args(arguments)
    for name in ("batch_size", "max_samples"):
        if getattr(parsed, name) is not None and getattr(parsed, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(parsed, name)}; give at least 1")
    return parsed


def main(arguments: list[str]) -> int:
    parsed = parse(arguments)
    splits, reasons = check_structure(parsed.synthetic_dir)
    for split in splits:
        try:
            reasons += check_split(split, parsed)
        except KhmerOcrError as fault:
            reasons.append(str(fault))
    if splits:
        try:
            print(f"\n{format_statistics(dataset_statistics(parsed.synthetic_dir))}")
        except KhmerOcrError as fault:
            reasons.append(str(fault))
    reasons = list(dict.fromkeys(reasons))
    print("\nNothing is wrong." if not reasons else "\nWrong:\n" + "\n".join(f"  {reason}" for reason in reasons))
    return 1 if reasons else 0


if __name__ == "__main__":
    run_command(lambda: sys.exit(main(sys.argv[1:])), Path(__file__).name)

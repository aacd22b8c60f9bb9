"""Small data sets written by Pillow and the standard library, so that the readers are tested against another writer."""

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from PIL import Image

from khmer_ocr.dataset import layout
from khmer_ocr.text.normalize import normalize

CONFIG = {
    "corpus_dir": "data/processed",
    "output_dir": "data/synthetic",
    "image_height": 32,
    "augment_train": True,
    "fonts": ["NotoSansKhmer-Regular", "Khmer OS Battambang", "Moul"],
}
FONTS = ("NotoSansKhmer-Regular", "Khmer OS Battambang", "Moul")
KHMER = [chr(code) for code in (*range(0x1780, 0x17A3), *range(0x17B6, 0x17D4), *range(0x17E0, 0x17EA), 0x20, 0x41)]


def pixels(split: str, i: int, height_px: int = 32) -> np.ndarray:
    """Grey noise on paper, of a width that depends on the sample."""
    rng = np.random.default_rng([i, *split.encode()])
    page = np.full((height_px, 20 + 7 * i % 60 + i % 5), 255, np.uint8)
    page[8:24, 3:-3] = rng.integers(0, 256, (16, page.shape[1] - 6), dtype=np.uint8)
    return page


def text(split: str, i: int) -> str:
    """Random signs in the normal form, in which every label is read."""
    chance = random.Random(f"{split}{i}")
    return normalize("".join(chance.choice(KHMER) for _ in range(1 + i % 40))) or "ក"


def png(page: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, "PNG")
    return buffer.getvalue()


def sample(split: str, i: int, page: np.ndarray, *, shard: str | None = None) -> dict:
    name = layout.stem(split, i)
    folder = f"data/synthetic/{split}"
    entry = {
        "filename": name,
        "text": text(split, i),
        "font": FONTS[i % 3],
        "image_path": f"{folder}/images/{name}.png",
        "label_path": f"{folder}/labels/{name}.txt",
        "image_width": page.shape[1],
        "image_height": page.shape[0],
        "pixel_hash": xxhash.xxh3_64_hexdigest(page.tobytes()),
        "size_ppem": 17.5,
    }
    return entry if shard is None else {**entry, "shard": shard}


def header(split: str, count: int) -> dict:
    return {
        "split": split,
        "total_samples": count,
        "augmentation_applied": False,
        "fonts_used": list(FONTS),
        "image_height": 32,
        "schema_version": layout.SCHEMA_VERSION,
    }


def write_metadata(folder: Path, split: str, entries: list[dict]) -> None:
    lines = [json.dumps(entry, ensure_ascii=False).encode() for entry in entries]
    (folder / "metadata.json").write_bytes(b"".join(layout.split_metadata(header(split, len(entries)), lines)))


def write_shard(path: Path, members: list[tuple[str, bytes]], tar_format: int = tarfile.USTAR_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tar_format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_split(root: Path, split: str, count: int, format: str = "files", *, chunk: int = layout.CHUNK) -> None:
    """Write `count` samples; `chunk` may be smaller than the real one to get several shards."""
    folder, entries = root / split, []
    shards: dict[str, list[tuple[str, bytes]]] = {}
    for name in ("images", "labels") if format == "files" else ("shards",):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        page, name = pixels(split, i), layout.stem(split, i)
        shard = layout.shard_name(split, i // chunk) if format == "webdataset" else None
        entry = sample(split, i, page, shard=shard)
        entries.append(entry)
        label = entry["text"].encode()
        if shard is None:
            (folder / "images" / f"{name}.png").write_bytes(png(page))
            (folder / "labels" / f"{name}.txt").write_bytes(label)
        else:
            members = shards.setdefault(shard, [])
            members += [
                (f"{name}.png", png(page)),
                (f"{name}.txt", label),
                (f"{name}.json", json.dumps(entry).encode()),
            ]
    for shard, members in shards.items():
        write_shard(folder / "shards" / shard, members)
    write_metadata(folder, split, entries)


def write_overall(root: Path, counts: dict[str, int], format: str = "files") -> None:
    overall = {
        "generation_config": CONFIG,
        "splits": {s: {"total_samples": n, "rejected": {"clipped": 2, "notdef": 1}} for s, n in counts.items()},
        "total_images": sum(counts.values()),
        "format": format,
        "schema_version": layout.SCHEMA_VERSION,
        "run": {"seed": 42, "versions": {"normalizer": 3}, "splits": {s: {"lines": n} for s, n in counts.items()}},
    }
    (root / "generation_metadata.json").write_text(json.dumps(overall, indent=2))


def write_tree(root: Path, counts: dict[str, int], format: str = "files", *, chunk: int = layout.CHUNK) -> Path:
    for split, count in counts.items():
        write_split(root, split, count, format, chunk=chunk)
    write_overall(root, counts, format)
    return root


def as_older_scripts_wrote_it(root: Path, split: str, **layout_options: Any) -> None:
    """Rewrite a split's metadata in another JSON layout, with only the keys every user has."""
    path = root / split / "metadata.json"
    metadata = json.loads(path.read_bytes())
    metadata.pop("schema_version")
    metadata["samples"] = [{key: entry[key] for key in layout.REQUIRED_KEYS} for entry in metadata["samples"]]
    path.write_text(json.dumps(metadata, **layout_options), encoding="utf-8")


KNOWN_HEADER = ("split", "total_samples", "augmentation_applied", "fonts_used", "image_height")


def only_known_keys(root: Path, *, with_suffix: bool = False) -> Path:
    """Leave a tree the keys that users have always known, and no other; with `filename` as it was at first if asked."""
    facts = {}
    for path in sorted(root.glob("*/metadata.json")):
        metadata = json.loads(path.read_bytes())
        facts[path.parent.name] = {key: metadata[key] for key in KNOWN_HEADER}
        samples = [{key: entry[key] for key in layout.REQUIRED_KEYS} for entry in metadata["samples"]]
        if with_suffix:
            samples = [{**entry, "filename": f"{entry['filename']}.png"} for entry in samples]
        path.write_text(json.dumps({**facts[path.parent.name], "samples": samples}, indent=2), encoding="utf-8")
    total = sum(entry["total_samples"] for entry in facts.values())
    overall = {"generation_config": CONFIG, "splits": facts, "total_images": total}
    (root / "generation_metadata.json").write_text(json.dumps(overall, indent=2), encoding="utf-8")
    return root


def edit_metadata(root: Path, split: str, i: int, **changes: object) -> None:
    """Change one sample of a split's metadata; None takes a key away."""
    path = root / split / "metadata.json"
    entries = json.loads(path.read_bytes())["samples"]
    entries[i] = {key: value for key, value in {**entries[i], **changes}.items() if value is not None}
    write_metadata(path.parent, split, entries)

"""The samples of a split from its files or shards alone, where its metadata is absent or damaged."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from khmer_ocr.dataset import images, layout, paths, shards
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.errors import DatasetError

UNKNOWN_FONT = "unknown"

OnFault = Callable[[str, DatasetError], None]


def scan(root: Path, split: str, on_fault: OnFault | None = None) -> Iterator[Sample]:
    """List the samples of a split from its files or shards alone, for a folder without metadata.

    Args:
        root: the data set's root.
        split: name of a split whose folder exists.
        on_fault: is told the file name and the fault of each unreadable sample, which is then left out; None raises.

    Yields:
        Samples in the order of their numbers, font "unknown", size from the PNG header, text from the label.

    Raises:
        DatasetError: an image or its label is missing or unreadable, or the folder has neither images nor shards.
    """
    folder, report = root / split, _raise if on_fault is None else on_fault
    if (folder / layout.IMAGES).is_dir():
        yield from _scan_files(root, split, report)
    elif (folder / layout.SHARDS).is_dir():
        for shard in _sorted_names(folder / layout.SHARDS, ".tar"):
            yield from _scan_shard(root, folder / layout.SHARDS / shard, report)
    else:
        raise DatasetError(
            f"{folder} holds neither {layout.SPLIT_METADATA} nor {layout.IMAGES}/ nor {layout.SHARDS}/. "
            f"Run: khmer-ocr generate --output-dir {root} --splits {split}"
        )


def _raise(name: str, fault: DatasetError) -> None:
    raise fault


def _scan_files(root: Path, split: str, report: OnFault) -> Iterator[Sample]:
    for name in _sorted_names(root / split / layout.IMAGES, ".png"):
        image, label = layout.image_file(root, split, name), layout.label_file(root, split, name)
        try:
            with paths.open_contained(root, image) as file:
                size = images.png_size(file.read(images.PNG_HEADER_BYTES), image)
            yield _scanned(name, image, label, size, paths.read_contained(root, label))
        except DatasetError as fault:
            report(name, fault)


def _scan_shard(root: Path, path: Path, report: OnFault) -> Iterator[Sample]:
    try:
        members = shards.tar_members(root, path)
    except DatasetError as fault:
        report(path.name, fault)
        return
    for name in (name for name in members if name.endswith(".png")):
        label_name = name.removesuffix(".png") + ".txt"
        try:
            offset, size_bytes = members[paths.safe_name(name, path)]
            head = shards.read_member(root, path, offset, min(size_bytes, images.PNG_HEADER_BYTES))
            size = images.png_size(head, path / name)
            if label_name not in members:
                raise DatasetError(f"{path} holds {name} but not its label {label_name}.")
            text = shards.read_member(root, path, *members[label_name])
            yield Sample(**_scanned(name, path, path, size, text), shard=path.name)
        except DatasetError as fault:
            report(name, fault)


def _sorted_names(folder: Path, suffix: str) -> list[str]:
    """By length first: past 999,999 a number grows a digit."""
    return sorted((e.name for e in os.scandir(folder) if e.name.endswith(suffix)), key=lambda name: (len(name), name))


def _scanned(name: str, image: Path, label: Path, size: tuple[int, int], label_bytes: bytes) -> Sample:
    return Sample(
        filename=name,
        text=images.decode_label(label_bytes, label),
        font=UNKNOWN_FONT,
        image_path=str(image),
        label_path=str(label),
        image_width=size[0],
        image_height=size[1],
    )

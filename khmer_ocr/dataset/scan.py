"""The samples of a split from its files or shards alone, where its metadata is absent or damaged.

Other people's folders are taken as they are: images of any usual format, labels in any spelling, files that systems
leave behind. What is no line is passed over and counted in a `TreeReport`; nothing is left out in silence.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from khmer_ocr.dataset import layout, paths, sample_decoding, shards
from khmer_ocr.dataset.image_io import has_ink
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.errors import DatasetError
from khmer_ocr.text.label_normalizer import LabelNormalizer, some

UNKNOWN_FONT = "unknown"
_SYSTEM_FILES = {name.lower(): name for name in (".DS_Store", "Thumbs.db", "ehthumbs.db", "desktop.ini")}
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".zip")

OnFault = Callable[[str, DatasetError], None]


def system_file(name: str) -> str | None:
    """The pattern, for `find`, of names that a file has which macOS or Windows put into a folder; None for others."""
    return "._*" if name.startswith("._") else _SYSTEM_FILES.get(name.lower())


def is_left_by_system(name: str) -> bool:
    """Whether a file or folder is one that systems leave, or is hidden."""
    return name.startswith(".") or name.lower() in (*_SYSTEM_FILES, "__macosx")


@dataclass
class TreeReport:
    """What a split holds beside lines that are taken as they are.

    Attributes:
        split: its name.
        labels: what the normal form changed in labels from outside.
        passed_over: what something is, in words, to the names of all that were passed over as such.
    """

    split: str
    labels: LabelNormalizer = field(default_factory=LabelNormalizer)
    passed_over: dict[str, list[str]] = field(default_factory=dict)

    def pass_over(self, what: str, name: str) -> None:
        """Count something that is no line."""
        self.passed_over.setdefault(what, []).append(name)

    def sentences(self) -> tuple[str, ...]:
        """All that a person should know, a sentence each."""
        said = [
            f"{self.split}: passed over {what}: {len(names):,} ({some(names)})."
            for what, names in self.passed_over.items()
        ]
        if note := self.labels.note():
            said.append(f"{self.split}: {note}")
        return tuple(said)


LEFT_BEHIND = "files that systems leave behind"
_HIDDEN_MEMBERS = "members of shards that systems leave behind"
_NO_IMAGE = "labels without an image"
_OTHER = "files of no known image format"
_FOLDERS = "links to folders"
_SAME_NAME = "images whose name, and so whose label, another image has"
_SHARDS = "shards, since images/ is there and is read"
_NO_SHARD = "files that are no shards"


def scan(
    root: Path, split: str, on_fault: OnFault | None = None, report: TreeReport | None = None, *, outside: bool = True
) -> Iterator[Sample]:
    """List the samples of a split from its files or shards alone, for a folder without metadata.

    Args:
        root: the data set's root.
        split: name of a split whose folder exists.
        on_fault: is given the file name and the fault of each sample that can't be used, which is then left out; None
            raises.
        report: takes up what is passed over and changed.
        outside: whether the labels come from outside and are to be brought to the normal form.

    Yields:
        Samples in the order of their numbers, `filename` with its suffix, font "unknown", size from the image's header,
        text from the label.

    Raises:
        DatasetError: an image or its label is missing or can't be used, or the folder has neither images nor shards.
    """
    folder = root / split
    scanned = _Scan(root, split, on_fault or _raise, report or TreeReport(split), outside)
    if (folder / layout.IMAGES).is_dir():
        yield from scanned.files()
    elif (folder / layout.SHARDS).is_dir():
        yield from scanned.shards()
    else:
        raise DatasetError(_neither(folder))


def _raise(name: str, fault: DatasetError) -> None:
    raise fault


def _neither(folder: Path) -> str:
    loose = sum(layout.is_image_name(each.name) for each in os.scandir(folder))
    said = f"{folder} holds neither {layout.SPLIT_METADATA} nor {layout.IMAGES}/ nor {layout.SHARDS}/"
    if loose:
        return f"{said}, but {loose:,} images. Move them to {folder}/{layout.IMAGES}/, their texts to labels/."
    return f"{said}; expected {layout.IMAGES}/NAME.png with {layout.LABELS}/NAME.txt, or {layout.SHARDS}/*.tar."


class _Scan:
    """One pass over a split."""

    def __init__(self, root: Path, split: str, on_fault: OnFault, report: TreeReport, outside: bool) -> None:
        self.root, self.split, self.folder = root, split, root / split
        self.on_fault, self.report, self.outside = on_fault, report, outside

    def files(self) -> Iterator[Sample]:
        """Samples of the format "files"."""
        self._pass_over_shards()
        labels, taken = set(self._files_below(layout.LABELS)), set[str]()
        orphans = set(labels)
        for name in self._image_names():
            label_name = next(
                (each for each in layout.label_names(name) if each in labels), layout.label_names(name)[0]
            )
            if label_name in taken:
                self.report.pass_over(_SAME_NAME, name)
                continue
            taken.add(label_name)
            orphans.discard(label_name)
            # Strings, since joining paths by pathlib took a third of the time.
            image, label = f"{self.folder}/{layout.IMAGES}/{name}", f"{self.folder}/{layout.LABELS}/{label_name}"
            try:
                with paths.open_contained(self.root, image) as file:
                    head = file.read(sample_decoding.PNG_HEADER_BYTES)
                size = sample_decoding.image_size(head, image, self._whole(image))
                yield self.sample(name, image, label, size, paths.read_contained(self.root, label), self._whole(image))
            except DatasetError as fault:
                self.on_fault(name, fault)
        for orphan in _in_order(orphans):
            self.report.pass_over(_NO_IMAGE, orphan)

    def _whole(self, image: str) -> Callable[[], bytes]:
        return lambda: paths.read_contained(self.root, image)

    def _image_names(self) -> list[str]:
        """Images in the order of their numbers, by names relative to images/."""
        names = list(self._files_below(layout.IMAGES))
        for name in _in_order([name for name in names if not layout.is_image_name(name)]):
            self.report.pass_over(_OTHER, f"{layout.IMAGES}/{name}")
        return _in_order([name for name in names if layout.is_image_name(name)])

    def _files_below(self, top: str) -> Iterator[str]:
        """Names of files in a folder of the split and below, relative to it; links to folders are passed over."""
        below = [""] if (self.folder / top).is_dir() else []
        while below:
            at = below.pop()
            for entry in self._entries(f"{top}/{at}"):
                if is_left_by_system(entry.name):
                    self.report.pass_over(LEFT_BEHIND, f"{top}/{at}{entry.name}")
                elif entry.is_dir(follow_symlinks=False):
                    below.append(f"{at}{entry.name}/")
                elif entry.is_symlink() and entry.is_dir():
                    self.report.pass_over(_FOLDERS, f"{top}/{at}{entry.name}")
                else:
                    yield at + entry.name

    def _entries(self, name: str) -> "list[os.DirEntry[str]]":
        """What a folder of the split holds; one that is locked is a fault of its own."""
        try:
            with os.scandir(self.folder / name) as entries:
                return list(entries)
        except OSError as fault:
            self.on_fault(name, DatasetError(f"{self.folder / name} can't be listed: {fault.strerror}."))
            return []

    def _pass_over_shards(self) -> None:
        folder = self.folder / layout.SHARDS
        for entry in self._entries(layout.SHARDS) if folder.is_dir() else ():
            if entry.name.endswith((".tar", *_COMPRESSED)) and not is_left_by_system(entry.name):
                self.report.pass_over(_SHARDS, entry.name)

    def shards(self) -> Iterator[Sample]:
        """Samples of the format "webdataset"."""
        folder = self.folder / layout.SHARDS
        for name in _in_order([entry.name for entry in self._entries(layout.SHARDS)]):
            if is_left_by_system(name):
                self.report.pass_over(LEFT_BEHIND, f"{layout.SHARDS}/{name}")
            elif name.endswith(".tar"):
                yield from self._shard(folder / name)
            elif name.lower().endswith(_COMPRESSED):
                fault = f"{folder / name} is compressed, and shards are read in place. Unpack it to a .tar first."
                self.on_fault(name, DatasetError(fault))
            elif not name.endswith((".idx", ".partial")):
                self.report.pass_over(_NO_SHARD, name)

    def _shard(self, path: Path) -> Iterator[Sample]:
        try:
            members = shards.tar_members(self.root, path)
        except DatasetError as fault:
            self.on_fault(path.name, fault)
            return
        labels = {name for name in members if name.endswith(".txt") and not _is_hidden_member(name)}
        for name in members:
            if _is_hidden_member(name):
                self.report.pass_over(_HIDDEN_MEMBERS, f"{path.name}/{name}")
            elif layout.is_image_name(name):
                labels.discard(layout.without_suffix(name) + ".txt")
                try:
                    yield self._member(path, name, members)
                except DatasetError as fault:
                    self.on_fault(name, fault)
            elif not name.endswith((".txt", ".json")):
                self.report.pass_over(_OTHER, f"{path.name}/{name}")
        for orphan in _in_order(labels):
            self.report.pass_over(_NO_IMAGE, f"{path.name}/{orphan}")

    def _member(self, path: Path, name: str, members: dict[str, tuple[int, int]]) -> Sample:
        label_name = layout.without_suffix(name) + ".txt"
        offset, size_bytes = members[paths.safe_name(name, path)]

        def whole(most_bytes: int = size_bytes) -> bytes:
            return shards.read_member(self.root, path, offset, min(size_bytes, most_bytes))

        size = sample_decoding.image_size(whole(sample_decoding.PNG_HEADER_BYTES), path / name, whole)
        if label_name not in members:
            raise DatasetError(f"{path} holds {name} but not its label {label_name}.")
        text = shards.read_member(self.root, path, *members[label_name])
        return Sample(**self.sample(name, str(path), str(path), size, text, whole), shard=path.name)

    def sample(
        self,
        name: str,
        image: str,
        label: str,
        size: tuple[int, int],
        label_bytes: bytes,
        image_bytes: Callable[[], bytes],
    ) -> Sample:
        """One sample of its parts; raises `DatasetError` where its label can't be used."""
        sample = Sample(
            filename=name,
            text=sample_decoding.decode_label(label_bytes, label, outside=self.outside),
            font=UNKNOWN_FONT,
            image_path=image,
            label_path=label,
            image_width=size[0],
            image_height=size[1],
        )
        if self.outside:
            _normalize(sample, self.report, label, image_bytes)
        return sample


def normal_samples(
    root: Path, split: str, samples: Iterator[Sample], on_fault: OnFault, report: TreeReport
) -> Iterator[Sample]:
    """Bring the texts of metadata that others wrote to the normal form.

    Args:
        root: the data set's root.
        split: name of the split.
        samples: from its metadata.
        on_fault: is given name and fault of each sample whose label can't be used, which is left out.
        report: takes up what was changed.

    Yields:
        The other samples, changed in place.
    """
    for sample in samples:
        name = layout.image_name(sample["filename"], sample["image_path"])
        image = layout.image_file(root, split, name)

        def whole(image: Path = image) -> bytes:
            return paths.read_contained(root, image)

        try:
            _normalize(sample, report, str(root / split / layout.SPLIT_METADATA), whole)
        except DatasetError as fault:
            on_fault(name, fault)
        else:
            yield sample


def _normalize(sample: Sample, report: TreeReport, label: str, image_bytes: Callable[[], bytes]) -> None:
    """Bring the label of one sample to the normal form; raises `DatasetError` where it is none of its line."""
    name = sample["filename"]
    where = label if label.endswith(".txt") else f"{label}, {name}"
    try:
        sample["text"] = report.labels.normal(sample["text"], name)
    except ValueError as fault:
        raise DatasetError(f"{where}: {fault}.") from fault
    if not sample["text"] and "shard" not in sample and has_ink(sample_decoding.decode_image(image_bytes(), name)):
        raise DatasetError(f"{where}: its label is empty, and the image has ink. Write what it says, or remove both.")


def _is_hidden_member(name: str) -> bool:
    return any(is_left_by_system(part) for part in name.split("/"))


def _in_order(names: "Iterator[str] | set[str] | list[str]") -> list[str]:
    """By length of the name without suffix first: past 999,999 a number grows a digit. Of equal ones PNG is first."""

    def key(name: str) -> tuple[int, str, bool, str]:
        stem = layout.without_suffix(name)
        return len(stem), stem, not name.lower().endswith(".png"), name

    return sorted(names, key=key)

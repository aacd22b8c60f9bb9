"""Lines to measure a reader on: a split of a stored data set, or images beside a `labels.tsv`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from khmer_ocr.dataset.index import load_index
from khmer_ocr.errors import DatasetError
from khmer_ocr.recognize.images import ImageSource

META = "meta.tsv"
_GROUPED = ("font", "source", "detail")


@dataclass(frozen=True)
class LineSet:
    """Labelled lines.

    Attributes:
        labels: image name -> text, in order.
        groups: "font", "source", ... -> image name -> value.
        image: from a name to its image.
    """

    labels: dict[str, str]
    groups: dict[str, dict[str, str]]
    image: Callable[[str], ImageSource]

    def images(self) -> Iterator[ImageSource]:
        """Every image, in order."""
        return map(self.image, self.labels)


def split_set(directory: Path, split: str, max_lines: int | None = None) -> LineSet:
    """Take a split of a stored data set.

    Args:
        directory: the data set's root.
        split: name of the split.
        max_lines: only the first so many.

    Raises:
        SplitNotFoundError: there is no such split.
        DatasetError: it is damaged or empty.
    """
    index = load_index(directory, split, max_samples=max_lines)
    if not len(index):
        raise DatasetError(f"Split {split!r} in {directory} holds no lines. Run: khmer-ocr generate")
    place_of = {index.filename(i): i for i in range(len(index))}
    labels = {name: index.text(i) for name, i in place_of.items()}
    fonts = {name: index.font(i) for name, i in place_of.items()}
    return LineSet(labels, {"font": fonts}, lambda name: index.line(place_of[name]))


def labelled_set(labels_file: Path, max_lines: int | None = None) -> LineSet:
    """Take the lines that a file of labels names; a `meta.tsv` beside it says which font and source they are of.

    Args:
        labels_file: UTF-8, a line each: image (relative to the file's folder), TAB, text.
        max_lines: only the first so many.

    Raises:
        DatasetError: the file is missing or empty, no UTF-8, names an image twice, or its `meta.tsv` has no column
            "file".
    """
    labels = dict(list(read_labels(labels_file).items())[:max_lines])
    if not labels:
        raise DatasetError(f"{labels_file} holds no line; wanted: image, TAB, text.")
    folder = labels_file.parent
    groups = _groups(folder / META, labels) if (folder / META).exists() else {}
    return LineSet(labels, groups, lambda name: folder / name)


def read_labels(path: Path) -> dict[str, str]:
    """Read a file of texts by image name: image, TAB, text; further columns are left out. See `labelled_set`."""
    labels: dict[str, str] = {}
    for row in _rows(path):
        if row[0] in labels:
            raise DatasetError(f"{path} names {row[0]!r} twice. Leave one of both out.")
        labels[row[0]] = row[1] if len(row) > 1 else ""
    return labels


def _rows(path: Path) -> list[list[str]]:
    try:
        # Not splitlines(): a text may hold U+2028 and the like.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as fault:
        raise DatasetError(f"{path} does not exist; wanted a file of labels: image, TAB, text.") from fault
    except (OSError, UnicodeDecodeError) as fault:
        raise DatasetError(f"{path} can't be read ({fault}); wanted UTF-8: image, TAB, text.") from fault
    return [line.rstrip("\r").split("\t") for line in lines if line.strip()]


def _groups(path: Path, labels: dict[str, str]) -> dict[str, dict[str, str]]:
    head, *rows = _rows(path)
    if "file" not in head:
        raise DatasetError(f"{path} has the columns {', '.join(head)}; wanted `file` among them.")
    found: dict[str, dict[str, str]] = {}
    for column in _GROUPED:
        if column in head:
            at, name_at = head.index(column), head.index("file")
            values = {row[name_at]: row[at].split(";")[0] for row in rows if len(row) > max(at, name_at)}
            found[column] = {name: value for name, value in values.items() if name in labels}
    return found

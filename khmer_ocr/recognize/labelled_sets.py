"""Lines to measure a model on: a split of a stored data set, or images beside a `labels.tsv`."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.reader import tell_unhashed
from khmer_ocr.dataset.scan import UNKNOWN_FONT
from khmer_ocr.errors import ConfigError, DatasetError, ImageError
from khmer_ocr.load.read_errors import OnError
from khmer_ocr.recognize.image_input import ImageSource, has_ink, read_grey
from khmer_ocr.recognize.label_files import (
    EXPECTED,
    ImageNames,
    LabelFile,
    LineError,
    Row,
    near_note,
    parse_label_file,
    read_lines,
)
from khmer_ocr.recognize.settings import EvaluateConfig

if TYPE_CHECKING:
    from khmer_ocr.recognize.recognizer import Recognizer

META = "meta.tsv"
_GROUPED = ("font", "source", "detail")
_SHOWN = 5
_EXPECTED = "expected images/NAME.png with labels/NAME.txt, or shards/*.tar"


@dataclass(frozen=True)
class LineSet:
    """Labelled lines.

    Attributes:
        labels: image name -> text, in order.
        groups: "font", "source", ... -> image name -> value.
        image: from a name to its image.
        left_out: what can't be used, where that was asked for: name of the image or line -> why.
        notes: what a person should know of the labels, a sentence each.
        ready_made: whether each image is its line and nothing else, so that no line is looked for on it.
    """

    labels: dict[str, str]
    groups: dict[str, dict[str, str]]
    image: Callable[[str], ImageSource]
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ready_made: bool = False

    def images(self) -> Iterator[ImageSource]:
        """Every image, in order."""
        return map(self.image, self.labels)


def open_set(directory: Path | None, config: EvaluateConfig) -> LineSet:
    """Take the lines that an evaluation is asked for.

    Args:
        directory: a data set's folder; None takes the file of labels.
        config: which lines.

    Raises:
        ConfigError: neither or both of a folder and labels.
        DatasetError: labels or the data set are missing or damaged, or no line of them can be used.
    """
    labels = config.labels
    if labels is not None and directory is None:
        if labels.is_dir():
            raise ConfigError(
                f"{labels} is a folder; give --labels the file in it, or leave --labels out for a data set"
            )
        return labelled_set(labels, config.max_lines, config.on_error)
    if directory is not None and labels is None:
        if directory.is_file():
            raise ConfigError(f"{directory} is a file; evaluate takes a data set's folder, or --labels {directory}")
        return split_set(directory, config.split, config.max_lines, config.on_error)
    raise ConfigError("evaluate takes either a data set's folder, or --labels FILE (image, TAB, text)")


def split_set(directory: Path, split: str, max_lines: int | None = None, on_error: OnError = "raise") -> LineSet:
    """Take a split of a stored data set.

    Args:
        directory: the data set's root.
        split: name of the split.
        max_lines: only the first so many.
        on_error: "raise" refuses a split of which a line can't be used; "skip" leaves such lines out.

    Raises:
        SplitNotFoundError: there is no such split.
        DatasetError: it is damaged or empty.
    """
    left_out: dict[str, str] = {}
    on_fault = (lambda name, fault: left_out.update({name: str(fault)})) if on_error == "skip" else None
    index = load_index(directory, split, max_samples=max_lines, on_fault=on_fault)
    if not len(index):
        why = [f"  {line}" for line in (*islice(left_out.values(), _SHOWN), *index.notes)]
        said = f"Split {split!r} in {directory} holds no lines that can be read"
        raise DatasetError("\n".join([f"{said}: {_EXPECTED}.", *why]))
    tell_unhashed(index)
    place_of = {index.filename(i): i for i in range(len(index))}
    labels = {name: index.text(i) for name, i in place_of.items()}
    fonts = {name: index.font(i) for name, i in place_of.items()}
    groups = {} if index.fonts == (UNKNOWN_FONT,) else {"font": fonts}
    notes = list(index.notes)
    return LineSet(labels, groups, lambda name: index.line(place_of[name]), left_out, notes, ready_made=True)


def labelled_set(labels_file: Path, max_lines: int | None = None, on_error: OnError = "raise") -> LineSet:
    """Take the lines that a file of labels names; a `meta.tsv` beside it says which font and source they are of.

    Args:
        labels_file: a line each: image (relative to the file's folder), TAB, text; see `parse_label_file`.
        max_lines: only the first so many.
        on_error: "raise" refuses a file of which a line can't be used; "skip" leaves such lines out.

    Returns:
        The lines, labels in the normal form, under the names of files that exist.

    Raises:
        DatasetError: the file is missing or no file of labels; lines of it can't be used: without TAB, image or label,
            or of an image that another line names too; or its `meta.tsv` has no column "file".
    """
    parsed = parse_label_file(labels_file)
    if max_lines is not None and len(parsed.rows) > max_lines:
        parsed.rows = parsed.rows[:max_lines]
        parsed.faults = {n: fault for n, fault in parsed.faults.items() if n < parsed.rows[-1].number}
    rows = parsed.rows
    labels, written, near = _found_labels(parsed)
    if parsed.faults and (on_error == "raise" or not labels):
        raise parsed.refusal(turned_round=not labels and _is_file(labels_file.parent, rows))
    if not labels:
        raise DatasetError(f"{labels_file} holds no line; {EXPECTED}.")
    folder = labels_file.parent
    groups = _groups(folder / META, written) if (folder / META).exists() else {}
    left_out = {f"{labels_file.name}, line {number}": str(fault) for number, fault in sorted(parsed.faults.items())}
    notes = [*parsed.notes, *filter(None, [near_note(labels_file, near)])]
    return LineSet(labels, groups, lambda name: folder / name, left_out, notes)


def _found_labels(parsed: LabelFile) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Labels by the names of images that exist, these names as written to as found, and those of them that differ.

    Rows that can't be used become faults of the file.
    """
    labels, written, line_of = dict[str, str](), dict[str, str](), dict[str, int]()
    names, rows = ImageNames(parsed.path.parent), parsed.rows
    parsed.rows = []
    for row in rows:
        try:
            name = names.find(row.name)
            if name in labels:
                raise LineError("of an image named before", f"{name!r} stands in line {line_of[name]} too")
            if not row.text and _may_have_ink(parsed.path.parent / name):
                raise LineError("without label", f"nothing behind the TAB of {name!r}, which has ink")
        except LineError as fault:
            parsed.faults[row.number] = fault
        else:
            labels[name], written[row.name], line_of[name] = row.text, name, row.number
            parsed.rows.append(row)
    return labels, written, names.near


def _is_file(folder: Path, rows: list[Row]) -> bool:
    """Whether what stands behind the first TAB is an image's name."""
    try:
        return bool(rows) and bool(rows[0].text) and (folder / rows[0].text).is_file()
    except (OSError, ValueError):  # longer than names are, or with a NUL
        return False


def _may_have_ink(path: Path) -> bool:
    try:
        return has_ink(read_grey(path))
    except ImageError:
        return True


def read_predictions(path: Path) -> dict[str, str]:
    """Read a file of texts by image name, as `evaluate --predictions` writes it; no image is looked for.

    Raises:
        DatasetError: the file is missing or no such file, or a line of it can't be used.
    """
    parsed, texts = parse_label_file(path), dict[str, str]()
    for row in parsed.rows:
        if row.name in texts:
            parsed.faults[row.number] = LineError("of an image named before", f"{row.name!r}")
        texts[row.name] = row.text
    if parsed.faults:
        raise parsed.refusal()
    return texts


def _groups(path: Path, written: dict[str, str]) -> dict[str, dict[str, str]]:
    """Groups of the images by a `meta.tsv`; `written` leads from names as the labels have them to those of files."""
    head, *rows = ([line.split("\t") for line in read_lines(path) if line.strip()]) or [[]]
    if "file" not in head:
        raise DatasetError(f"{path} has the columns {', '.join(head)}; expected `file` among them.")
    found: dict[str, dict[str, str]] = {}
    for column in _GROUPED:
        if column in head:
            at, name_at = head.index(column), head.index("file")
            values = {row[name_at]: row[at].split(";")[0] for row in rows if len(row) > max(at, name_at)}
            found[column] = {written[name]: value for name, value in values.items() if name in written}
    return found


def read_set(
    lines: LineSet,
    recognizer: "Recognizer",
    progress: bool = False,
    left_out: dict[str, str] | None = None,
    odd: dict[str, str] | None = None,
) -> dict[str, str]:
    """Read every line of a set.

    Args:
        lines: the set.
        recognizer: the model that reads.
        progress: show a progress bar.
        left_out: takes up the lines that can't be read, name -> why; None raises at the first.
        odd: takes up the images that were read but look like no single upright line, name -> what they look like.

    Returns:
        Image name -> text, in order.

    Raises:
        ImageError: an image can't be read.
        DatasetError: an image of a data set is missing or damaged.
    """
    read = dict[str, str]()
    names: deque[str] = deque()

    def sources() -> Iterator[ImageSource]:
        for name in lines.labels:
            try:
                source = lines.image(name)
            except DatasetError as fault:
                if left_out is None:
                    raise
                left_out[name] = str(fault)
                continue
            names.append(name)
            yield source

    with tqdm(total=len(lines.labels), unit="line", disable=not progress) as bar:
        for recognition in recognizer.stream(sources(), ready_made=lines.ready_made):
            bar.update()
            name = names.popleft()
            if not isinstance(recognition, ImageError):
                read[name] = recognition.text
                if odd is not None and recognition.looks_like is not None:
                    odd[name] = recognition.looks_like
            elif left_out is None:
                raise recognition
            else:
                left_out[name] = str(recognition)
    return read

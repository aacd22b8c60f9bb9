"""Files of labels as people, spreadsheets and other tools write them: image, TAB, text, a line each.

A file is looked at whole before the first image is read: its faults are counted and named at once, not after a
thousand lines were read.
"""

import codecs
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from khmer_ocr.dataset import layout
from khmer_ocr.errors import DatasetError
from khmer_ocr.text.label_normalizer import LabelNormalizer

EXPECTED = "expected UTF-8 text with one line per image: its name, a TAB, what it says"
MAX_BYTES = 1 << 30
_SHOWN_LETTERS = 40
_IMAGE_COLUMNS = {"file", "filename", "file_name", "image", "image_file", "image_path", "img", "path", "name"}
_TEXT_COLUMNS = {"text", "label", "labels", "transcription", "transcript", "words", "word", "ground_truth", "sentence"}
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_NO_IMAGE = "images that are not there"
_ALL_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class Row:
    """One line of a file of labels.

    Attributes:
        number: which line of the file, from 1.
        name: the image's name as written.
        text: its label, in the normal form.
    """

    number: int
    name: str
    text: str


class LineError(ValueError):
    """A line that can't be used.

    Attributes:
        kind: what is wrong with all lines of its kind.
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


@dataclass
class LabelFile:
    """What a file of labels holds.

    Attributes:
        path: the file.
        rows: the lines that can be used.
        faults: what is wrong with each of the others, by the number of its line.
        notes: what was read otherwise than it is written, a sentence each.
    """

    path: Path
    rows: list[Row] = field(default_factory=list)
    faults: dict[int, LineError] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def refusal(self, turned_round: bool = False) -> DatasetError:
        """Count the lines that can't be used, kind by kind, and name the first of each.

        Args:
            turned_round: whether images are named behind the TAB.
        """
        hint = "Its texts seem to stand before the TAB, where the image's name is expected. " if turned_round else ""
        total = len(self.rows) + len(self.faults)
        return DatasetError(
            f"{self.path}: {len(self.faults):,} of {total:,} lines can't be used: {'; '.join(self.fault_kinds())}. "
            f"{hint}Correct the file, or leave these lines out with --on-error skip."
        )

    def fault_kinds(self) -> list[str]:
        """A clause for each kind of fault: how many lines have it, and the first of them."""
        of_kind: dict[str, list[int]] = {}
        for number, fault in sorted(self.faults.items()):
            of_kind.setdefault(fault.kind, []).append(number)
        return [
            f"{kind}: {len(numbers):,} ({'first: ' if len(numbers) > 1 else ''}line {numbers[0]}: "
            f"{self.faults[numbers[0]]})"
            for kind, numbers in of_kind.items()
        ]


_JSON = re.compile(r'\s*(?:\[\s*)?\{\s*"')
"""How objects begin in which other tools (PaddleOCR's detection) keep boxes and texts."""


def parse_label_file(path: Path) -> LabelFile:
    """Read a file of labels whole; no image is looked for.

    The label is all that stands behind the first TAB; further TABs are white space in it. A first line that names its
    columns (`image`, TAB, `text`) is taken as such, and its columns are then found by their names. Quotes as
    spreadsheets put them around a cell are taken off.

    Args:
        path: the file: UTF-8, or UTF-16 with its mark; any line ends.

    Returns:
        Its lines, those that can't be used among the faults.

    Raises:
        DatasetError: the file is missing, no text, holds no line, or none with a TAB.
    """
    lines = read_lines(path)
    found = LabelFile(path)
    numbered = [(number, line) for number, line in _joined(lines) if line.strip()]
    if not numbered:
        raise DatasetError(f"{path} holds no line; {EXPECTED}.")
    if not any("\t" in line for _, line in numbered):
        raise DatasetError(_without_tab(path, *numbered[0]))
    name_at, text_at, columns = 0, 1, 0
    if head := _header(numbered[0][1]):
        name_at, text_at, columns = head
        found.notes.append(f"{path}, line {numbered[0][0]} was taken as the names of the columns.")
        numbered = numbered[1:]
    cells = [(number, line.split("\t")) for number, line in numbered]
    everything_quoted = all(_ALL_QUOTED.fullmatch(cell) for _, row in cells for cell in row if cell)
    intake, tabs, quoted = LabelNormalizer(), list[int](), list[int]()
    for number, row in cells:
        plain = [_unquoted(cell, everything_quoted) for cell in row]
        if plain != row:
            quoted.append(number)
        try:
            name, text = _name_and_text(plain, name_at, text_at, columns)
            if _JSON.match(text):
                raise LineError("labels that are JSON", f"expected the line's text, seen {_shown(text)}")
            if columns <= 2 and len(row) > 2:
                tabs.append(number)
            found.rows.append(Row(number, name, intake.normal(text, f"line {number}")))
        except LineError as fault:
            found.faults[number] = fault
        except ValueError as fault:
            found.faults[number] = LineError("labels of several lines", str(fault))
    found.notes += _notes(path, tabs, quoted, len(cells), intake)
    return found


def _name_and_text(row: list[str], name_at: int, text_at: int, columns: int) -> tuple[str, str]:
    """Pick the image's name and the label; a `LineError` says what is missing in the line."""
    if len(row) < 2:
        raise LineError("without TAB", f"no TAB in {_shown(row[0])}")
    if columns > 2:
        if len(row) != columns:
            raise LineError("of another number of columns", f"{len(row)}, but the first line names {columns}")
        name, text = row[name_at], row[text_at]
    elif name_at > text_at:
        name, text = row[-1], " ".join(row[:-1])
    else:
        name, text = row[0], " ".join(row[1:])
    if not name.strip():
        raise LineError("without an image's name", f"nothing before the TAB and {_shown(text)}")
    return name.strip(), text


def _notes(path: Path, tabs: list[int], quoted: list[int], total: int, intake: LabelNormalizer) -> Iterator[str]:
    if tabs:
        yield (
            f"{path}: {len(tabs):,} of {total:,} labels hold further TABs, which were taken as spaces (first: line "
            f"{tabs[0]}). If they divide columns, name these in a first line: image, TAB, text, TAB, ..."
        )
    if quoted:
        yield (
            f"{path}: {len(quoted):,} of {total:,} lines are quoted as spreadsheets do; the quotes were taken off "
            f"(first: line {quoted[0]})."
        )
    if note := intake.note():
        yield f"{path}: {note}"


def read_lines(path: Path) -> list[str]:
    """Read a text file that may have been written by any system, without its line ends.

    Raises:
        DatasetError: it is missing, locked, or neither UTF-8 nor UTF-16 with its mark.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as fault:
        raise DatasetError(f"{path} does not exist; expected a file of labels: image, TAB, text.") from fault
    except (OSError, ValueError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else fault
        raise DatasetError(f"{path} can't be read ({reason}); {EXPECTED}.") from fault
    if len(data) > MAX_BYTES:
        raise DatasetError(f"{path} is larger than {MAX_BYTES >> 30} GiB, more than any file of labels; {EXPECTED}.")
    encoding = _UTF_16.get(data[:2], "utf-8-sig")
    if encoding != "utf-16" and b"\0" in data:
        raise DatasetError(f"{path} holds NUL bytes: it is no text, or UTF-16 without its mark; {EXPECTED}.")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise DatasetError(
            f"{path} is not UTF-{16 if encoding == 'utf-16' else 8} (line {line}: {fault.reason}); {EXPECTED}. In the "
            "editor or spreadsheet: save as, encoding UTF-8."
        ) from fault
    # Not splitlines(): a label may hold U+2028 and the like.
    return re.split("\r\n|\n|\r", text)


def _without_tab(path: Path, number: int, line: str) -> str:
    """Say of a file without any TAB what it looks like."""
    begin, hint = line.lstrip()[:1], ""
    if begin in ("{", "["):
        what = "it looks like JSON"
    elif divided := re.match(r'\s*"?[^",;|\s]+"?\s*([,;|])', line):
        what, hint = f"it looks like values between {divided[1]!r}", " A spreadsheet saves them as tab-delimited text."
    elif re.match(r"\S+\.\w{2,5}\s+\S", line):
        what = "name and text seem to be divided by spaces"
    elif re.fullmatch(r"\S+\.\w{2,5}", line.strip()):
        what = "it seems to hold names without texts"
    else:
        what = "it seems to hold texts without names"
    return f"{path}, line {number}: no TAB in {_shown(line)}, nor in any line that follows: {what}; {EXPECTED}.{hint}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_LETTERS else text[:_SHOWN_LETTERS] + "...")


def _header(line: str) -> tuple[int, int, int] | None:
    """Positions of image and text and the number of columns, where a line is one of column names."""
    names = [cell.strip().strip('"').lower().replace("-", "_").replace(" ", "_") for cell in line.split("\t")]
    images = [place for place, name in enumerate(names) if name in _IMAGE_COLUMNS]
    texts = [place for place, name in enumerate(names) if name in _TEXT_COLUMNS]
    return (images[0], texts[0], len(names)) if images and texts else None


def _joined(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Number the lines from 1; a quoted cell that holds line ends is one line, as the spreadsheet meant it."""
    at = 0
    while at < len(lines):
        first, begin = at + 1, lines[at]
        at += 1
        if '\t"' in begin and begin.rpartition('\t"')[2].count('"') % 2 == 0:
            end = at
            while end < len(lines) and "\t" not in lines[end] and lines[end].count('"') % 2 == 0:
                end += 1
            if end < len(lines) and "\t" not in lines[end] and lines[end].endswith('"'):
                begin, at = "\n".join([begin, *lines[at : end + 1]]), end + 1
        yield first, begin


def _unquoted(cell: str, everything_quoted: bool) -> str:
    """Take off the quotes of a spreadsheet, which doubles those inside; quotes that are printed stay."""
    if len(cell) < 2 or not _ALL_QUOTED.fullmatch(cell):
        return cell
    inner = cell[1:-1]
    return inner.replace('""', '"') if everything_quoted or '""' in inner else cell


class ImageNames:
    """Finds the images that a file of labels names, by near names too: backslashes, letter case, composed accents.

    Args:
        folder: where the file of labels lies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Of a folder: names by their folded form, and images by that of their name without suffix.
        self._listed: dict[str, tuple[dict[str, list[str]], dict[str, list[str]]]] = {}
        self.near: dict[str, str] = {}

    def find(self, name: str) -> str:
        """Find one image.

        Args:
            name: as written.

        Returns:
            Its name relative to the folder; where that differs from `name`, `near` holds both.

        Raises:
            LineError: there is none.
        """
        try:
            if (self._folder / name).is_file():
                return name
            if (self._folder / name).is_dir():
                raise LineError(_NO_IMAGE, f"{name!r} is a folder")
            slashed = name.replace("\\", "/")
            found = self._near(slashed) or self._near(slashed, but_for_suffix=True)
        except OSError as fault:  # a name longer than file systems take, a folder that is locked
            raise LineError(_NO_IMAGE, f"{_shown(name)} can't be looked for: {fault.strerror}") from fault
        if len(found) == 1:
            self.near[name] = found[0]
            return found[0]
        likely = sorted(found)[:3] or self._near(slashed.rpartition("/")[2])
        meant = f"; did you mean {' or '.join(map(repr, likely))}?" if likely else f" in {self._folder}"
        raise LineError(_NO_IMAGE, f"{_shown(name)} does not exist{meant}")

    def _near(self, name: str, but_for_suffix: bool = False) -> list[str]:
        """Every file whose path differs from a name by letter case and composition alone, or by an image's suffix."""
        found = ["/"] if name.startswith("/") else [""]
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for place, part in enumerate(parts):
            by_stem = but_for_suffix and place == len(parts) - 1
            found = [
                f"{at}{each}/" for at in found for each in ([part] if part == ".." else self._alike(at, part, by_stem))
            ]
        return [each for path in found if (self._folder / (each := path.removesuffix("/"))).is_file()]

    def _alike(self, folder: str, part: str, by_stem: bool) -> list[str]:
        if folder not in self._listed:
            listed = self._listed[folder] = ({}, {})
            try:
                names = [each.name for each in os.scandir(self._folder / folder)]
            except (FileNotFoundError, NotADirectoryError):
                names = []
            for each in names:
                listed[0].setdefault(_folded(each), []).append(each)
                if layout.is_image_name(each):
                    listed[1].setdefault(_folded(layout.without_suffix(each)), []).append(each)
        alike = self._listed[folder][by_stem].get(_folded(part), [])
        return [part] if part in alike else alike


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def near_note(path: Path, near: dict[str, str]) -> str | None:
    """Say which images were taken for others; None where all were named as they are."""
    if not near:
        return None
    written, found = next(iter(near.items()))
    return (
        f"{path} names {len(near):,} images otherwise than they are called, which were taken all the same (first: "
        f"{written!r} for {found!r})."
    )

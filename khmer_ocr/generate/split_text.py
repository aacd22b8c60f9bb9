"""A split's text, read as a stream and checked: the lines that become samples."""

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from khmer_ocr.dataset import layout
from khmer_ocr.errors import CorpusError, SplitNotFoundError
from khmer_ocr.io.atomic import refuse_links, remove_file, remove_folder
from khmer_ocr.text.normalize import NORMALIZER_VERSION

CORPUS_STATS = "corpus_stats.json"
PLAN_LINES, PLAN_CHARS = 2048, 1 << 18
"""Most lines and characters planned at once; the shaping cache holds the runs of so many at the least."""
LONGEST_LINE_BYTES = 1 << 16
"""A line is read no further than this; what is longer is rejected as too long whatever it holds."""


@dataclass(frozen=True)
class SplitText:
    """One split's text file.

    Attributes:
        path: the file.
        split: name of the split.
        lines: lines that will be read, blank ones included.
        sha256: of those lines.
        normalised: whether `khmer-ocr corpus` wrote them, so that they are in normal form already.
        max_lines: where reading stops.
        overlong: numbers, from 0, of lines longer than LONGEST_LINE_BYTES; they read as empty.
    """

    path: Path
    split: str
    lines: int
    sha256: str
    normalised: bool
    max_lines: int | None
    overlong: frozenset[int] = field(default=frozenset(), repr=False)

    @classmethod
    def open(cls, corpus_dir: Path, split: str, max_lines: int | None) -> "SplitText":
        """Read a split's file once, to count, hash and check it.

        Raises:
            SplitNotFoundError: it does not exist.
            CorpusError: it is empty, or not UTF-8 text.
        """
        path = corpus_dir / f"{split}.txt"
        if not path.is_file():
            raise SplitNotFoundError(
                f"Split file not found: {path}. Run process_corpus.py first: khmer-ocr corpus --input <text files> "
                f"--output-dir {corpus_dir}   (or leave the split out with --splits)"
            )
        digest, whole, lines, letters, overlong = hashlib.sha256(), hashlib.sha256(), 0, False, set[int]()
        vouched, every = _vouched_sha256(corpus_dir, split), _raw_lines(path, whole.update)
        for raw, cut in islice(every, max_lines):
            digest.update(raw)
            if cut:
                overlong.add(lines)
            lines += 1
            line = _decode(path, lines, raw, cut)
            letters = letters or bool(line.strip("\ufeff \t\r\n"))
        if not letters:
            raise CorpusError(f"{path} is empty: no line of text in it. Run: khmer-ocr corpus --input <text files>")
        if vouched is not None:
            deque(every, maxlen=0)  # the rest, which `whole` is of too
        normalised = vouched == whole.hexdigest()
        return cls(path, split, lines, digest.hexdigest(), normalised, max_lines, frozenset(overlong))

    def read(self) -> Iterator[str]:
        """The lines, without their ends.

        Raises:
            CorpusError: the file is no longer what it was when it was opened.
        """
        digest = hashlib.sha256()
        for number, (raw, cut) in enumerate(islice(_raw_lines(self.path), self.lines), start=1):
            digest.update(raw)
            yield "" if cut else _decode(self.path, number, raw, cut).rstrip("\r\n")
        if digest.hexdigest() != self.sha256:
            raise CorpusError(
                f"{self.path} was changed while it was read. Leave it alone and run the same command again."
            )


def _raw_lines(path: Path, read: Callable[[bytes], object] = lambda _: None) -> Iterator[tuple[bytes, bool]]:
    """Lines with their ends, and whether they were cut: of an overlong one the beginning; `read` gets all bytes."""
    with path.open("rb") as stream:
        while raw := stream.readline(LONGEST_LINE_BYTES):
            read(raw)
            cut = rest = len(raw) == LONGEST_LINE_BYTES and not raw.endswith(b"\n")
            while rest:
                more = stream.readline(LONGEST_LINE_BYTES)
                read(more)
                rest = len(more) == LONGEST_LINE_BYTES and not more.endswith(b"\n")
            yield raw, cut


def _decode(path: Path, number: int, raw: bytes, cut: bool) -> str:
    if b"\0" in raw or raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        what = "it looks like UTF-16" if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "a NUL byte"
        raise CorpusError(
            f"{path}, line {number}: {what}; expected UTF-8 text, one line a line. "
            f"If it is UTF-16, convert it first: iconv -f UTF-16 -t UTF-8 {path.name} > fixed.txt"
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if cut and error.reason == "unexpected end of data":
            return raw[: error.start].decode("utf-8")
        raise CorpusError(
            f"{path}, line {number}: byte {raw[error.start]:#04x} at column {error.start + 1} is not UTF-8. "
            f"Convert the file first, for example: iconv -f UTF-16 -t UTF-8 {path.name} > fixed.txt"
        ) from error


def _vouched_sha256(corpus_dir: Path, split: str) -> object:
    """Of the file that corpus_stats.json says is in today's normal form; None where it says that of none."""
    stats_file = corpus_dir / CORPUS_STATS
    if not stats_file.is_file():
        return None
    try:
        stats = json.loads(stats_file.read_text(encoding="utf-8"))
        return stats["splits"][split]["sha256"] if stats["normalizer_version"] == NORMALIZER_VERSION else None
    except (ValueError, KeyError, TypeError):
        return None


def blocks(
    lines: Iterable[str], most_lines: int = PLAN_LINES, most_chars: int = PLAN_CHARS
) -> Iterator[tuple[int, list[str]]]:
    """Lines in blocks, (number of the first, lines), that end where either limit is reached."""
    block: list[str] = []
    first = chars = 0
    for line in lines:
        if block and (len(block) == most_lines or chars + len(line) > most_chars):
            yield first, block
            first, chars, block = first + len(block), 0, []
        block.append(line)
        chars += len(line)
    if block:
        yield first, block


def stored_anything(root: Path, split: str) -> bool:
    """Whether a split's folder holds anything that a run would write over."""
    return any(any(folder.iterdir()) for folder in _folders(root, split) if folder.is_dir())


def remove_split(root: Path, split: str, samples: int) -> None:
    """Remove what a run of ours stored of a split, and nothing else that may lie in its folder.

    Args:
        root: the data set's folder.
        split: name of the split.
        samples: how many the run had at most; files with higher numbers are somebody else's.
    """
    ours = re.compile(rf"(\.?){split}([_-])(\d+)\.(?:png|txt|tar|idx)(\.partial)?")

    def is_ours(name: str) -> bool:
        match = ours.fullmatch(name)
        if match is None or bool(match[1]) != bool(match[4]):
            return False
        return bool(match[1]) or int(match[3]) * (layout.CHUNK if match[2] == "-" else 1) < samples

    refuse_links(root, *_folders(root, split), root / split / layout.SPLIT_METADATA)
    for folder in _folders(root, split):
        if folder.is_dir():
            names = [entry.name for entry in folder.iterdir()]
            if all(map(is_ours, names)):
                remove_folder(root, folder)
            else:
                for name in filter(is_ours, names):
                    (folder / name).unlink()
    remove_file(root, root / split / layout.SPLIT_METADATA)
    if (root / split).is_dir() and not any((root / split).iterdir()):
        (root / split).rmdir()


def _folders(root: Path, split: str) -> list[Path]:
    return [root / split / name for name in (layout.IMAGES, layout.LABELS, layout.SHARDS)]

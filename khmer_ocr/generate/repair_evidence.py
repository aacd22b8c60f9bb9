"""What still stands of a damaged chunk: texts, hashes and images from every place that holds them.

Nothing is believed by itself. A text is right when what is drawn from it has the pixels that the metadata record or
that the stored image shows; `khmer_ocr.generate.repair` asks that of each row.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from khmer_ocr.dataset import layout, paths, sample_decoding
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.dataset.metadata import checked_sample, iter_samples
from khmer_ocr.errors import CorpusError, DatasetError, SplitNotFoundError
from khmer_ocr.generate.split_text import LONGEST_LINE_BYTES, SplitText, blocks
from khmer_ocr.text.normalize import normalize

log = logging.getLogger(__name__)
_LONGEST_RECORD_BYTES = 1 << 20


@dataclass
class Row:
    """One sample, as far as anything says what it was.

    Attributes:
        number: of the sample in its split.
        records: what metadata say of it: of the split first, of a shard's member next.
        image: stored bytes of the image, None where there are none.
        image_hash: of its pixels, None where it does not decode.
        size: width and height in px of an image that decodes.
        label: text of its label, None where there is none or it is no UTF-8.
        link: a symbolic link where a file belongs.
        spare: a text from elsewhere, which stands in for lost ones.
        drawn: the sample as it was proven to be, and its image.
        first: what was drawn from its first text, proven or not.
        why: what speaks against drawing its texts.
    """

    number: int
    records: list[Sample] = field(default_factory=list)
    image: bytes | None = None
    image_hash: str | None = None
    size: tuple[int, int] | None = None
    label: str | None = None
    link: Path | None = None
    spare: str | None = None
    drawn: tuple[Sample, bytes] | None = None
    first: tuple[Sample, bytes] | None = None
    why: str = ""

    @property
    def texts(self) -> list[str]:
        """The texts it may have, each once, the likeliest first."""
        named = [*(record["text"] for record in self.records), self.label, self.spare]
        return list(dict.fromkeys(text for text in named if text is not None and _is_line(text)))

    @property
    def recorded(self) -> list[str]:
        """Pixel hashes that metadata record, as they are written here: 16 hexadecimal digits."""
        return [f"{int(record['pixel_hash'], 16):016x}" for record in self.records if "pixel_hash" in record]

    @property
    def whole(self) -> bool:
        """Whether image, label and the split's metadata agree, so that there is nothing to do."""
        if not self.records or self.image_hash is None:
            return False
        record = self.records[0]
        return (
            self.size == (record["image_width"], record["image_height"])
            and self.label == record["text"]
            and ("pixel_hash" not in record or self.image_hash == self.recorded[0])
        )

    def see_image(self, data: bytes | None, name: str | Path) -> None:
        """Note an image as stored."""
        self.image = data
        if data is None:
            return
        try:
            pixels_HW = sample_decoding.decode_image(data, name)
        except DatasetError as fault:
            self.why = str(fault)
            return
        self.image_hash, self.size = sample_decoding.pixel_hash(pixels_HW), (pixels_HW.shape[1], pixels_HW.shape[0])

    def see_label(self, data: bytes | None, name: str | Path) -> None:
        """Note a label as stored."""
        if data is None:
            return
        try:
            self.label = sample_decoding.decode_label(data, name)
        except DatasetError as fault:
            self.why = str(fault)


def salvaged(root: Path, split: str) -> Iterator[Sample]:
    """Whole records of a split's metadata, however damaged the rest of the file is."""
    path, found = root / split / layout.SPLIT_METADATA, False
    try:
        with paths.open_contained(root, path) as file:
            for line in iter(lambda: file.readline(_LONGEST_RECORD_BYTES), b""):
                record = _record(line, path)
                if record is not None:
                    found = True
                    yield record
        if not found:
            # Another layout of JSON than ours, which has no lines: as far as it can be read.
            yield from filter(_is_usable, iter_samples(path))
    except DatasetError:
        return  # what is missing is asked for from files, labels and the corpus, and named where nothing has it


def _record(line: bytes, path: Path) -> Sample | None:
    line = line.strip().removesuffix(b",")
    if not line.startswith(b"{") or not line.endswith(b"}"):
        return None
    return record_of(line, path)


def record_of(data: bytes, path: Path) -> Sample | None:
    """A sample's JSON object, or None where the bytes are none that could be stored."""
    try:
        record = checked_sample(json.loads(data), 0, path)
    except (DatasetError, ValueError, RecursionError):
        return None
    return record if _is_usable(record) else None


def _is_usable(record: Sample) -> bool:
    """Whether a record's hash, if it has one, is a number that can be compared."""
    value: object = record.get("pixel_hash", "0")
    return isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{1,16}", value) is not None


def _is_line(text: str) -> bool:
    """Whether a text can have been a line: neither beyond what is read of one, nor with halves of characters."""
    return len(text) <= LONGEST_LINE_BYTES and not any("\ud800" <= char <= "\udfff" for char in text)


def by_number(split: str, records: Iterable[Sample]) -> dict[int, list[Sample]]:
    """Records by the number of their sample; those whose name is none of ours are of no use."""
    found: dict[int, list[Sample]] = {}
    for record in records:
        number = layout.number_of(split, record["filename"])
        if number is not None:
            found.setdefault(number, []).append(record)
    return found


class CorpusTexts:
    """The texts of a split as its corpus has them, read and planned when the first is asked for.

    Args:
        corpus_dir: where the corpus lay.
        run: what the data set records of its run; a corpus of other bytes is no evidence.
        split: name of the split.
        plan: says which lines are drawn; see `ChunkRenderer.plan`.
    """

    def __init__(
        self, corpus_dir: Path, run: Mapping[str, Any], split: str, plan: Callable[[str, int, list[str], bool], bytes]
    ) -> None:
        self._corpus_dir, self._run, self._split, self._plan = corpus_dir, run, split, plan
        self._texts: list[str] | None = None

    def texts(self) -> list[str]:
        """All of them in order; none where the corpus is not there, or is another."""
        if self._texts is None:
            self._texts = self._read()
        return self._texts

    def text(self, number: int) -> str | None:
        """Text of one sample."""
        texts = self.texts()
        return texts[number] if number < len(texts) else None

    def _read(self) -> list[str]:
        try:
            known = self._run["splits"][self._split]
            text = SplitText.open(self._corpus_dir, self._split, known["max_lines"])
            expected = known["corpus_sha256"]
        except (SplitNotFoundError, CorpusError, KeyError, TypeError, ValueError) as fault:
            log.info("the corpus of %s can't be asked: %r", self._split, fault)
            return []
        if text.sha256 != expected:
            log.warning("%s is not the text that the data set was drawn from; it is not used", text.path)
            return []
        found = list[str]()
        for first, lines in blocks(text.read()):
            reasons = self._plan(self._split, first, lines, text.normalised)
            drawn = (
                line
                for number, (line, reason) in enumerate(zip(lines, reasons, strict=True), start=first)
                if not reason and number not in text.overlong
            )
            found += drawn if text.normalised else map(normalize, drawn)
        return found

"""What still stands of a damaged chunk: texts, hashes and images from every place that holds them.

Nothing is believed by itself. A text is right when what is drawn from it has the pixels that the metadata record or
that the stored image shows; `khmer_ocr.generate.repair` asks that of each row.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
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
        stored: bytes of its image, label and JSON, by suffix; of what stands there and can't be read, none.
        intact: whether the shard it lies in is whole, and its JSON there says what the split's metadata do.
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
    records: list[Sample]
    stored: dict[str, bytes] = field(default_factory=dict)
    intact: bool = True
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
        """Whether image, label and metadata agree, so that there is nothing to do."""
        if not self.records or self.image_hash is None:
            return False
        record = self.records[0]
        return (
            self.intact
            and self.size == (record["image_width"], record["image_height"])
            and self.label == record["text"]
            and ("pixel_hash" not in record or self.image_hash == self.recorded[0])
        )

    def decode(self, image: str | Path, label: str | Path) -> None:
        """Note what the stored bytes hold; the paths are for messages."""
        try:
            if "png" in self.stored:
                pixels_HW = sample_decoding.decode_image(self.stored["png"], image)
                self.image_hash = sample_decoding.pixel_hash(pixels_HW)
                self.size = pixels_HW.shape[1], pixels_HW.shape[0]
        except DatasetError as fault:
            self.why = str(fault)
        try:
            if "txt" in self.stored:
                self.label = sample_decoding.decode_label(self.stored["txt"], label)
        except DatasetError as fault:
            self.why = str(fault)


def salvaged(root: Path, split: str) -> dict[int, list[Sample]]:
    """Whole records of a split's metadata, however damaged the rest of the file is, by the number of their sample."""
    path, found = root / split / layout.SPLIT_METADATA, dict[int, list[Sample]]()

    def note(record: Sample | None) -> None:
        number = None if record is None else layout.number_of(split, record["filename"])
        if record is not None and number is not None:
            found.setdefault(number, []).append(record)

    try:
        with paths.open_contained(root, path) as file:
            for line in iter(lambda: file.readline(_LONGEST_RECORD_BYTES), b""):
                note(record_of(line.strip().removesuffix(b","), path))
        if not found:
            # Another layout of JSON than ours, which has no lines: as far as it can be read.
            for record in filter(_is_usable, iter_samples(path)):
                note(record)
    except DatasetError as fault:
        log.debug("%s", fault)  # what is missing is looked for in files, labels and the corpus
    return found


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


def corpus_texts(
    corpus_dir: Path, run: Mapping[str, Any], split: str, plan: Callable[[str, int, list[str], bool], bytes]
) -> list[str]:
    """The texts of a split as its corpus has them.

    Args:
        corpus_dir: where the corpus lay.
        run: what the data set records of its run; a corpus of other bytes is no evidence.
        split: name of the split.
        plan: says which lines are drawn; see `ChunkRenderer.plan`.

    Returns:
        All of them in order; none where the corpus is not there, or is another.
    """
    try:
        known = run["splits"][split]
        text = SplitText.open(corpus_dir, split, known["max_lines"])
        expected = known["corpus_sha256"]
    except (SplitNotFoundError, CorpusError, KeyError, TypeError, ValueError) as fault:
        log.info("the corpus of %s can't be used: %r", split, fault)
        return []
    if text.sha256 != expected:
        log.warning("%s is not the text that the data set was drawn from; it is not used", text.path)
        return []
    found = list[str]()
    for first, lines in blocks(text.read()):
        reasons = plan(split, first, lines, text.normalised)
        numbered = enumerate(zip(lines, reasons, strict=True), start=first)
        drawn = (line for number, (line, reason) in numbered if not reason and number not in text.overlong)
        found += drawn if text.normalised else map(normalize, drawn)
    return found

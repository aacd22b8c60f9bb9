"""Samples drawn again and believed only where something that is stored shows the same pixels."""

import logging
from collections.abc import Sequence

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.errors import KhmerOcrError
from khmer_ocr.generate.chunk_renderer import ChunkRenderer
from khmer_ocr.generate.repair_evidence import Row

log = logging.getLogger(__name__)
_STAND_IN = "\u1780"
"""Drawn in place of a text that can't be, so that its neighbours keep their numbers."""


class Redrawer:
    """Draws chunks of one split and compares.

    Args:
        renderer: set up as the data set says it was drawn.
        split: name of the split.

    Attributes:
        proven: samples that were drawn with the pixels that are recorded or stored.
        contradicted: samples whose image decodes and is not what any of their texts gives.
    """

    def __init__(self, renderer: ChunkRenderer, split: str) -> None:
        self._renderer, self._split = renderer, split
        self.proven = self.contradicted = 0

    def prove(self, chunk: int, rows: Sequence[Row]) -> None:
        """Draw the samples of a chunk from each text they may have, and note which are proven.

        A sample that has lost its image and every record of its pixels is taken as drawn where all others of its split
        that can speak agree with what is drawn: nothing stands there that it could replace.

        Args:
            chunk: number of the chunk.
            rows: all its samples, in order.
        """
        for attempt in range(max((len(row.texts) for row in rows), default=0)):
            unproven = [row for row in rows if row.drawn is None and len(row.texts) > attempt]
            if not unproven:
                break
            texts = [_text(row, attempt) for row in rows]
            for row, made in zip(rows, self._draw(chunk, texts), strict=True):
                if attempt == 0:
                    row.first = made
                if row.drawn is not None or made is None or attempt >= len(row.texts):
                    continue
                if made[0]["pixel_hash"] in (*row.recorded, row.image_hash):
                    row.drawn = made
        self.proven += sum(row.drawn is not None for row in rows)
        other = (row.drawn is None and row.image_hash is not None and row.first is not None for row in rows)
        self.contradicted += sum(other)
        for row in rows:
            alone = row.drawn is None and "png" not in row.stored and not row.recorded and row.link is None
            if alone and self.proven and not self.contradicted:
                row.drawn = row.first
            if row.drawn is None or row.link is not None:
                row.why = _why(row)

    def _draw(self, chunk: int, texts: Sequence[str | None]) -> list[tuple[Sample, bytes] | None]:
        first = chunk * layout.CHUNK
        lines = [text or _STAND_IN for text in texts]
        rejected = self._renderer.plan(self._split, first, lines, True)
        lines = [_STAND_IN if reason else line for line, reason in zip(lines, rejected, strict=True)]
        try:
            samples, images = self._renderer.drawn(self._split, chunk, lines)
        except (KhmerOcrError, AssertionError) as fault:
            # The renderer asserts that no ink is cut off, which wrong measurements of a font can bring about.
            log.warning("%s, chunk %d can't be drawn: %s", self._split, chunk, fault)
            return [None] * len(lines)
        return [
            made if text and not reason else None
            for made, text, reason in zip(zip(samples, images, strict=True), texts, rejected, strict=True)
        ]


def _text(row: Row, attempt: int) -> str | None:
    if row.drawn is not None:
        return row.drawn[0]["text"]
    return row.texts[min(attempt, len(row.texts) - 1)] if row.texts else None


def _why(row: Row) -> str:
    if row.link is not None:
        return f"{row.link.name} is a symbolic link, through which nothing is written"
    if not row.texts:
        return row.why or "neither metadata nor a label says its text"
    if row.first is None:
        return "its text can't be drawn with these fonts and settings"
    seen = row.first[0]["pixel_hash"]
    if row.recorded:
        return f"drawn from {row.texts[0]!r} it has other pixels (hash {seen}) than recorded ({row.recorded[0]})"
    if row.image_hash is not None:
        return f"drawn from {row.texts[0]!r} it has other pixels (hash {seen}) than its image ({row.image_hash})"
    return f"no record of its pixels is left to compare with{': ' + row.why if row.why else ''}"

"""HarfBuzz shaping in font units: text to glyphs of one face and its fallbacks.

Script, language and direction are always set by hand, per run: guessing takes the script of a line's first strong
character and breaks the Khmer of a line that begins with Latin.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import uharfbuzz as hb

from khmer_ocr.errors import FontError
from khmer_ocr.fonts.discovery import FontFace

EM16 = 1 << 16
"""Positions are stored in 1/65536 em, so that a face and its fallbacks of other units share one scale."""

LEAST_WIDTH_EM16 = EM16 // 32
"""A character that moves the pen by less has no width of its own. The least of 92 faces is an apostrophe's 0.127 em."""

KHMER = "\u1780-\u17ff\u19e0-\u19ff\u200c"
_RUN = re.compile(f"[{KHMER}](?:[{KHMER} ]*)|[^{KHMER}]+")
_WORD = re.compile(" +|[^ ]+")
_SCRIPTS = {"LATIN": ("Latn", "en"), "GREEK": ("Grek", "el"), "CYRILLIC": ("Cyrl", "ru")}
KHMER_SCRIPT = ("Khmr", "km")


class Glyph(NamedTuple):
    """A shaped glyph in the font units of `font` (0 the face itself, 1.. its fallbacks)."""

    font: int
    gid: int
    cluster: int
    x_offset: int
    y_offset: int
    advance: int


def script_runs(text: str) -> Iterator[tuple[int, str]]:
    """Cut a line where its script changes: (start, run); spaces go with the Khmer before them."""
    for match in _RUN.finditer(text):
        yield match.start(), match.group()


def script_of(run: str) -> tuple[str, str]:
    """OpenType script and language of a run; digits and punctuation alone are Khmer's, as in running Khmer text."""
    for character in run:
        if "\u1780" <= character <= "\u19ff":
            return KHMER_SCRIPT
        if character.isalpha():
            return _SCRIPTS.get(unicodedata.name(character, "LATIN").split()[0], _SCRIPTS["LATIN"])
    return KHMER_SCRIPT


class Shaper:
    """One face opened in HarfBuzz, with its fallback fonts.

    Args:
        face: the face to open.

    Raises:
        FontError: a file can't be opened.
    """

    def __init__(self, face: FontFace) -> None:
        self.face = face
        self.fonts: list[hb.Font] = []
        for file in face.files:
            try:
                font = hb.Font(hb.Face(hb.Blob.from_file_path(str(file)), face.number if not self.fonts else 0))
            except (hb.HarfBuzzError, OSError) as error:
                raise FontError(f"{file} can't be opened ({error}). Install it again or leave it out.") from error
            if face.variations and not self.fonts:
                font.set_variations(dict(face.variations))
            self.fonts.append(font)
        self.upem = [font.face.upem for font in self.fonts]
        self.glyph_count = [font.face.glyph_count for font in self.fonts]
        self._cmaps = [frozenset(font.face.unicodes) for font in self.fonts]
        self._coeng = [font.get_nominal_glyph(0x17D2) for font in self.fonts]
        self._boxes: list[dict[int, tuple[int, int] | None]] = [{} for _ in self.fonts]
        self._buffer = hb.Buffer()

    def shape(self, run: str, font: int = 0) -> list[Glyph]:
        """Shape one script run with one font of the chain.

        Args:
            run: text of a single script.
            font: place in the chain.

        Returns:
            Glyphs in drawing order, clusters counted in code points from the start of the run.
        """
        buffer = self._buffer
        buffer.reset()
        buffer.add_str(run)
        buffer.direction = "ltr"
        buffer.script, buffer.language = script_of(run)
        hb.shape(self.fonts[font], buffer)
        make = tuple.__new__  # a third of the time of Glyph(...), and there are ten to a syllable
        return [
            make(Glyph, (font, info.codepoint, info.cluster, place.x_offset, place.y_offset, place.x_advance))
            for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True)
        ]

    def shape_with_fallback(self, run: str) -> list[Glyph]:
        """Shape one script run, words missing in the face with its fallbacks; `.notdef` (gid 0) for what none has."""
        glyphs = self.shape(run)
        if len(self.fonts) == 1 or all(glyph.gid for glyph in glyphs):
            return glyphs
        spans = list(self._font_spans(run))
        if [font for font, _, _ in spans] == [0]:
            return glyphs
        return [
            glyph._replace(cluster=glyph.cluster + start)
            for font, start, part in spans
            for glyph in self.shape(part, font)
        ]

    def _font_spans(self, run: str) -> Iterator[tuple[int, int, str]]:
        """(font, start, text) of words and what lies between; neighbours that take the same font stay together."""
        start, current = 0, 0
        for position, font in self._choices(run):
            if font != current and position > start:
                yield current, start, run[start:position]
                start = position
            current = font
        yield current, start, run[start:]

    def _choices(self, run: str) -> Iterator[tuple[int, int]]:
        """Font of each part: of a whole word the first that has it all, so that words do not depend on each other."""
        for match in _WORD.finditer(run):
            word = match.group()
            codes = {ord(character) for character in word}
            whole = next((font for font, cmap in enumerate(self._cmaps) if codes <= cmap), None)
            if whole is not None:
                yield match.start(), whole
                continue
            current = 0
            for position, character in enumerate(word, match.start()):
                fonts = [font for font, cmap in enumerate(self._cmaps) if ord(character) in cmap]
                stays = current in fonts or unicodedata.combining(character) or "\u17b6" <= character <= "\u17dd"
                current = current if stays else (fonts[0] if fonts else 0)
                yield position, current

    def extents(self, glyph: Glyph) -> tuple[int, int, int, int] | None:
        """Exact ink box of a glyph in font units (left, bottom, right, top), None without ink."""
        box = self.fonts[glyph.font].get_glyph_extents(glyph.gid)
        if box is None or not (box.width and box.height):
            return None
        return box.x_bearing, box.y_bearing + box.height, box.x_bearing + box.width, box.y_bearing

    def boxes_em16(self, font: int, gid: int) -> tuple[int, int] | None:
        """Bottom and top of a glyph's ink in 1/65536 em, None without ink; kept, for every run asks."""
        known = self._boxes[font]
        if gid in known:
            return known[gid]
        box, upem = self.extents(Glyph(font, gid, 0, 0, 0, 0)), self.upem[font]
        known[gid] = None if box is None else (to_em16(box[1], upem), to_em16(box[3], upem))
        return known[gid]

    def is_visible_coeng(self, font: int, gid: int) -> bool:
        """Whether a glyph is the bare sign U+17D2 with ink: shaping found no subscript form."""
        return gid == self._coeng[font] and self.boxes_em16(font, gid) is not None

    def missing_characters(self, text: str) -> str:
        """Characters that no font of the chain has a glyph for (before shaping)."""
        return "".join(character for character in text if not any(ord(character) in cmap for cmap in self._cmaps))


def undrawn(shaper: Shaper, segment: str, glyphs: Sequence[Glyph]) -> list[str]:
    """Clusters of a segment that its glyphs do not show as they should; spaces and ZWNJ need no ink.

    Three ways a font fails without a word: `.notdef`; a glyph without an outline where there should be ink; and a coeng
    that the font could not stack and draws as the sign itself.

    Args:
        shaper: what shaped the segment.
        segment: the text that was shaped.
        glyphs: what came of it.

    Returns:
        The clusters in order, none where all is well.
    """
    starts, inked, failed = set[int](), set[int](), set[int]()
    for font, gid, cluster, _, _, _ in glyphs:
        starts.add(cluster)
        if gid == 0 or shaper.is_visible_coeng(font, gid):
            failed.add(cluster)
        elif shaper.boxes_em16(font, gid) is not None:
            inked.add(cluster)
    if not failed and len(starts) == len(inked):
        return []
    ordered = sorted(starts)
    lost = (
        segment[start:end].replace(" ", "").replace("\u200c", "")
        for start, end in zip(ordered, [*ordered[1:], len(segment)], strict=True)
        if start in failed or start not in inked
    )
    return [cluster for cluster in lost if cluster]


def takes_room(code: int) -> bool:
    """Whether a character must move the pen: all do but combining marks and ZWNJ."""
    if 0x17B4 <= code <= 0x17D3 or code == 0x17DD or code == 0x200C:
        return False
    return not (
        0x0300 <= code <= 0x036F
        or 0x0483 <= code <= 0x0489
        or 0x1AB0 <= code <= 0x1AFF
        or 0x1DC0 <= code <= 0x1DFF
        or 0x20D0 <= code <= 0x20FF
        or 0xFE20 <= code <= 0xFE2F
    )


def without_width(shaper: Shaper, segment: str, glyphs: Sequence[Glyph]) -> set[str]:
    """Characters of a segment that begin a cluster and have no width, spaces included.

    Args:
        shaper: what shaped the segment.
        segment: the text that was shaped.
        glyphs: what came of it.
    """
    width_em16: dict[int, int] = {}
    for font, gid, cluster, _, _, advance in glyphs:
        # The width of a `.notdef` says nothing: the character is missing, which is worse.
        width = to_em16(advance, shaper.upem[font]) if gid else EM16
        width_em16[cluster] = width_em16.get(cluster, 0) + width
    return {
        segment[start]
        for start, width in width_em16.items()
        if width < LEAST_WIDTH_EM16 and takes_room(ord(segment[start])) and segment[max(start - 1, 0)] != "\u17d2"
    }


def to_em16(value_fu: int, upem: int) -> int:
    """Font units to 1/65536 em, rounded half up."""
    return (2 * value_fu * EM16 + upem) // (2 * upem)

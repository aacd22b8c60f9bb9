"""HarfBuzz shaping in font units: text to glyphs of one face and its fallbacks.

Script, language and direction are always set by hand, per run: guessing takes the script of a line's first strong
character and breaks the Khmer of a line that begins with Latin.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import uharfbuzz as hb

from khmer_ocr.errors import FontError
from khmer_ocr.render.fonts import FontFace

EM16 = 1 << 16
"""Positions are stored in 1/65536 em, so that a face and its fallbacks of other units share one scale."""

KHMER = "\u1780-\u17ff\u19e0-\u19ff\u200c"
_RUN = re.compile(f"[{KHMER}](?:[{KHMER} ]*)|[^{KHMER}]+")
_SCRIPTS = {"LATIN": ("Latn", "en"), "GREEK": ("Grek", "el"), "CYRILLIC": ("Cyrl", "ru")}
KHMER_SCRIPT = ("Khmr", "km")


@dataclass(frozen=True, slots=True)
class Glyph:
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
        self._extents: list[dict[int, tuple[int, int, int, int] | None]] = [{} for _ in self.fonts]
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
        return [
            Glyph(font, info.codepoint, info.cluster, place.x_offset, place.y_offset, place.x_advance)
            for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True)
        ]

    def shape_with_fallback(self, run: str) -> list[Glyph]:
        """Shape one script run, taking pieces the face lacks from its fallbacks; `.notdef` (gid 0) where all lack them."""
        glyphs = self.shape(run)
        if len(self.fonts) == 1 or all(glyph.gid for glyph in glyphs):
            return glyphs
        pieces = list(self._pieces(run))
        if [font for font, _, _ in pieces] == [0]:
            return glyphs
        return [
            Glyph(glyph.font, glyph.gid, glyph.cluster + start, glyph.x_offset, glyph.y_offset, glyph.advance)
            for font, start, piece in pieces
            for glyph in self.shape(piece, font)
        ]

    def _pieces(self, run: str) -> Iterator[tuple[int, int, str]]:
        """(font, start, piece): whole run in one font if one has it all, else the first font that has each character."""
        characters = {ord(character) for character in run}
        for font, cmap in enumerate(self._cmaps):
            if characters <= cmap:
                yield font, 0, run
                return
        start, current = 0, 0
        for position, character in enumerate(run):
            fonts = [font for font, cmap in enumerate(self._cmaps) if ord(character) in cmap]
            stays = current in fonts or unicodedata.combining(character) or "\u17b6" <= character <= "\u17dd"
            chosen = current if stays else (fonts[0] if fonts else 0)
            if chosen != current and position > start:
                yield current, start, run[start:position]
                start = position
            current = chosen
        yield current, start, run[start:]

    def extents(self, glyph: Glyph) -> tuple[int, int, int, int] | None:
        """Exact ink box of a glyph in font units (left, bottom, right, top), None without ink."""
        known = self._extents[glyph.font]
        if glyph.gid not in known:
            box = self.fonts[glyph.font].get_glyph_extents(glyph.gid)
            empty = box is None or not (box.width and box.height)
            known[glyph.gid] = (
                None
                if empty
                else (box.x_bearing, box.y_bearing + box.height, box.x_bearing + box.width, box.y_bearing)
            )
        return known[glyph.gid]

    def is_visible_coeng(self, glyph: Glyph) -> bool:
        """Whether a glyph is the bare sign U+17D2 with ink: shaping found no subscript form."""
        return glyph.gid == self._coeng[glyph.font] and self.extents(glyph) is not None

    def has(self, text: str) -> bool:
        """Whether every character has a glyph somewhere in the chain (before shaping)."""
        return all(any(ord(character) in cmap for cmap in self._cmaps) for character in text)

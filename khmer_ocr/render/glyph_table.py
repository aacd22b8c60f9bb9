"""What the shaping cache knows of glyphs: their numbers over all fonts, units per em, ink above the baseline.

Letters: O fonts of all chains, N glyphs of all fonts, G shaped glyphs, P segments, C code points.
"""

from collections.abc import Sequence

import numpy as np
from khmer_ocr_kernels.arrays import I32, I64, U32
from khmer_ocr_kernels.jit import compiled

from khmer_ocr.render.shaping import LEAST_WIDTH_EM16, Shaper, takes_room, to_em16
from khmer_ocr.text.letters import COENG

NO_INK = -(1 << 29)
BROKEN, MISSING, OVERDRAWN = 1, 2, 4
"""Flags of a segment: it shapes to a dotted circle; it has a character that no font of the chain draws, or one
that does not widen the line; a glyph is drawn over its like, so that a sign of the label has no ink of its own."""
# Two glyphs of one number nearer than this are one to the eye. Over 7,000 words and runs in 60 faces such pairs lie
# within 0.024 em of each other or further apart than 0.1.
_SAME_PLACE_EM16 = 1 << 11
_UNKNOWN, _BLANK, _INKED, _BARE_COENG = 0, 1, 2, 3
_SPACE, _ZWNJ = 0x20, 0x200C
_COENG = ord(COENG)
_to_em16 = compiled(to_em16)
_takes_room = compiled(takes_room)


class GlyphTable:
    """Numbers every glyph of every font and keeps what of it is asked again and again.

    Attributes:
        base: per face, per font of its chain, the number of its glyph 0.
        first_font_F: per face, its first font.
        base_O: the same as `base`, by font.
        upem_O: units per em.
        box_N3: rows (kind, bottom, top) in 1/65536 em, filled when a glyph first comes up.

    Args:
        shapers: one per face.
    """

    def __init__(self, shapers: Sequence[Shaper]) -> None:
        self._shapers = shapers
        ends = np.cumsum([0, *(count for shaper in shapers for count in shaper.glyph_count)])
        chains = [len(shaper.fonts) for shaper in shapers]
        self.first_font_F = np.cumsum([0, *chains])[:-1]
        self.base = [
            ends[first : first + chain].tolist() for first, chain in zip(self.first_font_F, chains, strict=True)
        ]
        self.base_O = ends[:-1].astype(np.int64)
        self.upem_O = np.array([upem for shaper in shapers for upem in shaper.upem], np.int64)
        self._owner_O = [(shaper, font) for shaper in shapers for font in range(len(shaper.fonts))]
        self.box_N3 = np.zeros((int(ends[-1]), 3), np.int32)

    def know(self, number_G: I64) -> None:
        """Fill in the boxes of glyphs that have not come up before."""
        unknown = np.unique(number_G[self.box_N3[number_G, 0] == _UNKNOWN])
        fonts = np.searchsorted(self.base_O, unknown, side="right") - 1
        for number, at in zip(unknown.tolist(), fonts.tolist(), strict=True):
            shaper, font = self._owner_O[at]
            gid = number - int(self.base_O[at])
            box = shaper.boxes_em16(font, gid)
            if box is None:
                self.box_N3[number] = _BLANK, 0, 0
            else:
                self.box_N3[number] = _BARE_COENG if shaper.is_visible_coeng(font, gid) else _INKED, *box


@compiled
def lay_out_segments(
    shaped_G6: I64,
    font_G: I64,
    glyph_offsets_P1: I64,
    codes_C: U32,
    code_span_P2: I64,
    base_O: I64,
    upem_O: I64,
    box_N3: I32,
    glyph_G: I32,
    place_G2: I32,
    measures_P5: I32,
) -> int:
    """Lay out shaped segments in 1/65536 em.

    Args:
        shaped_G6: int64 rows of `shape.Glyph`.
        font_G: number of each glyph's font over all chains.
        glyph_offsets_P1: glyphs of segment p are rows glyph_offsets_P1[p] to glyph_offsets_P1[p + 1].
        codes_C: code points of all lines.
        code_span_P2: begin and end of each segment in `codes_C`.
        base_O: from `GlyphTable`.
        upem_O: from `GlyphTable`.
        box_N3: from `GlyphTable`, known for all these glyphs.
        glyph_G: filled with the numbers of inked glyphs.
        place_G2: filled with their pens (x, y).
        measures_P5: filled with (inked glyphs, advance, ascent, descent, flags MISSING and OVERDRAWN) of each segment.

    Returns:
        Number of inked glyphs.
    """
    n = 0
    for p in range(len(measures_P5)):
        first, pen, ascent, descent = n, np.int64(0), np.int64(NO_INK), np.int64(NO_INK)
        flags, begin, end = 0, glyph_offsets_P1[p], glyph_offsets_P1[p + 1]
        failed, cluster_n, cluster_pen = False, n, pen
        for g in range(begin, end):
            upem = upem_O[font_G[g]]
            number = base_O[font_G[g]] + shaped_G6[g, 1]
            kind = box_N3[number, 0]
            failed |= shaped_G6[g, 1] == 0 or kind == _BARE_COENG
            if kind != _BLANK:
                x, y = pen + _to_em16(shaped_G6[g, 3], upem), _to_em16(shaped_G6[g, 4], upem)
                ascent, descent = max(ascent, y + box_N3[number, 2]), max(descent, -y - box_N3[number, 1])
                glyph_G[n] = number
                place_G2[n, 0], place_G2[n, 1] = x, y
                for k in range(cluster_n, n):
                    if glyph_G[k] == number and abs(place_G2[k, 0] - x) + abs(place_G2[k, 1] - y) < _SAME_PLACE_EM16:
                        flags |= OVERDRAWN
                n += 1
            pen += _to_em16(shaped_G6[g, 5], upem)
            if g + 1 == end or shaped_G6[g + 1, 2] != shaped_G6[g, 2]:
                start = code_span_P2[p, 0] + shaped_G6[g, 2]
                if failed or n == cluster_n:
                    after = code_span_P2[p, 1] if g + 1 == end else code_span_P2[p, 0] + shaped_G6[g + 1, 2]
                    for c in range(start, after):
                        if codes_C[c] != _SPACE and codes_C[c] != _ZWNJ:
                            flags |= MISSING
                # A subscript is a letter too, but stands below the one before its coeng.
                below = start > code_span_P2[p, 0] and codes_C[start - 1] == _COENG
                if pen - cluster_pen < LEAST_WIDTH_EM16 and not below and _takes_room(codes_C[start]):
                    flags |= MISSING
                failed, cluster_n, cluster_pen = False, n, pen
        measures_P5[p, 0], measures_P5[p, 1] = n - first, pen
        measures_P5[p, 2], measures_P5[p, 3], measures_P5[p, 4] = ascent, descent, flags
    return n

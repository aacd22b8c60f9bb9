"""Segments of text that shape alike wherever they stand, shaped once per face and kept in flat arrays.

A segment is an orthographic syllable, a word or a whole script run, whichever the face was measured to need
(`FaceMetrics.unit`). Looking a batch of lines up is one compiled pass over their code points; only segments never seen
before reach HarfBuzz. Everything is allocated once, so memory does not grow with the corpus; a full cache is emptied.

Letters: L lines, C code points, T segments of all lines, P new segments, R shaped runs kept, G glyphs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from khmer_ocr_kernels.arrays import I32, I64, U8, U32, U64
from khmer_ocr_kernels.jit import compiled

from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.render.glyph_table import BROKEN, MISSING, NO_INK, GlyphTable, lay_out_segments
from khmer_ocr.render.segments import begins
from khmer_ocr.render.shaping import Shaper
from khmer_ocr.text.syllables import is_well_formed


@dataclass(frozen=True, slots=True)
class ShapedLines:
    """Lines as shaped runs: `runs_T[offsets_L1[i]:offsets_L1[i + 1]]` are those of line i, in a cache's arrays.

    They are right until the cache is emptied once more than `cleared` times.
    """

    runs_T: I32
    offsets_L1: I64
    cleared: int

    def take(self, line_L: I64) -> "ShapedLines":
        """These lines in this order."""
        count_L = np.diff(self.offsets_L1)[line_L]
        ends_L = np.cumsum(count_L)
        from_T = np.repeat(self.offsets_L1[line_L] - ends_L + count_L, count_L) + np.arange(count_L.sum())
        return ShapedLines(self.runs_T[from_T], np.append(0, ends_L), self.cleared)


def joined(batches: Sequence[ShapedLines]) -> ShapedLines:
    """The lines of several look-ups behind each other; right only if the cache was not emptied between them."""
    begins_B = np.cumsum([0, *(len(batch.runs_T) for batch in batches)])
    offsets = [begin + batch.offsets_L1[:-1] for begin, batch in zip(begins_B, batches, strict=False)]
    cleared = min((batch.cleared for batch in batches), default=0)
    runs_T = np.concatenate([np.zeros(0, np.int32), *(batch.runs_T for batch in batches)])
    return ShapedLines(runs_T, np.concatenate([*offsets, begins_B[-1:]]), cleared)


@dataclass(frozen=True, slots=True)
class LineExtents:
    """What lines measure in given faces, in 1/65536 em, before anything is drawn, and the flags of their runs."""

    advance_L: I64
    ascent_L: I64
    descent_L: I64
    flags_L: U8


@compiled
def _summarise(
    runs_T: I32, offsets_L1: I64, advance_R: I32, ascent_R: I32, descent_R: I32, flags_R: U8
) -> tuple[I64, I64, I64, U8]:
    lines = len(offsets_L1) - 1
    advance_L = np.zeros(lines, np.int64)
    ascent_L, descent_L = np.full(lines, NO_INK, np.int64), np.full(lines, NO_INK, np.int64)
    flags_L = np.zeros(lines, np.uint8)
    for line in range(lines):
        for t in range(offsets_L1[line], offsets_L1[line + 1]):
            run = runs_T[t]
            advance_L[line] += advance_R[run]
            ascent_L[line] = max(ascent_L[line], ascent_R[run])
            descent_L[line] = max(descent_L[line], descent_R[run])
            flags_L[line] |= flags_R[run]
    return advance_L, ascent_L, descent_L, flags_L


@compiled
def _look_up(
    codes_C: U32,
    line_offsets_L1: I64,
    face_L: I32,
    unit_F: I32,
    slots_S: I32,
    hash_R: U64,
    span_R3: I32,
    kept_codes: U32,
    runs_T: I32,
    where_T4: I64,
    hash_T: U64,
    out_offsets_L1: I64,
) -> int:
    """Cut lines into segments and find each; runs_T is -1 where one is missing. Returns how many are."""
    mask = np.uint64(len(slots_S) - 1)
    n, missing = 0, 0
    for line in range(len(face_L)):
        out_offsets_L1[line] = n
        face = face_L[line]
        unit = unit_F[face]
        start, end = line_offsets_L1[line], line_offsets_L1[line + 1]
        while start < end:
            stop = start + 1
            hashed = (np.uint64(face) + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
            hashed = (hashed ^ np.uint64(codes_C[start])) * np.uint64(0x100000001B3)
            while stop < end and not begins(codes_C[start], codes_C[stop - 1], codes_C[stop], unit):
                hashed = (hashed ^ np.uint64(codes_C[stop])) * np.uint64(0x100000001B3)
                stop += 1
            hashed ^= hashed >> np.uint64(29)
            found = -1
            slot = hashed & mask
            while slots_S[slot] >= 0:
                run = slots_S[slot]
                if hash_R[run] == hashed and span_R3[run, 2] == face and span_R3[run, 1] == stop - start:
                    same = True
                    for k in range(stop - start):
                        if kept_codes[span_R3[run, 0] + k] != codes_C[start + k]:
                            same = False
                            break
                    if same:
                        found = run
                        break
                slot = (slot + np.uint64(1)) & mask
            runs_T[n] = found
            if found < 0:
                where_T4[missing, 0], where_T4[missing, 1] = n, face
                where_T4[missing, 2], where_T4[missing, 3] = start, stop
                hash_T[missing] = hashed
                missing += 1
            n += 1
            start = stop
    out_offsets_L1[len(face_L)] = n
    return missing


@compiled
def _keep(
    codes_C: U32, segment_P4: I64, hash_P: U64, first: int, kept_codes: U32, n_codes: int, span_R3: I32, slots_S: I32
) -> int:
    """Copy the code points of new segments and enter them in the hash table; returns how many are kept then."""
    mask = np.uint64(len(slots_S) - 1)
    for p in range(len(segment_P4)):
        begin, end = segment_P4[p, 2], segment_P4[p, 3]
        span_R3[first + p, 0], span_R3[first + p, 1] = n_codes, end - begin
        kept_codes[n_codes : n_codes + end - begin] = codes_C[begin:end]
        n_codes += end - begin
        slot = hash_P[p] & mask
        while slots_S[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots_S[slot] = first + p
    return n_codes


class ShapingCache:
    """Shaped segments of all faces that a renderer draws with.

    Args:
        faces: the faces, in the order of their numbers.
        units: per face SYLLABLE, WORD or SCRIPT_RUN.
        malformed: per face the characters whose glyphs or widths are not what they should be; they count as missing.
        capacity_runs: segments kept before the cache is emptied; a power of two.
    """

    def __init__(
        self, faces: Sequence[FontFace], units: Sequence[int], malformed: Sequence[str], capacity_runs: int = 1 << 17
    ) -> None:
        self.shapers = [Shaper(face) for face in faces]
        # The face in HarfBuzz's hands, so that the font that killed this process can be named.
        self.at_face_1 = np.zeros(1, np.int32)
        self._malformed = [frozenset(characters) for characters in malformed]
        self.unit_F = np.array(units, np.int32)
        self._glyphs = GlyphTable(self.shapers)
        self.glyph_base = self._glyphs.base
        self._cleared = 0
        self._allocate(capacity_runs)

    def _allocate(self, capacity_runs: int) -> None:
        """Make empty arrays; filled, not merely reserved, so that a worker's memory does not grow with the corpus."""
        self.capacity_runs = capacity_runs
        self.slots_S = np.full(capacity_runs * 2, -1, np.int32)
        self.hash_R = np.full(capacity_runs, 0, np.uint64)
        self.span_R3 = np.full((capacity_runs, 3), 0, np.int32)
        self.codes = np.full(capacity_runs * 12, 1, np.uint32)
        self.glyph_span_R2 = np.full((capacity_runs, 2), 1, np.int32)
        self.advance_R = np.full(capacity_runs, 1, np.int32)
        self.ascent_R = np.full(capacity_runs, 1, np.int32)
        self.descent_R = np.full(capacity_runs, 1, np.int32)
        self.flags_R = np.full(capacity_runs, 1, np.uint8)
        self.glyph_G = np.full(capacity_runs * 10, 1, np.int32)
        self.place_G2 = np.full((capacity_runs * 10, 2), 1, np.int32)
        self.run_count = self.n_codes = self.n_glyphs = 0

    def clear(self) -> None:
        """Forget every segment."""
        self.slots_S.fill(-1)
        self._cleared += 1
        self.run_count = self.n_codes = self.n_glyphs = 0

    def look_up(self, texts: Sequence[str], face_L: I32, known: ShapedLines | None = None) -> ShapedLines:
        """Find or shape the segments of lines.

        Args:
            texts: L normalised lines.
            face_L: int32 number of the face that draws each.
            known: what was found for these lines before; it is the answer unless the cache was emptied since.
        """
        if known is not None and known.cleared == self._cleared:
            return known
        codes_C = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
        offsets_L1 = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=offsets_L1[1:])
        runs_T = np.empty(len(codes_C), np.int32)
        where_T4 = np.empty((len(codes_C), 4), np.int64)
        hash_T = np.empty(len(codes_C), np.uint64)
        out_offsets_L1 = np.empty(len(texts) + 1, np.int64)
        emptied = False
        while True:
            missing = _look_up(
                codes_C,
                offsets_L1,
                face_L,
                self.unit_F,
                self.slots_S,
                self.hash_R,
                self.span_R3,
                self.codes,
                runs_T,
                where_T4,
                hash_T,
                out_offsets_L1,
            )
            if not missing or self._add_all(codes_C, runs_T, where_T4[:missing], hash_T[:missing]):
                return ShapedLines(runs_T[: out_offsets_L1[-1]], out_offsets_L1, self._cleared)
            if emptied:
                self._allocate(2 * self.capacity_runs)
            self.clear()
            emptied = True

    def measure(self, shaped: ShapedLines) -> LineExtents:
        """Measure lines that were just looked up."""
        tables = (self.advance_R, self.ascent_R, self.descent_R, self.flags_R)
        return LineExtents(*_summarise(shaped.runs_T, shaped.offsets_L1, *tables))

    def _add_all(self, codes_C: U32, runs_T: I32, where_T4: I64, hash_T: U64) -> bool:
        """Shape the missing segments; False when there is no room for them."""
        new: dict[tuple[int, bytes], int] = {}
        number_T, flat, ends, flags = list[int](), list[int](), [0], list[int]()
        at_T = list[int]()
        codes = codes_C.tobytes()
        for at, (_, face, start, stop) in enumerate(where_T4.tolist()):
            key = (face, codes[4 * start : 4 * stop])
            number = new.get(key)
            if number is None:
                number = new[key] = len(new)
                segment = key[1].decode("utf-32-le")
                self.at_face_1[0] = face
                for glyph in self.shapers[face].shape_with_fallback(segment):
                    flat += glyph
                ends.append(len(flat) // 6)
                drawable = self._malformed[face].isdisjoint(segment)
                flags.append((0 if is_well_formed(segment) else BROKEN) | (0 if drawable else MISSING))
                at_T.append(at)
            number_T.append(number)
        segment_P4 = where_T4[at_T]
        length_P = segment_P4[:, 3] - segment_P4[:, 2]
        full = (
            self.run_count + len(new) > self.capacity_runs
            or self.n_codes + int(length_P.sum()) > len(self.codes)
            or self.n_glyphs + ends[-1] > len(self.glyph_G)
        )
        if full:
            return False
        runs_T[where_T4[:, 0]] = self.run_count + np.array(number_T, np.int32)
        shaped_G6 = np.array(flat, np.int64).reshape(-1, 6)
        self._enter(codes_C, segment_P4, hash_T[at_T], shaped_G6, np.array(ends), np.array(flags, np.uint8))
        return True

    def _enter(
        self, codes_C: U32, segment_P4: I64, hash_P: U64, shaped_G6: I64, glyph_offsets_P1: I64, flags_P: U8
    ) -> None:
        """Lay out shaped segments, (place, face, begin, end) each, and enter them as runs."""
        table, first, end = self._glyphs, self.run_count, self.run_count + len(segment_P4)
        font_G = np.repeat(table.first_font_F[segment_P4[:, 1]], np.diff(glyph_offsets_P1)) + shaped_G6[:, 0]
        table.know(table.base_O[font_G] + shaped_G6[:, 1])
        measures_P5 = np.empty((len(segment_P4), 5), np.int32)
        inked = lay_out_segments(
            shaped_G6,
            font_G,
            glyph_offsets_P1,
            codes_C,
            segment_P4[:, 2:],
            table.base_O,
            table.upem_O,
            table.box_N3,
            self.glyph_G[self.n_glyphs :],
            self.place_G2[self.n_glyphs :],
            measures_P5,
        )
        glyph_ends_P = self.n_glyphs + np.cumsum(measures_P5[:, 0])
        self.glyph_span_R2[first:end, 0] = glyph_ends_P - measures_P5[:, 0]
        self.glyph_span_R2[first:end, 1] = glyph_ends_P
        self.n_glyphs += inked
        self.advance_R[first:end], self.ascent_R[first:end], self.descent_R[first:end] = measures_P5[:, 1:4].T
        self.flags_R[first:end] = flags_P | measures_P5[:, 4].astype(np.uint8)
        self.hash_R[first:end], self.span_R3[first:end, 2] = hash_P, segment_P4[:, 1]
        self.n_codes = _keep(codes_C, segment_P4, hash_P, first, self.codes, self.n_codes, self.span_R3, self.slots_S)
        self.run_count = end

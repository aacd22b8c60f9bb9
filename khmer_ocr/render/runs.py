"""The run cache: pieces of text that shape alike wherever they stand, shaped once per face and kept in flat arrays.

A piece is an orthographic syllable, a word or a whole script run, whichever the face was measured to need
(`metrics.FaceMetrics.unit`). Looking a batch of lines up is one compiled pass over their code points; only pieces never
seen before reach HarfBuzz. Everything is allocated once, so memory does not grow with the corpus; a full cache is
emptied.

Letters: L lines, C code points, T pieces (tokens), R cached runs, G glyphs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from khmer_ocr_kernels.jit import compiled

from khmer_ocr.render.fonts import FontFace
from khmer_ocr.render.shape import Glyph, Shaper, to_em16, undrawn
from khmer_ocr.text.syllables import is_well_formed

SYLLABLE, WORD, SCRIPT_RUN = 0, 1, 2
BROKEN, MISSING = 1, 2
"""Flags of a run: it shapes to a dotted circle; it has a character that no font of the chain draws."""
NO_INK = -(1 << 29)

_COENG = 0x17D2
_ZWNJ = 0x200C


@dataclass(frozen=True, slots=True)
class Looked:
    """Lines as cached runs: `runs_T[offsets_L1[i]:offsets_L1[i + 1]]` are those of line i."""

    runs_T: npt.NDArray[np.int32]
    offsets_L1: npt.NDArray[np.int64]


@compiled
def _class_of(code: int) -> int:
    """0 space, 1 Khmer base, 2 Khmer mark, 3 other Khmer (digits, punctuation), 4 everything else."""
    if code == 0x20:
        return 0
    if 0x1780 <= code <= 0x17B3:
        return 1
    if 0x17B4 <= code <= 0x17D3 or code in (0x17DD, _ZWNJ):
        return 2
    if 0x17D4 <= code <= 0x17FF or 0x19E0 <= code <= 0x19FF:
        return 3
    return 4


@compiled
def begins(first: int, previous: int, code: int, unit: int) -> bool:
    """Whether a new piece begins at `code` after `previous`, in a piece that began with `first`."""
    before, now = _class_of(previous), _class_of(code)
    if unit == SCRIPT_RUN:
        return bool(now != 0 and (now == 4) != (_class_of(first) == 4))
    if now == 0 or before == 0:
        return True
    if now == 4 or before == 4:
        return now != before
    if unit == WORD:
        return False
    if now == 2:
        # Digits carry marks as letters do (`text.syllables`), punctuation does not.
        return before == 3 and not 0x17E0 <= previous <= 0x17E9
    return not (now == 1 and previous == _COENG)


@compiled
def _look_up(
    codes_C: npt.NDArray[np.uint32],
    line_offsets_L1: npt.NDArray[np.int64],
    face_L: npt.NDArray[np.int32],
    unit_F: npt.NDArray[np.int32],
    slots_S: npt.NDArray[np.int32],
    hash_R: npt.NDArray[np.uint64],
    span_R3: npt.NDArray[np.int32],
    kept_codes: npt.NDArray[np.uint32],
    runs_T: npt.NDArray[np.int32],
    where_T4: npt.NDArray[np.int64],
    hash_T: npt.NDArray[np.uint64],
    out_offsets_L1: npt.NDArray[np.int64],
) -> int:
    """Cut lines into pieces and find each; runs_T is -1 where unknown. Returns the number of unknown pieces."""
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
def _insert(slots_S: npt.NDArray[np.int32], hashed: np.uint64, run: int) -> None:
    mask = np.uint64(len(slots_S) - 1)
    slot = hashed & mask
    while slots_S[slot] >= 0:
        slot = (slot + np.uint64(1)) & mask
    slots_S[slot] = run


class RunCache:
    """Shaped pieces of all faces of a run.

    Args:
        faces: the faces, in the order of their numbers.
        units: per face SYLLABLE, WORD or SCRIPT_RUN.
        malformed: per face the characters whose glyphs are not what they should be; they count as missing.
        capacity_runs: pieces kept before the cache is emptied; a power of two.
    """

    def __init__(
        self, faces: Sequence[FontFace], units: Sequence[int], malformed: Sequence[str], capacity_runs: int = 1 << 17
    ) -> None:
        self.shapers = [Shaper(face) for face in faces]
        # The face in HarfBuzz's hands, for whoever must name the font that killed this process.
        self.at_face_1 = np.zeros(1, np.int32)
        self._malformed = [frozenset(characters) for characters in malformed]
        self.unit_F = np.array(units, np.int32)
        counts = [count for shaper in self.shapers for count in shaper.glyph_count]
        ends = np.cumsum([0, *counts])
        firsts = np.cumsum([0, *(len(shaper.glyph_count) for shaper in self.shapers)])
        self.glyph_base = [
            [int(ends[first + chain]) for chain in range(len(shaper.fonts))]
            for first, shaper in zip(firsts, self.shapers, strict=False)
        ]
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
        self.runs = self.n_codes = self.n_glyphs = 0

    def clear(self) -> None:
        """Forget every piece."""
        self.slots_S.fill(-1)
        self.runs = self.n_codes = self.n_glyphs = 0

    def look_up(self, texts: Sequence[str], face_L: npt.NDArray[np.int32]) -> Looked:
        """Find or shape the pieces of lines.

        Args:
            texts: L normalised lines.
            face_L: int32 number of the face that draws each.

        Returns:
            The pieces' numbers, valid until the next call.
        """
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
                return Looked(runs_T[: out_offsets_L1[-1]], out_offsets_L1)
            if emptied:
                self._allocate(2 * self.capacity_runs)
            self.clear()
            emptied = True

    def _add_all(
        self,
        codes_C: npt.NDArray[np.uint32],
        runs_T: npt.NDArray[np.int32],
        where_T4: npt.NDArray[np.int64],
        hash_T: npt.NDArray[np.uint64],
    ) -> bool:
        """Shape the unknown pieces; False when there is no room for them."""
        new: dict[tuple[int, bytes], int] = {}
        for (token, face, start, stop), hashed in zip(where_T4.tolist(), hash_T, strict=True):
            piece_codes = codes_C[start:stop]
            identity = (face, piece_codes.tobytes())
            run = new.get(identity)
            if run is None:
                piece = identity[1].decode("utf-32-le")
                self.at_face_1[0] = face
                glyphs = self.shapers[face].shape_with_fallback(piece)
                full = (
                    self.runs >= self.capacity_runs
                    or self.n_codes + len(piece) > len(self.codes)
                    or self.n_glyphs + len(glyphs) > len(self.glyph_G)
                )
                if full:
                    return False
                run = new[identity] = self._add(face, piece, piece_codes, hashed, glyphs)
            runs_T[token] = run
        return True

    def _add(
        self, face: int, piece: str, piece_codes: npt.NDArray[np.uint32], hashed: np.uint64, glyphs: list[Glyph]
    ) -> int:
        run, shaper = self.runs, self.shapers[face]
        flags = 0 if is_well_formed(piece) else BROKEN
        if undrawn(shaper, piece, glyphs) or not self._malformed[face].isdisjoint(piece):
            flags |= MISSING
        pen, ascent, descent, first = 0, NO_INK, NO_INK, self.n_glyphs
        numbers, places = [], []
        base, boxes = self.glyph_base[face], shaper.boxes_em16
        for font, gid, _, x_offset, y_offset, advance in glyphs:
            upem = shaper.upem[font]
            box = boxes(font, gid)
            if box is not None:
                y = to_em16(y_offset, upem) if y_offset else 0
                ascent, descent = max(ascent, y + box[1]), max(descent, -y - box[0])
                numbers.append(base[font] + gid)
                places.append((pen + to_em16(x_offset, upem) if x_offset else pen, y))
            pen += to_em16(advance, upem)
        if numbers:
            end = self.n_glyphs = first + len(numbers)
            self.glyph_G[first:end] = numbers
            self.place_G2[first:end] = places
        self.codes[self.n_codes : self.n_codes + len(piece)] = piece_codes
        self.span_R3[run] = self.n_codes, len(piece), face
        self.n_codes += len(piece)
        self.hash_R[run] = hashed
        self.glyph_span_R2[run] = first, self.n_glyphs
        self.advance_R[run], self.ascent_R[run], self.descent_R[run], self.flags_R[run] = pen, ascent, descent, flags
        self.runs += 1
        _insert(self.slots_S, hashed, run)
        return run

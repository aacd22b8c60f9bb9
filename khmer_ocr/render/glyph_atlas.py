"""Rasters of glyphs, packed into one array and kept on disk between runs.

A raster's key is (glyph, size, phase): unhinted, drawn at one of 4 x 4 quarter-pixel phases, trimmed to its ink. Sizes
are 26.6 fixed point (64 = 1 ppem). What is on disk is a cache: a file that does not check out is thrown away and drawn
anew.

Letters: Q quads, E entries, N pixels, S hash slots, K rasters just drawn or read.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import freetype
import numpy as np
import numpy.typing as npt
import xxhash
from khmer_ocr_kernels.arrays import I32, I64, U8
from khmer_ocr_kernels.jit import compiled

from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.io.atomic import replacing
from khmer_ocr.render.rasterizer import NO_ROOM, Rasterizer, drawing_error, functions, render

log = logging.getLogger(__name__)
_SIZE_BITS, _PHASE_BITS = 20, 4
_GLYPH_SHIFT = _SIZE_BITS + _PHASE_BITS
_CACHE_VERSION = 3
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
# Measured in 92 faces: 100 bytes a raster at 32 px, 850 at 96 px; 200,000 lines ask for 300,000 rasters.
LIMIT_BYTES, LIMIT_ENTRIES = 64 << 20, 1 << 19


def freetype_version() -> str:
    """Version of the FreeType library that draws."""
    return ".".join(map(str, freetype.version()))


@compiled
def _find(keys_Q: I64, slot_key_S: I64, slot_entry_S: I32, entry_Q: I32) -> int:
    mask = np.uint64(len(slot_key_S) - 1)
    missing = 0
    for q in range(len(keys_Q)):
        key = keys_Q[q]
        slot = ((np.uint64(key) * _MULTIPLIER) >> np.uint64(20)) & mask
        entry = -1
        while slot_key_S[slot] >= 0:
            if slot_key_S[slot] == key:
                entry = int(slot_entry_S[slot])
                break
            slot = (slot + np.uint64(1)) & mask
        entry_Q[q] = entry
        missing += entry < 0
    return missing


@compiled
def _put(slot_key_S: I64, slot_entry_S: I32, keys_K: I64, first: int) -> None:
    """Enter keys that are not there yet; their entries are numbered from `first`."""
    mask = np.uint64(len(slot_key_S) - 1)
    for k in range(len(keys_K)):
        slot = ((np.uint64(keys_K[k]) * _MULTIPLIER) >> np.uint64(20)) & mask
        while slot_key_S[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slot_key_S[slot] = keys_K[k]
        slot_entry_S[slot] = first + k


def keys(glyph_Q: I64, size64_Q: I64, phase_Q: I64) -> I64:
    """Atlas keys of glyph numbers, 26.6 sizes and phases (x quarter + 4 x y quarter)."""
    return (glyph_Q << _GLYPH_SHIFT) | (size64_Q << _PHASE_BITS) | phase_Q


class GlyphAtlas:
    """Packed rasters of all faces of a run.

    Args:
        faces: the faces in the order of their numbers.
        glyph_base: for each face the number of glyph 0 of each font of its chain, in ascending order over all.
        folder: where rasters are kept between runs; None keeps nothing.
        limit_bytes: rasters held before the atlas is emptied.
        limit_entries: the same, counted.

    Attributes:
        pixels_N: uint8 coverage of all rasters.
        entries_E5: int32 rows (offset, width, height, left, top).
    """

    def __init__(
        self,
        faces: Sequence[FontFace],
        glyph_base: Sequence[Sequence[int]],
        folder: Path | None = None,
        limit_bytes: int = LIMIT_BYTES,
        limit_entries: int = LIMIT_ENTRIES,
    ) -> None:
        self._faces, self._folder = faces, folder
        self._limit_bytes, self._limit_entries = limit_bytes, limit_entries
        self._rasterisers: dict[int, Rasterizer] = {}
        self._face_O = np.array([face for face, bases in enumerate(glyph_base) for _ in bases], np.int64)
        self._fonts_O3 = np.zeros((len(self._face_O), 3), np.int64)
        self._functions_4 = functions()
        self._first_glyph = np.array([base for bases in glyph_base for base in bases], np.int64)
        self._loaded: set[int] = set()
        self._changed: set[int] = set()
        # The face in FreeType's hands, so that the font that killed this process can be named.
        self.at_face_1 = np.zeros(1, np.int32)
        self.drawn = self.cleared = 0
        # Filled, not merely reserved: a worker's memory is the same after ten thousand lines and after ten million.
        self.pixels_N = np.full(limit_bytes, 1, np.uint8)
        self._keys = np.full(limit_entries, 1, np.int64)
        self.entries_E5 = np.full((limit_entries, 5), 1, np.int32)
        slots = 1 << (2 * limit_entries - 1).bit_length()
        self._slot_key_S, self._slot_entry_S = np.full(slots, -1, np.int64), np.full(slots, 1, np.int32)
        self._used_bytes = self._count = 0

    def clear(self) -> None:
        """Forget every raster; what is on disk is not read again."""
        self._slot_key_S.fill(-1)
        self._used_bytes = self._count = 0
        self._changed.clear()
        self.cleared += 1

    def entries_of(self, keys_Q: I64, faces: Sequence[int]) -> I32:
        """Entry of each key, drawing what is not there yet.

        Args:
            keys_Q: int64 from `keys`.
            faces: numbers of the faces the keys belong to, so that their files are read before anything is drawn.

        Returns:
            int32 (Q,) rows of `entries_E5`.

        Raises:
            FontError: a glyph neither loads nor renders.
        """
        # A quarter is left free, so that a batch rarely needs more than there is.
        if 4 * self._used_bytes > 3 * self._limit_bytes or 4 * self._count > 3 * self._limit_entries:
            if not self.cleared:
                self.save()
            self.clear()
        for face in faces:
            if face not in self._loaded:
                self._read(face)
        entry_Q = np.empty(len(keys_Q), np.int32)
        if _find(keys_Q, self._slot_key_S, self._slot_entry_S, entry_Q):
            self._draw(np.unique(keys_Q[entry_Q < 0]))
            _find(keys_Q, self._slot_key_S, self._slot_entry_S, entry_Q)
        return entry_Q

    def _draw(self, missing_K: I64) -> None:
        # By font, then size, then glyph: a size is set once, an outline is loaded once for all its phases.
        owner_K = np.searchsorted(self._first_glyph, missing_K >> _GLYPH_SHIFT, side="right") - 1
        size64_K = (missing_K >> _PHASE_BITS) & ((1 << _SIZE_BITS) - 1)
        order = np.lexsort((missing_K, size64_K, owner_K))
        keys_K, owner_K, size64_K = missing_K[order], owner_K[order], size64_K[order]
        gid_K = (keys_K >> _GLYPH_SHIFT) - self._first_glyph[owner_K]
        glyphs_K4 = np.stack([owner_K, gid_K, size64_K, keys_K & ((1 << _PHASE_BITS) - 1)], axis=1)
        for face in np.unique(self._face_O[owner_K]).tolist():
            self._open(face)
        done = 0
        while done < len(keys_K):
            self._reserve(0, len(keys_K) - done)
            entries_K5 = self.entries_E5[self._count : self._count + len(keys_K) - done]
            drawn, self._used_bytes, status = render(
                self._functions_4,
                self._fonts_O3,
                glyphs_K4[done:],
                self.pixels_N,
                self._used_bytes,
                entries_K5,
                self.at_face_1,
            )
            self._register(keys_K[done : done + drawn])
            done += drawn
            if status == NO_ROOM:
                self._reserve(len(self.pixels_N) - self._used_bytes + 1, 0)
            elif status:
                owner, gid, size64, _ = glyphs_K4[done].tolist()
                raise drawing_error(self._faces[self._face_O[owner]].name, gid, size64, status)
        self.drawn += len(missing_K)

    def _open(self, face: int) -> None:
        self._changed.add(face)
        if face not in self._rasterisers:
            self.at_face_1[0] = face
            self._rasterisers[face] = Rasterizer(self._faces[face], face)
            self._fonts_O3[self._face_O == face] = self._rasterisers[face].fonts_C3

    def _register(self, keys_K: I64) -> None:
        self._keys[self._count : self._count + len(keys_K)] = keys_K
        _put(self._slot_key_S, self._slot_entry_S, keys_K, self._count)
        self._count += len(keys_K)

    def _reserve(self, n_bytes: int, n_entries: int) -> None:
        """Make room beyond the limits where a single batch needs more than they leave."""
        if self._used_bytes + n_bytes > len(self.pixels_N):
            self.pixels_N = _grown(self.pixels_N, self._used_bytes + n_bytes)
        if self._count + n_entries > len(self._keys):
            self._keys = _grown(self._keys, self._count + n_entries)
            self.entries_E5 = _grown(self.entries_E5, self._count + n_entries)
        if 2 * (self._count + n_entries) > len(self._slot_key_S):
            slots = 1 << (4 * (self._count + n_entries)).bit_length()
            self._slot_key_S, self._slot_entry_S = np.full(slots, -1, np.int64), np.zeros(slots, np.int32)
            _put(self._slot_key_S, self._slot_entry_S, self._keys[: self._count], 0)

    def _file(self, face: int) -> Path | None:
        if self._folder is None:
            return None
        name = f"{self._faces[face].sha256[:32]}-ft{freetype_version()}-v{_CACHE_VERSION}.npz"
        return self._folder / name

    def _span(self, face: int) -> tuple[int, int]:
        first, after = np.searchsorted(self._face_O, [face, face + 1])
        end = self._first_glyph[after] if after < len(self._first_glyph) else np.iinfo(np.int64).max >> _GLYPH_SHIFT
        return int(self._first_glyph[first]), int(end)

    def _read(self, face: int) -> None:
        """Take over a face's rasters from disk, unless they are damaged or there is no room for them."""
        self._loaded.add(face)
        file = self._file(face)
        if file is None or not file.is_file() or self._used_bytes + file.stat().st_size > self._limit_bytes // 2:
            return
        stored = _read_rasters(file)
        if stored is None:
            return
        local_K, entries_K5, pixels_N = stored
        first, end = self._span(face)
        keys_K = local_K + (first << _GLYPH_SHIFT)
        # Another process may have stored glyphs that were drawn here before the file was read.
        entry_K = np.empty(len(keys_K), np.int32)
        _find(keys_K, self._slot_key_S, self._slot_entry_S, entry_K)
        fresh_K = (entry_K < 0) & (keys_K >> _GLYPH_SHIFT < end)
        self._reserve(len(pixels_N), len(keys_K))
        place_K5 = self.entries_E5[self._count : self._count + int(fresh_K.sum())]
        place_K5[:] = entries_K5[fresh_K]
        place_K5[:, 0] += self._used_bytes
        self.pixels_N[self._used_bytes : self._used_bytes + len(pixels_N)] = pixels_N
        self._used_bytes += len(pixels_N)
        self._register(keys_K[fresh_K])

    def save(self) -> None:
        """Write the rasters of faces that gained some to the cache folder, over what other processes wrote."""
        for face in sorted(self._changed):
            file = self._file(face)
            if file is None:
                break
            first, end = self._span(face)
            keys_E = self._keys[: self._count]
            mine = np.flatnonzero((keys_E >> _GLYPH_SHIFT >= first) & (keys_E >> _GLYPH_SHIFT < end))
            entries_K5 = self.entries_E5[mine]
            size_K = entries_K5[:, 1] * entries_K5[:, 2]
            spans = zip(entries_K5[:, 0].tolist(), size_K.tolist(), strict=True)
            pixels_N = np.concatenate([np.zeros(0, np.uint8), *(self.pixels_N[at : at + size] for at, size in spans)])
            entries_K5[:, 0] = np.cumsum(size_K) - size_K
            _write_rasters(file, keys_E[mine] - (first << _GLYPH_SHIFT), entries_K5, pixels_N)
        self._changed.clear()


def _grown(array: npt.NDArray[Any], expected: int) -> npt.NDArray[Any]:
    """Copy of an array with room for at least `expected` rows, half as many again as before."""
    more = max(expected, len(array) * 3 // 2) - len(array)
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])


def _checksum(file: Path, *arrays: npt.NDArray[Any]) -> int:
    """Of the rasters and of whose they are: a file under another face's name does not check out."""
    digest = xxhash.xxh3_64(os.fsencode(file.name))
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.intdigest()


def _read_rasters(file: Path) -> tuple[I64, I32, U8] | None:
    """Read keys, entries and pixels from a cache file; a damaged one is deleted and None comes back."""
    why = "it does not match its checksum"
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            keys_K, entries_K5, pixels_N = stored["keys"], stored["entries"], stored["pixels"]
            if int(stored["check"]) == _checksum(file, keys_K, entries_K5, pixels_N):
                return keys_K, entries_K5, pixels_N
    except Exception as error:
        # Damaged bytes make zipfile, zlib and numpy raise nearly anything; whatever it is, the cache can go.
        why = str(error) or repr(error)
    log.warning("raster cache %s is damaged (%s); its glyphs are drawn anew", file, why)
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.debug("%s can't be removed (%s): it is read, and found damaged, again next time", file, error)
    return None


def _write_rasters(file: Path, keys_K: I64, entries_K5: I32, pixels_N: U8) -> None:
    """Write a cache file atomically; a folder that can't be written costs a warning, never the run."""
    check = np.uint64(_checksum(file, keys_K, entries_K5, pixels_N))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial, partial.open("wb") as stream:
            np.savez(stream, keys=keys_K, entries=entries_K5, pixels=pixels_N, check=check)
    except OSError as error:
        log.warning("raster cache %s can't be written (%s); its glyphs will be drawn again next time", file, error)

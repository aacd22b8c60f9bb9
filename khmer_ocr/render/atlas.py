"""FreeType rasters of glyphs, packed into one array and kept on disk between runs.

A raster's key is (glyph, size, phase): unhinted, drawn at one of 4 x 4 quarter-pixel phases, trimmed to its ink. Sizes are
26.6 fixed point (64 = 1 ppem). What is on disk is a cache: a file that does not check out is thrown away and drawn anew.

Letters: Q quads, E entries, N pixels, S hash slots.
"""

import ctypes
import logging
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import freetype
import numba as nb
import numpy as np
import numpy.typing as npt
import xxhash
from freetype import raw as ft

from khmer_ocr.errors import FontError
from khmer_ocr.render.fonts import FontFace

log = logging.getLogger(__name__)
PHASES = 4
_LOAD = freetype.FT_LOAD_NO_HINTING | freetype.FT_LOAD_NO_BITMAP
_SIZE_BITS, _PHASE_BITS = 20, 4
_GLYPH_SHIFT = _SIZE_BITS + _PHASE_BITS
_CACHE_VERSION = 1
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def freetype_version() -> str:
    """Version of the FreeType library that draws."""
    return ".".join(map(str, freetype.version()))


def cache_dir() -> Path:
    """Where measurements and rasters are kept: KHMER_OCR_CACHE, else the user's cache folder."""
    named = os.environ.get("KHMER_OCR_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(named) if named else base / "khmer_ocr"


class Rasteriser:
    """One face and its fallbacks opened in FreeType.

    Raises:
        FontError: FreeType refuses a file.
    """

    def __init__(self, face: FontFace) -> None:
        self._faces = []
        for chain, file in enumerate(face.files):
            try:
                opened = freetype.Face(str(file), face.number if chain == 0 else 0)
                if face.variations and chain == 0:
                    settings = dict(face.variations)
                    axes = [axis.tag for axis in opened.get_variation_info().axes]
                    opened.set_var_design_coords([settings[tag] for tag in axes])
            except freetype.FT_Exception as error:
                raise FontError(f"{file}: FreeType can't open it ({error}). Leave this font out.") from error
            self._faces.append(opened)
        self._sizes = [0] * len(self._faces)

    def load(self, chain: int, gid: int, size64: int) -> "ctypes._Pointer[ft.FT_GlyphSlotRec]":
        """Load a glyph's unhinted outline at a size; returns the slot."""
        face = self._faces[chain]
        if self._sizes[chain] != size64:
            face.set_char_size(0, size64, 72, 72)
            self._sizes[chain] = size64
        error = ft.FT_Load_Glyph(face._FT_Face, gid, _LOAD)
        if error:
            raise FontError(f"{face.family_name!r}: glyph {gid} does not load (FreeType error {error}). Leave this font out.")
        return face._FT_Face.contents.glyph

    def rasters(self, chain: int, gid: int, size64: int, phases: Sequence[int]) -> list[tuple[bytes, int, int, int, int, int]]:
        """Draw one glyph at several phases: (coverage rows, rows, columns, pitch, left, top) for each."""
        slot_pointer = self.load(chain, gid, size64)
        slot = slot_pointer.contents
        outline = ctypes.byref(slot.outline)
        step, out, at_x, at_y = 64 // PHASES, [], 0, 0
        for phase in phases:
            x, y = (phase % PHASES) * step, (phase // PHASES) * step
            if (x, y) != (at_x, at_y):
                ft.FT_Outline_Translate(outline, x - at_x, y - at_y)
                at_x, at_y = x, y
            error = ft.FT_Render_Glyph(slot_pointer, freetype.FT_RENDER_MODE_NORMAL)
            if error:
                raise FontError(f"glyph {gid} does not render (FreeType error {error}). Leave this font out.")
            bitmap = slot.bitmap
            rows, columns, pitch = bitmap.rows, bitmap.width, bitmap.pitch
            pixels = ctypes.string_at(bitmap.buffer, rows * pitch) if rows and columns else b""
            out.append((pixels, rows, columns, pitch, slot.bitmap_left, slot.bitmap_top))
            # Rendering leaves the outline in the slot but marks the slot a bitmap; marked back, it renders again.
            slot.format = freetype.FT_GLYPH_FORMAT_OUTLINE
        return out


@nb.njit(cache=True, nogil=True)
def _find(
    keys_Q: npt.NDArray[np.int64],
    slot_key_S: npt.NDArray[np.int64],
    slot_entry_S: npt.NDArray[np.int32],
    entry_Q: npt.NDArray[np.int32],
) -> int:
    mask = np.uint64(len(slot_key_S) - 1)
    missing = 0
    for q in range(len(keys_Q)):
        key = keys_Q[q]
        slot = ((np.uint64(key) * _MULTIPLIER) >> np.uint64(20)) & mask
        entry = -1
        while slot_key_S[slot] >= 0:
            if slot_key_S[slot] == key:
                entry = slot_entry_S[slot]
                break
            slot = (slot + np.uint64(1)) & mask
        entry_Q[q] = entry
        missing += entry < 0
    return missing


@nb.njit(cache=True, nogil=True)
def _put(slot_key_S: npt.NDArray[np.int64], slot_entry_S: npt.NDArray[np.int32], key: int, entry: int) -> None:
    mask = np.uint64(len(slot_key_S) - 1)
    slot = ((np.uint64(key) * _MULTIPLIER) >> np.uint64(20)) & mask
    while slot_key_S[slot] >= 0:
        slot = (slot + np.uint64(1)) & mask
    slot_key_S[slot] = key
    slot_entry_S[slot] = entry


@nb.njit(cache=True, nogil=True)
def _pack(
    raster: npt.NDArray[np.uint8],
    rows: int,
    columns: int,
    pitch: int,
    left: int,
    top: int,
    pixels_N: npt.NDArray[np.uint8],
    used: int,
    entry_5: npt.NDArray[np.int32],
) -> int:
    """Copy the inked part of a raster behind `used` and describe it; returns the new `used`."""
    x0, x1, y0, y1 = columns, -1, rows, -1
    for y in range(rows):
        for x in range(columns):
            if raster[y * pitch + x]:
                x0, x1, y0, y1 = min(x0, x), max(x1, x), min(y0, y), max(y1, y)
    width, height = max(x1 - x0 + 1, 0), max(y1 - y0 + 1, 0)
    entry_5[0], entry_5[1], entry_5[2] = used, width, height
    entry_5[3], entry_5[4] = (left + x0, top - y0) if width else (0, 0)
    for y in range(height):
        for x in range(width):
            pixels_N[used] = raster[(y0 + y) * pitch + x0 + x]
            used += 1
    return used


def keys(glyph_Q: npt.NDArray[np.int64], size64_Q: npt.NDArray[np.int64], phase_Q: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Atlas keys of glyph numbers, 26.6 sizes and phases (x quarter + 4 x y quarter)."""
    return (glyph_Q << _GLYPH_SHIFT) | (size64_Q << _PHASE_BITS) | phase_Q


class Atlas:
    """Packed rasters of all faces of a run.

    Args:
        faces: the faces in the order of their numbers.
        glyph_base: for each face the number of glyph 0 of each font of its chain, in ascending order over all.
        folder: where rasters are kept between runs; None keeps nothing.
        limit_bytes: rasters held before the atlas is emptied.
    """

    def __init__(
        self,
        faces: Sequence[FontFace],
        glyph_base: Sequence[Sequence[int]],
        folder: Path | None = None,
        limit_bytes: int = 96 << 20,
    ) -> None:
        self._faces, self._folder, self._limit_bytes = faces, folder, limit_bytes
        self._rasterisers: dict[int, Rasteriser] = {}
        self._owners = [(face, chain) for face, bases in enumerate(glyph_base) for chain in range(len(bases))]
        self._first_glyph = np.array([base for bases in glyph_base for base in bases], np.int64)
        self._loaded: set[int] = set()
        self._changed: set[int] = set()
        # The face in FreeType's hands, for whoever must name the font that killed this process.
        self.at_face_1 = np.zeros(1, np.int32)
        self.drawn = 0
        self.clear()

    def clear(self) -> None:
        """Forget every raster."""
        self._slot_key_S = np.full(1 << 16, -1, np.int64)
        self._slot_entry_S = np.zeros(1 << 16, np.int32)
        self._keys = np.zeros(1 << 14, np.int64)
        self._entries_E5 = np.zeros((1 << 14, 5), np.int32)
        self._pixels_N = np.zeros(1 << 21, np.uint8)
        self._used_bytes = self._count = 0
        self._loaded.clear()

    @property
    def pixels_N(self) -> npt.NDArray[np.uint8]:
        """uint8 coverage of all rasters."""
        return self._pixels_N

    @property
    def entries_E5(self) -> npt.NDArray[np.int32]:
        """int32 rows (offset, width, height, left, top)."""
        return self._entries_E5

    def entries_of(self, keys_Q: npt.NDArray[np.int64], faces: Sequence[int]) -> npt.NDArray[np.int32]:
        """Entry of each key, drawing what is not there yet.

        Args:
            keys_Q: int64 from `keys`.
            faces: numbers of the faces the keys belong to, so that their files are read before anything is drawn.

        Returns:
            int32 (Q,) rows of `entries_E5`.

        Raises:
            FontError: a glyph neither loads nor renders.
        """
        if self._used_bytes > self._limit_bytes:
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

    def _draw(self, missing_K: npt.NDArray[np.int64]) -> None:
        # Sorted keys stand together by font, glyph and size: an outline is loaded once for all its phases.
        outlines = missing_K >> _PHASE_BITS
        begins = np.flatnonzero(np.r_[True, outlines[1:] != outlines[:-1]])
        for begin, end in zip(begins, [*begins[1:], len(missing_K)], strict=True):
            outline = int(outlines[begin])
            glyph, size64 = outline >> _SIZE_BITS, outline & ((1 << _SIZE_BITS) - 1)
            owner = int(np.searchsorted(self._first_glyph, glyph, side="right")) - 1
            face, chain = self._owners[owner]
            self.at_face_1[0] = face
            if face not in self._rasterisers:
                self._rasterisers[face] = Rasteriser(self._faces[face])
            phases = (missing_K[begin:end] & ((1 << _PHASE_BITS) - 1)).tolist()
            gid = glyph - int(self._first_glyph[owner])
            rasters = self._rasterisers[face].rasters(chain, gid, size64, phases)
            for key, (pixels, rows, columns, pitch, left, top) in zip(missing_K[begin:end].tolist(), rasters, strict=True):
                self._reserve(rows * columns)
                raster = np.frombuffer(pixels, np.uint8)
                entry_5 = self._entries_E5[self._count]
                self._used_bytes = _pack(raster, rows, columns, pitch, left, top, self._pixels_N, self._used_bytes, entry_5)
                self._register(key)
            self._changed.add(face)
            self.drawn += len(phases)

    def _register(self, key: int) -> None:
        self._keys[self._count] = key
        _put(self._slot_key_S, self._slot_entry_S, key, self._count)
        self._count += 1

    def _reserve(self, n_bytes: int, n_entries: int = 1) -> None:
        if self._used_bytes + n_bytes > len(self._pixels_N):
            grown = max(2 * len(self._pixels_N), self._used_bytes + n_bytes)
            self._pixels_N = np.concatenate([self._pixels_N, np.zeros(grown - len(self._pixels_N), np.uint8)])
        if self._count + n_entries > len(self._keys):
            more = max(len(self._keys), n_entries)
            self._keys = np.concatenate([self._keys, np.zeros(more, np.int64)])
            self._entries_E5 = np.concatenate([self._entries_E5, np.zeros((more, 5), np.int32)])
        if 2 * (self._count + n_entries) > len(self._slot_key_S):
            size = 1 << (4 * (self._count + n_entries)).bit_length()
            self._slot_key_S, self._slot_entry_S = np.full(size, -1, np.int64), np.zeros(size, np.int32)
            for entry, key in enumerate(self._keys[: self._count].tolist()):
                _put(self._slot_key_S, self._slot_entry_S, key, entry)

    def _file(self, face: int) -> Path | None:
        if self._folder is None:
            return None
        name = f"{self._faces[face].sha256[:32]}-ft{freetype_version()}-v{_CACHE_VERSION}.npz"
        return self._folder / name

    def _span(self, face: int) -> tuple[int, int]:
        owners = [n for n, (owner, _) in enumerate(self._owners) if owner == face]
        after = owners[-1] + 1
        end = self._first_glyph[after] if after < len(self._first_glyph) else np.iinfo(np.int64).max >> _GLYPH_SHIFT
        return int(self._first_glyph[owners[0]]), int(end)

    def _read(self, face: int) -> None:
        self._loaded.add(face)
        file = self._file(face)
        if file is None or not file.is_file():
            return
        try:
            with np.load(file, allow_pickle=False) as stored:
                local_K, entries_K5, pixels_N = stored["keys"], stored["entries"], stored["pixels"]
                checks = int(stored["check"]) == _checksum(local_K, entries_K5, pixels_N)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("raster cache %s is damaged (%s); drawing its glyphs anew", file, error)
            return
        if not checks:
            log.warning("raster cache %s does not match its checksum; drawing its glyphs anew", file)
            return
        self._reserve(len(pixels_N), len(local_K))
        base = self._span(face)[0]
        begin, used = self._count, self._used_bytes
        self._entries_E5[begin : begin + len(local_K)] = entries_K5
        self._entries_E5[begin : begin + len(local_K), 0] += used
        self._pixels_N[used : used + len(pixels_N)] = pixels_N
        self._used_bytes += len(pixels_N)
        for key in (local_K + (base << _GLYPH_SHIFT)).tolist():
            self._register(key)

    def save(self) -> None:
        """Write the rasters of faces that gained some to the cache folder; what another process wrote may be replaced."""
        for face in sorted(self._changed):
            file = self._file(face)
            if file is None:
                break
            first, end = self._span(face)
            keys_E = self._keys[: self._count]
            mine = np.flatnonzero((keys_E >> _GLYPH_SHIFT >= first) & (keys_E >> _GLYPH_SHIFT < end))
            entries_K5 = self._entries_E5[mine].copy()
            sizes_K = entries_K5[:, 1] * entries_K5[:, 2]
            pieces = [self._pixels_N[o : o + n] for o, n in zip(entries_K5[:, 0].tolist(), sizes_K.tolist(), strict=True)]
            pixels_N = np.concatenate([np.zeros(0, np.uint8), *pieces])
            entries_K5[:, 0] = np.cumsum(sizes_K) - sizes_K
            local_K = keys_E[mine] - (first << _GLYPH_SHIFT)
            _write_npz(file, local_K, entries_K5, pixels_N)
        self._changed.clear()


def _checksum(*arrays: npt.NDArray[np.generic]) -> int:
    digest = xxhash.xxh3_64()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.intdigest()


def _write_npz(
    file: Path, keys_K: npt.NDArray[np.int64], entries_K5: npt.NDArray[np.int32], pixels_N: npt.NDArray[np.uint8]
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    check = np.uint64(_checksum(keys_K, entries_K5, pixels_N))
    with partial.open("wb") as stream:
        np.savez(stream, keys=keys_K, entries=entries_K5, pixels=pixels_N, check=check)
    partial.replace(file)

"""FreeType behind its C interface: unhinted outlines rendered at quarter-pixel phases into a staging buffer.

A cold run is bound by this loop, and most of what it costs is Python's: so the C functions are declared once, the
fields of the glyph slot are read in one `struct` call, and bitmaps are copied, untouched, one behind the other.
"""

import ctypes
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import freetype
import numpy as np
import numpy.typing as npt
from freetype import raw as ft
from khmer_ocr_kernels.jit import compiled

from khmer_ocr.errors import FontError
from khmer_ocr.render.fonts import FontFace

PHASES = 4
_PHASE_STEP = 64 // PHASES
_LOAD = freetype.FT_LOAD_NO_HINTING | freetype.FT_LOAD_NO_BITMAP
_LIBRARY = ft._lib
_load_glyph = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int32)(
    ("FT_Load_Glyph", _LIBRARY)
)
_render_glyph = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(("FT_Render_Glyph", _LIBRARY))
_translate = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_long, ctypes.c_long)(("FT_Outline_Translate", _LIBRARY))
_set_size = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_uint, ctypes.c_uint)(
    ("FT_Set_Char_Size", _LIBRARY)
)
# FT_Bitmap from `rows` to `palette`, then the slot's bitmap_left and bitmap_top, in the C compiler's own layout.
_BITMAP = struct.Struct("@IIiPHBBPii")
_BITMAP_AT = ft.FT_GlyphSlotRec.bitmap.offset
_OUTLINE_AT = ft.FT_GlyphSlotRec.outline.offset
_FORMAT_AT = ft.FT_GlyphSlotRec.format.offset


@dataclass
class Staged:
    """Rasters waiting to be packed: bitmaps one behind the other, and a row for each.

    Attributes:
        bytes_N: uint8 rows of all bitmaps, padding included.
        rows_K6: (offset, rows, columns, pitch, left, top) of each.
        address: where `bytes_N` begins in memory.
        used: bytes taken.
    """

    bytes_N: npt.NDArray[np.uint8]
    rows_K6: list[tuple[int, int, int, int, int, int]]
    address: int
    used: int = 0

    @classmethod
    def with_room(cls, n_bytes: int) -> "Staged":
        """Make an empty stage."""
        bytes_N = np.zeros(n_bytes, np.uint8)
        return cls(bytes_N, [], bytes_N.ctypes.data)

    def clear(self) -> None:
        """Forget what was packed."""
        self.rows_K6.clear()
        self.used = 0

    def make_room(self, n_bytes: int) -> None:
        """Grow so that n_bytes more fit."""
        if self.used + n_bytes > len(self.bytes_N):
            grown = np.zeros(max(2 * len(self.bytes_N), self.used + n_bytes), np.uint8)
            grown[: self.used] = self.bytes_N[: self.used]
            self.bytes_N, self.address = grown, grown.ctypes.data


class _Opened(NamedTuple):
    """A FreeType face and the addresses of what the drawing loop touches."""

    face: freetype.Face
    address: int
    slot: int
    slot_bytes: "ctypes.Array[ctypes.c_char]"
    outline: int
    format: ctypes.c_int


class Rasteriser:
    """One face and its fallbacks opened in FreeType.

    Args:
        face: the face to open.

    Raises:
        FontError: FreeType refuses a file.
    """

    def __init__(self, face: FontFace) -> None:
        self._name = face.name
        self._opened = [self._open(face, chain) for chain in range(len(face.files))]
        self._sizes = [0] * len(self._opened)

    def _open(self, face: FontFace, chain: int) -> _Opened:
        file = face.files[chain]
        try:
            opened = freetype.Face(str(file), face.number if chain == 0 else 0)
            if face.variations and chain == 0:
                settings = dict(face.variations)
                axes = [axis.tag for axis in opened.get_variation_info().axes]
                opened.set_var_design_coords([settings[tag] for tag in axes])
        except (freetype.FT_Exception, KeyError) as error:
            raise FontError(f"{file}: FreeType can't open it ({error}). Leave this font out.") from error
        record = opened._FT_Face
        slot = ctypes.cast(record.contents.glyph, ctypes.c_void_p).value
        address = ctypes.cast(record, ctypes.c_void_p).value
        if slot is None or address is None:
            raise FontError(f"{file}: FreeType gives it no glyph slot. Leave this font out.")
        slot_bytes = (ctypes.c_char * ctypes.sizeof(ft.FT_GlyphSlotRec)).from_address(slot)
        return _Opened(
            opened, address, slot, slot_bytes, slot + _OUTLINE_AT, ctypes.c_int.from_address(slot + _FORMAT_AT)
        )

    def draw(self, chain: int, gid: int, size64: int, phases: Iterable[int], into: Staged) -> None:
        """Render one glyph at several phases.

        Args:
            chain: place of the font in the face's chain.
            gid: glyph number.
            size64: 26.6 size, 64 = 1 ppem.
            phases: x quarter + 4 x y quarter, each.
            into: where the rasters go.

        Raises:
            FontError: the glyph neither loads nor renders.
        """
        opened = self._opened[chain]
        if self._sizes[chain] != size64:
            self._check(_set_size(opened.address, 0, size64, 72, 72), gid, size64)
            self._sizes[chain] = size64
        self._check(_load_glyph(opened.address, gid, _LOAD), gid, size64)
        at_x = at_y = 0
        for phase in phases:
            x, y = (phase % PHASES) * _PHASE_STEP, (phase // PHASES) * _PHASE_STEP
            if x != at_x or y != at_y:
                _translate(opened.outline, x - at_x, y - at_y)
                at_x, at_y = x, y
            self._check(_render_glyph(opened.slot, 0), gid, size64)
            rows, columns, pitch, buffer, _, _, _, _, left, top = _BITMAP.unpack_from(opened.slot_bytes, _BITMAP_AT)
            size = rows * pitch if columns else 0
            if into.used + size > len(into.bytes_N):
                into.make_room(size)
            if size:
                ctypes.memmove(into.address + into.used, buffer, size)
            into.rows_K6.append((into.used, rows if size else 0, columns, pitch, left, top))
            into.used += size
            # Rendering leaves the outline in the slot but marks the slot a bitmap; marked back, it renders again.
            opened.format.value = freetype.FT_GLYPH_FORMAT_OUTLINE

    def _check(self, error: int, gid: int, size64: int) -> None:
        if error:
            raise FontError(
                f"{self._name}: glyph {gid} can't be drawn at {size64 / 64:g} ppem (FreeType error {error}). "
                "Leave this font out."
            )

    def bitmap(self, chain: int, gid: int, size64: int) -> tuple[npt.NDArray[np.uint8], int, int]:
        """Draw one glyph at phase 0.

        Returns:
            Coverage (rows, columns), px from the pen to its left edge, px from the baseline to its top.
        """
        stage = Staged.with_room(1 << 16)
        self.draw(chain, gid, size64, (0,), stage)
        _, rows, columns, pitch, left, top = stage.rows_K6[0]
        return stage.bytes_N[: rows * pitch].reshape(rows, pitch)[:, :columns], left, top


@compiled
def pack(
    staged_N: npt.NDArray[np.uint8],
    rows_K6: npt.NDArray[np.int64],
    pixels_N: npt.NDArray[np.uint8],
    used: int,
    entries_K5: npt.NDArray[np.int32],
) -> int:
    """Copy the inked part of staged rasters into an atlas.

    Args:
        staged_N: uint8 `Staged.bytes_N`.
        rows_K6: int64 `Staged.rows_K6`.
        pixels_N: uint8 pixels of the atlas, with room for all.
        used: where its free part begins.
        entries_K5: int32 rows to fill with (offset, width, height, left, top).

    Returns:
        Where the free part begins now.
    """
    for k in range(len(rows_K6)):
        offset, rows, columns, pitch, left, top = rows_K6[k]
        x0, x1, y0, y1 = int(columns), -1, int(rows), -1
        for y in range(rows):
            for x in range(columns):
                if staged_N[offset + y * pitch + x]:
                    x0, x1, y0, y1 = min(x0, x), max(x1, x), min(y0, y), max(y1, y)
        width, height = max(x1 - x0 + 1, 0), max(y1 - y0 + 1, 0)
        entries_K5[k, 0], entries_K5[k, 1], entries_K5[k, 2] = used, width, height
        entries_K5[k, 3], entries_K5[k, 4] = (left + x0, top - y0) if width else (0, 0)
        for y in range(height):
            begin = offset + (y0 + y) * pitch + x0
            pixels_N[used : used + width] = staged_N[begin : begin + width]
            used += width
    return used

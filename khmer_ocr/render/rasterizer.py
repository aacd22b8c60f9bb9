"""FreeType behind its C interface: unhinted outlines rendered at quarter-pixel phases straight into an atlas.

A cold run is bound by this loop, and two thirds of it were Python's: so a compiled loop calls the C functions by their
addresses, reads the fields of the glyph slot where FreeType left them, and copies the ink.

Letters: K rasters to draw, O opened fonts, N pixels.
"""

import ctypes

import freetype
import numpy as np
from freetype import raw as ft
from khmer_ocr_kernels.arrays import I32, I64, U8
from khmer_ocr_kernels.jit import compiled
from khmer_ocr_kernels.numba_intrinsics import bytes_at, call, load_u64
from numba import carray

from khmer_ocr.errors import FontError
from khmer_ocr.fonts.discovery import FontFace

PHASES = 4
_PHASE_STEP = 64 // PHASES
_LOAD = freetype.FT_LOAD_NO_HINTING | freetype.FT_LOAD_NO_BITMAP
_OUTLINE = int(freetype.FT_GLYPH_FORMAT_OUTLINE)
_SLOT = ft.FT_GlyphSlotRec
_SLOT_BYTES = ctypes.sizeof(_SLOT)
_BITMAP_AT, _OUTLINE_AT, _FORMAT_AT = _SLOT.bitmap.offset, _SLOT.outline.offset, _SLOT.format.offset
_BUFFER_AT, _PITCH_AT = _BITMAP_AT + ft.FT_Bitmap.buffer.offset, _BITMAP_AT + ft.FT_Bitmap.pitch.offset
_LEFT_AT, _TOP_AT = _SLOT.bitmap_left.offset, _SLOT.bitmap_top.offset
NO_ROOM = -1
"""Status of `render` when the atlas must grow first; any other but 0 is FreeType's error."""


def functions() -> I64:
    """Addresses of the C functions that `render` calls."""
    names = ("FT_Set_Char_Size", "FT_Load_Glyph", "FT_Outline_Translate", "FT_Render_Glyph")
    return np.array([ctypes.cast(getattr(ft._lib, name), ctypes.c_void_p).value for name in names], np.int64)


class Rasterizer:
    """One face and its fallbacks opened in FreeType.

    Attributes:
        fonts_C3: for each font of the chain its row of `render`'s `fonts_O3`.

    Args:
        face: the face to open.
        number: what `render` reports of it.

    Raises:
        FontError: FreeType refuses a file.
    """

    def __init__(self, face: FontFace, number: int = 0) -> None:
        self._name = face.name
        self._opened = [self._open(face, chain) for chain in range(len(face.files))]
        self.fonts_C3 = np.array([(*self._addresses(opened, face), number) for opened in self._opened], np.int64)

    def _open(self, face: FontFace, chain: int) -> freetype.Face:
        file = face.files[chain]
        try:
            opened = freetype.Face(str(file), face.number if chain == 0 else 0)
            if face.variations and chain == 0:
                settings = dict(face.variations)
                axes = [axis.tag for axis in opened.get_variation_info().axes]
                opened.set_var_design_coords([settings[tag] for tag in axes])
        except (freetype.FT_Exception, KeyError) as error:
            raise FontError(f"{file}: FreeType can't open it ({error}). Leave this font out.") from error
        return opened

    def _addresses(self, opened: freetype.Face, face: FontFace) -> tuple[int, int]:
        record = opened._FT_Face
        slot = ctypes.cast(record.contents.glyph, ctypes.c_void_p).value
        address = ctypes.cast(record, ctypes.c_void_p).value
        if slot is None or address is None:
            raise FontError(f"{face.files[0]}: FreeType gives it no glyph slot. Leave this font out.")
        return address, slot

    def bitmap(self, chain: int, gid: int, size64: int, phase: int = 0) -> tuple[U8, int, int]:
        """Draw one glyph.

        Args:
            chain: place of the font in the face's chain.
            gid: glyph number.
            size64: 26.6 size, 64 = 1 ppem.
            phase: x quarter + 4 x y quarter.

        Returns:
            Coverage of its ink (rows, columns), px from the pen to its left edge, px from the baseline to its top.

        Raises:
            FontError: the glyph neither loads nor renders.
        """
        glyph_K4 = np.array([(chain, gid, size64, phase)], np.int64)
        pixels_N, entries_K5 = np.empty(1 << 14, np.uint8), np.empty((1, 5), np.int32)
        while True:
            done, used, status = render(
                functions(), self.fonts_C3, glyph_K4, pixels_N, 0, entries_K5, np.zeros(1, np.int32)
            )
            if status != NO_ROOM:
                break
            pixels_N = np.empty(4 * len(pixels_N), np.uint8)
        if not done:
            raise drawing_error(self._name, gid, size64, status)
        _, width, height, left, top = entries_K5[0].tolist()
        return pixels_N[:used].reshape(height, width), left, top


def drawing_error(name: str, gid: int, size64: int, status: int) -> FontError:
    """The error for a glyph that FreeType refuses."""
    return FontError(
        f"{name}: glyph {gid} can't be drawn at {size64 / 64:g} ppem (FreeType error {status}). Leave this font out."
    )


@compiled
def render(
    functions_4: I64, fonts_O3: I64, glyphs_K4: I64, pixels_N: U8, used: int, entries_K5: I32, at_face_1: I32
) -> tuple[int, int, int]:
    """Render glyphs behind one another into an atlas, as long as there is room.

    Args:
        functions_4: from `functions`.
        fonts_O3: int64 rows (address of the face, address of its slot, number of the face) of the opened fonts.
        glyphs_K4: int64 rows (number of the font, glyph, 26.6 size, x quarter + 4 x y quarter), sorted: a size is set
            once, an outline is loaded once for all its phases.
        pixels_N: uint8 coverage of the atlas.
        used: where its free part begins.
        entries_K5: int32 rows to fill with (offset, width, height, left, top) of the ink.
        at_face_1: receives the number of the face that FreeType works on.

    Returns:
        Row behind the last drawn, where the free part begins now, and 0, `NO_ROOM` or FreeType's error.
    """
    set_size, load, translate, draw = functions_4
    font, gid, size64, at_x, at_y = np.int64(-1), np.int64(-1), np.int64(-1), np.int64(0), np.int64(0)
    for k in range(len(glyphs_K4)):
        phase = glyphs_K4[k, 3]
        face, slot, at_face_1[0] = fonts_O3[glyphs_K4[k, 0]]
        status = np.int32(0)
        if glyphs_K4[k, 0] != font or glyphs_K4[k, 2] != size64:
            font, size64, gid = glyphs_K4[k, 0], glyphs_K4[k, 2], np.int64(-1)
            status = call(set_size, (face, np.int64(0), size64, np.int64(72), np.int64(72)))
        if not status and glyphs_K4[k, 1] != gid:
            gid, at_x, at_y = glyphs_K4[k, 1], np.int64(0), np.int64(0)
            status = call(load, (face, gid, np.int64(_LOAD)))
        x, y = phase % PHASES * _PHASE_STEP, phase // PHASES * _PHASE_STEP
        if not status:
            call(translate, (slot + _OUTLINE_AT, x - at_x, y - at_y))
            at_x, at_y = x, y
            status = call(draw, (slot, np.int64(0)))
        if status:
            return k, used, int(status)
        entries_K5[k, 0] = used
        used = _copy_ink(slot, pixels_N, used, entries_K5[k])
        if used < 0:
            return k, int(entries_K5[k, 0]), NO_ROOM
        # Rendering leaves the outline in the slot but marks the slot a bitmap; marked back, it renders again.
        fields = carray(bytes_at(slot), _SLOT_BYTES)
        fields[_FORMAT_AT : _FORMAT_AT + 4].view(np.int32)[0] = _OUTLINE
    return len(glyphs_K4), used, 0


@compiled
def _copy_ink(slot: int, pixels_N: U8, used: int, entry_5: I32) -> int:
    """Copy the inked part of a slot's bitmap; returns where the free part begins then, below 0 if there is no room."""
    fields = carray(bytes_at(slot), _SLOT_BYTES)
    shape = load_u64(fields, _BITMAP_AT)
    rows, columns = np.int64(shape & np.uint64(0xFFFFFFFF)), np.int64(shape >> np.uint64(32))
    pitch = np.int64(fields[_PITCH_AT : _PITCH_AT + 4].view(np.int32)[0])
    left = np.int64(fields[_LEFT_AT : _LEFT_AT + 4].view(np.int32)[0])
    top = np.int64(fields[_TOP_AT : _TOP_AT + 4].view(np.int32)[0])
    bitmap = carray(bytes_at(np.int64(load_u64(fields, _BUFFER_AT))), rows * pitch)
    x0, x1, y0, y1 = int(columns), -1, int(rows), -1
    for y in range(rows):
        for x in range(columns):
            if bitmap[y * pitch + x]:
                x0, x1, y0, y1 = min(x0, x), max(x1, x), min(y0, y), max(y1, y)
    width, height = max(x1 - x0 + 1, 0), max(y1 - y0 + 1, 0)
    if used + width * height > len(pixels_N):
        return -1
    entry_5[1], entry_5[2], entry_5[3], entry_5[4] = width, height, 0, 0
    if width:
        entry_5[3], entry_5[4] = left + x0, top - y0
    for y in range(height):
        begin = (y0 + y) * pitch + x0
        for x in range(width):
            pixels_N[used + x] = bitmap[begin + x]
        used += width
    return used

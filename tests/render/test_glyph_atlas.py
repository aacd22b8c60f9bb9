import ctypes

import freetype
import numpy as np
import pytest
from freetype import raw as ft

from khmer_ocr.errors import FontError
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.io.cache_dir import cache_dir
from khmer_ocr.render import glyph_atlas as atlas_module
from khmer_ocr.render import rasterizer
from khmer_ocr.render.glyph_atlas import GlyphAtlas, freetype_version, keys
from khmer_ocr.render.rasterizer import Rasterizer
from khmer_ocr.render.shaping import Shaper

SIZES64 = (20 * 64, 21 * 64 + 13)


@pytest.fixture(scope="module")
def pair(embedded: list[FontFace]) -> list[FontFace]:
    return [face for face in embedded if face.style in ("Regular", "CondensedBold")]


def bases(faces: list[FontFace]) -> list[list[int]]:
    counts = [Shaper(face).glyph_count for face in faces]
    ends = np.cumsum([0, *(sum(count) for count in counts)])
    return [
        [int(end + sum(count[:chain])) for chain in range(len(count))]
        for end, count in zip(ends[:-1], counts, strict=True)
    ]


def random_keys(faces: list[FontFace], seed: int = 0, n: int = 400):
    """Keys of random glyphs of all faces, sizes and phases."""
    random = np.random.default_rng(seed)
    glyph = np.concatenate([random.integers(base[0], base[0] + 500, n) for base in bases(faces)])
    return keys(glyph, random.choice(SIZES64, len(glyph)), random.integers(0, 16, len(glyph)))


def rasters(atlas: GlyphAtlas, keys_Q, faces):
    """What the atlas gives for keys: (left, top, pixels) of each."""
    out = []
    for entry in atlas.entries_of(keys_Q, range(len(faces))).tolist():
        offset, width, height, left, top = atlas.entries_E5[entry].tolist()
        out.append((left, top, width, height, atlas.pixels_N[offset : offset + width * height].tobytes()))
    return out


def small(faces: list[FontFace], folder=None, limit_bytes: int = 1 << 20, limit_entries: int = 1 << 12) -> GlyphAtlas:
    return GlyphAtlas(faces, bases(faces), folder, limit_bytes, limit_entries)


def by_freetype_py(face: FontFace, gid: int, size64: int, phase: int | None):
    """A raster by freetype-py's own objects, trimmed with numpy; with phase None the outline is not moved at all."""
    opened = freetype.Face(str(face.files[0]))
    tags = [axis.tag for axis in opened.get_variation_info().axes] if face.variations else []
    if tags:
        opened.set_var_design_coords([dict(face.variations)[tag] for tag in tags])
    opened.set_char_size(0, size64, 72, 72)
    opened.load_glyph(gid, freetype.FT_LOAD_NO_HINTING | freetype.FT_LOAD_NO_BITMAP)
    if phase is not None:
        ft.FT_Outline_Translate(ctypes.byref(opened.glyph.outline._FT_Outline), (phase % 4) * 16, (phase // 4) * 16)
    opened.glyph.render(freetype.FT_RENDER_MODE_NORMAL)
    bitmap = opened.glyph.bitmap
    pixels_HW = np.array(bitmap.buffer, np.uint8).reshape(bitmap.rows, bitmap.pitch)[:, : bitmap.width]
    if not pixels_HW.any():
        return 0, 0, 0, 0, b""
    rows, columns = np.flatnonzero(pixels_HW.any(1)), np.flatnonzero(pixels_HW.any(0))
    ink = pixels_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    left, top = opened.glyph.bitmap_left + int(columns[0]), opened.glyph.bitmap_top - int(rows[0])
    return left, top, ink.shape[1], ink.shape[0], ink.tobytes()


def test_the_slot_is_read_where_freetype_put_it():
    slot = ft.FT_GlyphSlotRec
    names = [name for name, _ in ft.FT_Bitmap._fields_]
    assert names == ["rows", "width", "pitch", "buffer", "num_grays", "pixel_mode", "palette_mode", "palette"]
    assert ft.FT_Bitmap.width.offset == 4, "rows and width are read as one word"
    assert slot.bitmap_left.offset == rasterizer._LEFT_AT and slot.bitmap_top.offset == rasterizer._TOP_AT
    assert slot.bitmap_left.offset == slot.bitmap.offset + ctypes.sizeof(ft.FT_Bitmap)


def test_rasters_equal_freetype_at_every_phase(few_faces):
    for face in few_faces[:4]:
        atlas = small([face])
        random = np.random.default_rng(1)
        for gid in random.integers(1, Shaper(face).glyph_count[0], 12).tolist():
            for size64 in SIZES64:
                phases = np.arange(16)
                got = rasters(atlas, keys(np.full(16, gid), np.full(16, size64), phases), [face])
                assert got == [by_freetype_py(face, gid, size64, phase) for phase in phases.tolist()]


def test_phases_differ_and_phase_0_is_the_plain_glyph(pair):
    gid = Shaper(pair[1]).shape("ក")[0].gid
    got = rasters(small(pair), keys(np.full(16, gid + bases(pair)[1][0]), np.full(16, 1280), np.arange(16)), pair)
    assert len(set(got)) == 16
    assert got[0] == by_freetype_py(pair[1], gid, 1280, None)


def test_trimmed_to_the_ink(pair):
    atlas = small(pair)
    for left, top, width, height, pixels in rasters(atlas, random_keys(pair), pair):
        ink = np.frombuffer(pixels, np.uint8).reshape(height, width)
        if width:
            assert ink[0].any() and ink[-1].any() and ink[:, 0].any() and ink[:, -1].any()
        else:
            assert (left, top, height) == (0, 0, 0)


def test_asking_again_draws_nothing(pair):
    atlas, asked = small(pair), random_keys(pair)
    first = rasters(atlas, asked, pair)
    drawn = atlas.drawn
    assert drawn == len(np.unique(asked))
    assert rasters(atlas, asked[::-1], pair) == first[::-1]
    assert atlas.drawn == drawn


@pytest.mark.parametrize(("limit_bytes", "limit_entries"), [(1 << 14, 1 << 12), (1 << 20, 1 << 7), (1 << 10, 1 << 4)])
def test_emptied_mid_run_it_gives_the_same_pixels(pair, limit_bytes, limit_entries):
    plenty, scarce = small(pair), small(pair, None, limit_bytes, limit_entries)
    for seed in range(8):
        asked = random_keys(pair, seed, 150)
        assert rasters(scarce, asked, pair) == rasters(plenty, asked, pair)
    assert scarce.cleared > 0 == plenty.cleared


def test_its_memory_is_taken_once(pair):
    atlas = small(pair)
    before = atlas.pixels_N.ctypes.data, atlas.entries_E5.ctypes.data
    for seed in range(8):
        rasters(atlas, random_keys(pair, seed, 100), pair)
    assert (atlas.pixels_N.ctypes.data, atlas.entries_E5.ctypes.data) == before


def test_kept_on_disk_between_runs(pair, tmp_path):
    asked = random_keys(pair)
    one = small(pair, tmp_path)
    expected = rasters(one, asked, pair)
    one.save()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2 and all(freetype_version() in file.name for file in files)
    two = small(pair, tmp_path)
    assert rasters(two, asked, pair) == expected
    assert two.drawn == 0
    two.save()
    assert sorted(tmp_path.iterdir()) == files
    # Faces under other numbers find their own rasters.
    three = small(pair[::-1], tmp_path)
    mirrored = np.where(
        asked >> 24 < bases(pair)[1][0], asked + (bases(pair[::-1])[1][0] << 24), asked - (bases(pair)[1][0] << 24)
    )
    assert rasters(three, mirrored, pair) == expected
    assert three.drawn == 0


def test_what_was_drawn_before_the_file_is_read_stays(pair, tmp_path):
    asked = random_keys(pair)
    one = small(pair, tmp_path)
    rasters(one, asked, pair)
    one.save()
    two = small(pair, tmp_path)
    first = two.entries_of(asked[:50], [])
    assert two.drawn == len(np.unique(asked[:50]))
    expected = rasters(small(pair), asked, pair)
    assert rasters(two, asked, pair) == expected
    assert two.entries_of(asked[:50], [0, 1]).tolist() == first.tolist()
    two.save()
    assert rasters(small(pair, tmp_path), asked, pair) == expected


def damage_by_cutting(content: bytes) -> list[bytes]:
    return [content[: len(content) * part // 7] for part in range(7)]


def damage_by_flipping(content: bytes) -> list[bytes]:
    flipped = []
    for at in np.linspace(0, len(content) - 1, 40).astype(int).tolist():
        flipped.append(content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])
    return flipped


@pytest.mark.parametrize(
    "damage", [damage_by_cutting, damage_by_flipping, lambda _: [b"", b"PK\x03\x04", b"\x00" * 999]]
)
def test_a_damaged_file_is_thrown_away_and_drawn_anew(pair, tmp_path, caplog, damage):
    asked = random_keys(pair, 0, 60)
    one = small(pair[:1], tmp_path)
    asked = asked[asked >> 24 < bases(pair)[1][0]]
    expected = rasters(one, asked, pair[:1])
    one.save()
    (file,) = tmp_path.iterdir()
    noticed = 0
    for content in damage(file.read_bytes()):
        file.write_bytes(content)
        caplog.clear()
        again = small(pair[:1], tmp_path)
        assert rasters(again, asked, pair[:1]) == expected
        if again.drawn:
            # A flipped byte in zip's own padding harms nothing; everything else must be said, and the file be gone.
            assert str(file) in caplog.text and "damaged" in caplog.text
            assert not file.exists()
            noticed += 1
    assert noticed >= 3


def test_rasters_of_another_face_under_this_one_s_name_are_thrown_away(pair, tmp_path, caplog):
    for face in range(2):
        one = small(pair[face : face + 1], tmp_path)
        one.entries_of(random_keys(pair[face : face + 1]), [0])
        one.save()
    first, second = sorted(tmp_path.iterdir())
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0])
    for face in range(2):
        again = small(pair[face : face + 1], tmp_path)
        again.entries_of(random_keys(pair[face : face + 1]), [0])
        assert again.drawn
    assert caplog.text.count("does not match its checksum") == 2


def test_a_damaged_file_that_cannot_be_removed_is_not_used(pair, tmp_path, caplog, monkeypatch):
    one = small(pair[:1], tmp_path)
    one.entries_of(random_keys(pair[:1]), [0])
    one.save()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-300])

    def locked(path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(file), "unlink", locked)
    again = small(pair[:1], tmp_path)
    again.entries_of(random_keys(pair[:1]), [0])
    assert again.drawn and "damaged" in caplog.text


def test_a_file_of_objects_is_not_unpickled(pair, tmp_path, caplog):
    one = small(pair[:1], tmp_path)
    one.entries_of(random_keys(pair[:1]), [0])
    one.save()
    (file,) = tmp_path.iterdir()
    np.savez(file, keys=np.array([{}], object), entries=np.zeros((1, 5)), pixels=np.zeros(1), check=0)
    assert small(pair[:1], tmp_path).entries_of(random_keys(pair[:1]), [0]).min() >= 0
    assert "damaged" in caplog.text


def test_a_file_too_large_for_the_atlas_is_left_on_disk(pair, tmp_path):
    one = small(pair, tmp_path)
    expected = rasters(one, random_keys(pair), pair)
    one.save()
    tiny = small(pair, tmp_path, limit_bytes=1 << 14)
    assert rasters(tiny, random_keys(pair), pair) == expected
    assert tiny.drawn > 0


def test_a_folder_that_cannot_be_written_costs_a_warning(pair, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    atlas = small(pair, blocked)
    atlas.entries_of(random_keys(pair), [0, 1])
    atlas.save()
    assert "can't be written" in caplog.text
    assert blocked.read_text() == "not a folder"


def test_no_partial_files_are_left(pair, tmp_path):
    atlas = small(pair, tmp_path / "new" / "folder")
    atlas.entries_of(random_keys(pair), [0, 1])
    atlas.save()
    assert {file.suffix for file in (tmp_path / "new" / "folder").iterdir()} == {".npz"}


def test_a_glyph_that_does_not_load_is_an_error_that_names_the_face(pair):
    atlas = small(pair[:1])
    with pytest.raises(FontError, match=pair[0].name):
        atlas.entries_of(keys(np.array([60_000]), np.array([1280]), np.array([0])), [0])
    # What was staged before the fault must not slip under other keys afterwards.
    asked = random_keys(pair[:1])
    assert rasters(atlas, asked, pair[:1]) == rasters(small(pair[:1]), asked, pair[:1])


def test_an_atlas_without_room_grows_amid_a_batch(pair):
    asked = random_keys(pair)
    roomy, tight = small(pair), GlyphAtlas(pair, bases(pair), None, limit_bytes=64, limit_entries=4)
    assert rasters(tight, asked, pair) == rasters(roomy, asked, pair)


def test_a_glyph_larger_than_the_first_guess(pair):
    gid = Shaper(pair[0]).shape("ក")[0].gid
    large, left, top = Rasterizer(pair[0]).bitmap(0, gid, 64 * 400)
    assert large.size > 1 << 14 and all(edge.any() for edge in (large[0], large[-1], large[:, 0], large[:, -1]))
    half, half_left, half_top = Rasterizer(pair[0]).bitmap(0, gid, 64 * 200)
    assert abs(len(large) - 2 * len(half)) <= 2 and abs(left - 2 * half_left) <= 2 and abs(top - 2 * half_top) <= 2


def test_the_face_at_work_is_told(pair):
    atlas = small(pair)
    atlas.entries_of(random_keys(pair)[-1:], [1])
    assert atlas.at_face_1.tolist() == [1]


def test_cache_dir_is_as_named(monkeypatch, tmp_path):
    monkeypatch.setenv("KHMER_OCR_CACHE", str(tmp_path / "a"))
    assert cache_dir() == tmp_path / "a"
    monkeypatch.delenv("KHMER_OCR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_dir() == tmp_path / "b" / "khmer_ocr"


def test_limits_hold_what_they_promise():
    assert atlas_module.LIMIT_BYTES % 4 == 0 and atlas_module.LIMIT_ENTRIES & (atlas_module.LIMIT_ENTRIES - 1) == 0

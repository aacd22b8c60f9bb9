"""Every kind of image to the same grey pixels; everything else to an error that names it."""

import io
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from khmer_ocr.errors import ImageError
from khmer_ocr.recognize import image_input
from khmer_ocr.recognize.image_input import pages_of, read_grey

Grey = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def grey() -> Grey:
    """A gradient with a dark stroke: wrong scales and wrong orders both show."""
    pixels_HW = np.linspace(60, 255, 24 * 90).reshape(24, 90).round().astype(np.uint8)
    pixels_HW[4:20, 10:13] = 0
    return pixels_HW


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "YCbCr", "CMYK", "HSV", "LAB", "PA", "La", "RGBa"])
def test_every_mode_is_the_same_grey(grey: Grey, mode: str) -> None:
    image = Image.fromarray(grey)
    if mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    elif mode == "LAB":
        image = Image.merge("LAB", [image, Image.new("L", image.size, 128), Image.new("L", image.size, 128)])
    elif mode == "HSV":
        image = image.convert("RGB")
    if image.mode != mode:
        image = image.convert(mode)
    # Lightness of LAB is no linear grey.
    np.testing.assert_allclose(read_grey(image).astype(int), grey, atol=30 if mode == "LAB" else 1)


def test_two_levels(grey: Grey) -> None:
    expected = np.where(grey > 127, 255, 0)
    np.testing.assert_array_equal(read_grey(Image.fromarray(grey > 127)), expected)
    np.testing.assert_array_equal(
        read_grey(file_of(Image.fromarray(grey > 127), "TIFF", compression="group4")), expected
    )
    np.testing.assert_array_equal(read_grey(grey > 127), expected)


@pytest.mark.parametrize(
    ("kind", "options", "off"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("GIF", {}, 0),
        ("PPM", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 98}, 12),
    ],
)
def test_every_format(grey: Grey, kind: str, options: dict[str, object], off: int, tmp_path: Path) -> None:
    data = file_of(Image.fromarray(grey), kind, **options)
    (tmp_path / "line.x").write_bytes(data)
    for source in (data, bytearray(data), tmp_path / "line.x", str(tmp_path / "line.x")):
        np.testing.assert_allclose(read_grey(source).astype(int), grey, atol=off)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_deep_pixels_are_scaled_not_clipped(grey: Grey, bits: int) -> None:
    """By the smallest usual depth that holds them."""
    full = (1 << bits) - 1
    deep = np.rint(grey.astype(np.float64) * full / 255).astype(np.uint16)
    expected = grey.astype(int) * (511 / 1023 if bits == 9 else 1)
    for source in (
        Image.fromarray(deep),
        file_of(Image.fromarray(deep)),
        file_of(Image.fromarray(deep), "TIFF"),
        Image.fromarray(deep.astype(np.int32)),
        deep,
        deep.astype(np.int64),
        deep.astype(np.float32),
        Image.fromarray(deep.astype(np.float32)),
    ):
        np.testing.assert_allclose(read_grey(source).astype(int), expected, atol=1)


def test_floats_from_0_to_1_and_bytes_in_any_container(grey: Grey) -> None:
    for source in (grey / 255, (grey / 255).astype(np.float32), Image.fromarray((grey / 255).astype(np.float32))):
        np.testing.assert_allclose(read_grey(source).astype(int), grey, atol=1)
    for kind in (np.int16, np.uint32, np.int64, np.float64):
        np.testing.assert_array_equal(read_grey(grey.astype(kind)), grey)


def test_arrays_with_channels(grey: Grey) -> None:
    three = np.repeat(grey[..., None], 3, 2)
    opaque = np.full((*grey.shape, 1), 255, np.uint8)
    for array in (
        grey[..., None],
        three,
        np.concatenate([three, opaque], 2),
        np.concatenate([grey[..., None], opaque], 2),
    ):
        np.testing.assert_allclose(read_grey(array).astype(int), grey, atol=1)
    np.testing.assert_array_equal(read_grey(np.asfortranarray(grey)[:, ::-1]), grey[:, ::-1])
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert read_grey(red).max() == 76  # ITU-R 601: 0.299 of 255


def test_the_source_is_not_changed_and_not_shared(grey: Grey) -> None:
    mine = grey.copy()
    read_grey(mine)[:] = 0
    image = Image.fromarray(mine)
    read_grey(image)[:] = 0
    np.testing.assert_array_equal(mine, grey)
    np.testing.assert_array_equal(np.asarray(image), grey)


def test_transparency_lies_on_white(grey: Grey) -> None:
    ink = Image.new("RGBA", (90, 24), (0, 0, 0, 0))
    ink.putalpha(Image.fromarray(255 - grey))
    np.testing.assert_allclose(read_grey(ink).astype(int), grey, atol=1)
    np.testing.assert_allclose(read_grey(file_of(ink)).astype(int), grey, atol=1)
    keyed = Image.fromarray(np.where(grey == 0, 0, 7).astype(np.uint8))
    assert set(np.unique(read_grey(file_of(keyed, transparency=7)))) == {0, 255}
    palette = Image.fromarray(grey).convert("P")
    palette.info["transparency"] = bytes([255] * 255 + [0])
    assert read_grey(palette)[-1, -1] == 255
    deep = np.where(grey == 0, 0, 700).astype(np.uint16)
    assert set(np.unique(read_grey(file_of(Image.fromarray(deep), transparency=700)))) == {0, 255}


def test_white_ink_on_nothing_is_ink_all_the_same(grey: Grey) -> None:
    """As logos and captions are stored: laid on white they would vanish."""
    white = Image.new("RGBA", (90, 24), (255, 255, 255, 0))
    white.putalpha(Image.fromarray(255 - grey))
    np.testing.assert_allclose(read_grey(white).astype(int), grey, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_says_which_way_is_up(grey: Grey, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(grey)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_grey(file_of(stored, exif=exif)), grey)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(width: int, height: int) -> bytes:
    """A small file that unfolds to a huge image."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 16)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(9000, 9000), (14000, 14000), (60000, 60000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_before_they_unfold(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"67108864 pixels|no image that can be read"):
        read_grey(bomb(*size), "bomb.png")


def test_metadata_that_swells_is_refused(grey: Grey) -> None:
    info = PngInfo()
    info.add_text("note", "0" * (8 << 20), zip=True)
    with pytest.raises(ImageError, match="swollen"):
        read_grey(file_of(Image.fromarray(grey), pnginfo=info), "swollen")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_a_file_cut_short_is_no_image_anywhere(grey: Grey, kind: str) -> None:
    noisy = np.random.default_rng(1).integers(0, 256, grey.shape).astype(np.uint8)
    data = file_of(Image.fromarray(noisy), kind)
    for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9):
        with pytest.raises(ImageError, match=r"cut\.x"):
            read_grey(data[: int(share * len(data))], "cut.x")


def test_flipped_bits_raise_nothing_else_than_our_own_error(grey: Grey) -> None:
    rng = np.random.default_rng(2)
    refused = 0
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM"):
        data = file_of(Image.fromarray(grey), kind)
        for _ in range(60):
            broken = bytearray(data)
            for at in rng.integers(0, len(data), 3):
                broken[at] ^= 1 << int(rng.integers(8))
            try:
                assert read_grey(bytes(broken)).dtype == np.uint8
            except ImageError:
                refused += 1
    assert refused > 60


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "empty (0 bytes)"),
        (b"#!/bin/sh\necho no image\n", "is text, no image: it begins with '#!/bin/sh echo no image'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is a PostScript document"),
        (b"\x01\x02\x03\x04", "is no image that can be read: it begins with b'\\x01\\x02\\x03\\x04'; expected PNG"),
        ("no/such.png", "no/such.png does not exist"),
        ("nul\0byte.png", "can't be read"),
        (42, "given as int"),
        (np.zeros((0, 5), np.uint8), "5 x 0 px: it has no pixels"),
        (np.zeros((3, 4, 5), np.uint8), "shape (3, 4, 5)"),
        (np.zeros((2, 3, 4, 5), np.uint8), "shape (2, 3, 4, 5)"),
        (np.zeros(7, np.uint8), "shape (7,)"),
        (np.array([["a"]]), "booleans, integers or floats"),
        (np.full((3, 3), np.nan), "NaN"),
        (np.zeros((3, 3), complex), "complex128"),
    ],
)
def test_what_is_no_image_says_so(source: object, says: str) -> None:
    with pytest.raises(ImageError, match=re.escape(says)):
        read_grey(source)  # type: ignore[arg-type]


def test_folders_and_files_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"is a folder; expected image files, for example .*\*\.png"):
        read_grey(tmp_path)
    (tmp_path / "large.png").write_bytes(bytes(3 << 20))
    monkeypatch.setattr(image_input, "MAX_FILE_BYTES", 2 << 20)
    with pytest.raises(ImageError, match="larger than 2 MiB"):
        read_grey(tmp_path / "large.png")


def saved(folder: Path, name: str, image: Image.Image, **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.tif", {"dpi": (204, 102), "compression": "group4"}),
        ("a.png", {"dpi": (200, 100)}),
        ("a.jpg", {"dpi": (200, 100), "quality": 98}),
    ],
)
def test_pixels_that_are_not_square_are_set_square(name: str, options: dict[str, object], tmp_path: Path) -> None:
    """As fax machines write them: half the rows of a square scan."""
    square = np.full((60, 200), 255, np.uint8)
    square[20:40, 50:58] = 0
    flat = Image.fromarray(square).resize((200, 30), Image.Resampling.BOX)
    if "compression" in options:
        flat = flat.convert("1")
    seen = read_grey(saved(tmp_path, name, flat, **options))
    assert seen.shape == (60, 200)
    assert np.abs(seen.astype(int) - square).mean() < 3
    # The other axis is the coarser one.
    narrow = Image.fromarray(square).resize((100, 60), Image.Resampling.BOX)
    dpi = {"dpi": (100, 200)}
    assert read_grey(saved(tmp_path, name, narrow, **dpi)).shape == (60, 200)


def test_resolutions_that_say_nothing_change_nothing(grey: Grey, tmp_path: Path) -> None:
    for number, dpi in enumerate([(300, 300), (300, 299), (72, 1), (1, 1200)]):
        path = saved(tmp_path, f"{number}.png", Image.fromarray(grey), dpi=dpi)
        np.testing.assert_array_equal(read_grey(path), grey)
    # An image in memory was perhaps resized, and keeps the resolutions of its file.
    path = saved(tmp_path, "flat.png", Image.fromarray(grey), dpi=(200, 100))
    with Image.open(path) as image:
        assert read_grey(image.resize((90, 48))).shape == (48, 90)


def test_resolutions_are_those_of_the_pixels_before_they_are_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.new("L", (30, 200), 255)  # held sideways, its rows are columns
    path = saved(tmp_path, "turned.jpg", lying, dpi=(100, 200), exif=exif)
    assert read_grey(path).shape == (60, 200)


@pytest.fixture
def pages(grey: Grey, tmp_path: Path) -> Path:
    first, *others = (Image.fromarray(np.roll(grey, shift, 1)) for shift in (0, 20, 40))
    return saved(tmp_path, "pages.tif", first, save_all=True, append_images=others)


def test_every_page_of_a_tiff_is_a_line_of_its_own(grey: Grey, pages: Path, tmp_path: Path) -> None:
    found = pages_of(pages)
    assert [str(page) for page in found] == [f"{pages}#{number}" for number in (1, 2, 3)]
    for page, shift in zip(found, (0, 20, 40), strict=True):
        np.testing.assert_array_equal(read_grey(page), np.roll(grey, shift, 1))
    with pytest.raises(ImageError, match=r"pages\.tif holds 3 pages, and one line is expected here.*recognize"):
        read_grey(pages)
    alone = saved(tmp_path, "alone.tif", Image.fromarray(grey))
    assert pages_of(alone) == [alone]
    for unreadable in (tmp_path / "none.tif", tmp_path, tmp_path / ("a" * 300), Path("nul\0.tif")):
        assert pages_of(unreadable) == [unreadable]
    (tmp_path / "cut.tif").write_bytes(pages.read_bytes()[:100])
    assert pages_of(tmp_path / "cut.tif") == [tmp_path / "cut.tif"]


def test_the_preview_in_a_tiff_is_no_page(grey: Grey, tmp_path: Path) -> None:
    preview = TiffImagePlugin.ImageFileDirectory_v2()
    preview[254] = 1
    path = tmp_path / "scan.tif"
    with TiffImagePlugin.AppendingTiffWriter(str(path), True) as file:
        Image.fromarray(grey).save(file, format="TIFF")
        file.newFrame()
        Image.fromarray(grey[::4, ::4].copy()).save(file, format="TIFF", tiffinfo=preview)
    with Image.open(path) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile) and image.n_frames == 2
    assert pages_of(path) == [path]
    np.testing.assert_array_equal(read_grey(path), grey)


@pytest.mark.parametrize(("kind", "name"), [("GIF", "a.gif"), ("WEBP", "a.webp"), ("PNG", "a.png")])
def test_an_animation_is_refused(grey: Grey, kind: str, name: str, tmp_path: Path) -> None:
    other = [Image.fromarray(np.roll(grey, 30, 1))]
    path = saved(tmp_path, name, Image.fromarray(grey), save_all=True, append_images=other)
    with pytest.raises(ImageError, match=rf"a\.\w+ is an animated {kind} of 2 frames.*as PNG"):
        read_grey(path)


def test_a_camera_s_jpeg_with_a_preview_is_one_image(grey: Grey, tmp_path: Path) -> None:
    preview = [Image.fromarray(grey[::2, ::2].copy())]
    path = saved(tmp_path, "photo.mpo", Image.fromarray(grey), save_all=True, append_images=preview, quality=98)
    np.testing.assert_allclose(read_grey(path).astype(int), grey, atol=12)
    assert pages_of(path) == [path]


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name in names:
            packed.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"%PDF-1.7\n...", r"is a PDF document\..*pdftoppm -r 300 -png"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), r"is a HEIC or HEIF photograph.*JPEG or PNG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0" + bytes(99), r"is a film"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', r"is an SVG drawing.*as PNG"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg width="3"/>', r"is an SVG drawing"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", r"is a web page \(HTML\).*[Dd]ownload"),
        (b"version https://git-lfs.example/spec/v1\noid sha256:00\n", r"is a pointer of Git LFS.*git lfs pull"),
        (archive("lines/1.png"), r"is a ZIP archive\. Unpack it"),
        (archive("[Content_Types].xml", "word/document.xml"), r"is a document of an office program.*PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), r"is a document of an office program"),
        (b"\x1f\x8b\x08" + bytes(9), r"is a packed file"),
        ("ភាសាខ្មែរ".encode(), r"is text, no image: it begins with 'ភាសាខ្មែរ'"),
        (b"", r"is empty \(0 bytes\)"),
        (bytes(range(200, 250)), r"is no image that can be read: it begins with .*; expected PNG"),
        (b"\x89PNG\r\n\x1a\nnothing", r"is no image that can be read"),
    ],
)
def test_a_file_that_is_no_image_is_named_for_what_it_is(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "line.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"line\.png " + says) as caught:
        read_grey(path)
    assert "0x" not in str(caught.value) and "BytesIO" not in str(caught.value)


def test_paths_that_no_file_system_takes(tmp_path: Path) -> None:
    for path in (tmp_path / ("ក" * 120 + ".png"), "nul\0byte.png"):
        with pytest.raises(ImageError, match="can't be read"):
            read_grey(path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png is empty"):
        read_grey(tmp_path / "pipe.png")


def test_one_pixel() -> None:
    assert read_grey(np.array([[7]], np.uint8)).tolist() == [[7]]
    assert read_grey(file_of(Image.new("1", (1, 1), 1))).tolist() == [[255]]

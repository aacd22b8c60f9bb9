import io
import os
import struct
import tarfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from khmer_ocr.dataset import paths, sample_decoding, shards
from khmer_ocr.errors import DatasetError
from khmer_ocr.recognize.image_input import read_grey
from tests.dataset.trees import pixels, png, write_shard

PAGE = pixels("train", 3)
PNG = png(PAGE)


def saved(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_grey_pixels_come_back_as_written():
    np.testing.assert_array_equal(sample_decoding.decode_image(PNG, "x.png"), PAGE)


@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_size_comes_back_as_written(width, height, seed):
    page = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    np.testing.assert_array_equal(sample_decoding.decode_image(png(page), "x.png"), page)


def test_every_mode_becomes_grey_on_white_paper():
    black_left = Image.new("L", (4, 2), 255)
    black_left.paste(0, (0, 0, 2, 2))
    expected = np.array(black_left)
    alpha = Image.new("L", (4, 2), 0)
    alpha.paste(255, (0, 0, 2, 2))
    all_black = Image.merge("LA", (Image.new("L", (4, 2), 0), alpha))
    sixteen = Image.fromarray(expected.astype(np.uint16) * 257)
    palette = black_left.convert("P")
    transparent = Image.new("L", (4, 2), 7)
    transparent.paste(0, (0, 0, 2, 2))
    for name, data in {
        "1": saved(black_left.convert("1")),
        "RGB": saved(black_left.convert("RGB")),
        "P": saved(palette),
        "LA": saved(all_black),
        "RGBA": saved(all_black.convert("RGBA")),
        "I;16": saved(sixteen),
        "L with a transparent grey": saved(transparent, transparency=7),
    }.items():
        np.testing.assert_array_equal(sample_decoding.decode_image(data, name), expected, err_msg=name)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_deep_pixels_are_scaled_by_the_depth_that_holds_them(bits):
    """A scanner's 12 bits in a PNG of 16 were nearly black, and `recognize` saw another image than training did."""
    full = (1 << bits) - 1
    deep = np.rint(PAGE.astype(np.float64) * full / PAGE.max()).astype(np.uint16)
    seen = sample_decoding.decode_image(saved(Image.fromarray(deep)), "deep.png")
    np.testing.assert_allclose(seen.astype(int), PAGE * (255 / PAGE.max()), atol=1)
    np.testing.assert_array_equal(seen, read_grey(saved(Image.fromarray(deep))))


def test_a_stored_png_keeps_its_pixels_whatever_resolution_it_states():
    """Its size is that of its header, as every other reader of the data set sees it."""
    np.testing.assert_array_equal(
        sample_decoding.decode_image(saved(Image.fromarray(PAGE), dpi=(200, 100)), "x.png"),
        sample_decoding.decode_image(PNG, "x.png"),
    )


@pytest.mark.parametrize("keep", [1, 7, 20, 33, 60, len(PNG) - 13, len(PNG) - 1])
def test_a_truncated_png_is_an_error(keep):
    with pytest.raises(DatasetError, match=r"broken\.png is (cut short|damaged)"):
        sample_decoding.decode_image(PNG[:keep], "broken.png")


def test_a_truncated_png_is_an_error_even_where_pillow_was_told_to_load_it(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DatasetError, match="cut short"):
        sample_decoding.decode_image(PNG[:-40], "broken.png")


def test_zero_bytes_and_foreign_bytes_are_named():
    with pytest.raises(DatasetError, match=r"a\.png is empty \(0 bytes\)"):
        sample_decoding.decode_image(b"", "a.png")
    with pytest.raises(DatasetError, match=r"a\.png is no image that can be read"):
        sample_decoding.decode_image(b"GIF89a" + bytes(40), "a.png")


@given(st.integers(0, len(PNG) - 1), st.integers(0, 7))
def test_no_flipped_bit_passes_unseen(at, bit):
    broken = bytearray(PNG)
    broken[at] ^= 1 << bit
    with pytest.raises(DatasetError, match=r"^a\.png "):
        sample_decoding.decode_image(bytes(broken), "a.png")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_bomb_is_refused_from_its_header():
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    bomb = sample_decoding.PNG_SIGNATURE + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(DatasetError, match="60000 x 60000 px"):
        sample_decoding.decode_image(bomb, "bomb.png")


def by_hand(page: np.ndarray, rows: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", page.shape[1], page.shape[0], 8, 0, 0, 0, 0))
    return sample_decoding.PNG_SIGNATURE + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def unfiltered(page: np.ndarray) -> bytes:
    return np.pad(page, ((0, 0), (1, 0))).tobytes()


@pytest.mark.parametrize(
    "change", [lambda rows: rows[:-1], lambda rows: rows[:40], lambda rows: rows + b"0", lambda _: b""]
)
def test_whole_chunks_with_another_count_of_pixels_do_not_decode(change):
    with pytest.raises(DatasetError, match=r"a\.png does not decode"):
        sample_decoding.decode_image(by_hand(PAGE, change(unfiltered(PAGE))), "a.png")


def test_a_pixel_stream_without_its_checksum_does_not_decode():
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", PAGE.shape[1], PAGE.shape[0], 8, 0, 0, 0, 0))
    stream = chunk(b"IDAT", zlib.compress(unfiltered(PAGE))[:-4])
    with pytest.raises(DatasetError, match="does not decode"):
        sample_decoding.decode_image(sample_decoding.PNG_SIGNATURE + header + stream + chunk(b"IEND", b""), "a.png")


@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_short_way_for_unfiltered_rows_gives_the_pixels_pillow_gives(width, height, seed):
    page = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    data = by_hand(page, unfiltered(page))
    np.testing.assert_array_equal(sample_decoding.decode_image(data, "a.png"), page)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), page)


def test_interlaced_png_is_read():
    rows = np.arange(8, dtype=np.uint8).reshape(1, 8)  # 8 x 1 px in Adam7: passes 1, 2, 4 and 6 have 1, 1, 2, 4 pixels
    passes = b"".join(b"\0" + bytes(rows[0, at]) for at in (slice(0, 1), slice(4, 5), slice(2, 8, 4), slice(1, 8, 2)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 1, 8, 0, 0, 0, 1))
    data = sample_decoding.PNG_SIGNATURE + header + chunk(b"IDAT", zlib.compress(passes)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(sample_decoding.decode_image(data, "a.png"), rows)


def test_what_is_read_stays_under_its_root(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside.png"
    root.mkdir()
    outside.write_bytes(PNG)
    (root / "inside.png").write_bytes(PNG)
    (root / "link.png").symlink_to("inside.png")
    (root / "leak.png").symlink_to(outside)
    assert paths.read_contained(root, root / "link.png") == PNG
    with pytest.raises(DatasetError, match="leads out of"):
        paths.read_contained(root, root / "leak.png")
    with pytest.raises(DatasetError, match=r"none\.png is missing"):
        paths.read_contained(root, root / "none.png")


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(DatasetError, match="not a plain file"):
            paths.read_contained(tmp_path, tmp_path / name)


@pytest.mark.parametrize("name", ["", ".", "..", "../x.png", "/etc/passwd", "a/b.png", "..\\x.png", "a\0.png"])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(DatasetError, match="not a plain file name"):
        paths.safe_name(name, "metadata.json")


def test_pixel_hash_ignores_how_the_array_is_stored():
    wide = np.zeros((PAGE.shape[0], PAGE.shape[1] + 9), np.uint8)
    wide[:, : PAGE.shape[1]] = PAGE
    assert sample_decoding.pixel_hash(wide[:, : PAGE.shape[1]]) == sample_decoding.pixel_hash(PAGE)
    assert sample_decoding.pixel_hash(PAGE) != sample_decoding.pixel_hash(255 - PAGE)


def test_labels_lose_one_line_end_and_nothing_else():
    assert sample_decoding.decode_label("ខ្មែរ \n".encode(), "a.txt") == "ខ្មែរ "
    assert sample_decoding.decode_label("ខ្មែរ\r\n".encode(), "a.txt") == "ខ្មែរ"
    assert sample_decoding.decode_label("ខ្មែរ\n\n".encode(), "a.txt") == "ខ្មែរ\n"
    with pytest.raises(DatasetError, match=r"a\.txt is not UTF-8"):
        sample_decoding.decode_label("ខ្មែរ".encode()[:-1], "a.txt")


MEMBERS = [("train_000000.png", PNG), ("train_000000.txt", b""), ("train_000000.json", b"{}" * 300)]


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_lie_where_they_are_said_to(tmp_path, tar_format):
    path = tmp_path / "train-000000.tar"
    long_name = [] if tar_format == tarfile.USTAR_FORMAT else [("n" * 150, b"does not fit a ustar header")]
    members = [*MEMBERS, ("ខ្មែរ.txt", b"x" * 513), *long_name]
    write_shard(path, [*members, ("./plain.txt", b"as `tar cf x.tar .` names it")], tar_format)
    found = shards.tar_members(tmp_path, path)
    expected = {**dict(members), "plain.txt": b"as `tar cf x.tar .` names it"}
    assert {name: shards.read_member(tmp_path, path, *place) for name, place in found.items()} == expected


def test_the_quick_walk_finds_what_the_standard_library_finds(tmp_path):
    path = tmp_path / "train-000000.tar"
    write_shard(path, [(f"train_{i:06d}.txt", bytes(i * 37)) for i in range(60)])
    with tarfile.open(path) as tar:
        expected = {member.name: (member.offset_data, member.size) for member in tar}
    assert shards.tar_members(tmp_path, path) == expected


def test_damaged_tars_are_named(tmp_path):
    path = tmp_path / "train-000000.tar"
    write_shard(path, MEMBERS)
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for broken, fault in (
        (b"", "is empty"),
        (b"no tar at all" * 100, "not a readable tar"),
        (whole[:700], "cut short"),
        (whole[: -(-end // 512) * 512], "cut short"),
        (whole[:130] + b"7" + whole[131:], "fails its checksum"),
    ):
        path.write_bytes(broken)
        with pytest.raises(DatasetError, match=fault):
            shards.tar_members(tmp_path, path)
    write_shard(path, [MEMBERS[0], MEMBERS[0]])
    with pytest.raises(DatasetError, match="twice"):
        shards.tar_members(tmp_path, path)

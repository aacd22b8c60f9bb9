"""Damaged trees: each fault raises, or costs exactly the lines it concerns; never a blank image."""

import io
import logging
import os
import shutil
import struct
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.dataset.trees import edit_metadata, pixels, png, text, write_shard, write_tree

torch = pytest.importorskip("torch")

from khmer_ocr.dataset import layout  # noqa: E402
from khmer_ocr.dataset.index import load_index  # noqa: E402
from khmer_ocr.dataset.sample_decoding import PNG_SIGNATURE  # noqa: E402
from khmer_ocr.errors import DatasetError  # noqa: E402
from khmer_ocr.load.cache import HEADER_BYTES  # noqa: E402
from khmer_ocr.load.cache_builder import build_cache, open_or_build  # noqa: E402
from tests.load.loading import ENGINES, assert_equal, open_split  # noqa: E402

COUNT = 240
BAD = 77
NAME = layout.stem("train", BAD)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return {
        format: write_tree(tmp_path_factory.mktemp(format) / "data", {"train": COUNT}, format, chunk=100)
        for format in layout.FORMATS
    }


@pytest.fixture(params=layout.FORMATS)
def tree(request, whole, tmp_path):
    return shutil.copytree(whole[request.param], tmp_path / "data")


def change(root, suffix, edit):
    """Edit the bytes of the bad sample's file or shard member; None takes it away."""
    folder = root / "train" / (layout.IMAGES if suffix == "png" else layout.LABELS)
    if folder.is_dir():
        path, data = folder / f"{NAME}.{suffix}", edit((folder / f"{NAME}.{suffix}").read_bytes())
        path.unlink()
        if data is not None:
            path.write_bytes(data)
        return
    shard = root / "train/shards" / layout.shard_name("train", BAD // 100)
    with tarfile.open(shard) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]
    members = [(name, edit(data) if name == f"{NAME}.{suffix}" else data) for name, data in members]
    shard.unlink()
    write_shard(shard, [(name, data) for name, data in members if data is not None])


def flipped(data):
    """A bit of the pixel data, which Pillow itself does not notice."""
    at = data.index(b"IDAT") + 20
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def stream(edit):
    """A PNG whose CRCs are right and whose pixel data are not."""

    def broken(data):
        rows = b"".join(b"\0" + row.tobytes() for row in pixels("train", BAD))
        return PNG_SIGNATURE + data[8:33] + chunk(b"IDAT", edit(zlib.compress(rows))) + chunk(b"IEND", b"")

    return broken


DAMAGE = {
    "truncated": (lambda root: change(root, "png", lambda data: data[: len(data) // 2]), "is cut short"),
    "header only": (lambda root: change(root, "png", lambda data: data[:20]), "is cut short"),
    "zero bytes": (lambda root: change(root, "png", lambda data: b""), r"is empty \(0 bytes\)"),
    "no PNG": (lambda root: change(root, "png", lambda data: b"GIF89a" * 20), "is no image that can be read"),
    "flipped bit": (lambda root: change(root, "png", flipped), "fails its CRC"),
    "missing": (lambda root: change(root, "png", lambda data: None), "missing|does not hold"),
    "swapped label": (lambda root: change(root, "txt", lambda data: text("train", 5).encode()), "says"),
    "label not UTF-8": (lambda root: change(root, "txt", lambda data: b"\xff\xfa"), "is not UTF-8"),
    "label missing": (lambda root: change(root, "txt", lambda data: None), "missing|does not hold"),
    "wrong size": (lambda root: edit_metadata(root, "train", BAD, image_width=9), "metadata.json says 9 x 32"),
    "another image": (lambda root: change(root, "png", lambda data: png(pixels("train", 4))), "metadata.json says"),
    "stream cut": (lambda root: change(root, "png", stream(lambda data: data[:-30])), "does not decode"),
    "stream short": (lambda root: change(root, "png", stream(lambda _: zlib.compress(b"\0" * 99))), "does not decode"),
    "stream sum": (lambda root: change(root, "png", stream(lambda d: d[:-1] + bytes([d[-1] ^ 1]))), "does not decode"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_bad_sample_raises_or_is_left_out(tree, engine, damage, caplog):
    wreck, message = DAMAGE[damage]
    wreck(tree)
    with pytest.raises(DatasetError, match=message) as raised:
        list(open_split(tree, engine=engine).epoch(0))
    assert NAME in str(raised.value) and str(tree) in str(raised.value)

    loader = open_split(tree, engine=engine, on_error="skip")
    for epoch in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            batches = list(loader.epoch(epoch))
        index = [i for batch in batches for i in batch["index"].tolist()]
        assert sorted(index) == [i for i in range(COUNT) if i != BAD]
        assert list(loader.left_out) == [BAD]
        assert "1 of 240 samples were left out" in caplog.text and NAME in caplog.text
        for batch in batches:
            lengths, images = batch["image_lengths"], batch["images"]
            assert len(images) == len(batch["texts"]) == len(lengths) == len(batch["targets"])
            assert (images.amin((1, 2, 3)) < 255).all()
            assert images.shape[3] == -(-int(lengths.max()) // 8) * 8
    assert loader.statistics.left_out == 2 and loader.statistics.samples == 2 * (COUNT - 1)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_cache_is_built_without_a_bad_sample_only_where_that_is_asked_for(tree, damage):
    wreck, message = DAMAGE[damage]
    wreck(tree)
    with pytest.raises(DatasetError, match=message):
        open_split(tree, cache=True)
    assert not list((tree / "train").glob("*packed-*.lines*"))

    for engine in ENGINES:
        loader = open_split(tree, engine=engine, cache=True, on_error="skip")
        index = [i for batch in loader.epoch(0) for i in batch["index"].tolist()]
        assert sorted(index) == [i for i in range(COUNT) if i != BAD]
        assert list(loader.left_out) == [BAD] and NAME in loader.left_out[BAD]
        with pytest.raises(DatasetError, match=message):
            list(open_split(tree, engine=engine, cache=True).epoch(0))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bit_that_flips_in_a_cache_raises_or_costs_its_line(tree, engine):
    cache = open_or_build(load_index(tree, "train"), progress=False)
    with cache.path.open("r+b") as file:
        file.seek(HEADER_BYTES + int(cache.begins_N[BAD]) + 100)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(DatasetError, match=rf"the pixels of {NAME}\.png are not those that were stored"):
        list(open_split(tree, engine=engine, cache=True).epoch(0))
    loader = open_split(tree, engine=engine, cache=True, on_error="skip")
    for epoch in range(2):
        assert sum(len(batch["texts"]) for batch in loader.epoch(epoch)) == COUNT - 1
        assert list(loader.left_out) == [BAD]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_link_out_of_the_root_is_not_followed(whole, tmp_path, engine):
    tree = shutil.copytree(whole["files"], tmp_path / "data")
    image, outside = tree / "train/images" / f"{NAME}.png", tmp_path / "outside.png"
    image.rename(outside)
    image.symlink_to(outside)
    with pytest.raises(DatasetError, match=r"leads out of .* through a symbolic link"):
        list(open_split(tree, engine=engine).epoch(0))
    loader = open_split(tree, engine=engine, on_error="skip")
    assert sum(len(batch["texts"]) for batch in loader.epoch(0)) == COUNT - 1
    image.unlink()
    inside = tree / "train/images/moved.png"
    outside.rename(inside)
    image.symlink_to(inside)
    assert sum(len(batch["texts"]) for batch in open_split(tree, engine=engine).epoch(0)) == COUNT


@pytest.mark.parametrize("engine", ENGINES)
def test_a_shard_that_links_out_of_the_root_is_not_followed(whole, tmp_path, engine):
    tree = shutil.copytree(whole["webdataset"], tmp_path / "data")
    shard, outside = tree / "train/shards/train-000000.tar", tmp_path / "outside.tar"
    shard.rename(outside)
    shard.symlink_to(outside)
    with pytest.raises(DatasetError, match=r"leads out of .* through a symbolic link"):
        list(open_split(tree, engine=engine).epoch(0))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_metadata_that_name_a_file_elsewhere_are_refused_as_a_whole(tree, on_error):
    edit_metadata(tree, "train", BAD, filename="../../../etc/passwd")
    with pytest.raises(DatasetError, match="is not a plain file name"):
        open_split(tree, on_error=on_error)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_path_that_leaves_the_root_is_not_what_is_read(tree, engine):
    expected = list(open_split(tree, engine=engine).epoch(0))
    edit_metadata(tree, "train", BAD, image_path="/etc/passwd", label_path="../../outside.txt")
    assert_equal(expected, open_split(tree, engine=engine).epoch(0))


@pytest.mark.parametrize("engine", ENGINES)
def test_more_than_one_in_a_hundred_raises_though_skipping_was_asked_for(tree, engine):
    if (tree / "train/images").is_dir():
        for i in (3, 50, 120):
            (tree / "train/images" / f"{layout.stem('train', i)}.png").write_bytes(b"")
    else:
        os.truncate(tree / "train/shards/train-000001.tar", 5000)
    with pytest.raises(DatasetError, match=r"3 of 240 samples can't be read, more than 1 %|more than 1 %"):
        list(open_split(tree, engine=engine, on_error="skip").epoch(0))
    with pytest.raises(DatasetError, match="more than 1 %"):
        open_split(tree, engine=engine, on_error="skip", cache=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_without_a_readable_line_is_passed_over(tree, engine):
    change(tree, "png", lambda data: b"")
    loader = open_split(tree, engine=engine, on_error="skip", batch_size=1)
    numbers = [batch["number"] for batch in loader.epoch(0)]
    assert len(numbers) == COUNT - 1 == len(set(numbers)) and set(numbers) < set(range(COUNT))
    ranks = [open_split(tree, engine=engine, on_error="skip", batch_size=1, world=2, rank=rank) for rank in (0, 1)]
    with pytest.raises(DatasetError, match=r"no line of batch \d+ can be read, and rank \d would be a batch behind"):
        [list(loader.epoch(0)) for loader in ranks]


@pytest.mark.parametrize("settings", [{"num_workers": 1}, {"prefetch": 0}, {"num_workers": 2, "engine": "dali"}])
def test_workers_report_faults_too(tree, settings):
    change(tree, "png", flipped)
    loader = open_split(tree, on_error="skip", **settings)
    assert sum(len(batch["texts"]) for batch in loader.epoch(0)) == COUNT - 1 and list(loader.left_out) == [BAD]
    loader.close()
    loader = open_split(tree, **settings)
    with pytest.raises(DatasetError, match=NAME):
        list(loader.epoch(0))
    loader.close()


def test_other_pixels_of_the_same_size_are_noticed_where_they_are_decoded_here(tree):
    page = pixels("train", BAD)
    change(tree, "png", lambda data: png(255 - page))
    with pytest.raises(DatasetError, match=rf"{NAME}\.png has other pixels than recorded"):
        list(open_split(tree).epoch(0))
    with pytest.raises(DatasetError, match="has other pixels than recorded"):
        build_cache(load_index(tree, "train"), progress=False)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_without_metadata_a_scan_finds_the_same_data_set(tree, engine, cache):
    expected = list(open_split(tree, engine=engine, cache=cache).epoch(0))
    (tree / "train/metadata.json").unlink()
    for on_error in ("raise", "skip"):
        assert_equal(expected, open_split(tree, engine=engine, cache=cache, on_error=on_error).epoch(0))


def test_a_scan_leaves_out_what_has_no_header_or_label_where_that_is_asked_for(tree, caplog):
    change(tree, "png", lambda data: b"")
    (tree / "train/metadata.json").unlink()
    with pytest.raises(DatasetError, match=r"is empty \(0 bytes\)"):
        open_split(tree)
    loader = open_split(tree, on_error="skip")
    assert len(loader.lines) == COUNT - 1 and "1 of 240 samples were left out" in caplog.text
    assert sum(len(batch["texts"]) for batch in loader.epoch(0)) == COUNT - 1


def test_colours_transparency_and_sixteen_bits_become_the_same_grey(whole, tmp_path):
    tree = shutil.copytree(whole["files"], tmp_path / "data")
    (tree / "train/metadata.json").unlink()  # its pixel hashes are those of other images
    height, width = pixels("train", BAD).shape
    rng = np.random.default_rng(0)
    shapes = {"RGB": (height, width, 3), "RGBA": (height, width, 4), "I;16": (height, width), "LA": (height, width, 2)}
    for mode, shape in shapes.items():
        values = rng.integers(0, 256, shape).astype(np.uint16 if mode == "I;16" else np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(values * (257 if mode == "I;16" else 1)).save(buffer, "PNG")
        change(tree, "png", lambda data, colourful=buffer: colourful.getvalue())
        assert_equal(open_split(tree).epoch(0), open_split(tree, engine="dali").epoch(0))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("settings", [{}, {"num_workers": 1}, {"cache": True}])
def test_names_that_are_no_utf_8_are_read_and_named(tmp_path, engine, settings, caplog):
    tree = write_tree(tmp_path / "data", {"train": COUNT})
    (tree / "train/metadata.json").unlink()
    odd = os.fsdecode(f"scan{BAD}".encode() + b"\xe9")
    for folder, suffix in ((layout.IMAGES, "png"), (layout.LABELS, "txt")):
        (tree / "train" / folder / f"{NAME}.{suffix}").rename(tree / "train" / folder / f"{odd}.{suffix}")
    loader = open_split(tree, engine=engine, **settings)
    written = sorted(text("train", i) for i in range(COUNT))
    assert sorted(one for batch in loader.epoch(0) for one in batch["texts"]) == written
    loader.close()
    (tree / "train/images" / f"{odd}.png").write_bytes(png(pixels("train", 4))[:-30])
    with pytest.raises(DatasetError, match="scan77"):
        list(open_split(tree, engine=engine, **settings).epoch(0))
    loader = open_split(tree, engine=engine, on_error="skip", **settings)
    assert sum(len(batch["texts"]) for batch in loader.epoch(0)) == COUNT - 1
    assert "scan77" in caplog.text
    loader.close()

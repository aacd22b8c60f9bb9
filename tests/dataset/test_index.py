import json
import pickle
import shutil
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.index import build_index, load_index
from khmer_ocr.dataset.metadata import iter_samples, read_header
from khmer_ocr.dataset.reader import Strings
from khmer_ocr.errors import DatasetError, SplitNotFoundError
from tests.dataset.trees import (
    FONTS,
    as_older_scripts_wrote_it,
    edit_metadata,
    header,
    only_known_keys,
    pixels,
    sample,
    text,
    write_metadata,
    write_split,
    write_tree,
)

OTHER_LAYOUTS = [
    {"indent": 2, "ensure_ascii": False},
    {"indent": 4},
    {"indent": 0},
    {"indent": None},
    {"separators": (",", ":")},
    {"indent": "\t", "sort_keys": True},
]


def same(one, other, *, hashes=True, fonts=True):
    np.testing.assert_array_equal(one.widths, other.widths)
    np.testing.assert_array_equal(one.heights, other.heights)
    assert [one.text(i) for i in range(len(one))] == [other.text(i) for i in range(len(other))]
    assert [one.filename(i) for i in range(len(one))] == [other.filename(i) for i in range(len(other))]
    if fonts:
        assert [one.font(i) for i in range(len(one))] == [other.font(i) for i in range(len(other))]
    if hashes:
        np.testing.assert_array_equal(one.pixel_hashes, other.pixel_hashes)


@pytest.mark.parametrize("format", layout.FORMATS)
def test_every_sample_comes_back_as_written(tmp_path, format):
    write_split(tmp_path, "train", 25, format, chunk=10)
    index = load_index(tmp_path, "train")
    assert len(index) == 25 and not index.scanned
    assert index.fonts == FONTS
    assert len(index.shards) == (3 if format == "webdataset" else 0)
    for i in range(25):
        page = pixels("train", i)
        assert (index.widths[i], index.heights[i]) == page.shape[::-1]
        assert index.text(i) == index.label_text(i) == text("train", i)
        assert index.filename(i) == f"train_{i:06d}.png"
        assert index.font(i) == FONTS[i % 3]
        assert f"{index.pixel_hashes[i]:016x}" == sample("train", i, page)["pixel_hash"]
        np.testing.assert_array_equal(index.image(i), page)


def test_both_formats_give_equal_pixels_in_any_order(tmp_path):
    for format in layout.FORMATS:
        write_split(tmp_path / format, "val", 23, format, chunk=7)
    files, shards = (load_index(tmp_path / format, "val") for format in layout.FORMATS)
    same(files, shards)
    for i in np.random.default_rng(0).permutation(23).tolist():
        np.testing.assert_array_equal(files.image(i), shards.image(i))
        assert files.label_text(i) == shards.label_text(i)


@pytest.mark.parametrize("options", OTHER_LAYOUTS)
def test_metadata_of_older_scripts_is_read_in_any_layout(tmp_path, options):
    write_split(tmp_path, "train", 12)
    ours = load_index(tmp_path, "train")
    as_older_scripts_wrote_it(tmp_path, "train", **options)
    theirs = load_index(tmp_path, "train")
    same(ours, theirs, hashes=False)
    assert theirs.pixel_hashes is None
    np.testing.assert_array_equal(theirs.image(11), pixels("train", 11))
    header_keys = set(read_header(tmp_path / "train/metadata.json"))
    assert header_keys == {"split", "total_samples", "augmentation_applied", "fonts_used", "image_height", "samples"}


def test_the_header_is_read_without_the_samples(tmp_path):
    write_split(tmp_path, "train", 3)
    path = tmp_path / "train/metadata.json"
    assert read_header(path) == {**header("train", 3), "samples": []}
    path.write_text(json.dumps({**header("train", 3), "samples": [{"a": {"b": [1]}}], "notes": {"x": [1, {"y": 2.5}]}}))
    assert read_header(path) == {**header("train", 3), "samples": [], "notes": {"x": [1, {"y": 2.5}]}}


def test_an_empty_split_is_read(tmp_path):
    write_split(tmp_path, "train", 0)
    assert len(load_index(tmp_path, "train")) == 0
    as_older_scripts_wrote_it(tmp_path, "train", indent=2)
    index = load_index(tmp_path, "train")
    assert len(index) == 0 and len(index.texts.lengths()) == 0


def test_samples_stream_one_by_one(tmp_path):
    write_split(tmp_path, "train", 9)
    first = list(islice(iter_samples(tmp_path / "train/metadata.json"), 2))
    assert first == [sample("train", i, pixels("train", i)) for i in range(2)]


def test_many_blocks_are_joined_without_a_seam(tmp_path):
    entry = sample("train", 0, pixels("train", 0))
    entries = [{**entry, "filename": layout.stem("train", i), "text": f"{i} " + "ក" * (i % 97)} for i in range(3000)]
    folder = tmp_path / "train"
    folder.mkdir()
    write_metadata(folder, "train", entries)
    assert (folder / "metadata.json").stat().st_size > 4 << 18
    assert list(iter_samples(folder / "metadata.json")) == entries


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 0.9, 0.9999])
def test_metadata_cut_at_any_place_is_an_error_that_says_what_to_do(tmp_path, share, older):
    write_tree(tmp_path, {"train": 10})
    if older:
        only_known_keys(tmp_path)
    path = tmp_path / "train/metadata.json"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * (len(data) - 1))])
    advice = "restore what is missing .* from where this data set came" if older else "khmer-ocr verify .* --repair"
    with pytest.raises(DatasetError, match=rf"train/metadata\.json.*{advice}.*move this file away"):
        load_index(tmp_path, "train")


def test_metadata_cut_between_two_samples_and_closed_again_is_an_error(tmp_path):
    write_split(tmp_path, "train", 10)
    path = tmp_path / "train/metadata.json"
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b',\n{"filename": "train_000006')] + layout.FOOTER)
    with pytest.raises(DatasetError, match="total_samples is 10, but 6 samples follow"):
        load_index(tmp_path, "train")


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("place", [0, 5, 9])
def test_a_damaged_sample_is_an_error_wherever_it_stands(tmp_path, place, older):
    write_split(tmp_path, "train", 10)
    if older:
        as_older_scripts_wrote_it(tmp_path, "train", indent=2)
    path = tmp_path / "train/metadata.json"
    data = path.read_bytes()
    parts = data.split(b'"text": ')
    assert len(parts) == 11
    path.write_bytes(b'"text": '.join(parts[: place + 1]) + b'"text" ' + b'"text": '.join(parts[place + 1 :]))
    with pytest.raises(DatasetError, match=r"metadata\.json"):
        load_index(tmp_path, "train")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"filename": "../../secret.png"}, "not a plain file name"),
        ({"filename": "/etc/passwd"}, "not a plain file name"),
        ({"filename": ".."}, "not a plain file name"),
        ({"shard": "../x.tar"}, "not a plain file name"),
        ({"text": None}, "sample 4 has no 'text'"),
        ({"font": 3}, "sample 4 has font = 3"),
        ({"image_width": "40"}, "sample 4 has the size '40'"),
        ({"image_width": 0}, "sample 4 has the size 0"),
        ({"image_height": 10**15}, "sample 4 has the size"),
        ({"image_width": True}, "sample 4 has the size True"),
        ({"pixel_hash": "nonsense"}, "sample 4 holds a value"),
        ({"pixel_hash": 12}, "sample 4 holds a value"),
        ({"pixel_hash": None}, "only 9 of 10 samples have 'pixel_hash'"),
        ({"shard": "train-000000.tar"}, "only 1 of 10 samples have 'shard'"),
    ],
)
@pytest.mark.parametrize("pretty", [False, True])
def test_a_bad_sample_is_an_error_that_names_it(tmp_path, changes, fault, pretty):
    write_split(tmp_path, "train", 10)
    edit_metadata(tmp_path, "train", 4, **changes)
    path = tmp_path / "train/metadata.json"
    if pretty:
        path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))
    with pytest.raises(DatasetError, match=fault):
        load_index(tmp_path, "train")


def test_a_lone_surrogate_is_an_error(tmp_path):
    write_split(tmp_path, "train", 2)
    path = tmp_path / "train/metadata.json"
    path.write_bytes(path.read_bytes().replace(b'"filename": "', b'"filename": "\\ud800', 1))
    with pytest.raises(DatasetError, match="sample 0 holds a value that cannot be stored"):
        load_index(tmp_path, "train")


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b"null", b'{"samples": {}}', b'{"samples": [1]}', b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe"],
)
def test_json_of_another_shape_is_an_error(tmp_path, content):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/metadata.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"metadata\.json"):
        load_index(tmp_path, "train")


@settings(max_examples=60)
@given(data=st.data())
def test_no_damage_to_metadata_ends_in_another_exception(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "fuzz" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    write_metadata(folder, "train", [sample("train", i, pixels("train", i)) for i in range(3)])
    path = folder / "metadata.json"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        index = load_index(folder.parent, "train")
    except DatasetError as fault:
        assert "metadata.json" in str(fault)
    else:
        assert len(index) == 3 and all(isinstance(index.text(i), str) for i in range(3))


@pytest.mark.parametrize("format", layout.FORMATS)
def test_a_scan_finds_what_the_metadata_say(tmp_path, format):
    write_split(tmp_path, "train", 25, format, chunk=10)
    told = load_index(tmp_path, "train")
    (tmp_path / "train/metadata.json").unlink()
    found = load_index(tmp_path, "train")
    assert found.scanned and found.fonts == ("unknown",)
    same(told, found, hashes=False, fonts=False)
    assert found.shards == told.shards
    for i in (0, 13, 24):
        np.testing.assert_array_equal(found.image(i), told.image(i))


def test_a_scan_counts_past_a_million(tmp_path):
    write_split(tmp_path, "train", 3)
    for old, new in (("train_000001", "train_999999"), ("train_000002", "train_1000000")):
        for folder, suffix in (("images", ".png"), ("labels", ".txt")):
            (tmp_path / "train" / folder / (old + suffix)).rename(tmp_path / "train" / folder / (new + suffix))
    (tmp_path / "train/metadata.json").unlink()
    index = load_index(tmp_path, "train")
    assert [index.filename(i) for i in range(3)] == ["train_000000.png", "train_999999.png", "train_1000000.png"]


def test_a_scan_names_a_missing_label_and_a_broken_image(tmp_path):
    write_split(tmp_path, "train", 3)
    (tmp_path / "train/metadata.json").unlink()
    label, image = tmp_path / "train/labels/train_000001.txt", tmp_path / "train/images/train_000002.png"
    label.rename(tmp_path / "kept")
    with pytest.raises(DatasetError, match=r"labels/train_000001\.txt is missing"):
        load_index(tmp_path, "train")
    (tmp_path / "kept").rename(label)
    image.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"images/train_000002\.png is empty"):
        load_index(tmp_path, "train")


def test_what_is_absent_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(SplitNotFoundError, match=r"train does not exist. Run: khmer-ocr generate .*--splits train"):
        load_index(tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(DatasetError, match=r"neither metadata\.json nor images/ nor shards/; expected images/"):
        load_index(tmp_path, "train")


def test_a_tree_can_be_moved_and_is_not_followed_back(tmp_path):
    write_tree(tmp_path / "old", {"train": 5})
    shutil.move(tmp_path / "old", tmp_path / "new place")
    edit_metadata(tmp_path / "new place", "train", 2, image_path="/etc/passwd", label_path="../../x")
    index = load_index(tmp_path / "new place", "train")
    np.testing.assert_array_equal(index.image(2), pixels("train", 2))
    assert index.label_text(2) == text("train", 2)


def test_links_out_of_the_root_are_refused_and_links_within_it_followed(tmp_path):
    write_tree(tmp_path / "root", {"train": 5})
    images = tmp_path / "root/train/images"
    (images / "train_000003.png").rename(tmp_path / "outside.png")
    (images / "train_000003.png").symlink_to(tmp_path / "outside.png")
    (images / "train_000004.png").rename(tmp_path / "root/elsewhere.png")
    (images / "train_000004.png").symlink_to("../../elsewhere.png")
    index = load_index(tmp_path / "root", "train")
    with pytest.raises(DatasetError, match=r"train_000003\.png leads out of"):
        index.image(3)
    np.testing.assert_array_equal(index.image(4), pixels("train", 4))
    images.rename(tmp_path / "images")
    images.symlink_to(tmp_path / "images")
    with pytest.raises(DatasetError, match="leads out of"):
        load_index(tmp_path / "root", "train")


def test_the_root_itself_may_be_a_link(tmp_path):
    write_tree(tmp_path / "real", {"train": 2})
    (tmp_path / "link").symlink_to("real")
    np.testing.assert_array_equal(load_index(tmp_path / "link", "train").image(1), pixels("train", 1))


@pytest.mark.parametrize("format", layout.FORMATS)
def test_an_image_of_another_size_than_recorded_is_an_error(tmp_path, format):
    write_split(tmp_path, "train", 4, format)
    edit_metadata(tmp_path, "train", 2, image_width=999)
    with pytest.raises(DatasetError, match=r"train_000002\.png is .* metadata\.json says 999 x 32"):
        load_index(tmp_path, "train").image(2)


def test_a_shard_that_lost_a_member_names_it(tmp_path):
    write_split(tmp_path, "train", 4, "webdataset")
    edit_metadata(tmp_path, "train", 2, filename="train_000009.png")
    index = load_index(tmp_path, "train")
    with pytest.raises(DatasetError, match=r"train-000000\.tar does not hold train_000009\.png"):
        index.image(2)
    with pytest.raises(DatasetError, match=r"train-000000\.tar does not hold train_000009\.txt"):
        index.label_text(2)


def test_only_the_first_samples_are_read_when_asked(tmp_path):
    write_split(tmp_path, "train", 20)
    assert len(load_index(tmp_path, "train", max_samples=7)) == 7
    assert len(load_index(tmp_path, "train", max_samples=70)) == 20


@pytest.mark.parametrize("format", layout.FORMATS)
def test_an_index_survives_pickling(tmp_path, format):
    write_split(tmp_path, "train", 6, format)
    index = load_index(tmp_path, "train")
    index.image(0)
    again = pickle.loads(pickle.dumps(index))
    same(index, again)
    np.testing.assert_array_equal(again.image(5), pixels("train", 5))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12)))
def test_strings_and_their_lengths(strings):
    encoded = [string.encode() for string in strings]
    blob = np.frombuffer(bytearray(b"".join(encoded)), np.uint8)
    stored = Strings(blob, np.cumsum([0, *map(len, encoded)], dtype=np.int64))
    assert [stored[i] for i in range(len(stored))] == strings
    assert stored.lengths().tolist() == [len(string) for string in strings]


def test_more_fonts_than_an_int16_counts(tmp_path):
    entry = sample("train", 0, pixels("train", 0))
    index = build_index(tmp_path, "train", ({**entry, "font": f"font {i}"} for i in range(40_000)))
    assert index.font(39_999) == "font 39999"


@pytest.mark.slow
@pytest.mark.parametrize("older", [False, True])
def test_300_000_samples_open_in_little_memory(tmp_path, older):
    folder = tmp_path / "train"
    folder.mkdir()
    entry = sample("train", 0, pixels("train", 0))
    entries = [{**entry, "filename": layout.stem("train", i), "text": "ភាសាខ្មែរ" * (1 + i % 8)} for i in range(300_000)]
    write_metadata(folder, "train", entries)
    del entries
    if older:
        as_older_scripts_wrote_it(tmp_path, "train", indent=2, ensure_ascii=False)
    command = (
        "import re, sys, time; from pathlib import Path; from khmer_ocr.dataset.index import load_index;"
        "begin = time.perf_counter(); index = load_index(sys.argv[1], 'train'); assert len(index) == 300_000;"
        "elapsed_s = time.perf_counter() - begin;"
        "print(elapsed_s, int(re.search('VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", command, str(tmp_path)], capture_output=True, text=True, check=True)
    elapsed_s, peak_mib = map(float, done.stdout.split())
    print(f"\n300,000 samples: {elapsed_s:.2f} s, peak {peak_mib:.0f} MiB")
    assert peak_mib < 400

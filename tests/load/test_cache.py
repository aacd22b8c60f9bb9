import json
import os
import pickle
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.verify import verify
from khmer_ocr.errors import DatasetError, OutputError
from khmer_ocr.load.cache import HEADER_BYTES, PackedCache, cache_file, line_sums, tree_key
from khmer_ocr.load.cache_builder import build_cache, open_or_build
from khmer_ocr.load.cache_check import check_caches
from tests.dataset.trees import as_older_scripts_wrote_it, edit_metadata, pixels, write_tree
from tests.snapshots import everything

COUNT = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = write_tree(tmp_path_factory.mktemp("tree") / "data", {"train": COUNT})
    build_cache(load_index(root, "train"), progress=False)
    return root


@pytest.fixture
def tree(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "data")


def opened(root):
    return PackedCache.open(load_index(root, "train"))


def file_of(root):
    (path,) = (root / "train").glob("packed-*.lines")
    return path


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 16]))


@pytest.mark.parametrize("format", layout.FORMATS)
def test_a_line_is_its_image(tmp_path, format):
    root = write_tree(tmp_path / "data", {"train": COUNT}, format, chunk=16)
    index = load_index(root, "train")
    path = build_cache(index, progress=False, workers=2)
    cache = PackedCache.open(index)
    assert len(cache) == COUNT and cache.height_px == 32 and cache.path == path == file_of(root)
    for i in range(COUNT):
        np.testing.assert_array_equal(cache.line(i), pixels("train", i))
    with pytest.raises(IndexError, match="line 60 of 60"):
        cache.line(COUNT)
    with pytest.raises(ValueError, match="read-only"):
        cache.line(0)[0, 0] = 7


def test_it_is_built_once_and_then_left_alone(tree):
    path, index = file_of(tree), load_index(tree, "train")
    before = path.stat().st_mtime_ns
    build_cache(index, progress=False)
    open_or_build(index, progress=False)
    assert path.stat().st_mtime_ns == before
    build_cache(index, overwrite=True, progress=False)
    assert path.stat().st_mtime_ns > before


def test_its_bytes_do_not_depend_on_how_it_was_built(tree):
    before = file_of(tree).read_bytes()
    build_cache(load_index(tree, "train"), overwrite=True, progress=False, workers=3)
    assert file_of(tree).read_bytes() == before


def test_a_tree_made_anew_has_another_key_and_the_old_cache_goes(tree):
    old = file_of(tree)
    edit_metadata(tree, "train", 5, text="ថ្មី")
    (tree / "train/labels/train_000005.txt").write_text("ថ្មី", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"holds a cache of other data than it has now. Run: khmer-ocr cache"):
        opened(tree)
    open_or_build(load_index(tree, "train"), progress=False)
    assert file_of(tree) != old and not old.exists()


def test_a_moved_tree_keeps_its_cache(tree, tmp_path):
    moved = tree.rename(tmp_path / "moved")
    np.testing.assert_array_equal(opened(moved).line(3), pixels("train", 3))


def test_without_pixel_hashes_the_files_themselves_are_the_key(tmp_path):
    root = write_tree(tmp_path / "data", {"train": 5})
    as_older_scripts_wrote_it(root, "train")
    key = tree_key(load_index(root, "train"))
    assert key == tree_key(load_index(root, "train"))
    os.utime(root / "train/images/train_000003.png", ns=(1, 1))
    assert tree_key(load_index(root, "train")) != key


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "has no cache. Run: khmer-ocr cache"),
        (lambda path: path.write_bytes(b""), "header is damaged"),
        (lambda path: flip(path, 2), "header"),
        (lambda path: os.truncate(path, 100), "header is damaged"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "its header says"),
        (lambda path: flip(path, path.stat().st_size - 1), "its tables are damaged"),
        (lambda path: flip(path, path.stat().st_size - 700), "its tables are damaged"),
    ],
)
def test_a_damaged_cache_is_noticed_on_opening_and_made_again(tree, damage, message):
    damage(file_of(tree))
    with pytest.raises(DatasetError, match=message):
        opened(tree)
    cache = open_or_build(load_index(tree, "train"), progress=False)
    np.testing.assert_array_equal(cache.line(59), pixels("train", 59))


@given(st.data())
def test_any_flipped_bit_of_a_line_is_noticed_when_it_is_used(whole, tmp_path_factory, data):
    cache = opened(whole)
    line = data.draw(st.integers(0, COUNT - 1))
    at = data.draw(st.integers(0, int(cache.widths_N[line]) * 32 - 1))
    copied = cache.pixels_M.copy()
    copied[cache.begins_N[line] + at] ^= 1 << data.draw(st.integers(0, 7))
    bytes_N = cache.widths_N * 32
    sums_N, wrong_N = (line_sums(p.view(np.uint64), cache.begins_N, bytes_N) for p in (cache.pixels_M, copied))
    assert np.flatnonzero(sums_N != wrong_N).tolist() == [line]


@pytest.mark.parametrize("part", ["header", "tables"])
def test_any_flipped_byte_beside_the_pixels_is_an_error_or_changes_nothing(whole, tmp_path, part):
    tree = shutil.copytree(whole, tmp_path / "data")
    index, path = load_index(tree, "train"), file_of(tree)
    data = path.read_bytes()
    end = len(data.partition(b"}")[0]) + 2
    places = range(end) if part == "header" else range(len(data) - 16 * COUNT - 2, len(data), 5)
    noticed = 0
    for at in places:
        for bit in (1, 2, 128):
            path.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
            try:
                cache = PackedCache.open(index)
            except DatasetError as fault:
                assert f"{path} can't be used" in str(fault) and "--overwrite" in str(fault)
                noticed += 1
            else:  # a blank of the JSON
                for i in (0, COUNT - 1):
                    np.testing.assert_array_equal(cache.line(i), pixels("train", i))
    assert noticed > 2.9 * len(places)


@pytest.mark.parametrize(
    "header", [b"[" * HEADER_BYTES, b"[]", b"null", b"7", b"{}", b'{"format": 1e999}', b"\xff", b'{"samples": {}}', b""]
)
def test_a_header_of_any_bytes_is_refused(tree, header):
    path = file_of(tree)
    path.write_bytes(header.ljust(HEADER_BYTES) + path.read_bytes()[HEADER_BYTES:])
    with pytest.raises(DatasetError, match="can't be used: its header is damaged"):
        opened(tree)


def test_a_damaged_cache_is_built_anew_with_one_line_of_warning(tree, caplog):
    path = file_of(tree)
    whole = path.read_bytes()
    flip(path, len(whole) - 20)
    cache = open_or_build(load_index(tree, "train"), progress=False)
    assert path.read_bytes() == whole and len(cache) == COUNT
    assert [r.getMessage() for r in caplog.records] == [
        f"{path} can't be used: its tables are damaged. It is built anew."
    ]
    caplog.clear()
    path.unlink()
    open_or_build(load_index(tree, "train"), progress=False)
    assert not caplog.records


def test_a_cache_that_is_written_to_while_it_is_read_is_checked_anew(tree):
    cache = opened(tree)
    assert not cache.faults_of(np.arange(COUNT))
    flip(cache.path, HEADER_BYTES + int(cache.begins_N[7]) + 40)
    os.utime(cache.path)
    assert list(cache.faults_of(np.arange(COUNT))) == [7]
    os.truncate(cache.path, HEADER_BYTES)
    with pytest.raises(DatasetError, match="it was cut while it was read"):
        cache.line(3)


def test_a_cache_that_another_takes_the_place_of_reads_on(tree):
    cache, path = opened(tree), file_of(tree)
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)
    for i in range(COUNT):
        np.testing.assert_array_equal(cache.line(i), pixels("train", i))


def test_a_damaged_line_raises_and_the_others_are_read(tree):
    path = file_of(tree)
    flip(path, HEADER_BYTES + int(opened(tree).begins_N[7]) + 33)
    cache = opened(tree)
    with pytest.raises(DatasetError, match=r"pixels of train_000007.png are not those that were stored.*--overwrite"):
        cache.line(7)
    assert list(cache.faults_of(np.arange(COUNT))) == [7]
    np.testing.assert_array_equal(cache.line(8), pixels("train", 8))
    build_cache(load_index(tree, "train"), progress=False)  # whole to its sums is part of "whole already"
    np.testing.assert_array_equal(opened(tree).line(7), pixels("train", 7))


def test_a_gather_pads_with_background_and_fills_the_rows_it_was_given(whole):
    cache, out_BHX = opened(whole), np.full((4, 32, 96), 7, np.uint8)
    positions_L, rows_L = np.array([9, 30]), np.array([3, 1])
    cache.gather(positions_L, rows_L, out_BHX)
    bits_256 = np.arange(256, dtype=np.uint32) * 3
    wide_BHX = np.zeros((4, 32, 96), np.uint32)
    cache.gather(positions_L, rows_L, wide_BHX, bits_256)
    for i, row in ((9, 3), (30, 1)):
        page = pixels("train", i)
        np.testing.assert_array_equal(out_BHX[row, :, : page.shape[1]], page)
        assert (out_BHX[row, :, page.shape[1] :] == 255).all()
        np.testing.assert_array_equal(wide_BHX[row], bits_256[out_BHX[row]])
    assert (out_BHX[[0, 2]] == 7).all() and (wide_BHX[[0, 2]] == 0).all()
    for wrong in (np.zeros((4, 32, 10), np.uint8), np.zeros((4, 48, 96), np.uint8)):
        with pytest.raises(ValueError, match=r"px (wide|high), the batch (10|48)"):
            cache.gather(positions_L, rows_L, wrong)


def test_it_survives_pickling(whole):
    cache = pickle.loads(pickle.dumps(opened(whole)))
    np.testing.assert_array_equal(cache.line(11), pixels("train", 11))


def test_a_failed_build_leaves_nothing_and_no_half_cache_is_ever_seen(tree):
    file_of(tree).unlink()
    image = tree / "train/images/train_000050.png"
    data = image.read_bytes()
    image.write_bytes(b"")
    with pytest.raises(DatasetError, match="train_000050"):
        build_cache(load_index(tree, "train"), progress=False)
    assert not list((tree / "train").glob("*packed-*.lines*"))
    image.write_bytes(data)
    build_cache(load_index(tree, "train"), progress=False)


def test_a_folder_that_can_not_be_written_is_named(tree):
    path = file_of(tree)
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    with pytest.raises(OutputError, match="can't be written"):
        build_cache(load_index(tree, "train"), progress=False)


def test_a_cache_that_links_out_of_the_root_is_not_followed(tree, tmp_path):
    path = file_of(tree)
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(DatasetError, match="through a symbolic link"):
        opened(tree)


def test_several_processes_build_it_once(tree):
    file_of(tree).unlink()
    code = (
        "import sys; from khmer_ocr.dataset.index import load_index;"
        "from khmer_ocr.load.cache_builder import build_cache;"
        "index = load_index(sys.argv[1], 'train'); path = build_cache(index, progress=False); print(path.stat().st_ino)"
    )
    command = [sys.executable, "-c", code, str(tree)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate()[0] for process in running}) == 1
    assert not list((tree / "train").glob(".packed-*.partial"))
    np.testing.assert_array_equal(opened(tree).line(0), pixels("train", 0))


def test_threads_may_share_one(whole):
    cache, wrong = opened(whole), []

    def read():
        wrong.extend(i for i in range(COUNT) if not np.array_equal(cache.line(i), pixels("train", i)))

    threads = [threading.Thread(target=read) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong and not cache.faults_of(np.arange(COUNT))


def test_its_name_tells_what_it_is_of(whole):
    index = load_index(whole, "train")
    assert file_of(whole) == cache_file(index, tree_key(index))


@pytest.mark.parametrize("name", ["cache", "older cache", "lock", "lock not there", "split"])
def test_nothing_outside_is_touched_by_building(tree, tmp_path, name):
    home = tmp_path / "home"
    (home / "train").mkdir(parents=True)
    (home / "kept").write_bytes(b"mine")
    cache = file_of(tree)
    places = {"cache": cache, "older cache": cache.with_name("packed-00ff.lines"), "split": tree / "train"}
    place = places.get(name, cache.with_name(".packed-lock"))
    if name == "split":
        shutil.copytree(place, home / "train", dirs_exist_ok=True)
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to({"lock not there": home / "new", "split": home / "train"}.get(name, home / "kept"))
    before = everything(home)
    for overwrite in (False, True):
        with pytest.raises((OutputError, DatasetError), match="symbolic link"):
            build_cache(load_index(tree, "train"), overwrite=overwrite, progress=False)
        assert everything(home) == before


def test_a_planted_temporary_name_is_not_followed(tree, tmp_path):
    (tmp_path / "kept").write_bytes(b"mine")
    cache = file_of(tree)
    for name in (f".{cache.name}.partial", f".{cache.name}.{os.getpid()}.partial"):
        cache.with_name(name).symlink_to(tmp_path / "kept")
    build_cache(load_index(tree, "train"), overwrite=True, progress=False)
    assert (tmp_path / "kept").read_bytes() == b"mine" and len(opened(tree)) == COUNT


def problems_of(root):
    report = verify(root, progress=False)
    assert report.ok
    check_caches(report)
    return [(problem.filename, problem.fault) for problem in report.problems], report.notes


def test_verify_looks_at_caches_where_they_lie(tree):
    assert problems_of(tree) == ([], [])
    path = file_of(tree)
    flip(path, HEADER_BYTES + 100)
    ((name, fault),), _ = problems_of(tree)
    assert name == path.name and "other pixels than recorded of train_000000" in fault
    assert fault.endswith(f"Run: khmer-ocr cache {tree} --splits train --overwrite")
    flip(path, 10)
    ((_, fault),), _ = problems_of(tree)
    assert fault.startswith("can't be used: its header") and fault.count("Run:") == 1
    build_cache(load_index(tree, "train"), overwrite=True, progress=False)
    path.rename(path.with_name("packed-00ff.lines"))
    found, (note,) = problems_of(tree)
    assert not found and "earlier contents" in note


def test_a_cache_packed_from_other_images_is_found_out(tree):
    """Its sums are right; the recorded hashes are not those of its pixels."""
    index, path = load_index(tree, "train"), file_of(tree)
    edit_metadata(tree, "train", 7, pixel_hash="0123456789abcdef")
    other = load_index(tree, "train")
    key = tree_key(other)
    data = path.read_bytes()
    header = data[:HEADER_BYTES].replace(tree_key(index).encode(), key.encode())
    path.unlink()
    cache_file(other, key).write_bytes(header + data[HEADER_BYTES:])
    report = verify(tree, progress=False)
    check_caches(report)
    assert any("other pixels than recorded of train_000007" in problem.fault for problem in report.problems)


def test_pixels_of_another_line_with_a_right_sum_are_not_believed(tmp_path):
    """As in a cache that somebody hands over with a data set: sums are theirs, hashes are those of the metadata."""
    count, one, other = 70, 65, 5  # widths repeat after 60 lines
    tree = write_tree(tmp_path / "data", {"train": count})
    cache = open_or_build(load_index(tree, "train"), progress=False)
    path = cache.path
    data = bytearray(path.read_bytes())
    size = int(cache.widths_N[one]) * 32
    at, to = (HEADER_BYTES + int(cache.begins_N[i]) for i in (one, other))
    data[at : at + size], data[to : to + size] = data[to : to + size], data[at : at + size]
    header = json.loads(data[:HEADER_BYTES])
    tail_at = HEADER_BYTES + header["pixel_bytes"]
    tail = np.frombuffer(bytes(data[tail_at:]), np.uint8).copy()
    sums = tail[8 * count : 16 * count].view(np.uint64)
    sums[[one, other]] = sums[[other, one]]
    header["tail_hash"] = xxhash.xxh3_64_hexdigest(tail.tobytes())
    path.write_bytes(
        json.dumps(header).encode().ljust(HEADER_BYTES) + bytes(data[HEADER_BYTES:tail_at]) + tail.tobytes()
    )
    assert sorted(opened(tree).faults_of(np.arange(count))) == sorted([one, other])

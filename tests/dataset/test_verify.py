import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.shards import dali_index, tar_members
from khmer_ocr.dataset.split_checks import Problem
from khmer_ocr.dataset.verify import VerifyReport, verify
from khmer_ocr.errors import SplitNotFoundError
from tests.dataset.trees import (
    edit_metadata,
    pixels,
    png,
    sample,
    text,
    write_metadata,
    write_overall,
    write_shard,
    write_split,
    write_tree,
)

COUNTS = {"train": 12, "val": 4, "test": 3}


def check(root, **options):
    return verify(root, progress=False, **options)


def damage_file(root, name, data):
    (root / "train" / name).write_bytes(data)


def rewrite_shard(root, change):
    """Pass the members of the train split's first shard through `change` (a dict in, a dict out)."""
    members = {}
    for i in range(COUNTS["train"]):
        name, page = layout.stem("train", i), pixels("train", i)
        entry = sample("train", i, page, shard="train-000000.tar")
        members[f"{name}.png"] = png(page)
        members[f"{name}.txt"] = entry["text"].encode()
        members[f"{name}.json"] = json.dumps(entry).encode()
    write_shard(root / "train/shards/train-000000.tar", list(change(members).items()))


def put(root, format, name, data):
    """Replace a file or member of the train split; None takes it away."""
    if format == "webdataset":
        rewrite_shard(root, lambda old: {k: v for k, v in {**old, name: data}.items() if v is not None})
        return
    path = root / "train" / ("images" if name.endswith(".png") else "labels") / name
    path.unlink()
    if data is not None:
        path.write_bytes(data)


@pytest.fixture
def files(tmp_path):
    return write_tree(tmp_path / "data", COUNTS)


@pytest.fixture
def shards(tmp_path):
    return write_tree(tmp_path / "data", COUNTS, "webdataset")


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("format", layout.FORMATS)
def test_a_whole_data_set_has_no_problem(tmp_path, format, workers):
    report = check(write_tree(tmp_path / "data", COUNTS, format, chunk=5), workers=workers)
    assert report.problems == []
    assert report.ok and report.checked == COUNTS and report.damaged_chunks() == {}
    assert "19 samples checked (train 12, val 4, test 3)" in str(report) and "Nothing is wrong" in str(report)


def test_only_the_splits_asked_for_are_checked(files):
    damage_file(files, "images/train_000001.png", b"")
    assert check(files, splits=["val"]).checked == {"val": 4}
    assert check(files, splits=["val"]).ok
    assert not check(files, splits=["train", "val"]).ok


def test_what_was_asked_for_must_exist(files):
    with pytest.raises(SplitNotFoundError, match="khmer-ocr generate"):
        check(files, splits=["trian"])
    with pytest.raises(SplitNotFoundError, match="khmer-ocr generate"):
        check(files / "none")


PAGE = pixels("train", 7)
FLIPPED = PAGE.copy()
FLIPPED[10, 10] ^= 1


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (png(PAGE)[:100], "cut short"),
        (b"", "is empty (0 bytes)"),
        (b"text in place of an image" * 9, "is text, no image"),
        (png(FLIPPED), "has other pixels than recorded"),
        (png(PAGE[:, :-1]), f"is {PAGE.shape[1] - 1} x 32 px, but metadata.json says {PAGE.shape[1]} x 32"),
        (png(PAGE)[:60] + bytes([png(PAGE)[60] ^ 1]) + png(PAGE)[61:], "fails its CRC"),
        (None, "is missing"),
    ],
)
def test_a_damaged_image_is_named_in_both_formats(tmp_path, data, fault):
    for format in layout.FORMATS:
        root = write_tree(tmp_path / format, COUNTS, format)
        name = "train_000007.png"
        put(root, format, name, data)
        report = check(root)
        assert [(p.split, p.index, p.filename) for p in report.problems] == [("train", 7, name)]
        if format == "files" or data is not None:
            assert fault in report.problems[0].fault
            assert str(root) not in report.problems[0].fault
        assert report.damaged_chunks() == {"train": [0]}
        assert name in str(report) and "--repair" in str(report)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (text("train", 7).encode() + b"x", "label says"),
        (text("train", 7).encode()[:-1], "is not UTF-8"),
        (b"", "label says ''"),
        (None, "label"),
    ],
)
def test_a_damaged_label_is_named_in_both_formats(tmp_path, data, fault):
    for format in layout.FORMATS:
        root = write_tree(tmp_path / format, COUNTS, format)
        name = "train_000007.txt"
        put(root, format, name, data)
        report = check(root)
        assert [(p.split, p.index, p.filename) for p in report.problems] == [("train", 7, "train_000007.png")]
        assert fault in report.problems[0].fault


def test_a_line_end_after_a_label_is_tolerated(files):
    damage_file(files, "labels/train_000007.txt", text("train", 7).encode() + b"\n")
    assert check(files).ok


@pytest.mark.parametrize(
    "name", ["images/train_000012.png", "images/notes.txt", "labels/train_000099.txt", "labels/x.png"]
)
def test_an_extra_file_is_named_and_asks_for_no_repair(files, name):
    damage_file(files, name, b"")
    report = check(files)
    assert [(p.index, p.filename) for p in report.problems] == [(None, name)]
    assert "is extra" in report.problems[0].fault
    assert report.damaged_chunks() == {}


LEFT = [
    "images/.train_000003.png.4711.partial",
    "images/.train_000012.png.partial",
    "labels/.train_000003.txt.4711.partial",
    "shards/.train-000000.tar.4711.partial",
    "shards/.train-000000.idx.4711.partial",
]
NOT_LEFT = [
    "images/.train_000003.txt.4711.partial",
    "images/.val_000003.png.4711.partial",
    "images/.train_000003.png.4711.partial.png",
    "images/.train_000003.png.mine.partial",
    "images/.notes.4711.partial",
    "images/train_000003.png.4711.partial",
    "labels/.train_000003.txt.4711.partial~",
    "labels/.train_000003.txt",
    "shards/.train_000000.tar.4711.partial",
]


def test_what_a_killed_process_left_is_told_from_the_files_of_the_user(files):
    (files / "train/shards").mkdir()
    for name in (*LEFT, *NOT_LEFT):
        damage_file(files, name, b"half")
    report = check(files)
    assert {(p.index, p.filename) for p in report.problems} == {(None, name) for name in (*LEFT, *NOT_LEFT)}
    assert all("is extra" in p.fault and ("killed" in p.fault) is p.leftover for p in report.problems)
    assert sorted(report.leftovers()) == sorted(files / "train" / name for name in LEFT)
    for path in report.leftovers():
        path.unlink()
    assert report.leftovers() == []
    assert sorted(p.filename for p in check(files).problems) == sorted(NOT_LEFT)


def test_only_plain_files_count_as_left_behind(files, tmp_path):
    folder, link = (files / "train/images" / f".train_{i:06d}.png.1.partial" for i in (1, 2))
    folder.mkdir()
    (tmp_path / "kept").write_text("mine")
    link.symlink_to(tmp_path / "kept")
    report = check(files)
    assert len(report.problems) == 2 and report.leftovers() == []


def test_extra_members_of_a_shard_are_never_left_behind(shards):
    rewrite_shard(shards, lambda members: {**members, ".train_000044.png.1.partial": b""})
    report = check(shards)
    assert len(report.problems) == 1 and not report.problems[0].leftover and report.leftovers() == []


def test_extra_members_and_extra_shards_are_named(shards):
    rewrite_shard(shards, lambda members: {**members, "train_000044.png": b""})
    write_shard(shards / "train/shards/train-000001.tar", [])
    tar = shards / "train/shards/train-000000.tar"
    tar.with_suffix(".idx").write_bytes(dali_index(tar_members(shards, tar)))
    assert [(p.index, p.filename) for p in check(shards).problems] == [
        (None, "train-000000.tar/train_000044.png"),
        (None, "shards/train-000001.tar"),
    ]


def test_a_lost_or_damaged_shard_is_one_problem(tmp_path):
    root = tmp_path / "data"
    write_split(root, "train", 5, "webdataset")
    write_overall(root, {"train": 5}, "webdataset")
    shard = root / "train/shards/train-000000.tar"
    whole = shard.read_bytes()
    for data, fault in ((whole[:3000], "cut short"), (b"", "is empty"), (None, "is missing")):
        shard.write_bytes(data or b"")
        if data is None:
            shard.unlink()
        report = check(root)
        assert [(p.index, p.filename) for p in report.problems] == [(0, "train-000000.tar")]
        assert fault in report.problems[0].fault
        assert report.damaged_chunks() == {"train": [0]}


def test_damaged_json_members_are_named(shards):
    def change(members):
        members["train_000002.json"] = b"{"
        members["train_000003.json"] = members["train_000004.json"]
        del members["train_000005.json"]
        return members

    rewrite_shard(shards, change)
    report = check(shards)
    assert [(p.index, p.filename) for p in report.problems] == [(i, f"train_{i:06d}.json") for i in (2, 3, 5)]


@pytest.mark.parametrize("format", layout.FORMATS)
def test_missing_or_cut_metadata_are_a_problem_and_the_rest_is_still_checked(tmp_path, format):
    root = write_tree(tmp_path / "data", COUNTS, format)
    path = root / "train/metadata.json"
    whole = path.read_bytes()
    for data, fault in ((whole[: len(whole) // 2], "cut short"), (b"", "cut short"), (None, "is missing")):
        path.write_bytes(data or b"")
        if data is None:
            path.unlink()
        report = check(root)
        assert [(p.split, p.index, p.filename) for p in report.problems] == [("train", None, "metadata.json")]
        assert fault in report.problems[0].fault
        assert report.damaged_metadata() == ["train"]
        assert report.checked == COUNTS


def test_without_metadata_unreadable_samples_are_still_named_once(files):
    (files / "train/metadata.json").unlink()
    damage_file(files, "images/train_000003.png", b"")
    damage_file(files, "images/train_000005.png", (files / "train/images/train_000005.png").read_bytes()[:-9])
    (files / "train/labels/train_000004.txt").unlink()
    report = check(files, splits=["train"])
    found = [(p.index, p.filename) for p in report.problems if p.index is not None]
    assert set(found) == {(3, "train_000003.png"), (4, "train_000004.png"), (5, "train_000005.png")}
    assert report.damaged_chunks() == {"train": [0]}
    assert not any("extra" in p.fault for p in report.problems)


def test_an_empty_folder_is_a_problem(files):
    shutil.rmtree(files / "val")
    (files / "val").mkdir()
    report = check(files)
    assert {p.filename for p in report.problems if p.split == "val"} >= {"metadata.json"}
    shutil.rmtree(files / "val")
    assert next(p.fault for p in check(files).problems if p.split == "val").startswith("does not exist")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"splits": 3}', b"[" * 100_000])
def test_damaged_overall_metadata_are_a_problem(files, content):
    (files / "generation_metadata.json").write_bytes(content)
    report = check(files)
    assert [(p.split, p.filename) for p in report.problems] == [("", "generation_metadata.json")]
    assert report.checked == COUNTS and report.damaged_metadata() == [""]


def test_missing_overall_metadata_are_a_problem(files):
    (files / "generation_metadata.json").unlink()
    assert [(p.filename, p.fault) for p in check(files).problems] == [("generation_metadata.json", "is missing")]


def test_counts_of_the_overall_metadata_are_compared(files):
    write_overall(files, {**COUNTS, "val": 5})
    faults = [(p.filename, p.index, p.fault) for p in check(files).problems]
    assert ("generation_metadata.json", None, "records 5 samples of val, which has 4") in faults
    assert ("val_000004.png", 4, "is missing") in faults
    assert ("generation_metadata.json", None, "total_images is 20, the splits hold 19") in faults


def test_gaps_in_the_numbering_name_every_chunk_they_touch(tmp_path):
    folder = tmp_path / "data/train"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    entries = []
    for i in (0, 1, 3, 3000):
        page = pixels("train", i)
        entries.append(sample("train", i, page))
        (folder / f"images/train_{i:06d}.png").write_bytes(png(page))
        (folder / f"labels/train_{i:06d}.txt").write_text(text("train", i))
    write_metadata(folder, "train", entries)
    write_overall(tmp_path / "data", {"train": 4})
    report = check(tmp_path / "data")
    assert [(p.index, p.fault) for p in report.problems] == [
        (None, "does not number its samples 0, 1, 2, ... in this order"),
        (2, "is missing"),
        (4, "and the following 1019 are missing"),
        (1024, "and the following 1023 are missing"),
        (2048, "and the following 951 are missing"),
    ]
    assert report.damaged_chunks() == {"train": [0, 1, 2]}


def test_names_listed_twice_out_of_order_or_foreign_are_problems(files):
    edit_metadata(files, "train", 3, filename="train_000004.png")
    report = check(files)
    assert Problem("train", 4, "train_000004.png", "stands in the metadata twice") in report.problems
    assert Problem("train", 3, "train_000003.png", "is missing") in report.problems
    assert report.damaged_metadata() == ["train"]
    edit_metadata(files, "train", 3, filename="line3.png")
    assert Problem("train", None, "line3.png", "is not named like train_000003.png") in check(files).problems


def test_samples_out_of_order_are_a_problem(files):
    path = files / "train/metadata.json"
    write_metadata(files / "train", "train", json.loads(path.read_bytes())["samples"][::-1])
    assert [p.fault for p in check(files).problems] == ["does not number its samples 0, 1, 2, ... in this order"]
    assert check(files).damaged_metadata() == ["train"]


def test_a_split_that_calls_itself_otherwise_is_a_problem(files):
    path = files / "train/metadata.json"
    path.write_bytes(path.read_bytes().replace(b'"split": "train"', b'"split": "val"', 1))
    assert [p.fault for p in check(files).problems] == ["calls this split 'val'"]


def test_hostile_names_are_a_problem_and_are_not_followed(files, tmp_path):
    (tmp_path / "secret.png").write_bytes(png(pixels("train", 0)))
    edit_metadata(files, "train", 0, filename="../../../secret.png")
    report = check(files)
    assert [(p.index, p.filename) for p in report.problems] == [(None, "metadata.json")]
    assert "not a plain file name" in report.problems[0].fault
    write_overall(files, {**COUNTS, "../..": 3})
    assert any(p.split == "../.." and "not a plain file name" in p.fault for p in check(files).problems)


def test_links_out_of_the_root_are_problems(files, tmp_path):
    image = files / "train/images/train_000002.png"
    image.rename(tmp_path / "kept.png")
    image.symlink_to(tmp_path / "kept.png")
    problems = check(files).problems
    assert [(p.index, p.filename) for p in problems] == [(2, "train_000002.png")]
    assert "leads out of" in problems[0].fault
    (files / "val/labels").rename(tmp_path / "labels")
    (files / "val/labels").symlink_to(tmp_path / "labels")
    assert any(p.split == "val" and "leads out of" in p.fault for p in check(files).problems)


def test_old_metadata_without_hashes_are_checked_for_all_else(files):
    path = files / "train/metadata.json"
    metadata = json.loads(path.read_bytes())
    metadata["samples"] = [{k: s[k] for k in layout.REQUIRED_KEYS} for s in metadata["samples"]]
    path.write_text(json.dumps(metadata, indent=4))
    assert check(files).ok
    damage_file(files, "images/train_000001.png", png(np.full((32, 9), 255, np.uint8)))
    assert [p.index for p in check(files).problems] == [1]


def test_a_long_report_is_cut_for_the_reader():
    problems = [Problem("train", i, f"train_{i:06d}.png", "is missing") for i in range(3000)]
    report = VerifyReport(Path("data"), problems, {"train": 3000}, 1.0)
    assert "... and 2,980 more" in str(report) and len(str(report).splitlines()) == 23
    assert report.damaged_chunks() == {"train": [0, 1, 2]}


def test_progress_is_shown_when_asked(files, capsys):
    verify(files, ["train"])
    assert "verify train" in capsys.readouterr().err
    check(files, splits=["train"])
    assert capsys.readouterr().err == ""

"""Metadata of just the keys that users know, and `filename` in both its spellings."""

import json
from pathlib import Path

import pytest

from khmer_ocr.cli import main
from khmer_ocr.dataset import layout
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.verify import verify
from khmer_ocr.load.cache import tree_key
from tests.dataset.trees import edit_metadata, only_known_keys, pixels, png, sample, text, write_overall, write_tree

COUNTS = {"train": 9, "val": 3}


@pytest.mark.parametrize("with_suffix", [False, True])
def test_a_tree_of_the_known_keys_is_whole(
    tmp_path: Path, with_suffix: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    root = only_known_keys(write_tree(tmp_path / "data", COUNTS), with_suffix=with_suffix)
    main(["verify", str(root), "--quiet"])
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("Nothing is wrong.") and len(said) == 2
    assert "train, val hold no hashes" in said[1]
    main(["stats", str(root)])
    assert "12 images" in capsys.readouterr().out


def test_hashes_that_are_there_are_not_said_to_lack(tmp_path: Path) -> None:
    assert "no hashes" not in str(verify(write_tree(tmp_path / "data", COUNTS), progress=False))


def test_what_is_wrong_with_a_tree_of_the_known_keys_is_still_found(tmp_path: Path) -> None:
    root = only_known_keys(write_tree(tmp_path / "data", COUNTS))
    (root / "train/images/train_000003.png").unlink()
    (root / "train/labels/train_000004.txt").write_text("x", encoding="utf-8")
    found = verify(root, progress=False).problems
    assert [(p.index, p.filename) for p in found] == [(3, "train_000003.png"), (4, "train_000004.png")]


@pytest.mark.parametrize("format", layout.FORMATS)
def test_both_spellings_of_a_name_are_the_same_sample(tmp_path: Path, format: str) -> None:
    root = write_tree(tmp_path / "data", {"train": 7}, format)
    today = load_index(root, "train")
    for i in range(0, 7, 2):  # a run begun by 0.1.0 and gone on with holds both
        edit_metadata(root, "train", i, filename=f"train_{i:06d}.png")
    both = load_index(root, "train")
    assert [both.filename(i) for i in range(7)] == [f"train_{i:06d}.png" for i in range(7)]
    assert tree_key(both) == tree_key(today)  # so that caches packed before are found
    for i in range(7):
        assert both.paths(i) == today.paths(i)
        assert (both.image(i) == pixels("train", i)).all() and both.label_text(i) == text("train", i)
    assert verify(root, progress=False).ok


@pytest.mark.parametrize(
    ("filename", "image_path", "expected"),
    [
        ("train_000000", "data/synthetic/train/images/train_000000.png", "train_000000.png"),
        ("train_000000.png", "data/synthetic/train/images/train_000000.png", "train_000000.png"),
        ("train_000000", "out/train/shards/train-000000.tar/train_000000.png", "train_000000.png"),
        ("train_000000", "", "train_000000.png"),
        ("train_000000.png", "moved/elsewhere.png", "train_000000.png"),
        ("scan.v2", "in/images/scan.v2.png", "scan.v2.png"),
        ("scan.v2", "in/images/other.png", "scan.v2.png"),
        ("scan", "in/images/scan.JPG", "scan.JPG"),
        ("scan.jpeg", "in/images/scan.jpeg", "scan.jpeg"),
        ("scan.jpeg", "in/images/scan.jpeg.png", "scan.jpeg.png"),
        ("scan", "in/images/scan", "scan.png"),
        ("scan", "in/images/scan.png/../../../secret", "scan.png"),
        ("scan", "in/images/scan.sh", "scan.png"),
        (".png", "in/.png", ".png"),
    ],
)
def test_the_name_of_an_image_has_its_true_suffix(filename: str, image_path: str, expected: str) -> None:
    assert layout.image_name(filename, image_path) == expected


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "..", "a\\b", "a\0b", ""])
def test_a_name_without_suffix_leads_nowhere_either(tmp_path: Path, name: str) -> None:
    root = write_tree(tmp_path / "data", {"train": 3})
    (tmp_path / "secret.png").write_bytes(png(pixels("train", 0)))
    edit_metadata(root, "train", 0, filename=name, image_path=f"x/{name}.png")
    (problem,) = verify(root, progress=False).problems
    assert problem.filename == "metadata.json" and "not a plain file name" in problem.fault


def test_the_json_of_a_shard_may_spell_the_name_either_way(tmp_path: Path) -> None:
    entry = sample("train", 0, pixels("train", 0))
    assert entry["filename"] == "train_000000"
    root = write_tree(tmp_path / "data", {"train": 2}, "webdataset")
    write_overall(root, {"train": 2}, "webdataset")
    shard = root / "train/shards/train-000000.tar"
    spelt = json.dumps(sample("train", 1, pixels("train", 1), shard=shard.name))
    assert spelt.encode() in shard.read_bytes() and verify(root, progress=False).ok

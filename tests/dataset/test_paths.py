"""Names are plain, splits that are written are ours, and reading stays under the root."""

import os
from pathlib import Path

import pytest

from khmer_ocr.dataset import layout, paths
from khmer_ocr.errors import DatasetError, OutputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/kept").write_text("mine")
    (tmp_path / "root/.store").mkdir(parents=True)
    (tmp_path / "root/.store/ab").write_text("ours")
    return tmp_path / "root"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\\b", "a\0b", "../x"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    assert not paths.is_plain_name(name)
    with pytest.raises(DatasetError, match="not a plain file name"):
        paths.safe_name(name, "metadata.json")


@pytest.mark.parametrize("name", ["../x", "Train", "train ", "dev", "", "train/images"])
def test_only_splits_that_are_drawn_are_written(name: str, root: Path) -> None:
    with pytest.raises(DatasetError, match="names a split"):
        paths.own_split(name, root)
    with pytest.raises(DatasetError, match="Nothing was written or removed"):
        paths.refuse_links_of(root, ["train", name])
    assert [paths.own_split(split, root) for split in layout.SPLITS] == list(layout.SPLITS)


def test_links_are_read_while_they_stay_under_the_root(root: Path) -> None:
    (root / "one").symlink_to(".store/ab")
    (root / "two").symlink_to("one")
    (root / "folder").symlink_to(".store")
    (root / "out").symlink_to("../home/kept")
    (root / "by way of outside").symlink_to("../home/../root/.store/ab")
    (root / "chain").symlink_to("out")
    for name in ("one", "two", "by way of outside"):
        assert paths.read_contained(root, root / name) == b"ours"
    paths.check_contained(root, root / "folder")
    for name in ("out", "chain"):
        with pytest.raises(DatasetError, match="leads out of"):
            paths.read_contained(root, root / name)
    given = root.with_name("given")
    given.symlink_to(root)
    assert paths.read_contained(given, given / "two") == b"ours"


def test_what_is_no_plain_file_is_refused_at_once(root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "fifo link").symlink_to("fifo")
    (root / "round").symlink_to("round")
    for name in ("fifo", "fifo link", ".store", "round", "absent"):
        with pytest.raises(DatasetError, match=r"not a plain file|leads nowhere|cannot be opened|is missing"):
            paths.read_contained(root, root / name)


@pytest.mark.parametrize("name", ["generation_metadata.json", ".journal", "train", "train/images", "train/shards"])
def test_a_data_set_whose_parts_are_links_is_refused(root: Path, name: str) -> None:
    paths.refuse_links_of(root, layout.SPLITS)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).symlink_to(root / ".store")  # even one that stays inside: it would be written through
    with pytest.raises(OutputError, match="symbolic link"):
        paths.refuse_links_of(root, layout.SPLITS)

"""Trees kept as links: read while every link stays under the root, by whatever way; refused where one leads out."""

import os
import shutil
from pathlib import Path

import pytest

from khmer_ocr.cli.load_verbs import cache as build_caches
from khmer_ocr.dataset import layout
from khmer_ocr.dataset.verify import verify
from khmer_ocr.errors import DatasetError, OutputError
from tests.dataset.trees import write_tree
from tests.load.loading import ENGINES, assert_equal, open_split
from tests.snapshots import everything

COUNT = 40


def as_links(root: Path) -> Path:
    """What content-addressed stores make of a tree: files in a store under the same root, named by links."""
    store = root / ".store"
    for path in [path for path in root.rglob("*") if path.is_file()]:
        kept = store / path.relative_to(root)
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.rename(kept)
        path.symlink_to(os.path.relpath(kept, path.parent))
    return root


@pytest.mark.parametrize("format_name", layout.FORMATS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_tree_of_links_is_read_as_the_tree_itself(engine: str, format_name: str, tmp_path: Path) -> None:
    plain = write_tree(tmp_path / "plain", {"train": COUNT}, format_name, chunk=16)
    linked = as_links(Path(shutil.copytree(plain, tmp_path / "linked")))
    assert verify(linked, progress=False).ok
    before = everything(linked)
    assert_equal(open_split(plain, engine=engine).epoch(0), open_split(linked, engine=engine).epoch(0))
    assert everything(linked) == before


def test_a_cache_is_a_file_beside_the_links(tmp_path: Path) -> None:
    linked = as_links(write_tree(tmp_path / "linked", {"train": COUNT}))
    store = everything(linked / ".store")
    build_caches(linked, quiet=True)
    (cache,) = (linked / "train").glob("packed-*.lines")
    cache.rename(linked / ".store" / cache.name)
    cache.symlink_to(linked / ".store" / cache.name)
    assert len(list(open_split(linked, cache=True).epoch(0))) == 3
    with pytest.raises(OutputError, match="symbolic link"):
        build_caches(linked, overwrite=True, quiet=True)
    (linked / ".store" / cache.name).unlink()
    assert everything(linked / ".store") == store


@pytest.mark.parametrize("place", ["train", "train/images", "train/images/book", "train/images/book/a.png"])
def test_nothing_is_read_through_a_link_that_leads_out(place: str, tmp_path: Path) -> None:
    """Of a tree without metadata, whose sub-folders are looked into."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "train/images/book").mkdir(parents=True)
    (root / "train/labels").mkdir()
    plain = write_tree(tmp_path / "plain", {"train": 2}) / "train"
    for name in ("a", "b"):
        shutil.copy(plain / "images/train_000000.png", root / f"train/images/book/{name}.png")
        (root / f"train/labels/{name}.txt").write_text("ក")
    assert len(list(open_split(root).epoch(0))) == 1
    (root / place).rename(outside)
    (root / place).symlink_to(outside)
    with pytest.raises(DatasetError, match=r"leads out of|holds no|no image"):
        list(open_split(root).epoch(0))
    report = verify(root, progress=False)
    if place == "train/images/book":  # a linked folder is passed over, wherever it leads
        assert "links" in str(report) and "images/book" in str(report), report
    else:
        assert not report.ok and "leads out of" in str(report), report

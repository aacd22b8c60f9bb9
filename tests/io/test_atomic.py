"""Files are whole or not there, and nothing below a root is written or removed through a link."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from khmer_ocr.errors import OutputError
from khmer_ocr.io.atomic import (
    create_fresh,
    make_folder,
    partial_of,
    refuse_links,
    remove_file,
    remove_folder,
    replace,
    replacing,
    write_output,
)
from tests.snapshots import everything


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "home/folder").mkdir(parents=True)
    (tmp_path / "home/kept").write_text("mine")
    (tmp_path / "home/folder/kept").write_text("mine")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


ACTS: dict[str, Callable[[Path, Path], object]] = {
    "replace": lambda root, path: replace(path, b"theirs", root),
    "make_folder": make_folder,
    "remove_file": remove_file,
    "remove_folder": remove_folder,
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("place", ["file", "link", "folder/kept", "folder/deep/er"])
def test_a_link_anywhere_below_the_root_is_refused(root: Path, act: str, place: str) -> None:
    (root / "folder").symlink_to("../home/folder")
    (root / "link").symlink_to("folder")
    (root / "file").symlink_to("../home/kept")
    before, ours = everything(root.parent / "home"), everything(root)
    with pytest.raises(OutputError, match=r"root/(file|link|folder) is a symbolic link \(to '.*'\)\. Inside .*root"):
        ACTS[act](root, root / place)
    assert everything(root.parent / "home") == before and everything(root) == ours


def test_a_dangling_link_is_refused_too(root: Path) -> None:
    (root / "new").symlink_to("../home/new")
    with pytest.raises(OutputError, match="symbolic link"):
        replace(root / "new", b"theirs", root)
    assert not (root.parent / "home/new").exists()


@pytest.mark.parametrize("path", ["../home/kept", "sub/../../home/kept", "/etc/kept", ".."])
def test_what_does_not_lie_below_the_root_is_refused(root: Path, path: str) -> None:
    with pytest.raises(OutputError, match="does not lie in"):
        refuse_links(root, root / path)


def test_the_root_itself_may_be_a_link(root: Path) -> None:
    given = root.with_name("given")
    given.symlink_to(root)
    make_folder(given, given / "a/b")
    replace(given / "a/b/file", b"ours", given)
    assert (root / "a/b/file").read_bytes() == b"ours"
    remove_folder(given, given / "a")
    remove_folder(given, given / "a")
    remove_file(given, given / "a")
    assert not any(root.iterdir())


def test_relative_roots(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    for given in (Path(), Path(), Path("../root")):
        replace(given / "file", b"ours", given)
        assert (root / "file").read_bytes() == b"ours"
    (root / "file").unlink()
    (root / "file").symlink_to("../home/kept")
    with pytest.raises(OutputError):
        replace(Path("file"), b"theirs", Path())


@pytest.mark.parametrize("tag", ["", "mine", None])
def test_temporary_names_are_fresh(root: Path, tag: str | None) -> None:
    if tag is not None:
        partial_of(root / "file", tag).symlink_to("../home/kept")
    with replacing(root / "file", root, tag=tag) as partial:
        assert partial.parent == root and partial.stat().st_nlink == 1 and not partial.is_symlink()
        assert partial.name.startswith(".file.") and partial.name.endswith(".partial")
        partial.write_bytes(b"ours")
        assert not (root / "file").exists()
    assert (root / "file").read_bytes() == b"ours" and (root.parent / "home/kept").read_text() == "mine"
    assert [path.name for path in root.iterdir()] == ["file"]


def test_two_writers_have_two_names(root: Path) -> None:
    with replacing(root / "file") as one, replacing(root / "file") as other:
        assert one != other
        one.write_bytes(b"1")
        other.write_bytes(b"2")
    assert (root / "file").read_bytes() == b"1"


def test_nothing_is_left_of_what_failed(root: Path) -> None:
    (root / "file").write_bytes(b"before")
    with pytest.raises(KeyError), replacing(root / "file", root) as partial:
        partial.write_bytes(b"half")
        raise KeyError
    assert everything(root).keys() == {".", "file"} and (root / "file").read_bytes() == b"before"


def test_a_second_name_keeps_its_bytes(root: Path) -> None:
    (root / "file").write_bytes(b"before")
    os.link(root / "file", root / "other")
    replace(root / "file", b"after", root)
    assert (root / "other").read_bytes() == b"before"
    os.close(create_fresh(root / "other"))
    assert (root / "file").read_bytes() == b"after" and (root / "other").read_bytes() == b""


def test_permissions_are_those_of_the_umask(root: Path) -> None:
    before = os.umask(0o027)
    try:
        replace(root / "file", b"x", root)
    finally:
        os.umask(before)
    assert (root / "file").stat().st_mode & 0o777 == 0o640


def test_an_output_that_is_a_link_is_replaced_and_what_it_leads_to_stays(root: Path) -> None:
    (root / "sheet.png").symlink_to("../home/kept")
    write_output(root / "sheet.png", b"picture")
    assert (root / "sheet.png").read_bytes() == b"picture" and (root.parent / "home/kept").read_text() == "mine"
    with pytest.raises(OutputError, match="folder that exists"):
        write_output(root / "no/such/folder.png", b"")

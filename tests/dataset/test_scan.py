"""Folders of other people: every line is used, or counted and named; labels come in the normal form."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.repair_advice import drawn_here
from khmer_ocr.errors import DatasetError
from tests import SHARED
from tests.dataset.trees import edit_metadata, only_known_keys, png, write_shard, write_tree

TEXTS = ["កខ", "ខ្មែរ", "ស្ត្រី ៧", "គ", "ទឹក", "ផ្ទះ"]
CASES = SHARED / "cases"


def page(i: int) -> np.ndarray:
    pixels_HW = np.full((32, 50 + 8 * i), 255, np.uint8)
    pixels_HW[8:24, 8:40] = 16 * i
    return pixels_HW


def encoded(i: int, suffix: str = ".png", **options: object) -> bytes:
    buffer = io.BytesIO()
    formats = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
    Image.fromarray(page(i)).save(buffer, formats.get(suffix.lower(), suffix[1:].upper()), **options)
    return buffer.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six lines of a stranger: images and labels, nothing else."""
    for folder in ("images", "labels"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    for i, text in enumerate(TEXTS):
        (tmp_path / f"train/images/{i}.png").write_bytes(encoded(i))
        (tmp_path / f"train/labels/{i}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def swap(tree: Path, i: int, suffix: str, **options: object) -> None:
    (tree / f"train/images/{i}.png").unlink()
    (tree / f"train/images/{i}{suffix}").write_bytes(encoded(i, suffix, **options))


def texts(tree: Path, **options: object) -> list[str]:
    index = load_index(tree, "train", **options)  # type: ignore[arg-type]
    return [index.text(i) for i in range(len(index))]


def test_every_usual_format_is_read_under_its_own_name(tree: Path) -> None:
    suffixes = [".png", ".jpg", ".PNG", ".tif", ".webp", ".JPEG"]
    for i, suffix in enumerate(suffixes[1:], 1):
        swap(tree, i, suffix, **({"quality": 100} if suffix == ".jpg" else {}))
    index = load_index(tree, "train")
    assert [index.filename(i) for i in range(6)] == [f"{i}{suffix}" for i, suffix in enumerate(suffixes)]
    assert [index.text(i) for i in range(6)] == TEXTS and index.notes == ()
    for i in range(6):
        assert Path(index.paths(i)[0]).is_file() and index.label_text(i) == TEXTS[i]
        difference = np.abs(index.line(i).astype(int) - page(i)).max()
        assert difference <= (0 if suffixes[i] in (".png", ".PNG", ".tif") else 24)


def test_a_camera_that_was_turned_gives_the_size_of_what_is_seen(tree: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tree / "train/images/1.png").unlink()
    Image.fromarray(np.rot90(page(1))).save(tree / "train/images/1.jpg", quality=100, exif=exif)
    index = load_index(tree, "train")
    assert (index.heights[1], index.widths[1]) == page(1).shape == index.line(1).shape
    assert np.abs(index.line(1).astype(int) - page(1)).max() < 24


def test_what_is_no_line_is_passed_over_and_named(tree: Path) -> None:
    for folder, suffix in (("images", ".png"), ("labels", ".txt")):
        for i in range(6):
            (tree / f"train/{folder}/._{i}{suffix}").write_bytes(b"\0\5\x16\7" + bytes(4092))
        (tree / f"train/{folder}/.DS_Store").write_bytes(b"Bud1")
    (tree / "train/images/Thumbs.db").write_bytes(b"x")
    (tree / "train/images/notes.docx").write_bytes(b"x")
    (tree / "train/images/linked").symlink_to(tree / "train/labels")
    (tree / "train/images/2.jpg").write_bytes(encoded(2, ".jpg"))
    (tree / "train/labels/lost.txt").write_text("ក")
    (tree / "train/shards").mkdir()
    write_shard(tree / "train/shards/train-000000.tar", [("9.png", encoded(0)), ("9.txt", b"x")])
    index = load_index(tree, "train")
    assert [index.text(i) for i in range(len(index))] == TEXTS and index.filename(2) == "2.png"
    said = "\n".join(index.notes)
    for note in (
        "train: passed over files that systems leave behind: 15 (",
        "train: passed over files of no known image format: 1 (images/notes.docx).",
        "train: passed over links to folders: 1 (images/linked).",
        "train: passed over images whose name, and so whose label, another image has: 1 (2.jpg).",
        "train: passed over labels without an image: 1 (lost.txt).",
        "train: passed over shards, since images/ is there and is read: 1 (train-000000.tar).",
    ):
        assert note in said
    assert len(index.notes) == 6


def test_sub_folders_are_read_with_labels_that_lie_alike_or_flat(tree: Path) -> None:
    moved = {"1.png": "book1/1.png", "2.png": "book1/part a/2.png", "3.png": "book2/3.png"}
    for name, place in moved.items():
        (tree / "train/images" / place).parent.mkdir(parents=True, exist_ok=True)
        (tree / "train/images" / name).rename(tree / "train/images" / place)
    (tree / "train/labels/book1").mkdir()
    (tree / "train/labels/1.txt").rename(tree / "train/labels/book1/1.txt")
    (tree / "train/images/book1/._1.png").write_bytes(b"x")
    index = load_index(tree, "train")
    where = {index.filename(i): i for i in range(len(index))}
    assert list(where) == ["0.png", "4.png", "5.png", "book1/1.png", "book2/3.png", "book1/part a/2.png"]
    for name, place in moved.items():
        i, number = where[place], int(name[0])
        assert index.text(i) == index.label_text(i) == TEXTS[number] and np.array_equal(index.line(i), page(number))
    assert len(index) == 6 and index.notes[0].endswith("1 (images/book1/._1.png).")
    shutil.copy(tree / "train/images/0.png", tree / "train/images/book2/0.png")
    assert "another image has: 1 (book2/0.png)." in load_index(tree, "train").notes[1]


def test_labels_of_others_come_in_the_normal_form(tree: Path) -> None:
    written = ["\ufeffកខ\r\n", "ខ្\u200bមែរ", "ស្រ្តី  ៧\n\n", "គ", "ទឹក\n", "ផ្ទះ"]
    for i, text in enumerate(written):
        (tree / f"train/labels/{i}.txt").write_bytes(text.encode("utf-16" if i == 5 else "utf-8"))
    index = load_index(tree, "train")
    assert [index.text(i) for i in range(6)] == [index.label_text(i) for i in range(6)] == TEXTS
    (note,) = index.notes
    assert "3 of 6 labels were brought to the normal form" in note and "zero-width spaces taken out in 1" in note
    assert "a byte order mark taken off in 1 (first: 0.png)" in note


def test_metadata_of_others_are_read_in_the_normal_form_and_ours_as_they_are(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"train": 5})
    edit_metadata(root, "train", 2, text="ខ្\u200bមែរ")
    label = root / "train/labels/train_000002.txt"
    label.write_text("ខ្មែរ\u200b\n", encoding="utf-8")
    overall = json.loads((root / "generation_metadata.json").read_bytes())
    overall.pop("run", None)
    (root / "generation_metadata.json").write_text(json.dumps(overall))
    index = load_index(root, "train")
    assert index.outside and index.text(2) == index.label_text(2) == "ខ្មែរ"
    assert np.array_equal(index.line(2), index.image(2)), "label and metadata differ in spelling alone"
    assert "1 of 5 labels" in index.notes[0] and not drawn_here(root)

    overall["run"] = {"versions": {"normalizer": 2}, "splits": {"train": {}}}
    (root / "generation_metadata.json").write_text(json.dumps(overall))
    index = load_index(root, "train")
    assert drawn_here(root) and not index.outside and index.text(2) == "ខ្\u200bមែរ" and index.notes == ()
    with pytest.raises(DatasetError, match="says 'ខ្មែរ"):
        index.line(2)


@pytest.mark.parametrize("metadata", [False, True])
def test_labels_that_are_none_of_their_line_are_named_all_at_once(metadata: bool, tree: Path, tmp_path: Path) -> None:
    if metadata:
        tree = only_known_keys(write_tree(tmp_path / "with", {"train": 6}))
        edit_metadata(tree, "train", 1, text=" ")
        edit_metadata(tree, "train", 4, text="ក\nខ")
        one, four = "metadata.json, train_000001.png", "metadata.json, train_000004.png"
    else:
        (tree / "train/labels/1.txt").write_bytes("\ufeff \n".encode())
        (tree / "train/labels/4.txt").write_text("ក\nខ\n")
        one, four = "labels/1.txt", "labels/4.txt"
    with pytest.raises(DatasetError) as raised:
        load_index(tree, "train")
    said = str(raised.value)
    assert "train: 2 of 6 samples can't be used:" in said and "--on-error skip" in said
    assert one.removesuffix(".png") in said and "its label is empty, and the image has ink" in said
    assert four.removesuffix(".png") in said and "its label holds 2 lines of text" in said
    faults: dict[str, DatasetError] = {}
    assert len(load_index(tree, "train", on_fault=faults.__setitem__)) == 4 and len(faults) == 2
    assert len(load_index(tree, "train", max_samples=1)) == 1, "what follows is not looked at"


def test_an_empty_label_of_an_image_without_ink_is_right(tree: Path) -> None:
    (tree / "train/images/3.png").write_bytes(png(np.full((32, 40), 250, np.uint8)))
    (tree / "train/labels/3.txt").write_bytes(b"")
    assert texts(tree) == [*TEXTS[:3], "", *TEXTS[4:]]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda train: (train / "labels/3.txt").unlink(), r"labels/3\.txt is missing"),
        (lambda train: (train / "labels/3.txt").write_bytes(b"\xff\xfa"), "is not UTF-8"),
        (lambda train: (train / "images/3.png").write_bytes(b"GIF? no"), r"images/3\.png is text, no image"),
        (lambda train: (train / "images/3.png").write_bytes(b""), "is empty"),
        (lambda train: shutil.copy(train / "images/2.png", train / "images/x.tif"), r"labels/x\.txt is missing"),
    ],
)
def test_one_bad_sample_is_named_and_left_out_where_asked(spoil, says: str, tree: Path) -> None:
    spoil(tree / "train")
    with pytest.raises(DatasetError, match=says):
        load_index(tree, "train")
    faults: dict[str, DatasetError] = {}
    found = texts(tree, on_fault=faults.__setitem__)
    assert len(faults) == 1 and found in (TEXTS, TEXTS[:3] + TEXTS[4:])


def test_pages_of_a_tiff_are_not_one_line(tree: Path) -> None:
    (tree / "train/images/3.png").unlink()
    pages = [Image.fromarray(page(i)) for i in range(3)]
    pages[0].save(tree / "train/images/3.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DatasetError, match=r"3\.tif holds 3 pages, and one line is expected here"):
        load_index(tree, "train")


def test_shards_of_others(tmp_path: Path) -> None:
    shards = tmp_path / "train/shards"
    members = [("0.jpg", encoded(0, ".jpg")), ("0.txt", "ក\u200bខ".encode()), ("0.json", b"{}"), ("._0.jpg", b"x")]
    members += [("1.PNG", encoded(1)), ("1.txt", TEXTS[1].encode()), ("lost.txt", b"x"), ("2.mp3", b"x")]
    write_shard(shards / "train-000000.tar", members)
    (shards / "._train-000000.tar").write_bytes(b"x")
    (shards / "readme.md").write_bytes(b"x")
    index = load_index(tmp_path, "train")
    assert [index.text(i) for i in range(2)] == TEXTS[:2] == [index.label_text(i) for i in range(2)]
    assert [index.filename(i) for i in range(2)] == ["0.jpg", "1.PNG"]
    assert np.array_equal(index.line(1), page(1)) and index.line(0).shape == page(0).shape
    said = "\n".join(index.notes)
    for note in (
        "files that systems leave behind: 1 (",
        "shards that systems leave behind: 1 (",
        "/2.mp3)",
        "/lost.txt)",
        "no shards: 1 (readme.md)",
    ):
        assert note in said
    for name in ("train-000001.tar.gz", "train-000002.tgz"):
        (shards / name).write_bytes(b"\x1f\x8b")
        with pytest.raises(DatasetError, match=f"{name} is compressed, and shards are read in place"):
            load_index(tmp_path, "train")
        (shards / name).unlink()


def test_images_that_lie_outside_images_are_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/0.jpg").write_bytes(encoded(0, ".jpg"))
    with pytest.raises(DatasetError, match=r"but 1 images\. Move them to .*train/images/"):
        load_index(tmp_path, "train")


def as_nobody(folder: Path) -> str:
    """What opening a split says to a user who is not root, which opens everything."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.chdir(folder)  # the folders above are root's own
            if os.getuid() == 0:
                os.setuid(65534)
            load_index(Path(), "train")
            os.write(write, b"nothing")
        except BaseException as fault:
            os.write(write, f"{type(fault).__name__}: {fault}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with open(read, "rb") as pipe:
        return pipe.read().decode()


def test_what_is_locked_is_named(tree: Path) -> None:
    tree.chmod(0o755)
    (tree / "train/images/locked").mkdir(mode=0)
    (tree / "train/images/5.png").chmod(0)
    said = as_nobody(tree)
    (tree / "train/images/locked").chmod(0o700)
    assert said.startswith("DatasetError: train: 2 of 7 samples can't be used:")
    assert "images/locked can't be listed: Permission denied." in said and "5.png cannot be opened" in said
    tree.chmod(0)
    said = as_nobody(tree)
    tree.chmod(0o700)
    assert said == "DatasetError: train can't be looked at: Permission denied."


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
def test_the_cases_05_06_and_24() -> None:
    normal = texts(CASES / "06-image-suffixes/tree")
    assert len(normal) == 8
    for how in ("bom", "zwsp", "newline"):
        assert texts(CASES / "05-labels-invisible" / how / "tree") == normal
    index = load_index(CASES / "24-mac-hidden-files/own", "test")
    assert len(index) == 25 and index.notes[0].startswith("test: passed over files that systems leave behind: 50 (")

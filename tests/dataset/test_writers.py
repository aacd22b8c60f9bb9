"""The tree of files and the tar shards: what is written, byte for byte, and who can read it."""

import json
import os
import tarfile
from pathlib import Path

import pytest

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.dataset.shards import tar_header
from khmer_ocr.dataset.writers import FileWriter, ShardWriter, open_writer
from khmer_ocr.errors import OutputError
from khmer_ocr.io.atomic import partial_of, replace
from tests.generate.generating import names

TEXTS = ("ក", "ខ្ញុំ ស្រឡាញ់ភាសាខ្មែរ", "abc 123 ៛", "x" * 2000)


def sample(split: str, index: int, text: str) -> Sample:
    stem = layout.stem(split, index)
    image_path, label_path = layout.recorded_paths("out", split, f"{stem}.png", None)
    return {
        "filename": stem,
        "text": text,
        "font": "F",
        "image_path": image_path,
        "label_path": label_path,
        "image_width": 3,
        "image_height": 32,
    }


def chunk_of(first: int, texts: tuple[str, ...] = TEXTS) -> tuple[list[Sample], list[bytes]]:
    samples = [sample("train", first + n, text) for n, text in enumerate(texts)]
    return samples, [bytes([n]) * (511 + n) for n in range(len(texts))]


def test_files_have_their_names_and_bytes(tmp_path: Path) -> None:
    samples, images = chunk_of(999_998)
    writer = FileWriter(tmp_path, "train")
    written = writer.write(976, samples, images)
    writer.close()
    stems = ["train_999998", "train_999999", "train_1000000", "train_1000001"]
    assert names(tmp_path / "train" / "images") == sorted(f"{stem}.png" for stem in stems)
    assert names(tmp_path / "train" / "labels") == sorted(f"{stem}.txt" for stem in stems)
    for stem, text, image in zip(stems, TEXTS, images, strict=True):
        assert (tmp_path / "train" / "labels" / f"{stem}.txt").read_bytes() == text.encode()
        assert (tmp_path / "train" / "images" / f"{stem}.png").read_bytes() == image
    assert written == sum(map(len, images)) + sum(len(text.encode()) for text in TEXTS)


def test_a_longer_file_left_by_a_killed_worker_is_cut(tmp_path: Path) -> None:
    samples, images = chunk_of(0)
    (tmp_path / "train" / "images").mkdir(parents=True)
    (tmp_path / "train" / "images" / "train_000000.png").write_bytes(b"?" * 5000)
    writer = FileWriter(tmp_path, "train")
    writer.write(0, samples, images)
    writer.close()
    assert (tmp_path / "train" / "images" / "train_000000.png").read_bytes() == images[0]


def test_file_sink_holds_no_descriptors_after_close(tmp_path: Path) -> None:
    before = len(names(Path("/proc/self/fd")))
    writer = FileWriter(tmp_path, "train")
    writer.write(0, *chunk_of(0))
    writer.close()
    assert len(names(Path("/proc/self/fd"))) == before


def test_tar_header_is_the_one_that_tarfile_writes() -> None:
    for name, size in (("train_000000.png", 0), ("a", 1), ("train_1000000.json", 8**11 - 1)):
        info = tarfile.TarInfo(name)
        info.size = size
        ours, theirs = tar_header(name, size), info.tobuf(tarfile.USTAR_FORMAT)
        read = tarfile.TarInfo.frombuf(ours, "ascii", "strict")
        assert (read.name, read.size, read.mode, read.type) == (name, size, 0o644, tarfile.REGTYPE)
        assert len(ours) == len(theirs) == 512
        # The same but for the empty device numbers and the type of a plain file.
        assert ours[:148] == theirs[:148] and ours[257:265] == theirs[257:265]


def test_shard_is_a_plain_tar_of_triples(tmp_path: Path) -> None:
    samples, images = chunk_of(5 * layout.CHUNK)
    written = ShardWriter(tmp_path, "train").write(5, samples, images)
    file = tmp_path / "train" / "shards" / "train-000005.tar"
    assert file.stat().st_size == written and written % 512 == 0
    with tarfile.open(file) as tar:
        members = tar.getmembers()
        assert [m.name for m in members[:3]] == [f"train_005120.{suffix}" for suffix in ("png", "txt", "json")]
        assert len(members) == 3 * len(samples)
        assert all(m.isreg() and m.mtime == m.uid == m.gid == 0 and m.uname == "" for m in members)
        for n, (facts, image) in enumerate(zip(samples, images, strict=True)):
            png, txt, info = (tar.extractfile(member).read() for member in members[3 * n : 3 * n + 3])  # type: ignore[union-attr]
            assert (png, txt.decode(), json.loads(info)) == (image, facts["text"], facts)
    assert names(file.parent) == ["train-000005.idx", "train-000005.tar"]


def test_index_points_at_every_member(tmp_path: Path) -> None:
    samples, images = chunk_of(0)
    ShardWriter(tmp_path, "train").write(0, samples, images)
    folder = tmp_path / "train" / "shards"
    tar, (head, *rows) = (
        (folder / "train-000000.tar").read_bytes(),
        (folder / "train-000000.idx").read_text().splitlines(),
    )
    assert head == f"v1.2 {len(samples)}"
    for row, facts, image in zip(rows, samples, images, strict=True):
        words = row.split(" ")
        entries = [words[n : n + 4] for n in range(0, 12, 4)]
        assert [entry[0] for entry in entries] == ["png", "txt", "json"]
        found = [tar[int(offset) : int(offset) + int(size)] for _, offset, size, _ in entries]
        assert found[:2] == [image, facts["text"].encode()]
        assert [name for *_, name in entries] == [f"{facts['filename']}.{suffix}" for suffix in ("png", "txt", "json")]


def test_replace_leaves_nothing_behind_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    replace(target, b"new")
    assert target.read_bytes() == b"new" and names(tmp_path) == ["file"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        replace(target, b"newer")
    assert target.read_bytes() == b"new" and names(tmp_path) == ["file"]


def test_a_partial_of_a_killed_process_is_written_over(tmp_path: Path) -> None:
    target = tmp_path / "train-000000.tar"
    partial_of(target).write_bytes(b"half")
    replace(target, b"whole", tag="")
    assert names(tmp_path) == ["train-000000.tar"]
    assert partial_of(target, "a") != partial_of(target, "b")


def test_open_writer_knows_both_formats(tmp_path: Path) -> None:
    assert isinstance(open_writer("files", tmp_path, "train"), FileWriter)
    assert isinstance(open_writer("webdataset", tmp_path, "train"), ShardWriter)


def test_files_are_written_through_no_link_and_into_no_second_name(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    sample: Sample = {"filename": "train_000000", "text": "ក"}
    writer = FileWriter(tmp_path / "out", "train")
    image, label = tmp_path / "out/train/images/train_000000.png", tmp_path / "out/train/labels/train_000000.txt"
    for place in (image, label):
        place.unlink(missing_ok=True)
        place.symlink_to(tmp_path / "kept")
        with pytest.raises(OutputError, match="symbolic link"):
            writer.write(0, [sample], [b"png"])
        place.unlink()
        os.link(tmp_path / "kept", place)
        writer.write(0, [sample], [b"png"])
        assert place.stat().st_nlink == 1 and (tmp_path / "kept").read_text() == "mine"
    writer.close()
    assert (image.read_bytes(), label.read_text()) == (b"png", "ក")


@pytest.mark.parametrize("format_name", layout.FORMATS)
def test_folders_that_are_links_are_refused(format_name: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train").symlink_to(tmp_path / "home")
    with pytest.raises(OutputError, match="symbolic link"):
        open_writer(format_name, tmp_path / "out", "train")
    assert not any((tmp_path / "home").iterdir())

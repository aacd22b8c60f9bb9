"""Two images of equal size that changed places: every way of reading notices, none gives one with the other's text."""

import logging
import os
import shutil
import tarfile

import numpy as np
import pytest

from tests.dataset.trees import edit_metadata, pixels, text, write_shard, write_tree

torch = pytest.importorskip("torch")

from khmer_ocr.dataset import layout, reader  # noqa: E402
from khmer_ocr.dataset.index import load_index  # noqa: E402
from khmer_ocr.errors import DatasetError  # noqa: E402
from khmer_ocr.load.dataset import SyntheticImageDataset, create_synthetic_dataloaders  # noqa: E402
from khmer_ocr.recognize.labelled_sets import split_set  # noqa: E402
from tests.load.loading import ENGINES, open_split  # noqa: E402

COUNT = 130
ONE, OTHER = 10, 70  # of equal size: widths repeat after 60 samples
NAMES = [f"{layout.stem('train', i)}.png" for i in (ONE, OTHER)]


@pytest.fixture(params=layout.FORMATS)
def tree(request, tmp_path):
    assert pixels("train", ONE).shape == pixels("train", OTHER).shape
    return write_tree(tmp_path / "data", {"train": COUNT, "val": 2, "test": 2}, request.param, chunk=40)


def swap(root):
    """Let the two images change places, each byte for byte whole."""
    folder = root / "train/images"
    if folder.is_dir():
        one, other = (folder / name for name in NAMES)
        one.rename(folder / "aside")
        other.rename(one)
        (folder / "aside").rename(other)
        return
    members = {}
    for shard in (root / "train/shards").iterdir():
        with tarfile.open(shard) as tar:
            members[shard] = [[m.name, tar.extractfile(m).read()] for m in tar]
    one, other = (next(m for rows in members.values() for m in rows if m[0] == name) for name in NAMES)
    one[1], other[1] = other[1], one[1]
    for shard, rows in members.items():
        write_shard(shard, rows)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("settings", [{}, {"dtype": "float32"}, {"cache": True}, {"num_workers": 1}])
def test_engines_notice(tree, engine, settings):
    swap(tree)
    with pytest.raises(DatasetError, match=r"train_0000[17]0\.png has other pixels than recorded"):
        list(open_split(tree, engine=engine, **settings).epoch(0))


@pytest.mark.parametrize("engine", ENGINES)
def test_skipping_leaves_out_both_and_nothing_else(tree, engine, monkeypatch):
    monkeypatch.setattr("khmer_ocr.load.read_errors.limit_of", lambda samples: 2)
    swap(tree)
    loader = open_split(tree, engine=engine, on_error="skip")
    for epoch in range(2):
        for batch in loader.epoch(epoch):
            for row, i in enumerate(batch["index"].tolist()):
                page = pixels("train", i)
                np.testing.assert_array_equal(batch["images"][row, 0, :, : page.shape[1]].numpy(), page)
                assert (batch["images"][row, 0, :, page.shape[1] :] == 255).all()
                assert batch["texts"][row] == text("train", i)
            assert batch["images"].shape[3] == -(-int(batch["image_lengths"].max()) // 8) * 8
        assert sorted(loader.left_out) == [ONE, OTHER]


@pytest.mark.parametrize("engine", ENGINES)
def test_files_that_change_places_between_epochs_are_noticed(tree, engine):
    loader = open_split(tree, engine=engine)
    for epoch in range(2):
        assert sum(len(batch["texts"]) for batch in loader.epoch(epoch)) == COUNT
    times = {path: path.stat() for path in tree.rglob("*") if path.is_file()}
    swap(tree)
    for path, status in times.items():  # as a backup restores them
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DatasetError, match="has other pixels than recorded"):
        list(loader.epoch(2))


def test_pixels_that_were_compared_are_not_compared_again(tree, monkeypatch):
    loader = open_split(tree, engine="dali")
    seen = []
    confirm = reader.SplitReader.confirm
    monkeypatch.setattr(reader.SplitReader, "confirm", lambda *args: seen.append(args[1]) or confirm(*args))
    list(loader.epoch(0))
    assert sorted(seen) == list(range(COUNT))
    list(loader.epoch(1))
    assert len(seen) == COUNT
    if (tree / "train/images").is_dir():
        os.utime(tree / "train/images" / NAMES[0])
        list(loader.epoch(2))
        assert seen[COUNT:] == [ONE]


def test_a_shard_that_is_replaced_while_it_is_read_is_walked_again(tmp_path):
    root = write_tree(tmp_path / "data", {"train": COUNT}, "webdataset", chunk=40)
    index = load_index(root, "train")
    index.image(0)
    shard = root / "train/shards" / layout.shard_name("train", 0)
    with tarfile.open(shard) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]
    shard.unlink()
    write_shard(shard, members[::-1])
    for i in range(40):
        np.testing.assert_array_equal(index.line(i), pixels("train", i))


def test_shards_that_changed_places_are_noticed(tmp_path):
    root = write_tree(tmp_path / "data", {"train": COUNT}, "webdataset", chunk=40)
    one, other = (root / "train/shards" / layout.shard_name("train", chunk) for chunk in (0, 1))
    one.rename(root / "aside")
    other.rename(one)
    (root / "aside").rename(other)
    for engine in ENGINES:
        with pytest.raises(DatasetError, match=r"does not hold train_0000\d\d\."):
            list(open_split(root, engine=engine).epoch(0))


def test_the_data_set_class_and_evaluation_notice(tree):
    swap(tree)
    dataset, lines = SyntheticImageDataset("train", tree), split_set(tree, "train")
    for i, name in zip((ONE, OTHER), NAMES, strict=True):
        with pytest.raises(DatasetError, match=rf"{name} has other pixels than recorded"):
            dataset[i]
        with pytest.raises(DatasetError, match=rf"{name} has other pixels than recorded"):
            lines.image(next(key for key in lines.labels if name.startswith(key.removesuffix(".png"))))
    assert dataset[0]["text"] == text("train", 0)
    with pytest.raises(DatasetError, match="has other pixels"):
        list(create_synthetic_dataloaders(num_workers=0, synthetic_dir=tree)[0])


def test_the_data_set_class_compares_labels(tmp_path):
    root = write_tree(tmp_path / "data", {"train": 5})
    (root / "train/labels/train_000002.txt").write_text(text("train", 4))
    dataset = SyntheticImageDataset("train", root)
    with pytest.raises(DatasetError, match=r"labels/train_000002\.txt says"):
        dataset[2]
    assert dataset[3]["text"] == text("train", 3)


def test_a_tree_that_only_another_tree_at_its_path_was_checked_of_is_checked(tmp_path):
    root = write_tree(tmp_path / "data", {"train": COUNT})
    list(open_split(root, engine="dali").epoch(0))
    shutil.rmtree(root)
    write_tree(root, {"train": COUNT})
    swap(root)
    for engine in ENGINES:
        with pytest.raises(DatasetError, match="has other pixels than recorded"):
            list(open_split(root, engine=engine).epoch(0))


def test_a_tree_that_can_not_be_written_is_checked_too(tree):
    swap(tree)
    folders = [path for path in (tree, *tree.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        with pytest.raises(DatasetError, match="has other pixels than recorded"):
            list(open_split(tree, engine="dali").epoch(0))
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_tree_without_hashes_is_told_of_once(tmp_path, caplog):
    root = write_tree(tmp_path / "data", {"train": 5, "val": 2, "test": 2})
    for i in range(5):
        edit_metadata(root, "train", i, pixel_hash=None)
    with caplog.at_level(logging.WARNING):
        split_set(root, "train")
        for _ in range(2):
            loaders = create_synthetic_dataloaders(num_workers=0, synthetic_dir=root)
            assert sum(len(batch["texts"]) for batch in loaders[0]) == 5
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{root / 'train'}: no pixel hashes are recorded; two images of equal size that changed places can't be "
        "noticed."
    )

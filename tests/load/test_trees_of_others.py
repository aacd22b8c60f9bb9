"""Trees that other people made become batches: the same by every engine, what is left out counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from khmer_ocr.cli.load_verbs import cache
from khmer_ocr.errors import DatasetError
from tests.dataset.trees import pixels, text
from tests.load.loading import ENGINES, assert_equal, open_split

COUNT = 120
SUFFIXES = (".png", ".jpg", ".PNG", ".tif", ".webp", ".bmp")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Lines in six formats, a fifth of them in sub-folders, labels with byte order marks."""
    for name in ("images/book1", "labels"):
        (tmp_path / "train" / name).mkdir(parents=True)
    for i in range(COUNT):
        place = f"book1/{i:03d}" if i % 5 == 0 else f"{i:03d}"
        options: dict[str, Any] = {"lossless": True} if i % 6 == 4 else {}
        Image.fromarray(pixels("train", i)).save(tmp_path / f"train/images/{place}{SUFFIXES[i % 6]}", **options)
        (tmp_path / f"train/labels/{i:03d}.txt").write_text(f"\ufeff{text('train', i)}\r\n", encoding="utf-8")
    (tmp_path / "train/images/._000.png").write_bytes(b"\0\5\x16\7")
    return tmp_path


def test_every_engine_gives_the_same_batches(tree: Path) -> None:
    first = list(open_split(tree).epoch(0))
    assert sum(len(batch["texts"]) for batch in first) == COUNT
    assert {label for batch in first for label in batch["texts"]} == {text("train", i) for i in range(COUNT)}
    for settings in ({"engine": "dali"}, {"num_workers": 2}, {"cache": True}):
        assert_equal(first, open_split(tree, **settings).epoch(0))
    lossless = {text("train", i): pixels("train", i) for i in range(COUNT) if i % 6 != 1}
    for batch in first:
        for image, width, label in zip(batch["images"], batch["image_lengths"].tolist(), batch["texts"], strict=True):
            if label in lossless and width == lossless[label].shape[1]:
                assert np.array_equal(image[0, :, :width].numpy(), lossless[label])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_of_another_format_that_is_damaged_is_a_fault_like_any_other(engine: str, tree: Path, caplog) -> None:
    damaged = tree / "train/images/001.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-60])
    with pytest.raises(DatasetError, match=r"001\.jpg is damaged or cut short"):
        list(open_split(tree, engine=engine).epoch(0))
    left = list(open_split(tree, engine=engine, on_error="skip").epoch(0))
    assert sum(len(batch["texts"]) for batch in left) == COUNT - 1 and "001.jpg is damaged or cut short" in caplog.text


def test_a_blank_image_with_a_label_is_not_learned_from(tree: Path, caplog) -> None:
    Image.fromarray(np.full_like(pixels("train", 2), 255)).save(tree / "train/images/002.PNG")
    for settings in ({"engine": "torch"}, {"engine": "torch", "cache": True}):
        with pytest.raises(DatasetError, match=r"002\.PNG is blank, and its label says"):
            list(open_split(tree, **settings).epoch(0))
        left = list(open_split(tree, on_error="skip", **settings).epoch(0))
        assert sum(len(batch["texts"]) for batch in left) == COUNT - 1 and "002.PNG is blank" in caplog.text


def test_lines_that_a_cache_leaves_out_are_named_whenever_it_is_opened(tree: Path, caplog) -> None:
    image = tree / "train/images/006.png"
    image.write_bytes(image.read_bytes()[:-20])
    for _ in range(2):  # as it is built, and as it is found
        caplog.clear()
        open_split(tree, cache=True, on_error="skip")
        assert [message for message in caplog.messages if message.startswith("Left out: ") and str(image) in message]


def test_the_cache_says_what_it_left_out(tree: Path, capsys) -> None:
    (tree / "train/labels/002.txt").write_text("")
    with pytest.raises(DatasetError, match=r"002\.txt: its label is empty"):
        cache(tree, quiet=True)
    cache(tree, on_error="skip", quiet=True)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"train: {COUNT - 1} lines, 1 left out,") and "002.txt: its label is empty" in said[1]
    assert "files that systems leave behind: 1 (images/._000.png)" in said[2]
    assert "labels were brought to the normal form" in said[3]

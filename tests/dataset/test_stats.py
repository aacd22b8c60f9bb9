import itertools
import json

import numpy as np
import pytest

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.stats import dataset_statistics, format_statistics
from khmer_ocr.errors import DatasetError, SplitNotFoundError
from tests.dataset.trees import FONTS, pixels, text, write_metadata, write_tree

COUNTS = {"train": 30, "val": 6, "test": 3}


@pytest.mark.parametrize("format", layout.FORMATS)
def test_figures_are_those_of_the_tree(tmp_path, format):
    stats = dataset_statistics(write_tree(tmp_path / "data", COUNTS, format, chunk=7))
    assert stats["format"] == format and stats["total_images"] == 39
    assert stats["bytes_on_disk"] == sum(f.stat().st_size for f in (tmp_path / "data").rglob("*") if f.is_file())
    for split, count in COUNTS.items():
        entry = stats["splits"][split]
        texts = [text(split, i) for i in range(count)]
        widths = [pixels(split, i).shape[1] for i in range(count)]
        assert entry["total_samples"] == count
        assert entry["image_height"] == [32]
        assert entry["image_width"]["min"] == min(widths) and entry["image_width"]["max"] == max(widths)
        assert entry["image_width"]["p50"] == np.median(widths)
        assert entry["text_length"]["mean"] == pytest.approx(np.mean([len(t) for t in texts]))
        assert entry["character_set"] == "".join(sorted(set("".join(texts))))
        assert entry["characters"] == len(set("".join(texts)))
        assert sum(entry["fonts"].values()) == pytest.approx(1)
        assert entry["fonts"][FONTS[0]] == pytest.approx(1 / 3)
        assert entry["rejected"] == {"clipped": 2, "notdef": 1}


def test_the_histogram_counts_every_line_in_classes_of_equal_width(tmp_path):
    entry = dataset_statistics(write_tree(tmp_path / "data", {"train": 43}))["splits"]["train"]
    histogram = entry["text_length_histogram"]
    starts = [low for low, _ in histogram]
    assert len(histogram) <= 10 and len({b - a for a, b in itertools.pairwise(starts)}) == 1
    ends = [*starts[1:], 10**9]
    lengths = [len(text("train", i)) for i in range(43)]
    for (low, count), end in zip(histogram, ends, strict=True):
        assert count == sum(low <= length < end for length in lengths)


def test_the_text_is_aligned_and_complete(tmp_path):
    shown = format_statistics(dataset_statistics(write_tree(tmp_path / "data", COUNTS)))
    lines = shown.splitlines()
    for word in (
        "39 images",
        "samples",
        "width, px: p50",
        "text, characters: mean",
        "distinct characters",
        *FONTS,
        "clipped",
    ):
        assert word in shown
    table = [line for line in lines if line.startswith(("samples", "on disk", "width, px", "distinct"))]
    assert len({len(line) for line in table}) == 1
    assert "33.3 %" in shown and "####" in shown


def test_older_trees_without_overall_metadata_are_described(tmp_path):
    root = write_tree(tmp_path / "data", {"train": 5})
    (root / "generation_metadata.json").unlink()
    stats = dataset_statistics(root)
    assert stats["format"] == "files" and stats["splits"]["train"]["rejected"] == {}
    assert "rejected: nothing on record" in format_statistics(stats)


def test_an_empty_split_is_described(tmp_path):
    write_tree(tmp_path / "data", {"train": 0, "val": 1})
    shown = format_statistics(dataset_statistics(tmp_path / "data"))
    assert "(no samples)" in shown


def test_many_fonts_are_cut_for_the_reader(tmp_path):
    folder = tmp_path / "data/train"
    folder.mkdir(parents=True)
    entries = [
        {
            "filename": f"train_{i:06d}",
            "text": "ក",
            "font": f"font {i}",
            "image_path": "",
            "label_path": "",
            "image_width": 9,
            "image_height": 32,
        }
        for i in range(55)
    ]
    write_metadata(folder, "train", entries)
    assert "... and 15 more fonts" in format_statistics(dataset_statistics(tmp_path / "data"))


def test_nothing_there_and_damage_are_errors(tmp_path):
    with pytest.raises(SplitNotFoundError, match="khmer-ocr generate"):
        dataset_statistics(tmp_path)
    write_tree(tmp_path / "data", {"train": 3})
    (tmp_path / "data/generation_metadata.json").write_text('{"splits":')
    with pytest.raises(DatasetError, match=r"generation_metadata\.json is not whole JSON"):
        dataset_statistics(tmp_path / "data")
    (tmp_path / "data/generation_metadata.json").write_text(json.dumps([1]))
    with pytest.raises(DatasetError, match="holds no object"):
        dataset_statistics(tmp_path / "data")

"""What is looked at before the first step."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from khmer_ocr.dataset.reader import Strings
from khmer_ocr.errors import ConfigError, DatasetError, OutputError, SplitNotFoundError
from khmer_ocr.text.charset import Charset
from khmer_ocr.train import label_checks
from khmer_ocr.train.label_checks import ctc_symbols
from khmer_ocr.train.preflight import Preflight, charset_of, check_writable, open_splits, preflight
from tests.dataset import trees
from tests.train import runs


def strings(*texts: str) -> Strings:
    encoded = [text.encode() for text in texts]
    return Strings(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64))


def drawn_by_us(root: Path) -> None:
    """Say of a tree what `generate` says of its own."""
    run = {"splits": {"train": {}, "val": {}}, "versions": {"normalizer": 3}}
    (root / "generation_metadata.json").write_text(json.dumps({"run": run}), encoding="utf-8")


def look(root: Path, charset: Charset | None = None, slots: int = 3, free: Path | None = None) -> Preflight:
    splits = open_splits((root,), None)
    return preflight(splits, charset or charset_of(splits["train"]), slots, 32, free or root, 1 << 20)


def test_symbols_and_blanks_between_twins_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("កក", "", "ក", "កខកខ", "ខខខ", "ខ", "ខ")
    expected = [3, 0, 1, 4, 5, 1, 1]
    assert ctc_symbols(strings(*texts)).tolist() == expected
    monkeypatch.setattr(label_checks, "_LINES_AT_ONCE", 2)
    assert ctc_symbols(strings(*texts)).tolist() == expected


@pytest.mark.parametrize("missing", ["train", "val"])
def test_missing_split_is_named_with_its_command(tmp_path: Path, missing: str) -> None:
    runs.write_tree(tmp_path, {split: 4 for split in ("train", "val") if split != missing})
    drawn_by_us(tmp_path)
    with pytest.raises(SplitNotFoundError, match=rf"khmer-ocr generate .*--splits {missing}"):
        look(tmp_path)


@pytest.mark.parametrize("missing", ["train", "val"])
def test_nobody_is_told_to_draw_into_a_folder_of_their_own(tmp_path: Path, missing: str) -> None:
    runs.write_tree(tmp_path, {split: 4 for split in ("train", "val") if split != missing})
    with pytest.raises(
        SplitNotFoundError, match=rf"{missing} does not exist.*lines of your own belong in .*{missing}/images"
    ) as told:
        look(tmp_path)
    assert "generate" not in str(told.value)
    runs.write_tree(tmp_path, {missing: 0})
    with pytest.raises(DatasetError, match="holds no lines") as empty:
        look(tmp_path)
    assert "generate" not in str(empty.value)


def test_test_split_may_be_missing(tmp_path: Path) -> None:
    runs.write_tree(tmp_path, {"train": 4, "val": 4})
    assert look(tmp_path).lines == {"train": 4, "val": 4, "test": 0}


def test_texts_that_stand_in_both_are_counted(tmp_path: Path) -> None:
    texts = {"train": ["ក", "ខគ", "ឃង"], "val": ["ខគ", "ច", "ខគ"], "test": ["ឆ", "ជ", "ឈ"]}
    runs.write_tree(tmp_path, {"train": 3, "val": 3, "test": 3}, texts)
    seen = look(tmp_path)
    assert seen.shared == {"val": 2, "test": 0}
    assert "2 lines of val (66.7%)" in str(seen)


def test_characters_beyond_the_default_join_the_charset(tmp_path: Path) -> None:
    texts = {"train": ["ក", "ខ\u4e2d", "ឃ"]}
    runs.write_tree(tmp_path, {"train": 3, "val": 3}, texts)
    charset = charset_of(open_splits((tmp_path,), None)["train"])
    assert charset.characters == (*Charset.default().characters, "\u4e2d")
    seen = look(tmp_path, Charset.default())
    assert seen.unknown == {"\u4e2d": 1}
    assert (
        "Characters of training lines are not in the charset and become unknown: '中' (U+4E2D) in 1 line, e.g. "
        in str(seen)
    )
    assert f"{tmp_path}/train/labels/train_000001.txt" in str(seen)
    joined = look(tmp_path)
    assert "Characters beyond the default charset, which the model learns to write: '中' (U+4E2D)" in str(joined)
    assert "--charset default" in str(joined)


def test_lines_that_ctc_cannot_spell_are_counted_and_refused(tmp_path: Path) -> None:
    runs.write_tree(tmp_path, {"train": 30, "val": 3}, {"train": ["កខ"] * 30})
    assert look(tmp_path).infeasible == 0
    trees.edit_metadata(tmp_path, "train", 3, text="ក" * 40)  # 20 px are 5 frames of 3 slots
    with pytest.raises(DatasetError, match="1 of 30 training lines have more symbols than CTC has slots") as told:
        look(tmp_path)
    assert f"{tmp_path}/train/labels/train_000003.txt (79 symbols, 15 slots)" in str(told.value)
    assert "Correct these labels. --on-error skip leaves out" in str(told.value)
    drawn_by_us(tmp_path)
    with pytest.raises(DatasetError, match="Draw wider faces"):
        look(tmp_path)


def test_few_lines_that_are_too_dense_are_named_and_stay(tmp_path: Path) -> None:
    runs.write_tree(tmp_path, {"train": 3, "val": 3})
    trees.edit_metadata(tmp_path, "train", 2, text="ក" * 40)
    found = label_checks.find_bad_labels("train", open_splits((tmp_path,), None)["train"], 3)
    assert (found.dense_are_few, replace(found, lines=1000).dense_are_few) == (False, True)
    told = label_checks.judge(replace(found, lines=1000), [], 3, "raise")
    assert len(told) == 1
    assert "train_000002.txt (79 symbols, " in told[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "train_000007.txt is empty"),
        ("កខ\nគ", r"train_000007.txt holds a line end \(U\+000A\)"),
        ("កខ គ", r"train_000007.txt holds a line end \(U\+2028\)"),
        ("ក​ខ", r"train_000007.txt holds U\+200B, which has no ink"),
        ("﻿កខ", r"train_000007.txt holds U\+FEFF, which has no ink"),
        ("ក ខ", r"train_000007.txt holds U\+00A0, which is no plain space"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_of_ours_that_are_no_text_of_one_line_are_named(
    tmp_path: Path, split: str, text: str, said: str
) -> None:
    runs.write_tree(tmp_path, {"train": 8, "val": 8})
    drawn_by_us(tmp_path)
    trees.edit_metadata(tmp_path, split, 7, text=text)
    with pytest.raises(DatasetError, match=said.replace("train_", f"{split}_")):
        look(tmp_path)


def test_one_bad_label_of_200_is_left_out_where_that_is_asked(tmp_path: Path) -> None:
    runs.write_tree(tmp_path, {"train": 200, "val": 3}, {"train": ["កខ"] * 200})
    trees.edit_metadata(tmp_path, "train", 150, text="កខ" * 200)
    splits = open_splits((tmp_path,), None)
    seen = preflight(splits, Charset.default(), 3, 32, tmp_path, 1 << 20, on_error="skip")
    assert "Left out: 1 of 200 training lines" in str(seen)
    assert "train_000150.txt (400 symbols, 15 slots)" in str(seen)
    for other in (3, 4):
        trees.edit_metadata(tmp_path, "train", other, text="កខ" * 200)
    with pytest.raises(DatasetError, match=r"3 of 200, more than the 1 % that --on-error skip leaves out"):
        preflight(open_splits((tmp_path,), None), Charset.default(), 3, 32, tmp_path, 1 << 20, on_error="skip")


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file" / "checkpoints", tmp_path / ("x" * 300), Path("/proc/checkpoints")):
        with pytest.raises(OutputError, match=r"can't be written: .* give another folder"):
            check_writable(folder)
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_other_height_is_refused_with_what_to_do(tmp_path: Path) -> None:
    runs.write_tree(tmp_path, {"train": 3, "val": 3})
    trees.edit_metadata(tmp_path, "val", 1, image_height=48)
    with pytest.raises(DatasetError, match=r"1 lines .*\(val\) are not 32 px high.*--image-height 32"):
        look(tmp_path)


def test_empty_split_is_refused(tmp_path: Path) -> None:
    runs.write_tree(tmp_path, {"train": 0, "val": 3})
    with pytest.raises(DatasetError, match=r"'train'.*holds no lines"):
        look(tmp_path)


def test_no_room_for_checkpoints_is_said_before_the_first_step(tmp_path: Path) -> None:
    runs.write_tree(tmp_path, {"train": 3, "val": 3})
    splits = open_splits((tmp_path,), None)
    with pytest.raises(OutputError, match=r"MiB free; two checkpoints need"):
        preflight(splits, Charset.default(), 3, 32, tmp_path / "not" / "there" / "yet", 1 << 60)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"ctc_weight": 1.5}, "ctc_weight is 1.5"),
        ({"preset": "huge"}, "there are compact, base"),
        ({"synthetic_dir": ()}, "names no folder"),
        ({"init": Path("a"), "resume": "last"}, "both given"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        runs.settings(tmp_path, tmp_path, **change)

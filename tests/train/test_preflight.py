"""What is looked at before the first step."""

from pathlib import Path

import numpy as np
import pytest
import runs
import trees

from khmer_ocr.dataset.index import Strings
from khmer_ocr.errors import ConfigError, DatasetError, OutputError, SplitNotFoundError
from khmer_ocr.text.charset import Charset
from khmer_ocr.train import preflight as room
from khmer_ocr.train.preflight import charset_of, ctc_symbols, open_splits, preflight


def strings(*texts: str) -> Strings:
    encoded = [text.encode() for text in texts]
    return Strings(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64))


def look(root: Path, charset: Charset | None = None, slots: int = 3, free: Path | None = None) -> room.Preflight:
    splits = open_splits((root,), None)
    return preflight(splits, charset or charset_of(splits["train"]), slots, 32, free or root, 1 << 20)


def test_symbols_and_blanks_between_twins_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("កក", "", "ក", "កខកខ", "ខខខ", "ខ", "ខ")
    wanted = [3, 0, 1, 4, 5, 1, 1]
    assert ctc_symbols(strings(*texts)).tolist() == wanted
    monkeypatch.setattr(room, "_LINES_AT_ONCE", 2)
    assert ctc_symbols(strings(*texts)).tolist() == wanted


@pytest.mark.parametrize("missing", ["train", "val"])
def test_missing_split_is_named_with_its_command(tmp_path: Path, missing: str) -> None:
    runs.write_tree(tmp_path, {split: 4 for split in ("train", "val") if split != missing})
    with pytest.raises(SplitNotFoundError, match=rf"khmer-ocr generate .*--splits {missing}"):
        look(tmp_path)


def test_test_split_may_lack(tmp_path: Path) -> None:
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
    assert "lacks characters" in str(seen)


def test_lines_that_ctc_cannot_spell_are_counted_and_refused(tmp_path: Path) -> None:
    runs.write_tree(tmp_path, {"train": 30, "val": 3}, {"train": ["កខ"] * 30})
    assert look(tmp_path).infeasible == 0
    trees.edit_metadata(tmp_path, "train", 3, text="ក" * 40)  # 20 px are 5 frames of 3 slots
    with pytest.raises(DatasetError, match="1 of 30 training lines have more symbols than CTC has slots"):
        look(tmp_path)


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

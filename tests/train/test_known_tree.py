"""A tree of just the keys that users know teaches a reader and measures one."""

from pathlib import Path

from khmer_ocr.train.loop import train
from tests.command_line import khmer_ocr
from tests.dataset import trees
from tests.train import runs


def test_train_and_evaluate_take_a_tree_of_the_known_keys(tmp_path: Path) -> None:
    root = trees.only_known_keys(runs.write_tree(tmp_path / "data", {"train": 24, "val": 8}))
    model = train(runs.settings(root, tmp_path / "out", num_epochs=1))
    how: list[str | Path] = ["--model", model, "--decode", "ctc", "--quiet", "--device", "cpu"]
    khmer_ocr("evaluate", root, *how, "--predictions", "read.tsv", cwd=tmp_path)
    names = [row.split("\t")[0] for row in (tmp_path / "read.tsv").read_text(encoding="utf-8").splitlines()]
    assert len(names) == 8 and all((root / "val/images" / name).is_file() for name in names)

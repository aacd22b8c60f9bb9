"""A tree of just the keys that users know teaches a reader and measures one."""

import json
import subprocess
import sys
from pathlib import Path

from tests.dataset import trees
from tests.train import runs


def test_train_and_evaluate_take_a_tree_of_the_known_keys(tmp_path: Path) -> None:
    root = trees.only_known_keys(runs.write_tree(tmp_path / "data", {"train": 24, "val": 8}))
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"tree": str(root), "out": str(tmp_path / "out"), "changes": {"num_epochs": 1}}))
    process = runs.start("tests/train/run_tiny.py", str(given))
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    predictions = tmp_path / "read.tsv"
    line = ["evaluate", str(root), "--model", str(tmp_path / "out/checkpoints/model"), "--decode", "ctc", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "khmer_ocr", *line, "--predictions", str(predictions), "--device", "cpu"],
        env=runs.environment() | {"PYTHONPATH": str(runs.REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = [row.split("\t")[0] for row in predictions.read_text(encoding="utf-8").splitlines()]
    assert len(names) == 8 and all((root / "val/images" / name).is_file() for name in names)

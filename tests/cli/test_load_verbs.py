import pytest

from tests.dataset.trees import write_tree

pytest.importorskip("torch")

from khmer_ocr.cli import main

COUNTS = {"train": 120, "val": 9, "test": 7}


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "data", COUNTS)


def test_every_split_is_packed_and_said_so(root, capsys):
    main(["cache", str(root), "--quiet"])
    said = capsys.readouterr().out
    for split, count in COUNTS.items():
        assert f"{split}: {count} lines, 0." in said
        assert len(list((root / split).glob("packed-*.lines"))) == 1


def test_bad_lines_stop_it_or_are_listed(root, capsys):
    (root / "train/images/train_000030.png").write_bytes(b"")
    with pytest.raises(SystemExit) as left:
        main(["cache", str(root), "--splits", "train", "--quiet"])
    assert left.value.code == 2 and "train_000030.png is empty" in capsys.readouterr().err
    main(["cache", str(root), "--splits", "train", "--on-error", "skip", "--quiet"])
    said = capsys.readouterr().out
    assert "train: 120 lines, 1 left out" in said and "train_000030.png is empty" in said


def test_a_folder_without_splits_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["cache", str(tmp_path)])
    assert left.value.code == 2 and "holds no split. Run: khmer-ocr generate" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--cache", "--dtype", "float32", "--step-ms", "1"]])
def test_both_engines_are_measured(root, capsys, flags):
    pytest.importorskip("nvidia.dali")
    main(["bench", "load", str(root), "--batch-size", "32", "--epochs", "1", "--quiet", *flags])
    said = capsys.readouterr().out
    for engine in ("torch", "dali"):
        assert f"{engine}: opened 120 lines" in said
        assert f"{engine}, epoch 0 (warms up): 120 lines in 4 batches" in said
        assert f"{engine}, epoch 1: 120 lines in 4 batches" in said
    assert said.count("lines/s, padding") == 4


def test_what_can_not_be_measured_is_refused(root, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "load", str(root), "--epochs", "0"])
    assert "epochs is 0" in capsys.readouterr().err

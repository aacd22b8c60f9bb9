"""What was stored by a start that was killed, and damaged since, is found and drawn again."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from khmer_ocr.dataset import layout
from tests.generate.generating import FEW, generator, run, tree_files


def flip_pixel(root: Path) -> None:
    path = root / "train/images/train_000007.png"
    pixels = np.array(Image.open(path))
    pixels[10, 10] ^= 1
    Image.fromarray(pixels).save(path)


def swap(root: Path) -> None:
    """Exchange two images."""
    one, two = (root / "train/images" / f"train_{i:06d}.png" for i in (3, 900))
    other = two.read_bytes()
    two.write_bytes(one.read_bytes())
    one.write_bytes(other)


def change_text(root: Path) -> None:
    """Another text in fragment and label alike, under a right checksum."""
    from khmer_ocr.generate.journal import Journal

    fragment = root / layout.JOURNAL / "train/000000.jsonl"
    head, *rows = fragment.read_bytes().split(b"\n")
    sample = json.loads(rows[5]) | {"text": "ក"}
    rows[5] = json.dumps(sample, ensure_ascii=False).encode()
    summary = json.loads(head)
    del summary["hash"]
    Journal(root).commit("train", 0, summary, rows)
    (root / "train/labels/train_000005.txt").write_text("ក", encoding="utf-8")


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pixel": (flip_pixel, "train_000007.png: has other pixels than recorded"),
    "two images": (swap, "train_000003.png: "),
    "no image": (lambda root: (root / "train/images/train_001023.png").unlink(), "train_001023.png: is missing"),
    "empty label": (lambda root: (root / "train/labels/train_000000.txt").write_bytes(b""), "train_000000.png: label"),
    "fragment": (
        lambda root: (root / layout.JOURNAL / "train/000000.jsonl").write_bytes(b"{}"),
        "000000.jsonl is damaged",
    ),
    "text": (change_text, "000000.jsonl holds other texts than this run draws"),
}


@pytest.mark.parametrize("harm", list(HARM))
def test_damage_to_what_a_killed_run_stored_is_drawn_again(
    harm: str,
    corpus: Path,
    copy_of_half: Path,
    few: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(copy_of_half.parent)
    HARM[harm][0](copy_of_half)
    result = generator(corpus, Path("out")).generate(["train"], 1100, progress=False, workers=1)["train"]
    assert result.complete and result.drawn == result.samples
    (record,) = [record for record in caplog.records if "damaged since" in record.message]
    assert HARM[harm][1] in record.message
    assert tree_files(copy_of_half) == tree_files(few)


def test_damage_in_the_part_of_another_shard_is_drawn_by_who_finishes(
    corpus: Path, copy_of_half: Path, few: Path, tmp_path: Path
) -> None:
    (copy_of_half / "train/images/train_000100.png").write_bytes(b"")
    said = run(corpus, tmp_path, *FEW, "--shard", "1/2")
    assert said.count("damaged since") == 2 and ", complete; rejected" in said
    assert tree_files(copy_of_half) == tree_files(few)


def test_a_plan_with_a_flipped_byte_loses_no_line(corpus: Path, copy_of_half: Path, few: Path, tmp_path: Path) -> None:
    plan = copy_of_half / layout.JOURNAL / "train/plan.bin"
    data = bytearray(plan.read_bytes())
    data[20] ^= 1
    plan.write_bytes(data)
    assert "plan.bin is damaged; lines are planned again" in run(corpus, tmp_path, *FEW)
    assert tree_files(copy_of_half) == tree_files(few)


@pytest.mark.slow
def test_damage_to_a_shard_is_drawn_again(corpus: Path, tmp_path: Path) -> None:
    options = (*FEW, "--format", "webdataset")
    run(corpus, tmp_path / "whole", *options)
    run(corpus, tmp_path, *options, "--shard", "0/2")
    tar = tmp_path / "out/train/shards/train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    assert "damaged since" in run(corpus, tmp_path, *options)
    assert tree_files(tmp_path / "out") == tree_files(tmp_path / "whole/out")

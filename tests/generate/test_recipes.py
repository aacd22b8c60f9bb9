"""Augmented data sets: one tree however it was made, clean where it must be, made again from what it records."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from khmer_ocr.errors import ConfigError
from khmer_ocr.generate.settings import GenerateConfig
from tests.command_line import khmer_ocr
from tests.generate.generating import Corpora, generator, run, samples_of, start, tree_files

SCAN = ("--recipe", "scan", "--strength", "mixed", "--max-lines", "1100", "--splits", "train")

OWN = """
name: own
engine: kornia
steps:
  - {op: geometry, probability: 1, rotation_deg: [-1, 1], shear: [0, 0.1], perspective_x: [0, 0], perspective_y: [0, 0],
     wave_px: [0, 1], stretch: [1, 1], scale: [1, 1], left_px: [0, 9], right_px: [0, 9], place: [0, 1]}
  - {op: neighbour_lines, probability: 1, above_px: [2, 6], below_px: [2, 6], darkness: [1, 1]}
  - {op: noise, probability: 1, sd_grey: [4, 9]}
"""


@pytest.fixture(scope="module")
def scan(corpora: Corpora, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chunks augmented by kornia, one worker, uninterrupted."""
    pytest.importorskip("kornia")
    folder = tmp_path_factory.mktemp("scan")
    run(corpora.processed, folder, *SCAN, "--workers", "1")
    return folder / "out"


def image_of(root: Path, sample: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(root / "train" / "images" / f"{sample['filename']}.png"))


def test_scan_killed_and_finished_by_two_workers(scan: Path, corpus: Path, tmp_path: Path) -> None:
    process = start(corpus, tmp_path, *SCAN, "--workers", "1")
    images = tmp_path / "out" / "train" / "images"
    while not (images.exists() and any(images.iterdir())):
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run(corpus, tmp_path, *SCAN, "--workers", "2")
    assert tree_files(tmp_path / "out") == tree_files(scan)


@pytest.mark.slow
def test_scan_in_three_shards(scan: Path, corpus: Path, tmp_path: Path) -> None:
    for shard in ("2/3", "0/3", "1/3"):
        run(corpus, tmp_path, *SCAN, "--workers", "1", "--shard", shard)
    assert tree_files(tmp_path / "out") == tree_files(scan)


def test_what_happened_stands_in_the_metadata(scan: Path) -> None:
    samples = samples_of(scan)
    ops = {op for sample in samples for op in sample["augmentation"]} - {"strength"}
    run_of = json.loads((scan / "generation_metadata.json").read_bytes())["run"]
    assert ops == {step["op"] for step in run_of["recipe"]["steps"]}
    assert {sample["augmentation"]["strength"] for sample in samples} == {"mild", "medium", "heavy"}
    for sample in samples[::31]:
        image = image_of(scan, sample)
        assert image.shape == (32, sample["image_width"])
        clean = set(sample["augmentation"]) == {"strength"}
        assert clean or image.std() > 4, "an empty image"


def test_basic_without_torch(corpus: Path, tmp_path: Path) -> None:
    """The core install augments lines by the fused kernels."""
    for name in ("torch", "kornia", "triton"):
        (tmp_path / "missing" / name).mkdir(parents=True)
        (tmp_path / "missing" / name / "__init__.py").write_text("raise ImportError(f'no {__name__} here')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "missing")}
    flags = ["--max-lines", "40", "--splits", "train", "--workers", "1"]
    for recipe, status, told in (("basic", 0, "complete"), ("scan", 2, "pip install '.[torch]'")):
        process = start(corpus, tmp_path, *flags, "--recipe", recipe, env=environment)
        out, err = process.communicate()
        assert process.returncode == status and told in out + err, out + err
    assert any(sample["augmentation"] for sample in samples_of(tmp_path / "out"))


def test_clean_augmented_and_not_at_all(corpus: Path, tmp_path: Path) -> None:
    """`none` and augment_train=False draw the same pixels; `basic` others of the same size and text."""
    for recipe, splits in (("none", ["train"]), ("basic", ["train", "val"])):
        generator(corpus, tmp_path / recipe).generate(splits, 200, progress=False, workers=1, recipe=recipe)
    generator(corpus, tmp_path / "off", augment_train=False).generate(["train"], 200, progress=False, workers=1)
    trees = {name: samples_of(tmp_path / name) for name in ("none", "basic", "off")}
    hashes = {name: [sample["pixel_hash"] for sample in samples] for name, samples in trees.items()}
    assert hashes["none"] == hashes["off"]
    augmented = [bool(sample["augmentation"]) for sample in trees["basic"]]
    changed = [a != b for a, b in zip(hashes["none"], hashes["basic"], strict=True)]
    assert (
        all(recorded or not other for recorded, other in zip(augmented, changed, strict=True))
        and np.mean(changed) > 0.75
    )
    noisy = [other for other, sample in zip(changed, trees["basic"], strict=True) if "noise" in sample["augmentation"]]
    assert all(noisy) and 60 < len(noisy) < 140
    for clean, sample in zip(trees["none"], trees["basic"], strict=True):
        assert "augmentation" not in clean
        assert all(clean[key] == sample[key] for key in ("text", "font", "image_width", "size_ppem"))
    assert not any("augmentation" in sample for sample in samples_of(tmp_path / "basic", "val"))
    applied = {
        place: json.loads((tmp_path / place / "metadata.json").read_bytes())["augmentation_applied"]
        for place in ("none/train", "basic/train", "off/train", "basic/val")
    }
    assert applied == {"none/train": False, "basic/train": True, "off/train": False, "basic/val": False}


def test_a_recipe_of_ones_own_is_repaired_when_its_file_is_gone(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("kornia")
    (tmp_path / "own.yaml").write_text(OWN, encoding="utf-8")
    run(corpus, tmp_path, "--recipe", "own.yaml", "--max-lines", "300", "--splits", "train")
    before = tree_files(tmp_path / "out")
    widths = {sample["image_width"] for sample in samples_of(tmp_path / "out")}
    assert len(widths) > 100
    (tmp_path / "own.yaml").unlink()
    images = sorted((tmp_path / "out" / "train" / "images").iterdir())
    images[3].write_bytes(b"")
    images[200].unlink()
    repair = ("verify", "out", "--repair", "--quiet")
    assert "Nothing is wrong" in khmer_ocr(*repair, cwd=tmp_path).stdout
    assert tree_files(tmp_path / "out") == before
    shutil.rmtree(tmp_path / "out" / "train" / "labels")
    (tmp_path / "out" / "train" / "metadata.json").unlink()
    assert "Nothing is wrong" in khmer_ocr(*repair, cwd=tmp_path).stdout
    assert tree_files(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "scann"}, r"no recipe 'scann'\. Did you mean 'scan'\?"),
        ({"recipe": "nowhere.yaml"}, r"Recipe nowhere\.yaml can't be read"),
        ({"strength": "brutal"}, r"strength is 'brutal'; expected 'mild', 'medium', 'heavy' or 'mixed'"),
        ({"device": "tpu"}, r"device is 'tpu'; expected 'auto', 'cpu' or 'cuda'"),
    ],
)
def test_settings_that_can_not_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GenerateConfig(**settings)


def test_cuda_asked_for_and_absent(corpus: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    out = run(corpus, tmp_path, "--device", "cuda", "--max-lines", "20", status=2)
    assert "CUDA was asked for and there is none" in out and "--device cpu" in out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "shown"),
    [(("--recipe", "none"), "recipe: "), (("--no-augment",), "recipe: "), (("--recipe", "basic"), "recipe.")],
)
def test_another_recipe_is_another_run(
    scan: Path, corpus: Path, tmp_path: Path, change: tuple[str, ...], shown: str
) -> None:
    shutil.copytree(scan, tmp_path / "out")
    flags = [flag for flag in SCAN if flag not in ("--recipe", "scan", "--strength", "mixed")]
    out = run(corpus, tmp_path, *flags, *change, status=2)
    assert "holds a run of another configuration" in out and shown in out

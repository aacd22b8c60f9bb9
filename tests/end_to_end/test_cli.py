"""The commands as a stranger types them, and the scripts that stand for them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import REPOSITORY
from tests.command_line import khmer_ocr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set made by the commands of the README, from a folder without fonts/: the embedded font draws it."""
    folder = tmp_path_factory.mktemp("made")
    said = khmer_ocr("corpus", "--sample", "--synthesize", "300", "--quiet", cwd=folder).stdout
    assert "train" in said
    said = khmer_ocr("generate", "--quiet", cwd=folder).stdout
    assert "train:" in said and "complete" in said
    return folder


def test_the_tree_is_the_one_users_know(made: Path) -> None:
    root = made / "data/synthetic"
    overall = json.loads((root / "generation_metadata.json").read_text())
    assert set(overall["generation_config"]) >= {"corpus_dir", "output_dir", "image_height", "augment_train", "fonts"}
    assert overall["generation_config"]["corpus_dir"] == "data/processed"
    total = 0
    for split in ("train", "val", "test"):
        metadata = json.loads((root / split / "metadata.json").read_text())
        assert metadata["split"] == split and metadata["augmentation_applied"] is (split == "train")
        assert metadata["total_samples"] == len(metadata["samples"]) > 0
        total += metadata["total_samples"]
        for i, sample in enumerate(metadata["samples"]):
            assert sample["filename"] == f"{split}_{i:06d}"
            assert sample["image_path"] == f"data/synthetic/{split}/images/{split}_{i:06d}.png"
            assert sample["label_path"] == f"data/synthetic/{split}/labels/{split}_{i:06d}.txt"
            assert (made / sample["label_path"]).read_text(encoding="utf-8") == sample["text"]
            with Image.open(made / sample["image_path"]) as image:
                assert image.mode == "L" and image.size == (sample["image_width"], sample["image_height"])
    assert overall["total_images"] == total


def test_verify_finds_nothing_then_finds_and_repairs_what_is_broken(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "moved"
    subprocess.run(["cp", "-r", made / "data/synthetic", root], check=True)
    assert "Nothing is wrong" in khmer_ocr("verify", root, "--quiet", cwd=tmp_path).stdout
    image = root / "train/images/train_000003.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:40])
    label = root / "val/labels/val_000001.txt"
    text = label.read_bytes()
    label.write_text("ខុស", encoding="utf-8")
    said = khmer_ocr("verify", str(root), "--quiet", cwd=tmp_path, status=1).stdout
    assert "train_000003.png" in said and "val_000001" in said
    assert "Nothing is wrong" in khmer_ocr("verify", str(root), "--repair", "--quiet", cwd=made).stdout
    assert image.read_bytes() == whole and label.read_bytes() == text


def test_repair_of_metadata_shards_and_leftovers(made: Path, tmp_path: Path) -> None:
    flags = ["--corpus-dir", str(made / "data/processed"), "--format", "webdataset", "--splits", "train", "val"]
    khmer_ocr("generate", *flags, "--output-dir", "out", "--quiet", cwd=tmp_path)
    root = tmp_path / "out"
    whole = {file.relative_to(root): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    metadata, shard = root / "train/metadata.json", root / "val/shards/val-000000.tar"
    metadata.write_bytes(metadata.read_bytes()[: metadata.stat().st_size // 2])
    shard.write_bytes(shard.read_bytes()[:5000])
    leftover = root / "val/shards/.val-000000.tar.partial"
    leftover.write_bytes(b"half")
    said = khmer_ocr("verify", str(root), "--quiet", cwd=tmp_path, status=1).stdout
    assert "metadata.json" in said and "val-000000.tar" in said
    assert "Nothing is wrong" in khmer_ocr("verify", str(root), "--repair", "--quiet", cwd=tmp_path).stdout
    assert {file.relative_to(root): file.read_bytes() for file in root.rglob("*") if file.is_file()} == whole


def test_stats_and_preview_show_what_is_there(made: Path, tmp_path: Path) -> None:
    said = khmer_ocr("stats", "data/synthetic", cwd=made).stdout
    assert "train" in said and "NotoSansKhmer" in said
    sheet = tmp_path / "sheet.png"
    said = khmer_ocr("preview", "data/synthetic", "-o", str(sheet), "--count", "6", cwd=made).stdout
    assert "6 of" in said
    with Image.open(sheet) as image:
        pixels = np.asarray(image)
    assert pixels.shape[0] > 3 * 40 and (pixels == 255).mean() > 0.5 and pixels.min() < 40


def test_scripts_run_the_same_commands(made: Path, tmp_path: Path) -> None:
    script = REPOSITORY / "scripts/generate_synthetic_images.py"
    flags = ["--corpus-dir", str(made / "data/processed"), "--output-dir", str(tmp_path / "out"), "--max-lines", "20"]
    flags += ["--splits", "train", "val", "--no-augment", "--log-level", "WARNING", "--stats"]
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/train/metadata.json").read_text())["total_samples"] == 20
    overall = json.loads((tmp_path / "out/generation_metadata.json").read_text())
    assert overall["generation_config"]["augment_train"] is False and set(overall["splits"]) == {"train", "val"}
    help_text = subprocess.run(
        [sys.executable, REPOSITORY / "scripts/process_corpus.py", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--input" in help_text and "--synthesize" in help_text


def test_training_by_the_script_that_users_know(made: Path, tmp_path: Path) -> None:
    flags = ["--synthetic-dir", "data/synthetic", "--max-samples", "12", "--num-epochs", "2", "--batch-size", "6"]
    flags += ["--log-dir", str(tmp_path / "logs"), "--checkpoint-dir", str(tmp_path / "checkpoints")]
    command = [sys.executable, str(REPOSITORY / "scripts/train_production.py"), *flags, "--validate-lines", "4"]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Pre-flight: train 12" in done.stdout and "epoch 2, step 4" in done.stdout + done.stderr
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"checkpoint_epoch_001.pth", "checkpoint_epoch_002.pth", "last.pth", "best.pth", "model"}
    image = made / "data/synthetic/test/images/test_000000.png"
    model = tmp_path / "checkpoints/model"
    said = khmer_ocr("recognize", image, "--model", model, "--json", "--device", "cpu", cwd=tmp_path).stdout
    assert json.loads(said)["image"] == str(image)
    resumed = [*flags, "--validate-lines", "4", "--resume", str(tmp_path / "checkpoints/checkpoint_epoch_001.pth")]
    assert "Resumed from" in khmer_ocr("train", *resumed, cwd=made).stdout


def test_the_shipped_reader_reads_what_was_drawn(made: Path) -> None:
    said = khmer_ocr(
        "evaluate", "data/synthetic", "--split", "test", "--max-lines", "40", "--json", "--quiet", cwd=made
    ).stdout
    report = json.loads(said)
    assert report["lines"] == 40 and report["cer"] < 0.2, report


KNOWN_FLAGS = {
    "corpus": "--input --output-dir --min-chars --max-chars --seed --sample --synthesize --recombine --exclude "
    "--overwrite --quiet",
    "generate": "--corpus-dir --output-dir --fonts --splits --max-lines --seed --workers --shard --format "
    "--image-height --crop --no-augment --recipe --strength --device --overwrite --system-fonts --config --stats "
    "--log-level --quiet",
    "verify": "--repair --quiet",
    "preview": "--output -o --split --count --columns --seed",
    "fonts": "--fonts-dir --system-fonts --output -o --quiet",
    "stats": "",
    "cache": "--splits --on-error --overwrite --workers --quiet",
    "bench data": "--labels --lines --epochs --seeds --recipe --strength --device --fold --results --quiet",
    "bench load": "--split --engines --cache --batch-size --num-workers --device --dtype --epochs --max-samples "
    "--step-ms",
    "train": "--synthetic-dir --batch-size --num-epochs --max-samples --resume --log-dir --checkpoint-dir --preset "
    "--init --max-steps --max-minutes --accumulate --recipe --strength --engine --device --precision --freeze-norms "
    "--compile --seed --check",
    "recognize": "--json --model --decode --device --batch-size --precision",
    "evaluate": "--labels --split --json --predictions --worst --max-lines --fold --against --model --decode "
    "--device --precision --quiet",
    "export": "--onnx --model --labels --max-lines",
}


@pytest.mark.parametrize("verb", KNOWN_FLAGS)
def test_flags_stay(verb: str, tmp_path: Path) -> None:
    help_text = khmer_ocr(*verb.split(), "--help", cwd=tmp_path).stdout
    missing = [flag for flag in KNOWN_FLAGS[verb].split() if flag not in help_text]
    assert not missing


def test_errors_are_one_message_without_a_traceback(tmp_path: Path) -> None:
    done = khmer_ocr("generate", "--corpus-dir", str(tmp_path / "none"), "--quiet", cwd=tmp_path, status=2)
    assert "Split file not found" in done.stderr and "process_corpus.py" in done.stderr
    assert "Traceback" not in done.stderr
    done = khmer_ocr("generate", "--shard", "3", "--corpus-dir", str(tmp_path), cwd=tmp_path, status=2)
    assert "expected i/n" in done.stderr
    done = khmer_ocr("stats", str(tmp_path / "none"), cwd=tmp_path, status=2)
    assert "khmer-ocr generate" in done.stderr
    done = khmer_ocr("corpus", "--output-dir", str(tmp_path / "x"), cwd=tmp_path, status=2)
    assert "--input" in done.stderr


def test_importing_does_no_work() -> None:
    heavy = "{'torch', 'numba', 'nvidia', 'kornia'} & set(sys.modules)"
    code = f"import sys, khmer_ocr, khmer_ocr.cli; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_public_names_resolve() -> None:
    import khmer_ocr

    for name in khmer_ocr.__all__:
        assert getattr(khmer_ocr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        khmer_ocr.nothing

"""The stored tree: names, metadata, labels, and the same bytes by any number of workers and shards."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from PIL import Image

from khmer_ocr.corpus.synthesis.syllable_lines import synthesize_lines
from khmer_ocr.dataset import layout
from khmer_ocr.dataset.verify import verify
from khmer_ocr.generate.chunk_renderer import ChunkRenderer, RenderJob
from khmer_ocr.generate.split_text import SplitText, blocks
from khmer_ocr.render.measured_faces import usable_faces
from khmer_ocr.render.planner import REASONS
from khmer_ocr.render.settings import RenderConfig
from khmer_ocr.text.normalize import normalize
from tests.generate.generating import (
    FONTS,
    Corpora,
    generator,
    names,
    run,
    samples_of,
    start,
    tree_files,
    tree_hash,
    write_corpus,
)

TYPES: dict[str, type] = {"filename": str, "text": str, "font": str, "image_path": str, "label_path": str}
TYPES |= {"image_width": int, "image_height": int}
SPLIT_KEYS = {"split": str, "total_samples": int, "augmentation_applied": bool, "fonts_used": list}
SPLIT_KEYS |= {"image_height": int, "samples": list}


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> ChunkRenderer:
    faces, metrics = usable_faces(list(FONTS), fonts_dir=Path("none"), system=False)
    root = tmp_path_factory.mktemp("renderer")
    return ChunkRenderer(RenderJob(tuple(faces), metrics, RenderConfig(), str(root), "files", 42, None))


@pytest.fixture(scope="module")
def texts(renderer: ChunkRenderer) -> list[str]:
    lines = list(synthesize_lines(1100, seed=5))
    reasons = renderer.renderer.planner.rejections(lines)
    return [line for line, reason in zip(lines, reasons, strict=True) if not reason][: layout.CHUNK]


@pytest.mark.parametrize("split", layout.SPLITS)
def test_tree_and_metadata(reference: Path, corpora: Corpora, split: str) -> None:
    metadata = json.loads((reference / split / "metadata.json").read_bytes())
    for key, kind in SPLIT_KEYS.items():
        assert type(metadata[key]) is kind, key
    samples = metadata["samples"]
    assert (metadata["split"], metadata["image_height"]) == (split, 32)
    assert metadata["augmentation_applied"] is (split == "train")
    assert metadata["total_samples"] == len(samples) > 300
    assert metadata["fonts_used"] == sorted({sample["font"] for sample in samples}) == sorted(FONTS)
    assert names(reference / split) == ["images", "labels", "metadata.json"]
    stems = [f"{split}_{n:06d}" for n in range(len(samples))]
    assert names(reference / split / "images") == [f"{stem}.png" for stem in stems]
    assert names(reference / split / "labels") == [f"{stem}.txt" for stem in stems]
    corpus = iter((corpora.processed / f"{split}.txt").read_text(encoding="utf-8").splitlines())
    for stem, sample in zip(stems, samples, strict=True):
        for key, kind in TYPES.items():
            assert type(sample[key]) is kind, key
        assert sample["filename"] == stem
        assert sample["image_path"] == f"out/{split}/images/{stem}.png"
        assert sample["label_path"] == f"out/{split}/labels/{stem}.txt"
        assert (reference / split / "labels" / f"{stem}.txt").read_bytes() == sample["text"].encode()
        assert sample["text"] in corpus, "samples are not lines of the corpus in its order"


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_are_what_the_metadata_say(reference: Path, split: str) -> None:
    for sample in samples_of(reference, split)[::7]:
        image = Image.open(reference / split / "images" / f"{sample['filename']}.png")
        pixels = np.asarray(image)
        assert image.mode == "L" and pixels.shape == (sample["image_height"], sample["image_width"])
        assert xxhash.xxh3_64_hexdigest(pixels.tobytes()) == sample["pixel_hash"]
        assert pixels.min() < (192 if sample.get("augmentation") else 128)
        if not sample.get("augmentation"):
            assert (pixels[:, :2] == 255).all() and (pixels[:, -2:] == 255).all()
        assert ("augmentation" in sample) == (split == "train")


def test_overall_metadata(reference: Path, corpora: Corpora) -> None:
    assert names(reference) == ["generation_metadata.json", "test", "train", "val"]
    overall = json.loads((reference / "generation_metadata.json").read_bytes())
    config = overall["generation_config"]
    assert {key: config[key] for key in ("corpus_dir", "output_dir", "image_height", "augment_train", "fonts")} == {
        "corpus_dir": corpora.processed.as_posix(),
        "output_dir": "out",
        "image_height": 32,
        "augment_train": True,
        "fonts": sorted(FONTS),
    }
    assert list(overall["splits"]) == ["train", "val", "test"]
    totals = {split: len(samples_of(reference, split)) for split in layout.SPLITS}
    assert {split: facts["total_samples"] for split, facts in overall["splits"].items()} == totals
    assert overall["total_images"] == sum(totals.values())
    for split, facts in overall["splits"].items():
        lines = len((corpora.processed / f"{split}.txt").read_text(encoding="utf-8").splitlines())
        assert facts["total_samples"] + sum(facts["rejected"].values()) == lines
        assert set(facts["rejected"]) <= set(REASONS)
        assert sum(facts["fonts"].values()) == facts["total_samples"]
        stored = [*(reference / split / "images").iterdir(), *(reference / split / "labels").iterdir()]
        assert facts["bytes"] == sum(file.stat().st_size for file in stored)
    assert overall["run"]["seed"] == 42 and set(overall["run"]["fonts"]) == set(FONTS)
    assert {"khmer_ocr", "harfbuzz", "freetype", "png"} <= set(overall["run"]["versions"])
    assert "output_dir" not in overall["run"]


def test_verify_finds_nothing(reference: Path, webdataset_run: Path) -> None:
    for root in (reference, webdataset_run):
        assert not verify(root, progress=False).problems


@pytest.mark.parametrize("workers", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_same_tree_by_any_number_of_workers(corpus: Path, tmp_path: Path, reference_hash: str, workers: int) -> None:
    run(corpus, tmp_path, "--workers", str(workers))
    assert tree_hash(tmp_path / "out") == reference_hash


@pytest.mark.slow
def test_same_tree_by_shards_one_after_another(corpus: Path, tmp_path: Path, reference_hash: str) -> None:
    said = [run(corpus, tmp_path, "--workers", "1", "--shard", f"{n}/3") for n in (2, 0, 1)]
    assert "train: " in said[0] and "not complete: other shards are still to come" in said[0]
    assert "other shards" not in said[2] and said[2].count("complete") == 3
    assert tree_hash(tmp_path / "out") == reference_hash


def test_same_tree_by_shards_at_once(corpus: Path, tmp_path: Path, reference_hash: str) -> None:
    processes = [start(corpus, tmp_path, "--workers", "1", "--shard", f"{n}/3") for n in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    assert tree_hash(tmp_path / "out") == reference_hash


@pytest.mark.slow
def test_same_tree_with_a_cold_cache(
    corpus: Path, tmp_path: Path, reference: Path, reference_hash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KHMER_OCR_CACHE", str(tmp_path / "cache"))
    run(corpus, tmp_path, "--workers", "2")
    assert tree_hash(tmp_path / "out") == reference_hash
    assert names(tmp_path / "cache") == ["atlas", "metrics"]
    shutil.rmtree(tmp_path / "out")
    kept = list((tmp_path / "cache" / "atlas").rglob("*.npz"))
    assert len(kept) >= len(FONTS)
    for file in kept:
        file.write_bytes(file.read_bytes()[:1000])
    run(corpus, tmp_path, "--splits", "val")
    assert tree_files(tmp_path / "out" / "val") == tree_files(reference / "val")


@pytest.mark.slow
def test_same_tree_with_the_splits_one_by_one(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cwd, parts in (("one", [["test"], ["train", "val"]]), ("other", [["val", "test", "train"]])):
        (tmp_path / cwd).mkdir()
        monkeypatch.chdir(tmp_path / cwd)
        made = generator(corpus, Path("out"))
        for splits in parts:
            made.generate(splits, 60, progress=False, workers=1)
            assert names(Path("out"))[:2] == ["generation_metadata.json", "test"]
    assert tree_files(tmp_path / "one") == tree_files(tmp_path / "other")


def test_raw_text_gives_the_same_samples(corpora: Corpora, reference: Path, tmp_path: Path) -> None:
    run(corpora.raw, tmp_path, "--splits", "val", "test")
    for split in ("val", "test"):
        ours, known = samples_of(tmp_path / "out", split), samples_of(reference, split)
        assert ours == known
        assert all(normalize(sample["text"]) == sample["text"] for sample in ours)
    images = {name: data for name, data in tree_files(tmp_path / "out").items() if not name.endswith(".json")}
    assert images.items() <= tree_files(reference).items()


def test_a_processed_corpus_is_recognised(corpora: Corpora, tmp_path: Path) -> None:
    assert SplitText.open(corpora.processed, "val", None).normalised
    assert SplitText.open(corpora.processed, "val", 5).normalised
    assert not SplitText.open(corpora.raw, "val", None).normalised
    edited = tmp_path / "edited"
    shutil.copytree(corpora.processed, edited)
    with (edited / "val.txt").open("a", encoding="utf-8") as file:
        file.write("ខ្ញុំ\u200bទៅ\n")
    assert not SplitText.open(edited, "val", None).normalised
    assert SplitText.open(edited, "test", None).normalised
    stats = json.loads((edited / "corpus_stats.json").read_text(encoding="utf-8"))
    for damage in (json.dumps({**stats, "normalizer_version": -1}), json.dumps({**stats, "splits": []}), "{", "[1]"):
        (edited / "corpus_stats.json").write_text(damage, encoding="utf-8")
        assert not SplitText.open(edited, "test", None).normalised


def test_a_text_is_read_three_times(corpora: Corpora, copy_of_half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To digest and check it, to plan, to draw; a run that goes on has its plan and checks what was drawn instead."""
    opened = []
    real = Path.open

    def counted(path: Path, *args: Any, **settings: Any) -> Any:
        opened.append(path)
        return real(path, *args, **settings)

    monkeypatch.setattr(Path, "open", counted)
    text = corpora.processed / "train.txt"
    monkeypatch.chdir(copy_of_half.parent)
    for out, expected in ((Path("anew"), 3), (Path("out"), 3), (Path("out"), 1)):
        opened.clear()
        assert generator(corpora.processed, out).generate(["train"], 1100, progress=False)["train"].complete
        assert opened.count(text) == expected


def test_val_lines_look_the_same_wherever_they_stand(corpora: Corpora, reference: Path, tmp_path: Path) -> None:
    lines = (corpora.processed / "val.txt").read_text(encoding="utf-8").splitlines()
    shuffled = write_corpus(tmp_path / "corpus", "ក", val="\n".join(reversed(lines[:300])))
    generator(shuffled, tmp_path / "out").generate(["val"], progress=False)
    by_text = {sample["text"]: sample for sample in samples_of(reference, "val")}
    moved = samples_of(tmp_path / "out", "val")
    assert len(moved) > 290
    for sample in moved:
        for key in ("font", "pixel_hash", "image_width", "size_ppem"):
            assert sample[key] == by_text[sample["text"]][key]


def test_another_seed_draws_training_lines_otherwise(corpus: Path, reference: Path, tmp_path: Path) -> None:
    generator(corpus, tmp_path / "out", random_seed=7).generate(["train"], 500, progress=False)
    pairs = list(zip(samples_of(tmp_path / "out"), samples_of(reference), strict=False))
    assert len(pairs) > 490 and all(a["text"] == b["text"] for a, b in pairs)
    assert 0.2 < sum(a["font"] == b["font"] for a, b in pairs) / len(pairs) < 0.5


def test_max_lines_reads_the_first(corpus: Path, reference: Path, tmp_path: Path) -> None:
    out = run(corpus, tmp_path, "--max-lines", "40")
    assert len(re.findall(r"(?m)^(train|val|test): \d+ samples, \d+ drawn now, complete", out)) == 3
    for split in layout.SPLITS:
        few = samples_of(tmp_path / "out", split)
        assert 30 < len(few) <= 40 and few == samples_of(reference, split)[: len(few)]


def test_library_call(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = generator(corpus, Path("some/where"))
    result = made.generate(["val"], progress=False, workers=1)
    known = len(samples_of(reference, "val"))
    assert (result["val"].samples, result["val"].drawn, result["val"].complete) == (known, known, True)
    assert samples_of(Path("some/where"), "val")[0]["image_path"] == "some/where/val/images/val_000000.png"
    statistics = made.get_statistics()
    assert statistics["total_images"] == known and set(statistics["splits"]) == {"val"}
    assert set(statistics["splits"]["val"]["fonts"]) == set(FONTS)
    again = made.generate("val", progress=False)
    assert (again["val"].samples, again["val"].drawn, again["val"].complete) == (known, 0, True)


def test_importing_the_script_of_a_user_needs_no_guard(corpus: Path, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys\n"
        "from khmer_ocr import SyntheticImageGenerator\n"
        f"made = SyntheticImageGenerator({str(corpus)!r}, 'out', fonts={list(FONTS)!r})\n"
        "print(made.generate(['test'], 50, progress=False, workers=2)['test'].complete)\n",
        encoding="utf-8",
    )
    # A module of that name in the working folder must not be taken for ours, nor for numpy.
    (tmp_path / "numpy.py").write_text("raise RuntimeError('shadow')")
    done = subprocess.run(
        [sys.executable, "-P", str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_names_grow_a_digit_past_a_million(renderer: ChunkRenderer, texts: list[str]) -> None:
    assert layout.stem("train", 999_999) == "train_999999" and layout.stem("train", 1_000_000) == "train_1000000"
    renderer.journal.fragment("train", 0).parent.mkdir(parents=True, exist_ok=True)
    chunk = 1_000_000 // layout.CHUNK
    renderer.chunk("train", chunk, texts, normalised=True)
    stored = set(names(Path(renderer.job.root) / "train" / "images"))
    assert {"train_999999.png", "train_1000000.png"} <= stored and len(stored) == len(texts)
    lines = list(renderer.journal.fragment("train", chunk).read_bytes().splitlines()[1:])
    assert json.loads(lines[1_000_000 % layout.CHUNK])["filename"] == "train_1000000"


def test_bytes_do_not_depend_on_the_batch(renderer: ChunkRenderer, texts: list[str]) -> None:
    whole = renderer.lines("train", 5000, texts)
    for size in (1, 7, 300):
        samples: list[Any] = []
        images: list[bytes] = []
        for begin in range(0, 600, size):
            one, two = renderer.lines("train", 5000 + begin, texts[begin : min(begin + size, 600)])
            samples, images = samples + one, images + two
        assert (samples, images) == (whole[0][:600], whole[1][:600])


def test_lines_of_a_val_split_have_no_number(renderer: ChunkRenderer, texts: list[str]) -> None:
    one, first = renderer.lines("val", 0, texts[:5])
    two, second = renderer.lines("val", 70, texts[:5])
    assert first == second
    assert [sample["font"] for sample in one] == [sample["font"] for sample in two]


def test_blocks_end_at_either_limit() -> None:
    lines = ["a" * n for n in (5, 5, 5, 20, 1, 1, 1, 1)]
    made = list(blocks(lines, 3, 12))
    assert [first for first, _ in made] == [0, 2, 3, 4, 7]
    assert [line for _, block in made for line in block] == lines
    assert all(len(block) <= 3 and (sum(map(len, block)) <= 12 or len(block) == 1) for _, block in made)
    assert list(blocks([], 3, 12)) == []


MEMORY = """
import json, sys
from pathlib import Path
from khmer_ocr.dataset.layout import CHUNK
from khmer_ocr.render.measured_faces import usable_faces
from khmer_ocr.generate.chunk_renderer import ChunkRenderer, RenderJob
from khmer_ocr.render.settings import RenderConfig
from khmer_ocr.corpus.synthesis.syllable_lines import synthesize_lines
def status(key):
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1]) / 1024
faces, metrics = usable_faces(json.loads(sys.argv[2]), fonts_dir=Path("none"), system=False)
renderer = ChunkRenderer(RenderJob(tuple(faces), metrics, RenderConfig(), sys.argv[1], "files", 42, None))
texts = list(synthesize_lines(30000, seed=5))
texts = [t for t, r in zip(texts, renderer.renderer.planner.rejections(texts[:2000]).tolist() + [0] * 28000) if not r]
renderer.journal.fragment("train", 0).parent.mkdir(parents=True)
sizes, done, chunk = [], 0, 0
for limit in (10_000, 100_000):
    while done < limit:
        begin = done % (len(texts) - CHUNK)
        block = texts[begin : begin + CHUNK]
        reasons = renderer.plan("train", 0, block, True)
        block = [t for t, r in zip(block, reasons) if not r]
        renderer.chunk("train", chunk % 4, block, True)
        done, chunk = done + CHUNK, chunk + 1
    sizes.append(status("VmRSS"))
print(json.dumps([*sizes, status("VmHWM")]))
"""


WIDE = """
import json, sys
from pathlib import Path
from khmer_ocr.dataset.layout import CHUNK
from khmer_ocr.render.measured_faces import usable_faces
from khmer_ocr.generate.chunk_renderer import ChunkRenderer, RenderJob
from khmer_ocr.render.settings import RenderConfig
faces, metrics = usable_faces(json.loads(sys.argv[2]), fonts_dir=Path("none"), system=False)
job = RenderJob(tuple(faces), metrics, RenderConfig(image_height=96), sys.argv[1], "files", 42, None)
renderer = ChunkRenderer(job)
fragment = renderer.journal.fragment("train", 0)
fragment.parent.mkdir(parents=True)
print(renderer.chunk("train", 0, [sys.argv[3]] * CHUNK, True)[0])
print(max(json.loads(line)["image_width"] for line in fragment.read_bytes().splitlines()[1:]))
# Not ru_maxrss: that of a child begins at what its parent had when it forked.
print(int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024)
"""


@pytest.mark.slow
def test_memory_of_a_worker_does_not_grow(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEMORY, str(tmp_path), json.dumps(FONTS)]
    early_mb, late_mb, peak_mb = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert abs(late_mb - early_mb) < 0.05 * early_mb, (early_mb, late_mb)
    assert peak_mb < 500, peak_mb


@pytest.mark.slow
def test_a_long_line_in_company_needs_little_memory(tmp_path: Path) -> None:
    # 1,024 lines as wide as can be at the greatest height would be 400 MB of pixels, were they drawn together.
    command = [sys.executable, "-c", WIDE, str(tmp_path / "out"), json.dumps(FONTS), "ក" * 90]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    count, widest_px, peak_mb = map(int, done.stdout.split())
    assert count == layout.CHUNK and widest_px > 2500
    assert peak_mb < 500, peak_mb


def test_environment_of_the_tests_is_the_one_meant() -> None:
    assert Path(os.environ["KHMER_OCR_CACHE"]).parts[-2:] == (".cache", "tests")

"""Trees and runs of version 0.1.0 go on under later versions."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import xxhash

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.verify import verify
from khmer_ocr.errors import RunConflictError
from khmer_ocr.generate import fingerprint
from khmer_ocr.generate.fingerprint import renormalised_lines
from khmer_ocr.generate.split_text import SplitText
from tests.generate.generating import FEW, TIMEOUT_S, command, generator, run, samples_of, tree_files, write_corpus

NEXT = """
import sys
from khmer_ocr import version
version.__version__ = '0.2.0'
from khmer_ocr.cli import main
main(sys.argv[1:])
"""
PLAIN = "ភាសាខ្មែរ\nស្រុកស្រែចម្ការ\nទឹកភ្លៀង\n"
DOUBLED = "ចំំនួន\nខ្មែរ\nតំំបន់់\n"


def next_version(cwd: Path, arguments: Sequence[str]) -> str:
    """What a command line prints under the package's next version."""
    line = [sys.executable, "-c", NEXT, *arguments]
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def set_version(file: Path, key: str | None, **versions: object) -> None:
    """Make a stored run one of other versions."""
    content = json.loads(file.read_bytes())
    (content if key is None else content[key])["versions"].update(versions)
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def respell(fragment: Path) -> None:
    """Give the names in a fragment the suffix that 0.1.0 wrote, under a hash of its own."""
    head, *lines = fragment.read_bytes().split(b"\n")
    samples = [json.loads(line) for line in lines]
    old = [json.dumps({**s, "filename": f"{s['filename']}.png"}, ensure_ascii=False).encode() for s in samples]
    body = b"\n".join(old)
    summary: dict[str, Any] = {**json.loads(head), "hash": xxhash.xxh3_64_hexdigest(body)}
    fragment.write_bytes(json.dumps(summary, ensure_ascii=False).encode() + b"\n" + body)


def test_a_run_begun_with_suffixes_in_its_names_is_finished(
    corpus: Path, copy_of_half: Path, few: Path, tmp_path: Path
) -> None:
    fragment = copy_of_half / layout.JOURNAL / "train/000000.jsonl"
    respell(fragment)
    assert b'{"filename": "train_000007.png", ' in fragment.read_bytes()
    assert "train: " in run(corpus, tmp_path, *FEW)
    assert tree_files(copy_of_half) == tree_files(few)


def test_a_run_begun_with_one_record_for_all_splits_is_finished(
    corpus: Path, copy_of_half: Path, few: Path, tmp_path: Path
) -> None:
    folder = copy_of_half / layout.JOURNAL
    for name in ("run.json", "run.copy.json"):
        (folder / "train" / name).rename(folder / name)
    assert "\n  seed: 42 -> 7\n" in run(corpus, tmp_path, *FEW, "--seed", "7", status=2)
    assert (folder / "run.json").is_file() and (folder / "train/000000.jsonl").is_file()
    assert "train: " in run(corpus, tmp_path, *FEW)
    assert tree_files(copy_of_half) == tree_files(few)


def test_a_complete_split_with_suffixes_stays_as_it_is(corpus: Path, copy_of_few: Path, tmp_path: Path) -> None:
    path = copy_of_few / "train/metadata.json"
    path.write_bytes(path.read_bytes().replace(b'", "text": ', b'.png", "text": '))
    assert samples_of(copy_of_few)[1030]["filename"] == "train_001030.png"
    before = tree_files(copy_of_few)
    assert "is complete: nothing to do" in run(corpus, tmp_path, *FEW)
    assert tree_files(copy_of_few) == before and verify(copy_of_few, progress=False).ok


def test_the_overall_file_repeats_what_the_split_says(copy_of_few: Path) -> None:
    overall = json.loads((copy_of_few / layout.GENERATION_METADATA).read_bytes())
    metadata = json.loads((copy_of_few / "train/metadata.json").read_bytes())
    del metadata["samples"]
    facts = overall["splits"]["train"]
    assert metadata.items() <= facts.items() and facts["split"] == "train"
    assert facts.keys() - metadata.keys() == {"fonts", "bytes"}


def test_a_complete_tree_of_0_1_0_is_complete_under_the_next_version(
    corpus: Path, copy_of_few: Path, tmp_path: Path
) -> None:
    assert (
        json.loads((copy_of_few / layout.GENERATION_METADATA).read_bytes())["run"]["versions"]["khmer_ocr"] == "0.1.0"
    )
    before = tree_files(copy_of_few)
    assert "is complete: nothing to do" in next_version(tmp_path, command(corpus, *FEW)[3:])
    assert tree_files(copy_of_few) == before


def test_a_killed_run_of_0_1_0_goes_on_under_the_next_version(
    corpus: Path, copy_of_half: Path, few: Path, tmp_path: Path
) -> None:
    said = next_version(tmp_path, command(corpus, *FEW)[3:])
    assert "complete; rejected" in said
    assert tree_files(copy_of_half) == tree_files(few)  # the version that it was begun with stands in it


def test_a_damaged_tree_of_0_1_0_is_mended_under_the_next_version(copy_of_few: Path, few: Path, tmp_path: Path) -> None:
    image = copy_of_few / "train/images/train_001030.png"
    image.write_bytes(image.read_bytes()[:-20])
    assert "Nothing is wrong" in next_version(tmp_path, ["verify", "out", "--repair", "--quiet"])
    assert tree_files(copy_of_few) == tree_files(few)


@pytest.mark.parametrize("name", ["drawing", "harfbuzz", "freetype", "png"])
def test_what_changes_pixels_still_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    made = generator(write_corpus(tmp_path / "in", PLAIN), tmp_path / "out", augment_train=False)
    made.generate(["train"], progress=False, workers=1)
    set_version(tmp_path / "out" / layout.GENERATION_METADATA, "run", **{name: "other"})
    with pytest.raises(RunConflictError, match=f'versions.{name}: "other" -> '):
        made.generate(["train"], progress=False)


def test_lines_that_a_newer_normal_form_leaves_alone_go_on(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "in", PLAIN, val=PLAIN)
    made = generator(folder, tmp_path / "out", augment_train=False)
    made.generate(["train"], progress=False, workers=1)
    overall = tmp_path / "out" / layout.GENERATION_METADATA
    set_version(overall, "run", normalizer=2)
    before = tree_files(tmp_path / "out")
    assert made.generate(["train"], progress=False)["train"].drawn == 0
    assert tree_files(tmp_path / "out") == before
    assert made.generate(["val"], progress=False, workers=1)["val"].complete
    content = json.loads(overall.read_bytes())
    assert content["run"]["versions"]["normalizer"] == 2 and set(content["splits"]) == {"train", "val"}


def test_lines_that_a_newer_normal_form_writes_otherwise_are_counted(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "in", DOUBLED)
    made = generator(folder, tmp_path / "out", augment_train=False)
    made.generate(["train"], progress=False, workers=1)
    assert samples_of(tmp_path / "out")[0]["text"] == "ចំនួន"
    for version, said in ((2, "2 of the lines to be drawn are written otherwise in normal form 3 than in 2"), (99, "")):
        set_version(tmp_path / "out" / layout.GENERATION_METADATA, "run", normalizer=version)
        with pytest.raises(RunConflictError, match=f"versions.normalizer: {version} -> 3[^$]*{said}"):
            made.generate(["train"], progress=False)


def test_versions_of_the_normal_form_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SplitText.open(write_corpus(tmp_path, DOUBLED), "train", None)
    assert [renormalised_lines(version, [text]) for version in (None, "2", True, 0, 1, 4)] == [None] * 6
    assert [renormalised_lines(version, [text]) for version in (2, 3)] == [2, 0]
    monkeypatch.setattr(fingerprint, "NORMALIZER_VERSION", 4)
    assert renormalised_lines(2, [text]) is None and renormalised_lines(3, [text]) is None

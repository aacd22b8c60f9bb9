"""Trees and runs of version 0.1.0 go on under later versions."""

import json
from pathlib import Path
from typing import Any

import xxhash
from generating import FEW, run, samples_of, tree_files

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.verify import verify


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

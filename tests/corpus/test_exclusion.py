"""Lines that share a passage with texts to be measured on are left out: neither more of them nor fewer."""

import gzip
import importlib.util
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr.corpus.exclusion import RUN, Exclusion
from khmer_ocr.corpus.pipeline import CorpusReport, process_corpus
from khmer_ocr.corpus.settings import CorpusConfig
from khmer_ocr.corpus.synthesis.syllable_lines import synthesize_lines
from khmer_ocr.errors import CorpusError, RunConflictError
from khmer_ocr.samples import sample_lines
from khmer_ocr.text.metrics import printed
from tests import SHARED

LONG = "ប្រទេសកម្ពុជាជាព្រះរាជាណាចក្រដែលព្រះមហាក្សត្រទ្រង់ប្រតិបត្តិតាមរដ្ឋធម្មនុញ្ញ"


def runs(text: str) -> set[str]:
    text = re.sub("[\\s\u200b-\u200d\ufeff]+", "", printed(text))
    return {text[n : n + RUN] for n in range(len(text) - RUN + 1)}


def written(folder: Path) -> Iterator[str]:
    for split in ("train", "val", "test"):
        yield from (folder / f"{split}.txt").read_text(encoding="utf-8").splitlines()


def corpus(folder: Path, *exclude: Path, **settings: Any) -> CorpusReport:
    config = CorpusConfig(sample=True, output_dir=folder, exclude=exclude, **settings)
    return process_corpus(config, progress=False)


@given(
    st.lists(st.text("កខ \u200b–-", max_size=60), max_size=6), st.lists(st.text("កខ \u200b–-", max_size=60), max_size=9)
)
def test_exactly_the_lines_that_share_a_run_are_found(texts: list[str], lines: list[str]) -> None:
    """Of an alphabet so small that many do."""
    known = set[str]().union(*map(runs, texts))
    file = Path(__file__).with_name("nowhere.tsv")
    if not known:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("khmer_ocr.corpus.exclusion._cells", lambda _file: iter(texts))
        assert Exclusion([file]).shared(lines).tolist() == [bool(runs(line) & known) for line in lines]


@pytest.mark.parametrize(
    ("line", "excluded"),
    [
        (LONG, True),
        (f"ក{LONG[5 : 5 + RUN]}ក", True),
        (f"ក{LONG[5 : 4 + RUN]}ក", False),
        (" ".join(LONG[:RUN]), True),
        (LONG[: RUN - 1], False),
        ("", False),
    ],
)
def test_24_characters_are_a_passage(tmp_path: Path, line: str, excluded: bool) -> None:
    (tmp_path / "labels.tsv").write_text(f"a.png\t{LONG}\n", encoding="utf-8")
    assert Exclusion([tmp_path / "labels.tsv"]).shared(["កកកកក", line, LONG[40:]]).tolist() == [False, excluded, True]


def test_texts_labels_and_packed_files_are_read(tmp_path: Path) -> None:
    lines = [line for line in sample_lines() if len(line) > 40][:4]
    (tmp_path / "a.txt").write_text(f"{lines[0]}\n", encoding="utf-8")
    (tmp_path / "labels.tsv").write_text(f"images/x.png\t{lines[1]}\tsource\n", encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": lines[2]}).encode()))
    found = Exclusion([tmp_path / name for name in ("a.txt", "labels.tsv", "b.jsonl.gz")])
    assert found.shared(lines).tolist() == [True, True, True, False]
    assert Exclusion([tmp_path]).shared(lines).tolist() == [True, False, True, False]  # a folder's texts


def test_what_excludes_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.tsv").write_text("a.png\tខ្មែរ\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="no text there is as long as 24 characters"):
        corpus(tmp_path / "out", tmp_path / "labels.tsv")
    with pytest.raises(CorpusError, match=r"none\.tsv.*No such file"):
        corpus(tmp_path / "out", tmp_path / "none.tsv")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\0")
    with pytest.raises(CorpusError, match="not UTF-8"):
        corpus(tmp_path / "out", tmp_path / "image.png")
    assert not (tmp_path / "out").exists()


def test_a_corpus_without_what_it_will_be_measured_on(tmp_path: Path) -> None:
    whole = corpus(tmp_path / "whole")
    kept_apart = [line for line in written(tmp_path / "whole") if len(line) > 50][:3]
    labels = tmp_path / "labels.tsv"
    labels.write_text("".join(f"{n}.png\t{line}\n" for n, line in enumerate(kept_apart)), encoding="utf-8")
    known = set[str]().union(*map(runs, kept_apart))
    report = corpus(tmp_path / "out", labels, recombine=300, synthesize=50)
    assert report.dropped["excluded"] >= 3 and "excluded" in str(report)
    assert not any(runs(line) & known for line in written(tmp_path / "out"))
    assert set(written(tmp_path / "whole")) - set(written(tmp_path / "out")) >= set(kept_apart)
    assert whole.lines - report.dropped["excluded"] + 350 == report.lines
    stored = json.loads((tmp_path / "out/corpus_stats.json").read_bytes())
    assert stored["dropped"]["excluded"] == report.dropped["excluded"]
    # Its digest decides and not its place, and without it a corpus is what it always was.
    other = tmp_path / "other"
    other.mkdir()
    corpus(tmp_path / "out", labels.rename(other / "labels.tsv"), recombine=300, synthesize=50)
    with pytest.raises(RunConflictError, match="exclude"):
        corpus(tmp_path / "out", recombine=300, synthesize=50)
    assert "exclude" not in (tmp_path / "whole/corpus_stats.json").read_text(encoding="utf-8")


def test_the_shared_script_finds_the_same_lines(tmp_path: Path) -> None:
    script = SHARED / "real/decontaminate.py"
    if not script.is_file():
        pytest.skip("../shared/real is not here")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(script.parent))
        spec = importlib.util.spec_from_file_location("decontaminate", script)
        assert spec is not None and spec.loader is not None
        theirs = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(theirs)
    files = sorted(SHARED.glob("real/*/labels.tsv"))
    labels = [line.split("\t")[1] for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    lines = [*labels, *(f"{one[10:30]}{two[:20]}" for one, two in itertools.pairwise(labels))]
    lines += synthesize_lines(300, seed=1)
    keys = {theirs.key(run) for label in labels for run in theirs.runs(label)}
    expected = [any(theirs.key(run) in keys for run in theirs.runs(line)) for line in lines]
    found = Exclusion(files).shared(lines).tolist()
    assert found == expected and 100 < sum(found) < len(lines) - 200

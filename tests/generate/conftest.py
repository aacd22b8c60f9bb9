"""A small corpus and the trees drawn from it."""

import shutil
from pathlib import Path

import pytest

from khmer_ocr.corpus.pipeline import process_corpus
from khmer_ocr.corpus.settings import CorpusConfig
from khmer_ocr.corpus.synthesis.syllable_lines import synthesize_lines
from khmer_ocr.samples import sample_lines
from tests.generate.generating import FEW, LINES, Corpora, misspelt, run, tree_hash


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    folder = tmp_path_factory.mktemp("corpora")
    processed, raw = folder / "processed", folder / "raw"
    lines = [*sample_lines(), *synthesize_lines(LINES, seed=11)]
    (folder / "text.txt").write_text("\n\n".join(lines), encoding="utf-8")
    process_corpus(CorpusConfig(input=(folder / "text.txt",), output_dir=processed), progress=False)
    raw.mkdir()
    for split in ("train", "val", "test"):
        good = (processed / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        bad = "\ufeff" + "\r\n".join(misspelt(line, n) for n, line in enumerate(good)) + "\r\n"
        (raw / f"{split}.txt").write_bytes(bad.encode())
    return Corpora(processed, raw)


@pytest.fixture
def corpus(corpora: Corpora) -> Path:
    return corpora.processed


@pytest.fixture(scope="session")
def reference(corpora: Corpora, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All splits, one worker, uninterrupted."""
    folder = tmp_path_factory.mktemp("reference")
    run(corpora.processed, folder, "--workers", "1")
    return folder / "out"


@pytest.fixture(scope="session")
def reference_hash(reference: Path) -> str:
    return tree_hash(reference)


@pytest.fixture(scope="session")
def webdataset_run(corpora: Corpora, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training split as tar shards."""
    folder = tmp_path_factory.mktemp("webdataset")
    run(corpora.processed, folder, "--format", "webdataset", "--splits", "train")
    return folder / "out"


@pytest.fixture(scope="session")
def few(corpora: Corpora, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chunks of one split."""
    folder = tmp_path_factory.mktemp("few")
    run(corpora.processed, folder, *FEW)
    return folder / "out"


@pytest.fixture(scope="session")
def half(corpora: Corpora, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`few` after its first chunk of two, journal and all, as a killed run leaves it."""
    folder = tmp_path_factory.mktemp("half")
    run(corpora.processed, folder, *FEW, "--shard", "0/2")
    return folder / "out"


@pytest.fixture
def copy_of_half(half: Path, tmp_path: Path) -> Path:
    shutil.copytree(half, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def copy_of_few(few: Path, tmp_path: Path) -> Path:
    shutil.copytree(few, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def copy_of_reference(reference: Path, tmp_path: Path) -> Path:
    shutil.copytree(reference, tmp_path / "out")
    return tmp_path / "out"

"""Readers on disk: what is written is read; what is damaged, foreign or hostile is refused and named."""

import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from khmer_ocr.errors import ModelError
from khmer_ocr.model.presets import preset
from khmer_ocr.model.seq2seq import Seq2Seq
from khmer_ocr.model.weights import DESCRIPTION, WEIGHTS, load_model, save_model
from khmer_ocr.text.charset import Charset
from tests.model.test_seq2seq import SMALL, lines

CHARSET = Charset(tuple("កខគឃងចឆជឈញដ្ 123"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", Seq2Seq(SMALL, len(CHARSET)), CHARSET, {"note": "untrained"})
    return tmp_path / "model"


def test_round_trip_reads_the_same(tmp_path: Path) -> None:
    model = Seq2Seq(SMALL, len(CHARSET)).eval()
    save_model(tmp_path, model, CHARSET, {"lines": 7})
    loaded = load_model(tmp_path)
    assert (loaded.charset, loaded.card, loaded.source) == (CHARSET, {"lines": 7}, tmp_path)
    assert loaded.model.config == SMALL
    images, width_B = lines([50, 20])
    with torch.inference_mode():
        want, _ = model.ctc_log_probs(model.encode(images, width_B))
        got, _ = loaded.model.ctc_log_probs(loaded.model.encode(images, width_B))
    torch.testing.assert_close(got, want, atol=0.02, rtol=0.02)  # weights are kept in 16 bits
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([WEIGHTS, DESCRIPTION])


def test_compact_weights_take_less_than_ten_megabytes(tmp_path: Path) -> None:
    charset = Charset.default()
    save_model(tmp_path, Seq2Seq(preset("compact"), len(charset)), charset, {})
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 10_000_000


def test_missing_folder_says_how_to_get_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model.*khmer-ocr train"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
def test_half_a_file_is_damaged(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match="damaged"):
        load_model(folder)


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_other_characters_are_refused(folder: Path) -> None:
    rewrite(folder, characters=list(reversed(CHARSET.characters)))
    with pytest.raises(ModelError, match="not those the weights were trained for"):
        load_model(folder)


def test_other_shape_is_refused(folder: Path) -> None:
    rewrite(folder, model={**asdict(SMALL), "width": 48})
    with pytest.raises(ModelError, match="do not fit the shape"):
        load_model(folder)


@pytest.mark.parametrize("model", [{"nonsense": 1}, None, {**asdict(SMALL), "heads": 7}])
def test_impossible_description_is_refused(folder: Path, model: object) -> None:
    rewrite(folder, model=model)
    with pytest.raises(ModelError, match="no model that this version can build"):
        load_model(folder)


def test_future_format_is_refused(folder: Path) -> None:
    rewrite(folder, format=99)
    with pytest.raises(ModelError, match="unknown format"):
        load_model(folder)


class Hostile:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    if zipped:
        torch.save({"model": Hostile(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Hostile(trace)}, protocol=2))
    with pytest.raises(ModelError, match=r"evil\.pth"):
        load_model(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"some bytes", b"PK\3\4 cut"])
def test_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "strange.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"strange\.pth"):
        load_model(path)


def test_checkpoint_of_others_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ModelError, match="no checkpoint of khmer-ocr train"):
        load_model(path)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_weights_are_readable_by_whom_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        save_model(tmp_path / "model", Seq2Seq(SMALL, len(CHARSET)), CHARSET, {})
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {
        WEIGHTS: mode,
        DESCRIPTION: mode,
    }

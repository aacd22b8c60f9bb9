"""The graphs say what torch says, at sizes they were not traced with, and carry what is needed to read with them."""

import json
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from khmer_ocr.cli.model_verbs import export
from khmer_ocr.errors import ConfigError, ModelError, OutputError
from khmer_ocr.model.presets import preset
from khmer_ocr.model.seq2seq import Seq2Seq
from khmer_ocr.model.weights import SHIPPED, LoadedModel, load_model
from khmer_ocr.recognize.export_onnx import (
    _Decoder,
    _difference,
    _Encoder,
    best_path,
    export_onnx,
    session,
    texts_apart,
)
from khmer_ocr.recognize.recognizer import Recognizer
from tests import SHARED
from tests.recognize.reading import TEXTS, Grey

pytest.importorskip("onnxruntime")
# Tracing takes half a minute: what needs graphs is slow.
SETS = SHARED / "eval"


@pytest.fixture(scope="module")
def graphs(taught: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    encoder, decoder, difference = export_onnx(taught, tmp_path_factory.mktemp("onnx") / "reader.onnx")
    assert 0 < difference < 1e-4 and decoder.name == "reader.decoder.onnx"
    assert len(list(encoder.parent.iterdir())) == 2
    return encoder, decoder


@pytest.mark.slow
@pytest.mark.parametrize(("lines", "columns"), [(1, 1), (1, 5), (4, 333), (7, 64)])
def test_any_number_of_lines_of_any_width(
    taught: LoadedModel, graphs: tuple[Path, Path], lines: int, columns: int
) -> None:
    rng = np.random.default_rng(columns)
    images = rng.random((lines, 1, 32, columns), dtype=np.float32)
    width = rng.integers(1, columns + 1, lines)
    width[0] = columns
    frames, count, log_probs, slots = session(str(graphs[0])).run(None, {"images": images, "width": width})
    with torch.inference_mode():
        memory = taught.model.encode(torch.from_numpy(images), torch.from_numpy(width))
        expected, expected_slots = taught.model.ctc_log_probs(memory)
    assert (count == memory.frame_count_B.numpy()).all() and (slots == expected_slots.numpy()).all()
    for line in range(lines):
        np.testing.assert_allclose(log_probs[line, : slots[line]], expected[line, : slots[line]].numpy(), atol=1e-4)
        np.testing.assert_allclose(
            frames[line, : count[line]], memory.frames_BTD[line, : count[line]].numpy(), atol=1e-4
        )


@pytest.mark.slow
def test_the_decoder_reads_the_lines_with_the_metadata_alone(graphs: tuple[Path, Path], lines: list[Grey]) -> None:
    """As a program without this project would: the best next token again and again."""
    encoder, decoder = (session(str(path)) for path in graphs)
    facts = decoder.get_modelmeta().custom_metadata_map
    tokens_of = json.loads(facts["special_tokens"]) + json.loads(facts["characters"])
    sos, eos = tokens_of.index("<sos>"), tokens_of.index("<eos>")
    assert facts["height_px"] == "32" and facts["ctc_blank"] == "0" and facts["preset"] == "small"
    for text, line in zip(TEXTS, lines, strict=True):
        width = round(line.shape[1] * 32 / line.shape[0])
        grey = np.asarray(Image.fromarray(line).resize((width, 32), Image.Resampling.BICUBIC))
        image = (grey.astype(np.float32) / 255)[None, None]
        frames, count, _, _ = encoder.run(None, {"images": image, "width": np.array([width])})
        ids = [sos]
        while ids[-1] != eos and len(ids) < 40:
            fed = {"frames": frames, "frame_count": count, "tokens": np.array([ids])}
            ids.append(int(decoder.run(None, fed)[0][0, -1].argmax()))
        assert "".join(tokens_of[token] for token in ids[1:-1]) == text


@pytest.mark.slow
def test_real_lines_are_read_as_torch_reads_them(
    taught: LoadedModel, graphs: tuple[Path, Path], lines: list[Grey]
) -> None:
    real = sorted((SETS / "clean").glob("*.png"))[:20] if SETS.is_dir() else []
    assert texts_apart(taught, graphs[0], [*lines, *real]) == 0
    other = replace(taught, model=Seq2Seq(taught.model.config, len(taught.charset)).fold())
    assert texts_apart(other, graphs[0], lines) > 0


def test_best_path_leaves_repeats_and_blanks_out() -> None:
    scores = np.log(np.random.default_rng(0).dirichlet(np.ones(5), 40)).astype(np.float32)
    ids = best_path(scores)
    spelled = [token for token, _ in groupby(scores.argmax(1).tolist()) if token]
    assert ids == spelled and 0 not in ids
    assert best_path(np.array([[0.0, -9.0]], np.float32)) == []


def test_what_cannot_be_exported(taught: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.onnx"):
        export_onnx(taught, tmp_path / "reader.pt")
    gru = replace(preset("buoy2022"), channels=(4, 4, 4, 4, 4, 4, 8), width=8, embedding=8)
    with pytest.raises(ConfigError, match="Export compact or base"):
        export_onnx(replace(taught, model=Seq2Seq(gru, len(taught.charset))), tmp_path / "reader.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"needs onnxscript, which is not installed.*\[onnx\]"):
        export_onnx(taught, tmp_path / "reader.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_graphs_that_differ_are_not_written(
    taught: LoadedModel, graphs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison itself: graphs of this reader against another one."""
    other = Seq2Seq(taught.model.config, len(taught.charset)).fold()
    content = [path.read_bytes() for path in graphs]
    assert _difference(_Encoder(taught.model), _Decoder(taught.model), *content) < 1e-4
    assert _difference(_Encoder(other), _Decoder(other), *content) > 0.1
    kept = iter(content)
    monkeypatch.setattr("khmer_ocr.recognize.export_onnx._graph", lambda *_: next(kept))
    with pytest.raises(ModelError, match="Nothing was written"):
        export_onnx(replace(taught, model=other), tmp_path / "reader.onnx")
    assert not list(tmp_path.iterdir())
    kept = iter(content)
    with pytest.raises(OutputError, match="can't be written"):
        export_onnx(taught, tmp_path / "no" / "folder.onnx")


@pytest.mark.slow
@pytest.mark.skipif(not SETS.is_dir(), reason="../shared/eval is not here")
@pytest.mark.skipif(not (SHIPPED / "model.safetensors").exists(), reason="no weights are shipped yet")
def test_shipped_weights_read_a_real_set_as_torch_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(tmp_path / "model.onnx", labels=SETS / "clean" / "labels.tsv")
    assert "the same CTC texts of 100 lines" in capsys.readouterr().out
    loaded = load_model()
    assert Recognizer(loaded, device="cpu").height_px == 32

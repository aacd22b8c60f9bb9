"""The same text whatever the image is stored as and whatever lies beside it in the batch."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from khmer_ocr.errors import ConfigError, ImageError, ModelError
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.io.devices import Precision
from khmer_ocr.model.decoding import DecodeMethod
from khmer_ocr.model.weights import SHIPPED, LoadedModel
from khmer_ocr.recognize import recognizer
from khmer_ocr.recognize.confidence import line_confidence, syllables_of
from khmer_ocr.recognize.prepare import prepare
from khmer_ocr.recognize.recognizer import Recognition, Recognizer
from khmer_ocr.text.metrics import Score, score
from khmer_ocr.text.syllables import split
from tests.recognize.reading import TEXTS, Grey, draw


@pytest.fixture(scope="module")
def reads(taught: LoadedModel) -> Recognizer:
    """Reads `TEXTS`; greedily, as that is what it has learnt."""
    return Recognizer(taught, device="cpu", decode="greedy")


def recognitions(found: Sequence[Recognition | ImageError]) -> list[Recognition]:
    assert all(isinstance(each, Recognition) for each in found)
    return [each for each in found if isinstance(each, Recognition)]


def texts(found: list[Recognition]) -> list[str]:
    return [recognition.text for recognition in found]


def jpeg(line: Grey, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(line).convert("RGB").save(file, "JPEG", quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize("size_px", [14, 20, 32, 48])
def test_lines_of_any_height(reads: Recognizer, regular: list[FontFace], size_px: int) -> None:
    # Of small type wider margins would be cut, and this small reader knows few frames.
    margin_px = 2 if size_px < 16 else 3
    assert texts(reads.recognize_lines(draw(TEXTS, regular, size_px, margin_px))) == list(TEXTS)


def test_the_same_text_from_every_kind_of_image(reads: Recognizer, lines: list[Grey], tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for text, line in zip(TEXTS, lines, strict=True):
        ink = Image.new("RGBA", (line.shape[1], line.shape[0]), (0, 0, 0, 0))
        ink.putalpha(Image.fromarray(255 - line))
        Image.fromarray(line).save(tmp_path / "line.png")
        kinds: dict[str, Any] = {
            "array": line,
            "path": tmp_path / "line.png",
            "name": str(tmp_path / "line.png"),
            "jpeg": jpeg(line),
            "on its side": jpeg(np.rot90(line), exif=turned),
            "light on dark": 255 - line,
            "faded": (line * 0.7 + 60).astype(np.uint8),
            "16 bits": line.astype(np.uint16) * 257,
            "12 bits": line.astype(np.uint16) * 16,
            "floats": line / 255,
            "transparent": ink,
            "palette": Image.fromarray(line).convert("P"),
            "CMYK": Image.fromarray(line).convert("CMYK"),
            "colour": np.stack([line, line // 2 + 127, line // 3 + 100], 2),
        }
        seen = {kind: reads.recognize(source).text for kind, source in kinds.items()}
        assert seen == dict.fromkeys(kinds, text)
        assert reads.recognize(255 - line).inverted and not reads.recognize(line).inverted


def test_a_line_in_doubt_is_read_both_ways(reads: Recognizer, lines: list[Grey]) -> None:
    """Whichever of ink and background was taken for the other, the text that is read with more confidence stays."""
    ready = [prepare(line, 32) for line in lines]
    blank = prepare(np.full((32, 90), 255, np.uint8), 32)
    wrong = [replace(each, pixels_HW=255 - each.pixels_HW, inverted=True, otherwise=each.pixels_HW) for each in ready]
    found = recognitions(reads._read([wrong[1], blank, ready[2], wrong[3], wrong[4]]))
    assert texts(found) == [TEXTS[1], "", TEXTS[2], TEXTS[3], TEXTS[4]]
    assert not any(each.inverted for each in found)


@pytest.mark.parametrize("decode", get_args(DecodeMethod))
def test_padding_never_changes_the_text(taught: LoadedModel, lines: list[Grey], decode: DecodeMethod) -> None:
    """A line alone, and the same line in batches with far wider ones."""
    alone = Recognizer(taught, device="cpu", decode=decode, batch_size=1)
    wide = np.tile(lines[-1], (1, 12))
    batch = [prepare(line, 32) for line in (*lines, wide)]
    together = recognitions(Recognizer(taught, device="cpu", decode=decode)._read(batch))
    for line, seen in zip((*lines, wide), together, strict=True):
        expected = alone.recognize(line)
        assert seen.text == expected.text
        assert math.isclose(seen.confidence, expected.confidence, rel_tol=1e-3, abs_tol=1e-6)


def test_order_is_kept_through_windows_and_batches_of_like_width(reads: Recognizer, lines: list[Grey]) -> None:
    order = np.random.default_rng(0).integers(0, len(lines), 150).tolist()
    many = Recognizer(reads.loaded, device="cpu", decode="greedy", batch_size=4)
    assert texts(many.recognize_lines(lines[at] for at in order)) == [TEXTS[at] for at in order]


def test_batches_are_of_like_width_and_bounded() -> None:
    widths = dict(enumerate(np.random.default_rng(0).integers(1, 8192, 300).tolist()))
    batches = list(recognizer._batches(widths, 16))
    assert sorted(place for batch in batches for place in batch) == list(widths)
    for batch in batches:
        assert len(batch) <= 16 and (len(batch) == 1 or len(batch) * max(widths[at] for at in batch) <= 32_768)
    flat = [widths[place] for batch in batches for place in batch]
    assert flat == sorted(flat)


def test_a_bad_image_does_not_lose_the_others(reads: Recognizer, lines: list[Grey], tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    images: list[Any] = [
        lines[1],
        tmp_path / "none.png",
        lines[2],
        tmp_path / "cut.png",
        np.zeros((32, 20_000)),
        lines[3],
    ]
    found = list(reads.stream(images))
    assert [type(each) for each in found] == [Recognition, ImageError, Recognition, ImageError, ImageError, Recognition]
    assert [each.text for each in found if isinstance(each, Recognition)] == [TEXTS[at] for at in (1, 2, 3)]
    assert "none.png" in str(found[1]) and "cut.png" in str(found[3]) and "20000 x 32" in str(found[4])
    with pytest.raises(ImageError, match=r"none\.png"):
        reads.recognize_lines(images)
    with pytest.raises(ImageError, match="the scan"):
        reads.recognize(np.zeros((32, 20_000)), "the scan")


def test_stream_does_not_read_ahead_without_end(reads: Recognizer, lines: list[Grey]) -> None:
    taken = 0

    def source():
        nonlocal taken
        while True:
            taken += 1
            yield lines[0]

    found = Recognizer(reads.loaded, device="cpu", decode="ctc", batch_size=2).stream(source())
    assert isinstance(next(found), Recognition)
    assert taken == 2  # the first text does not wait for many
    for _ in range(70):
        next(found)
    assert taken - 70 <= 2 * 16


def test_nothing_written_is_no_text_and_no_confidence(reads: Recognizer, lines: list[Grey]) -> None:
    white, black, dot = (np.full((40, 200), level, np.uint8) for level in (255, 0, 255))
    dot = np.array([[9]], np.uint8)
    found = reads.recognize_lines([white, lines[1], black, dot])
    assert texts(found) == ["", TEXTS[1], "", ""]
    assert [each.confidence for each in found] == [0.0, found[1].confidence, 0.0, 0.0]
    assert found[0].syllables == [] and reads.recognize_lines([]) == []


def no_text() -> list[Grey]:
    """Noise, and something like a photo of clouds."""
    noise_HW = np.random.default_rng(0).integers(0, 256, (64, 400)).astype(np.uint8)
    y, x = np.mgrid[:300, :400]
    photo_HW3 = np.stack([128 + 100 * np.sin(x / 40 + c) * np.cos(y / 55) for c in range(3)], 2).astype(np.uint8)
    return [noise_HW, photo_HW3]


@pytest.mark.parametrize("decode", get_args(DecodeMethod))
def test_noise_and_photos_do_no_harm(taught: LoadedModel, decode: DecodeMethod) -> None:
    for found in Recognizer(taught, device="cpu", decode=decode, force=True).recognize_lines(no_text()):
        assert 0 <= found.confidence <= 1 and "".join(each.text for each in found.syllables) == found.text
        assert all(0 <= each.confidence <= 1 for each in found.syllables)


def test_syllables_join_to_the_text_and_share_its_confidence(reads: Recognizer, lines: list[Grey]) -> None:
    for text, found in zip(TEXTS, reads.recognize_lines(lines), strict=True):
        assert [each.text for each in found.syllables] == split(text)
        assert all(0 < each.confidence <= 1 for each in found.syllables)
        # The end of the text is one more thing to be sure of.
        of_symbols = math.log(math.prod(each.confidence for each in found.syllables))
        assert 0.01 < found.confidence <= line_confidence(of_symbols, len(text)) + 1e-6


def test_scores_follow_code_points_that_normalising_moves() -> None:
    raw, text = "ស្រ្តី ខ", "ស្ត្រី ខ"
    scores = [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7, -0.8]
    found = syllables_of(text, raw, scores)
    assert [each.text for each in found] == ["ស្ត្រី", " ", "ខ"]
    assert math.isclose(math.log(found[1].confidence), -0.7) and math.isclose(math.log(found[2].confidence), -0.8)
    assert math.isclose(math.log(found[0].confidence), -2.1, abs_tol=0.35)
    assert syllables_of("", "", []) == []


def test_settings_out_of_range(taught: LoadedModel, taught_folder: Path, tmp_path: Path) -> None:
    for options, says in (
        ({"decode": "best"}, "'best'; expected 'beam', 'greedy' or 'ctc'"),
        ({"device": "tpu"}, "'tpu'; expected 'auto', 'cpu' or 'cuda'"),
        ({"precision": "int8"}, "'int8'; expected 'auto', 'float32' or 'bfloat16'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"beam_size": 0}, "beam_size is 0"),
    ):
        with pytest.raises(ConfigError, match=says):
            Recognizer(taught, **options)
    with pytest.raises(ModelError, match="holds no model"):
        Recognizer(tmp_path)
    assert Recognizer(str(taught_folder), device="cpu").height_px == 32


def test_a_gpu_asked_for_and_absent(taught: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"CUDA was asked for and there is none"):
        Recognizer(taught, device="cuda")
    assert Recognizer(taught, device="auto").device.type == "cpu"


def test_half_precision_reads_the_same_lines(taught: LoadedModel, lines: list[Grey]) -> None:
    half = Recognizer(taught, device="cpu", decode="greedy", precision="bfloat16")
    full = Recognizer(taught, device="cpu", decode="greedy", precision="float32")
    found, expected = half.recognize_lines(lines), full.recognize_lines(lines)
    assert texts(found) == list(TEXTS)
    assert 0 < max(abs(a.confidence - b.confidence) for a, b in zip(found, expected, strict=True)) < 0.05


@pytest.mark.parametrize("amx", [False, True])
def test_precision_is_what_the_machine_is_fast_in(
    taught: LoadedModel, lines: list[Grey], monkeypatch: pytest.MonkeyPatch, amx: bool
) -> None:
    monkeypatch.setattr(recognizer, "multiplies_bfloat16", lambda: amx)
    reads = Recognizer(taught, device="cpu", decode="greedy")
    assert reads.precision == ("bfloat16" if amx else "float32")
    assert texts(reads.recognize_lines(lines)) == list(TEXTS)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_the_same_text_on_a_gpu(taught_folder: Path, lines: list[Grey], precision: Precision) -> None:
    on_gpu = Recognizer(taught_folder, device="cuda", decode="greedy", precision=precision)
    assert on_gpu.device.type == "cuda" and texts(on_gpu.recognize_lines(lines)) == list(TEXTS)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"model": Bad()}, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match="refused"):
        Recognizer(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not (SHIPPED / "model.safetensors").exists(), reason="no weights are shipped yet")
def test_shipped_weights_read_lines_they_never_saw(regular: list[FontFace]) -> None:
    unseen = ("សូមស្វាគមន៍មកកាន់ប្រទេសកម្ពុជា", "លេខទូរស័ព្ទ 012 345 678", "ថ្ងៃទី១៥ ខែមករា ឆ្នាំ២០២៤")
    total = Score()
    for size_px in (18, 40):
        images = draw(unseen, regular, size_px)
        found, opposite = (
            Recognizer(device="cpu").recognize_lines(both) for both in (images, [255 - image for image in images])
        )
        assert texts(found) == texts(opposite) and min(each.confidence for each in found) > 0.7
        total = sum(map(score, unseen, texts(found)), total)
    assert total.cer < 0.03


@pytest.mark.skipif(not (SHIPPED / "model.safetensors").exists(), reason="no weights are shipped yet")
def test_shipped_weights_have_no_faith_in_what_is_no_text() -> None:
    forced = Recognizer(device="cpu", force=True)
    assert max(each.confidence for each in forced.recognize_lines(no_text())) < 0.6

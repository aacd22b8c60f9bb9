"""What the tests of recognising share: a few lines drawn by the project, and a small reader that has learnt them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.model.presets import ModelConfig
from khmer_ocr.model.seq2seq import Seq2Seq
from khmer_ocr.model.weights import save_model
from khmer_ocr.recognize.prepare import prepare
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.measured_faces import measure_all
from khmer_ocr.text.charset import Charset
from khmer_ocr.train.losses import joint_losses, shifted

TEXTS = ("ក", "១២៣៤", "ខ្មែរ", "ស្ត្រី ៧ នាក់", "ទឹកក្តៅ!", "ផ្ទាំង XML")
SIZES_PX = (16, 30)
STEPS = 110
SMALL = ModelConfig(
    preset="small",
    channels=(8, 16, 24, 32),
    blocks=(0, 0, 0, 0),
    width=64,
    layers=1,
    heads=2,
    decoder_layers=1,
    dropout=0.0,
)

Grey = npt.NDArray[np.uint8]


def draw(texts: tuple[str, ...], faces: list[FontFace], size_px: int, margin_px: int = 3) -> list[Grey]:
    """Lines in black on white, each with a margin around its ink."""
    renderer = LineRenderer(faces[:1], measure_all(faces[:1], progress=False))
    size_B = np.full(len(texts), size_px * 64, np.int64)
    drawn = renderer.draw_at(list(texts), np.zeros(len(texts), np.int32), size_B)
    return [np.pad(image, margin_px, constant_values=255) for image in drawn]


def teach(folder: Path, faces: list[FontFace]) -> None:
    """Train a small reader until its decoder knows `TEXTS` at all `SIZES_PX`, and save it; CTC would take longer."""
    charset = Charset.from_text(TEXTS)
    drawn = [prepare(line, 32, ready_made=True).pixels_HW for size in SIZES_PX for line in draw(TEXTS, faces, size)]
    width_B = torch.tensor([line.shape[1] for line in drawn])
    images_B1HW = torch.ones(len(drawn), 1, 32, int(width_B.max()))
    for row, line in zip(images_B1HW, drawn, strict=True):
        row[0, :, : line.shape[1]] = torch.from_numpy(line).float() / 255
    targets = [charset.encode(text) for text in TEXTS] * len(SIZES_PX)
    length_B = torch.tensor([len(ids) for ids in targets])
    targets_BT = torch.tensor([ids + [0] * (int(length_B.max()) - len(ids)) for ids in targets])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Seq2Seq(SMALL, len(charset))
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    slope = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=STEPS)
    model.train()
    tokens_BL, _ = shifted(targets_BT, length_B)
    for _ in range(STEPS):
        ctc, slot_count_B, decoder = model(images_B1HW, width_B, tokens_BL)
        losses = joint_losses(ctc, slot_count_B, decoder, targets_BT, length_B, 0.1, 0.0)
        optimiser.zero_grad()
        (losses.joint / length_B.sum()).backward()
        optimiser.step()
        slope.step()
    save_model(folder, model, charset, {"preset": "small"})

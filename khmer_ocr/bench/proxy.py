"""A small model of fixed shape, CTC alone, that stands for the large one where data are compared.

It learns from the same lines in a hundredth of the time, and what teaches it more teaches the large one more. Weights,
order of lines, augmentation and dropout come from one seed: the same run on the same machine gives the same model.

Letters: B lines, H rows, W columns, S slots, V token ids, T tokens of the longest text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from khmer_ocr_kernels.pad_normalize import to_unit
from torch import Tensor, nn

from khmer_ocr import rng
from khmer_ocr.augment.batch_augmenter import BatchAugmenter
from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.bench.settings import BATCH_LINES
from khmer_ocr.load.loader import LoadConfig, open_loader
from khmer_ocr.model.decoding.greedy import best_path
from khmer_ocr.model.encoder import ConvEncoder
from khmer_ocr.model.presets import ModelConfig
from khmer_ocr.model.seq2seq import BLANK, CtcHead
from khmer_ocr.recognize.recognizer import padded_batch
from khmer_ocr.text.charset import Charset
from khmer_ocr.train.schedule import MovingAverage, learning_rate

SHAPE = ModelConfig(preset="proxy", channels=(12, 24, 48, 64), blocks=(0, 0, 1, 1), width=96, layers=1, heads=4)
_PEAK, _WARMUP_SHARE, _FINAL_SHARE, _EMA_DECAY, _CLIP = 3e-3, 0.06, 0.01, 0.998, 2.0
Step = Callable[[int], object]
"""Called after each update with the number of lines seen."""


class Proxy(nn.Module):
    """Reads lines by CTC alone.

    Args:
        vocabulary: number of token ids, specials included.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.encoder = ConvEncoder(SHAPE)
        self.ctc = CtcHead(SHAPE.width, SHAPE.slots, vocabulary)

    def forward(self, images_B1HW: Tensor, width_B: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities float32 (B, S, V), and how many slots each line has, int64 (B,)."""
        frames_BTD, frame_count_B = self.encoder(images_B1HW, width_B)
        return self.ctc(frames_BTD).float().log_softmax(2), frame_count_B * SHAPE.slots


@dataclass(frozen=True)
class ProxyRun:
    """What a proxy learns from.

    Attributes:
        root: a data set's folder; its split train is used.
        lines: only the first so many.
        epochs: how often each is seen.
        recipe: augmentation while training: "none", a recipe of the package, or a YAML file.
        strength: of the recipe.
        seed: of weights, order and augmentation.
        device: "cpu" or "cuda".
    """

    root: Path
    lines: int
    epochs: int
    recipe: str
    strength: str
    seed: int
    device: str = "cpu"


def train_proxy(run: ProxyRun, step: Step = lambda _lines: None) -> tuple[Proxy, Charset]:
    """Train a proxy.

    Args:
        run: what it learns from.
        step: see `Step`.

    Returns:
        The model of the moving average, in eval mode, and its characters: those of the package, others are unknown.

    Raises:
        SplitNotFoundError, DatasetError: the data are missing or damaged.
        ConfigError: the recipe is none, or takes a GPU that is not there.
    """
    charset = Charset.default()
    config = LoadConfig(
        engine="torch", batch_size=BATCH_LINES, cache=True, max_samples=run.lines, seed=run.seed, device=run.device,
        progress=False,
    )  # fmt: skip
    recipe = load_recipe(run.recipe, run.strength)
    augmenter = None if recipe is None else BatchAugmenter(recipe, run.seed, run.device)
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(rng.word(rng.key(run.seed, "bench", "weights"), 0))
        model = Proxy(len(charset)).to(run.device)
        model.to(memory_format=torch.channels_last)
        average = MovingAverage(model, _EMA_DECAY)
        optimiser = torch.optim.AdamW(model.parameters(), lr=_PEAK, weight_decay=0.01, fused=True)
        loader = open_loader(run.root, "train", config, charset)
        total = max(sum(loader.batch_count(epoch) for epoch in range(run.epochs)), 1)
        done = seen = 0
        for epoch in range(run.epochs):
            for batch in loader.epoch(epoch):
                images, width_B = batch["images"], batch["image_lengths"]
                if augmenter is not None:
                    images, width_B = augmenter(images, width_B, batch["index"], epoch)
                torch.random.manual_seed(rng.word(rng.key(run.seed, "bench", "dropout"), done))
                model.train()
                log_prob_BSV, slot_count_B = model(to_unit(images.to(run.device)), width_B.to(run.device))
                loss = F.ctc_loss(
                    log_prob_BSV.transpose(0, 1), batch["targets"].to(run.device), slot_count_B.cpu(),
                    batch["target_lengths"], blank=BLANK, reduction="sum", zero_infinity=True,
                )  # fmt: skip
                rate = learning_rate(done, done / total, _PEAK, int(_WARMUP_SHARE * total), _FINAL_SHARE)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                optimiser.zero_grad(set_to_none=True)
                (loss / batch["target_lengths"].sum()).backward()
                nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
                optimiser.step()
                average.update(done)
                done, seen = done + 1, seen + len(width_B)
                step(seen)
        loader.close()
    model.load_state_dict(average.state)
    return model.eval(), charset


@torch.inference_mode()
def read_lines(model: Proxy, charset: Charset, images: Sequence[npt.NDArray[np.uint8]], device: str) -> list[str]:
    """Read lines of the model's height.

    Args:
        model: in eval mode.
        charset: its characters.
        images: uint8 (H, W) each, dark ink.
        device: where the model is.

    Returns:
        One text an image.
    """
    texts = [""] * len(images)
    order = sorted(range(len(images)), key=lambda n: images[n].shape[1])
    for begin in range(0, len(order), BATCH_LINES):
        batch = order[begin : begin + BATCH_LINES]
        found = best_path(*model(*padded_batch([images[n] for n in batch], torch.device(device))))
        for n, each in zip(batch, found, strict=True):
            texts[n] = charset.decode(each.ids)
    return texts

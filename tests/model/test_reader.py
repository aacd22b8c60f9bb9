"""Readers: shapes, padding, folding, and decoders one step at a time."""

from dataclasses import replace

import pytest
import torch

from khmer_ocr.errors import ConfigError
from khmer_ocr.model.masks import column_masks, halved
from khmer_ocr.model.presets import PRESETS, ModelConfig, preset
from khmer_ocr.model.seq2seq import Reader, slots_for
from khmer_ocr.text.charset import Charset

VOCABULARY = 23
SMALL = ModelConfig(
    preset="small",
    channels=(4, 8, 8, 12),
    blocks=(0, 1, 1, 0),
    width=24,
    layers=2,
    heads=3,
    embedding=24,
    decoder_layers=2,
)
SMALL_GRU = ModelConfig(
    preset="small_gru",
    encoder="crnn",
    channels=(4, 8, 8, 8, 12, 12, 16),
    blocks=(),
    width=16,
    layers=1,
    heads=1,
    decoder="gru",
    decoder_layers=1,
    embedding=8,
)
BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_GRU], ids=["conv", "crnn"])


def reader(config: ModelConfig, seed: int = 0) -> Reader:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Reader(config, VOCABULARY)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # as after training: not the identity
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.3)
    return model.eval()


def lines(widths: list[int], beyond: float = 1.0, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(len(widths), 1, 32, max(widths) + 5, generator=generator)
    for at, width in enumerate(widths):
        images[at, :, :, width:] = beyond
    return images, torch.tensor(widths)


@BOTH
@pytest.mark.parametrize("widths", [[1, 64, 63, 62, 61], [300, 7, 128]])
def test_line_alone_and_in_a_batch_say_the_same(config: ModelConfig, widths: list[int]) -> None:
    model = reader(config)
    images, width_B = lines(widths)
    tokens = torch.randint(4, VOCABULARY, (len(widths), 6), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        together = model(images, width_B, tokens)
        for at, width in enumerate(widths):
            alone = model(images[at : at + 1, :, :, :width], width_B[at : at + 1], tokens[at : at + 1])
            slots = int(alone[1])
            assert slots == int(together[1][at]) == -(-width // 4) * config.slots
            torch.testing.assert_close(together[0][at, :slots], alone[0][0, :slots], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(together[2][at], alone[2][0], atol=2e-5, rtol=1e-4)


@BOTH
def test_what_lies_beyond_a_line_does_not_matter(config: ModelConfig) -> None:
    model = reader(config)
    tokens = torch.full((3, 4), 5)
    with torch.inference_mode():
        paper, ink = (model(*lines([40, 90, 17], beyond), tokens) for beyond in (1.0, 0.0))
    for line, slots in enumerate(paper[1].tolist()):
        assert torch.equal(paper[0][line, :slots], ink[0][line, :slots])
    assert torch.equal(paper[2], ink[2])


@BOTH
def test_one_token_at_a_time_is_the_whole_text_at_once(config: ModelConfig) -> None:
    model = reader(config)
    images, width_B = lines([50, 33])
    tokens = torch.randint(1, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        memory = model.encode(images, width_B)
        whole = model.decoder(memory, tokens)
        state = model.decoder.start(memory)
        for at in range(tokens.shape[1]):
            if at == 4:  # a beam may change places at any step
                state, whole, tokens = state.rows(torch.tensor([1, 0])), whole[[1, 0]], tokens[[1, 0]]
            scores, state = model.decoder.read(state, tokens[:, at : at + 1])
            torch.testing.assert_close(scores, whole[:, at], atol=2e-5, rtol=1e-4)


@BOTH
def test_decoder_does_not_see_what_comes(config: ModelConfig) -> None:
    model = reader(config)
    images, width_B = lines([60])
    first, second = torch.tensor([[1, 5, 6, 7, 8]]), torch.tensor([[1, 5, 6, 9, 10]])
    with torch.inference_mode():
        memory = model.encode(images, width_B)
        one, other = model.decoder(memory, first), model.decoder(memory, second)
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3:], other[:, 3:])


@BOTH
def test_where_a_decoder_looks_is_inside_its_line(config: ModelConfig) -> None:
    model = reader(config)
    images, width_B = lines([60, 21])
    looks: list[torch.Tensor] = []
    with torch.inference_mode():
        memory = model.encode(images, width_B)
        scores = model.decoder(memory, torch.full((2, 3), 5), looks)
        assert torch.equal(scores, model.decoder(memory, torch.full((2, 3), 5)))
    assert looks[0].shape == (2, 3, memory.frames_BTD.shape[1])
    torch.testing.assert_close(looks[0].sum(2), torch.ones(2, 3))
    assert looks[0][1, :, 6:].abs().max() == 0  # 21 px are six frames


def test_folding_changes_no_score() -> None:
    model = reader(SMALL)
    images, width_B = lines([77, 40])
    tokens = torch.full((2, 3), 5)
    with torch.inference_mode():
        before = model(images, width_B, tokens)
        norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
        after = model.fold()(images, width_B, tokens)
    assert norms == 8
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    torch.testing.assert_close(after[0], before[0], atol=2e-5, rtol=1e-4)


def test_faded_line_looks_like_a_black_one() -> None:
    model = reader(SMALL)
    images, width_B = lines([64])
    tokens = torch.full((1, 3), 5)
    with torch.inference_mode():
        black, faded = model(images, width_B, tokens), model(0.5 * images + 0.4, width_B, tokens)
    assert (black[0] - faded[0]).abs().max() < 0.35 * (black[0] - black[0].mean()).abs().max()


@pytest.mark.parametrize("width", range(1, 40))
def test_masks_follow_convolutions(width: int) -> None:
    convolution = torch.nn.Conv2d(1, 1, 3, (2, 2), 1)
    full, half, quarter = column_masks(torch.tensor([width]), 40, 2)
    alone = convolution(torch.zeros(1, 1, 8, width))
    assert int(half.inside_B11W.sum()) == alone.shape[3] == int(halved(torch.tensor(width)))
    assert int(full.inside_B11W.sum()) == width
    assert int(quarter.inside_B11W.sum()) == convolution(alone).shape[3]
    assert int(slots_for(torch.tensor(width), 3)) == 3 * int(quarter.inside_B11W.sum())


def test_presets_have_the_sizes_they_promise() -> None:
    sizes = {}
    for name in PRESETS:
        with torch.device("meta"):
            model = Reader(preset(name), len(Charset.default()))
        sizes[name] = sum(each.numel() for each in model.parameters())
    assert sizes["compact"] <= 3_000_000
    assert 11_000_000 < sizes["base"] < 13_000_000
    convolutions = [64 * 9 + 64, 64 * 128 * 9 + 128, 128 * 256 * 9 + 256, 256 * 256 * 9 + 256]
    convolutions += [256 * 512 * 9 + 512, 512 * 512 * 9 + 512, 512 * 512 * 2 + 512]
    assert sizes["buoy2022"] > sum(convolutions) + 2 * (3 * 256 * (512 + 256 + 2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"height_px": 48}, "48"),
        ({"heads": 5}, "no multiple of heads 5"),
        ({"slots": 0}, "slots 0"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"channels": (8, 8)}, "four stages"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_unknown_preset_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'huge' is unknown; there are compact, base, buoy2022"):
        preset("huge")

"""Readers: shapes, padding, folding, and decoders one step at a time."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from khmer_ocr.errors import ConfigError
from khmer_ocr.io.devices import multiplies_bfloat16
from khmer_ocr.model.attention import Attention
from khmer_ocr.model.masks import column_masks, halved
from khmer_ocr.model.presets import PRESETS, ModelConfig, preset
from khmer_ocr.model.seq2seq import Seq2Seq, slots_for
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


def reader(config: ModelConfig, seed: int = 0) -> Seq2Seq:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Seq2Seq(config, VOCABULARY)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # as after training: not the identity
                assert module.running_mean is not None and module.running_var is not None
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


@BOTH
def test_halving_hardly_changes_a_score(config: ModelConfig) -> None:
    model, images, width_B, tokens = reader(config).fold(), *lines([77, 40]), torch.full((2, 3), 5)
    with torch.inference_mode():
        before, after = model(images, width_B, tokens), deepcopy(model).halve()(images, width_B, tokens)
    for full, half in ((before[0], after[0][:, : before[0].shape[1]]), (before[2], after[2])):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half[0], full[0], atol=0.05 * float(full.std()), rtol=0.05)
    assert config is SMALL_GRU or not torch.equal(before[2], after[2])


@pytest.mark.skipif(not multiplies_bfloat16(), reason="in what order a CPU without AMX adds up is its own")
def test_halved_reader_says_the_same_of_a_line_to_the_bit_whatever_lies_beside_it() -> None:
    """Of the shipped shape, in batches padded as those of `Recognizer`: which kernels oneDNN takes depends on both."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Seq2Seq(preset("compact"), 293).fold().halve()
    widths = [1, 31, 64, 130, 250, 333, 420, 800]
    images, width_B = lines(widths)
    images = torch.nn.functional.pad(images, (0, 864 - images.shape[3]))
    with torch.inference_mode():
        together = model.encode(images, width_B)
        for at, width in enumerate(widths):
            frames = int(together.frame_count_B[at])
            for columns in (-(-width // 32) * 32, -(-width // 32) * 32 + 32):
                alone = model.encode(images[at : at + 1, ..., :columns].contiguous(), width_B[at : at + 1])
                assert torch.equal(alone.frames_BTD[0, :frames], together.frames_BTD[at, :frames]), width


@BOTH
def test_frozen_norms_learn_as_they_read(config: ModelConfig) -> None:
    """What training computes is what reading computes, and what has been seen stays."""
    model, images, width_B, tokens = reader(config), *lines([77, 40]), torch.full((2, 3), 5)
    seen = {name: value.clone() for name, value in model.named_buffers()}
    with torch.inference_mode():
        read = model(images, width_B, tokens)[0]
    model.encoder.freeze_norms()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.GRU) or hasattr(module, "dropout"):
            module.dropout = 0.0  # type: ignore[assignment]
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    learnt = model.train()(images, width_B, tokens)[0]
    torch.testing.assert_close(learnt, read, atol=2e-5, rtol=1e-4)
    learnt.square().sum().backward()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    slopes = [values.grad for norm in norms for values in (norm.weight, norm.bias)]
    assert slopes and all(slope is not None and slope.abs().max() > 0 for slope in slopes)
    assert all(torch.equal(value, seen[name]) for name, value in model.named_buffers())


def test_ways_back_are_those_of_plain_products() -> None:
    """ReLU with its mask and attention as training on CPUs computes them, against torch's own."""
    draw = torch.Generator().manual_seed(0)
    mask = column_masks(torch.tensor([9, 5]), 9, 0, shortest=5)[0]
    x = torch.randn(2, 3, 4, 9, generator=draw)
    ours, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn(2, 3, 4, 9, generator=draw)
    found, expected = mask.relu(ours * 1), torch.relu(plain) * mask.inside_B11W
    assert torch.equal(found, expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert ours.grad is not None and plain.grad is not None and torch.equal(ours.grad, plain.grad)
    with torch.inference_mode():
        half = x.to(torch.bfloat16)
        assert torch.equal(mask.relu(half.clone()), torch.relu(half) * mask.inside_B11W.bool())
    attention = Attention(12, 3, 0.0)
    query, key, value = (torch.randn(2, 3, 7, 4, generator=draw) for _ in range(3))
    inside = (torch.arange(7) < torch.tensor([7, 4])[:, None])[:, None, None]
    for seen, causal in ((inside, False), (None, True)):
        plainly = attention.attend(query, key, value, seen, causal)
        with torch.no_grad():
            torch.testing.assert_close(plainly, attention.attend(query, key, value, seen, causal))


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
            model = Seq2Seq(preset(name), len(Charset.default()))
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
        ({"slots": 0}, "slots is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"channels": (8, 8)}, "four stages"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_unknown_preset_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'huge' is unknown; there are compact, base, buoy2022"):
        preset("huge")

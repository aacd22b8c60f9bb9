"""Tones, dust, noise, fax and JPEG against what they say they do."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from khmer_ocr.augment.torch_ops.apply import PaddedLines, apply
from tests.augment.sample_lines import batch, keys, values


def sheet(count: int = 40, width: int = 400, ink: float = 0.0) -> PaddedLines:
    return PaddedLines(torch.full((count, 1, 32, width), ink), torch.full((count,), width))


def parameters(lines: PaddedLines, **fixed: float) -> dict[str, torch.Tensor]:
    return {name: value.expand(len(lines.width_B)) for name, value in values(**fixed).items()}


def test_noise_has_the_deviation_asked_for() -> None:
    grey = sheet(ink=0.5)
    for sd_grey in (4.0, 24.0):
        change = apply("noise", grey, parameters(grey, sd_grey=sd_grey), keys(40)).ink_B1HW - 0.5
        assert float(change.mean()) * 255 == pytest.approx(0, abs=0.15)
        assert float(change.std()) * 255 == pytest.approx(sd_grey, rel=0.02)


def test_contrast_gives_the_tones_asked_for() -> None:
    lines = PaddedLines(torch.tensor([[[[0.0, 1.0, 0.5]]]]), torch.tensor([3]))
    augmented = apply("contrast", lines, values(paper=0.2, contrast=0.5), keys(1))
    assert augmented.ink_B1HW.flatten().tolist() == pytest.approx([0.2, 0.6, 0.4])


def test_light_falls_off_where_it_is_told() -> None:
    page = sheet(1)
    right = apply("uneven_light", page, values(slope_x=0.5, slope_y=0, field=0), keys(1)).ink_B1HW[0, 0, 0]
    left = apply("uneven_light", page, values(slope_x=-0.5, slope_y=0, field=0), keys(1)).ink_B1HW[0, 0, 0]
    assert float(right[0]) == pytest.approx(0, abs=2e-3)
    assert float(right[-1]) == pytest.approx(0.5, abs=2e-3)
    torch.testing.assert_close(left, right.flip(0))


def test_dust_is_as_dense_as_asked() -> None:
    grey = sheet(ink=0.5)
    for size_px, area in ((1.0, 1.0), (2.0, (1 + 4) / 2), (3.0, (1 + 4 + 5) / 3)):
        augmented = apply("speckle", grey, parameters(grey, density=5, size_px=size_px, salt=0.3), keys(40)).ink_B1HW
        # A dot of tone 0.4 to 1.0 shows on grey where it is darker than 0.5, or lighter: five of six do.
        touched = (augmented != 0.5).float().mean().item() * 1000
        assert touched == pytest.approx(5 * area * 5 / 6, rel=0.12)
        white = (augmented < 0.5).float().sum() / (augmented != 0.5).float().sum()
        assert float(white) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("share", [0.005, 0.03])
def test_stains_cover_the_share_asked_for(share: float) -> None:
    page = sheet()
    augmented = apply("blobs", page, parameters(page, share=share, darkness=0.8), keys(40)).ink_B1HW
    assert float((augmented > 0).float().mean()) == pytest.approx(share, rel=0.2)
    assert float(augmented.max()) == pytest.approx(0.8)
    inked = sheet(ink=1.0)
    pale = apply("blobs", inked, parameters(inked, share=share, darkness=-0.8), keys(40)).ink_B1HW
    torch.testing.assert_close(pale, 1 - augmented)


def test_toner_is_lost_and_never_gained() -> None:
    black = sheet(ink=1.0)
    augmented = apply("toner_fade", black, parameters(black, depth=0.5, streaks=0), keys(40)).ink_B1HW
    assert 0.5 <= float(augmented.min()) < 0.55
    assert float(augmented.max()) == pytest.approx(1)
    streaked = apply("toner_fade", black, parameters(black, depth=0, streaks=0.8), keys(40)).ink_B1HW
    assert float((streaked - streaked[:, :, :1]).abs().max()) < 1e-5, "streaks run across the line"
    assert float(streaked.min()) < 0.7


def test_texture_only_darkens_paper_and_toner_covers_it() -> None:
    page, black = sheet(), sheet(ink=1.0)
    augmented = apply("paper_texture", page, parameters(page, smooth=0.1, fine=0.1), keys(40)).ink_B1HW
    assert float(augmented.min()) >= 0
    assert 0.05 < float(augmented.mean()) < 0.15
    covered = apply("paper_texture", black, parameters(black, smooth=0.1, fine=0.1), keys(40)).ink_B1HW
    torch.testing.assert_close(covered, black.ink_B1HW)


@pytest.mark.parametrize(("paper", "stroke"), [(0.0, 0.5), (0.3, 0.7), (0.1, 1.0)])
def test_a_fax_keeps_thin_strokes_and_counters(paper: float, stroke: float) -> None:
    ink = torch.full((1, 1, 32, 200), paper)
    ink[..., 8:24, 20:180:8] = stroke  # strokes one pixel wide
    ink[..., 8:24, 60:100:4] = stroke  # and close together
    augmented = apply("threshold", PaddedLines(ink, torch.tensor([200])), values(bias=0.6, gain=8), keys(1)).ink_B1HW
    strokes = ink == stroke
    assert float(augmented[strokes].min()) > 0.6
    assert float(augmented[~strokes].max()) < 0.2


def test_a_fax_keeps_pale_hairlines_beside_black_stems() -> None:
    ink = torch.zeros(1, 1, 32, 200)
    ink[..., 8:24, 20:180:10] = 1
    ink[..., 15, 20:180] = ink[..., 15, 20:180].clamp(min=0.6)
    augmented = apply("threshold", PaddedLines(ink, torch.tensor([200])), values(bias=0.5, gain=8), keys(1)).ink_B1HW
    assert float(augmented[ink == 0.6].min()) > 0.6


def test_a_fax_of_a_dark_page_is_white_where_the_page_is() -> None:
    lines = batch([300])
    dim = apply("contrast", lines, values(paper=0.4, contrast=0.6), keys(1))
    dim = apply("uneven_light", dim, values(slope_x=0.3, slope_y=0, field=0), keys(1))
    augmented = apply("threshold", dim, values(bias=0.5, gain=8), keys(1)).ink_B1HW
    assert float(augmented[lines.ink_B1HW == 0].mean()) < 0.03
    assert float(augmented[lines.ink_B1HW > 0.9].mean()) > 0.97


@pytest.mark.parametrize("quality", [30, 49, 50, 75, 90])
@pytest.mark.parametrize(("width", "height"), [(160, 32), (131, 29)])
def test_jpeg_loses_what_libjpeg_loses(quality: int, width: int, height: int) -> None:
    """Pillow's libjpeg holds edges and quantises alike, but rounds inside its transform: some coefficients flip."""
    lines = apply("contrast", batch([width], height), values(paper=0.4, contrast=0.9), keys(1))  # tone up to the edge
    lines = apply("noise", lines, values(sd_grey=6), keys(1))
    grey = (255 - lines.ink_B1HW[0, 0] * 255).round()
    file = io.BytesIO()
    Image.fromarray(grey.to(torch.uint8).numpy()).save(file, "JPEG", quality=quality)
    expected = np.asarray(Image.open(file)).astype(int)
    augmented = apply("jpeg", PaddedLines(1 - grey[None, None] / 255, lines.width_B), values(quality=quality), keys(1))
    seen = (255 - augmented.ink_B1HW[0, 0] * 255).round().int().numpy()
    difference = np.abs(seen - expected)
    lost = np.abs(expected - grey.numpy()).mean()
    assert (difference <= 1).mean() > 0.93
    assert difference.mean() < 0.2 * lost

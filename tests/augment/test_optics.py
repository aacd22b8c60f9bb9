"""Blurs against their definitions, and the kornia ops within one grey level of the fused kernel that does the same."""

import numpy as np
import pytest
import torch
from khmer_ocr_kernels import degrade_reference

from khmer_ocr.augment.torch_ops.apply import PaddedLines, apply
from tests.augment.sample_lines import batch, keys, values

GREY = 1 / 255


def grey(lines: PaddedLines, line: int) -> np.ndarray:
    ink = lines.ink_B1HW[line, 0, :, : int(lines.width_B[line])]
    return (255 - (ink * 255).round()).to(torch.int64).numpy()


def whole_grey(lines: PaddedLines) -> PaddedLines:
    return PaddedLines((lines.ink_B1HW * 255).round() / 255, lines.width_B)


@pytest.mark.parametrize("height", [24, 32, 61])
def test_blur_is_the_fused_one_within_a_grey_level(height: int) -> None:
    """The fused kernel works in integers and rounds once; no difference may pass one grey level."""
    lines = whole_grey(batch([150, 1, 40, 90, 33, 8], height, seed=height))
    sigma32 = torch.tensor([16, 160, 0, 48, 1, 33])
    augmented = apply("blur", lines, {"sigma_px": sigma32 / 32}, keys(6))
    for line in range(6):
        expected = degrade_reference.blur(grey(lines, line), int(sigma32[line]))
        assert np.abs(grey(augmented, line) - expected).max() <= 1


@pytest.mark.parametrize("height", [24, 32, 61])
def test_morphology_is_the_fused_one_within_a_grey_level(height: int) -> None:
    lines = whole_grey(batch([150, 1, 40, 90, 33, 8], height, seed=height))
    weight256 = torch.tensor([256, -256, 0, 77, -130, 12])
    augmented = apply("morphology", lines, {"weight": weight256 / 256}, keys(6))
    for line in range(6):
        expected = degrade_reference.morph(grey(lines, line), int(weight256[line]))
        assert np.abs(grey(augmented, line) - expected).max() <= 1


def dot() -> PaddedLines:
    ink = torch.zeros(1, 1, 33, 41)
    ink[0, 0, 16, 20] = 1
    return PaddedLines(ink, torch.tensor([41]))


def moments(lines: PaddedLines) -> tuple[float, float, float, float]:
    """Mass, and variance along the line, across it, and mixed, of what became of a dot."""
    ink = lines.ink_B1HW[0, 0].double()
    y, x = torch.arange(33.0).double()[:, None] - 16, torch.arange(41.0).double() - 20
    mass = float(ink.sum())
    along, across, mixed = (float((ink * m).sum()) / mass for m in (x * x, y * y, x * y))
    return mass, along, across, mixed


@pytest.mark.parametrize("sigma_px", [0.8, 1.0, 2.5])
def test_blur_of_a_dot(sigma_px: float) -> None:
    mass, along, across, mixed = moments(apply("blur", dot(), values(sigma_px=sigma_px), keys(1)))
    assert mass == pytest.approx(1, abs=1e-5)
    assert along == pytest.approx(across, rel=1e-4)
    assert mixed == pytest.approx(0, abs=1e-5)
    # Tails beyond three deviations are cut off.
    assert along**0.5 == pytest.approx(sigma_px, rel=0.06)


@pytest.mark.parametrize("radius_px", [1.5, 2.0, 2.5])
def test_defocus_of_a_dot(radius_px: float) -> None:
    mass, along, across, mixed = moments(apply("defocus", dot(), values(radius_px=radius_px), keys(1)))
    assert mass == pytest.approx(1, abs=1e-5)
    assert along == pytest.approx(across, rel=1e-4)
    assert mixed == pytest.approx(0, abs=1e-5)
    assert along == pytest.approx(radius_px**2 / 4, rel=0.3)  # a disc's variance; pixels are coarse


def test_motion_goes_where_it_is_told() -> None:
    for angle_deg, sign in ((45, 1), (-45, -1)):
        augmented = apply("motion_blur", dot(), values(length_px=5, angle_deg=angle_deg), keys(1))
        mass, along, across, mixed = moments(augmented)
        assert mass == pytest.approx(1, abs=1e-5)
        assert along == pytest.approx(across, rel=1e-4)
        assert sign * mixed > 0.5 * along
    _, along, across, _ = moments(apply("motion_blur", dot(), values(length_px=5, angle_deg=0), keys(1)))
    assert along == pytest.approx(2.0, rel=0.05)  # five pixels in a row
    assert across < 0.01


@pytest.mark.parametrize(
    ("op", "still"),
    [
        ("blur", {"sigma_px": 0}),
        ("defocus", {"radius_px": 0}),
        ("motion_blur", {"length_px": 0, "angle_deg": 30}),
        ("resolution_loss", {"factor": 1}),
        ("morphology", {"weight": 0}),
        ("noise", {"sd_grey": 0}),
        ("contrast", {"paper": 0, "contrast": 1}),
        ("blobs", {"share": 0, "darkness": 1}),
        ("speckle", {"density": 0, "size_px": 3, "salt": 0.5}),
        ("toner_fade", {"depth": 0, "streaks": 0}),
        ("uneven_light", {"slope_x": 0, "slope_y": 0, "field": 0}),
        ("bleed_through", {"darkness": 0}),
        ("neighbour_lines", {"above_px": 0, "below_px": 0, "darkness": 1}),
    ],
)
def test_nothing_asked_for_nothing_done(op: str, still: dict[str, float]) -> None:
    lines = batch([123])
    augmented = apply(op, lines, values(**still), keys(1))
    torch.testing.assert_close(augmented.ink_B1HW, lines.ink_B1HW, rtol=0, atol=1e-4)


@pytest.mark.parametrize("factor", [0.25, 0.5, 0.77])
def test_resolution_loss_keeps_the_mass_and_the_flats(factor: float) -> None:
    ink = torch.zeros(1, 1, 64, 120)
    ink[..., 16:48, 20:100] = 1
    augmented = apply("resolution_loss", PaddedLines(ink, torch.tensor([120])), values(factor=factor), keys(1)).ink_B1HW
    assert float(augmented.sum()) == pytest.approx(float(ink.sum()), rel=0.01)
    torch.testing.assert_close(augmented[..., 26:38, 30:90], ink[..., 26:38, 30:90], rtol=0, atol=1e-4)
    fine = torch.zeros(1, 1, 32, 120)
    fine[..., ::2] = 1
    swing = apply("resolution_loss", PaddedLines(fine, torch.tensor([120])), values(factor=factor), keys(1)).ink_B1HW
    assert float(swing[..., 10:22, 10:110].std()) < 0.5 * float(fine.std())

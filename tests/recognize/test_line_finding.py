"""Where the line stands on an image: on lines that the project draws, with all that surrounds lines elsewhere."""

import numpy as np
import numpy.typing as npt
import pytest

from khmer_ocr.recognize.line_finding import MARGIN_KEPT, SIDE_KEPT, FoundLine, find_line
from khmer_ocr.recognize.prepare import prepare
from khmer_ocr.recognize.single_line import zones_of_text
from tests.recognize.reading import Grey

Box = tuple[int, int, int, int]


@pytest.fixture(scope="module")
def tight(lines: list[Grey]) -> list[Grey]:
    """Lines of letters, cut out at their ink, 96 px high or more."""
    found = []
    for line in lines[2:]:
        large = np.kron(line, np.ones((4, 4), np.uint8))
        rows, columns = np.flatnonzero((large < 128).any(1)), np.flatnonzero((large < 128).any(0))
        found.append(large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return found


def near(found: FoundLine, expected: Box, slack: float) -> bool:
    """Whether the ink was found where it is, to a share of its height."""
    assert found.ink is not None
    return max(abs(a - b) for a, b in zip(found.ink, expected, strict=True)) <= slack * (expected[3] - expected[1])


def padded(line: Grey, above: int, below: int, beside: int, ground: int = 255) -> tuple[Grey, Box]:
    image = np.pad(line, ((above, below), (beside, beside)), constant_values=ground)
    return image, (beside, above, beside + line.shape[1], above + line.shape[0])


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.5, 1.0, 4.0])
def test_margins_of_any_width_are_found(tight: list[Grey], share: float, invert: bool) -> None:
    for line in tight:
        tall = line.shape[0]
        image, expected = padded(line, round(share * tall), round(0.7 * share * tall), round(share * tall))
        found = find_line(255 - image if invert else image)
        assert near(found, expected, 0.06)
        left, top, right, bottom = found.box
        assert 0 <= left <= expected[0] and 0 <= top <= expected[1]
        assert right >= expected[2] and bottom >= expected[3]
        assert (bottom - top) <= (1 + 2 * MARGIN_KEPT + 0.1) * tall
        assert (right - left) <= line.shape[1] + (2 * SIDE_KEPT + 0.1) * tall


@pytest.mark.parametrize("ground", [0, 60, 128, 200])
def test_a_border_of_another_colour_is_not_the_lines_ground(tight: list[Grey], ground: int) -> None:
    """The bed of a scanner, the bar of a viewer: the line stands on white, whatever lies around that."""
    for line in tight:
        tall = line.shape[0]
        line_box = np.pad(line, tall // 8, constant_values=255)
        for border_px in (tall // 10, tall // 2, 2 * tall):
            image, _ = padded(line_box, border_px, border_px, border_px, ground)
            left, top, right, bottom = find_line(image).box
            cut = image[top:bottom, left:right]
            assert cut.shape[0] <= 1.35 * tall and (cut[:, [0, -1]] == 255).mean() > 0.9
            assert left <= border_px + tall // 8 and right >= image.shape[1] - border_px - tall // 8


def test_what_is_read_is_the_same_with_margins_and_without(tight: list[Grey]) -> None:
    for line in tight:
        tall = line.shape[0]
        ready = [prepare(padded(line, n, n, n)[0], 32).pixels_HW for n in (tall // 2, tall, 3 * tall)]
        for other in ready[1:]:
            assert abs(other.shape[1] - ready[0].shape[1]) <= 2
            width = min(other.shape[1], ready[0].shape[1])
            away = np.abs(other[:, :width].astype(int) - ready[0][:, :width])
            assert away.mean() < 12, away.mean()


def test_a_tight_crop_stays_as_it_is(tight: list[Grey], lines: list[Grey]) -> None:
    for line in tight:
        tall = line.shape[0]
        for image in (line, padded(line, tall // 10, tall // 10, tall // 4)[0], line[tall // 20 : -tall // 20]):
            assert find_line(image).box == (0, 0, image.shape[1], image.shape[0])


def test_specks_rules_and_slivers_far_off_are_not_the_line(tight: list[Grey]) -> None:
    rng = np.random.default_rng(3)
    for line in tight:
        tall = line.shape[0]
        image, expected = padded(line, tall, tall, 3 * tall)
        specked = image.copy()
        for y, x in zip([5, tall // 3, image.shape[0] - 9], rng.integers(0, image.shape[1] - 4, 3), strict=True):
            specked[y : y + 3, x : x + 3] = 0
        specked[expected[1] + tall // 2, 4] = 0
        ruled = image.copy()
        ruled[tall // 3 : tall // 3 + tall // 25 + 1] = 40
        slivers = image.copy()
        slivers[: tall // 12, expected[0] : expected[2]] = line[-(tall // 12) :]
        slivers[-(tall // 12) :, expected[0] : expected[2]] = line[: tall // 12]
        for worse in (specked, ruled, slivers):
            assert near(find_line(worse), expected, 0.08)


def test_light_that_falls_off_and_noise(tight: list[Grey]) -> None:
    rng = np.random.default_rng(4)
    for line in tight:
        tall = line.shape[0]
        image, expected = padded(line, tall, tall, tall)
        shade_HW = np.linspace(1, 0.5, image.shape[1])[None] * np.linspace(1, 0.8, image.shape[0])[:, None]
        shaded = (image * 0.8 + 20) * shade_HW + rng.normal(0, 4, image.shape)
        assert near(find_line(np.clip(shaded, 0, 255).astype(np.uint8)), expected, 0.08)


def test_a_picture_on_an_even_ground_is_given_back_whole(tight: list[Grey]) -> None:
    """A photograph's crop with a margin in one colour: nothing of the margin belongs to it."""
    rng = np.random.default_rng(5)
    for line in tight:
        tall = line.shape[0]
        inside, _ = padded(line, tall // 8, tall // 8, tall // 8)
        slope_W = np.linspace(0.3, 0.75, inside.shape[1])
        photo = np.clip(inside * slope_W + 30 + rng.normal(0, 5, inside.shape), 0, 255).astype(np.uint8)
        image, expected = padded(photo, tall, tall, tall, 250)
        assert find_line(image).box == expected


def test_several_lines_are_told_apart(tight: list[Grey]) -> None:
    for line in tight:
        tall = line.shape[0]
        page = np.concatenate([padded(line, tall // 2, tall // 2, tall)[0]] * 3)
        assert len(zones_of_text(page)) == 3
        assert len(zones_of_text(padded(line, tall, tall, tall)[0])) == 1


@pytest.mark.parametrize("width", [3, 60, 200])
def test_a_dash_keeps_its_frame(width: int) -> None:
    """Cut out, it would be a black image: how high its line is can only be told from the frame."""
    image = np.full((60, 300), 255, np.uint8)
    image[28:32, 40 : 40 + width] = 0
    assert find_line(image).box == (0, 0, 300, 60)


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (200, 1), (3, 2), (2, 500), (2000, 30)])
def test_any_shape_and_nothing_at_all(shape: tuple[int, int]) -> None:
    noise: npt.NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for image in (noise, np.full(shape, 7, np.uint8)):
        left, top, right, bottom = find_line(image).box
        assert 0 <= left < right <= shape[1] and 0 <= top < bottom <= shape[0]
    assert find_line(np.full(shape, 7, np.uint8)).ink is None

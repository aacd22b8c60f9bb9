import pytest
import torch

from khmer_ocr.augment import noise_fields
from tests.augment.sample_lines import keys

MAKERS = {
    "normal": lambda key, size, salt: noise_fields.normal(key, size, salt),
    "smooth": lambda key, size, salt: noise_fields.smooth(key, size, 7, salt),
    "large": lambda key, size, salt: noise_fields.smooth(key, size, 48, salt),
    "grain": lambda key, size, salt: noise_fields.grain(key, size, salt),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("height", [1, 24, 33])
def test_a_wider_field_begins_the_same(name: str, height: int) -> None:
    narrow, wide = (MAKERS[name](keys(3), (height, width), (1, 0, 0)) for width in (50, 211))
    assert narrow.shape == (3, 1, height, 50)
    torch.testing.assert_close(wide[..., :50], narrow, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "sd"), [("normal", 1.0), ("smooth", 0.5), ("grain", 0.5)])
def test_moments(name: str, sd: float) -> None:
    field = MAKERS[name](keys(40), (32, 400), noise_fields.salt("test"))
    assert float(field.mean()) == pytest.approx(0, abs=0.02)
    assert float(field.std()) == pytest.approx(sd, rel=0.04)


def test_noise_is_white() -> None:
    field = noise_fields.normal(keys(40), (32, 400), noise_fields.salt("test"))[:, 0]
    for a, b in ((field[:, :, 1:], field[:, :, :-1]), (field[:, 1:], field[:, :-1]), (field[1:], field[:-1])):
        assert float((a * b).mean()) == pytest.approx(0, abs=0.01)  # 500,000 products: 0.0014 is one deviation


def test_fields_of_other_salts_and_keys_are_others() -> None:
    same_key = [
        noise_fields.normal(keys(20), (32, 200), noise_fields.salt(*salt)) for salt in (("ab",), ("abc",), ("abc", 1))
    ]
    for n, first in enumerate(same_key):
        for second in same_key[:n]:
            assert float((first * second).mean()) == pytest.approx(0, abs=0.015)
    assert noise_fields.salt("toner_fade", 1) == noise_fields.salt("tone", 1)


def test_salts_of_all_ops_differ() -> None:
    """The first four letters tell the ops apart."""
    drawing = ["patchy_ink", "toner_fade", "geometry", "table_rules", "bleed_through", "paper_texture"]
    drawing += ["uneven_light", "blobs", "speckle", "noise"]
    assert len({noise_fields.salt(op)[0] for op in drawing}) == len(drawing)


def test_smooth_fields_are_smooth() -> None:
    field = noise_fields.smooth(keys(20), (32, 400), 20, (1, 0, 0))
    assert float((field[..., 1:] - field[..., :-1]).abs().max()) < 0.2
    assert float((field[:, :, 1:] - field[:, :, :-1]).abs().max()) < 0.2

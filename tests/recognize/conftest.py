import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # where `reading` lies

from reading import TEXTS, Grey, draw, teach

from khmer_ocr.model.weights import LoadedModel, load_model
from khmer_ocr.render.fonts import FontFace


@pytest.fixture(scope="session")
def regular(embedded: list[FontFace]) -> list[FontFace]:
    return [face for face in embedded if face.name == "NotoSansKhmer-Regular"]


@pytest.fixture(scope="session")
def taught_folder(regular: list[FontFace], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small reader that knows `TEXTS`, when it decodes greedily."""
    folder = tmp_path_factory.mktemp("taught")
    teach(folder, regular)
    return folder


@pytest.fixture(scope="session")
def taught(taught_folder: Path) -> LoadedModel:
    return load_model(taught_folder)


@pytest.fixture(scope="session")
def lines(regular: list[FontFace]) -> list[Grey]:
    """`TEXTS`, drawn."""
    return draw(TEXTS, regular, 24)

from pathlib import Path

import pytest
import torch

from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.model.weights import LoadedModel, load_model
from tests.recognize.reading import TEXTS, Grey, draw, teach


@pytest.fixture(scope="module", autouse=True)
def every_test_on_one_thread(one_thread: None) -> None:
    """Lines are read one by one in most of them."""


@pytest.fixture(scope="session")
def regular(embedded: list[FontFace]) -> list[FontFace]:
    return [face for face in embedded if face.name == "NotoSansKhmer-Regular"]


@pytest.fixture(scope="session")
def taught_folder(regular: list[FontFace], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small reader that knows `TEXTS`, when it decodes greedily."""
    folder = tmp_path_factory.mktemp("taught")
    threads = torch.get_num_threads()  # a session's fixture comes before `one_thread`, which is a module's
    torch.set_num_threads(1)
    teach(folder, regular)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="session")
def taught(taught_folder: Path) -> LoadedModel:
    return load_model(taught_folder)


@pytest.fixture(scope="session")
def lines(regular: list[FontFace]) -> list[Grey]:
    """`TEXTS`, drawn."""
    return draw(TEXTS, regular, 24)

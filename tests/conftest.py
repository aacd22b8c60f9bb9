"""What all tests share: installed fonts and their measurements, real lines, the rule for GPU tests.

Fonts are looked for in the repository's `fonts/` (filled by `khmer-ocr fonts install`); measurements stay in
`.cache/tests`, so that a second run need not make them again.
"""

import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from khmer_ocr.fonts.discovery import FontFace, find_faces
from khmer_ocr.render.face_metrics import FaceMetrics
from khmer_ocr.render.measured_faces import measure_all
from tests import REPOSITORY, SHARED
from tests.gpu import require_cuda

CORPUS = SHARED / "corpus"
# A variable font's instances, old Khmer OS tables, word-wise shaping, a companion for Latin, Graphite-era tables.
FEW = (
    "NotoSansKhmer-Regular",
    "NotoSansKhmer-CondensedBold",
    "KhmerOS",
    "KhmerOSfreehand",
    "Battambang-Regular",
    "Mondulkiri-R",
)
_FACES_AT_ONCE = 12


def pytest_configure(config: pytest.Config) -> None:
    os.environ["KHMER_OCR_CACHE"] = str(REPOSITORY / ".cache" / "tests")
    # Threads of torch that wait for each other beside other tests' processes take far longer than one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # First calls compile kernels; a time limit per example would only find that.
    settings.register_profile("khmer_ocr", deadline=None)
    settings.load_profile("khmer_ocr")
    # A shell that runs tests in the background has them ignore Ctrl-C, nohup a hang-up; their children would too.
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        require_cuda()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Names that are no UTF-8, which some tests print and log, cross to the process that reports as escapes."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def without(what: str) -> None:
    """Skip for want of fonts or of what tests them, unless this machine is said to have them."""
    if os.environ.get("KHMER_OCR_REQUIRE_FONTS") == "1":
        pytest.fail(f"{what}, but KHMER_OCR_REQUIRE_FONTS=1", pytrace=False)
    pytest.skip(f"{what}; KHMER_OCR_REQUIRE_FONTS=1 makes this a failure")


@pytest.fixture(scope="session", name="without")
def without_fixture() -> Callable[[str], None]:
    """`without`, for tests that lack something besides fonts."""
    return without


@pytest.fixture(scope="session")
def fonts_dir() -> Path:
    """The repository's folder of fonts, whatever is in it."""
    return REPOSITORY / "fonts"


@pytest.fixture(scope="session")
def embedded() -> list[FontFace]:
    """The faces that come with the package, installed fonts or not."""
    return find_faces(fonts_dir=REPOSITORY / "no-such-folder")


@pytest.fixture(scope="session")
def faces(fonts_dir: Path) -> list[FontFace]:
    """All installed and embedded faces, held-out ones included."""
    found = find_faces(fonts_dir=fonts_dir, heldout=True)
    if len({face.family for face in found}) < 10:
        without("only the embedded font is here (run: khmer-ocr fonts install)")
    return found


@pytest.fixture(scope="session")
def metrics(faces: list[FontFace]) -> dict[str, FaceMetrics]:
    """Measurements of all faces, by name.

    Where nothing is kept yet, each process of xdist begins at another end, and takes what others have measured by then.
    """
    order = faces[::-1] if os.environ.get("PYTEST_XDIST_WORKER") == "gw1" else faces
    for begin in range(0, len(order), _FACES_AT_ONCE):
        measure_all(order[begin : begin + _FACES_AT_ONCE], progress=False)
    return measure_all(faces, progress=False)


@pytest.fixture(scope="session")
def few_faces(faces: list[FontFace]) -> list[FontFace]:
    """A few faces of different kinds."""
    return [face for name in FEW for face in faces if face.name == name]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads of torch that wait for each other on a busy machine take ten times as long as one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus_lines() -> list[str]:
    """Lines of the shared corpus as the corpus command cuts them, each once; broken ones included."""
    from khmer_ocr.corpus.line_breaking import cut

    if not CORPUS.is_dir():
        pytest.skip("../shared/corpus is not here")
    lines: dict[str, None] = {}
    for file in sorted(CORPUS.glob("*.txt")):
        for raw in file.read_text(encoding="utf-8").split("\n"):
            lines.update(dict.fromkeys(line for line in cut(raw, 90) if line))
    return list(lines)


@pytest.fixture(scope="session")
def real_lines() -> list[str]:
    """Natural lines: of the shared corpus where it is, else the bundled sample."""
    from khmer_ocr.samples import sample_lines

    if not CORPUS.is_dir():
        return sample_lines()
    raw = (CORPUS / "lo_help.txt").read_text(encoding="utf-8").split("\n")
    return sample_lines() + [line for line in _normal(raw[:: max(1, len(raw) // 3000)]) if line]


def _normal(raw: list[str]) -> Iterator[str]:
    from khmer_ocr.corpus.line_breaking import cut

    for paragraph in raw:
        yield from cut(paragraph, 90)

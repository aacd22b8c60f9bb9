"""Wheel and sdist, built and installed as a user does, draw lines without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import REPOSITORY


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command that sees neither the checkout nor this environment's variables for Python; its standard output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkout's wheel, and the one that pip makes of the sdist; no network, so hatchling is this environment's."""
    pytest.importorskip("hatchling", reason="hatchling is missing (extra dev)")
    folder = tmp_path_factory.mktemp("packages")
    call(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=REPOSITORY)
    (sdist,) = folder.glob("*.tar.gz")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    call(*pip, "-w", folder / "of_sdist", sdist, cwd=folder)
    found = {"wheel": folder, "sdist": folder / "of_sdist"}
    return {kind: next(place.glob("*.whl")) for kind, place in found.items()}


@pytest.mark.slow
def test_wheels_hold_what_is_needed_and_no_more(wheels: dict[str, Path]) -> None:
    names = {}
    for kind, path in wheels.items():
        with zipfile.ZipFile(path) as wheel:
            names[kind] = set(wheel.namelist())
    assert names["wheel"] == names["sdist"]
    expected = ("khmer_ocr/fonts/fonts.toml", "khmer_ocr/weights/compact/model.safetensors", "khmer_ocr/py.typed")
    assert {*expected, "khmer_ocr_kernels/jit.py", "khmer_ocr/augment/recipes/scan.yaml"} <= names["wheel"]
    tops = {name.split("/")[0] for name in names["wheel"]}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"khmer_ocr", "khmer_ocr_kernels"}
    assert not [name for name in names["wheel"] if name.endswith((".nbi", ".nbc", ".pyc"))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_an_installed_package_draws(wheels: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """In a fresh environment; what the package needs comes from this one, as there may be no network."""
    venv = tmp_path / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        venv / "bin/python",
        "install",
        "--quiet",
        "--no-deps",
    ]
    call(*pip, "--no-index", wheels[kind], cwd=tmp_path)
    site = next((venv / "lib").glob("python*/site-packages"))
    others = [path for path in sys.path if path.endswith("site-packages")]
    # After the package's own folder; .pth files there, such as the editable checkout's, are not followed.
    (site / "of_the_tests.pth").write_text("\n".join(others), encoding="utf-8")
    seen = call(venv / "bin/python", "-c", "import khmer_ocr; print(khmer_ocr.__file__)", cwd=tmp_path)
    assert seen.startswith(str(venv))
    command = venv / "bin/khmer-ocr"
    assert "usage: khmer-ocr" in call(command, "--help", cwd=tmp_path)
    assert "NotoSansKhmer-Regular" in call(command, "fonts", "list", cwd=tmp_path)
    call(command, "corpus", "--sample", "--quiet", cwd=tmp_path)
    call(command, "generate", "--max-lines", "20", "--quiet", cwd=tmp_path)
    assert "Nothing is wrong" in call(command, "verify", "data/synthetic", "--quiet", cwd=tmp_path)

"""An environment with the core install alone, as scripts/demo makes it: one line that says what to install."""

import subprocess
import sys
from pathlib import Path

import pytest

from khmer_ocr.errors import EXTRA_OF, install_hint, require
from tests import REPOSITORY

WITHOUT_EXTRAS = f"""
import sys
class MissingCharacters:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({tuple(EXTRA_OF)!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, MissingCharacters())
"""


def core(code: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run code where no optional package can be imported."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS + code], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ("recognize line.png", "torch and safetensors"),
        ("train", "torch and safetensors"),
        ("evaluate --labels labels.tsv", "torch and safetensors"),
        ("cache data", "torch"),
        ("bench load data", "torch"),
        ("export --onnx reader", "torch, safetensors, onnx, onnxruntime and onnxscript"),
    ],
)
def test_verbs_that_need_more_say_so_in_one_line(arguments: str, missing: str, tmp_path: Path) -> None:
    done = core(f"from khmer_ocr.cli import main; main({arguments.split()!r})", tmp_path)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    extras = "torch,onnx" if "onnx" in missing else "torch"
    verb = " ".join(arguments.split()[: 2 if "bench" in arguments else 1])
    assert line.startswith(f"khmer-ocr: {verb} needs {missing}, which ")
    assert f"pip install '.[{extras}]' in a checkout" in line and f"pip install 'khmer-ocr[{extras}]'" in line


@pytest.mark.parametrize("name", ["Recognizer", "SyntheticImageDataset", "create_synthetic_dataloaders"])
def test_public_names_that_need_more_say_so(name: str, tmp_path: Path) -> None:
    done = core(f"from khmer_ocr import {name}", tmp_path)
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1 and len(done.stderr.splitlines()) < 9
    last = done.stderr.splitlines()[-1]
    assert last.startswith("khmer_ocr.errors.MissingExtraError: ") and "pip install '.[torch]'" in last


def test_the_error_is_an_import_error_and_ours(tmp_path: Path) -> None:
    code = (
        "import khmer_ocr\n"
        "try:\n    khmer_ocr.Recognizer\n"
        "except ImportError as error:\n    assert isinstance(error, khmer_ocr.KhmerOcrError); print(error)\n"
    )
    assert "needs torch" in core(code, tmp_path).stdout


def test_verbs_of_the_drawing_half_need_nothing_more(tmp_path: Path) -> None:
    done = core("from khmer_ocr.cli import main; main(['corpus', '--synthesize', '50', '--quiet'])", tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_extra_of_the_table_exists() -> None:
    import tomllib

    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    for package, extra in EXTRA_OF.items():
        requirement = {"nvidia.dali": "nvidia-dali-cuda130"}.get(package, package)
        assert any(entry.startswith(f"{requirement}>") for entry in extras[extra]), package


def test_require_passes_what_is_there() -> None:
    require("this test", "torch", "safetensors")
    assert "[torch,onnx]" in install_hint("torch", "onnx", "torch")


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "khmer_ocr", "--help"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: khmer-ocr ")


@pytest.mark.parametrize("script", sorted((REPOSITORY / "scripts").glob("*.py")), ids=lambda path: path.name)
def test_scripts_say_what_to_install_where_nothing_is(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("khmer_ocr is not installed in ") and "pip install '." in line

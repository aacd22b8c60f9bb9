"""Every script of examples/ runs, one after the other in one folder, as its docstring says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
RUNS = {
    "draw_lines": (["24"], "test: 24 lines, rejected: none"),
    "load_batches": ([], "of the columns are lines"),
    "read_lines": ([], "test_000000.png: "),
    "stream_recipe": ([], "epoch 1: "),
    "fine_tune": (["example/synthetic", "1"], "test_000000.png reads "),
}


@pytest.mark.slow
def test_examples_run_in_turn(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(RUNS)
    for name, (arguments, said) in RUNS.items():
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0 and said in done.stdout, f"{name}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("name", RUNS)
def test_examples_import_what_exists(name: str) -> None:
    """Their imports alone, as the scripts do nothing else when they are imported."""
    pytest.importorskip("torch")
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    imports: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert f"python examples/{name}.py" in (ast.get_docstring(tree) or "")
    exec(compile(ast.Module(imports, []), name, "exec"), {})

"""Compiled kernels on disk: damaged ones are compiled anew, never loaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
import logging, sys
logging.basicConfig(format="%(levelname)s %(message)s")
from khmer_ocr_kernels.jit import compiled

@compiled
def inner(n):
    return n * 3

@compiled
def outer(n):
    total = 0
    for k in range(n):
        total += inner(k) + 17
    return total

print(outer(1000), sum(outer.stats.cache_hits.values()), sum(outer.stats.cache_misses.values()))
"""
RIGHT = str(sum(3 * k + 17 for k in range(1000)))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module and its compiled kernels."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "kernel.py").write_text(SOURCE)
    assert run(folder) == ([RIGHT, "0", "1"], "")
    assert run(folder) == ([RIGHT, "1", "0"], "")
    return folder


def run(folder: Path) -> tuple[list[str], str]:
    """What the module printed, and what it logged."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    command = [sys.executable, "-P", str(folder / "kernel.py")]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split(), done.stderr


def copied(kept: Path, folder: Path) -> list[Path]:
    """A copy, times included (numba asks whether the source has changed), and its kernel files."""
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    return sorted(path for path in folder.rglob("*") if path.suffix in (".nbi", ".nbc"))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swap", "text"])
def test_damaged_kernels_are_compiled_anew(kept: Path, tmp_path: Path, damage: str) -> None:
    files = copied(kept, tmp_path)
    outer = [path for path in files if "outer" in path.name]
    assert len(outer) == 2 and len(files) == 4
    for path in outer:
        content = bytearray(path.read_bytes())
        if damage == "flip":
            content[len(content) // 2] ^= 16
        elif damage == "cut":
            content = content[: len(content) * 2 // 3]
        elif damage == "empty":
            content = bytearray()
        elif damage == "swap":
            content = bytearray(next(p for p in files if p not in outer and p.suffix == path.suffix).read_bytes())
        else:
            content = bytearray(b"cos\nsystem\n(S'touch owned'\ntR.")
        path.write_bytes(content)
    found, said = run(tmp_path)
    assert found == [RIGHT, "0", "1"]
    assert said.count("WARNING") == 1 and "damaged" in said and "compiled anew" in said
    assert not (tmp_path / "owned").exists()
    assert run(tmp_path) == ([RIGHT, "1", "0"], "")


def test_every_part_of_a_kernel_file_is_looked_at(kept: Path, tmp_path: Path) -> None:
    (code,) = (path for path in copied(kept, tmp_path) if "outer" in path.name and path.suffix == ".nbc")
    content = code.read_bytes()
    for at in range(0, len(content), len(content) // 3):
        code.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        found, said = run(tmp_path)
        assert found == [RIGHT, "0", "1"] and said.count("WARNING") == 1


def test_a_kernel_that_cannot_be_kept_is_said_and_used(kept: Path, tmp_path: Path) -> None:
    for path in copied(kept, tmp_path):
        path.unlink()
        path.mkdir()
    found, said = run(tmp_path)
    assert found[0] == RIGHT and "can't be kept" in said

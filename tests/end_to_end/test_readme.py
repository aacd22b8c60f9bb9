"""Every command in README and docs is one: it parses, and it runs on a tiny stand-in for what it names."""

import functools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from khmer_ocr.cli import app
from tests import REPOSITORY

DOCS = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "benchmarks").rglob("*.md")),
    *sorted((REPOSITORY / "khmer_ocr").rglob("*.md")),
]
PLACES = {
    "1000+PART": "1003",
    "T0 ... T15": "T0 T1",
    "SET/labels.tsv": "scans/labels.tsv",
    " DIR": " data/synthetic",
    "CORPUS": "my_texts",
    " FOLDER": " my_texts",
}
"""What stands for the reader's own names and numbers."""
NOT_RUN = ("pip install", "khmer-ocr fonts install", "scripts/demo", "python benchmarks/")
"""They install, run the tests, or measure for minutes."""
SMALLER = {
    "--synthesize 20000": "--synthesize 60",
    "--workers 8": "--workers 2",
    "khmer-ocr train": "khmer-ocr train --max-steps 2 --max-samples 24 --batch-size 8 --num-workers 0 "
    "--validate-lines 2 --device cpu",
    "khmer-ocr bench": "khmer-ocr bench --max-samples 24 --batch-size 8 --epochs 1",
    "khmer-ocr generate": "khmer-ocr generate --quiet",
    "khmer-ocr evaluate": "khmer-ocr evaluate --max-lines 4",
}
"""What makes a command small enough for a test; flags given twice count as the last."""


def commands(file: Path) -> list[str]:
    """The commands of a document: lines of shell blocks, lines after a prompt, and inline code that begins as one."""
    text = file.read_text(encoding="utf-8")
    found = []
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        for line in block.splitlines():
            if kind == "sh":
                found.append(line)
            elif line.startswith("$ "):
                found.append(line[2:])
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    found += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    begins = ("khmer-ocr ", "scripts/", "python ", "pip ")
    return [shlex.join(shlex.split(code, comments=True)) for code in map(stand_in, found) if code.startswith(begins)]


def stand_in(command: str) -> str:
    for name, other in PLACES.items():
        command = command.replace(name, other)
    return command


ALL = [(file, command) for file in DOCS for command in commands(file)]
OF_OURS = [(file, command) for file, command in ALL if command.startswith("khmer-ocr ")]


def named(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value)


@pytest.mark.parametrize(("file", "command"), OF_OURS, ids=named)
def test_commands_parse(file: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def stub(verb: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def record(*_arguments: Any, **_settings: Any) -> None:
            called.append(verb.__name__)

        return record

    monkeypatch.setattr(app, "VERBS", {name: stub(verb) for name, verb in app.VERBS.items()})
    app.main(shlex.split(command)[1:])
    assert called == [shlex.split(command)[1]]


def test_documents_show_commands_of_every_verb() -> None:
    shown = {command.split()[1] for _, command in OF_OURS}
    assert shown >= set(app.VERBS) - {"stats"}, set(app.VERBS) - shown


@pytest.mark.parametrize("file", DOCS, ids=named)
def test_flags_in_prose_exist(file: Path) -> None:
    flags = set(re.findall(r"`(?:[\w ]* )?(--[a-z][a-z-]+)", file.read_text(encoding="utf-8")))
    known = {"--all", "--shm-size", "--signal"}  # of scripts/test, of docker, of Slurm
    source = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "khmer_ocr/cli").glob("*.py"))
    source += "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "khmer_ocr").glob("*/settings.py"))
    for flag in flags - known:
        name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
        assert re.search(rf"\b{name}_?: ", source), flag


@pytest.mark.parametrize("file", DOCS, ids=named)
def test_files_that_documents_name_exist(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (file.parent / target).exists(), target
    for _, command in ((file, command) for command in commands(file) if command.startswith(("scripts/", "python b"))):
        script = shlex.split(command)[1 if command.startswith("python ") else 0]
        assert (REPOSITORY / script).is_file() and os.access(REPOSITORY / script, os.R_OK), command


def run(command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    words = shlex.split(command)
    begin = {"khmer-ocr": [sys.executable, "-m", "khmer_ocr"], "python": [sys.executable]}
    words = [*begin.get(words[0], [sys.executable, str(REPOSITORY / words[0])]), *words[1:]]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the documents' commands read: texts, a dump, images of lines and their labels."""
    import bz2

    from khmer_ocr.samples import sample_lines

    folder = tmp_path_factory.mktemp("documents")
    lines = sample_lines()
    (folder / "my_texts").mkdir()
    (folder / "my_texts/a.txt").write_text("\n\n".join(lines[:60]), encoding="utf-8")
    page = f"<page><ns>0</ns><revision><text>{' '.join(lines[60:70])}</text></revision></page>"
    (folder / "dump.xml.bz2").write_bytes(bz2.compress(f"<mediawiki>{page}</mediawiki>".encode()))
    for command in (
        "khmer-ocr corpus --input my_texts --output-dir demo/processed --quiet",
        "khmer-ocr generate --corpus-dir demo/processed --output-dir stand-in/drawn --no-augment --quiet",
    ):
        done = run(command, folder)
        assert done.returncode == 0, done.stderr
    (folder / "scans").mkdir()
    samples = json.loads((folder / "stand-in/drawn/train/metadata.json").read_bytes())["samples"]
    labels = []
    for name, sample in zip(("scan.png", "page.png", "line.png", "another.jpg"), samples, strict=False):
        with Image.open(folder / sample["image_path"]) as image:
            for at in (folder / name, folder / "scans" / name):
                image.save(at)
        labels.append(f"{name}\t{sample['text']}\n")
    (folder / "scans/labels.tsv").write_text("".join(labels), encoding="utf-8")
    return folder


def shown_in_readme() -> Iterator[str]:
    for command in dict.fromkeys(commands(REPOSITORY / "README.md")):
        if not command.startswith(NOT_RUN) and command != "scripts/test":
            yield command


@pytest.mark.slow
def test_every_command_of_the_readme_runs_as_printed(place: Path) -> None:
    """One after the other in one folder, as a reader would type them."""
    pytest.importorskip("onnxscript")
    for command in shown_in_readme():
        small = command
        for long, short in SMALLER.items():
            small = small.replace(long, short)
        if small.startswith(("scripts/", "python -m khmer_ocr")):
            small += " --help"
        done = run(small, place)
        assert done.returncode == 0, f"{small}\n{done.stdout}\n{done.stderr}"
    assert (place / "reader.onnx").is_file() and (place / "reader.decoder.onnx").is_file()
    assert (place / "worst.png").is_file() and (place / "sheet.png").is_file()


@pytest.mark.slow
def test_python_of_the_readme_runs_as_printed(place: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    for block in blocks:
        code = block.replace("data/synthetic", "stand-in/drawn").replace("num_workers=4", "num_workers=0")
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"

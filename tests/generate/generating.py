"""What the tests of the writing half share: a corpus misspelt, runs of the real command line, hashes of trees."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from khmer_ocr.generate.generator import SyntheticImageGenerator
from tests.command_line import khmer_ocr

FONTS = ("NotoSansKhmer-Bold", "NotoSansKhmer-Regular", "NotoSansKhmer-SemiCondensedLight")
LINES = 2400
FEW = ("--max-lines", "1100", "--splits", "train")
TIMEOUT_S = 240


@dataclass(frozen=True)
class Corpora:
    """`processed` by our own tool, with its statistics; `raw` are the same lines misspelt in ways that print alike."""

    processed: Path
    raw: Path


def misspelt(line: str, number: int) -> str:
    """The same ink in other code points: ZWSP between letters, no-break spaces, more blanks."""
    if number % 3 == 0:
        line = line.replace(" ", "\u00a0 ")
    if number % 2 == 0:
        line = "\u200b".join(line.split(" ")[0]) + line[len(line.split(" ")[0]) :]
    return f"  {line}\u200b"


def write_corpus(folder: Path, train: bytes | str, **others: bytes | str) -> Path:
    """A corpus folder with the splits given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"train": train, **others}.items():
        (folder / f"{name}.txt").write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def generator(corpus: Path, output: Path, **settings: Any) -> SyntheticImageGenerator:
    """In this process, with the three faces; one worker, as for `command`."""
    made = SyntheticImageGenerator(corpus, output, fonts=list(FONTS), **settings)
    made.config = replace(made.config, workers=made.config.workers or 1)
    return made


def command(corpus: Path, *more: str, output: str = "out") -> list[str]:
    """One worker unless `more` says otherwise: a second one takes a second to start, as long as most runs here take."""
    arguments = ["--corpus-dir", str(corpus), "--output-dir", output, "--fonts", *FONTS, "--workers", "1", "--quiet"]
    return [sys.executable, "-m", "khmer_ocr", "generate", *arguments, *more]


def start(corpus: Path, cwd: Path, *more: str, **options: Any) -> "subprocess.Popen[str]":
    """The command line in a session of its own, in `cwd`, so that recorded paths are the same wherever it runs."""
    cwd.mkdir(parents=True, exist_ok=True)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen(
        command(corpus, *more),
        cwd=cwd,
        start_new_session=True,
        **streams,
    )


def run(corpus: Path, cwd: Path, *more: str, status: int = 0) -> str:
    """The command line to its end, in this process; returns what it printed, both streams."""
    cwd.mkdir(parents=True, exist_ok=True)
    return "".join(khmer_ocr(*command(corpus, *more)[3:], cwd=cwd, status=status))


def names(folder: Path) -> list[str]:
    """What a folder holds, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def tree_files(root: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name, lock and temporary files included."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def tree_hash(root: Path) -> str:
    digest = hashlib.sha256()
    for name, data in tree_files(root).items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def samples_of(root: Path, split: str = "train") -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = json.loads((root / split / "metadata.json").read_bytes())["samples"]
    return samples


def children(pid: int) -> list[int]:
    """Processes that a process started and that still live."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in found.split()]


def alive(pid: int) -> bool:
    """Whether a process runs: neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False

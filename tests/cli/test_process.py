"""The command as a process: terminals, full and closed streams, odd names, errors nobody foresaw."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont
from fontTools.varLib.instancer import instantiateVariableFont

from khmer_ocr.fonts.discovery import FontFace
from tests import REPOSITORY

KHMER = "ភាសាខ្មែរជាភាសាផ្លូវការ"
ODD = os.fsdecode(b"text\xe9.txt")
"""A name as an old zip leaves it: no UTF-8."""


AS_BYTES = KHMER.encode().decode("ascii", "surrogateescape")
"""A good name as Python has it where the locale is ASCII."""


def shell(line: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `khmer-ocr ...` with what a shell can do to its streams."""
    line = line.replace("khmer-ocr", f"{shlex.quote(sys.executable)} -m khmer_ocr")
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
        timeout=300,
    )


def faulty(code: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `khmer-ocr stats .` whose inner function is replaced by `code`."""
    script = f"import khmer_ocr.dataset.stats as s\ndef fault(root):\n    {code}\ns.dataset_statistics = fault\n"
    script += "from khmer_ocr.cli import main; main(['stats', '.'])"
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=cwd,
        env={**os.environ, "TMPDIR": str(cwd), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_fault_of_ours_is_one_line_and_a_file_for_the_report(tmp_path: Path) -> None:
    done = faulty("{}['key\\nof two lines']", tmp_path)
    assert done.returncode == 70 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("khmer-ocr: a fault of ours: KeyError: ") and "at khmer_ocr/cli/dataset_verbs.py:" in line
    (report,) = tmp_path.glob("khmer-ocr-error-*.txt")
    assert str(report) in line and report.stat().st_mode & 0o777 == 0o600
    told = report.read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in told and "khmer_ocr 0." in told and "Python 3." in told


def test_the_traceback_is_shown_when_asked_for(tmp_path: Path) -> None:
    assert "Traceback" in faulty("1 / 0", tmp_path, KHMER_OCR_DEBUG="1").stderr


def test_a_fault_is_told_where_no_file_can_be_written(tmp_path: Path) -> None:
    done = faulty("import tempfile; tempfile.tempdir = '/proc/nowhere'; 1 / 0", tmp_path)
    assert done.returncode == 70 and "KHMER_OCR_DEBUG=1" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("open('/proc/self/mem/x')", "the system refused (NotADirectoryError: "),
        ("raise MemoryError", "memory ran out"),
        ("f = lambda: f(); f()", "a fault of ours: RecursionError"),
        ("raise ValueError('a' * 10000)", "aaa ..."),
        ("import pyarrow.nothing", "a fault of ours: ModuleNotFoundError"),
        ("raise BrokenPipeError(32, 'of a worker')", "the system refused (BrokenPipeError"),
    ],
)
def test_what_nobody_foresaw_is_one_short_line(code: str, told: str, tmp_path: Path) -> None:
    done = faulty(code, tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 70 and told in line and len(line) < 1000


def test_ctrl_c_is_130(tmp_path: Path) -> None:
    done = faulty("raise KeyboardInterrupt", tmp_path)
    assert done.returncode == 130 and done.stderr == "\nkhmer-ocr: stopped.\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("verb", ["--help", "corpus --synthesize 20 --quiet --output-dir out", "fonts list"])
def test_a_full_output_is_said(verb: str, unbuffered: str, tmp_path: Path) -> None:
    done = shell(f"khmer-ocr {verb} > /dev/full", tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("khmer-ocr: standard output can't be written: no space left on device")


def test_a_closed_output_is_said_and_a_closed_error_stream_is_borne(tmp_path: Path) -> None:
    done = shell("khmer-ocr corpus --synthesize 20 --output-dir out >&-", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("khmer-ocr: standard output is closed.")
    assert not (tmp_path / "out").exists()
    done = shell("khmer-ocr corpus --synthesize 20 --output-dir out 2>&- <&-", tmp_path)
    assert done.returncode == 0 and "lines written" in done.stdout


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    done = shell("khmer-ocr --help | head -n 1; echo ${PIPESTATUS[0]}", tmp_path)
    assert done.stdout.splitlines()[-1] == "0" and not done.stderr


TERMINALS = [
    {"PYTHONIOENCODING": "utf-8:strict"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "iso-8859-1"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("terminal", TERMINALS, ids=lambda terminal: "-".join(terminal.values()))
def test_khmer_is_written_whatever_the_locale(terminal: dict[str, str], tmp_path: Path) -> None:
    code = "from khmer_ocr.cli.process import run_command; import sys\n"
    lines = f"print({KHMER!a}), print({KHMER!a}, file=sys.stderr), print({ODD!a}), print({AS_BYTES!a})"
    code += f"run_command(lambda: ({lines}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **terminal}, capture_output=True, check=False, timeout=300
    )
    assert done.stdout.decode() == f"{KHMER}\ntext\\udce9.txt\n{KHMER}\n" and done.stderr.decode() == f"{KHMER}\n"


def test_odd_names_go_through_every_verb(tmp_path: Path, embedded: list[FontFace]) -> None:
    """Names that are no UTF-8, of texts, fonts and folders: all are read, and what is written can be read again."""
    lines = [f"{KHMER} {i}\n{KHMER}នៅ {i}\n\n" for i in range(60)]
    for n, name in enumerate((b"a.txt", b"text\xe9.txt", b"z.txt")):
        (tmp_path / os.fsdecode(name)).write_text("".join(lines[n::3]), encoding="utf-8")
    (tmp_path / os.fsdecode(b"f\xe9")).mkdir()
    font = instantiateVariableFont(TTFont(embedded[0].files[0]), {"wght": 400, "wdth": 100})
    font.save(tmp_path / os.fsdecode(b"f\xe9/font\xe9.ttf"))
    odd = r"$'\xe9'"
    drawing = f"generate --corpus-dir c{odd} --fonts f{odd} --workers 1 --max-lines 20 --quiet"
    for line, told in (
        (f"corpus --input a.txt text{odd}.txt z.txt --synthesize 90 --output-dir c{odd} --quiet", r"Corpus in c\udce9"),
        (f"{drawing} --output-dir d{odd}", "complete"),
        (f"{drawing} --output-dir w{odd} --format webdataset", "complete"),
        (f"verify d{odd} --quiet", "Nothing is wrong"),
        (f"verify w{odd} --quiet", "Nothing is wrong"),
        (f"stats d{odd}", r"font\xe9"),
        (f"preview d{odd} -o p{odd}.png --count 2", r"p\udce9.png"),
        (f"fonts list f{odd}", r"font\xe9"),
    ):
        done = shell(f"khmer-ocr {line}", tmp_path, PYTHONIOENCODING="utf-8:strict")
        assert done.returncode == 0 and told in done.stdout, line + done.stdout + done.stderr
    stats = json.loads((tmp_path / os.fsdecode(b"c\xe9/corpus_stats.json")).read_bytes())
    assert [entry["name"] for entry in stats["inputs"]] == ["a.txt", ODD, "z.txt"]
    overall = json.loads((tmp_path / os.fsdecode(b"d\xe9/generation_metadata.json")).read_bytes())
    assert overall["generation_config"]["output_dir"] == os.fsdecode(b"d\xe9")
    done = shell(
        f"khmer-ocr corpus --input a.txt text{odd}.txt z.txt --synthesize 90 --output-dir c{odd} --quiet", tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_an_image_of_an_odd_name_is_read_with_the_others(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from PIL import Image, ImageDraw

    image = Image.new("L", (90, 40), 255)
    ImageDraw.Draw(image).rectangle((20, 10, 60, 30), outline=0, width=3)
    for name in (b"l0.png", b"scan\xe9.png", b"l2.png"):
        image.save(tmp_path / os.fsdecode(name))
    done = shell("khmer-ocr recognize --json l0.png scan*.png l2.png", tmp_path, PYTHONIOENCODING="utf-8:strict")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["image"] for record in records] == ["l0.png", os.fsdecode(b"scan\xe9.png"), "l2.png"], done.stderr
    assert re.search(r"scan\\udce9", done.stdout) and "Traceback" not in done.stderr


@pytest.mark.parametrize("flags", ["", "-I", "-X utf8=0"])
def test_khmer_names_are_the_same_names_whatever_the_locale(flags: str, tmp_path: Path) -> None:
    (tmp_path / "ខ្មែរ.txt").write_text(f"{KHMER}\n", encoding="utf-8")
    paths = [str(REPOSITORY), str(REPOSITORY / "kernels")]
    begin = f"import sys; sys.path[:0] = {paths!r}; from khmer_ocr.cli import main; main()"
    (tmp_path / "begin.py").write_text(begin, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *flags.split(), "begin.py", "corpus", "--input", "ខ្មែរ.txt", "--output-dir", "ចេញ", "--quiet"],
        cwd=tmp_path,
        env={**os.environ, **TERMINALS[-1]},
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0 and done.stdout.decode().startswith("Corpus in ចេញ\n"), done.stderr
    stats = (tmp_path / "ចេញ/corpus_stats.json").read_bytes()
    assert json.loads(stats)["inputs"][0]["name"] == "ខ្មែរ.txt" and "ខ្មែរ.txt".encode() in stats

"""Bad input and bad luck: each is one clear message, and nothing is lost."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from khmer_ocr.errors import (
    ConfigError,
    CorpusError,
    FontError,
    KhmerOcrError,
    NoFontsError,
    OutputError,
    SplitNotFoundError,
)
from khmer_ocr.fonts import discovery
from khmer_ocr.generate import split_text
from khmer_ocr.generate.generator import SyntheticImageGenerator
from khmer_ocr.generate.settings import GenerateConfig
from khmer_ocr.generate.split_text import LONGEST_LINE_BYTES, SplitText
from khmer_ocr.render import measured_faces
from khmer_ocr.render.measured_faces import usable_faces
from tests.generate.generating import (
    FEW,
    FONTS,
    alive,
    children,
    command,
    generator,
    names,
    run,
    samples_of,
    start,
    tree_files,
    write_corpus,
)

LINE = "ខ្ញុំទៅសាលារៀន"


def test_a_missing_split(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", LINE)
    with pytest.raises(
        SplitNotFoundError, match=r"Split file not found: .*corpus/val\.txt.*Run process_corpus\.py first"
    ):
        generator(folder, tmp_path / "out").generate(["train", "val"], progress=False)
    assert not (tmp_path / "out").exists()
    (tmp_path / "elsewhere").mkdir()
    out = run(Path("data/processed"), tmp_path / "elsewhere", status=2)
    assert "khmer-ocr: Split file not found: data/processed/train.txt. Run process_corpus.py first" in out


@pytest.mark.parametrize("content", ["", "\n\n\n", "  \t \r\n \n", "\ufeff", "\ufeff\n"])
def test_an_empty_corpus(tmp_path: Path, content: str) -> None:
    folder = write_corpus(tmp_path / "corpus", content)
    with pytest.raises(CorpusError, match=r"train\.txt is empty: no line of text in it"):
        SplitText.open(folder, "train", None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{LINE}\n{LINE}".encode("utf-16"), "line 1: it looks like UTF-16.*iconv -f UTF-16"),
        (f"{LINE}\n{LINE}".encode("utf-16-be"), "line 1: a NUL byte|not UTF-8"),
        (f"{LINE}\nabc\n".encode("utf-16-le"), "line [12]: (a NUL byte|byte .* is not UTF-8)"),
        (LINE.encode() + b"\n\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "line 2: byte 0x89 at column 1 is not UTF-8"),
        (LINE.encode() + b"\nab\0c\n", "line 2: a NUL byte; expected UTF-8 text"),
        (LINE.encode() + b"\n" + LINE.encode()[:-1], "line 2: byte .* at column .* is not UTF-8"),
        ("caf\xe9\n".encode("latin-1"), "line 1: byte 0xe9 at column 4 is not UTF-8"),
        (LINE.encode()[:-1] + b"\n", "is not UTF-8"),
    ],
)
def test_text_that_is_no_utf8(tmp_path: Path, content: bytes, said: str) -> None:
    folder = write_corpus(tmp_path / "corpus", content)
    with pytest.raises(CorpusError, match=said):
        SplitText.open(folder, "train", None)


def test_a_bad_line_behind_the_last_that_is_read_is_no_fault(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", LINE.encode() + b"\n\xff\xfe\n")
    assert list(SplitText.open(folder, "train", 1).read()) == [LINE]


def test_long_lines_are_rejected_and_counted(tmp_path: Path) -> None:
    invisible = "\u200b" * (LONGEST_LINE_BYTES // 3 + 100)
    lines = [LINE, "ក" * 10_000, "", LINE, "ខ" * 1_000_000, invisible + LINE, f"{LINE} ១២៣", "x" * LONGEST_LINE_BYTES]
    folder = write_corpus(tmp_path / "corpus", "\n".join(lines))
    result = generator(folder, tmp_path / "out").generate(["train"], progress=False)["train"]
    # A line cut at the limit must not become a sample, even if little of it would be left to draw.
    assert result.rejected == {"too_long": 4, "empty": 1} and result.samples == 3
    assert [sample["text"] for sample in samples_of(tmp_path / "out")] == [LINE, LINE, f"{LINE} ១២៣"]
    assert names(tmp_path / "out" / "train" / "images") == [f"train_00000{n}.png" for n in range(3)]


def test_a_cut_in_the_middle_of_a_letter_is_no_fault(tmp_path: Path) -> None:
    for shift in range(3):
        folder = write_corpus(tmp_path / str(shift), "x" * shift + "ក" * LONGEST_LINE_BYTES + "\n" + LINE)
        text = SplitText.open(folder, "train", None)
        assert (text.lines, text.overlong) == (2, frozenset({0})) and list(text.read()) == ["", LINE]


def test_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    content = f"\ufeff{LINE}\r\n{LINE} ក\r\n\r\n{LINE} ខ".encode()
    folder = write_corpus(tmp_path / "corpus", content)
    result = generator(folder, tmp_path / "out").generate(["train"], progress=False)["train"]
    assert [s["text"] for s in samples_of(tmp_path / "out")] == [LINE, f"{LINE} ក", f"{LINE} ខ"]
    assert result.rejected == {"empty": 1}


def test_no_line_can_be_drawn(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", "漢字\nمرحبا\n្ក\n\n")
    with pytest.raises(CorpusError, match=r"No line of .*train\.txt can be drawn; rejected: ") as caught:
        generator(folder, tmp_path / "out").generate(["train"], progress=False)
    for reason in ("missing_glyph", "unsupported_script", "broken_syllable", "empty"):
        assert f"1 {reason}" in str(caught.value)


def test_a_corpus_that_changes_while_it_is_read(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", f"{LINE}\n{LINE}\n")
    text = SplitText.open(folder, "train", None)
    (folder / "train.txt").write_text(f"{LINE}\n{LINE} ក\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="was changed while it was read"):
        list(text.read())
    (folder / "train.txt").write_text(f"{LINE}\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="was changed while it was read"):
        list(text.read())
    (folder / "train.txt").write_text(f"{LINE}\n{LINE}\nmore\n", encoding="utf-8")
    assert list(text.read()) == [LINE, LINE], "what was added is not asked for"


def test_no_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(discovery, "_packaged_files", lambda: iter(()))
    with pytest.raises(NoFontsError, match="No Khmer fonts found in fonts/ directory"):
        SyntheticImageGenerator("corpus", "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoFontsError, match="No Khmer fonts found in empty/ directory"):
        SyntheticImageGenerator("corpus", "out", fonts=["empty"])
    with pytest.raises(FontError, match="No font file, folder, family or face is called 'Nothing'"):
        SyntheticImageGenerator("corpus", "out", fonts=["Nothing"])


def test_only_quarantined_fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KHMER_OCR_CACHE", str(tmp_path))
    face = discovery.find_faces([FONTS[0]])[0]
    measured_faces.quarantine(face, "it killed the process that drew with it")
    with pytest.raises(NoFontsError, match=f"{FONTS[0]}: it killed the process that drew with it"):
        usable_faces([FONTS[0]], fonts_dir=tmp_path, system=False)


def test_a_cache_folder_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, corpus: Path) -> None:
    monkeypatch.setenv("KHMER_OCR_CACHE", "/proc/khmer_ocr-test/cache")
    with pytest.raises(OutputError, match="KHMER_OCR_CACHE"):
        SyntheticImageGenerator(corpus, tmp_path / "out", fonts=FONTS[:1])


def test_output_and_corpus_one_inside_the_other(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "a" / "corpus", LINE)
    (tmp_path / "link").symlink_to(folder)
    for output in (folder, folder / "out", folder.parent, tmp_path / "link" / "out"):
        with pytest.raises(OutputError, match=r"lie one inside the other\. Choose an --output-dir beside the corpus"):
            generator(folder, output).generate(["train"], progress=False)
    assert names(folder) == ["train.txt"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"splits": ["train", "dev"]}, "unknown split dev; known are train, val, test"),
        ({"max_lines": 0}, "max_lines is 0"),
        ({"worker": 2}, r"generate\(\): unknown key 'worker'. Did you mean 'workers'"),
        ({"format": "zip"}, "format is 'zip'; expected 'files' or 'webdataset'"),
        ({"workers": -1}, "workers is -1"),
        ({"workers": 1.5}, "workers is 1.5"),
        ({"shard": (2, 2)}, "expected i/n with 0 <= i < n"),
        ({"shard": "2/2"}, "expected i/n with 0 <= i < n"),
        ({"shard": (0, True)}, "expected i/n with 0 <= i < n"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    folder = write_corpus(tmp_path / "corpus", LINE)
    with pytest.raises(ConfigError, match=said):
        generator(folder, tmp_path / "out").generate(**settings)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_settings_in_range() -> None:
    assert GenerateConfig().changed({}) == GenerateConfig()
    assert GenerateConfig().changed({"workers": 3, "shard": (1, 2)}) == GenerateConfig(workers=3, shard=(1, 2))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, where this machine lets us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    options = ["-t", "tmpfs", "-o", "size=2m,nr_inodes=4000", "khmer_ocr-test", str(place)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("format_name", ["files", pytest.param("webdataset", marks=pytest.mark.slow)])
def test_no_space_left_and_then_some(
    corpus: Path, few: Path, small_disk: Path, tmp_path: Path, format_name: str
) -> None:
    more = ("--splits", "train", "--max-lines", "1100", "--format", format_name)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (1 << 20))
    out = run(corpus, small_disk, *more, status=2)
    said = "khmer-ocr: out can't be written: No space left on device. Free some space, or choose another --output-dir."
    assert f"{said} The same command goes on" in out
    assert not [file for file in small_disk.rglob("*.partial")]
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=20000", str(small_disk)], check=True)
    run(corpus, small_disk, *more)
    if format_name == "webdataset":
        run(corpus, tmp_path / "roomy", *more)
        few = tmp_path / "roomy" / "out"
    assert tree_files(small_disk / "out") == tree_files(few)


@pytest.mark.slow
@pytest.mark.parametrize("kb", [16, 300])
def test_a_limit_on_file_size_is_no_space_left(corpus: Path, tmp_path: Path, kb: int) -> None:
    """Without a small disk: a limit on file size stops the plan or a fragment, or the split's metadata."""
    more = ("--splits", "train", "--max-lines", "1100")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kb << 10, kb << 10))

    done = subprocess.run(
        command(corpus, *more), cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "out can't be written: No space left on device" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not [file for file in (tmp_path / "out").rglob("*.partial")]
    assert "train" in names(tmp_path / "out")
    run(corpus, tmp_path, *more)
    assert samples_of(tmp_path / "out")


def test_a_folder_that_cannot_be_written(corpus: Path, tmp_path: Path) -> None:
    made = generator(corpus, Path("/proc/khmer_ocr-test/out"))
    with pytest.raises(OutputError, match="/proc/khmer_ocr-test/out"):
        made.generate(["val"], 10, progress=False)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file can't be written: Not a directory\. A file stands where"):
        generator(corpus, tmp_path / "file").generate(["val"], 10, progress=False)


def test_a_read_only_file_system(corpus: Path, small_disk: Path) -> None:
    generator(corpus, small_disk / "done").generate(["val"], 10, progress=False)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    said = r"can't be written: Read-only file system\. Make it writable, or choose another --output-dir"
    with pytest.raises(OutputError, match=said):
        generator(corpus, small_disk / "new").generate(["val"], 10, progress=False)
    again = generator(corpus, small_disk / "done").generate(["val"], 10, progress=False)["val"]
    assert again.complete and not again.drawn, "a complete data set needs no writing"


@pytest.mark.parametrize("moment", [pytest.param("importing", marks=pytest.mark.slow), "drawing"])
def test_ctrl_c(corpus: Path, tmp_path: Path, few: Path, moment: str) -> None:
    process = start(corpus, tmp_path, "--workers", "2", *FEW)
    images = tmp_path / "out" / "train" / "images"
    if moment == "drawing":
        while not images.exists() and process.poll() is None:
            time.sleep(0.002)
    else:
        # The first worker has been started and is still importing.
        while not children(process.pid) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(0.1)
    workers = children(process.pid)
    assert workers
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "khmer-ocr: stopped. The same command goes on where it stopped." in err and "Traceback" not in err
    assert not any(alive(pid) for pid in workers)
    if moment == "drawing":
        run(corpus, tmp_path, *FEW)
        assert tree_files(tmp_path / "out") == tree_files(few)


def test_a_library_call_in_a_thread(corpus: Path, tmp_path: Path) -> None:
    """Workers die with the thread that started them; until then they serve."""
    results: list[object] = []
    made = generator(corpus, tmp_path / "out")
    thread = threading.Thread(target=lambda: results.append(made.generate(["val"], 20, progress=False, workers=1)))
    thread.start()
    thread.join(60)
    assert results and samples_of(tmp_path / "out", "val")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("render:\n  image_hight: 48\n", "section 'render': unknown key 'image_hight'. Did you mean 'image_height'"),
        ("rendr: {}\n", "unknown key 'rendr'. Did you mean 'render'"),
        ("generate:\n  workers: many\n", "generate: workers is 'many'; expected a whole number, at least 0"),
        ("render: [1, 2]\n", "section 'render' is"),
        ("- a\n- b\n", "holds a list; expected sections"),
        ("a: [1\n", "can't be read as YAML"),
    ],
)
def test_a_wrong_config_file(corpus: Path, tmp_path: Path, text: str, said: str) -> None:
    from khmer_ocr import ConfigManager

    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        ConfigManager(tmp_path / "c.yaml")


def test_the_command_line_says_it_once_and_leaves_with_2(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("render:\n  image_height: 500\n")
    out = run(corpus, tmp_path, "--config", "c.yaml", status=2)
    assert out.startswith("khmer-ocr: ") and "image_height is 500; expected 24 to 96 px" in out
    assert out.count("\n") == 1


def test_os_errors_of_our_own_keep_their_words(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SplitNotFoundError("Split file not found: x")

    made = generator(corpus, tmp_path / "out")
    monkeypatch.setattr(split_text.SplitText, "read", fail)
    with pytest.raises(SplitNotFoundError, match="Split file not found: x"):
        made.generate(["val"], 10, progress=False)

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(split_text.SplitText, "read", broken)
    with pytest.raises(OutputError, match="Input/output error") as caught:
        made.generate(["val"], 10, progress=False)
    assert isinstance(caught.value, KhmerOcrError)


def test_python_of_the_tests_has_no_children_left() -> None:
    assert not [pid for pid in children(os.getpid()) if alive(pid)] or sys.platform != "linux"

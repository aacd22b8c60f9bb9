"""Killed at any moment, the same command finishes the job; what is complete is left alone; what differs is refused."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.verify import verify
from khmer_ocr.errors import CorpusError, DatasetError, FontError, OutputError, RunConflictError
from khmer_ocr.generate import local_executor
from khmer_ocr.generate.generator import SyntheticImageGenerator
from khmer_ocr.generate.journal import Journal
from khmer_ocr.generate.local_executor import LocalExecutor
from khmer_ocr.generate.split_run import SplitRun
from khmer_ocr.io import worker_process
from khmer_ocr.render.settings import RenderConfig
from tests.generate.generating import (
    FEW,
    FONTS,
    Corpora,
    alive,
    children,
    generator,
    names,
    run,
    samples_of,
    start,
    tree_files,
    tree_hash,
    write_corpus,
)


def gone(pids: list[int], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(alive(pid) for pid in pids)


def kill(process: "subprocess.Popen[str]", victim: str, rng: random.Random) -> None:
    """SIGKILL the whole group, only the parent, or only a worker; no worker outlives its parent."""
    workers = children(process.pid)
    if victim == "worker":
        if workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
        return
    if victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    assert gone(workers), "a worker outlived its parent"


def wait_for(moment: str, process: "subprocess.Popen[str]", root: Path, extra_s: float) -> None:
    """Wait until images are being written, or only for a while after the start."""
    deadline = time.monotonic() + 60
    while moment == "drawing" and time.monotonic() < deadline and process.poll() is None:
        if any(root.glob("*/images/*")):
            break
        time.sleep(0.005)
    time.sleep(extra_s)


def survive(corpus: Path, cwd: Path, known: Path, kills: int, seed: int, *more: str) -> dict[str, bytes]:
    """Kill runs at random moments until so many kills met one at work; every run that ends has made the tree.

    Returns:
        The tree that a last run, which nothing kills, completes.
    """
    rng, met = random.Random(seed), 0
    while met < kills:
        process = start(corpus, cwd, "--workers", "2", *more, stdout=subprocess.DEVNULL)
        moment = rng.choice(["drawing", "drawing", "starting"])
        wait_for(moment, process, cwd / "out", rng.uniform(0, 0.9 if moment == "drawing" else 3.0))
        if process.poll() is None:
            met += 1
            kill(process, rng.choice(["group", "parent", "worker"]), rng)
        _, err = process.communicate(timeout=240)
        assert process.returncode in (0, -signal.SIGKILL), err
        assert "Traceback" not in err, err
        if process.returncode == 0:
            assert tree_files(cwd / "out") == tree_files(known)
            shutil.rmtree(cwd / "out")
    run(corpus, cwd, *more)
    return tree_files(cwd / "out")


def test_three_kills_leave_the_same_tree(corpus: Path, tmp_path: Path, few: Path) -> None:
    assert survive(corpus, tmp_path, few, 3, 1, *FEW) == tree_files(few)


@pytest.mark.slow
def test_twenty_kills_leave_the_same_tree(corpus: Path, tmp_path: Path, reference: Path) -> None:
    assert survive(corpus, tmp_path, reference, 20, 2) == tree_files(reference)


@pytest.mark.slow
def test_killed_shards_leave_the_same_tree(corpus: Path, tmp_path: Path, reference_hash: str) -> None:
    rng = random.Random(3)
    for attempt in range(5):
        processes = [start(corpus, tmp_path, "--workers", "1", "--shard", f"{n}/3") for n in range(3)]
        if attempt < 4:
            wait_for("drawing", processes[0], tmp_path / "out", rng.uniform(0, 1.5))
            for process in rng.sample(processes, 2):
                kill(process, "parent", rng)
        for process in processes:
            _, err = process.communicate(timeout=240)
            assert process.returncode in (0, -signal.SIGKILL), err
    assert tree_hash(tmp_path / "out") == reference_hash


@pytest.mark.parametrize("moment", ["_plan", "_damaged"])
def test_a_split_that_another_shard_completes_meanwhile_is_left_alone(
    corpus: Path, tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A shard that is started again looks at its chunks while the last shard takes their fragments away."""
    run(corpus, tmp_path, "--shard", "0/2", *FEW)
    if moment == "_plan":
        (tmp_path / "out" / layout.JOURNAL / "train" / "plan.bin").unlink()
    written: dict[Path, int] = {}
    original = getattr(SplitRun, moment)

    def interrupted(self: SplitRun, *args: Any) -> Any:
        if self.name == "train" and not written:
            other = start(corpus, tmp_path, "--shard", "1/2", *FEW)
            _, err = other.communicate(timeout=240)
            assert other.returncode == 0, err
            images = (tmp_path / "out/train/images").iterdir()
            written.update({image: image.stat().st_mtime_ns for image in images})
        return original(self, *args)

    monkeypatch.setattr(SplitRun, moment, interrupted)
    said = run(corpus, tmp_path, "--shard", "0/2", *FEW)
    assert "train: " in said and "nothing to do, complete" in said and "damaged" not in said
    assert written and {image: image.stat().st_mtime_ns for image in written} == written
    assert tree_files(tmp_path / "out") == tree_files(few)


def test_only_open_chunks_are_done_again(corpus: Path, tmp_path: Path, few: Path) -> None:
    process = start(corpus, tmp_path, "--workers", "1", *FEW)
    fragment = tmp_path / "out" / layout.JOURNAL / "train" / "000000.jsonl"
    while not fragment.exists() and process.poll() is None:
        time.sleep(0.0005)
    kill(process, "parent", random.Random(0))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    images = [tmp_path / "out" / "train" / "images" / f"train_{n:06d}.png" for n in (0, 500, layout.CHUNK - 1)]
    before = [image.stat().st_mtime_ns for image in images]
    out = run(corpus, tmp_path, *FEW)
    total, drawn = re.findall(r"train: (\d+) samples, (\d+|nothing)", out)[0]
    assert drawn in ("nothing", str(int(total) - layout.CHUNK))
    assert [image.stat().st_mtime_ns for image in images] == before
    assert tree_files(tmp_path / "out") == tree_files(few)


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from khmer_ocr.dataset import layout, metadata_writer
from khmer_ocr.generate import generator, journal, split_text
from khmer_ocr.io import atomic

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def half(header, lines):
    for n, part in enumerate(real(header, lines)):
        if n == 500:
            yield b"x" * (2 << 20)
            die()
        yield part

real = layout.split_metadata
point = sys.argv[1]
if point == "metadata half written":
    layout.split_metadata = half
elif point == "before the overall metadata":
    journal.write_overall = die
elif point == "overall metadata half written":
    def replace(path, data, root, tag):
        if path.name == layout.GENERATION_METADATA:
            atomic.partial_of(path).write_bytes(data[:100])
            die()
    metadata_writer.replace = replace
elif point == "before fragments go":
    journal.Journal.forget = die
elif point == "before the journal goes":
    journal.Journal._remove = die
elif point == "journal half gone":
    def remove(self):
        self.folder.replace(self.root / (layout.JOURNAL + "-0"))
        (self.root / (layout.JOURNAL + "-0") / "exclusive.lock").unlink()
        die()
    journal.Journal._remove = remove
elif point == "before the run is recorded":
    journal.Journal.begin = die
elif point == "before the plan is kept":
    journal.Journal.write_plan = die
elif point == "splits half cleared":
    def remove(root, split, samples):
        for file in sorted((root / split / "images").glob("*"))[:700]:
            file.unlink()
        if split == "train":
            die()
    split_text.remove_split = remove
made = generator.SyntheticImageGenerator(sys.argv[2], "out", fonts=sys.argv[3:], random_seed=42)
made.generate(["train"], 1100, progress=False, workers=1, overwrite=True)
"""
POINTS = [
    "metadata half written",
    *(
        pytest.param(point, marks=pytest.mark.slow)
        for point in (
            "journal half gone",
            "before the overall metadata",
            "overall metadata half written",
            "before fragments go",
            "before the journal goes",
            "before the run is recorded",
            "before the plan is kept",
        )
    ),
]


def killed_at(point: str, corpus: Path, cwd: Path) -> None:
    script = cwd / "killed.py"
    script.write_text(KILLED_AT, encoding="utf-8")
    command = [sys.executable, str(script), point, str(corpus), *FONTS]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_the_worst_moments(point: str, corpus: Path, few: Path, tmp_path: Path) -> None:
    killed_at(point, corpus, tmp_path)
    out = run(corpus, tmp_path, *FEW)
    assert "complete" in out
    assert tree_files(tmp_path / "out") == tree_files(few)


@pytest.mark.slow
def test_killed_while_clearing_nothing_is_called_complete(corpus: Path, few: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path, *FEW, "--seed", "7")
    killed_at("splits half cleared", corpus, tmp_path)
    # The old configuration must not find its images half gone and call them complete.
    out = run(corpus, tmp_path, *FEW, "--seed", "7", status=2)
    assert "that no run here accounts for" in out
    run(corpus, tmp_path, *FEW, "--overwrite")
    assert tree_files(tmp_path / "out") == tree_files(few)


COMMIT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from khmer_ocr.generate import journal, render_worker
commit = journal.Journal.commit
def commit_and_die(self, split, chunk, *rest):
    commit(self, split, chunk, *rest)
    mark = Path("died") / f"{split}-{chunk}"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.commit = commit_and_die
render_worker.main()
"""


def test_a_worker_dead_right_after_its_commit(
    corpus: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "died").mkdir()
    (tmp_path / "worker.py").write_text(COMMIT_AND_DIE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-P", str(tmp_path / "worker.py")]
    monkeypatch.setattr(worker_process, "child_python", lambda module: command)
    result = generator(corpus, Path("out")).generate(["train"], 1100, progress=False, workers=2)
    assert names(tmp_path / "died") == ["train-0", "train-1"]
    assert result["train"].drawn == result["train"].samples and result["train"].complete
    assert tree_files(tmp_path / "out") == tree_files(few)


def test_a_worker_killed_in_the_middle_is_replaced(
    corpus: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    killed: list[int] = []
    receive = LocalExecutor._receive

    def kill_once(self: LocalExecutor, worker: local_executor._Worker, *rest: object) -> object:
        yield from receive(self, worker, *rest)  # type: ignore[arg-type]
        if worker.tasks and worker.tasks[0][0] == "chunk" and not killed:
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)

    monkeypatch.setattr(LocalExecutor, "_receive", kill_once)
    generator(corpus, Path("out")).generate(["train"], 1100, progress=False, workers=2)
    assert len(killed) == 1 and f"Worker {killed[0]} died (SIGKILL)" in caplog.text
    assert tree_files(tmp_path / "out") == tree_files(few)


DIE_OF_A_FONT = """
import os, signal
import numpy as np
from khmer_ocr.generate import render_worker
draw = render_worker.ChunkRenderer.chunk
def chunk(self, split, chunk, texts, normalised):
    for n, face in enumerate(self.job.faces):
        if chunk == 1 and face.name == "NotoSansKhmer-Regular":
            self.renderer.atlas.at_face_1[0] = n
            os.kill(os.getpid(), signal.SIGSEGV)
    return draw(self, split, chunk, texts, normalised)
render_worker.ChunkRenderer.chunk = chunk
render_worker.main()
"""


def test_a_font_that_kills_is_named_and_quarantined(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Path(os.environ["KHMER_OCR_CACHE"])
    shutil.copytree(cache, tmp_path / "cache")
    monkeypatch.setenv("KHMER_OCR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worker.py").write_text(DIE_OF_A_FONT, encoding="utf-8")
    command = [sys.executable, "-P", str(tmp_path / "worker.py")]
    monkeypatch.setattr(worker_process, "child_python", lambda module: command)
    with pytest.raises(
        FontError, match=r"SIGSEGV\) while handling font NotoSansKhmer-Regular.*quarantined.*--overwrite"
    ):
        generator(corpus, Path("out")).generate(["train"], 1100, progress=False, workers=1)
    again = generator(corpus, Path("out"))
    assert [face.name for face in again.faces] == [name for name in FONTS if not name.endswith("-Regular")]
    with pytest.raises(RunConflictError, match=r"fonts\.NotoSansKhmer-Regular: .* -> \(none\)"):
        again.generate(["train"], 1100, progress=False)
    assert again.generate(["train"], 1100, progress=False, overwrite=True)["train"].complete
    assert all(facts["font"] != "NotoSansKhmer-Regular" for facts in samples_of(Path("out")))


def states(root: Path) -> dict[str, tuple[int, int, int]]:
    every = [root, *root.rglob("*")]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.stat().st_ino) for path in every}


def test_a_complete_run_does_nothing_and_says_so(corpus: Path, copy_of_reference: Path, tmp_path: Path) -> None:
    before = states(copy_of_reference)
    out = run(corpus, tmp_path)
    assert "out is complete: nothing to do" in out
    assert out.count("nothing to do, complete") == 3
    run(corpus, tmp_path, "--splits", "val", "--overwrite", "--shard", "1/3", "--workers", "3")
    assert states(copy_of_reference) == before


def test_a_moved_data_set_is_still_complete(corpus: Path, copy_of_few: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.move(copy_of_few, tmp_path / "elsewhere" / "out")
    before = states(tmp_path / "elsewhere" / "out")
    run(corpus, tmp_path / "elsewhere", *FEW)
    assert states(tmp_path / "elsewhere" / "out") == before


@pytest.mark.slow
def test_a_folder_given_otherwise_keeps_its_first_name(corpus: Path, few: Path, tmp_path: Path) -> None:
    killed_at("before the plan is kept", corpus, tmp_path)
    made = generator(corpus, tmp_path / "out")
    assert made.generate(["train"], 1100, progress=False)["train"].complete
    assert tree_files(tmp_path / "out") == tree_files(few), "paths of two kinds in one data set"


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"random_seed": 43}, "seed: 42 -> 43"),
        ({"render": RenderConfig(image_height=48)}, "render.image_height: 32 -> 48"),
        ({"render": RenderConfig(crop="tight")}, 'render.crop: "line" -> "tight"'),
        ({"format": "webdataset"}, 'format: "files" -> "webdataset"'),
        ({"max_lines": 1000}, "splits.train.max_lines: 1100 -> 1000"),
        ({"fonts": FONTS[:1]}, f"fonts.{FONTS[1]}: "),
    ],
)
def test_another_configuration_is_refused(corpus: Path, copy_of_few: Path, change: dict[str, Any], shown: str) -> None:
    settings = {"max_lines": 1100, "progress": False, **change}
    made = SyntheticImageGenerator(
        corpus, copy_of_few, fonts=settings.pop("fonts", FONTS), random_seed=settings.pop("random_seed", 42)
    )
    made.render = settings.pop("render", made.render)
    before = states(copy_of_few)
    with pytest.raises(RunConflictError, match="holds a run of another configuration") as caught:
        made.generate(["train"], **settings)
    assert f"\n  {shown}" in str(caught.value) and "--overwrite" in str(caught.value)
    after = states(copy_of_few)
    assert after.keys() == before.keys()
    assert {path for path in after if after[path] != before[path]} <= {str(copy_of_few)}


@pytest.mark.slow
def test_another_corpus_is_refused(corpora: Corpora, copy_of_few: Path, tmp_path: Path) -> None:
    lines = (corpora.processed / "train.txt").read_text(encoding="utf-8").splitlines()[:1100]
    lines[550] = "ខ្ញុំ"
    made = generator(write_corpus(tmp_path / "corpus", "\n".join(lines)), copy_of_few)
    with pytest.raises(RunConflictError, match=r"splits\.train\.corpus_sha256: "):
        made.generate(["train"], 1100, progress=False)
    made.generate(["train"], 1100, progress=False, overwrite=True)
    assert "ខ្ញុំ" in {sample["text"] for sample in samples_of(copy_of_few)[540:551]}


@pytest.mark.slow
def test_overwrite_leaves_nothing_of_the_larger_old_run(
    corpus: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generator(corpus, Path("out"), random_seed=9).generate(max_lines=1300, progress=False)
    # What a killed run leaves lies there too.
    (tmp_path / "out" / "train" / "shards").mkdir()
    (tmp_path / "out" / "train" / "shards" / ".train-000009.tar.partial").write_bytes(b"half")
    (tmp_path / "out" / "train" / ".metadata.json.partial").write_bytes(b"half")
    generator(corpus, Path("out")).generate(["train"], 1100, progress=False, overwrite=True)
    assert tree_files(tmp_path / "out") == tree_files(few)
    assert names(tmp_path / "out") == names(few), "folders of splits that are gone"


@pytest.mark.slow
def test_a_run_that_stored_nothing_is_in_nobodys_way(corpora: Corpora, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="No line of"):
        generator(write_corpus(tmp_path / "bad", "漢字\n"), tmp_path / "out").generate(["train"], progress=False)
    assert names(tmp_path / "out") == [layout.JOURNAL]
    made = generator(corpora.processed, tmp_path / "out", random_seed=5)
    assert made.generate(["val"], 10, progress=False)["val"].complete
    assert names(tmp_path / "out") == ["generation_metadata.json", "val"]


def test_a_run_that_stored_nothing_yet_is_respected_while_it_is_at_work(corpora: Corpora, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out")
    with journal.locked(0, 2):
        journal.begin({"train": {"seed": 3, "splits": {"train": {}}}})
        with pytest.raises(RunConflictError, match="seed: 3 -> 42"):
            generator(corpora.processed, tmp_path / "out").generate(["val"], 10, progress=False, shard=(1, 2))


def test_overwrite_of_one_split_keeps_the_others(corpora: Corpora, copy_of_reference: Path, tmp_path: Path) -> None:
    other = tmp_path / "corpus"
    shutil.copytree(corpora.processed, other)
    lines = (other / "val.txt").read_text(encoding="utf-8").splitlines()[:100]
    (other / "val.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    before = states(copy_of_reference / "train") | states(copy_of_reference / "test")
    made = generator(other, copy_of_reference)
    with pytest.raises(RunConflictError):
        made.generate(["val"], progress=False)
    made.generate(["val"], progress=False, overwrite=True)
    assert states(copy_of_reference / "train") | states(copy_of_reference / "test") == before
    assert len(samples_of(copy_of_reference, "val")) <= 100
    overall = json.loads((copy_of_reference / "generation_metadata.json").read_bytes())
    assert list(overall["splits"]) == ["train", "val", "test"] and list(overall["run"]["splits"]) == [
        "train",
        "val",
        "test",
    ]
    assert not verify(copy_of_reference, progress=False).problems


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, "holds images of val that no run here accounts for"),
        ('{"splits": {"val": {"total_samples": 1}}}', "holds images of val that no run here accounts for"),
        ('{"run": 3, "splits": {}}', "holds images of val that no run here accounts for"),
        ('{"splits": 3}', r"generation_metadata\.json is damaged.*did not draw it"),
        ("{", r"generation_metadata\.json is damaged.*did not draw it"),
    ],
)
def test_foreign_images_are_refused_and_kept(corpus: Path, tmp_path: Path, metadata: str | None, said: str) -> None:
    folder = tmp_path / "out" / "val" / "images"
    folder.mkdir(parents=True)
    for name in ("holiday.png", "val_000000.png", "val_999999.png"):
        (folder / name).write_bytes(b"of another tool")
    (tmp_path / "out" / "val" / "labels").mkdir()
    (tmp_path / "out" / "val" / "labels" / "val_000000.txt").write_text("mine")
    if metadata is not None:
        (tmp_path / "out" / "generation_metadata.json").write_text(metadata)
    before = tree_files(tmp_path / "out")
    made = generator(corpus, tmp_path / "out")
    for overwrite in (False, True):
        with pytest.raises((RunConflictError, OutputError), match=said) as caught:
            made.generate(["val"], 10, progress=False, overwrite=overwrite)
        assert "give --overwrite" not in str(caught.value) and "another --output-dir" in str(caught.value)
        assert tree_files(tmp_path / "out") == before


def test_overwrite_removes_what_the_run_recorded_and_nothing_else(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    generator(corpus, root).generate(["val"], 10, progress=False, workers=1)
    kept = {"val/images/val_000010.png", "val/labels/val_000010.txt", "val/images/note.txt", "train/images/scan.png"}
    for name in kept:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("mine")
    generator(corpus, root, random_seed=5).generate(["val"], 5, progress=False, workers=1, overwrite=True)
    assert all((root / name).read_text() == "mine" for name in kept)
    images = {name for name in names(root / "val/images") if name[:4] == "val_"}
    assert images == {f"{layout.stem('val', i)}.png" for i in (*range(len(samples_of(root, "val"))), 10)}


def test_a_folder_half_cleared_by_a_killed_run_is_still_ours(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    (root / "val" / "images").mkdir(parents=True)
    (root / "val" / "images" / "val_000003.png").write_bytes(b"drawn")
    (root / layout.JOURNAL).mkdir()
    (root / layout.JOURNAL / "clearing.json").write_text('{"val": 10}')
    made = generator(corpus, root)
    for _ in range(2):  # the refusal must not take away what shows whose they are
        with pytest.raises(RunConflictError, match=r"accounts for\..*give --overwrite"):
            made.generate(["val"], 10, progress=False)
    assert made.generate(["val"], 2, progress=False, workers=1, overwrite=True)["val"].complete
    assert names(root) == ["generation_metadata.json", "val"]
    assert "val_000003.png" not in names(root / "val" / "images")


def test_foreign_images_of_a_later_split_are_refused(corpus: Path, copy_of_few: Path) -> None:
    (copy_of_few / "val" / "labels").mkdir(parents=True)
    (copy_of_few / "val" / "labels" / "val_000000.txt").write_text("mine")
    with pytest.raises(RunConflictError, match="holds images of val that no run here accounts for"):
        generator(corpus, copy_of_few).generate(["val"], 10, progress=False)
    assert (copy_of_few / "val" / "labels" / "val_000000.txt").read_text() == "mine"


def test_a_second_process_is_refused(corpus: Path, tmp_path: Path, few: Path) -> None:
    first = start(corpus, tmp_path, "--workers", "1", *FEW)
    while not (tmp_path / "out" / layout.JOURNAL / "train/run.json").exists() and first.poll() is None:
        time.sleep(0.005)
    second = generator(corpus, tmp_path / "out")
    with pytest.raises(RunConflictError, match=r"Another process is writing to .* \(shard 0 of 1\)"):
        second.generate(["train"], 1100, progress=False)
    with pytest.raises(RunConflictError, match="another division"):
        second.generate(["train"], 1100, progress=False, shard=(1, 2))
    _, err = first.communicate(timeout=240)
    assert first.returncode == 0, err
    assert tree_files(tmp_path / "out") == tree_files(few)


@pytest.mark.parametrize("cut", [0.5, *(pytest.param(cut, marks=pytest.mark.slow) for cut in (0.0, 0.98))])
def test_a_cut_split_metadata_is_named(corpus: Path, few: Path, copy_of_few: Path, tmp_path: Path, cut: float) -> None:
    file = copy_of_few / "train" / "metadata.json"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * cut)])
    made = generator(corpus, copy_of_few)
    with pytest.raises(DatasetError, match=r"train/metadata\.json"):
        made.generate(["train"], 1100, progress=False)
    assert made.generate(["train"], 1100, progress=False, overwrite=True)["train"].complete
    assert tree_files(copy_of_few) == tree_files(few)


@pytest.mark.parametrize("cut", [0.5, 0.0])
def test_a_cut_overall_metadata_is_named(corpus: Path, copy_of_few: Path, cut: float) -> None:
    file = copy_of_few / "generation_metadata.json"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(OutputError, match=r"generation_metadata\.json is damaged .*--overwrite"):
        generator(corpus, copy_of_few).generate(["train"], 1100, progress=False)


@pytest.mark.slow
def test_a_cut_overall_metadata_is_overwritten(
    corpus: Path, few: Path, copy_of_few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy_of_few.parent)
    file = copy_of_few / "generation_metadata.json"
    file.write_bytes(file.read_bytes()[:1000])
    assert generator(corpus, Path("out")).generate(["train"], 1100, progress=False, overwrite=True)["train"].complete
    assert tree_files(copy_of_few) == tree_files(few)


@pytest.mark.slow
def test_missing_split_metadata_are_made_again(corpus: Path, few: Path, copy_of_few: Path) -> None:
    (copy_of_few / "train" / "metadata.json").unlink()
    assert generator(corpus, copy_of_few).generate(["train"], 1100, progress=False)["train"].drawn
    assert tree_files(copy_of_few) == tree_files(few)


@pytest.mark.slow
def test_a_cut_fragment_is_drawn_again(
    corpus: Path, few: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed_at("before the overall metadata", corpus, tmp_path)
    fragment = tmp_path / "out" / layout.JOURNAL / "train" / "000000.jsonl"
    fragment.write_bytes(fragment.read_bytes()[:5000])
    (tmp_path / "out" / "train" / "images" / "train_000003.png").write_bytes(b"")
    result = generator(corpus, tmp_path / "out").generate(["train"], 1100, progress=False)["train"]
    assert (result.drawn, result.complete) == (layout.CHUNK, True)
    assert "1 chunks of train that an earlier start had drawn are damaged since (000000.jsonl" in caplog.text
    assert tree_files(tmp_path / "out") == tree_files(few)


def test_a_damaged_journal_is_named(corpus: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out" / layout.JOURNAL).mkdir(parents=True)
    (tmp_path / "out" / layout.JOURNAL / "run.json").write_text('{"seed": 4')
    monkeypatch.chdir(tmp_path)
    made = generator(corpus, Path("out"))
    with pytest.raises(OutputError, match=r"run\.json is damaged.*--overwrite"):
        made.generate(["train"], 1100, progress=False)
    made.generate(["train"], 1100, progress=False, overwrite=True)
    assert tree_files(tmp_path / "out") == tree_files(few)

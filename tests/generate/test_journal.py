"""Fragments, the run's configuration, and who may write when."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.metadata_writer import write_overall
from khmer_ocr.errors import OutputError, RunConflictError
from khmer_ocr.generate.journal import Journal, by_split, complete_splits, read_overall
from khmer_ocr.io import locks
from khmer_ocr.io.run_record import differences
from tests.generate.generating import names

SUMMARY = {"samples": 2, "bytes": 10, "fonts": {"A": 2}}
LINES = ['{"text": "ក"}'.encode(), '{"text": "ខ"}'.encode()]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "out")
    made.fragment("train", 0).parent.mkdir(parents=True)
    return made


def test_fragments_come_back_in_order(journal: Journal) -> None:
    for chunk in (2, 0, 1, 10):
        journal.commit("train", chunk, {**SUMMARY, "bytes": chunk}, [b'{"n": %d}' % chunk, *LINES])
    assert journal.committed("train") == {0, 1, 2, 10}
    assert journal.is_committed("train", 10) and not journal.is_committed("train", 3)
    assert [journal.summary("train", chunk)["bytes"] for chunk in range(3)] == [0, 1, 2]
    assert list(journal.sample_lines("train", 2)) == [b'{"n": 0}', *LINES, b'{"n": 1}', *LINES]
    assert journal.committed("val") == set()
    journal.forget("train", {1, 7})
    assert journal.committed("train") == {0, 2, 10}
    journal.forget("train")
    assert journal.committed("train") == set()


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data.replace("ក".encode(), "គ".encode()),
        lambda data: data.replace(b"hash", b"hush"),
        lambda data: data.replace(b'"samples": 2', b'"samples": 3'),
        lambda data: data.replace(b'"bytes": ', b'"bytes": 1'),
        lambda data: b"[1]" + data[data.index(b"\n") :],
        lambda data: b"\xff\xfe" * 40,
    ],
)
def test_damaged_fragments_are_found(journal: Journal, harm: Callable[[bytes], bytes]) -> None:
    for chunk in range(3):
        journal.commit("train", chunk, SUMMARY, LINES)
    assert journal.damaged("train", range(3)) == set()
    file = journal.fragment("train", 1)
    file.write_bytes(harm(file.read_bytes()))
    assert journal.damaged("train", range(3)) == {1}


def test_partial_fragments_are_not_fragments(journal: Journal) -> None:
    (journal.folder / "train" / ".000003.jsonl.abc.partial").write_bytes(b"{}")
    assert journal.committed("train") == set()


def test_plan_is_kept(journal: Journal) -> None:
    reasons = np.array([0, 3, 0, 1], np.uint8)
    assert journal.read_plan("val", 4) is None
    journal.write_plan("val", reasons)
    known = journal.read_plan("val", 4)
    assert known is not None
    np.testing.assert_array_equal(known, reasons)
    assert journal.read_plan("val", 5) is None


@pytest.mark.parametrize("at", range(12))
def test_a_plan_with_a_flipped_byte_is_no_plan(journal: Journal, at: int, caplog: pytest.LogCaptureFixture) -> None:
    journal.write_plan("val", np.array([0, 3, 0, 1], np.uint8))
    file = journal.folder / "val" / "plan.bin"
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    assert journal.read_plan("val", 4) is None
    assert "plan.bin is damaged; lines are planned again" in caplog.text and len(caplog.records) == 1


def test_a_plan_of_0_1_0_is_made_again(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    journal.write_plan("val", np.zeros(4, np.uint8))
    (journal.folder / "val" / "plan.bin").write_bytes(bytes(4))
    assert journal.read_plan("val", 4) is None and "of version 0.1.0" in caplog.text


def test_fragments_of_0_1_0_are_whole_and_checked(journal: Journal) -> None:
    body = b"\n".join(LINES)
    file = journal.fragment("train", 0)
    file.parent.mkdir(parents=True, exist_ok=True)
    for samples, damaged in ((len(LINES), set()), (len(LINES) + 1, {0})):
        head = {**SUMMARY, "samples": samples, "hash": xxhash.xxh3_64_hexdigest(body)}
        file.write_bytes(json.dumps(head).encode() + b"\n" + body)
        assert journal.damaged("train", [0]) == damaged


RUN = {"seed": 42, "name": "ខ្មែរ", "format": "files", "recipe": "none", "splits": {"train": {"lines": 7}}}


def test_a_damaged_run_file_is_read_from_its_copy(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    journal.begin({"train": RUN})
    file = journal.folder / "train/run.json"
    data = file.read_bytes()
    for harm in (data.replace(b"42", b"43"), data[:20], data.replace(b'"checksum": "', b'"checksum": "0'), b""):
        file.write_bytes(harm)
        caplog.clear()
        assert journal.under_way() == {"train": RUN}
        assert "run.json is damaged; its copy is taken" in caplog.text
    (journal.folder / "train/run.copy.json").write_bytes(data.replace(b"42", b"43"))
    with pytest.raises(OutputError, match=r"run\.copy\.json is damaged .*checksum.*--overwrite"):
        journal.under_way()


def test_each_split_has_a_record_of_its_own(journal: Journal) -> None:
    runs = by_split({**RUN, "splits": {"val": {"lines": 1}, "train": {"lines": 2}, "../..": {"lines": 3}}})
    assert list(runs) == ["train", "val"] and runs["val"] == {**RUN, "splits": {"val": {"lines": 1}}}
    journal.begin(runs)
    assert journal.under_way() == runs
    journal.forget("train")
    assert journal.under_way().keys() == {"val"}
    nothings: tuple[Any, ...] = (None, 3, [], {}, {"splits": 3}, {"splits": []})
    for nothing in nothings:
        assert by_split(nothing) == {}


@pytest.mark.parametrize("checksum", [True, False])
def test_one_record_for_all_splits_is_read_and_replaced(journal: Journal, checksum: bool) -> None:
    """As earlier commits wrote it; the first ones without a checksum."""
    old: dict[str, Any] = {**RUN, "splits": {"train": {"lines": 2}, "val": {"lines": 1}}}
    if checksum:
        old["checksum"] = xxhash.xxh3_64_digest(json.dumps(old, ensure_ascii=False).encode()).hex()
    for name in ("run.json", "run.copy.json"):
        (journal.folder / name).write_text(json.dumps(old, indent=1))
    with journal.locked(0, 1):
        assert journal.under_way() == {
            name: {**RUN, "splits": {name: old["splits"][name]}} for name in ("train", "val")
        }
    with journal.locked(0, 1):
        journal.begin(journal.under_way())
    assert not list(journal.folder.glob("*.json")) and journal.under_way().keys() == {"train", "val"}


@pytest.mark.parametrize("place", ["", "val"])
@pytest.mark.parametrize("content", ['{"seed": 1, "spl', "", "[1, 2]", "\x00\x01", "[" * 100_000])
def test_damaged_run_file_is_named(journal: Journal, content: str, place: str) -> None:
    (journal.folder / place).mkdir(exist_ok=True)
    (journal.folder / place / "run.json").write_text(content)
    with pytest.raises(OutputError, match=r"run\.json is damaged.*--overwrite"):
        journal.under_way()


@pytest.mark.parametrize("splits", ["[]", "null", '{"train": 3}', '{"train": {"total_samples": "many"}}'])
def test_overall_metadata_of_another_shape_are_damaged(journal: Journal, splits: str) -> None:
    (journal.root / layout.GENERATION_METADATA).write_text(f'{{"splits": {splits}}}')
    with pytest.raises(OutputError, match=r"generation_metadata\.json is damaged"):
        read_overall(journal.root)


def test_differences_name_what_differs() -> None:
    old = {"seed": 1, "render": {"image_height": 32, "crop": "line"}, "fonts": {"A": "x" * 90, "B": "2"}}
    new = {"seed": 2, "render": {"image_height": 48, "crop": "line"}, "fonts": {"A": "y" * 90, "C": "3"}}
    lines = differences(old, new)
    assert "seed: 1 -> 2" in lines and "render.image_height: 32 -> 48" in lines
    assert 'fonts.B: "2" -> (none)' in lines and 'fonts.C: (none) -> "3"' in lines
    assert all(len(line) < 150 for line in lines) and len(lines) == 5
    assert differences(old, json.loads(json.dumps(old))) == []


def test_a_split_is_complete_only_with_its_metadata(journal: Journal) -> None:
    journal.commit("train", 0, SUMMARY, LINES)
    settings = {"output_dir": "out", "image_height": 32}
    (journal.root / "train").mkdir()
    journal.finalise("train", 1, {"empty": 1}, RUN, settings)
    assert complete_splits(journal.root)["train"]["total_samples"] == 2
    metadata = json.loads((journal.root / "train" / "metadata.json").read_bytes())
    assert metadata["samples"] == [json.loads(line) for line in LINES]
    assert names(journal.root / "train") == ["metadata.json"]
    (journal.root / "train" / "metadata.json").unlink()
    assert complete_splits(journal.root) == {}


def test_overall_metadata_stand_in_the_order_of_the_splits(tmp_path: Path) -> None:
    facts = {"total_samples": 3}
    run = {"splits": {"val": 1, "test": 2, "train": 3}}
    write_overall(tmp_path, {"x": 1, "run": run}, {"test": facts, "train": facts})
    content = read_overall(tmp_path)
    assert list(content["splits"]) == ["train", "test"] and content["total_images"] == 6 and content["x"] == 1
    assert list(content["run"]["splits"].items()) == [("train", 3), ("test", 2)]


def test_a_split_that_cannot_be_finalised_leaves_no_partial(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.commit("train", 0, SUMMARY, LINES)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layout, "split_metadata", full)
    (journal.root / "train").mkdir()
    with pytest.raises(OSError, match="No space"):
        journal.finalise("train", 1, {}, RUN, {"image_height": 32})
    assert names(journal.root / "train") == [] and journal.committed("train") == {0}


def test_second_writer_is_refused_and_told(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    with first.locked(0, 1):
        with (
            pytest.raises(RunConflictError, match=r"Another process is writing to .* \(shard 0 of 1\)"),
            second.locked(0, 1),
        ):
            pass
        with pytest.raises(RunConflictError, match="another division"), second.locked(1, 2):
            pass
    with second.locked(1, 2), first.locked(0, 2):
        pass
    assert names(tmp_path) == [], "a journal without a run was left behind"


HOLDER = """
import sys, time
from pathlib import Path
from khmer_ocr.generate.journal import Journal
with Journal(Path(sys.argv[1])).locked(0, 1):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(RunConflictError), Journal(tmp_path).locked(0, 1):
            pass
        holder.kill()
        holder.wait()
    with Journal(tmp_path).locked(0, 1):
        assert (tmp_path / layout.JOURNAL).is_dir()
    assert names(tmp_path) == []


def test_the_journal_goes_with_the_last_who_leaves(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    with first.locked(0, 2):
        first.begin({"train": RUN})
        with second.locked(1, 2):
            second.forget("train")
        assert first.folder.is_dir(), "taken from under the feet of another shard"
    assert names(tmp_path) == []


def test_an_unfinished_run_keeps_its_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with journal.locked(0, 1):
        journal.begin({"train": RUN})
    assert journal.under_way() == {"train": RUN}


def test_a_lock_is_on_the_file_that_has_the_name(tmp_path: Path) -> None:
    file = tmp_path / "a" / "x.lock"
    first = locks.take(file, wait=True)
    with pytest.raises(BlockingIOError):
        locks.take(file, wait=False)
    file.unlink()
    second = locks.take(file, wait=False)
    assert list(locks.held_by_others([file])) == [file]
    locks.let_go(second)
    assert list(locks.held_by_others([file])) == []
    locks.let_go(first)


def test_a_file_or_a_dangling_link_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "else")
    for place in ("file", "link", "file/below"):
        with pytest.raises(OSError, match=r"exists|Not a directory"):
            locks.take(tmp_path / place / "x.lock", wait=True)


def test_many_come_and_go_and_only_one_is_in(tmp_path: Path) -> None:
    count, errors = [0], list[BaseException]()

    def work() -> None:
        try:
            done = 0
            while done < 25:
                journal = Journal(tmp_path / "out")
                try:
                    with journal.locked(0, 1):
                        journal.begin({"train": RUN})
                        before = count[0]
                        time.sleep(0.0005)
                        count[0] = before + 1
                        journal.forget("train")
                        done += 1
                except RunConflictError:
                    time.sleep(0.0005)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and count[0] == 100
    assert names(tmp_path / "out") == []


def test_locks_leave_no_descriptors(tmp_path: Path) -> None:
    before = len(names(Path("/proc/self/fd")))
    for _ in range(3):
        with Journal(tmp_path).locked(0, 1), pytest.raises(RunConflictError), Journal(tmp_path).locked(0, 1):
            pass
    assert len(names(Path("/proc/self/fd"))) == before


FINISH = """
import json, sys
from pathlib import Path
from khmer_ocr.generate.journal import Journal
def peak_kb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak_kb()
journal, chunks = Journal(Path(sys.argv[1])), int(sys.argv[2])
assert journal.damaged("train", range(chunks)) == set()
run = {"format": "files", "recipe": "none", "splits": {"train": {}}}
journal.finalise("train", chunks, {}, run, {"image_height": 32, "output_dir": "out"})
print(json.dumps([before, peak_kb()]))
"""


@pytest.mark.slow
def test_metadata_of_many_samples_stream(journal: Journal) -> None:
    (journal.root / "train").mkdir()
    chunks, text = 293, "ខ្ញុំស្រឡាញ់ភាសាខ្មែរណាស់បាទ" * 2
    for chunk in range(chunks):
        stems = [layout.stem("train", chunk * layout.CHUNK + n) for n in range(layout.CHUNK)]
        rows = [
            json.dumps({"filename": stem, "text": text, "font": "A", "image_width": 99}, ensure_ascii=False)
            for stem in stems
        ]
        journal.commit(
            "train", chunk, {"samples": layout.CHUNK, "bytes": 1, "fonts": {"A": 1}}, [r.encode() for r in rows]
        )
    command = [sys.executable, "-c", FINISH, str(journal.root), str(chunks)]
    before_kb, after_kb = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    size = (journal.root / "train" / "metadata.json").stat().st_size
    assert size > 60e6
    assert after_kb - before_kb < 16_000, f"{size} bytes of metadata took {after_kb - before_kb} kB"
    with (journal.root / "train" / "metadata.json").open("rb") as stream:
        assert sum(line.startswith(b'{"filename"') for line in stream) == chunks * layout.CHUNK
    assert not (journal.folder / "train").exists()


@pytest.mark.parametrize("name", ["plan.bin", "000000.jsonl"])
def test_links_and_pipes_of_a_journal_are_not_read(journal: Journal, tmp_path: Path, name: str) -> None:
    journal.write_plan("train", np.zeros(1, np.uint8))
    journal.commit("train", 0, {"samples": 1, "bytes": 1, "fonts": {}}, [b"{}"])
    place = journal.folder / "train" / name

    def read() -> object:
        return journal.read_plan("train", 1) if name == "plan.bin" else journal.damaged("train", [0])

    assert read() is not None
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="symbolic link"):
        read()
    place.unlink()
    os.mkfifo(place)
    assert read() in (None, {0})

import hashlib
import json
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr.corpus.dedup import HashTable, significant
from khmer_ocr.corpus.filter import is_khmer, near_copy_key, split_of
from khmer_ocr.corpus.line_breaking import cut
from khmer_ocr.corpus.pipeline import CorpusReport, process_corpus
from khmer_ocr.corpus.settings import CorpusConfig
from khmer_ocr.corpus.split_writer import LOCK, SplitReport, sole_run
from khmer_ocr.corpus.synthesis.syllable_lines import synthesize_lines
from khmer_ocr.dataset.layout import SPLITS
from khmer_ocr.errors import ConfigError, CorpusError, OutputError, RunConflictError
from khmer_ocr.samples import sample_lines, sample_text
from khmer_ocr.text.normalize import NORMALIZER_VERSION, normalize
from khmer_ocr.text.syllables import is_well_formed
from khmer_ocr.text.syllables import split as syllables
from tests import SHARED
from tests.snapshots import everything as names_and_bytes

FOLDER = SHARED / "corpus"
needs_shared = pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/corpus is not here")
FILES = (*(f"{split}.txt" for split in SPLITS), "corpus_stats.json")
LETTERS = "កខគឃងចឆជឈញដឋឌឍណតថទធនបផពភមយរលវសហឡអ"


def run(out: Path, *inputs: Path, **settings: object) -> CorpusReport:
    return process_corpus(CorpusConfig(input=inputs, output_dir=out, **settings), progress=False)  # type: ignore[arg-type]


def written(out: Path, split: str) -> list[str]:
    return (out / f"{split}.txt").read_text(encoding="utf-8").splitlines()


def everything(out: Path) -> list[str]:
    return [line for split in SPLITS for line in written(out, split)]


def stats(out: Path) -> dict[str, Any]:
    return json.loads((out / "corpus_stats.json").read_text(encoding="utf-8"))


def snapshot(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def word(number: int) -> str:
    """Spell a number in consonants, so that no two words are near-copies."""
    digits = ""
    for _ in range(4):
        number, digit = divmod(number, len(LETTERS))
        digits += LETTERS[digit]
    return digits


def documents(count: int, lines: int) -> list[list[str]]:
    return [[f"{word(i * lines + j)} លេខ {i}.{j}" for j in range(lines)] for i in range(count)]


def write(path: Path, *blocks: list[str]) -> Path:
    path.write_text("\n\n".join("\n".join(block) for block in blocks) + "\n", encoding="utf-8")
    return path


def test_documents_go_whole_to_one_split_in_the_order_of_reading(tmp_path: Path) -> None:
    blocks = documents(400, 5)
    report = run(tmp_path / "out", write(tmp_path / "a.txt", *blocks))
    home = {line: split for split in SPLITS for line in written(tmp_path / "out", split)}
    assert all(len({home[line] for line in block}) == 1 for block in blocks)
    for split in SPLITS:
        assert written(tmp_path / "out", split) == [line for block in blocks for line in block if home[line] == split]
    shares = [report.splits[split].lines / report.lines for split in SPLITS]
    assert np.allclose(shares, [0.8, 0.1, 0.1], atol=0.05)
    assert (report.split_by, report.moved_near_copies, report.warnings) == ("document", 0, ())


def test_the_split_depends_on_the_document_and_the_seed_alone() -> None:
    homes = {seed: [split_of(word(i), seed) for i in range(2000)] for seed in (1, 2)}
    assert homes[1] == [split_of(word(i), 1) for i in range(2000)]
    assert homes[1] != homes[2]
    assert np.allclose([homes[1].count(split) / 2000 for split in SPLITS], [0.8, 0.1, 0.1], atol=0.03)


def test_near_copies_follow_the_first_one(tmp_path: Path) -> None:
    blocks = [[f"{word(i)} តែមួយ", f"ត្រីមាស ទី {i}!"] for i in range(200)]
    report = run(tmp_path / "out", write(tmp_path / "a.txt", *blocks))
    holding = [split for split in SPLITS if any("ត្រីមាស" in line for line in written(tmp_path / "out", split))]
    assert len(holding) == 1
    assert report.lines == 400
    strangers = sum(report.splits[split].lines for split in SPLITS if split != holding[0])
    assert report.moved_near_copies == strangers > 20


@pytest.mark.parametrize(
    ("one", "other"),
    [("ខែ ៣ ឆ្នាំ 2020។", "ខែ ១២ ឆ្នាំ​1999"), ("USB ថ្មី!", "usb ថ្មី"), ("«ក» (ខ)", "ក–ខ"), ("១២ ៛", "១២ ៛")],
)
def test_near_copies_share_a_key(one: str, other: str) -> None:
    assert near_copy_key(normalize(one)) == near_copy_key(normalize(other))


@pytest.mark.parametrize(("one", "other"), [("កា", "កិ"), ("ការ", "កា"), ("ធំៗ", "ធំ"), ("១២", "១៣"), ("្ក", "ក")])
def test_different_words_do_not(one: str, other: str) -> None:
    assert near_copy_key(one) != near_copy_key(other)


def test_a_corpus_of_one_document_is_divided_by_line(tmp_path: Path) -> None:
    lines = [word(i) for i in range(150)]
    report = run(tmp_path / "out", write(tmp_path / "a.txt", lines))
    assert report.split_by == "line"
    assert all(report.splits[split].lines > 5 for split in SPLITS)
    assert sorted(everything(tmp_path / "out")) == sorted(lines)
    small = run(tmp_path / "small", write(tmp_path / "b.txt", lines[:1]))
    assert small.lines == 1
    assert len(small.warnings) == 2
    assert "Add text" in small.warnings[0]


def test_everything_dropped_is_counted_by_reason(tmp_path: Path) -> None:
    khmer = ["ផ្ទះ", "ផ្\u200bទះ", "ផ្ទះ\u200b ", "Facebook 2024", "ាក", "\u200b\u200b", "ក", "ខ\ufffdគ", "ក" + "្រ" * 12]
    (tmp_path / "a.txt").write_text("\n".join(khmer) + "\n\nThis is\nEnglish ក\n\n123\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": null}\n{"text": "រៀនសូត្រ"}\n', encoding="utf-8")
    report = run(tmp_path / "out", tmp_path / "a.txt", tmp_path / "b.jsonl", min_chars=2, max_chars=20)
    assert sorted(everything(tmp_path / "out")) == ["Facebook 2024", "ផ្ទះ", "រៀនសូត្រ"]
    assert report.dropped == {
        "broken_syllable": 1,
        "syllable_too_long": 1,
        "duplicate": 2,
        "without_ink": 1,
        "too_short": 1,
        "damaged_character": 1,
        "in_document_not_khmer": 3,
        "record_without_text": 1,
    }
    assert report.documents == {"read": 4, "kept": 2, "not_khmer": 2}


def bilingual(count: int) -> list[str]:
    return [f"{word(i)}\nAnd its translation is many letters longer, number {i}" for i in range(count)]


@pytest.mark.parametrize("between", ["\n", "\n\n"])
def test_khmer_lines_that_stand_with_foreign_ones_are_kept(between: str, tmp_path: Path) -> None:
    """Line by line without blank lines, which is judged in blocks of 200 lines, and in pairs between blank lines."""
    (tmp_path / "a.txt").write_text(between.join(bilingual(200)), encoding="utf-8")
    report = run(tmp_path / "out", tmp_path / "a.txt")
    assert sorted(everything(tmp_path / "out")) == sorted(word(i) for i in range(200))
    assert report.dropped == {"line_not_khmer": 200}
    assert report.documents["kept_in_part"] == report.documents["read"]
    assert "documents kept in part" in str(report)


def test_khmer_lines_within_a_record_of_two_languages_are_kept(tmp_path: Path) -> None:
    records = [json.dumps({"text": "\n".join(bilingual(9))}), json.dumps({"text": "wholly foreign\ntwo lines"})]
    (tmp_path / "a.jsonl").write_text("\n".join(records), encoding="utf-8")
    report = run(tmp_path / "out", tmp_path / "a.jsonl")
    assert sorted(everything(tmp_path / "out")) == sorted(word(i) for i in range(9))
    assert report.dropped == {"line_not_khmer": 9, "in_document_not_khmer": 2}
    assert report.documents == {"read": 2, "kept_in_part": 1, "not_khmer": 1}


def test_a_half_of_a_surrogate_pair_that_json_escapes_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "ក\\ud800ខ"}\n{"text": "រៀនសូត្រ"}\n', encoding="utf-8")
    report = run(tmp_path / "out", tmp_path / "a.jsonl")
    assert sorted(everything(tmp_path / "out")) == ["កខ", "រៀនសូត្រ"] and not report.dropped


def test_duplicates_are_found_after_normalisation_and_across_batches(tmp_path: Path) -> None:
    lines = [word(i) for i in range(10_000)]
    near_copies = [line[:2] + "\u200b" + line[2:] for line in lines]
    report = run(tmp_path / "out", write(tmp_path / "a.txt", lines), write(tmp_path / "b.txt", near_copies))
    assert report.dropped == {"duplicate": 10_000}
    assert sorted(everything(tmp_path / "out")) == sorted(lines)


def test_statistics_tell_what_was_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = write(tmp_path / "a.txt", *documents(60, 3), ["ក" * 5])
    report = run(out, source, seed=7)
    found = stats(out)
    assert set(snapshot(out)) == set(FILES)
    for split in SPLITS:
        data = (out / f"{split}.txt").read_bytes()
        assert found["splits"][split] == {
            "lines": len(written(out, split)),
            "chars": sum(map(len, written(out, split))),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    lines = everything(out)
    assert found["length_histogram"] == {str(k): v for k, v in sorted(Counter(map(len, lines)).items())}
    characters = Counter("".join(lines))
    assert found["characters"] == {f"U+{ord(char):04X} {char}": count for char, count in characters.items()}
    counts = list(found["characters"].values())
    assert counts == sorted(counts, reverse=True)
    assert found["normalizer_version"] == NORMALIZER_VERSION
    assert found["inputs"] == [{"name": "a.txt", "size_bytes": source.stat().st_size}]
    assert found["config"] == {
        "min_chars": 1,
        "max_chars": 90,
        "seed": 7,
        "sample": False,
        "synthesize": 0,
        "recombine": 0,
    }
    assert found["documents"] == dict(report.documents) == {"kept": 61, "read": 61}


def test_the_same_bytes_come_out_of_every_run_and_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = documents(50, 4)
    source = write(tmp_path / "a.txt", *blocks)
    run(tmp_path / "one", source, sample=True)
    process_corpus(CorpusConfig(input=(source,), output_dir=tmp_path / "two", sample=True), progress=True)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    assert "lines/s" in capsys.readouterr().err
    records = tmp_path / "a.jsonl"
    records.write_text("".join(json.dumps({"text": "\n".join(block)}) + "\n" for block in blocks), encoding="utf-8")
    run(tmp_path / "three", records, sample=True)
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes() for name in FILES[:3])
    run(tmp_path / "four", source, sample=True, seed=43)
    assert (tmp_path / "one" / "val.txt").read_bytes() != (tmp_path / "four" / "val.txt").read_bytes()


def test_the_sample_fills_every_split(tmp_path: Path) -> None:
    report = run(tmp_path / "out", sample=True)
    assert sorted(everything(tmp_path / "out")) == sorted(sample_lines())
    assert report.split_by == "document"
    assert min(report.splits[split].lines for split in SPLITS) >= 20
    assert report.dropped == {}


def test_synthesised_lines_are_divided_and_their_coverage_told(tmp_path: Path) -> None:
    report = run(tmp_path / "out", synthesize=3000, max_chars=40)
    lines = everything(tmp_path / "out")
    assert 2000 < len(lines) == report.lines
    assert max(map(len, lines)) <= 40
    assert all(report.splits[split].lines > 100 for split in SPLITS)
    told = stats(tmp_path / "out")["synthesized"]
    assert told["lines"] == 3000
    assert set(told["shares"].values()) == {1.0}


def near_keys(out: Path) -> dict[str, set[str]]:
    return {split: {near_copy_key(line) for line in written(out, split)} for split in SPLITS}


def assert_no_leaks_and_a_second_run_drops_nothing(tmp_path: Path, source: Path) -> CorpusReport:
    report = run(tmp_path / "one", source)
    lines = everything(tmp_path / "one")
    assert len(lines) == len(set(lines)) == report.lines
    assert all(normalize(line) == line and is_well_formed(line) and 1 <= len(line) <= 90 for line in lines)
    keys = near_keys(tmp_path / "one")
    assert not keys["train"] & keys["val"]
    assert not keys["train"] & keys["test"]
    assert not keys["val"] & keys["test"]
    shares = [report.splits[split].lines / report.lines for split in SPLITS]
    assert np.allclose(shares, [0.8, 0.1, 0.1], atol=0.07)
    again = run(tmp_path / "two", *(tmp_path / "one" / name for name in FILES[:3]))
    assert again.dropped == {}
    assert sorted(everything(tmp_path / "two")) == sorted(lines)
    return report


def test_text_splits_without_leaks_and_a_second_run_drops_nothing(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "sample.txt").write_text(sample_text(), encoding="utf-8")
    (texts / "synthetic.txt").write_text("\n\n".join(synthesize_lines(3000, seed=4)), encoding="utf-8")
    assert assert_no_leaks_and_a_second_run_drops_nothing(tmp_path, texts).lines > 3000


@pytest.mark.slow
@needs_shared
def test_real_text_splits_without_leaks_and_a_second_run_drops_nothing(tmp_path: Path) -> None:
    report = assert_no_leaks_and_a_second_run_drops_nothing(tmp_path, FOLDER)
    assert report.lines > 50_000
    assert report.warnings == ("Passed over for their unknown format: 1 file(s) in the input folders (SOURCES.md).",)


def test_real_text_in_short_lines_loses_no_syllable() -> None:
    source = FOLDER / "lo_help.txt"
    raw = source.read_text(encoding="utf-8").splitlines()[:3000] if source.exists() else sample_lines()
    for line in raw:
        if not is_well_formed(normalize(line)):
            continue
        pieces = cut(line, 20)
        assert "".join(pieces).replace(" ", "") == normalize(line).replace(" ", "")
        assert all(normalize(piece) == piece and is_well_formed(piece) for piece in pieces)


def test_long_text_is_cut_at_sentence_ends_then_gaps_then_syllables() -> None:
    assert cut("ខ្ញុំ​ទៅ​ផ្សារ។ អ្នក​ណា​មក? ឪពុក​មក!", 30) == ["ខ្ញុំទៅផ្សារ។ អ្នកណាមក?", "ឪពុកមក!"]
    assert cut("ខ្ញុំ​ទៅ​ផ្សារ​ទិញ​ត្រី", 14) == ["ខ្ញុំទៅផ្សារ", "ទិញត្រី"]
    assert cut("ត្រី បន្លែ ។ល។ ទៀត", 15) == ["ត្រី បន្លែ ។ល។", "ទៀត"]
    assert cut("មើល http://a.kh/?x=1 ទៀត។ ចប់", 25) == ["មើល http://a.kh/?x=1 ទៀត។", "ចប់"]
    assert cut("ស្ត្រីស្ត្រីស្ត្រី", 7) == ["ស្ត្រី"] * 3
    assert cut("ចាស់​ៗ​ធំ ។", 6) == ["ចាស់ៗ", "ធំ ។"]
    assert cut("ក \u200b ខ", 90) == ["ក ខ"]
    assert cut("\u200b", 90) == [""]
    assert cut("ពាក្យ​«​ខ្មែរ​»​ល្អ", 8) == ["ពាក្យ", "«ខ្មែរ»", "ល្អ"]


SYLLABLES = ["ក", "ស្ត្រី", "ខ្ញុំ", "ទៅ", "ណាស់", "ឱ", "ប៉ា", "12", "km", "ៗ", "។", "?", "«", "»", "(", ")", ",", "៛"]


@given(
    st.lists(
        st.tuples(st.sampled_from(SYLLABLES), st.sampled_from(["", "", "\u200b", " ", "\u200b \u200b"])), max_size=60
    ),
    st.integers(7, 40),
)
def test_cutting_keeps_all_ink_and_whole_syllables(parts: list[tuple[str, str]], max_chars: int) -> None:
    raw = "".join(map("".join, parts))
    lines = cut(raw, max_chars)
    assert "".join(lines).replace(" ", "") == normalize(raw).replace(" ", "")
    assert all(len(line) <= max_chars and normalize(line) == line for line in lines)
    assert [s for line in lines for s in syllables(line) if s.strip()] == [
        s for s in syllables(normalize(raw)) if s.strip()
    ]


@given(st.lists(st.integers(0, 500), max_size=300), st.integers(1, 50))
def test_the_hash_table_equals_a_dict(numbers: list[int], batch: int) -> None:
    table, expected = HashTable(), dict[int, int]()
    # Few distinct low bits make the probes collide.
    hashes = significant(
        np.array(numbers, np.uint64) % np.uint64(97) << np.uint64(2) | np.array(numbers, np.uint64) << np.uint64(30)
    )
    for start in range(0, len(hashes), batch):
        part = hashes[start : start + batch]
        assert table.look_up(part).tolist() == [expected.get(key, -1) for key in part.tolist()]
        fresh = {key: key % 3 for key in part.tolist() if key not in expected}
        table.insert(np.fromiter(fresh, np.uint64, len(fresh)), np.fromiter(fresh.values(), np.int8, len(fresh)))
        expected |= fresh
    assert len(table) == len(expected)


def test_the_table_of_seen_hashes_grows_and_stays_small() -> None:
    table = HashTable()
    keys = np.random.Generator(np.random.Philox(5)).integers(0, 1 << 64, 1_000_000, np.uint64)
    for part in np.array_split(significant(keys), 100):
        table.insert(part, np.ones(len(part), np.int8))
    assert (table.look_up(keys) == 1).all()
    assert (table.look_up(keys ^ np.uint64(1 << 40)) == -1).all()
    assert table.size_bytes / len(table) < 30


@pytest.mark.parametrize(
    ("text", "khmer"),
    [
        ("សួស្តី", True),
        ("ខ្ញុំប្រើ Facebook", True),
        ("", False),
        ("123 $", False),
        ("១២៣ ៛", True),
        ("English words ក", False),
    ],
)
def test_khmer_texts_are_told_by_their_letters(text: str, khmer: bool) -> None:
    assert is_khmer(text) is khmer


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "--input PATH"),
        ({"sample": True, "min_chars": 0}, "min_chars is 0"),
        ({"sample": True, "min_chars": 9, "max_chars": 8}, "below min_chars 9"),
        ({"synthesize": -1}, "synthesize is -1"),
        ({"sample": True, "recombine": -1}, "recombine is -1"),
        ({"synthesize": 9, "recombine": 9}, "give --input"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CorpusConfig(**settings)  # type: ignore[arg-type]


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("Only English here.\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"No Khmer line survived: in_document_not_khmer 1\."):
        run(tmp_path / "out", source)
    source.write_bytes(b"")
    with pytest.raises(CorpusError, match="nothing was there to read"):
        run(tmp_path / "out", source)
    assert list((tmp_path / "out").iterdir()) == []


def test_another_corpus_is_not_replaced_unasked(tmp_path: Path) -> None:
    out, source = tmp_path / "out", write(tmp_path / "a.txt", *documents(40, 3))
    run(out, source)
    first = snapshot(out)
    run(out, source)
    assert snapshot(out) == first
    with pytest.raises(RunConflictError, match=r"config\.seed: 42 -> 5.*--overwrite"):
        run(out, source, seed=5)
    source.write_text(source.read_text(encoding="utf-8").replace(word(1), word(9999)), encoding="utf-8")
    with pytest.raises(RunConflictError, match="same names and sizes but other content"):
        run(out, source)
    write(source, *documents(41, 3))
    with pytest.raises(RunConflictError, match="inputs: "):
        run(out, source)
    assert snapshot(out) == first
    run(out, source, overwrite=True)
    assert snapshot(out) != first
    (out / "corpus_stats.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunConflictError, match="not readable"):
        run(out, source)
    (out / "corpus_stats.json").unlink()
    with pytest.raises(RunConflictError, match=r"but no corpus_stats\.json"):
        run(out, source)


def test_output_and_input_are_kept_apart(tmp_path: Path) -> None:
    source = write(tmp_path / "train.txt", *documents(3, 3))
    with pytest.raises(OutputError, match="lies inside the input folder"):
        run(tmp_path / "deep" / "out", tmp_path)
    with pytest.raises(OutputError, match="would be overwritten"):
        run(tmp_path, source, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="A file stands where a folder is expected"):
        run(tmp_path / "file", source)
    with pytest.raises(OutputError, match="A file stands where a folder is expected"):
        run(tmp_path / "file" / "out", source)


def test_an_output_folder_that_a_link_leads_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "other").mkdir()
    write(tmp_path / "texts/a.txt", *documents(3, 3))
    (tmp_path / "texts/linked").symlink_to(tmp_path / "other")
    with pytest.raises(OutputError, match=r"lies inside the input folder .*texts/linked"):
        run(tmp_path / "other/out", tmp_path / "texts")
    assert not (tmp_path / "other/out").exists()


def test_unreadable_paths_are_left_out_and_told(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", *documents(40, 3))
    long = tmp_path / ("ក" * 120 + ".txt")
    report = run(tmp_path / "out", long, source)
    assert report.unreadable == 1 and report.lines == 120
    assert "Warning: Left out: " in str(report) and "file name too long" in str(report)
    with pytest.raises(CorpusError, match=r"Nothing is left to read\. Left out: "):
        run(tmp_path / "none", long)


def test_two_runs_do_not_write_to_one_folder_at_once(tmp_path: Path) -> None:
    source, out = write(tmp_path / "a.txt", *documents(40, 3)), tmp_path / "out"
    with sole_run(out):
        with pytest.raises(RunConflictError, match=r"Another run writes to .*out at this moment"):
            run(out, source)
        assert [path.name for path in out.iterdir()] == [LOCK]
        run(tmp_path / "other", source)
    run(out, source)
    assert set(snapshot(out)) == set(FILES)


def test_the_lock_of_a_killed_run_is_no_hindrance(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "import os, pathlib; from khmer_ocr.corpus.split_writer import sole_run\n"
    code += f"with sole_run(pathlib.Path({str(out)!r})): os._exit(3)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 3
    assert (out / LOCK).exists()
    run(out, write(tmp_path / "a.txt", *documents(40, 3)))
    assert set(snapshot(out)) == set(FILES)


def test_a_failed_run_takes_its_lock_away(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Only English here.\n", encoding="utf-8")
    with pytest.raises(CorpusError):
        run(tmp_path / "out", tmp_path / "a.txt")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_report_reads_as_a_table() -> None:
    report = CorpusReport(
        output_dir=Path("data/processed"),
        splits={name: SplitReport(lines, 9 * lines, "") for name, lines in zip(SPLITS, (8000, 1500, 500), strict=True)},
        documents={"read": 60, "kept": 57, "not_khmer": 3},
        lines_read=12_345,
        dropped={"too_short": 1, "duplicate": 2344},
        moved_near_copies=7,
        split_by="line",
        warnings=("test.txt is small.",),
        elapsed_s=2.5,
    )
    assert str(report).splitlines() == [
        "Corpus in data/processed",
        "  documents read           60",
        "  documents kept           57",
        "  documents not khmer       3",
        "  lines read           12,345",
        "  lines written        10,000  in 2.5 s, 4,000 lines/s",
        "    train               8,000  80.0 %",
        "    val                 1,500  15.0 %",
        "    test                  500   5.0 %",
        "  near-copies moved         7  to the split of the line they resemble",
        "  dropped               2,345",
        "    duplicate           2,344",
        "    too short               1",
        "Divided line by line: there are too few documents for three splits.",
        "Warning: test.txt is small.",
        "Next: khmer-ocr generate --corpus-dir data/processed",
    ]


def test_lines_read_are_counted_before_anything_is_cut_or_dropped(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", ["ខ្មែរ", "ខ្មែរ", "", "ក" * 200], ["English"])
    report = run(tmp_path / "out", source, synthesize=10)
    assert report.lines_read == 4 + 10


CALL = """
import sys
from pathlib import Path
from khmer_ocr.corpus.pipeline import CorpusConfig, process_corpus
process_corpus(CorpusConfig(input=(Path(sys.argv[1]),), output_dir=Path(sys.argv[2]), overwrite=True), progress=False)
"""


def test_a_full_disk_leaves_nothing_and_gives_advice(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", *documents(2000, 5))

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [sys.executable, "-B", "-c", CALL, str(source), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=no_room)
    assert "OutputError" in done.stderr
    assert "can't be written: No space left on device" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_interrupting_leaves_no_half_files(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", *documents(60_000, 10))
    out = tmp_path / "out"
    run(out, write(tmp_path / "b.txt", *documents(40, 2)))
    before = snapshot(out)
    growing = out / ".train.txt.tmp"
    with subprocess.Popen([sys.executable, "-c", CALL, source, out], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not growing.exists() or growing.stat().st_size < 100_000:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert process.returncode != 0
    assert snapshot(out) == before


MEASURE = """
import sys
from pathlib import Path
from khmer_ocr.corpus.pipeline import CorpusConfig, process_corpus
def peak_kb():
    # Not ru_maxrss: that of a child begins at what its parent had when it forked.
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
def peak(path, out):
    process_corpus(CorpusConfig(input=(Path(path),), output_dir=Path(out)), progress=False)
    return peak_kb() >> 10
print(peak(sys.argv[1], sys.argv[3]), peak(sys.argv[2], sys.argv[4]))
"""


@pytest.mark.slow
def test_memory_stays_bounded_on_100_mb(tmp_path: Path) -> None:
    sizes = []
    for name, count in (("small.txt", 20_000), ("big.txt", 1_400_000)):
        with open(tmp_path / name, "w", encoding="utf-8") as file:
            for i in range(count):
                file.write(f"{word(i)}​{word(i * 7)} {word(i * 13)}​{word(i * 29)} {word(i * 31)} {i}\n")
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[1] > 100_000_000
    paths = [tmp_path / name for name in ("small.txt", "big.txt", "out1", "out2")]
    run_ = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    small_mb, big_mb = map(int, run_.stdout.split())
    # 1.4 million lines leave two hashes each: at most 60 bytes a line, and as much again while the tables grow.
    assert big_mb - small_mb < 130


@pytest.mark.parametrize("name", [*FILES, LOCK, ".train.txt.tmp", ".corpus_stats.json.tmp"])
@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_written_through_a_link_in_the_output_folder(tmp_path: Path, name: str, exists: bool) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    out.mkdir()
    if exists:
        (home / "kept").write_text("mine")
    (out / name).symlink_to(home / "kept")
    before = names_and_bytes(home)
    write_documents(tmp_path / "text.txt")
    if name.endswith(".tmp"):
        run(out, tmp_path / "text.txt")
        assert stats(out)["splits"]
    else:
        for overwrite in (False, True):
            with pytest.raises((OutputError, RunConflictError), match=r"symbolic link|holds"):
                run(out, tmp_path / "text.txt", overwrite=overwrite)
    assert names_and_bytes(home) == before


def test_an_output_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "big_disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big_disk")
    write_documents(tmp_path / "text.txt")
    run(tmp_path / "out", tmp_path / "text.txt")
    assert sorted(snapshot(tmp_path / "big_disk")) == sorted(FILES)


def write_documents(file: Path) -> None:
    file.write_text("\n\n".join(f"{word(n)} {word(n + 7)}" for n in range(0, 3000, 100)), encoding="utf-8")

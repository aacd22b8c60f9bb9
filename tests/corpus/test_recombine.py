import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest

from khmer_ocr.corpus import pipeline
from khmer_ocr.corpus.filter import near_copy_key
from khmer_ocr.corpus.parallel_map import parallel_map
from khmer_ocr.corpus.pipeline import process_corpus
from khmer_ocr.corpus.settings import CorpusConfig
from khmer_ocr.corpus.synthesis import fragments, numbers
from khmer_ocr.corpus.synthesis.random_stream import RandomStream, random_streams
from khmer_ocr.corpus.synthesis.recombine import SHARES, recombine_lines
from khmer_ocr.corpus.synthesis.source_lines import SourceLines, index_source_lines
from khmer_ocr.errors import ConfigError, WorkerError
from khmer_ocr.rng import key
from khmer_ocr.samples import sample_lines
from khmer_ocr.text.charset import Charset
from khmer_ocr.text.normalize import normalize
from khmer_ocr.text.syllables import is_well_formed
from khmer_ocr.text.syllables import split as syllables

COUNT = 4000


@pytest.fixture(scope="module")
def pool() -> SourceLines:
    return index_source_lines(sample_lines())


@pytest.fixture(scope="module")
def lines(pool: SourceLines) -> list[str]:
    return flat(recombine_lines(pool, COUNT, seed=3))


def flat(blocks: Iterator[list[str]]) -> list[str]:
    return [line for block in blocks for line in block]


def some_dice(count: int) -> Iterator[RandomStream]:
    return random_streams(key(1, "text", "test"), range(count), 8)


def test_every_line_is_in_normal_form_well_formed_and_of_the_length_asked_for(
    lines: list[str], pool: SourceLines
) -> None:
    narrow = flat(recombine_lines(pool, 1500, seed=3, min_chars=12, max_chars=30))
    assert (len(lines), len(narrow)) == (COUNT, 1500)
    for line in (*lines, *narrow):
        assert line == normalize(line)
        assert is_well_formed(line)
    assert {1 <= len(line) <= 90 for line in lines} == {12 <= len(line) <= 30 for line in narrow} == {True}


def test_line_i_depends_on_nothing_but_seed_number_and_pool(lines: list[str], pool: SourceLines) -> None:
    assert flat(recombine_lines(pool, 1500, seed=3)) == lines[:1500]
    assert flat(recombine_lines(pool, 100, seed=4)) != lines[:100]


def test_all_lengths_are_about_equally_common(lines: list[str]) -> None:
    tens = Counter((len(line) - 1) // 10 for line in lines)
    assert min(tens[n] for n in range(9)) > 0.5 * COUNT / 9
    assert len({len(line) for line in lines}) == 90


def test_most_lines_are_seen_once_and_what_is_seldom_in_print_is_not(lines: list[str]) -> None:
    assert len(set(lines)) > 0.85 * COUNT
    seen = Counter("".join(lines))
    for character in "ឦឩឝឰឳ៑៕៙៚ៜឮឭឫឱឲ៉៊០១២៣៤៥៦៧៨៩0123456789$€៛%@«»“”()[]/–…":
        assert seen[character] >= COUNT / 800, f"{character} {seen[character]}"
    assert not set(seen) - set("".join(sample_lines())) - set(Charset.default().characters)


def test_shares_are_of_a_hundred() -> None:
    assert sum(SHARES.values()) == 100


def test_pieces_are_cut_between_syllables_and_not_in_numbers_or_latin_words() -> None:
    line = "ទំព័រ 125 ក្នុង LibreOffice (បើក) ។"
    (cuts,) = index_source_lines([line]).cuts
    ends = {0}
    for syllable in syllables(line):
        ends.add(max(ends) + len(syllable))
    assert set(cuts) <= ends
    pieces = {line[a:b] for a in cuts for b in cuts if a < b}
    assert {"125 ", "ទំព័រ ", "LibreOffice ", "(បើក) ។"} <= pieces
    assert not {"12", "25 ", "Libre", "("} & pieces
    assert not any(piece[0] in ")។" for piece in pieces)


def test_a_refused_line_is_drawn_anew(pool: SourceLines, lines: list[str]) -> None:
    banned = set(lines[:200:2])

    def refuse(asked: Sequence[str]) -> list[bool]:
        return [line in banned for line in asked]

    others = flat(recombine_lines(pool, 200, seed=3, refuse=refuse))
    assert not banned & set(others)
    assert [b for a, b in zip(lines, others, strict=False) if a not in banned] == [
        line for line in lines[:200] if line not in banned
    ]


def test_where_everything_is_refused_a_line_of_the_pool_stands(pool: SourceLines) -> None:
    assert set(flat(recombine_lines(pool, 50, seed=1, refuse=lambda asked: [True] * len(asked)))) <= set(pool.lines)


@pytest.mark.parametrize("line", ["ក", "a", "១", "។", "ស្ត្រី"])
def test_the_smallest_pool_will_do(line: str) -> None:
    made = flat(recombine_lines(index_source_lines([line]), 600, seed=1))
    assert len(made) == 600
    assert all(1 <= len(text) <= 90 and is_well_formed(text) for text in made)


def test_no_pool_without_lines() -> None:
    with pytest.raises(ConfigError, match="--input"):
        index_source_lines([])


def test_digits_of_a_text_change_and_nothing_else_does() -> None:
    text = "លេខ ១២៣ ឬ 456 (ក)"
    seen = {numbers.other_digits(stream, text) for stream in some_dice(50)}
    assert len(seen) > 40
    assert {near_copy_key(line) for line in seen} == {near_copy_key(text)}


def test_figures_latin_and_marks_hold_what_the_default_charset_holds() -> None:
    charset = Charset.default()
    for stream in some_dice(3000):
        words = (numbers.figure(stream), fragments.latin(stream, ("Calc", "PDF")), fragments.marks(stream))
        for word in (*words, fragments.seldom(stream), fragments.rare_word(stream)):
            assert word
            assert not charset.missing(word), word
            assert is_well_formed(normalize(word)), word


def test_the_corpus_takes_lines_from_training_alone(tmp_path: Path) -> None:
    def made(recombine: int) -> dict[str, list[str]]:
        config = CorpusConfig(output_dir=tmp_path, sample=True, synthesize=100, recombine=recombine, overwrite=True)
        process_corpus(config, progress=False)
        return {s: (tmp_path / f"{s}.txt").read_text(encoding="utf-8").splitlines() for s in ("train", "val", "test")}

    before, after = made(0), made(3000)
    assert (after["val"], after["test"]) == (before["val"], before["test"])
    known = len(before["train"])
    assert after["train"][:known] == before["train"]
    added = after["train"][known:]
    assert len(added) == 3000
    real = [line for line in before["train"] if line in set(sample_lines())]
    assert added == flat(
        recombine_lines(index_source_lines(real), 3000, seed=42, refuse=near(before["val"] + before["test"]))
    )
    elsewhere = {near_copy_key(line) for line in before["val"] + before["test"]}
    assert not [line for line in added if near_copy_key(line) in elsewhere]


def test_of_a_long_corpus_every_kth_line_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def counted(lines: Iterator[str]) -> SourceLines:
        pool = index_source_lines(lines)
        held.append(len(pool.lines))
        return pool

    monkeypatch.setattr(pipeline, "MAX_LINES", 100)
    monkeypatch.setattr(pipeline, "index_source_lines", counted)
    process_corpus(CorpusConfig(output_dir=tmp_path, sample=True, recombine=10), progress=False)
    assert 50 < held[0] <= 100


def near(held_out: list[str]) -> Callable[[Sequence[str]], list[bool]]:
    keys = {near_copy_key(line) for line in held_out}
    return lambda asked: [near_copy_key(line) in keys for line in asked]


def test_dice_go_on_where_the_first_words_end() -> None:
    few, many = (next(random_streams(key(1, "text", "test"), range(7, 8), words)) for words in (2, 64))
    assert [few.below(1000) for _ in range(40)] == [many.below(1000) for _ in range(40)]
    assert len(set(islice((stream.below(1 << 20) for stream in some_dice(50)), 50))) > 45


def test_the_lines_do_not_depend_on_the_number_of_processes(pool: SourceLines, lines: list[str]) -> None:
    banned = set(lines[:3000:7])
    refuse = [None, lambda asked: [line in banned for line in asked]]
    for which in refuse:
        alone, spread_3 = (flat(recombine_lines(pool, 3100, seed=3, refuse=which, workers=n)) for n in (1, 3))
        assert alone == spread_3
    assert len(alone) == 3100


def test_processes_end_with_the_generator_and_their_death_is_told(pool: SourceLines) -> None:
    blocks = recombine_lines(pool, 100_000, seed=3, workers=2)
    first = next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert len(first) == 1024
    with pytest.raises(WorkerError, match="ended early"):
        list(parallel_map(Broken().block, [range(3), range(3, 6)], 2))


class Broken:
    def block(self, numbers: range) -> list[str]:
        os._exit(3)

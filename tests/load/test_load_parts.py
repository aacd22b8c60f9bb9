"""The small parts: targets, reading ahead, faults, checks of PNG."""

import logging
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr.dataset.reader import read_plain
from khmer_ocr.dataset.sample_decoding import is_plain_grey, png_chunks
from khmer_ocr.errors import DatasetError
from khmer_ocr.load.prefetch import ahead
from khmer_ocr.load.read_errors import ReadErrorLog
from khmer_ocr.load.targets import TargetEncoder
from khmer_ocr.text.charset import Charset
from tests.dataset.trees import pixels, png

KHMER = st.text(st.sampled_from("កខគ្រាំ។ A\u200c\U00010000é"), max_size=12)


class Words:
    """A vocabulary that is no charset and gives one id a word."""

    def encode(self, text):
        return [1 + len(word) for word in text.split()]


@given(st.lists(KHMER, max_size=6), st.sampled_from([Charset.default(), Charset.from_text(["កខ"]), Words()]))
def test_targets_are_what_the_vocabulary_says(texts, vocab):
    targets_BT, length_B = TargetEncoder(vocab)(texts)
    tokens = [vocab.encode(text) for text in texts]
    assert targets_BT.dtype == length_B.dtype == np.int64
    assert targets_BT.shape == (len(texts), max(map(len, tokens), default=0))
    assert length_B.tolist() == [len(ids) for ids in tokens]
    for row, ids in zip(targets_BT.tolist(), tokens, strict=True):
        assert row == ids + [0] * (len(row) - len(ids))


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_items_come_in_order_and_at_most_so_many_ahead(depth):
    made = []

    def make():
        for i in range(20):
            made.append(i)
            yield i

    used = []
    for item in ahead(make(), depth):
        used.append(item)
        time.sleep(0.002)
        assert len(made) - len(used) <= depth + 1
    assert used == list(range(20))


@pytest.mark.parametrize("depth", [0, 2])
def test_what_the_maker_raises_comes_in_its_turn(depth):
    def make():
        yield 1
        yield 2
        raise DatasetError("the third")

    items = ahead(make(), depth)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(DatasetError, match="the third"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_closing_ends_the_thread_and_the_maker():
    ended, waits = threading.Event(), []

    def make():
        try:
            while True:
                yield 0
        finally:
            ended.set()

    before = threading.active_count()
    items = ahead(make(), 2, waits.append)
    for _ in range(3):
        next(items)
    time.sleep(0.02)
    next(items)
    time.sleep(0.02)
    items.close()
    assert ended.is_set() and threading.active_count() == before
    assert max(waits) > 0.01


def test_faults_raise_or_are_counted_up_to_one_in_a_hundred(caplog):
    with pytest.raises(DatasetError, match="first"):
        ReadErrorLog("raise", 1000).add({3: "first", 4: "second"})
    faults = ReadErrorLog("skip", 299)
    faults.add({3: "first"})
    faults.add({})
    faults.add({9: "second"})
    with pytest.raises(DatasetError, match=r"3 of 299 samples can't be read, more than 1 %\. The last one: third"):
        faults.add({10: "third"})
    many = ReadErrorLog("skip", 10_000)
    many.add({i: f"fault {i}" for i in range(30)})
    with caplog.at_level(logging.WARNING):
        many.report("train, epoch 4")
        ReadErrorLog("skip", 10).report("nothing")
    assert "train, epoch 4: 30 of 10000 samples were left out" in caplog.text and "and 10 more" in caplog.text
    assert "fault 19" in caplog.text and "fault 20" not in caplog.text and "nothing" not in caplog.text


def test_any_flipped_bit_or_cut_of_a_png_is_noticed():
    data = png(pixels("train", 2))
    png_chunks(data, "whole")
    assert is_plain_grey(data)
    for at in range(8, len(data)):
        wrong = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(DatasetError, match=r"here is (damaged|cut short)"):
            png_chunks(wrong, "here")
    for size in range(8, len(data)):
        with pytest.raises(DatasetError, match="here is cut short"):
            png_chunks(data[:size], "here")


def test_only_plain_files_are_read_at_once(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(path)
    assert read_plain(str(path))[0] == b"0123456789"
    assert read_plain(str(path), 3, 4)[0] == b"3456"
    for wrong in (tmp_path / "link", tmp_path, tmp_path / "none"):
        assert read_plain(str(wrong)) is None
    assert read_plain(str(path), 8, 4) is None
    assert read_plain(str(path), 11) is None

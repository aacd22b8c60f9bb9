"""The proxy tells good data from bad, gives the same figures every time, and goes on where it was stopped."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from khmer_ocr.bench import data, proxy
from khmer_ocr.bench.data import compare_data
from khmer_ocr.bench.proxy import Proxy, ProxyRun, read_lines, train_proxy
from khmer_ocr.bench.settings import DataBenchConfig
from khmer_ocr.errors import ConfigError, DatasetError, RunConflictError
from khmer_ocr.text.charset import Charset
from tests.model.test_seq2seq import lines as drawn

TEXTS = ["កា", "ខេ", "គុ", "ងើ"]
LINES = 64


def line(text: str, number: int) -> np.ndarray:
    """A line whose ink is a pattern of its text, moved and greyed by its number: not Khmer, and quickly learned."""
    draw = np.random.default_rng(number)
    pixels_HW = np.full((32, 24 + 8 * len(text)), 255, np.uint8)
    for place, character in enumerate(text):
        left, top = 6 + 12 * place + draw.integers(0, 3), 4 + (ord(character) * 7) % 17
        pixels_HW[top : top + 8, left : left + 2 + ord(character) % 6] = draw.integers(0, 60)
    return pixels_HW


def tree(root: Path, count: int = LINES, wrong: float = 0.0) -> Path:
    """A data set of such lines; some have the label of another."""
    for folder in ("images", "labels"):
        (root / "train" / folder).mkdir(parents=True)
    draw = np.random.default_rng(7)
    for number in range(count):
        text = TEXTS[number % len(TEXTS)]
        Image.fromarray(line(text, number)).save(root / f"train/images/train_{number:06d}.png")
        label = TEXTS[(number + 1) % len(TEXTS)] if draw.random() < wrong else text
        (root / f"train/labels/train_{number:06d}.txt").write_text(label, encoding="utf-8")
    return root


def labels(folder: Path) -> Path:
    folder.mkdir()
    for number, text in enumerate(TEXTS * 2):
        Image.fromarray(line(text, 1000 + number)).save(folder / f"{number}.png")
    rows = [f"{number}.png\t{text}\n" for number, text in enumerate(TEXTS * 2)]
    (folder / "labels.tsv").write_text("".join(rows), encoding="utf-8")
    return folder / "labels.tsv"


def config(tmp_path: Path, **settings: Any) -> DataBenchConfig:
    given = {"labels": (str(tmp_path / "set/labels.tsv"),), "lines": LINES, "epochs": 1, "seeds": 2, "device": "cpu"}
    return DataBenchConfig(**{**given, "results": tmp_path / "results.json", **settings})


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, data.DataComparison]:
    """Right labels and labels of which half are wrong."""
    folder = tmp_path_factory.mktemp("compared")
    labels(folder / "set")
    roots = [tree(folder / "wrong", wrong=0.5), tree(folder / "right")]
    return folder, compare_data(roots, config(folder), progress=False)


@pytest.mark.slow
def test_data_that_teach_more_come_first(tmp_path: Path) -> None:
    labels(tmp_path / "set")
    roots = [tree(tmp_path / "wrong", wrong=0.5), tree(tmp_path / "right")]
    found = compare_data(roots, config(tmp_path, epochs=150), progress=False)
    assert found.ranking() == ["right", "wrong"] and found.data == ["wrong", "right"] and found.sets == ["set"]
    right, wrong = found.cer["right"]["set"], found.cer["wrong"]["set"]
    assert len(right) == len(wrong) == 2 and max(right) < 0.1 < min(wrong)
    rows = str(found).splitlines()
    assert re.fullmatch(r"right +\d+\.\d\d \+- \d+\.\d\d", rows[1]) and rows[2].startswith("wrong")
    assert "of 2 seeds" in rows[3]


def test_what_was_measured_is_not_measured_again(
    compared: tuple[Path, data.DataComparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found = compared
    trained: list[ProxyRun] = []
    original = train_proxy

    def recorded(run: ProxyRun, step: proxy.Step) -> tuple[Proxy, Charset]:
        trained.append(run)
        return original(run, step)

    monkeypatch.setattr(data, "train_proxy", recorded)
    again = compare_data([folder / "right", folder / "wrong"], config(folder), progress=False)
    assert again.cer == found.cer and again.lines_per_s == found.lines_per_s and trained == []
    # One seed more: only that is trained. A data set that was moved is the same.
    (folder / "right").rename(folder / "moved")
    compare_data([folder / "moved"], config(folder, seeds=3), progress=False)
    (folder / "moved").rename(folder / "right")
    assert [run.seed for run in trained] == [3]
    (folder / "set").rename(folder / "of another name")
    labelled = str(folder / "of another name/labels.tsv")
    compare_data([folder / "right"], config(folder, labels=(f"set={labelled}",)), progress=False)
    (folder / "of another name").rename(folder / "set")
    assert len(trained) == 1


def test_a_comparison_that_is_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels(tmp_path / "set")
    roots = [tree(tmp_path / "a", 32), tree(tmp_path / "b", 32, wrong=0.3)]
    few = config(tmp_path, lines=32, epochs=1)
    trained = list[str]()
    original = train_proxy

    def stopped(run: ProxyRun, step: proxy.Step) -> tuple[Proxy, Charset]:
        trained.append(f"{run.root.name}{run.seed}")
        if len(trained) == 3:
            raise KeyboardInterrupt
        return original(run, step)

    monkeypatch.setattr(data, "train_proxy", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare_data(roots, few, progress=False)
    assert len(json.loads(few.results.read_bytes())["runs"]) == 2
    found = compare_data(roots, few, progress=False)
    assert trained == ["a1", "b1", "a2", "a2", "b2"]
    assert len(found.cer["a"]["set"]) == len(found.cer["b"]["set"]) == 2


def test_the_same_seed_gives_the_same_model_and_another_does_not(tmp_path: Path) -> None:
    run = ProxyRun(tree(tmp_path / "data", 32), 32, 2, "basic", "mixed", 1)
    states = [train_proxy(each)[0].state_dict() for each in (run, run)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = train_proxy(ProxyRun(run.root, 32, 2, "basic", "mixed", 2))[0].state_dict()
    assert not torch.equal(states[0]["ctc.score.weight"], other["ctc.score.weight"])


def test_what_a_line_reads_as_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    model, charset = Proxy(len(Charset.default())).eval(), Charset.default()
    images_B1HW, width_B = drawn([90, 40, 200, 7])
    images = [
        (image[0, :, :width].numpy() * 255).astype(np.uint8)
        for image, width in zip(images_B1HW, width_B.tolist(), strict=True)
    ]
    together = read_lines(model, charset, images * 20, "cpu")
    assert together == 20 * [read_lines(model, charset, [image], "cpu")[0] for image in images]
    assert read_lines(model, charset, [], "cpu") == []


def test_the_proxy_is_small() -> None:
    model = Proxy(len(Charset.default()))
    assert 200_000 < sum(each.numel() for each in model.parameters()) < 400_000


def test_what_can_not_be_compared_is_refused(tmp_path: Path) -> None:
    labels(tmp_path / "set")
    root = tree(tmp_path / "data", 40)
    with pytest.raises(ConfigError, match="no labelled lines"):
        DataBenchConfig()
    with pytest.raises(ConfigError, match="lines is 31; expected at least 32"):
        config(tmp_path, lines=31)
    with pytest.raises(ConfigError, match="got no data set"):
        compare_data([], config(tmp_path), progress=False)
    with pytest.raises(ConfigError, match="the same data set twice"):
        compare_data([root, tmp_path / "data"], config(tmp_path), progress=False)
    with pytest.raises(ConfigError, match="two sets are called 'set'"):
        doubled = (str(tmp_path / "set/labels.tsv"), f"set={tmp_path / 'set/labels.tsv'}")
        compare_data([root], config(tmp_path, labels=doubled), progress=False)
    with pytest.raises(DatasetError, match=r"holds 40 training lines.*or give --lines 40"):
        compare_data([root], config(tmp_path), progress=False)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(RunConflictError, match="no results of bench data"):
        compare_data([root], config(tmp_path, lines=32), progress=False)
    (tmp_path / "results.json").write_text('{"version": 0, "runs": {}}')
    with pytest.raises(RunConflictError, match="of version 0"):
        compare_data([root], config(tmp_path, lines=32), progress=False)

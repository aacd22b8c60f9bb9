"""A repair replaces what is damaged and is then what was recorded; all else stays, inside the data set and outside."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from khmer_ocr.cli import dataset_verbs
from khmer_ocr.dataset import shards
from khmer_ocr.dataset.verify import verify
from khmer_ocr.errors import DatasetError, KhmerOcrError, OutputError
from khmer_ocr.generate import generator as generator_module
from khmer_ocr.generate.repair import RepairReport, repair
from khmer_ocr.render import measured_faces
from khmer_ocr.samples import sample_lines
from tests.generate.generating import generator, tree_files, write_corpus
from tests.snapshots import everything

SECRET = "export TOKEN=mine\n"


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = list(dict.fromkeys(sample_lines()))
    folder = tmp_path_factory.mktemp("small")
    return write_corpus(folder, "\n".join(lines[:40]), val="\n".join(lines[40:48]))


@pytest.fixture(scope="module")
def drawn(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "out"
    generator(small_corpus, out).generate(["train", "val"], workers=1, progress=False)
    return out


@pytest.fixture(scope="module")
def drawn_shards(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "out"
    generator(small_corpus, out).generate(["train", "val"], workers=1, progress=False, format="webdataset")
    return out


@pytest.fixture
def tree(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "handed/over"))


@pytest.fixture
def sharded(drawn_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn_shards, tmp_path / "handed/over"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What a user has beside the data set."""
    folder = tmp_path / "home"
    (folder / "folder/train").mkdir(parents=True)
    for name in (".bashrc", "metadata.json", "folder/run.json", "folder/train/000000.jsonl", "folder/train_000001.png"):
        (folder / name).write_text(SECRET)
    return folder


def mended(root: Path) -> RepairReport:
    return repair(root, verify(root, progress=False), progress=False)


def edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text(encoding="utf-8")
    after = change(before)
    assert after != before
    path.write_text(after, encoding="utf-8")


def edit_record(root: Path, number: int, **values: object) -> None:
    """Change a record of train as a flipped byte would, without touching the others."""
    path = root / "train/metadata.json"
    head, samples = path.read_text(encoding="utf-8").split('"samples": [\n')
    lines = samples.split("\n")
    record = json.loads(lines[number].removesuffix(","))
    lines[number] = json.dumps({**record, **values}, ensure_ascii=False) + ","
    path.write_text(head + '"samples": [\n' + "\n".join(lines), encoding="utf-8")


def flip(path: Path, at: int = 60) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def links_to(*names: str) -> Callable[[Path, Path], None]:
    def plant(root: Path, home: Path) -> None:
        target, *places = names
        for name in places:
            place = root / name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            place.unlink(missing_ok=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(home / target)

    return plant


def names_a_split_outside(root: Path, home: Path) -> None:
    path = root / "generation_metadata.json"
    content = json.loads(path.read_bytes())
    for name in ("../../home", "../../home/folder", str(home)):
        content["splits"][name] = {"total_samples": 3}
        content["run"]["splits"][name] = content["run"]["splits"]["train"]
    path.write_text(json.dumps(content))


IMAGE, LABEL = "train/images/train_000003.png", "train/labels/train_000003.txt"
ATTACKS = {
    "image": links_to(".bashrc", IMAGE),
    "label": links_to(".bashrc", LABEL),
    "image that would be new": links_to("not-there.png", IMAGE),
    "split outside": names_a_split_outside,
    "journal": links_to("folder", ".journal"),
    "journal of the split": links_to("folder/train", ".journal/train"),
    "split": links_to("folder", "train"),
    "images": links_to("folder", "train/images"),
    "labels": links_to("folder", "train/labels"),
    "split's metadata": links_to("metadata.json", "train/metadata.json"),
    "overall metadata": links_to("metadata.json", "generation_metadata.json"),
    "metadata not there": links_to("new.json", "train/metadata.json"),
    "locks": links_to(".bashrc", ".journal/exclusive.lock", ".journal/shard-0-of-1.lock"),
    "lock not there": links_to("new.lock", ".journal/exclusive.lock"),
    "run": links_to("folder/run.json", ".journal/run.json"),
}


OF_SAMPLES = ("image", "label", "image that would be new", "split outside")
HARMLESS = ("journal of the split",)  # the journal of a repair goes when it is done, and the link with it


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_outside_is_touched_by_repair_or_generate(
    attack: str, tree: Path, home: Path, small_corpus: Path
) -> None:
    ATTACKS[attack](tree, home)
    before = everything(home)
    if not attack.startswith(("journal of", "lock", "run")):
        report = verify(tree, progress=False)
        assert not report.ok and (attack == "split outside" or "symbolic link" in str(report)), report
    for _ in range(2):  # the second time with something to be made again
        try:
            done = mended(tree)
            assert attack in (*OF_SAMPLES, *HARMLESS, "run") and (done.left or attack not in OF_SAMPLES)
        except KhmerOcrError as refused:
            assert "symbolic link" in str(refused), refused
        assert everything(home) == before
        (tree / "val/images/val_000002.png").write_bytes(b"")
    if attack not in (*OF_SAMPLES, *HARMLESS):  # what is drawn in workers has a test of its own
        for overwrite in (False, True):
            with pytest.raises(KhmerOcrError, match="symbolic link"):
                generator(small_corpus, tree).generate(["train"], overwrite=overwrite, workers=1, progress=False)
            assert everything(home) == before


def test_generate_writes_into_no_link_and_no_second_name(small_corpus: Path, tree: Path, home: Path) -> None:
    links_to(".bashrc", IMAGE)(tree, home)
    (tree / "train/metadata.json").unlink()
    (tree / "generation_metadata.json").unlink()
    (tree / ".journal").mkdir()
    (tree / "val/images/val_000001.png").unlink()
    os.link(home / "metadata.json", tree / "val/images/val_000001.png")
    before, ours = everything(home), generator(small_corpus, tree)
    with pytest.raises(KhmerOcrError):
        ours.generate(["train", "val"], workers=1, progress=False)
    assert everything(home) == before
    ours.generate(["val"], workers=1, progress=False, overwrite=True)
    assert (home / "metadata.json").read_text() == SECRET and (home / ".bashrc").read_text() == SECRET
    assert verify(tree, ["val"], progress=False).ok


def test_planted_temporary_names_are_replaced_and_not_followed(tree: Path, home: Path) -> None:
    whole = tree_files(tree)
    (tree / IMAGE).write_bytes(b"")
    (tree / LABEL).write_text("ខុស")
    edit(tree / "train/metadata.json", lambda text: text.replace('"total_samples": 40', '"total_samples": 41'))
    for name in (IMAGE, LABEL, "train/metadata.json", "generation_metadata.json"):
        place = tree / name
        place.with_name(f".{place.name}.partial").symlink_to(home / ".bashrc")
    before = everything(home)
    done = mended(tree)
    assert not done.left and everything(home) == before
    assert {name: data for name, data in tree_files(tree).items() if not name.endswith(".partial")} == whole


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.idx", ".train-000000.tar.partial"])
def test_linked_shards_and_indexes_are_not_written_through(name: str, sharded: Path, home: Path) -> None:
    place = sharded / "train/shards" / name
    tar = sharded / "train/shards/train-000000.tar"
    if place != tar:
        tar.write_bytes(tar.read_bytes()[:9000])
    place.unlink(missing_ok=True)
    place.symlink_to(home / ".bashrc")
    before = everything(home)
    try:
        done = mended(sharded)
        assert bool(done.left) == (place == tar)
    except OutputError as refused:
        assert place.suffix == ".idx" and "symbolic link" in str(refused)
    assert everything(home) == before


def test_a_second_name_of_a_damaged_file_keeps_its_bytes(tree: Path) -> None:
    whole = (tree / IMAGE).read_bytes()
    (tree / IMAGE).write_bytes(b"damaged")
    os.link(tree / IMAGE, tree / "kept.png")
    assert mended(tree).written == 1
    assert (tree / IMAGE).read_bytes() == whole and (tree / "kept.png").read_bytes() == b"damaged"


def test_links_within_the_data_set_are_read_and_never_written_through(tree: Path, small_corpus: Path) -> None:
    """As content-addressed stores keep trees."""
    store = tree / ".store/ab"
    store.mkdir(parents=True)
    for path in [*tree.glob("*/images/*"), *tree.glob("*/labels/*")]:
        path.rename(store / path.name)
        path.symlink_to(Path("../../.store/ab") / path.name)
    assert verify(tree, progress=False).ok
    (store / "train_000003.png").write_bytes(b"")
    (store / "train_000004.txt").write_text("ខុស")
    before = everything(tree)
    done = mended(tree)
    assert len(done.left) == 2 and all("symbolic link" in why for why in done.left) and not done.written
    assert everything(tree) == before


def test_damaged_samples_are_made_again_and_the_tree_is_what_it_was(tree: Path) -> None:
    whole = everything(tree)
    flip(tree / IMAGE, 70)
    (tree / LABEL).unlink()
    (tree / "train/images/train_000020.png").unlink()
    a, b = (tree / f"val/images/val_00000{n}.png" for n in (1, 2))
    shutil.copy(a, b)
    done = mended(tree)
    assert done.written == 4 and not done.left and not done.metadata
    assert everything(tree) == whole and verify(tree, progress=False).ok


def test_a_wrong_seed_destroys_nothing(tree: Path) -> None:
    edit(tree / "generation_metadata.json", lambda text: text.replace('"seed": 42', '"seed": 43'))
    (tree / IMAGE).write_bytes(b"damaged")
    before = everything(tree)
    done = mended(tree)
    assert [each.partition(":")[0] for each in done.left] == ["train/train_000003"]
    assert "other pixels" in done.left[0] and "1 could not be made again as recorded" in str(done)
    assert everything(tree) == before
    (tree / "train/metadata.json").unlink()
    before = everything(tree)
    done = mended(tree)
    assert any(each.startswith("train/metadata.json: ") for each in done.left) and not done.metadata
    assert everything(tree) == before


def test_a_letter_flipped_in_the_metadata_is_told_from_one_in_the_label(tree: Path) -> None:
    whole = everything(tree)
    text = (tree / LABEL).read_text(encoding="utf-8")
    other = text[:-1] + ("ក" if text[-1] != "ក" else "ខ")
    edit_record(tree, 3, text=other)
    done = mended(tree)
    assert done.metadata == ["train/metadata.json"] and not done.left and not done.written
    assert everything(tree) == whole
    (tree / LABEL).write_text(other, encoding="utf-8")
    done = mended(tree)
    assert not done.metadata and not done.left and done.written == 1
    assert everything(tree) == whole


def test_damaged_records_of_whole_images_are_set_right(tree: Path) -> None:
    whole = everything(tree)
    edit_record(tree, 5, pixel_hash="0123456789abcdef")
    edit_record(tree, 6, image_width=7)
    done = mended(tree)
    assert done.metadata == ["train/metadata.json"] and not done.left and not done.written
    assert everything(tree) == whole


def test_what_neither_record_nor_image_proves_is_left(tree: Path) -> None:
    edit_record(tree, 5, pixel_hash="0123456789abcdef")
    (tree / "train/images/train_000005.png").write_bytes(b"damaged")
    edit_record(tree, 6, text="កខគ")
    (tree / "train/labels/train_000006.txt").unlink()
    edit_record(tree, 7, text="abc ☃")
    before = everything(tree)
    done = mended(tree)
    assert [each.partition(":")[0] for each in done.left] == ["train/train_000005", "train/train_000006"]
    after = everything(tree)
    assert {name for name in after if after[name] != before.get(name)} == {"train/metadata.json"}


@pytest.mark.parametrize("damage", ["missing", "cut", "order", "count", "split", "digit"])
def test_metadata_are_rebuilt_and_images_stay(damage: str, tree: Path) -> None:
    whole, path = everything(tree), tree / "train/metadata.json"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
        (tree / "train/images/train_000039.png").unlink()  # its record is lost; all others agree with what is drawn
    elif damage == "order":
        head, samples = data.split(b'"samples": [\n')
        first, second, rest = samples.split(b",\n", 2)
        path.write_bytes(head + b'"samples": [\n' + b",\n".join([second, first, rest]))
    elif damage == "count":
        edit(tree / "generation_metadata.json", lambda text: text.replace('"total_samples": 40', '"total_samples": 41'))
    elif damage == "split":
        path.write_bytes(data.replace(b'"split": "train"', b'"split": "val"', 1))
    else:
        path.write_bytes(data.replace(b'"image_width": ', b'"image_width": "', 1))
    done = mended(tree)
    assert not done.left, done
    assert everything(tree) == whole and verify(tree, progress=False).ok


def test_metadata_are_not_written_while_a_sample_is_not_proven(tree: Path) -> None:
    (tree / "train/metadata.json").unlink()
    (tree / IMAGE).write_bytes(b"damaged")
    other = tree / "train/images/train_000009.png"
    shutil.copy(tree / "train/images/train_000010.png", other)
    before = everything(tree)
    done = mended(tree)
    said = str(done)
    assert "train/train_000003: " in said and "train/train_000009: " in said and "38 of 40" in said
    assert everything(tree) == before


def test_members_of_a_shard_that_are_whole_keep_their_bytes(sharded: Path) -> None:
    whole = everything(sharded)
    tar = sharded / "train/shards/train-000000.tar"
    members = shards.tar_members(sharded, tar)
    data = bytearray(tar.read_bytes())
    for name in ("train_000002.png", "train_000005.txt", "train_000007.json"):
        data[members[name][0] + 5] ^= 1
    data[members["train_000009.png"][0] - 500] ^= 1  # in its header
    tar.write_bytes(data)
    (tar.with_suffix(".idx")).write_text("v1.2 0\n")
    done = mended(sharded)
    assert not done.left and everything(sharded) == whole
    tar.write_bytes(tar.read_bytes()[:20_000])
    assert not mended(sharded).left and everything(sharded) == whole
    tar.with_suffix(".idx").write_text(tar.with_suffix(".idx").read_text().replace("png 512", "png 513"))
    assert any(problem.filename.endswith(".idx") for problem in verify(sharded, progress=False).problems)
    done = mended(sharded)
    assert done.written == 1 and everything(sharded) == whole


def test_a_shard_under_a_wrong_seed_is_left(sharded: Path) -> None:
    edit(sharded / "generation_metadata.json", lambda text: text.replace('"seed": 42', '"seed": 43'))
    tar = sharded / "train/shards/train-000000.tar"
    members = shards.tar_members(sharded, tar)
    data = bytearray(tar.read_bytes())
    data[members["train_000002.png"][0] + 5] ^= 1
    tar.write_bytes(data)
    before = everything(sharded)
    assert [each.partition(":")[0] for each in mended(sharded).left] == ["train/train_000002"]
    tar.write_bytes(data[:20_000])
    before["train/shards/train-000000.tar"] = everything(sharded)["train/shards/train-000000.tar"]
    assert mended(sharded).left
    assert everything(sharded) == before


def test_lost_shards_and_metadata_come_from_the_corpus(sharded: Path) -> None:
    whole = everything(sharded)
    (sharded / "train/shards/train-000000.tar").unlink()
    assert not mended(sharded).left and everything(sharded) == whole
    (sharded / "train/metadata.json").unlink()
    assert not mended(sharded).left and everything(sharded) == whole


def test_a_data_set_that_does_not_say_how_it_was_made_is_refused(tree: Path) -> None:
    path = tree / "generation_metadata.json"
    content = json.loads(path.read_bytes())
    for run in (
        None,
        {},
        {**content["run"], "seed": "x"},
        {**content["run"], "fonts": 3},
        {**content["run"], "render": 1},
    ):
        path.write_text(json.dumps({**content, "run": run}))
        (tree / IMAGE).write_bytes(b"")
        with pytest.raises(DatasetError, match="where it came from") as refused:
            mended(tree)
        assert "--overwrite" not in str(refused.value)


def test_wrong_measurements_of_a_font_destroy_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def usable(*args: Any, **settings: Any) -> Any:
        faces, metrics = measured_faces.usable_faces(*args, **settings)
        return faces, {
            name: replace(known, ascent_em16=known.ascent_em16 + 9000, ka_height_em16=known.ka_height_em16 + 9000)
            for name, known in metrics.items()
        }

    monkeypatch.setattr(generator_module, "usable_faces", usable)
    (tree / IMAGE).write_bytes(b"damaged")
    (tree / "val/metadata.json").unlink()
    before = everything(tree)
    done = mended(tree)
    assert done.left and not done.written and not done.metadata
    assert everything(tree) == before


def test_hostile_records_are_no_evidence_and_no_traceback(tree: Path) -> None:
    whole = everything(tree)
    lines = (tree / "train/metadata.json").read_text(encoding="utf-8").split("\n")
    first = next(n for n, line in enumerate(lines) if line.startswith('{"filename"'))
    wrong: tuple[dict[str, Any], ...] = (
        {"pixel_hash": 5},
        {"pixel_hash": "-1"},
        {"text": "\ud800"},
        {"text": "ក" * 100_000},
        {"filename": "../x"},
    )
    for n, values in enumerate(wrong):
        record = json.loads(lines[first + n].removesuffix(","))
        lines[first + n] = json.dumps({**record, **values}) + ","
    lines[first + 7] = "[" * 5000
    (tree / "train/metadata.json").write_text("\n".join(lines), encoding="utf-8")
    (tree / "train/labels/train_000010.txt").write_text("ក" * 300_000, encoding="utf-8")
    done = mended(tree)
    assert not done.left and everything(tree) == whole


def test_a_repair_is_said_and_is_not_advised_again(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / IMAGE).write_bytes(b"")
    edit_record(tree, 3, pixel_hash="0123456789abcdef")
    with pytest.raises(SystemExit) as left:
        dataset_verbs.verify(tree, repair=True, quiet=True)
    said = capsys.readouterr().out
    assert left.value.code == 1
    assert "1 could not be made again as recorded" in said and "train/train_000003: drawn from" in said
    assert said.count("--repair") == 1 and said.rstrip().endswith("restore what is left from where it came from")


@pytest.mark.parametrize(
    "name",
    [
        IMAGE,
        LABEL,
        "train/metadata.json",
        "generation_metadata.json",
        ".journal/run.json",
        ".journal/clearing.json",
        ".journal/exclusive.lock",
        ".journal/train/plan.bin",
    ],
)
def test_a_pipe_where_a_file_belongs_keeps_nobody_waiting(name: str, tree: Path, small_corpus: Path) -> None:
    def too_long(*_: object) -> None:
        raise TimeoutError

    place = tree / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(60)
    try:
        report = verify(tree, progress=False)
        assert report.ok == name.startswith(".journal")
        for act in (lambda: mended(tree), lambda: generator(small_corpus, tree).generate(["train"], progress=False)):
            try:
                act()
            except KhmerOcrError as refused:
                assert "Traceback" not in str(refused)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

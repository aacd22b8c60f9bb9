"""No message proposes to draw over what others made; what is proposed fits the folder."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from khmer_ocr.cli import main
from khmer_ocr.dataset import layout, repair_advice
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.stats import dataset_statistics
from khmer_ocr.dataset.verify import verify
from khmer_ocr.errors import DatasetError, KhmerOcrError, SplitNotFoundError
from tests.dataset.trees import edit_metadata, only_known_keys, pixels, png, write_overall, write_tree

COUNTS = {"train": 6, "val": 3}
HARMFUL = ("--overwrite", "--repair", "khmer-ocr generate")


def without_metadata(root: Path) -> Path:
    for path in (*root.glob("*/metadata.json"), root / layout.GENERATION_METADATA):
        path.unlink()
    return root


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Somebody's own lines: images and labels, named as they like."""
    root = without_metadata(write_tree(tmp_path / "scans", COUNTS))
    for split in COUNTS:
        for path in (*root.glob(f"{split}/images/*"), *root.glob(f"{split}/labels/*")):
            path.rename(path.with_name(f"page{path.name[len(split) + 1 :]}"))
    return root


def test_who_drew_it_is_told_from_the_run_and_for_each_split(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", COUNTS)
    assert (
        repair_advice.drawn_here(root)
        and repair_advice.drawn_here(root, "val")
        and not repair_advice.drawn_here(root, "test")
    )
    assert "verify" in repair_advice.advice_to_repair(
        root, "train"
    ) and "did not draw it" in repair_advice.advice_to_repair(root, "test")
    for content in ('{"run": {}}', '{"run": 3}', '{"run": {"versions": 1}}', "[]", "{", "", "[" * 100_000):
        (root / layout.GENERATION_METADATA).write_text(content)
        assert not repair_advice.drawn_here(root) and "--repair" not in repair_advice.advice_to_repair(root)
    assert repair_advice.begun_here(root), "the splits' metadata hold keys that are ours"
    assert not repair_advice.begun_here(only_known_keys(root))


def test_a_link_that_leads_out_is_nobodys_word(tmp_path: Path) -> None:
    ours, theirs = (write_tree(tmp_path / name, {"val": 1}) for name in ("ours", "theirs"))
    (theirs / layout.GENERATION_METADATA).unlink()
    (theirs / layout.GENERATION_METADATA).symlink_to(ours / layout.GENERATION_METADATA)
    assert not repair_advice.drawn_here(theirs)


def test_scans_without_metadata_are_whole(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", str(scans), "--quiet"])
    said = capsys.readouterr().out
    assert "9 samples checked (train 6, val 3)" in said and "Nothing is wrong." in said
    assert "train: no metadata.json, so that there was nothing to compare its lines with." in said
    assert not any(word in said for word in HARMFUL)
    assert dataset_statistics(scans)["total_images"] == 9


def damage_of(root: Path, kind: str) -> None:
    image = sorted(root.glob("train/images/*"))[2]
    label = root / "train/labels" / f"{image.stem}.txt"
    if kind == "no label":
        label.unlink()
    elif kind == "no image":
        image.unlink()
    elif kind == "cut image":
        image.write_bytes(image.read_bytes()[:50])
    elif kind == "damaged metadata":
        (root / "train/metadata.json").write_bytes(b'{"samples": [')
    elif kind == "no split":
        (root / "val").rename(root / "elsewhere")


@pytest.mark.parametrize("kind", ["no label", "no image", "cut image", "damaged metadata", "no split"])
@pytest.mark.parametrize("known", [False, True])
def test_what_is_wrong_with_a_folder_of_others_is_never_to_be_drawn(
    scans: Path, tmp_path: Path, kind: str, known: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    root = only_known_keys(write_tree(tmp_path / "known", COUNTS)) if known else scans
    damage_of(root, kind)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    said = []
    for verb in (["verify", str(root), "--quiet"], ["verify", str(root), "--quiet", "--repair"], ["stats", str(root)]):
        try:
            main(verb)
        except SystemExit as left:
            assert left.code in (1, 2)
        said.append("".join(capsys.readouterr()))
    for split in COUNTS:
        try:
            index = load_index(root, split)
            for i in range(len(index)):
                index.line(i)
        except KhmerOcrError as fault:
            said.append(str(fault))
    assert not any(word in message for message in said for word in HARMFUL), said
    if kind not in ("no split", "no image") or known:
        assert "did not draw it: restore" in said[0]
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_where_nothing_is_there_generate_is_named_and_elsewhere_not(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(SplitNotFoundError, match=r"Run: khmer-ocr generate --output-dir .*/none --splits train$"):
        load_index(tmp_path / "none", "train")
    with pytest.raises(SplitNotFoundError, match=r"scans/test/images, their texts in .*scans/test/labels"):
        load_index(scans, "test")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(SplitNotFoundError) as caught:
        dataset_statistics(tmp_path / "notes")
    assert not any(word in str(caught.value) for word in HARMFUL)


def test_a_tree_of_ours_without_its_overall_file_is_not_called_somebodys(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", COUNTS)
    (root / layout.GENERATION_METADATA).unlink()
    said = str(verify(root, progress=False))
    assert "generation_metadata.json: is missing" in said and "Nothing here says any more how it was drawn" in said


def test_a_run_under_way_is_to_be_gone_on_with(tmp_path: Path) -> None:
    root = without_metadata(write_tree(tmp_path / "data", {"train": 3}))
    (root / layout.JOURNAL).mkdir()
    (root / layout.JOURNAL / "exclusive.lock").touch()
    assert "did not draw it" in repair_advice.advice_to_repair(root), "looking leaves a lock"
    (root / layout.JOURNAL / "run.json").write_text("{}")
    assert "goes on where it stopped" in repair_advice.advice_to_repair(root)


def test_reports_leave_advice_out_of_each_line(tmp_path: Path) -> None:
    for root in (write_tree(tmp_path / "ours", COUNTS), only_known_keys(write_tree(tmp_path / "known", COUNTS))):
        (root / "train/images/train_000001.png").unlink()
        (problem,) = verify(root, progress=False).problems
        assert problem.fault == "is missing"


# ---- files that systems leave


def leave(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\5\x16\7" + bytes(40))


@pytest.mark.parametrize("format", layout.FORMATS)
def test_files_of_a_mac_are_named_and_no_damage(tmp_path: Path, format: str) -> None:
    root = write_tree(tmp_path / "my data", COUNTS, format)
    others = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    leave(root, *(str(path.with_name(f"._{path.name}")) for path in others))
    leave(root, ".DS_Store", "train/.DS_Store", "val/Thumbs.db", "__MACOSX/images/._x.png")
    report = verify(root, progress=False)
    said = str(report)
    assert report.ok and report.checked == COUNTS and "Nothing is wrong." in said
    assert f"(2 .DS_Store, {len(others):,} ._*, 1 Thumbs.db)" in said and "--repair" not in said
    (line,) = [line for line in said.splitlines() if "To remove them: " in line]
    subprocess.run(shlex.split(line.partition("To remove them: ")[2]), check=True)
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert left == {str(path) for path in others}
    assert "leave in folders" not in str(verify(root, progress=False))


def test_one_kind_of_such_files_is_removed_by_a_plain_find(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", COUNTS)
    leave(root, "train/images/._train_000000.png")
    assert str(verify(root, progress=False)).endswith(f"find {root} -iname '._*' -type f -delete")


def test_they_are_told_of_beside_damage_too(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", COUNTS)
    leave(root, "train/images/._train_000000.png")
    (root / "train/labels/train_000002.txt").unlink()
    said = str(verify(root, progress=False)).splitlines()
    assert "1 problems" in said[0] and "1 ._*" in said[-2] and said[-1] == f"Run: khmer-ocr verify {root} --repair"


def test_extra_files_alone_ask_for_no_repair(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", COUNTS)
    (root / "train/images/mine.png").write_bytes(png(pixels("train", 1)))
    said = str(verify(root, progress=False))
    assert "images/mine.png: is extra" in said and said.endswith("or delete them if nobody needs them")
    assert "--repair" not in said


# ---- others number and name as they like


def test_others_name_their_lines_as_they_like(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", COUNTS)
    edit_metadata(root, "train", 0, filename="line-a", image_path="in/line-a.png")
    for name in ("images/{}.png", "labels/{}.txt"):
        (root / "train" / name.format("train_000000")).rename(root / "train" / name.format("line-a"))
    assert any("is not named like" in problem.fault for problem in verify(root, progress=False).problems)
    assert verify(only_known_keys(root), progress=False).ok


def test_others_count_their_lines_rightly_all_the_same(tmp_path: Path) -> None:
    root = only_known_keys(write_tree(tmp_path / "data", COUNTS))
    overall = json.loads((root / layout.GENERATION_METADATA).read_bytes())
    overall["splits"]["val"]["total_samples"] = 4
    (root / layout.GENERATION_METADATA).write_text(json.dumps(overall))
    faults = [problem.fault for problem in verify(root, progress=False).problems]
    assert faults == ["records 4 samples of val, which has 3"]
    write_overall(root, COUNTS)
    edit_metadata(root, "train", 3, filename="train_000004")
    only_known_keys(root)
    assert "stands in the metadata 2 times" in [p.fault for p in verify(root, progress=False).problems]


def test_messages_of_a_reader_name_what_is_to_be_done(tmp_path: Path) -> None:
    for known in (False, True):
        root = write_tree(tmp_path / str(known), COUNTS)
        if known:
            only_known_keys(root)
        (root / "val/images/val_000001.png").unlink()
        with pytest.raises(DatasetError, match="did not draw it" if known else "--repair$"):
            load_index(root, "val").image(1)

"""Files of labels as people, spreadsheets and other tools write them: taken, or counted and named; never half taken."""

import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from khmer_ocr.errors import DatasetError
from khmer_ocr.recognize import label_files
from khmer_ocr.recognize.labelled_sets import labelled_set
from tests import SHARED

FOLDER = SHARED / "cases/04-labels-with-tab"


def draw(folder: Path, *names: str, ink: bool = True) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        page = np.full((20, 60), 255, np.uint8)
        page[5:15, 10:50:3] = 0 if ink else 255
        Image.fromarray(page).save(folder / name)


def write(folder: Path, content: str | bytes, name: str = "labels.tsv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts_in(path: Path) -> dict[str, str]:
    return {row.name: row.text for row in label_files.parse_label_file(path).rows}


def test_tabs_in_a_label_are_spaces_and_counted(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png", "c.png")
    found = labelled_set(write(tmp_path, "a.png\tកក\tខខ\tគ\nb.png\tក  ខ\nc.png\tង\t\n"))
    assert found.labels == {"a.png": "កក ខខ គ", "b.png": "ក ខ", "c.png": "ង"}
    assert "2 of 3 labels hold further TABs, which were taken as spaces (first: line 1)" in found.notes[0]


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("filename\ttext", "a.png\tកខ"),
        ("image\ttext\tfont", "a.png\tកខ\tMoul"),
        ("id\tfont\tImage\tTranscription", "7\tMoul\ta.png\tកខ"),
        ("text\timage_path", "កខ\ta.png"),
        ('"file name"\t"label"', '"a.png"\t"កខ"'),
    ],
)
def test_a_first_line_may_name_the_columns(head: str, row: str, tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    found = labelled_set(write(tmp_path, f"{head}\n{row}\n"))
    assert found.labels == {"a.png": "កខ"} and "line 1 was taken as the names of the columns" in found.notes[0]
    if "font" in head:
        with pytest.raises(DatasetError, match=r"of another number of columns: 1 \(line 3: 2, but the first line"):
            labelled_set(write(tmp_path, f"{head}\n{row}\na.png\tកខ\n"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist; expected a file of labels"),
        (b"", "holds no line"),
        (b"\n \n", "holds no line"),
        (b"image\ttext\n", "holds no line"),
        (b"a.png\tx\nb.png\t\xff\xfe\n", r"is not UTF-8 \(line 2"),
        (b"\xff\xfea\xd8", "is not UTF-16"),
        ("a.png\tក".encode("utf-16-le"), "holds NUL bytes"),
        ("a.png\nb.png\n", r"labels\.tsv, line 1: no TAB in 'a\.png'.* names without texts"),
        ("\n\na.png កខ គ\n", r"line 3: no TAB in .* divided by spaces"),
        ("កខ គ\n", r"line 1: no TAB in .* texts without names"),
        ('filename,words\na.png,"កខ"\n', r"line 1: no TAB in .* values between ','"),
        ("a.png;កខ\n", r"line 1: no TAB in .* values between ';'"),
        ('{"a.png": "' + "ក" * 3000 + '"}', r"line 1: no TAB in .* it looks like JSON"),
        ('[["a.png", "ក"]]', "it looks like JSON"),
        ('a.png\t[{"transcription": "ក", "points": [[0, 0]]}]\n', r"labels that are JSON.*expected the line's text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "holds NUL bytes: it is no text"),
    ],
)
def test_what_is_no_file_of_labels_is_refused_by_what_it_looks_like(
    content: str | bytes | None, says: str, tmp_path: Path
) -> None:
    draw(tmp_path, "a.png", "b.png")
    path = tmp_path / "labels.tsv" if content is None else write(tmp_path, content)
    for on_error in ("raise", "skip"):
        with pytest.raises(DatasetError, match=says) as raised:
            labelled_set(path, on_error=on_error)
        assert "expected" in str(raised.value) and len(str(raised.value)) < 500


def test_a_folder_and_a_locked_name_are_no_traceback(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(DatasetError, match="can't be read"):
            labelled_set(path)


def test_every_line_that_cannot_be_used_is_counted_by_kind_before_any_image_is_read(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png", "c.png", "d.png")
    draw(tmp_path, "blank.png", ink=False)
    rows = ["a.png\tក", "gone.png\tខ", "no tab", "b.png\t", "c.png\t \u200b", "a.png\tគ", "x" * 300 + ".png\tឃ"]
    rows += ["\tង", 'd.png\t"ក', 'ខ"', "blank.png\t", "lost/0.png\tច"]
    path = write(tmp_path, "\n".join(rows))
    with pytest.raises(DatasetError) as raised:
        labelled_set(path)
    said = str(raised.value)
    assert "labels.tsv: 9 of 11 lines can't be used" in said and "--on-error skip" in said
    assert "images that are not there: 3 (first: line 2: 'gone.png' does not exist in" in said
    assert "without TAB: 1 (line 3: no TAB in 'no tab')" in said
    assert "without label: 2 (first: line 4: nothing behind the TAB of 'b.png', which has ink)" in said
    assert "of an image named before: 1 (line 6: 'a.png' stands in line 1 too)" in said
    assert "without an image's name: 1 (line 8:" in said and "labels of several lines: 1 (line 9:" in said
    left = labelled_set(path, on_error="skip")
    assert left.labels == {"a.png": "ក", "blank.png": ""}
    assert list(left.left_out) == [f"labels.tsv, line {number}" for number in (2, 3, 4, 5, 6, 7, 8, 9, 12)]
    assert labelled_set(path, max_lines=1).labels == {"a.png": "ក"}


def test_near_names_are_taken_where_there_is_one_and_named(tmp_path: Path) -> None:
    composed, taken_apart = "caf\u00e9.png", "cafe\u0301.png"
    draw(tmp_path, "Scan 1.PNG", "book/Page/1.png", taken_apart, "two.png", "TWO.png", "exact.png", "EXACT.png")
    rows = ["scan 1.png\tក", "book\\page\\1.png\tខ", f"{composed}\tគ", "exact.png\tឃ", "./EXACT.png\tង"]
    found = labelled_set(write(tmp_path, "\n".join(rows)))
    assert list(found.labels) == ["Scan 1.PNG", "book/Page/1.png", taken_apart, "exact.png", "./EXACT.png"]
    assert all(found.image(name).is_file() for name in found.labels)  # type: ignore[union-attr]
    assert found.notes == [
        f"{tmp_path}/labels.tsv names 3 images otherwise than they are called, which were taken all the same "
        "(first: 'scan 1.png' for 'Scan 1.PNG')."
    ]
    with pytest.raises(DatasetError, match=r"'Two\.png' does not exist; did you mean 'TWO\.png' or 'two\.png'\?"):
        labelled_set(write(tmp_path, "Two.png\tក\n"))
    found = labelled_set(write(tmp_path, "Scan 1\tក\nbook\\page/1\tខ\n"))
    assert list(found.labels) == ["Scan 1.PNG", "book/Page/1.png"], "names without suffix, as metadata have them"
    for elsewhere in ("C:\\scans\\scan 1.png", "/mnt/images/Scan 1.png"):
        with pytest.raises(DatasetError, match=r"does not exist; did you mean 'Scan 1\.PNG'\?"):
            labelled_set(write(tmp_path, f"{elsewhere}\tក\n"))
    with pytest.raises(DatasetError, match=r"'book' is a folder"):
        labelled_set(write(tmp_path, "book\tក\n"))
    with pytest.raises(DatasetError, match=r"of an image named before: 1 \(line 2"):
        labelled_set(write(tmp_path, "Scan 1.PNG\tក\nSCAN 1.png\tក\n"))


def test_columns_that_are_turned_round_are_noticed(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png")
    with pytest.raises(DatasetError, match="Its texts seem to stand before the TAB"):
        labelled_set(write(tmp_path, "កខ\ta.png\nគឃ\tb.png\n"))


def test_groups_are_found_by_names_as_written(tmp_path: Path) -> None:
    draw(tmp_path, "A.png", "b.png")
    (tmp_path / "meta.tsv").write_text("file\tfont\r\na.png\tMoul\r\nb.png\tBokor\r\n", encoding="utf-16")
    found = labelled_set(write(tmp_path, "a.png\tក\nb.png\tខ\n"))
    assert found.groups == {"font": {"A.png": "Moul", "b.png": "Bokor"}}
    (tmp_path / "meta.tsv").write_text("font\nMoul\n")
    with pytest.raises(DatasetError, match="expected `file` among them"):
        labelled_set(tmp_path / "labels.tsv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_encoding_and_line_end_gives_the_same_labels(encoding: str, end: str, tmp_path: Path) -> None:
    text = end.join(["a.png\tកខ\u2028គ", "", "c d.png\t ឃ ", ""])
    data = (b"\xfe\xff" if encoding == "utf-16-be" else b"") + text.encode(encoding)
    assert texts_in(write(tmp_path, data)) == {"a.png": "កខ គ", "c d.png": "ឃ"}


def test_quotes_of_a_spreadsheet_go_and_those_in_print_stay(tmp_path: Path) -> None:
    rows = ['a.png\t"គាត់ថា ""ទេ"" ។"', 'b.png\t"ទេ"', 'c.png\t"ទេ" និង "ចាស"', 'd.png\t""']
    assert texts_in(write(tmp_path, "\n".join(rows[:3]))) == {
        "a.png": 'គាត់ថា "ទេ" ។',
        "b.png": '"ទេ"',
        "c.png": '"ទេ" និង "ចាស"',
    }
    everything = '"a.png"\t"ទេ"\n"b.png"\t"""ទេ"""\n'
    draw(tmp_path, "a.png", "b.png")
    found = labelled_set(write(tmp_path, everything))
    assert found.labels == {"a.png": "ទេ", "b.png": '"ទេ"'} and "2 of 2 lines are quoted" in found.notes[0]


def test_labels_are_brought_to_the_normal_form_and_what_changed_is_counted(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png", "c.png", "d.png")
    rows = ["a.png\tក\u200bខ", "b.png\tស្រ្តី", "c.png\tកា  ខា ", "d.png\tខ្មែរ"]
    found = labelled_set(write(tmp_path, "\n".join(rows)))
    assert list(found.labels.values()) == ["កខ", "ស្ត្រី", "កា ខា", "ខ្មែរ"]
    (note,) = found.notes
    assert "3 of 4 labels were brought to the normal form" in note
    assert "zero-width spaces taken out in 1 (first: line 1)" in note
    assert "marks put in order or respelled in 1 (first: line 2)" in note
    assert "white space trimmed in 1 (first: line 3)" in note


def test_names_are_compared_in_one_composition() -> None:
    assert label_files._folded("E\u0301") == label_files._folded(unicodedata.normalize("NFC", "e\u0301"))


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the cases are not here")
def test_the_case_04() -> None:
    for name in ("onlynames.tsv", "space.txt", "labels.csv", "json.json"):
        with pytest.raises(DatasetError, match="line 1: no TAB"):
            labelled_set(FOLDER / name)
    plain = labelled_set(FOLDER / "head.tsv").labels
    assert labelled_set(FOLDER / "tabs.tsv").labels == plain and len(plain) == 10
    with pytest.raises(DatasetError, match="5 of 10 lines can't be used: without label: 5"):
        labelled_set(FOLDER / "somenolabel.tsv")


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(st.sampled_from('a.png\t\n\r"ក\u200b\u2028/\\\0{,;'), max_size=60)))
def test_no_content_ends_in_another_exception(content: bytes | str) -> None:
    with TemporaryDirectory() as folder:
        draw(Path(folder), "a.png")
        path = write(Path(folder), content if isinstance(content, bytes) else content.encode())
        for on_error in ("raise", "skip"):
            try:
                found = labelled_set(path, on_error=on_error)
            except DatasetError as fault:
                assert str(path) in str(fault)
            else:
                assert all(found.image(name).is_file() for name in found.labels)  # type: ignore[union-attr]

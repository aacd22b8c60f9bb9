import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import uharfbuzz as hb
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTCollection, TTFont
from fontTools.varLib.instancer import instantiateVariableFont

from khmer_ocr.errors import FontError, NoFontsError
from khmer_ocr.fonts import discovery
from khmer_ocr.fonts.discovery import FontFace, find_faces
from khmer_ocr.preview.font_card import font_table
from khmer_ocr.render.measured_faces import measure_all
from khmer_ocr.render.rasterizer import Rasterizer
from khmer_ocr.render.shaping import Shaper


@pytest.fixture(scope="module")
def noto_file(embedded: list[FontFace]) -> Path:
    return embedded[0].files[0]


@pytest.fixture(scope="module")
def static_file(noto_file, tmp_path_factory) -> Path:
    font = TTFont(noto_file)
    for tag in ("fvar", "gvar", "avar", "HVAR", "MVAR", "STAT"):
        if tag in font:
            del font[tag]
    path = tmp_path_factory.mktemp("static") / "Static.ttf"
    font.save(path)
    return path


@pytest.fixture
def folder(tmp_path, static_file) -> Path:
    (tmp_path / "fonts").mkdir()
    shutil.copy(static_file, tmp_path / "fonts" / "Good.ttf")
    return tmp_path / "fonts"


def without_khmer(source: Path, path: Path) -> Path:
    font, options = TTFont(source), Options()
    options.layout_features = []
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=range(0x20, 0x7F))
    subsetter.subset(font)
    font.save(path)
    return path


def test_the_embedded_font_is_always_there(embedded, tmp_path):
    assert len(embedded) >= 9 and {face.family for face in embedded} == {"Noto Sans Khmer"}
    assert all(face.licence == "OFL-1.1" and face.role == "train" for face in embedded)


def test_variable_fonts_give_an_instance_a_weight_and_width(embedded):
    by_style = {face.style: dict(face.variations) for face in embedded}
    assert by_style["Regular"] == {"wght": 400.0, "wdth": 100.0}
    assert by_style["CondensedBold"] == {"wght": 700.0, "wdth": 75.0}
    assert len(by_style) == len(embedded) == len({face.sha256 for face in embedded}) == 36
    regular, condensed = (next(f for f in embedded if f.style == style) for style in ("Regular", "CondensedRegular"))
    wide, narrow = (sum(glyph.advance for glyph in Shaper(face).shape("ភាសាខ្មែរ")) for face in (regular, condensed))
    assert narrow < 0.9 * wide
    assert Rasterizer(regular).bitmap(0, 30, 6400)[0].shape != Rasterizer(condensed).bitmap(0, 30, 6400)[0].shape


def test_sorted_by_name_each_name_and_content_once(faces):
    assert [face.name for face in faces] == sorted(face.name for face in faces)
    assert len({face.name for face in faces}) == len({face.sha256 for face in faces}) == len(faces)


def test_held_out_families_are_left_out_unless_named(fonts_dir, faces):
    heldout = {face.family for face in faces if face.role == "heldout"}
    assert {"Noto Serif Khmer", "Kantumruy Pro", "Nokora", "Suwannaphum", "Khmer Mondulkiri", "Khmer Busra"} <= heldout
    train = find_faces(fonts_dir=fonts_dir)
    assert {face.role for face in train} == {"train"} and len(train) == sum(face.role == "train" for face in faces)
    named = find_faces(["Nokora", "KhmerOS"], fonts_dir=fonts_dir)
    assert [face.name for face in named] == ["KhmerOS", "Nokora-Bold", "Nokora-Regular"]
    by_file = find_faces([next(face.files[0] for face in faces if face.name == "Nokora-Bold")])
    assert [face.name for face in by_file] == ["Nokora-Bold"]


def test_a_folder_given_by_name_does_not_name_its_held_out_fonts(fonts_dir, faces):
    folder = next(face.files[0] for face in faces if face.name == "Nokora-Bold").parent
    with pytest.raises(NoFontsError, match="2 held-out"):
        find_faces([folder])
    assert len(find_faces([folder], heldout=True)) == 2


def test_names_are_found_in_any_spelling(fonts_dir, faces):
    for spelling in ("Khmer OS", "khmeros", "KHMER-OS"):
        assert [face.name for face in find_faces([spelling], fonts_dir=fonts_dir)] == ["KhmerOS"]
    assert [face.name for face in find_faces(["NotoSansKhmer-Bold"], fonts_dir=fonts_dir)] == ["NotoSansKhmer-Bold"]


def test_a_latin_companion_is_the_second_file(faces):
    face = next(face for face in faces if face.name == "Battambang-Regular")
    assert [file.name for file in face.files] == ["Battambang-Regular.ttf", "Battambang-Regular.latin.ttf"]
    assert not any(face.name.endswith("latin") for face in faces)


def test_an_unknown_name_lists_what_there_is(folder):
    with pytest.raises(FontError, match=r"Nowhere.*Families here:.*Noto Sans Khmer"):
        find_faces(["Nowhere"], fonts_dir=folder)
    with pytest.raises(FontError, match=r"missing\.ttf"):
        find_faces([folder / "missing.ttf"])


def test_an_empty_folder_falls_back_on_the_package(tmp_path):
    assert {face.family for face in find_faces(fonts_dir=tmp_path)} == {"Noto Sans Khmer"}


def test_no_fonts_at_all_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "_packaged_files", lambda: iter(()))
    with pytest.raises(NoFontsError, match=r"No Khmer fonts found in .*/ directory") as caught:
        find_faces(fonts_dir=tmp_path)
    assert "khmer-ocr fonts install" in str(caught.value)
    with pytest.raises(NoFontsError, match="No Khmer fonts found in"):
        find_faces([tmp_path])


BROKEN = {
    "Random.ttf": os.urandom(5000),
    "Text.ttf": "ក្រសួងអប់រំ\n".encode() * 50,
    "Empty.ttf": b"",
    "Zeros.ttf": bytes(4096),
    "Header.ttf": b"\x00\x01\x00\x00\xff\xff" + bytes(10),
    "Collection.ttc": b"ttcf\x00\x02\x00\x00\x00\x00\x00\x63" + bytes(4),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named_when_asked_for(folder, name):
    (folder / name).write_bytes(BROKEN[name])
    with pytest.raises(FontError, match=name.replace(".", r"\.")):
        find_faces([folder / name])


def test_broken_files_in_a_folder_are_left_out_and_named(folder, caplog):
    for name, content in BROKEN.items():
        (folder / name).write_bytes(content)
    assert [face.name for face in find_faces([folder])] == ["Good"]
    for name in BROKEN:
        assert name in caplog.text


def test_a_truncated_font_is_refused(folder, noto_file, caplog):
    content = noto_file.read_bytes()
    for part in (0.99, 0.75, 0.5, 0.1, 0.001):
        (folder / "Cut.ttf").write_bytes(content[: int(len(content) * part)])
        with pytest.raises(FontError, match=r"Cut\.ttf"):
            find_faces([folder / "Cut.ttf"])
        assert [face.name for face in find_faces([folder])] == ["Good"]
    assert "cut short" in caplog.text


def test_a_font_without_khmer_is_refused_by_name_and_passed_over_in_a_folder(folder, noto_file, caplog):
    path = without_khmer(noto_file, folder / "Latin.ttf")
    with pytest.raises(FontError, match="no Khmer"):
        find_faces([path])
    assert [face.name for face in find_faces([folder])] == ["Good"]
    assert f"{folder}: 1 passed over (no Khmer letters): Latin.ttf" in caplog.text
    # Among what is installed, or in a system's folders, fonts of other scripts are nothing to speak of.
    caplog.clear()
    assert "Good" in {face.name for face in find_faces(fonts_dir=folder)} and caplog.text == ""


def test_what_is_no_font_file_is_passed_over_and_named(folder, static_file, caplog):
    (folder / "notes.txt").write_text("x")
    (folder / "folder.ttf").mkdir()
    (folder / ".hidden").mkdir()
    shutil.copy(static_file, folder / ".hidden" / "Hidden.ttf")
    (folder / "gone.ttf").symlink_to(folder / "nothing.ttf")
    (folder / "deep" / "er").mkdir(parents=True)
    os.mkfifo(folder / "pipe.ttf")  # opening it blocks for ever
    (folder / "null.otf").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.ttc"))
        assert [face.name for face in find_faces([folder])] == ["Good"]
    (folder / "old.pfb").write_bytes(b"x")
    assert [face.name for face in find_faces([folder])] == ["Good"]
    for said in (
        "(a pipe): pipe.ttf",
        "(a device): null.otf",
        "(a socket): socket.ttc",
        "(a link that leads nowhere): gone.ttf",
        "1 passed over (hidden): .hidden",
        "(not a kind that is read: .ttf .otf .ttc .otc .woff .woff2): old.pfb",
    ):
        assert f"passed over {said}" in caplog.text or said in caplog.text, said
    assert "notes.txt" not in caplog.text


@pytest.mark.parametrize("name", ["pipe.ttf", "device.ttf", "x" * 300 + ".ttf", "gone.ttf", "ok\0.ttf"])
def test_what_cannot_be_opened_as_a_font_is_refused_in_words(tmp_path, name):
    if name == "pipe.ttf":
        os.mkfifo(tmp_path / name)
    elif name != "ok\0.ttf" and len(name) < 100:
        (tmp_path / name).symlink_to("/dev/zero" if name == "device.ttf" else "nowhere")
    with pytest.raises(FontError, match=r"as a font: (a pipe|a device|File name too|a link|embedded null)"):
        find_faces([tmp_path / name])


def test_linked_folders_are_walked_once(tmp_path, folder):
    (tmp_path / "given" / "deep").mkdir(parents=True)
    (tmp_path / "given" / "khmer").symlink_to(folder)
    (tmp_path / "given" / "deep" / "up").symlink_to(tmp_path / "given")
    (tmp_path / "given" / "deep" / "again").symlink_to(folder)
    (folder / "back").symlink_to(tmp_path)
    found = find_faces([tmp_path / "given"])
    assert [face.name for face in found] == ["Good"]
    assert "Good" in {face.name for face in find_faces(fonts_dir=tmp_path / "given")}


def test_a_folder_that_cannot_be_read_costs_itself_only(folder, monkeypatch, caplog):
    (folder / "locked").mkdir()
    plain = Path.iterdir

    def guarded(path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr(Path, "iterdir", guarded)
    assert [face.name for face in find_faces([folder])] == ["Good"]
    assert "1 passed over (folder can't be read: Permission denied): locked" in caplog.text


def test_the_longest_names_and_names_that_are_not_utf_8(tmp_path, static_file):
    folder = tmp_path / os.fsdecode(b"old \xe9 zip")
    folder.mkdir()
    font = TTFont(static_file)
    for number, name in enumerate((os.fsdecode(b"caf\xe9.ttf"), "ក" * 83 + ".ttf")):
        font["head"].fontRevision = 3.0 + number
        font.save(folder / name)
    found = find_faces([folder])
    assert [face.name for face in found] == ["caf\\xe9", "ក" * 83]
    for face in found:
        face.name.encode()  # it goes into metadata
        assert len(Shaper(face).shape("ភាសា")) == 2 and Rasterizer(face).bitmap(0, 30, 1280)[0].size
    assert "\\xe9" in font_table(found)


@pytest.mark.parametrize("kind", ["none named", "limited"])
def test_a_variable_font_without_named_instances_is_one_face(tmp_path, noto_file, kind):
    font = TTFont(noto_file)
    if kind == "limited":
        font = instantiateVariableFont(font, {"wght": (350, 380)})
    font["fvar"].instances = []
    font.save(tmp_path / "Var.ttf")
    (face,) = find_faces([tmp_path / "Var.ttf"])
    assert face.name == "Var-Regular" and find_faces([tmp_path]) == [face]
    assert dict(face.variations) == {"wght": 380.0 if kind == "limited" else 400.0, "wdth": 100.0}
    regular = next(f for f in find_faces([noto_file]) if f.style == "Regular")
    same = [glyph.advance for glyph in Shaper(face).shape("ខ្មែរ")] == [
        glyph.advance for glyph in Shaper(regular).shape("ខ្មែរ")
    ]
    assert same == (kind == "none named")


@pytest.fixture
def web(tmp_path, static_file, monkeypatch) -> Path:
    """A folder with a font in the two formats of the web."""
    monkeypatch.setenv("KHMER_OCR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "web"
    folder.mkdir()
    for number, flavor in enumerate(("woff", "woff2")):
        font = TTFont(static_file)
        font["head"].fontRevision = 5.0 + number
        font.flavor = flavor
        font.save(folder / f"Web{number}.{flavor}")
    return folder


def test_web_fonts_are_unpacked_and_drawn(web, static_file, tmp_path):
    found = find_faces([web])
    assert [face.name for face in found] == ["Web0", "Web1"]
    plain = Shaper(find_faces([static_file])[0])
    for face in found:
        assert Shaper(face).shape("ស្ត្រី") == plain.shape("ស្ត្រី") and Rasterizer(face).bitmap(0, 30, 1280)[0].size
        assert face.files[0].is_relative_to(tmp_path / "cache" / "fonts")
    times = [face.files[0].stat().st_mtime_ns for face in found]
    assert find_faces([web]) == found and find_faces([web / "Web1.woff2"]) == found[1:]
    assert [face.files[0].stat().st_mtime_ns for face in found] == times


def test_an_unpacked_font_that_was_changed_is_unpacked_again(web, caplog):
    found = find_faces([web])
    for face in found:
        content = bytearray(face.files[0].read_bytes())
        content[len(content) // 2] ^= 1
        face.files[0].write_bytes(content)
    assert find_faces([web]) == found
    assert caplog.text.count("does not match its digest") == 2


def test_damaged_web_fonts_are_left_out_and_named(web, caplog):
    for path in list(web.iterdir()):
        content = path.read_bytes()
        path.with_stem("Cut").write_bytes(content[: len(content) // 2])
        path.with_stem("Noise").write_bytes(content[:4] + os.urandom(2000))
    assert [face.name for face in find_faces([web])] == ["Web0", "Web1"]
    for name in ("Cut.woff", "Cut.woff2", "Noise.woff", "Noise.woff2"):
        assert f"{name} can't be unpacked" in caplog.text
        with pytest.raises(FontError, match=rf"{name} can't be unpacked.*\.ttf or \.otf"):
            find_faces([web / name])


def test_held_out_faces_of_a_folder_are_counted(fonts_dir, faces, folder, caplog):
    file = next(face.files[0] for face in faces if face.name == "Nokora-Bold")
    (folder / "Nokora-Bold.ttf").symlink_to(file)
    assert [face.name for face in find_faces([folder])] == ["Good"]
    assert "1 passed over (held out for testing, name a family to draw with it: Nokora): Nokora-Bold" in caplog.text
    caplog.clear()
    assert len(find_faces([folder], heldout=True)) == 2 and caplog.text == ""


def test_the_command_says_what_it_passed_over(folder):
    os.mkfifo(folder / "pipe.ttf")
    command = [sys.executable, "-m", "khmer_ocr", "fonts", "list", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and "Good.ttf" in done.stdout
    assert "1 passed over (a pipe): pipe.ttf" in done.stderr and "Traceback" not in done.stderr


def test_a_font_that_was_replaced_is_another(folder, static_file):
    before = find_faces([folder])[0].sha256
    font = TTFont(static_file)
    font["head"].fontRevision = 9.5
    font.save(folder / "Good.ttf")
    assert find_faces([folder])[0].sha256 != before


def test_the_same_content_counts_once_the_same_name_twice(folder, static_file):
    (folder / "more").mkdir()
    shutil.copy(static_file, folder / "more" / "Copy.ttf")
    assert len(find_faces([folder])) == 1
    font = TTFont(static_file)
    font["head"].fontRevision = 7.5
    font.save(folder / "more" / "Good.ttf")
    found = find_faces([folder])
    assert len(found) == 2 and {face.name[:4] for face in found} in ({"Good"}, {"Copy", "Good"})
    assert len({face.name for face in found}) == 2
    assert find_faces([folder]) == found


def test_collections_give_each_font(folder, static_file, noto_file):
    collection = TTCollection()
    regular, bold = TTFont(static_file), TTFont(static_file)
    bold["name"].setName("Other Khmer", 1, 3, 1, 0x409)
    bold["name"].setName("Other Khmer", 16, 3, 1, 0x409)
    collection.fonts = [regular, TTFont(without_khmer(static_file, folder / "Latin.ttf")), bold]
    collection.save(folder / "Both.ttc")
    found = [face for face in find_faces([folder]) if face.files[0].name == "Both.ttc"]
    assert [(face.name, face.number, face.family) for face in found] == [
        ("Both", 0, "Noto Sans Khmer"),
        ("Both-2", 2, "Other Khmer"),
    ]
    single = find_faces([folder / "Good.ttf"])[0]
    for face in found:
        assert Shaper(face).shape("ស្ត្រី") == Shaper(single).shape("ស្ត្រី")
        assert (Rasterizer(face).bitmap(0, 30, 1280)[0] == Rasterizer(single).bitmap(0, 30, 1280)[0]).all()


def test_system_folders_are_looked_into_when_asked(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "SYSTEM_FOLDERS", (str(folder), str(tmp_path / "missing")))
    assert "Good" in {face.name for face in find_faces(fonts_dir=tmp_path / "none", system=True)}
    assert "Good" not in {face.name for face in find_faces(fonts_dir=tmp_path / "none")}


def test_what_the_bytes_depend_on_is_in_the_sha256(folder, embedded, static_file):
    before = find_faces([folder])[0].sha256
    shutil.copy(folder / "Good.ttf", folder / "Good.latin.ttf")
    assert find_faces([folder])[0].sha256 != before
    assert len({face.sha256 for face in embedded}) == len(embedded)


def test_a_broken_companion_is_fatal_not_silent(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("KHMER_OCR_CACHE", str(tmp_path / "cache"))
    (folder / "Good.latin.ttf").write_bytes(b"\x00" * 100)
    (face,) = find_faces([folder])
    assert len(face.files) == 2
    assert "Good.latin.ttf" in measure_all([face], progress=False)["Good"].fatal


def test_harfbuzz_and_freetype_count_the_same_glyphs(few_faces):
    for face in few_faces:
        shaper, rasteriser = Shaper(face), Rasterizer(face)
        for chain, count in enumerate(shaper.glyph_count):
            rasteriser.bitmap(chain, count - 1, 1280)
            with pytest.raises(FontError, match=face.name):
                rasteriser.bitmap(chain, count, 1280)
    assert hb.version_string()

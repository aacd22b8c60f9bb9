import dataclasses
from pathlib import Path

import pytest

from khmer_ocr.errors import ConfigError
from khmer_ocr.fonts.catalogue import Catalogue, load_catalogue

HELDOUT = {
    "Noto Serif Khmer",
    "Kantumruy Pro",
    "Nokora",
    "Suwannaphum",
    "Khmer Mondulkiri",
    "Khmer Busra",
    "Khmer Busra MOE",
    "Khmer Busra dict",
    "Khmer Busra high",
    "Khmer Busra Bunong",
}
SMALL = """
[[family]]
name = "Nokora"
role = "heldout"

[[package]]
source = "npm"
name = "@fontsource/angkor"
version = "5.3.0"
licence = "OFL-1.1"

[[package.face]]
file = "Angkor-Regular.ttf"
member = "package/files/angkor.woff2"
family = "Angkor"
style = "Regular"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def write(folder: Path, text: str) -> Path:
    path = folder / "fonts.toml"
    path.write_text(text, "utf-8")
    return path


def test_own_catalogue_holds_out_the_test_families_and_no_other(catalogue: Catalogue) -> None:
    faces = [face for package in catalogue.packages for face in package.faces]
    assert {f.family for f in faces if catalogue.role_of(f.family, f.file) == "heldout"} == HELDOUT
    assert len({f.family for f in faces} - HELDOUT) >= 30


def test_own_catalogue_covers_the_sources(catalogue: Catalogue) -> None:
    sources = [package.source for package in catalogue.packages]
    assert (sources.count("debian"), sources.count("npm"), sources.count("pypi")) == (3, 23, 1)
    assert {package.licence for package in catalogue.packages} == {"OFL-1.1", "LGPL-2.1-or-later"}
    khmer_os = next(package for package in catalogue.packages if package.name == "fonts-khmeros")
    assert len(khmer_os.faces) == 12


def test_own_catalogue_names_no_host() -> None:
    text = (Path(__file__).parents[2] / "fonts" / "fonts.toml").read_text("utf-8")
    assert "://" not in text and "www." not in text


def test_companions_follow_the_naming_rule(catalogue: Catalogue) -> None:
    pairs = [(f.file, f.fallback.file) for p in catalogue.packages for f in p.faces if f.fallback]
    assert len(pairs) > 20
    assert all(companion == file.removesuffix(".ttf") + ".latin.ttf" for file, companion in pairs)


@pytest.mark.parametrize(
    ("family", "file", "role"),
    [
        ("Khmer Mondulkiri", "Mondulkiri-R.ttf", "heldout"),
        ("Mondulkiri", "x.ttf", "heldout"),
        ("khmer  busra", "x.ttf", "heldout"),
        ("NotoSerifKhmer", "x.ttf", "heldout"),
        ("Noto Serif Khmer Condensed Black", "x.ttf", "heldout"),
        ("a subset's strange name", "Nokora-Bold.ttf", "heldout"),
        ("a subset's strange name", "Nokora-Bold.latin.ttf", "heldout"),
        ("Suwannaphum", "Angkor-Regular.ttf", "heldout"),
        ("Noto Sans Khmer", "NotoSansKhmer[wdth,wght].ttf", "train"),
        ("Khmer Oureang", "Mo9V55.ttf", "train"),
        ("Khmer Ratanakiri", "RataV53.ttf", "train"),
        ("Khmer", "Khmer-Regular.ttf", "train"),
        ("Noto Serif", "NotoSerif.ttf", "train"),
        ("", "x.ttf", "train"),
    ],
)
def test_role_of(catalogue: Catalogue, family: str, file: str, role: str) -> None:
    assert catalogue.role_of(family, file) == role


def test_longest_matching_family_decides(tmp_path: Path) -> None:
    found = load_catalogue(write(tmp_path, SMALL + '\n[[family]]\nname = "Nokora Hand"\nrole = "train"\n'))
    assert found.role_of("Nokora Black", "x.ttf") == "heldout"
    assert found.role_of("Nokora Hand Bold", "x.ttf") == "train"


def test_licence_of_file_then_family_then_nothing(catalogue: Catalogue) -> None:
    assert catalogue.licence_of("?", "KhmerOSmuol.ttf") == "LGPL-2.1-or-later"
    assert catalogue.licence_of("khmer os muol", "renamed.ttf") == "LGPL-2.1-or-later"
    assert catalogue.licence_of("Hanuman", "renamed.ttf") == "OFL-1.1"
    assert catalogue.licence_of("A family of nobody", "x.ttf") is None


def test_faulty_characters_are_those_of_the_face(catalogue: Catalogue) -> None:
    assert {"a", "z"} <= catalogue.faulty_in("Koulen-Regular.ttf")
    assert "A" not in catalogue.faulty_in("Koulen-Regular.ttf")
    assert {".", "0"} <= catalogue.faulty_in("OdorMeanChey-Regular.latin.ttf")
    assert catalogue.faulty_in("Angkor-Regular.ttf") == frozenset()
    assert catalogue.faulty_in("x.ttf") == frozenset()


def test_entries_are_frozen_and_know_their_folder(tmp_path: Path) -> None:
    package = load_catalogue(write(tmp_path, SMALL)).packages[0]
    assert (package.slug, package.families) == ("angkor", ("Angkor",))
    assert [entry.file for entry in package.files] == ["Angkor-Regular.ttf"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        package.faces[0].style = "Bold"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("[[family]]", "colour = 1\n[[family]]", "colour"),
        ("[[package]]", '[[package]]\nhomepage = "x"', "homepage"),
        ("[[package.face]]", "[[package.face]]\nweight = 400", "weight"),
        ("[[family]]", '[[family]]\nalias = ["x"]', "alias"),
        ('style = "Regular"', 'fallback = { file = "a.ttf", member = "m", sha = "x" }', "sha"),
    ],
)
def test_unknown_key_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"\b{named}: unknown key"):
        load_catalogue(write(tmp_path, SMALL.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('source = "npm"', 'source = "ftp"', r"source: .*'debian', 'npm' or 'pypi'.*'ftp'"),
        ('role = "heldout"', 'role = "test"', "role"),
        ("Angkor-Regular.ttf", "../Angkor-Regular.ttf", r"file: .*\.\./Angkor"),
        ("Angkor-Regular.ttf", ".hidden.ttf", "file"),
        ('"@fontsource/angkor"', '"--prefix=x"', "name: .*--prefix"),
        ('"@fontsource/angkor"', '"../x"', "name"),
        ('version = "5.3.0"', 'version = "latest"', "version"),
        ("0" * 64, "0" * 63, "sha256"),
        ('style = "Regular"\n', "", "style"),
        ('licence = "OFL-1.1"', 'licence = ""', "licence"),
    ],
)
def test_wrong_value_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_catalogue(write(tmp_path, SMALL.replace(old, new, 1)))


def test_package_without_faces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="face"):
        load_catalogue(write(tmp_path, SMALL[: SMALL.index("[[package.face]]")]))


def test_doubles_are_refused(tmp_path: Path) -> None:
    double = SMALL[SMALL.index("[[package]]") :].replace("@fontsource/angkor", "@fontsource/other")
    with pytest.raises(ConfigError, match=r"twice.*: Angkor-Regular\.ttf"):
        load_catalogue(write(tmp_path, SMALL + double))


def test_catalogue_inside_the_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, SMALL)
    monkeypatch.setattr("khmer_ocr.fonts.catalogue.files", lambda _: tmp_path)
    assert [package.slug for package in load_catalogue().packages] == ["angkor"]


def test_broken_or_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fonts\.toml is not valid TOML: .*line 2"):
        load_catalogue(write(tmp_path, "[[package]]\nname = npm\n"))
    (tmp_path / "fonts.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_catalogue(tmp_path / "fonts.toml")
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml"):
        load_catalogue(tmp_path / "none.toml")

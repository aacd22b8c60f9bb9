"""What `fonts.toml` says: which fonts exist as packages, under what licence, with what bytes, and for which role.

Nothing third-party is committed; this list is, and `install.py` fetches what it names.
"""

import tomllib
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from khmer_ocr.errors import ConfigError

Role = Literal["train", "heldout"]
Source = Literal["debian", "npm", "pypi"]

# Names go to package clients and into paths: no leading dash that reads as an option, no slash that leaves a folder.
_PackageName = Annotated[str, StringConstraints(pattern=r"^(@[a-z0-9-]+/)?[a-z0-9][a-z0-9.+-]*$")]
_FontFile = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][^/\\\x00]*\.ttf$")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Version = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.+:~-]*$")]
_Text = Annotated[str, StringConstraints(min_length=1)]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class FileEntry:
    """One font file: its name once installed, where it lies in the package's archive, and the sha256 it has there."""

    __pydantic_config__ = _STRICT

    file: _FontFile
    member: _Text
    sha256: _Sha256


@dataclass(frozen=True)
class FaceEntry:
    """One face that draws Khmer.

    `fallback` is its companion for other scripts. `faulty` holds characters that face and companion draw in a wrong
    shape or not at all: a label that holds one would not be what the ink says.
    """

    __pydantic_config__ = _STRICT

    file: _FontFile
    member: _Text
    family: _Text
    style: _Text
    sha256: _Sha256
    fallback: FileEntry | None = None
    faulty: str = ""

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """The face's own file, then its companion's if it has one."""
        own = FileEntry(self.file, self.member, self.sha256)
        return (own,) if self.fallback is None else (own, self.fallback)


@dataclass(frozen=True)
class PackageEntry:
    """One package of one registry and the faces taken from it."""

    __pydantic_config__ = _STRICT

    source: Source
    name: _PackageName
    version: _Version
    licence: _Text
    faces: Annotated[tuple[FaceEntry, ...], Field(alias="face", min_length=1)]

    @property
    def slug(self) -> str:
        """Folder of the package under `fonts/`: its name without the npm scope."""
        return self.name.rpartition("/")[2]

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Files of all its faces, companions included."""
        return tuple(entry for face in self.faces for entry in face.files)

    @property
    def families(self) -> tuple[str, ...]:
        """Family names of its faces, each once, in order."""
        return tuple(dict.fromkeys(face.family for face in self.faces))


@dataclass(frozen=True)
class FamilyEntry:
    """The role of a type family, under every spelling that name tables use for it."""

    __pydantic_config__ = _STRICT

    name: _Text
    role: Role
    aliases: tuple[_Text, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """All packages and family roles of `fonts.toml`."""

    __pydantic_config__ = _STRICT

    packages: Annotated[tuple[PackageEntry, ...], Field(alias="package")] = ()
    families: Annotated[tuple[FamilyEntry, ...], Field(alias="family")] = ()

    def find(self, file_name: str) -> tuple[PackageEntry, FaceEntry] | None:
        """Look a face up by the name of its file (its own or its companion's), None if it is not in the catalogue."""
        for package in self.packages:
            for face in package.faces:
                if any(entry.file == file_name for entry in face.files):
                    return package, face
        return None

    def role_of(self, family: str, file_name: str) -> Role:
        """Say whether a face may be trained on.

        A family is known by the beginning of its name, blanks and case aside: "Noto Serif Khmer Condensed Black" and
        "NotoSerifKhmer" are Noto Serif Khmer too. Where several entries match, the longest decides. The family from the
        name table and that of the catalogue's entry for the file are both asked, and either can hold a face out: a face
        lost to training costs little, a test face seen in training spoils the test.

        Args:
            family: family name as the font's name table has it.
            file_name: name of the font's file, without folders.

        Returns:
            "heldout" or "train"; "train" for a family that no entry names.
        """
        found = self.find(file_name)
        asked = [family] if found is None else [family, found[1].family]
        return "heldout" if any(self._family_role(name) == "heldout" for name in asked) else "train"

    def licence_of(self, family: str, file_name: str) -> str | None:
        """Name the licence of a face as an SPDX identifier.

        Args:
            family: family name as the font's name table has it.
            file_name: name of the font's file, without folders; asked before the family.

        Returns:
            The identifier, or None if the catalogue knows neither the file nor the family.
        """
        found = self.find(file_name)
        if found is not None:
            return found[0].licence
        expected = compact(family)
        for package in self.packages:
            if expected in map(compact, package.families):
                return package.licence
        return None

    def faulty_in(self, file_name: str) -> frozenset[str]:
        """Name the characters that a face (or its companion) is known to draw wrongly; empty for an unknown file."""
        found = self.find(file_name)
        return frozenset() if found is None else frozenset(found[1].faulty)

    def _family_role(self, family: str) -> Role:
        asked = compact(family)
        best, role = 0, "train"
        for entry in self.families:
            for spelling in map(compact, (entry.name, *entry.aliases)):
                if len(spelling) > best and asked.startswith(spelling):
                    best, role = len(spelling), entry.role
        return "heldout" if role == "heldout" else "train"


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Read and check a font catalogue.

    Args:
        path: a catalogue in TOML; None takes the installed package's, else the repository's `fonts/fonts.toml`.

    Returns:
        The catalogue.

    Raises:
        ConfigError: the file is missing, is not TOML, holds an unknown key or a value of the wrong form, or names a
            package or a font file twice.
    """
    source = _own_catalogue() if path is None else path
    try:
        raw = tomllib.loads(source.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the font catalogue {source}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} is not valid TOML: {error}") from error
    try:
        catalogue = TypeAdapter(Catalogue).validate_python(raw)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain(error)}") from error
    _refuse_doubles(catalogue, source)
    return catalogue


def _own_catalogue() -> Path:
    packaged = Path(str(files("khmer_ocr.fonts") / "fonts.toml"))
    if packaged.is_file():
        return packaged
    return Path(__file__).resolve().parents[2] / "fonts" / "fonts.toml"


def _explain(error: ValidationError) -> str:
    """Say where each slip is and what was expected, one after the other."""
    slips = []
    for slip in error.errors(include_url=False):
        where = ".".join(str(part) for part in slip["loc"])
        what = "unknown key" if slip["type"] == "unexpected_keyword_argument" else slip["msg"]
        slips.append(f"{where}: {what}, seen {slip['input']!r}")
    return "; ".join(slips)


def _refuse_doubles(catalogue: Catalogue, source: Path) -> None:
    names = [package.slug for package in catalogue.packages]
    names += [entry.file for package in catalogue.packages for entry in package.files]
    doubles = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubles:
        raise ConfigError(f"{source} names twice what must be unique: {', '.join(doubles)}")


def compact(name: str) -> str:
    """Reduce a family name to its letters and digits in one case, so that spellings compare."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())

"""Which faces there are: `fonts/`, font packages, paths the user names, the system's folders.

A face is one drawable style: a static file, or one named instance of a variable file (its default where it names none).
`X.ttf` and `X.latin.ttf` side by side are one face with a fallback chain. Faces of families with role `heldout` never
train a model unless asked for by name.
"""

import hashlib
import logging
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import uharfbuzz as hb

from khmer_ocr.errors import FontError, NoFontsError
from khmer_ocr.fonts.catalogue import Catalogue, compact, load_catalogue
from khmer_ocr.fonts.font_files import FALLBACK_SUFFIX, PassedOver, kind_of, printable, unpacked, walk

log = logging.getLogger(__name__)
_NO_KHMER = "no Khmer letters"
SYSTEM_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts")
# Consonants, the common vowels, nikahit, reahmuk and coeng: a font without any of these can't set Khmer.
REQUIRED = frozenset([*range(0x1780, 0x17A2), 0x17A2, *range(0x17B6, 0x17C9), 0x17D2])
# OpenType width classes (usWidthClass, percent of normal) that count as faces where a variable font has the axis.
WIDTH_CLASSES = ((100.0, ""), (87.5, "SemiCondensed"), (75.0, "Condensed"), (62.5, "ExtraCondensed"))


@dataclass(frozen=True)
class FontFace:
    """One drawable face.

    Attributes:
        name: unique name, recorded with every sample.
        family: typographic family.
        style: style within the family.
        files: the Khmer file, then its fallbacks.
        number: index within a collection (.ttc).
        variations: axis settings of a variable font.
        role: "train" or "heldout".
        licence: SPDX identifier or the font's own words.
        faulty: characters that the catalogue knows it draws wrongly; they count as missing.
        sha256: of all files, number, variations and faulty characters.
    """

    name: str
    family: str
    style: str
    files: tuple[Path, ...]
    number: int = 0
    variations: tuple[tuple[str, float], ...] = ()
    role: str = "train"
    licence: str = ""
    faulty: str = ""
    sha256: str = field(default="", repr=False)


def find_faces(
    sources: Sequence[str | Path] | None = None,
    *,
    fonts_dir: Path = Path("fonts"),
    system: bool = False,
    heldout: bool = False,
) -> list[FontFace]:
    """List the usable Khmer faces, sorted by name.

    Args:
        sources: files, folders, or names of families or faces; None takes `fonts_dir` and installed font packages.
        fonts_dir: folder that `khmer-ocr fonts install` fills.
        system: look into the system's font folders too.
        heldout: keep held-out families even where nobody named them.

    Returns:
        Faces with distinct names and distinct content.

    Raises:
        NoFontsError: nothing usable was found.
        FontError: a file or name that was asked for is broken, has no Khmer, or does not exist.
    """
    catalogue = load_catalogue()
    passed = PassedOver()
    default = [*walk(fonts_dir, passed), *_packaged_files()] + ([*_system_files(passed)] if system else [])
    if not sources:
        faces = [face for path in default for face in _read_faces(path, catalogue, passed)]
        # Fonts of other scripts are what most of a system's folders hold.
        passed.by_reason.pop(_NO_KHMER, None)
        _say(passed, str(fonts_dir))
        found = [face for face in faces if heldout or face.role == "train"]
    else:
        found = []
        for source in sources:
            found += _resolve(source, default, catalogue, heldout)
    faces = _distinct(found)
    if not faces:
        raise NoFontsError(
            f"No Khmer fonts found in {fonts_dir}/ directory, nor in font packages. "
            "Run: khmer-ocr fonts install   (or: pip install fontpkg-noto-sans-khmer, or give --fonts PATH)"
        )
    return faces


def _resolve(source: str | Path, default: list[Path], catalogue: Catalogue, heldout: bool) -> list[FontFace]:
    path = Path(source).expanduser()
    kind = kind_of(path)
    if kind == "folder":
        passed = PassedOver()
        faces = [face for file in walk(path, passed) for face in _read_faces(file, catalogue, passed)]
        kept = [face for face in faces if heldout or face.role == "train"]
        if len(kept) < len(faces):
            families = ", ".join(sorted({face.family for face in faces if face.role != "train"}))
            for face in faces:
                if face.role != "train":
                    passed.add(f"held out for testing, name a family to draw with it: {families}", Path(face.name))
        if not kept:
            seen = f"{len(faces)} held-out" if faces else "no"
            why = "; ".join(passed.lines())
            raise NoFontsError(
                f"No Khmer fonts found in {printable(str(path))}/ directory ({seen} faces seen). "
                f"Name a file or a family.{f' {why}' if why else ''}"
            )
        _say(passed, str(path))
        return kept
    if kind == "file":
        return list(_read_faces(path, catalogue))
    if kind:
        raise FontError(f"{printable(str(path))} can't be read as a font: {kind}. Give a .ttf or .otf file.")
    sought = compact(str(source))
    every = [face for file in default for face in _read_faces(file, catalogue, PassedOver())]
    named = [face for face in every if sought in (compact(face.family), compact(face.name))]
    if not named:
        known = ", ".join(sorted({face.family for face in every})) or "none"
        raise FontError(f"No font file, folder, family or face is called {str(source)!r}. Families here: {known}")
    return named


def _distinct(faces: Iterable[FontFace]) -> list[FontFace]:
    by_content = {face.sha256: face for face in faces}
    by_name: dict[str, FontFace] = {}
    for face in sorted(by_content.values(), key=lambda face: (face.name, face.sha256)):
        name = face.name if face.name not in by_name else f"{face.name}-{face.sha256[:6]}"
        by_name[name] = FontFace(**{**face.__dict__, "name": name})
    return sorted(by_name.values(), key=lambda face: face.name)


def _say(passed: PassedOver, folder: str) -> None:
    for line in passed.lines():
        log.warning("%s: %s", printable(folder), line)


def _packaged_files() -> Iterator[Path]:
    import fontpkg

    for family in fontpkg.families().values():
        yield from (Path(file.path) for file in family.files)


def _system_files(passed: PassedOver) -> Iterator[Path]:
    for folder in SYSTEM_FOLDERS:
        yield from walk(Path(folder).expanduser(), passed)


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_of(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_of(path: Path, *_version: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_faces(path: Path, catalogue: Catalogue, passed: PassedOver | None = None) -> Iterator[FontFace]:
    """Faces of one file; one found in a folder, which may hold anything, is counted in `passed` if it is of no use."""
    name = printable(str(path))
    try:
        faces = list(_open_faces(path, catalogue))
    except (FontError, hb.HarfBuzzError, OSError, ValueError, struct.error) as error:
        if passed is None:
            if isinstance(error, FontError):
                raise
            raise FontError(f"{name} can't be read as a font ({error}). Give a .ttf or .otf file.") from error
        log.warning("%s can't be read as a font (%s); it is left out", name, error)
        return
    if not faces:
        if passed is None:
            raise FontError(f"{name} has no Khmer: letters of U+1780..U+17D2 are missing. Give a Khmer font.")
        passed.add(_NO_KHMER, path)
    yield from faces


def _open_faces(path: Path, catalogue: Catalogue) -> Iterator[FontFace]:
    source, path = path, unpacked(path)
    blob = hb.Blob.from_file_path(str(path))
    count = hb.Face(blob).count
    if not count or not hb.Face(blob).glyph_count:
        raise ValueError("no font tables were found in it")
    _refuse_truncated(path, count)
    for number in range(count):
        face = hb.Face(blob, number)
        if not set(face.unicodes) >= REQUIRED:
            continue
        family = face.get_name(16) or face.get_name(1) or printable(path.stem)
        fallback = source.with_name(f"{source.stem}{FALLBACK_SUFFIX}{source.suffix}")
        files = (path, unpacked(fallback)) if kind_of(fallback) == "file" else (path,)
        faulty = "".join(sorted(catalogue.faulty_in(path.name)))
        for style, variations in _styles(face):
            identity = "|".join([*(_digest(file) for file in files), str(number), repr(variations), faulty])
            yield FontFace(
                name=f"{_plain_stem(path)}-{style}"
                if variations
                else _plain_stem(path) + (f"-{number}" if number else ""),
                family=family,
                style=style,
                files=files,
                number=number,
                variations=variations,
                role=catalogue.role_of(family, path.name),
                licence=catalogue.licence_of(family, path.name) or _licence(face),
                faulty=faulty,
                sha256=hashlib.sha256(identity.encode()).hexdigest(),
            )


def _refuse_truncated(path: Path, count: int) -> None:
    """HarfBuzz passes in silence over tables that the file has lost, and would set Khmer without its rules."""
    size = path.stat().st_size
    with path.open("rb") as file:
        starts = [0]
        if file.read(4) == b"ttcf":
            file.seek(12)
            starts = list(struct.unpack(f">{count}I", file.read(4 * count)))
        for start in starts:
            file.seek(start + 4)
            (tables,) = struct.unpack(">H6x", file.read(8))
            for tag, _, offset, length in struct.iter_unpack(">4s3I", file.read(16 * tables)):
                if offset + length > size:
                    name = tag.decode("latin-1")
                    raise ValueError(f"it is cut short: table {name} ends at byte {offset + length} of {size}")


def _plain_stem(path: Path) -> str:
    return printable(path.stem).split("[")[0].replace(" ", "")


def _licence(face: hb.Face) -> str:
    words = face.get_name(13) or face.get_name(14) or ""
    if "SIL Open Font License" in words or "OFL" in words:
        return "OFL-1.1"
    return words.split(".")[0][:80] or "not stated"


def _styles(face: hb.Face) -> Iterator[tuple[str, tuple[tuple[str, float], ...]]]:
    """Style names and axis settings: named instances, times the width classes where there is a width axis.

    A variable font that names none (fontTools' instancer drops them where it limits an axis) has its default; a static
    one has no axes.
    """
    axes = {axis.tag: axis for axis in face.axis_infos}
    tags = [axis.tag for axis in face.axis_infos]
    if not face.named_instances:
        name = face.get_name(17) or face.get_name(2) or "Regular"
        yield name, tuple(sorted((axis.tag, axis.default_value) for axis in face.axis_infos))
        return
    seen = set()
    for instance in face.named_instances:
        weight_name = face.get_name(instance.subfamily_name_id) or "Instance"
        setting = dict(zip(tags, instance.design_coords, strict=True))
        for width, width_name in WIDTH_CLASSES if "wdth" in axes else ((None, ""),):
            if width is not None:
                if not axes["wdth"].min_value <= width <= axes["wdth"].max_value:
                    continue
                setting = {**setting, "wdth": width}
            variations = tuple(sorted(setting.items()))
            if variations not in seen:
                seen.add(variations)
                yield width_name + weight_name, variations

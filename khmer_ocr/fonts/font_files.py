"""Font files in folders, whatever else lies there: linked folders, pipes, formats of the web, names from old zips.

Nothing is left out without a word: what is passed over is counted by reason and named. WOFF and WOFF2 are unpacked into
the cache folder, by a process of its own with limits, for they come from anywhere and unpack to any size.
"""

import hashlib
import io
import logging
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from khmer_ocr.errors import FontError
from khmer_ocr.io.atomic import replacing
from khmer_ocr.io.cache_dir import cache_dir
from khmer_ocr.io.worker_process import DYING_S, WorkerProcess, end_of, parent_pipe
from khmer_ocr.text.label_normalizer import some

log = logging.getLogger(__name__)
SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
WEB_SUFFIXES = (".woff", ".woff2")
# Fonts of kinds that neither HarfBuzz nor FreeType shape as OpenType.
_OTHER_SUFFIXES = (".pfa", ".pfb", ".dfont", ".eot", ".suit", ".pcf", ".bdf", ".fon", ".svgz", ".ufo", ".glyphs")
FALLBACK_SUFFIX = ".latin"
_UNPACK_S = 60.0
_UNPACK_BYTES = 2 << 30


@dataclass
class PassedOver:
    """What was not taken from a folder, by reason."""

    by_reason: dict[str, list[Path]] = field(default_factory=dict)

    def add(self, reason: str, path: Path) -> None:
        """Count one thing."""
        self.by_reason.setdefault(reason, []).append(path)

    def lines(self) -> list[str]:
        """One line a reason: how many, why, the first few names."""
        said = []
        for reason, paths in self.by_reason.items():
            said.append(f"{len(paths)} passed over ({reason}): {some(printable(path.name) for path in paths)}")
        return said


def printable(name: str) -> str:
    r"""A file's name as text that can be written: bytes that are not UTF-8 (names from old zips) become \xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def kind_of(path: Path) -> str:
    """What a path is: "file", "folder", "" (nothing is there), or in words what can't be opened as a font."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link that leads nowhere" if path.is_symlink() else ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return "file" if stat.S_ISREG(mode) else "folder"
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "no file")


def walk(folder: Path, passed: PassedOver) -> Iterator[Path]:
    """Font files of a folder and all below it, linked folders included, each folder once, in the order of their names.

    Args:
        folder: where to look; nothing is found in what is no folder.
        passed: takes up what was not taken, and why.

    Yields:
        Regular files with the suffix of a font; companions for other scripts (X.latin.ttf) go with their own.
    """
    yield from sorted(_files(folder, passed, set()))


def _files(folder: Path, passed: PassedOver, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return  # reached by another way already, or a link to a folder that it lies in
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        passed.add(f"folder can't be read: {error.strerror}", folder)
        return
    for path in entries:
        suffix = path.suffix.lower()
        kind = kind_of(path)
        is_font = suffix in SUFFIXES or suffix in WEB_SUFFIXES
        if path.name.startswith("."):
            if is_font or kind == "folder":
                passed.add("hidden", path)
        elif kind == "folder":
            yield from _files(path, passed, seen)
        elif is_font and kind != "file":
            passed.add(kind, path)
        elif is_font and not path.stem.endswith(FALLBACK_SUFFIX):
            yield path
        elif suffix in _OTHER_SUFFIXES:
            passed.add(f"not a kind that is read: {' '.join((*SUFFIXES, *WEB_SUFFIXES))}", path)


def unpacked(path: Path) -> Path:
    """The OpenType file that a WOFF or WOFF2 holds, kept in the cache folder; any other path as it is.

    Raises:
        FontError: it can't be unpacked, or the cache folder can't be written.
        OSError: it can't be read.
    """
    if path.suffix.lower() not in WEB_SUFFIXES:
        return path
    packed = path.read_bytes()
    folder = cache_dir() / "fonts" / hashlib.sha256(packed).hexdigest()[:32]
    file, digest = folder / f"{path.stem}.ttf", folder / "sha256"
    try:
        if file.is_file() and digest.read_text(encoding="ascii") == hashlib.sha256(file.read_bytes()).hexdigest():
            return file
        if file.exists() or digest.exists():
            log.warning("%s does not match its digest; %s is unpacked again", file, printable(str(path)))
    except (OSError, UnicodeDecodeError):
        log.debug("%s is not unpacked yet", path)
    content = _unpack_in_child(path, packed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial:
            partial.write_bytes(content)
        with replacing(digest) as partial:
            partial.write_text(hashlib.sha256(content).hexdigest(), encoding="ascii")
    except OSError as error:
        raise FontError(
            f"{printable(str(path))} can't be unpacked into {folder} ({error.strerror}). Make it writable, or name "
            "another folder in KHMER_OCR_CACHE."
        ) from error
    return file


def _unpack_in_child(path: Path, packed: bytes) -> bytes:
    child = WorkerProcess("khmer_ocr.fonts.font_files", packed, keep_stderr=True)
    try:
        if not child.pipe.poll(_UNPACK_S):
            raise FontError(f"unpacking {printable(str(path))} took over {_UNPACK_S:g} s. Leave this font out.")
        return child.pipe.recv_bytes(_UNPACK_BYTES)
    except (EOFError, OSError):
        code = child.end(DYING_S)
        raise FontError(
            f"{printable(str(path))} can't be unpacked ({child.last_words or end_of(code)}). "
            "Give the .ttf or .otf that it was made from."
        ) from None
    finally:
        child.end()


def as_opentype(packed: bytes) -> bytes:
    """Unpack a WOFF or WOFF2, to the same bytes each time: fontTools would otherwise stamp the time of the conversion.

    Raises:
        TTLibError: it is none, or is damaged.
    """
    from fontTools.ttLib import TTFont

    out = io.BytesIO()
    with TTFont(io.BytesIO(packed), recalcBBoxes=False, recalcTimestamp=False) as font:
        font.flavor = None
        font.save(out)
    return out.getvalue()


def main() -> None:
    """Unpack standard input, in so many bytes of memory, and send it; the last line of errors says why not."""
    import resource

    pipe = parent_pipe()
    resource.setrlimit(resource.RLIMIT_AS, (_UNPACK_BYTES, _UNPACK_BYTES))
    try:
        pipe.send_bytes(as_opentype(sys.stdin.buffer.read()))
    except Exception as error:  # whatever hostile bytes make fontTools raise goes to the parent, in one line
        raise SystemExit(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


if __name__ == "__main__":
    main()

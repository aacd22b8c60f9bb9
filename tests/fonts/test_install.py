import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
import uharfbuzz
from backports import zstd
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

from khmer_ocr.errors import ConfigError, FontError, OutputError
from khmer_ocr.fonts.catalogue import Catalogue, FaceEntry, FileEntry, PackageEntry, load_catalogue
from khmer_ocr.fonts.install import RECORD, InstallReport, install_fonts
from khmer_ocr.io import locks

KHMER, LATIN, LICENCE = "package/files/tiny-khmer.woff2", "package/files/tiny-latin.woff2", "package/LICENSE"


def make_font(character: str, flavor: str | None = "woff2") -> bytes:
    pen = TTGlyphPen(None)
    for move, point in ((pen.moveTo, (0, 0)), (pen.lineTo, (500, 0)), (pen.lineTo, (0, 500))):
        move(point)
    pen.closePath()
    glyph = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "a"])
    builder.setupCharacterMap({ord(character): "a"})
    builder.setupGlyf({".notdef": glyph, "a": glyph})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "a": (500, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Tiny", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.font.flavor = flavor
    out = io.BytesIO()
    builder.save(out)
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


FILES = {KHMER: make_font("ក"), LATIN: make_font("a"), LICENCE: b"a licence\n"}


def make_tar(contents: Mapping[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in contents.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_deb(data: bytes, name: str) -> bytes:
    """An ar archive as dpkg makes it; members of odd length are padded."""
    deb = b"!<arch>\n"
    for member, content in (("debian-binary", b"2.0\n"), ("control.tar.gz/", b"odd"), (name, data)):
        deb += f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        deb += b"\n" * (len(content) % 2)
    return deb


def tiny(name: str = "@test/tiny", file: str = "Tiny-Regular") -> PackageEntry:
    companion = FileEntry(f"{file}.latin.ttf", LATIN, sha256(FILES[LATIN]))
    face = FaceEntry(f"{file}.ttf", KHMER, "Tiny", "Regular", sha256(FILES[KHMER]), companion)
    return PackageEntry("npm", name, "1.0.0", "OFL-1.1", (face,))


class Bench:
    """A destination, and a PATH on which only clients made by the test stand before the system's tools."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.fonts, self.bin = folder, folder / "fonts", folder / "bin"
        self.bin.mkdir()
        for tool in ("sh", "cat", "cp", "sleep", "touch", "test"):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        monkeypatch.setenv("PATH", str(self.bin))

    def client(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!{self.bin}/sh\n{script}\n")
        path.chmod(0o755)

    def serve(self, archive: bytes) -> None:
        (self.folder / "served.tgz").write_bytes(archive)
        self.client("npm", f'cp "{self.folder}/served.tgz" tiny-1.0.0.tgz; echo "$@" >> "{self.folder}/calls"')

    def install(self, *packages: PackageEntry, timeout_s: float = 20.0, **options: Any) -> InstallReport:
        catalogue = Catalogue(packages or (tiny(),))
        return install_fonts(self.fonts, progress=False, catalogue=catalogue, timeout_s=timeout_s, **options)

    def failure(self, *packages: PackageEntry, **options: Any) -> str:
        """Let the install fail and return its message; nothing half-made may stay behind."""
        with pytest.raises(FontError) as caught:
            self.install(*packages, **options)
        assert not list(self.fonts.glob(".*"))
        return str(caught.value)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_npm_package_is_converted_and_recorded(bench: Bench) -> None:
    bench.serve(make_tar(FILES))
    assert bench.install() == InstallReport(installed=("@test/tiny",))
    folder = bench.fonts / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [RECORD, "LICENSE", "Tiny-Regular.latin.ttf", "Tiny-Regular.ttf"]
    )
    assert (folder / "LICENSE").read_bytes() == FILES[LICENCE]
    font = folder / "Tiny-Regular.ttf"
    assert font.read_bytes()[:4] == b"\0\1\0\0"
    assert ord("ក") in uharfbuzz.Face(font.read_bytes()).unicodes
    with TTFont(font) as opened, TTFont(io.BytesIO(FILES[KHMER])) as source:
        assert opened["name"].getDebugName(1) == "Tiny"
        assert opened["head"].modified == source["head"].modified
    record = json.loads((folder / RECORD).read_text())
    assert record["files"]["Tiny-Regular.ttf"]["source_sha256"] == sha256(FILES[KHMER])
    assert "pack --ignore-scripts --loglevel=error @test/tiny@1.0.0" in (bench.folder / "calls").read_text()
    assert [path.name for path in bench.fonts.iterdir()] == ["tiny"]


def test_what_is_in_place_is_not_fetched_again(bench: Bench) -> None:
    bench.serve(make_tar(FILES))
    bench.install()
    bench.client("npm", "exit 1")
    assert bench.install() == InstallReport(present=("@test/tiny",))


def test_conversion_gives_the_same_bytes_each_time(bench: Bench) -> None:
    bench.serve(make_tar(FILES))
    bench.install()
    font = bench.fonts / "tiny" / "Tiny-Regular.ttf"
    first = font.read_bytes()
    shutil.rmtree(bench.fonts)
    time.sleep(1.1)  # a time stamp would have moved on by a second
    bench.install()
    assert font.read_bytes() == first


@pytest.mark.parametrize("damage", ["font", "record", "missing"])
def test_damaged_install_is_made_anew(bench: Bench, damage: str) -> None:
    bench.serve(make_tar(FILES))
    bench.install()
    font, record = bench.fonts / "tiny" / "Tiny-Regular.latin.ttf", bench.fonts / "tiny" / RECORD
    whole = font.read_bytes()
    if damage == "font":
        font.write_bytes(whole[:-1])
    elif damage == "record":
        record.write_text(record.read_text()[:40])
    else:
        font.unlink()
    assert bench.install() == InstallReport(installed=("@test/tiny",))
    assert font.read_bytes() == whole


def test_wrong_sha256_is_refused_and_named(bench: Bench) -> None:
    # The last byte differs from build to build of the font, which carries its date.
    tampered = FILES[KHMER][:-1] + bytes([FILES[KHMER][-1] ^ 1])
    bench.serve(make_tar({**FILES, KHMER: tampered}))
    message = bench.failure()
    assert all(part in message for part in (KHMER, sha256(tampered), sha256(FILES[KHMER]), "tiny-1.0.0.tgz"))
    assert not list(bench.fonts.iterdir())


def test_failed_update_leaves_the_old_version(bench: Bench) -> None:
    bench.serve(make_tar(FILES))
    bench.install()
    before = {path: path.read_bytes() for path in (bench.fonts / "tiny").iterdir()}
    bench.client("npm", "exit 1")
    bench.failure(replace(tiny(), version="1.0.1"))
    assert {path: path.read_bytes() for path in (bench.fonts / "tiny").iterdir()} == before
    bench.serve(make_tar(FILES))
    assert bench.install(replace(tiny(), version="1.0.1")).installed == ("@test/tiny",)


def test_one_failure_does_not_stop_the_others(bench: Bench) -> None:
    archive = bench.folder / "good.tgz"
    archive.write_bytes(make_tar(FILES))
    bench.client("npm", f'case "$*" in *bad*) echo "E404 no such thing" >&2; exit 7;; esac; cp "{archive}" x.tgz')
    message = bench.failure(tiny("@test/bad", "Bad"), tiny("@test/one", "One"), tiny("@test/two", "Two"))
    assert "1 of 3 font packages" in message and "(2 installed" in message
    assert "@test/bad: npm pack" in message and "status 7: E404 no such thing" in message
    assert sorted(path.name for path in bench.fonts.iterdir()) == ["one", "two"]


def test_update_that_cannot_be_put_in_place_leaves_the_old_version(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.serve(make_tar(FILES))
    bench.install()
    before = {path: path.read_bytes() for path in (bench.fonts / "tiny").iterdir()}
    rename = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    assert "No space left on device" in bench.failure(replace(tiny(), version="1.0.1"))
    assert {path: path.read_bytes() for path in (bench.fonts / "tiny").iterdir()} == before


def wait_for_end(pid_file: Path) -> None:
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":  # dead, and only waits for its parent
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} outlived the install")


def test_hanging_client_is_killed_with_its_children(bench: Bench) -> None:
    bench.client("npm", f'sleep 60 & echo $! > "{bench.folder}/child"; wait')
    start = time.monotonic()
    message = bench.failure(timeout_s=0.5)
    assert time.monotonic() - start < 10
    assert "did not end within 0.5 s" in message
    wait_for_end(bench.folder / "child")


def test_interrupt_ends_at_once_and_cleans_up(bench: Bench) -> None:
    bench.client("npm", f'sleep 60 & echo $! > "{bench.folder}/child"; touch "{bench.folder}/ready"; wait')
    code = "import sys; from pathlib import Path; from khmer_ocr.fonts.install import install_fonts\n"
    code += "install_fonts(Path(sys.argv[1]), only=['angkor', 'moul'], progress=False)"
    process = subprocess.Popen([sys.executable, "-c", code, bench.fonts], stderr=subprocess.PIPE, text=True)
    while not (bench.folder / "ready").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in said
    assert not list(bench.fonts.iterdir())
    wait_for_end(bench.folder / "child")


@pytest.mark.parametrize(("source", "client"), [("npm", "npm"), ("debian", "apt-cache"), ("debian", "apt-get")])
def test_missing_client_is_named(bench: Bench, source: str, client: str) -> None:
    if client != "apt-cache":
        bench.client("apt-cache", "echo ' x | 1.0.0 | y'")
    message = bench.failure(replace(tiny("tiny"), source=source))  # type: ignore[arg-type]
    assert f"tiny: {client} was not found. " in message and "--from" in message


def test_members_that_leave_the_folder_have_no_effect(bench: Bench) -> None:
    evil = f"{bench.folder}/evil"
    link = tarfile.TarInfo("package/link")
    link.type, link.linkname = tarfile.SYMTYPE, str(bench.folder)
    contents: dict[str, bytes | tarfile.TarInfo] = {
        "../../../evil": b"x",
        "package/../../../../evil": b"x",
        evil: b"x",
        "package/link": link,
        "package/link/evil": b"x",
        **FILES,
    }
    bench.serve(make_tar(contents))
    before = {path for path in bench.folder.rglob("*")} | {bench.folder / "calls"}
    bench.install()
    made = {path for path in bench.folder.rglob("*")} - before
    assert made == {bench.fonts, bench.fonts / "tiny", *(bench.fonts / "tiny").iterdir()}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_member_must_be_a_plain_file(bench: Bench, kind: bytes) -> None:
    link = tarfile.TarInfo(LICENCE)
    link.type, link.linkname = kind, str(Path(__file__).resolve())
    bench.serve(make_tar({**FILES, LICENCE: link}))
    assert f"{LICENCE} is not a plain file" in bench.failure()


def test_missing_member_is_named(bench: Bench) -> None:
    bench.serve(make_tar({KHMER: FILES[KHMER], LICENCE: b"x"}))
    assert f"tiny-1.0.0.tgz has no {LATIN}" in bench.failure()


def test_archive_that_unpacks_to_too_much_is_refused(bench: Bench) -> None:
    bench.serve(gzip.compress(bytes(65 << 20), 1))
    assert "unpacks to more than" in bench.failure()


@pytest.mark.parametrize(
    "archive",
    [b"", b"not an archive", make_tar(FILES)[:-40], gzip.compress(b"no tar" * 200, mtime=0)],
    ids=["empty", "text", "cut", "gzip"],
)
def test_damaged_archive_is_refused(bench: Bench, archive: bytes) -> None:
    bench.serve(archive)
    assert "tiny-1.0.0.tgz" in bench.failure()
    assert not list(bench.fonts.iterdir())


def test_client_that_leaves_no_archive(bench: Bench) -> None:
    bench.client("npm", "exit 0")
    assert "left 0 files" in bench.failure()


def test_font_without_khmer_is_refused(bench: Bench) -> None:
    bench.serve(make_tar(FILES))
    face = FaceEntry("Tiny.ttf", LATIN, "Tiny", "Regular", sha256(FILES[LATIN]))
    assert "Tiny.ttf does not map U+1780" in bench.failure(replace(tiny(), faces=(face,)))


def test_folder_of_the_user_is_not_touched(bench: Bench) -> None:
    bench.serve(make_tar(FILES))
    own = bench.fonts / "tiny" / "mine.ttf"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    assert "was not made by this command" in bench.failure()
    assert own.read_bytes() == b"mine" and not (own.parent / RECORD).exists()


def test_only(bench: Bench) -> None:
    bench.serve(make_tar(FILES))
    packages = tiny("@test/one", "One"), tiny("@test/two", "Two")
    assert bench.install(*packages, only=("two",)).installed == ("@test/two",)
    assert bench.install(*packages, only=("TINY",)) == InstallReport(installed=("@test/one",), present=("@test/two",))
    with pytest.raises(ConfigError, match=r"called three\. Known packages: one, two"):
        bench.install(*packages, only=("one", "three"))


def test_second_install_at_once_is_refused(bench: Bench) -> None:
    with (
        locks.held(bench.fonts / ".install.lock"),
        pytest.raises(FontError, match="another install is at work"),
    ):
        bench.install()


def test_leftovers_of_a_killed_install_are_removed(bench: Bench) -> None:
    bench.serve(make_tar(FILES))
    left = bench.fonts / ".installing" / "tiny" / "new"
    left.mkdir(parents=True)
    (left / "Tiny-Regular.ttf").write_bytes(b"half")
    bench.install()
    assert [path.name for path in bench.fonts.iterdir()] == ["tiny"]


def test_destination_that_cannot_be_written(bench: Bench) -> None:
    bench.fonts.write_text("a file")
    with pytest.raises(OutputError, match=r"fonts can't be written: "):
        bench.install()


class Debian:
    """A package `tiny` of Debian, offered by clients that stand in for apt's."""

    def __init__(self, bench: Bench, version: str = "1.0.0") -> None:
        self.bench = bench
        self.font = make_font("ក", None)
        files = {"./usr/share/fonts/tiny.ttf": self.font, "./usr/share/doc/tiny/copyright": b"a licence\n"}
        self.deb = make_deb(lzma.compress(make_tar(files, "w:")), "data.tar.xz")
        (bench.folder / "tiny.deb").write_bytes(self.deb)
        self.calls, lists = bench.folder / "calls", bench.folder / "lists"
        lists.touch()
        bench.client("apt-cache", f"test -e '{lists}' && echo ' tiny | {version} | somewhere main' || exit 0")
        bench.client(
            "apt-get",
            f"echo \"$@\" >> '{self.calls}'; test $1 = update && touch '{lists}' || "
            f"cp '{bench.folder}/tiny.deb' tiny_{version}_all.deb",
        )
        self.lists = lists
        face = FaceEntry("Tiny.ttf", "usr/share/fonts/tiny.ttf", "Tiny", "Regular", sha256(self.font))
        self.entry = PackageEntry("debian", "tiny", "1.0.0", "OFL-1.1", (face,))


def test_debian_package_keeps_its_bytes(bench: Bench) -> None:
    debian = Debian(bench)
    assert bench.install(debian.entry).installed == ("tiny",)
    assert (bench.fonts / "tiny" / "Tiny.ttf").read_bytes() == debian.font
    assert (bench.fonts / "tiny" / "copyright").read_bytes() == b"a licence\n"
    assert debian.calls.read_text() == "download tiny=1.0.0\n"
    assert bench.install(debian.entry).present == ("tiny",)


def test_debian_release_with_another_version_serves_too(bench: Bench) -> None:
    debian = Debian(bench, "1.0.0-7")
    assert bench.install(debian.entry).installed == ("tiny",)
    assert debian.calls.read_text() == "download tiny\n"
    assert bench.install(debian.entry).present == ("tiny",)


def test_apt_without_lists(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    debian = Debian(bench)
    debian.lists.unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "Run: sudo apt-get update" in bench.failure(debian.entry)
    assert not debian.calls.exists()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert bench.install(debian.entry).installed == ("tiny",)
    assert debian.calls.read_text() == "update\ndownload tiny=1.0.0\n"


def test_apt_that_does_not_offer_the_package(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    debian = Debian(bench)
    bench.client("apt-cache", "exit 0")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    faces = (replace(debian.entry.faces[0], file="Other.ttf"),)
    message = bench.failure(debian.entry, replace(debian.entry, name="other", faces=faces))
    assert message.count("no package source of this system offers") == 2
    assert debian.calls.read_text() == "update\n"


@pytest.mark.parametrize("name", ["test-tiny-1.0.0.tgz", "tiny-1.0.0.tgz"])
def test_archives_from_a_folder(bench: Bench, name: str) -> None:
    debian = replace(Debian(bench).entry, name="other")
    debian = replace(debian, faces=(replace(debian.faces[0], file="Other.ttf"),))
    archives = bench.folder / "archives"
    archives.mkdir()
    (archives / name).write_bytes(make_tar(FILES))
    assert bench.install(archives=archives).installed == ("@test/tiny",)
    assert not (bench.folder / "calls").exists()
    message = bench.failure(debian, archives=archives)
    assert "archives holds no other_1.0.0_*.deb or other_*.deb" in message and "apt-get download other" in message
    with pytest.raises(ConfigError, match=r"none is no folder"):
        bench.install(archives=bench.folder / "none")


@pytest.mark.parametrize(
    ("pack", "suffix"), [(lzma.compress, ".xz"), (zstd.compress, ".zst"), (gzip.compress, ".gz"), (bytes, "")]
)
def test_a_debian_archive_from_a_folder(bench: Bench, pack: Callable[[bytes], bytes], suffix: str) -> None:
    debian = Debian(bench)
    tar = lzma.decompress(debian.deb[debian.deb.index(b"\xfd7zXZ") :].rstrip(b"\n"))
    (bench.folder / "tiny_9_all.deb").write_bytes(make_deb(pack(tar), f"data.tar{suffix}"))
    assert bench.install(debian.entry, archives=bench.folder).installed == ("tiny",)
    assert (bench.fonts / "tiny" / "Tiny.ttf").read_bytes() == debian.font


@pytest.mark.parametrize("deb", [b"", b"text" * 99, b"!<arch>\n" + b" " * 60, make_deb(b"no xz", "data.tar.xz")])
def test_a_damaged_debian_archive_is_refused(bench: Bench, deb: bytes) -> None:
    (bench.folder / "tiny_1.0.0_all.deb").write_bytes(deb)
    assert "tiny_1.0.0_all.deb is damaged: " in bench.failure(Debian(bench).entry, archives=bench.folder)


class Registry(BaseHTTPRequestHandler):
    """Serves archives by their path; one under /slow/ comes a byte at a time."""

    served: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        place = self.path.removeprefix("/slow").removeprefix("/cut")
        if place not in self.served:
            return self.send_error(404)
        content = self.served[place]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.path.startswith("/cut"):
            content = content[:-40]
        step = 1 if self.path.startswith("/slow") else len(content)
        with suppress(OSError):  # the client has gone
            for start in range(0, len(content), step):
                self.wfile.write(content[start : start + step])
                time.sleep(0.02 if step == 1 else 0)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def registry() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_archives_from_an_address(bench: Bench, registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    debian = Debian(bench).entry
    Registry.served = {
        "/npm/@test/one/-/one-1.0.0.tgz": make_tar(FILES),
        "/pool/main/t/tiny/tiny_1.0.0_all.deb": (bench.folder / "tiny.deb").read_bytes(),
    }
    monkeypatch.setenv("KHMER_OCR_NPM", f"{registry}/npm/")
    monkeypatch.setenv("KHMER_OCR_DEBIAN", registry)
    assert bench.install(tiny("@test/one", "One"), debian).installed == ("@test/one", "tiny")
    assert not (bench.folder / "calls").exists()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("/none", ("was answered by 404", "Check KHMER_OCR_NPM")),
        ("/wrong", ("has sha256", "It was not installed")),
        ("/cut", ("damaged",)),
        ("/slow", ("could not be fetched: not done within 1 s",)),
        ("ftp", ("KHMER_OCR_NPM gives ftp", "http:// or https:// is expected")),
        ("gone", ("could not be fetched", "check KHMER_OCR_NPM")),
    ],
)
def test_an_address_with_faults(
    bench: Bench, registry: str, monkeypatch: pytest.MonkeyPatch, place: str, words: tuple[str, ...]
) -> None:
    name = "/@test/tiny/-/tiny-1.0.0.tgz"
    Registry.served = {name: make_tar(FILES), f"/wrong{name}": make_tar({**FILES, LATIN: b"another font"})}
    base = {"ftp": "ftp://127.0.0.1", "gone": "http://127.0.0.1:9"}.get(place, registry + place)
    monkeypatch.setenv("KHMER_OCR_NPM", base)
    start = time.monotonic()
    message = bench.failure(timeout_s=1.0 if place == "/slow" else 20.0)
    assert all(word in message for word in words), message
    assert time.monotonic() - start < 10


def test_pip_package_is_checked_not_fetched(bench: Bench) -> None:
    noto = next(package for package in load_catalogue().packages if package.source == "pypi")
    assert bench.install(noto) == InstallReport(present=(noto.name,))
    assert "Run: python -m pip install no-such-font==2.4" in bench.failure(replace(noto, name="no-such-font"))
    here = replace(noto, version=metadata.version(noto.name))
    wrong = replace(here, faces=(replace(noto.faces[0], sha256="0" * 64),))
    assert "expected 000000" in bench.failure(wrong)


def test_the_report_says_what_is_where(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.serve(make_tar(FILES))
    packages = tiny("@test/one", "One"), tiny("@test/two", "Two")
    bench.install(*packages, only=("two",))
    monkeypatch.chdir(bench.folder)
    report = install_fonts(Path("fonts"), progress=False, catalogue=Catalogue(packages))
    assert str(report).splitlines() == [
        "Font packages in fonts",
        "  installed          1",
        "  in place before    1",
        "  font files         2",
        "  families           1",
        "  @test/one  installed",
        "  @test/two  in place before",
        "Next: khmer-ocr fonts check",
    ]
    many = InstallReport(installed=tuple(map(str, range(1234))), destination=Path("elsewhere"), files=3, families=2)
    assert str(many).splitlines() == [
        "Font packages in elsewhere",
        "  installed       1234",
        "  in place before    0",
        "  font files         3",
        "  families           2",
        "Next: khmer-ocr fonts check --fonts-dir elsewhere",
    ]


def check_installed(folder: Path, name: str) -> None:
    package = next(package for package in load_catalogue().packages if package.slug == name)
    for face in package.faces:
        with TTFont(folder / name / face.file) as font:
            assert face.family == font["name"].getDebugName(1)
        for entry, character in zip(face.files, "កa", strict=False):
            unicodes = uharfbuzz.Face((folder / name / entry.file).read_bytes()).unicodes
            assert ord(character) in unicodes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "client", "licence"), [("koulen", "npm", "LICENSE"), ("fonts-khmeros", "apt-get", "copyright")]
)
def test_real_package(tmp_path: Path, name: str, client: str, licence: str) -> None:
    if shutil.which(client) is None:
        pytest.skip(f"{client} is not on this machine")
    assert len(install_fonts(tmp_path, only=[name], progress=False).installed) == 1
    check_installed(tmp_path, name)
    assert "licen" in (tmp_path / name / licence).read_text("utf-8", errors="replace").lower()
    assert len(install_fonts(tmp_path, only=[name], progress=False).present) == 1


@pytest.mark.slow
def test_real_npm_that_has_no_such_version(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not on this machine")
    koulen = next(package for package in load_catalogue().packages if package.slug == "koulen")
    expected = Catalogue((replace(koulen, version="0.0.999"),))
    with pytest.raises(FontError, match=r"koulen: npm pack .*@0\.0\.999 failed"):
        install_fonts(tmp_path, progress=False, catalogue=expected)

import bz2
import gzip
import io
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr.corpus import readers, text_streams
from khmer_ocr.corpus.input_files import FORMATS, find_input_files, scan_input_files
from khmer_ocr.corpus.mediawiki import plain_text
from khmer_ocr.corpus.pipeline import process_corpus
from khmer_ocr.corpus.readers import read_documents
from khmer_ocr.corpus.remote_files import size_bytes
from khmer_ocr.corpus.settings import CorpusConfig
from khmer_ocr.errors import CorpusError, MissingExtraError

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstd.compress,
}
TEXTS = ["ផ្ទះ​តូច\nនៅ​ជិត​ទន្លេ", "ឆ្មា ២ ក្បាល"]


def texts(path: Path, dropped: Counter[str] | None = None) -> list[str]:
    return [document.text for document in read_documents(path, dropped=dropped)]


def wiki(*pages: str, head: str = "") -> str:
    siteinfo = '<siteinfo><namespaces><namespace key="6">រូបភាព</namespace></namespaces></siteinfo>'
    return f'{head}<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">{siteinfo}{"".join(pages)}</mediawiki>'


def page(text: str, ns: int = 0, extra: str = "") -> str:
    revision = f"<revision><id>7</id><model>wikitext</model><text>{text}</text></revision>"
    return f"<page><title>ក</title><ns>{ns}</ns><id>1</id>{extra}{revision}</page>"


def as_parquet(values: Sequence[str | None], column: str = "text") -> bytes:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pa.table({"id": list(range(len(values))), column: values}), sink, row_group_size=3)
    return sink.getvalue()


def content(suffix: str) -> bytes:
    if suffix == ".txt":
        return ("\n\n".join(TEXTS) + "\n").encode()
    if suffix == ".jsonl":
        return "\n".join(json.dumps({"id": 1, "text": text}) for text in TEXTS).encode()
    if suffix == ".xml":
        return wiki(*map(page, TEXTS)).encode()
    return as_parquet(TEXTS)


@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_in_every_compression(tmp_path: Path, suffix: str, compression: str) -> None:
    path = tmp_path / f"corpus{suffix}{compression}"
    path.write_bytes(PACK[compression](content(suffix)))
    read_bytes = 0

    def advance(count: int) -> None:
        nonlocal read_bytes
        read_bytes += count

    documents = list(read_documents(path, advance=advance))
    assert [document.text for document in documents] == TEXTS
    assert [(document.source, document.index) for document in documents] == [(path, 0), (path, 1)]
    assert read_bytes == path.stat().st_size


def test_members_of_concatenated_archives_are_all_read(tmp_path: Path) -> None:
    for suffix in (".gz", ".bz2", ".zst"):
        path = tmp_path / f"two.txt{suffix}"
        path.write_bytes(PACK[suffix]("ក\n\n".encode()) + PACK[suffix]("ខ\n".encode()))
        assert texts(path) == ["ក", "ខ"], suffix


def test_folder_is_walked_in_sorted_order_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/b.jsonl", ".hidden.txt", ".git/c.txt", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "ក"}' if name.endswith("jsonl") else name)
    names = [Path(str(path)).relative_to(tmp_path).as_posix() for path in find_input_files([tmp_path])]
    assert names == ["b.txt", "a/b.jsonl", "a/z.txt"]
    assert texts(tmp_path) == ["b.txt", "ក", "a/z.txt"]
    assert find_input_files([tmp_path / "b.txt", tmp_path])[0].name == "b.txt"
    assert len(find_input_files([tmp_path / "b.txt", tmp_path])) == 3


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_documents_end_at_blank_lines_whatever_the_line_end(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + end.join(["ក", "ខ", "", " ", "គ"]).encode())
    assert texts(path) == ["ក\nខ", "គ"]


def test_files_without_blank_lines_are_cut_into_runs(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{i}\n" for i in range(readers.RUN_LINES * 2 + 5)))
    assert [text.count("\n") + 1 for text in texts(path)] == [readers.RUN_LINES, readers.RUN_LINES, 5]


@given(st.lists(st.text(alphabet="កខ\r\n​ ", max_size=9), max_size=9))
def test_lines_do_not_depend_on_where_the_pieces_end(pieces: list[str]) -> None:
    joined = io.StringIO("".join(pieces), newline=None).read()
    *lines, last = joined.split("\n")
    assert list(text_streams.split_lines(pieces)) == [*lines, *filter(None, [last])]


@pytest.mark.parametrize(
    ("unit", "whole"), [("ពាក្យ ", 6), ("ក្រា", 4), ("x", 1), ("ទេ។", 3)], ids=["space", "syllable", "letter", "sentence"]
)
def test_an_endless_line_is_cut_where_text_may_be_cut(unit: str, whole: int) -> None:
    total = text_streams.MAX_LINE_CHARS * 3 // whole
    chunks = [unit * (total // 10)] * 10
    lines = list(text_streams.split_lines(chunks))
    assert "".join(lines) == "".join(chunks)
    assert max(map(len, lines)) <= text_streams.MAX_LINE_CHARS
    assert all(len(line) % whole == 0 for line in lines)


def test_a_huge_block_is_cut_into_bounded_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(("ក" * 9_999 + "\n") * 300)
    sizes = [len(text) for text in texts(path)]
    assert sum(sizes) > 2_900_000
    assert max(sizes) <= readers.MAX_DOCUMENT_CHARS + 200


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", "ក\n".encode() * 5 + b"\xff\xfeabc", ("a.txt", "at byte 20", "iconv")),
        ("a.txt", "ស្រុក".encode("utf-16"), ("UTF-16 byte-order mark", "iconv -f UTF-16")),
        ("a.txt", "ក".encode() + b"\x00\x01", ("NUL", "at byte 3")),
        ("a.txt", "ក\nខ".encode()[:-1], ("not UTF-8 (e1 9e)", "at byte 4")),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', ("at byte 24",)),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', ("line 2 (byte 14)", "not JSON")),
        ("a.jsonl", b'{"txt": "a", "id": 1}\n', ("line 1", "txt, id", "field `text`")),
        ("a.jsonl", b'{"text": 5}\n', ("line 1", "int", "a string is expected")),
        ("a.jsonl", b"[" * 100_000, ("line 1", "not JSON")),
        ("a.xml", b"<html><p>x</p></html>", ("<html>", "MediaWiki")),
        ("a.xml", wiki(page("ក")).encode()[:-30], ("not well-formed", "cut short")),
        ("a.xml", b"<mediawiki>" + b"<a>" * 1000, ("nest deeper",)),
        ("a.txt.gz", gzip.compress(b"abc" * 999, mtime=0)[:-9], ("damaged or cut short", "gzip -t")),
        ("a.txt.gz", b"no archive", ("damaged or cut short",)),
        ("a.txt.bz2", b"no archive", ("damaged or cut short", "bzip2 -t")),
        ("a.txt.zst", b"no archive", ("damaged or cut short", "zstd -t")),
        ("a.txt.zst", zstd.compress(b"abc" * 999)[:-3], ("damaged or cut short",)),
    ],
)
def test_bad_content_is_named_with_place_and_cure(
    tmp_path: Path, name: str, data: bytes, words: tuple[str, ...]
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CorpusError) as caught:
        texts(path)
    assert all(word in str(caught.value) for word in (name, *words)), caught.value


def test_a_wrong_byte_on_the_edge_of_a_piece_is_placed_rightly(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * (text_streams.CHUNK_BYTES - 1) + b"\xe1\x41" + b"y" * 10)
    with pytest.raises(CorpusError, match=rf"at byte {text_streams.CHUNK_BYTES - 1}\."):
        texts(path)


def test_unusable_paths(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        CorpusError, match=r"\.docx.*\.txt, \.jsonl, \.parquet, \.xml, each also with \.gz, \.bz2, \.zst"
    ):
        texts(tmp_path / "a.docx")
    with pytest.raises(CorpusError, match="does not exist"):
        texts(tmp_path / "nowhere.txt")
    with pytest.raises(CorpusError, match="holds no file to read"):
        texts(tmp_path / "empty")
    with pytest.raises(CorpusError, match="neither a file nor a folder"):
        texts(Path("/dev/zero"))


def test_an_empty_file_has_no_documents(tmp_path: Path) -> None:
    for suffix, packed in PACK.items():
        path = tmp_path / f"a.txt{suffix}"
        path.write_bytes(packed(b""))
        assert texts(path) == []


def test_overlong_and_empty_records_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    long = json.dumps({"text": "x" * (readers.MAX_RECORD_BYTES * 2 + 5)})
    path.write_text(f'{{"text": "ក"}}\n\n{long}\n{{"text": null}}\n{{"text": "ខ"}}')
    dropped: Counter[str] = Counter()
    assert texts(path, dropped=dropped) == ["ក", "ខ"]
    assert dropped == {"record_too_long": 1, "record_without_text": 1}


def test_entity_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.xml"
    levels = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    path.write_text(wiki(page("&l9;"), head=f'<!DOCTYPE mediawiki [<!ENTITY l0 "lol">{levels}]>'))
    with pytest.raises(CorpusError, match="expand without bound and are refused"):
        texts(path)


def test_a_tag_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tag.xml.gz"
    path.write_bytes(gzip.compress(b"<mediawiki><a b='" + b"x" * (40 << 20)))
    with pytest.raises(CorpusError, match="more than 16 MiB"):
        texts(path)


def test_only_articles_in_their_last_revision_are_read(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml"
    history = "<revision><text>ចាស់</text></revision>"
    path.write_text(
        wiki(
            page("ទំព័រ [[រូបភាព:a.png|thumb|ក]]ទី១"),
            page("ពិភាក្សា", ns=1),
            page("#REDIRECT [[ក]]", extra='<redirect title="ក" />'),
            page("ថ្មី", extra=history),
            page("x" * ((1 << 22) + 1)),
            page(""),
        )
    )
    dropped: Counter[str] = Counter()
    assert texts(path, dropped=dropped) == ["ទំព័រ ទី១", "ថ្មី"]
    assert dropped == {"page_too_long": 1}


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("'''ភ្នំពេញ''' ជា[[រាជធានី]]នៃ[[កម្ពុជា|ប្រទេសកម្ពុជា]]។", "ភ្នំពេញ ជារាជធានីនៃប្រទេសកម្ពុជា។"),
        ("ក{{ប្រអប់|{{ក្នុង|x}}|y=[[z]]}}ខ", "កខ"),
        ("ក\n{| class=wikitable\n! ក្បាល\n|-\n| ១ || {{ក}} {|\n| ២\n|}\n|}\nខ", "ក\nខ"),
        ("ក<ref name=a>{{cite}}</ref>ខ<ref name=b />គ<ref>x</ref>", "កខគ"),
        ("ក<!-- {{ -->ខ<!--x-->គ", "កខគ"),
        ("== ជំពូក ==\n* មួយ\n## ពីរ\n; បី\n----", "ជំពូក\nមួយ\nពីរ\nបី"),
        ("[https://example.org/x គេហទំព័រ] [http://example.org]", "គេហទំព័រ"),
        ("[[File:a.jpg|thumb|រូប[[ក|ខ]]]]គ[[Category:ឃ]][[en:House]][[:File:a.jpg]]", "គFile:a.jpg"),
        ("ក&nbsp;ខ &lt;b&gt; <b>គ</b><br/>ឃ", "ក\xa0ខ <b> គ\nឃ"),
        ("<math>x^2</math>ក (<!-- x -->) __NOTOC__ខ", "ក  ខ"),
        ("ក {{ ខ ]] }} គ", "ក  គ"),
        ("ក [[ ខ {{ គ", "ក  ខ  គ"),
        ("<nowiki>ក</nowiki> <gallery>\na.jpg|x\n</gallery>ខ", "ក ខ"),
        ("ក<!-- មិនបិទ ខ", "ក មិនបិទ ខ"),
    ],
)
def test_wiki_markup_becomes_plain_text(markup: str, plain: str) -> None:
    assert plain_text(markup) == plain


@pytest.mark.parametrize(
    "unit",
    [
        "{{",
        "[[",
        "{|\n",
        "}}",
        "<!--",
        "<ref>",
        "<ref",
        "[//a ",
        "[[a|",
        "''",
        "= ",
        "(",
        "{{a}}",
        "<a <",
        "__A",
        "&amp",
    ],
)
def test_hostile_markup_takes_linear_time(unit: str) -> None:
    # Half a million characters: a quadratic pass would need minutes and hit the timeout.
    code = f"from khmer_ocr.corpus.mediawiki import plain_text; plain_text({unit!r} * (500_000 // {len(unit)}))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match=r"needs pyarrow, which is not installed.*pip install '\.\[parquet\]'"):
        texts(tmp_path / "a.parquet")


def test_parquet_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(as_parquet(["ក", None, "ខ", "គ"]))
    dropped: Counter[str] = Counter()
    assert texts(path, dropped=dropped) == ["ក", "ខ", "គ"]
    assert dropped == {"record_without_text": 1}
    path.write_bytes(as_parquet(["ក"], column="body"))
    with pytest.raises(CorpusError, match="id, body"):
        texts(path)
    path.write_bytes(b"PAR1 no table")
    with pytest.raises(CorpusError, match="damaged or no Parquet"):
        texts(path)


MEASURE = """
import sys
from pathlib import Path
from khmer_ocr.corpus.readers import read_documents
def peak_kb():
    # Not ru_maxrss: that of a child begins at what its parent had when it forked.
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
base = peak_kb()
chars = sum(len(document.text) for document in read_documents(Path(sys.argv[1])))
print(chars, (peak_kb() - base) >> 10)
"""


@pytest.mark.parametrize("name", ["one_line.txt", "lines.txt", "one_line.jsonl", "bomb.txt.gz"])
def test_memory_stays_bounded_on_100_mb(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    piece = "ភាសាខ្មែរ​ងាយ​រៀន" * 1000 + ("\n" if name == "lines.txt" else "")
    opener = gzip.open if name.endswith("gz") else open
    with opener(path, "wb") as file:
        for _ in range(100_000_000 // len(piece.encode())):
            file.write(piece.encode())
    run = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True, timeout=120)
    chars, grown_mb = map(int, run.stdout.split())
    assert grown_mb < 80
    assert chars == 0 if name.endswith("jsonl") else chars > 30_000_000


def test_links_to_files_and_folders_are_followed_and_each_file_is_read_once(tmp_path: Path) -> None:
    real, top = tmp_path / "real", tmp_path / "top"
    (real / "deep").mkdir(parents=True)
    top.mkdir()
    (real / "a.txt").write_text("ក")
    (real / "deep/b.txt").write_text("ខ")
    (top / "linked").symlink_to(real)
    (top / "one.txt").symlink_to(real / "deep/b.txt")
    (real / "deep/round").symlink_to(top)
    (top / "self").symlink_to(top)
    names = [Path(str(path)).relative_to(tmp_path).as_posix() for path in find_input_files([top])]
    assert names == ["top/one.txt", "top/linked/a.txt"]
    assert [path.name for path in find_input_files([tmp_path / "top/linked"])] == ["a.txt", "b.txt"]


def test_what_a_folder_holds_besides_is_named_by_reason(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ក")
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s.txt"))
    for name in (".DS_Store", "._a.txt"):
        (tmp_path / name).write_bytes(b"\0\5")
    inputs = scan_input_files([tmp_path])
    assert [path.name for path in inputs.files] == ["a.txt"]
    assert {reason: [path.name for path in paths] for reason, paths in inputs.passed_over.items()} == {
        "as hidden": [".DS_Store", "._a.txt"],
        "as links that lead nowhere": ["gone.txt"],
        "for their unknown format": ["notes.md"],
        "as pipes, sockets or devices": ["pipe.txt", "s.txt"],
    }
    (told,) = inputs.unreadable
    assert "loop.txt can't be read: too many levels of symbolic links" in told
    assert any("2 file(s) in the input folders (pipe.txt, s.txt)" in note for note in inputs.notes())


def test_a_path_that_the_system_refuses_costs_that_path_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ក")
    long, loop = tmp_path / ("ក" * 120 + ".txt"), tmp_path / "loop"
    loop.symlink_to(loop)
    inputs = scan_input_files([long, loop, tmp_path / "a.txt"])
    assert [path.name for path in inputs.files] == ["a.txt"]
    assert "file name too long" in inputs.unreadable[0] and "symbolic links" in inputs.unreadable[1]
    assert all(len(note) < 500 for note in inputs.notes())
    with pytest.raises(CorpusError, match="file name too long"):
        find_input_files([long])
    (tmp_path / "gone.txt").symlink_to("nowhere.txt")
    with pytest.raises(CorpusError, match=r"is a link to nowhere\.txt, which does not exist"):
        scan_input_files([tmp_path / "gone.txt"])


@pytest.mark.skipif(os.getuid() != 0, reason="the superuser alone can become somebody who may not read")
def test_a_locked_file_and_folder_cost_themselves_only(tmp_path: Path) -> None:
    for name in ("a.txt", "locked.txt", "shut/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("ក")
    for name in ("locked.txt", "shut"):
        (tmp_path / name).chmod(0)
    tmp_path.chmod(0o755)
    child = os.fork()
    if not child:
        os.chdir(tmp_path)
        os.setuid(65534)
        inputs = scan_input_files([Path()])
        told = [path.name for path in inputs.files] == ["a.txt"] and sorted(inputs.unreadable) == [
            "locked.txt can't be read: permission denied",
            "shut can't be read: permission denied",
        ]
        os._exit(0 if told else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def remote(request: pytest.FixtureRequest) -> Iterator[str]:
    """A folder in fsspec's memory, gone afterwards."""
    import fsspec

    memory = fsspec.filesystem("memory")
    yield "memory://corpus"
    memory.store.clear()


@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_from_afar(remote: str, suffix: str, compression: str) -> None:
    import fsspec

    packed = PACK[compression](content(suffix))
    with fsspec.open(f"{remote}/a{suffix}{compression}", "wb") as file:
        file.write(packed)
    counts: list[int] = []
    documents = list(read_documents(f"{remote}/a{suffix}{compression}", advance=counts.append))
    assert [document.text for document in documents] == TEXTS
    assert sum(counts) == len(packed) == size_bytes(scan_input_files([remote]).files[0])


def test_a_folder_from_afar_is_read_like_one_here(remote: str, tmp_path: Path) -> None:
    import fsspec

    for place in (remote, str(tmp_path)):
        for name in ("b.txt", "deep/c.txt.gz", "deep/.hidden.txt", "notes.md"):
            with fsspec.open(f"{place}/{name}", "wb", auto_mkdir=True) as file:
                file.write(PACK[".gz" if name.endswith("gz") else ""]("ក\n".encode()))
    far, near = scan_input_files([remote, f"{remote}/b.txt"]), scan_input_files([f"file://{tmp_path}"])
    assert [file.name for file in far.files] == [file.name for file in near.files] == ["b.txt", "c.txt.gz"]
    assert sorted(far.notes()) == sorted(near.notes())
    process_corpus(CorpusConfig(input=(remote,), output_dir=tmp_path / "far"), progress=False)
    assert "ក" in "".join((tmp_path / f"far/{split}.txt").read_text() for split in ("train", "val", "test"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nosuch://host/a.txt", ("Protocol not known: nosuch", "fetch the file and name your copy")),
        ("memory://corpus/none.txt", ("cannot be read", "Check the address")),
        ("memory://corpus/a.docx", ("holds no file to read", ".jsonl", "unknown format: 1 file(s)", "a.docx")),
        ("memory://corpus/cut.txt.gz", ("damaged or cut short", "gzip -t cut.txt.gz")),
        ("file:///nowhere/a.txt", ("/nowhere/a.txt does not exist",)),
    ],
)
def test_unusable_urls(remote: str, url: str, words: tuple[str, ...]) -> None:
    import fsspec

    for name in ("a.docx", "cut.txt.gz"):
        with fsspec.open(f"{remote}/{name}", "wb") as file:
            file.write(gzip.compress(b"abc" * 999)[:-9])
    with pytest.raises(CorpusError) as caught:
        list(read_documents(url))
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_corpus_over_http(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("\n\n".join(TEXTS).encode()))
    (tmp_path / "a.parquet").write_bytes(as_parquet(TEXTS))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        for name in ("a.txt.gz?download=1", "a.parquet"):
            assert [document.text for document in read_documents(f"{base}/{name}")] == TEXTS
        with pytest.raises(CorpusError, match=r"gone\.txt cannot be read: .*Check the address"):
            list(read_documents(f"{base}/gone.txt"))
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(CorpusError, match=r"a\.parquet cannot be read"):
        list(read_documents(f"{base}/a.parquet"))


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""

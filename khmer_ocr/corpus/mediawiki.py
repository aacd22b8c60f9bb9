"""MediaWiki dumps: pages out of the XML stream, plain text out of the wiki markup.

Every pass is linear in the text, whatever the nesting: a dump is foreign input. mwparserfromhell 0.7.2 gives the same
text of a made dump of 20 MB (templates, tables, references, links; 2,757 pages, none differs) in 16 times the time
(12 to 19; benchmarks/bench_mediawiki.py, AMD EPYC), so that the markup is stripped here.
"""

import html
import re
from collections import Counter
from collections.abc import Iterator
from typing import IO
from xml.parsers import expat

from khmer_ocr.corpus.remote_files import InputPath
from khmer_ocr.corpus.text_streams import CHUNK_BYTES
from khmer_ocr.errors import CorpusError

MAX_PAGE_CHARS = 1 << 22
"""A longer page is passed over and counted; MediaWiki itself refuses pages over 2 MiB."""
_MAX_TOKEN_BYTES = 1 << 24
_MAX_DEPTH = 64

_DROPPED = re.compile(
    r"<(!--|(?:ref|math|chem|gallery|timeline|score|source|syntaxhighlight|templatedata|imagemap|hiero|graph)\b)([^<>]*>)?",
    re.IGNORECASE,
)
_BRACKETS = re.compile(r"\{\{|\}\}|\[\[|\]\]|^[ \t:]*\{\||^[ \t]*\|\}(?!\})", re.MULTILINE)
_OPENS = {"{{": "}}", "[[": "]]", "{|": "|}"}
_EXTERNAL = re.compile(r"\[(?:https?:|ftp:)?//[^\s\[\]]*[ \t]*([^\[\]\n]*)\]")
_BREAK_TAG = re.compile(r"<(?:br|/p|/div|/li|/tr)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_QUOTES = re.compile(r"'{2,}")
_MAGIC = re.compile(r"__[A-Z]{3,40}__")
_HOLLOW = re.compile(r"\([\s,;:]{0,20}\)")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,8}){0,2}")
_FILE_NAMESPACES = frozenset({"file", "image", "category", "media", "template"})


def plain_text(markup: str, namespaces: frozenset[str] = frozenset()) -> str:
    """Strip wiki markup to its readable text, a paragraph a line.

    Args:
        markup: wikitext of one page.
        namespaces: lower-case names of the wiki's namespaces; links into them (files, categories) are dropped.

    Returns:
        The text; templates, tables, references and comments are gone, links are replaced by their labels.
    """
    text = _drop_brackets(_drop_elements(markup), _FILE_NAMESPACES | namespaces)
    text = _TAG.sub("", _BREAK_TAG.sub("\n", _EXTERNAL.sub(r"\1", text)))
    text = _HOLLOW.sub("", _MAGIC.sub("", _QUOTES.sub("", html.unescape(text))))
    lines = (_plain_line(line.strip()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _plain_line(line: str) -> str:
    if line.startswith(("|", "!", "{|", "----")):
        return ""
    if line.startswith("=") and line.endswith("="):
        return line.strip("= \t")
    return line.lstrip("*#:; \t")


def _drop_elements(text: str) -> str:
    """Remove comments and the elements whose content is no prose; an unclosed one loses its tag only."""
    kept, at = [], 0
    unclosed: set[str] = set()
    for opening in _DROPPED.finditer(text):
        if opening.start() < at:
            continue
        name = opening[1].lower()
        kept.append(text[at : opening.start()])
        at = opening.start(2) if name == "!--" and opening[2] else opening.end()
        if name in unclosed or (name != "!--" and (opening[2] or "").endswith("/>")):
            continue
        closing = re.compile("-->" if name == "!--" else f"</{name}\\s*>", re.IGNORECASE).search(text, at)
        if closing is None:
            unclosed.add(name)
        else:
            at = closing.end()
    kept.append(text[at:])
    return "".join(kept)


def _drop_brackets(text: str, namespaces: frozenset[str]) -> str:
    """Remove nested templates and tables, and replace links by their labels, in one pass with a bounded stack."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    at = 0
    for match in _BRACKETS.finditer(text):
        stack[-1][1].append(text[at : match.start()])
        at = match.end()
        token = match.group().strip(" \t:")
        if token in _OPENS:
            if len(stack) < _MAX_DEPTH:
                stack.append((_OPENS[token], []))
        elif any(closing == token for closing, _ in stack):
            while stack[-1][0] != token:
                _, unclosed = stack.pop()
                stack[-1][1].append("".join(unclosed))
            _, inner = stack.pop()
            if token == "]]":
                stack[-1][1].append(_link_label("".join(inner), namespaces))
    stack[-1][1].append(text[at:])
    return "".join("".join(parts) for _, parts in stack)


def _link_label(link: str, namespaces: frozenset[str]) -> str:
    target, _, label = link.partition("|")
    prefix, colon, _ = target.partition(":")
    prefix = prefix.strip().lower()
    if colon and (prefix in namespaces or _LANGUAGE.fullmatch(prefix)):
        return ""
    return label.rpartition("|")[2] or target.lstrip(":")


class _PageCollector:
    """Handlers of the XML parser: keep the last revision of each page of namespace 0 until it is taken."""

    def __init__(self, path: InputPath, dropped: Counter[str]) -> None:
        self.path = path
        self.dropped = dropped
        self.ready: list[str] = []
        self.namespaces: set[str] = set()
        self._depth = 0
        self._element = ""
        self._pieces: list[str] = []
        self._chars = 0
        self._page: dict[str, str] = {}

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1 and name != "mediawiki":
            raise CorpusError(
                f"{self.path}: the root element is <{name}>; of XML only MediaWiki dumps (<mediawiki>) are read."
            )
        if self._depth > _MAX_DEPTH:
            raise CorpusError(f"{self.path}: elements nest deeper than {_MAX_DEPTH}; this is no MediaWiki dump.")
        if name == "page":
            self._page = {}
        elif name == "redirect":
            self._page["redirect"] = "yes"
        elif name in ("ns", "model", "text", "namespace"):
            self._element, self._pieces, self._chars = name, [], 0

    def data(self, text: str) -> None:
        if self._element:
            self._chars += len(text)
            if self._chars <= MAX_PAGE_CHARS:
                self._pieces.append(text)
            else:
                self._pieces = []

    def end(self, name: str) -> None:
        self._depth -= 1
        if name == "page":
            self._close_page()
        elif name == self._element:
            text = "".join(self._pieces)
            if name == "namespace":
                self.namespaces.add(text.strip().lower())
            elif name == "text" and self._chars > MAX_PAGE_CHARS:
                self._page["text"], self._page["long"] = "", "yes"
            else:
                self._page[name] = text
            self._element, self._pieces = "", []

    def _close_page(self) -> None:
        page, self._page = self._page, {}
        if page.get("ns", "0").strip() != "0" or "redirect" in page or page.get("model", "wikitext") != "wikitext":
            return
        if "long" in page:
            self.dropped["page_too_long"] += 1
        elif text := page.get("text"):
            self.ready.append(text)

    def refuse_declaration(self, name: str, *_rest: object) -> None:
        raise CorpusError(
            f"{self.path} declares a document type or entity ({name}), as no MediaWiki dump does. Such declarations "
            "can expand without bound and are refused; remove the <!DOCTYPE ...> if the file is to be trusted."
        )


def read_pages(path: InputPath, stream: IO[bytes], dropped: Counter[str]) -> Iterator[str]:
    """Stream the plain text of the articles of a MediaWiki dump.

    Args:
        path: name of the dump, for messages.
        stream: its decompressed bytes.
        dropped: counts pages over `MAX_PAGE_CHARS` as "page_too_long".

    Returns:
        Text of each page of namespace 0 that is no redirect, in its last revision.

    Raises:
        CorpusError: not well-formed XML, not a MediaWiki dump, or it declares entities.
    """
    collector = _PageCollector(path, dropped)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.buffer_size = 1 << 16
    parser.StartElementHandler = collector.start
    parser.EndElementHandler = collector.end
    parser.CharacterDataHandler = collector.data
    parser.StartDoctypeDeclHandler = collector.refuse_declaration
    parser.EntityDeclHandler = collector.refuse_declaration
    fed = 0
    while True:
        chunk = stream.read(CHUNK_BYTES)
        fed += len(chunk)
        try:
            parser.Parse(chunk, not chunk)
        except expat.ExpatError as error:
            raise CorpusError(
                f"{path} is not well-formed XML at byte {parser.ErrorByteIndex} ({expat.ErrorString(error.code)}). "
                "The dump is damaged or cut short; fetch it again."
            ) from error
        if fed - parser.CurrentByteIndex > _MAX_TOKEN_BYTES:
            raise CorpusError(f"{path} has a tag or comment of more than {_MAX_TOKEN_BYTES >> 20} MiB near byte {fed}.")
        namespaces = frozenset(collector.namespaces - {""})
        ready, collector.ready = collector.ready, []
        for markup in ready:
            yield plain_text(markup, namespaces)
        if not chunk:
            return

"""The project's MediaWiki markup stripper against mwparserfromhell: python benchmarks/bench_mediawiki.py

Needs the package `mwparserfromhell`, which the project does not: give it a virtual environment of its own. The dump is
made here: Khmer paragraphs of random syllables between templates, tables, references, comments, files, links and
headings, so that the text that should come out is known. One core, both strippers on the same pages in turn.
"""

import argparse
import random

import mwparserfromhell
from common import interleaved, lines_of, ratio, store
from rapidfuzz.distance import Levenshtein

from khmer_ocr.corpus.mediawiki import plain_text


def page(draw: random.Random, lines: list[str]) -> tuple[str, str]:
    """Markup of a page, and the text a reader of it sees, a paragraph a line."""
    markup, seen = [], []

    def words(count: int = 1) -> str:
        return " ".join(draw.choice(lines) for _ in range(count))

    markup.append(
        "{{Infobox | name = " + words() + "\n| note = {{small|" + words() + "}}\n| area = 12 km<sup>2</sup>\n}}"
    )
    for _ in range(draw.randrange(2, 9)):
        if draw.random() < 0.5:
            heading = words()
            markup.append(f"== {heading} ==")
            seen.append(heading)
        paragraph, plain = [], []
        for _ in range(draw.randrange(2, 8)):
            text, kind = words(), draw.randrange(9)
            shown = text
            if kind == 0:
                text = f"[[{words()}|{text}]]"
            elif kind == 1:
                text = f"[[{text}]]"
            elif kind == 2:
                text = f"'''{text}'''"
            elif kind == 3:
                text = f'{text}<ref name="a">{{{{cite web |title={words()} |url=http://example.org/}}}}</ref>'
            elif kind == 4:
                text = f'{text}<ref name="a" />'
            elif kind == 5:
                text = f"[http://example.org/{draw.randrange(99)} {text}]"
            elif kind == 6:
                text = f"{text}<!-- {words()} -->"
            paragraph.append(text)
            plain.append(shown)
        markup.append(" ".join(paragraph))
        seen.append(" ".join(plain))
        if draw.random() < 0.3:
            rows = "\n|-\n".join(f"| {words()} || {{{{flag|KH}}}} {words()}" for _ in range(3))
            markup.append('{| class="wikitable"\n! ' + words() + " !! " + words() + "\n|-\n" + rows + "\n|}")
        if draw.random() < 0.3:
            markup.append(f"[[File:Angkor.jpg|thumb|{words()} [[{words()}]]]]")
        if draw.random() < 0.3:
            items = [words() for _ in range(3)]
            markup.append("\n".join(f"* {item}" for item in items))
            seen += items
    markup.append(f"{{{{reflist}}}}\n[[Category:{words()}]]")
    return "\n\n".join(markup), "\n".join(seen)


def by_library(markup: str) -> str:
    """What mwparserfromhell's documentation gives for plain text, without references and tables, a paragraph a line."""
    code = mwparserfromhell.parse(markup)
    for tag in code.filter_tags(matches=lambda tag: tag.tag in ("ref", "table")):
        try:
            code.remove(tag)
        except ValueError:
            continue  # it was inside another that is gone
    for link in code.filter_wikilinks(matches=lambda link: str(link.title).startswith(("File:", "Category:"))):
        try:
            code.remove(link)
        except ValueError:
            continue
    lines = (line.strip(" *") for line in code.strip_code().split("\n"))
    return "\n".join(line for line in lines if line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=20.0, help="of markup (default 20)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    draw, lines, pages, size = random.Random(1), lines_of(None, 5000), list[tuple[str, str]](), 0
    while size < args.megabytes * 1e6:
        pages.append(page(draw, lines))
        size += len(pages[-1][0].encode())
    strippers = {"ours": plain_text, "mwparserfromhell": by_library}
    outputs: dict[str, list[str]] = {}

    def case(name: str) -> int:
        outputs[name] = [strippers[name](markup) for markup, _ in pages]
        return size

    seconds = interleaved({name: lambda name=name: case(name) for name in strippers}, args.rounds)  # type: ignore[misc]
    low, middle, high = ratio(seconds["mwparserfromhell"], seconds["ours"])
    result: dict[str, object] = {
        "made": True,
        "megabytes": size / 1e6,
        "pages": len(pages),
        "version": mwparserfromhell.__version__,
        "megabytes_per_second": {name: [1e-6 / each for each in taken] for name, taken in seconds.items()},
        "seconds_ratio": [low, middle, high],
    }
    for name, texts in outputs.items():
        wrong = sum(text != seen for text, (_, seen) in zip(texts, pages, strict=True))
        edits = sum(Levenshtein.distance(text, seen) for text, (_, seen) in zip(texts, pages, strict=True))
        chars = sum(len(seen) for _, seen in pages)
        result[name] = {"pages_with_a_difference": wrong, "edits_per_character": edits / chars}
        speed = f"{1e-6 / min(seconds[name]):.1f} MB/s"
        print(f"{name}: {speed}, {wrong} of {len(pages)} pages differ, {edits / chars:.2%} edits")
    print(f"mwparserfromhell takes {middle:.1f} ({low:.1f} to {high:.1f}) times as long: {store('mediawiki', result)}")


if __name__ == "__main__":
    main()

"""Long text to lines: cut at sentence ends, else at spaces and zero-width spaces, else between syllables."""

import re
from dataclasses import dataclass

from khmer_ocr.text.normalize import normalize
from khmer_ocr.text.syllables import split

_GAP = re.compile(r"([\s\u200b]+)")
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_CLOSERS = "»”’\"')\\]"
# "។ល។" (and so on) ends no sentence, nor does "?" within an address such as "a.php?id=1".
_PHRASE = re.compile(rf"(?:។ល។|[?!](?=[A-Za-z0-9=&])|[^។៕?!])+(?:[។៕?!]+[{_CLOSERS}]*)?|[។៕?!]+[{_CLOSERS}]*")
_SENTENCE_END = re.compile(rf"(?<!ល)[។៕?!][{_CLOSERS}]*$")
# What must not open a line: closing punctuation, the repetition sign, marks that belong to the letter before.
_NO_START = re.compile(r"[។៕៖ៗ,.;:?!…»”’)\]%៛\u17b4-\u17d3\u17dd]")
_NO_END = re.compile(r"[«“‘(\[\u17d2]$")


@dataclass(slots=True)
class _Atom:
    text: str
    spaced: bool
    """Whether a space stands before it."""
    may_start: bool
    ends_sentence: bool


def cut(raw: str, max_chars: int, min_chars: int = 1) -> list[str]:
    """Normalise a paragraph and cut it into lines.

    Args:
        raw: text as it was found; its zero-width spaces say where words end.
        max_chars: longest line in code points.
        min_chars: shortest line that a cut should leave.

    Returns:
        Normalised lines in order. One that is longer than `max_chars` holds a single syllable that cannot be cut; the
        last may be shorter than `min_chars`; a paragraph without ink gives one empty line.
    """
    if len(raw) <= max_chars or len(_INVISIBLE.sub("", raw)) <= max_chars:
        text = normalize(raw)
        if len(text) <= max_chars:
            return [text]
    atoms = _atoms(raw, max_chars)
    lines, start = [], 0
    while start < len(atoms):
        end = _line_end(atoms, start, max_chars, min_chars)
        lines.append(_joined(atoms[start:end]))
        start = end
    return lines or [""]


def _joined(atoms: list[_Atom]) -> str:
    return normalize("".join(" " + atom.text if atom.spaced else atom.text for atom in atoms).lstrip())


def _atoms(raw: str, max_chars: int) -> list[_Atom]:
    """Break text at every place where a line might end; no atom is longer than a line unless it is one syllable."""
    atoms: list[_Atom] = []
    for word, spaced in _words(raw):
        for phrase in _PHRASE.findall(word):
            text = normalize(phrase)
            pieces = [text] if len(text) <= max_chars else _syllable_runs(text, max_chars)
            for piece in filter(None, pieces):
                may_start = not (_NO_START.match(piece) or (atoms and _NO_END.search(atoms[-1].text)))
                atoms.append(_Atom(piece, spaced, may_start, False))
                spaced = False
            if atoms and text:
                atoms[-1].ends_sentence = bool(_SENTENCE_END.search(text))
    return atoms


def _words(raw: str) -> list[tuple[str, bool]]:
    """Split at spaces and zero-width spaces, except where the latter stand within a syllable."""
    words: list[tuple[str, bool]] = []
    gap = ""
    for i, part in enumerate(_GAP.split(raw)):
        if i % 2:
            gap += part
        elif part:
            spaced = bool(gap.strip("\u200b"))
            if words and not spaced and ("\u17b4" <= part[0] <= "\u17d3" or words[-1][0].endswith("\u17d2")):
                words[-1] = (words[-1][0] + part, words[-1][1])
            else:
                words.append((part, spaced))
            gap = ""
    return words


def _syllable_runs(text: str, max_chars: int) -> list[str]:
    runs: list[str] = []
    run: list[str] = []
    chars = 0
    for syllable in split(text):
        if chars + len(syllable) > max_chars and run:
            runs.append("".join(run))
            run, chars = [], 0
        run.append(syllable)
        chars += len(syllable)
    return [*runs, "".join(run)]


def _line_end(atoms: list[_Atom], start: int, max_chars: int, min_chars: int) -> int:
    """Choose where the line from `start` ends: after the last sentence that fits, else after the last such atom."""
    chars = 0
    end = sentence_end = 0
    i = start
    while i < len(atoms):
        chars += len(atoms[i].text) + (atoms[i].spaced and i > start)
        if chars > max_chars:
            break
        i += 1
        if chars >= min_chars and i < len(atoms) and atoms[i].may_start:
            end = i
            sentence_end = i if atoms[i - 1].ends_sentence else sentence_end
    if i == len(atoms):
        return i
    return sentence_end or end or max(i, start + 1)

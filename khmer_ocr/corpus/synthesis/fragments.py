"""What stands between words in print: Latin, marks, signs that running text hardly holds. All drawn by stream."""

from collections.abc import Sequence

from khmer_ocr.corpus.synthesis.numbers import digits, run_of
from khmer_ocr.corpus.synthesis.random_stream import RandomStream
from khmer_ocr.text import letters
from khmer_ocr.text.letters import COENG, CONSONANTS, LATIN_DIGITS, LATIN_LETTERS

_SCHEMES = ("http://", "https://", "www.", "ftp://", "https://www.")
_HOSTS = (".com", ".org", ".net", ".com.kh", ".gov.kh", ".edu.kh", ".org.kh", ".info", ".io")
_ENDINGS = (".txt", ".pdf", ".odt", ".ods", ".doc", ".docx", ".xls", ".png", ".jpg", ".html", ".xml", ".zip", ".py")
_KEYS = (
    *("Ctrl", "Shift", "Alt", "Tab", "Enter", "Esc", "Delete", "Insert", "Home", "End", "PageUp", "PageDown", "Space"),
    *("F1", "F2", "F4", "F7", "F8", "F9", "F10", "F11", "F12", "Backspace", "Command", "Option"),
)
_ALIKE = "1lI|!0OoQi[]5S8B2Z6G9g"
"""Characters that many faces draw nearly alike."""
_HOLDERS = ("%s", "%d", "%1", "%(name)s", "$(ARG1)", "{0}", "%PRODUCTNAME", "&amp;", "<br>", "\\n", "~", "_")
_MARKS = ("។", "។", "។", "៕", "៖", "៖", "ៗ", "…", "...", "។ល។", "!", "?", "!?", "៙", "៚", "ៜ", ".", ",", ";", ":", "។»")
_RUN_MARKS = "។៕៖ៗ…«»“”‘’()[]{}<>/\\-–—.,;:!?'\"*•·#&@%+=_~^|`‹›៛$€"
OPENERS = ("«»", "“”", "()", "()", "‘’", "[]", '""', "''", "‹›", "<>", "{}")
JOINERS = (
    *(
        *" " * 5,
        " - ",
        " – ",
        " — ",
        "-",
        "/",
        " / ",
        ", ",
        "៖ ",
        " ៖ ",
        "។ ",
        " ។ ",
        " ។ ",
        "; ",
        ": ",
        "ៗ ",
        ", ",
        " = ",
    ),
    *(" > ", "… ", "! ", "? ", " + ", " & ", " • ", " | ", " ~ ", ". ", "៕ ", ",", "."),
)
"""What two pieces of text are joined by."""
_SELDOM = "¢£¥§«©®°±²³µ·¹»¼½¾¿×÷ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿ–—‘’“”„†‡•…‰‹›€™→"
_ASCII_SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_ACCENTED = (
    *("café", "naïve", "São", "Zürich", "Genève", "Málaga", "français", "über", "señor", "Århus", "Øresund", "Côte"),
)
_RARE_ONSETS = (
    *("ឦ", "ឨ", "ឩ", "ឪ", "ឭ", "ឮ", "ឫ", "ឬ", "ឰ", "ឱ", "ឲ", "ឳ", "ឯ", "ឥ", "ឧ"),
    *("ឝ", "ឞ", "ឍ", "ឋ", "ឈ", "ឡ", "ឌ", "ឆ", "ឃ", "ឝ្យ", "ឞ្ណ"),
)
_BELOW = CONSONANTS.replace("ដ", "")
_RARE_VOWELS: tuple[str, ...] = ("", *letters.VOWELS, *letters.VOWEL_COMBINATIONS[:16])
_SIGNED = ("ក៑", "ត៑", "ន៑", "ស៑", "ន៝", "ស៝", "ចា៎", "ណា៎", "ហ្ន៎", "ធម៌", "ពណ៌", "អាថ៌", "ក៏", "ដ៏", "ហ៎", "ធ៌ម", "ឱ្យ", "ឲ្យ", "ឥឡូវ")


def _cased(stream: RandomStream, word: str) -> str:
    kind = stream.below(10)
    if kind == 0:
        return word.upper()
    if kind == 1:
        return word.lower()
    return word[:1].upper() + word[1:] if kind == 2 else word


def _spliced(stream: RandomStream, words: Sequence[str]) -> str:
    """A word that does not exist: the head of one and the tail of another."""
    head, tail = stream.pick(words), stream.pick(words)
    return head[: 1 + stream.below(len(head))] + tail[stream.below(len(tail)) :]


def _letters(stream: RandomStream) -> str:
    kind = stream.below(4)
    if kind == 0:
        return run_of(stream, 1 + stream.below(6), LATIN_LETTERS[:26])
    if kind == 1:
        return run_of(stream, 1 + stream.below(7), _ALIKE[:-2])
    if kind == 2:
        return run_of(stream, 2 + stream.below(7), LATIN_LETTERS[26:])
    return run_of(stream, 2 + stream.below(8), LATIN_LETTERS + LATIN_DIGITS)


def _address(stream: RandomStream, words: Sequence[str]) -> str:
    """A path, a file, a place on the net, a letter box."""
    one, two = stream.pick(words), stream.pick(words).lower()
    kind = stream.below(6)
    if kind == 0:
        rest = stream.pick(("", "/", f"/{one}", f"/{one}?id={digits(stream, 3)}"))
        return f"{stream.pick(_SCHEMES)}{two}{stream.pick(_HOSTS)}{rest}"
    if kind == 1:
        return f"{one.lower()}{stream.pick(('', '.', '_', '-'))}{digits(stream, 3)}@{two}{stream.pick(_HOSTS)}"
    if kind == 2:
        return f"{stream.pick(('/', '/usr/', '~/', './', '/home/'))}{two}/{one}{stream.pick(_ENDINGS)}"
    if kind == 3:
        return f"{stream.pick('CDE')}:\\{one}\\{two}{stream.pick(_ENDINGS)}"
    first, last = stream.pick((one, two, "*")), stream.pick((two, digits(stream, 4)))
    return f"{first}{stream.pick(('', '_', '-'))}{last}{stream.pick(_ENDINGS)}"


def _code(stream: RandomStream, words: Sequence[str]) -> str:
    """A formula, a key, a setting, an abbreviation with a number, a place-holder."""
    word, kind = stream.pick(words), stream.below(7)
    if kind < 2:
        last = stream.pick(("", "", "+" + stream.pick(LATIN_LETTERS[:26])))
        return stream.pick(_KEYS[:3]) + stream.pick("++-") + stream.pick(_KEYS) + last
    if kind == 2:
        cells = [f"{stream.pick(LATIN_LETTERS[:26])}{digits(stream, 2)}" for _ in range(2)]
        return f"{stream.pick(('=', '', ''))}{word.upper()}({stream.pick(':;,').join(cells)})"
    if kind == 3:
        return f"{word}{stream.pick(('=', ' = ', '_', '-', '.', '/', ':', '::', '->'))}{stream.pick(words)}"
    if kind == 4:
        capitals, sign = run_of(stream, 1 + stream.below(4), LATIN_LETTERS[:26]), stream.pick(("-", "", " ", "/"))
        return f"{capitals}{sign}{digits(stream, 5)}"
    return stream.pick(_HOLDERS) if kind == 5 else f"#{run_of(stream, 6, '0123456789ABCDEF')}"


def latin(stream: RandomStream, words: Sequence[str]) -> str:
    """Write something in Latin letters.

    Args:
        stream: the line's random stream.
        words: Latin words, at least one.
    """
    kind = stream.below(100)
    if kind < 34:
        return _cased(stream, stream.pick(words))
    if kind < 44:
        return " ".join(_cased(stream, stream.pick(words)) for _ in range(2 + stream.below(3)))
    if kind < 60:
        return _spliced(stream, words)
    if kind < 76:
        return _letters(stream)
    if kind < 86:
        return _address(stream, words)
    return _code(stream, words) if kind < 97 else stream.pick(_ACCENTED)


def marks(stream: RandomStream) -> str:
    """Write one mark or a short run of them."""
    if stream.below(3):
        return stream.pick(_MARKS)
    return run_of(stream, 1 + stream.below(4), _RUN_MARKS)


def seldom(stream: RandomStream) -> str:
    """Write a sign that running Khmer hardly ever holds: Latin-1, typographic or ASCII, alone or with a figure."""
    sign = stream.pick(_SELDOM) if stream.below(3) else stream.pick(_ASCII_SIGNS)
    return stream.pick(
        (sign, sign, sign + digits(stream, 2), digits(stream, 2) + sign, sign + stream.pick(LATIN_LETTERS))
    )


def _rare_onset(stream: RandomStream) -> str:
    kind = stream.below(4)
    if kind < 2:
        return stream.pick(_RARE_ONSETS)
    if kind == 2:
        return stream.pick(CONSONANTS) + COENG + stream.pick(_BELOW)
    if stream.below(2):
        return stream.pick(letters.TRIISAP_LETTERS) + "\u17ca"
    return stream.pick(letters.MUUSIKATOAN_LETTERS) + "\u17c9"


def rare_word(stream: RandomStream) -> str:
    """Write a Khmer word around a rare letter, sign or stack, or a shifter."""
    if stream.below(5) == 0:
        return stream.pick(_SIGNED) + stream.pick(("", stream.pick(CONSONANTS)))
    onset = _rare_onset(stream)
    if onset in letters.INDEPENDENT_VOWELS:
        return onset + stream.pick(("", "", stream.pick(CONSONANTS)))
    return onset + stream.pick(_RARE_VOWELS) + stream.pick(("", stream.pick(CONSONANTS)))

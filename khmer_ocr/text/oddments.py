"""What stands between words in print: Latin, marks, signs that running text hardly holds. All drawn by dice."""

from collections.abc import Sequence

from khmer_ocr.text import inventory
from khmer_ocr.text.dice import Dice
from khmer_ocr.text.figures import digits, run_of
from khmer_ocr.text.inventory import COENG, CONSONANTS, LATIN_DIGITS, LATIN_LETTERS

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
        " ",
        " ",
        " ",
        " ",
        " ",
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
    ),
    *(", ", " = ", " > ", "… ", "! ", "? ", " + ", " & ", " • ", " | ", " ~ ", ". ", "៕ ", ",", "."),
)
"""What two pieces of text are joined by."""
_SELDOM = "¢£¥§«©®°±²³µ·¹»¼½¾¿×÷ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿ–—‘’“”„†‡•…‰‹›€™→"
_ASCII_SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_ACCENTED = (
    "café",
    "naïve",
    "São",
    "Zürich",
    "Genève",
    "Málaga",
    "français",
    "über",
    "señor",
    "Århus",
    "Øresund",
    "Côte",
)
_RARE_ONSETS = (
    *("ឦ", "ឨ", "ឩ", "ឪ", "ឭ", "ឮ", "ឫ", "ឬ", "ឰ", "ឱ", "ឲ", "ឳ", "ឯ", "ឥ", "ឧ"),
    *("ឝ", "ឞ", "ឍ", "ឋ", "ឈ", "ឡ", "ឌ", "ឆ", "ឃ", "ឝ្យ", "ឞ្ណ"),
)
_BELOW = CONSONANTS.replace("ដ", "")
_RARE_VOWELS: tuple[str, ...] = ("", *inventory.VOWELS, *inventory.VOWEL_COMBINATIONS[:16])
_SIGNED = ("ក៑", "ត៑", "ន៑", "ស៑", "ន៝", "ស៝", "ចា៎", "ណា៎", "ហ្ន៎", "ធម៌", "ពណ៌", "អាថ៌", "ក៏", "ដ៏", "ហ៎", "ធ៌ម", "ឱ្យ", "ឲ្យ", "ឥឡូវ")


def _cased(dice: Dice, word: str) -> str:
    kind = dice.below(10)
    if kind == 0:
        return word.upper()
    if kind == 1:
        return word.lower()
    return word[:1].upper() + word[1:] if kind == 2 else word


def _spliced(dice: Dice, words: Sequence[str]) -> str:
    """A word that does not exist: the head of one and the tail of another."""
    head, tail = dice.pick(words), dice.pick(words)
    return head[: 1 + dice.below(len(head))] + tail[dice.below(len(tail)) :]


def _letters(dice: Dice) -> str:
    kind = dice.below(4)
    if kind == 0:
        return run_of(dice, 1 + dice.below(6), LATIN_LETTERS[:26])
    if kind == 1:
        return run_of(dice, 1 + dice.below(7), _ALIKE[:-2])
    if kind == 2:
        return run_of(dice, 2 + dice.below(7), LATIN_LETTERS[26:])
    return run_of(dice, 2 + dice.below(8), LATIN_LETTERS + LATIN_DIGITS)


def _address(dice: Dice, words: Sequence[str]) -> str:
    """A path, a file, a place on the net, a letter box."""
    one, two = dice.pick(words), dice.pick(words).lower()
    kind = dice.below(6)
    if kind == 0:
        rest = dice.pick(("", "/", f"/{one}", f"/{one}?id={digits(dice, 3)}"))
        return f"{dice.pick(_SCHEMES)}{two}{dice.pick(_HOSTS)}{rest}"
    if kind == 1:
        return f"{one.lower()}{dice.pick(('', '.', '_', '-'))}{digits(dice, 3)}@{two}{dice.pick(_HOSTS)}"
    if kind == 2:
        return f"{dice.pick(('/', '/usr/', '~/', './', '/home/'))}{two}/{one}{dice.pick(_ENDINGS)}"
    if kind == 3:
        return f"{dice.pick('CDE')}:\\{one}\\{two}{dice.pick(_ENDINGS)}"
    first, last = dice.pick((one, two, "*")), dice.pick((two, digits(dice, 4)))
    return f"{first}{dice.pick(('', '_', '-'))}{last}{dice.pick(_ENDINGS)}"


def _code(dice: Dice, words: Sequence[str]) -> str:
    """A formula, a key, a setting, an abbreviation with a number, a place-holder."""
    word, kind = dice.pick(words), dice.below(7)
    if kind < 2:
        last = dice.pick(("", "", "+" + dice.pick(LATIN_LETTERS[:26])))
        return dice.pick(_KEYS[:3]) + dice.pick("++-") + dice.pick(_KEYS) + last
    if kind == 2:
        cells = [f"{dice.pick(LATIN_LETTERS[:26])}{digits(dice, 2)}" for _ in range(2)]
        return f"{dice.pick(('=', '', ''))}{word.upper()}({dice.pick(':;,').join(cells)})"
    if kind == 3:
        return f"{word}{dice.pick(('=', ' = ', '_', '-', '.', '/', ':', '::', '->'))}{dice.pick(words)}"
    if kind == 4:
        return f"{run_of(dice, 1 + dice.below(4), LATIN_LETTERS[:26])}{dice.pick(('-', '', ' ', '/'))}{digits(dice, 5)}"
    return dice.pick(_HOLDERS) if kind == 5 else f"#{run_of(dice, 6, '0123456789ABCDEF')}"


def latin(dice: Dice, words: Sequence[str]) -> str:
    """Write something in Latin letters.

    Args:
        dice: chance.
        words: Latin words, at least one.
    """
    kind = dice.below(100)
    if kind < 34:
        return _cased(dice, dice.pick(words))
    if kind < 44:
        return " ".join(_cased(dice, dice.pick(words)) for _ in range(2 + dice.below(3)))
    if kind < 60:
        return _spliced(dice, words)
    if kind < 76:
        return _letters(dice)
    if kind < 86:
        return _address(dice, words)
    return _code(dice, words) if kind < 97 else dice.pick(_ACCENTED)


def marks(dice: Dice) -> str:
    """Write one mark or a short run of them."""
    if dice.below(3):
        return dice.pick(_MARKS)
    return run_of(dice, 1 + dice.below(4), _RUN_MARKS)


def seldom(dice: Dice) -> str:
    """Write a sign that running Khmer hardly ever holds: Latin-1, typographic or ASCII, alone or with a figure."""
    sign = dice.pick(_SELDOM) if dice.below(3) else dice.pick(_ASCII_SIGNS)
    return dice.pick((sign, sign, sign + digits(dice, 2), digits(dice, 2) + sign, sign + dice.pick(LATIN_LETTERS)))


def _rare_onset(dice: Dice) -> str:
    kind = dice.below(4)
    if kind < 2:
        return dice.pick(_RARE_ONSETS)
    if kind == 2:
        return dice.pick(CONSONANTS) + COENG + dice.pick(_BELOW)
    if dice.below(2):
        return dice.pick(inventory.TRIISAP_LETTERS) + "\u17ca"
    return dice.pick(inventory.MUUSIKATOAN_LETTERS) + "\u17c9"


def rare_word(dice: Dice) -> str:
    """Write a Khmer word around a rare letter, sign or stack, or a shifter."""
    if dice.below(5) == 0:
        return dice.pick(_SIGNED) + dice.pick(("", dice.pick(CONSONANTS)))
    onset = _rare_onset(dice)
    if onset in inventory.INDEPENDENT_VOWELS:
        return onset + dice.pick(("", "", dice.pick(CONSONANTS)))
    return onset + dice.pick(_RARE_VOWELS) + dice.pick(("", dice.pick(CONSONANTS)))

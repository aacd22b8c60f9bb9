"""Labels that come from outside: brought to the normal form, and what that changed is counted.

Our own lines are normal before they are drawn. What people type, paste and export holds byte order marks, zero-width
spaces, line ends and marks in other orders; a model that learns from such labels learns to write them.
"""

import re
from collections import Counter
from collections.abc import Iterable

from khmer_ocr.text.normalize import normalize

_BYTE_ORDER_MARK, _ZERO_WIDTH_SPACE = "\ufeff", "\u200b"
_LINE_END = re.compile("[\r\n\x0b\x0c\x85\u2029]+")
"""U+2028 is not among them: it stands where an editor broke a line of print softly, and counts as white space."""
_BLANK = re.compile(r"\s+")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufe00-\ufe0f\ufeff\ufff9-\ufffb]+"
)
_NAMES_SHOWN = 3


class LabelNormalizer:
    """Takes labels in and counts what their normal form changed.

    Attributes:
        taken: labels so far.
        changed: what was changed, in words, to the number of labels it was changed in.
        first: what was changed to the name of the first such label.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.changed: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self._labels_changed = 0

    def normal(self, raw: str, name: str) -> str:
        """Bring one label to its normal form.

        Args:
            raw: as it stands in its file.
            name: whose label it is, for the report.

        Returns:
            `normalize(raw)`.

        Raises:
            ValueError: it holds several lines of text, with an ending of the sentence that begins with its name.
        """
        self.taken += 1
        text = normalize(raw)
        if text != raw:
            if (lines := lines_of(raw)) > 1:
                raise ValueError(f"its label holds {lines} lines of text, and an image is of one line")
            if kinds := _kinds(raw, text):
                self._labels_changed += 1
            for kind in kinds:
                self.changed[kind] += 1
                self.first.setdefault(kind, name)
        return text

    def note(self) -> str | None:
        """Say in a sentence what was changed; None where nothing was."""
        if not self._labels_changed:
            return None
        kinds = ", ".join(f"{kind} in {count:,} (first: {self.first[kind]})" for kind, count in self.changed.items())
        return f"{self._labels_changed:,} of {self.taken:,} labels were brought to the normal form: {kinds}."


def lines_of(raw: str) -> int:
    """Count the lines of a label that hold more than white space and characters without ink."""
    return sum(bool(normalize(line)) for line in _LINE_END.split(raw))


def _kinds(raw: str, text: str) -> Iterable[str]:
    """What a normal form changed, in words; one line end at the end of a file is usual and not worth a word."""
    raw = raw.removesuffix("\n").removesuffix("\r")
    if raw == text:
        return
    if raw.startswith(_BYTE_ORDER_MARK):
        yield "a byte order mark taken off"
        raw = raw[1:]
    if _ZERO_WIDTH_SPACE in raw:
        yield "zero-width spaces taken out"
        raw = raw.replace(_ZERO_WIDTH_SPACE, "")
    if (seen := _INVISIBLE.sub("", raw)) != raw:
        if _INVISIBLE.sub("", text) != text:  # a ZWNJ that has ink stays
            seen = raw
        else:
            yield "other invisible characters taken out"
    if (single := _BLANK.sub(" ", seen).strip()) != seen:
        yield "white space trimmed"
    if single != text:
        yield "marks put in order or respelled"


def some(names: Iterable[str], shown: int = _NAMES_SHOWN) -> str:
    """Name the first few, and say how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - shown:,} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more

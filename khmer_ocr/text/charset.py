"""Code points and token ids: a fixed order, saved beside every model, known by its fingerprint."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from khmer_ocr.errors import ConfigError
from khmer_ocr.io.atomic import replacing

SPECIALS = ("<pad>", "<sos>", "<eos>", "<unk>")
PAD, SOS, EOS, UNK = range(4)

_KHMER = (
    *range(0x1780, 0x17A3),
    *range(0x17A5, 0x17B4),
    *range(0x17B6, 0x17D8),
    *range(0x17D9, 0x17DE),
    *range(0x17E0, 0x17EA),
)
# Labels never hold what `normalize` replaces or drops (U+17A3, 17A4, 17B4, 17B5, 17D8). The divination numbers
# (17F0-17F9) and the lunar date symbols (19E0-19FF) are left out: none of 51,900 lines measured has one, and in most
# fonts they are missing.
_ZWNJ = 0x200C
_ASCII = range(0x20, 0x7F)
_LATIN_1 = "¢£¥§©«®°±²³µ·¹»¼½¾¿×÷ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿ"
_TYPOGRAPHIC = "–—‘’“”„†‡•…‰‹›€™→"


@dataclass(frozen=True)
class Charset:
    """An ordered set of characters; the id of `characters[i]` is i + 4, after `<pad>` `<sos>` `<eos>` `<unk>`.

    Attributes:
        characters: single code points, none twice, in the order of their ids.
    """

    characters: tuple[str, ...]
    _id_of: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids: dict[str, int] = {}
        for i, character in enumerate(self.characters):
            if not isinstance(character, str) or len(character) != 1:
                raise ConfigError(f"charset entry {i} is {character!r}; expected one code point. Correct that entry.")
            if character in ids:
                raise ConfigError(
                    f"charset holds {_name(character)} twice, as entries {ids[character] - 4} and {i}. Remove one."
                )
            ids[character] = i + len(SPECIALS)
        object.__setattr__(self, "_id_of", ids)

    @classmethod
    def default(cls) -> "Charset":
        """Make the charset of modern Khmer print: Khmer, ASCII, common Latin-1 and typographic signs, ZWNJ."""
        return cls(tuple(map(chr, (*_ASCII, *_KHMER, _ZWNJ))) + tuple(_LATIN_1) + tuple(_TYPOGRAPHIC))

    @classmethod
    def from_text(cls, lines: Iterable[str]) -> "Charset":
        """Make the charset of some lines, in code point order.

        Args:
            lines: normalised lines; line ends count as characters, so strip them.

        Raises:
            ConfigError: the lines hold no character at all.
        """
        seen: set[str] = set()
        for line in lines:
            seen.update(line)
        if not seen:
            raise ConfigError(
                "no character was found to make a charset of; expected at least one line of text. Check the input."
            )
        return cls(tuple(sorted(seen)))

    def __len__(self) -> int:
        """Count the token ids, specials included."""
        return len(self.characters) + len(SPECIALS)

    def __contains__(self, character: object) -> bool:
        return character in self._id_of

    @property
    def fingerprint(self) -> str:
        """SHA-256 over specials and characters in order, as hexadecimal; equal means every id means the same."""
        return hashlib.sha256("\x00".join(SPECIALS + self.characters).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Turn a text into token ids; what is not in the charset becomes `<unk>`, no start or end is added."""
        id_of = self._id_of
        return [id_of.get(character, UNK) for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn token ids into text, up to the first `<eos>`; `<pad>` and `<sos>` vanish, `<unk>` becomes U+FFFD.

        Raises:
            ConfigError: an id lies outside the charset.
        """
        characters = []
        for token in ids:
            if token == EOS:
                break
            if not 0 <= token < len(self):
                raise ConfigError(
                    f"token id {token} is outside 0..{len(self) - 1}; the ids come from another charset. "
                    "Load the charset that was saved beside the model."
                )
            if token == UNK:
                characters.append("\ufffd")
            elif token >= len(SPECIALS):
                characters.append(self.characters[token - len(SPECIALS)])
        return "".join(characters)

    def missing(self, text: str) -> set[str]:
        """Name the characters of a text that have no id here."""
        return set(text).difference(self._id_of)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the charset as JSON with its fingerprint, atomically."""
        target = Path(path)
        document = {"specials": SPECIALS, "characters": self.characters, "fingerprint": self.fingerprint}
        body = json.dumps(document, ensure_ascii=True, indent=0).encode()
        with replacing(target) as partial:
            partial.write_bytes(body)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Charset":
        """Read a charset that `save` wrote.

        Raises:
            ConfigError: the file is missing, no charset, of other specials, or its fingerprint does not fit.
        """
        document = _read(Path(path))
        if tuple(document.get("specials", ())) != SPECIALS:
            raise ConfigError(
                f"{path} has the special tokens {document.get('specials')!r}; expected {list(SPECIALS)}. "
                "It was written for another model: use the charset saved beside yours."
            )
        characters = document.get("characters")
        if not isinstance(characters, list):
            raise ConfigError(f"{path} has no list 'characters'; it is no charset file. Save the charset again.")
        charset = cls(tuple(characters))
        if document.get("fingerprint") != charset.fingerprint:
            raise ConfigError(
                f"{path} says fingerprint {document.get('fingerprint')!r} but its characters give "
                f"{charset.fingerprint!r}; it was edited or damaged. Restore it, or save the charset again and retrain."
            )
        return charset


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; expected a charset file. Save one with Charset.save.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON ({error}); expected a charset file. Save the charset again.") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} holds a {type(document).__name__}; expected a JSON object. Save the charset again.")
    return document


def _name(character: str) -> str:
    return f"{character!r} (U+{ord(character):04X})"

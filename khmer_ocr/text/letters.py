"""What Khmer is written with: letters, the stacks that occur, vowels, signs, digits, punctuation."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

COENG = "\u17d2"
CONSONANTS = "កខគឃងចឆជឈញដឋឌឍណតថទធនបផពភមយរលវឝឞសហឡអ"
INDEPENDENT_VOWELS = "ឥឦឧឨឩឪឫឬឭឮឯឰឱឲឳ"
VOWELS = "ាិីឹឺុូួើឿៀេែៃោៅ"
VOWEL_COMBINATIONS = (
    *("ាំ", "ុំ", "ិះ", "ីះ", "ឹះ", "ុះ", "ូះ", "ួះ", "ើះ", "ៀះ", "េះ", "ែះ", "ៃះ", "ោះ", "ៅះ", "ោៈ"),
    *("ាះ", "ាៈ", "ិៈ", "ីៈ", "ុៈ", "េៈ", "ិំ", "ីំ", "ូំ", "ែំ", "ោំ", "ៀំ"),
)
SIGNS = "ំះៈ៉៊់៌៍៎៏័៑៝"
KHMER_DIGITS = "០១២៣៤៥៦៧៨៩"
LATIN_DIGITS = "0123456789"
LATIN_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PUNCTUATION = ("។", "៕", "៖", "ៗ", "៙", "៚", "ៜ", "៛", "។ល។", *"«»“”().,!?-/%:;$")

# Letter -> the letters that stand below it in Khmer words, in Pali and Sanskrit loans and in common foreign names.
# Coeng DA is spelled coeng TA throughout, as in labels.
_BELOW = {
    "ក": "កខងចញតថទនបមយរលវសអ",
    "ខ": "ចជញតទនពមយលវស",
    "គ": "គឃនមយរលវ",
    "ឃ": "ងជនមរលវស",
    "ង": "កខគឃងមរលវសហអ",
    "ច": "ចឆញនបមយរល",
    "ឆ": "កគងចតទនពមលវអ",
    "ជ": "ជឈញនមយរលវ",
    "ឈ": "ងនពមលវ",
    "ញ": "ចឆជឈញតវហ",
    "ដ": "ឋតនបមយរលវ",
    "ឋ": "យ",
    "ឌ": "ឌឍយរវ",
    "ឍ": "យ",
    "ណ": "ឋឌឍណតមយវហ",
    "ត": "កគងចតថនបពមយរលវសហអ",
    "ថ": "កគងនបពមយរលវឡ",
    "ទ": "ងទធនបពមយរលវ",
    "ធ": "ងនមយរលវ",
    "ន": "កគឈឋតថទធនបមយរលវសហ",
    "ប": "កចញតទនបផមយរលវសហអ",
    "ផ": "កគងចញតទនមយរលសអ",
    "ព": "ងញទធនបពភមយរលវ",
    "ភ": "ងចជញទនពមយរលវ",
    "ម": "កខគងចជញណតទនបផពភមយរលវសហអ",
    "យ": "កមយរវហ",
    "រ": "កគឌណតថធមយវស",
    "ល": "កខគងចបពភមយលវសហអ",
    "វ": "យរលហ",
    "ឝ": "យរវ",
    "ឞ": "ឋណម",
    "ស": "កខគងចញឋណតថទនបផពមយរលវសហឡអ",
    "ហ": "កគងណតទនបមយរលវសអ",
    "ឡ": "ហអ",
    "អ": "កគងញនមយលវសហ",
    "ឥ": "យ",
    "ឱ": "យ",
    "ឲ": "យ",
}
_STACKS = (
    *("សតរ", "សតយ", "សទរ", "សគរ", "សករ", "សបរ", "នតរ", "នទរ", "នធរ", "នទវ", "នតវ", "នតយ", "ងគរ", "ងករ", "ងឃរ", "ញចរ"),
    *("ញជរ", "កសម", "កសយ", "កតរ", "មពរ", "មបរ", "មភរ", "ណឌរ", "ហវរ", "ហគរ", "ហករ", "ហសរ", "តសយ", "តតរ", "ទទរ", "ជជរ"),
)
# Letters that carry the two shifters in spelling; under other letters no font lowers them.
MUUSIKATOAN_LETTERS = "ងញនបមយរលវ"
TRIISAP_LETTERS = "បសហអ"

LATIN_WORDS = (
    *("Angkor", "ASEAN", "Battambang", "Bank", "Cambodia", "Covid", "email", "Excel", "Facebook", "Google", "GPS"),
    *("Internet", "iPhone", "JPEG", "Kampot", "km", "Linux", "Mekong", "Microsoft", "Mondulkiri", "OK", "PDF"),
    *("Phnom Penh", "QR", "Siem Reap", "SMS", "Telegram", "Tonle Sap", "UNESCO", "USA", "USB", "video", "WiFi"),
    *("Windows", "Xerox", "YouTube", "zoom"),
)


def stack(letters: str) -> str:
    """Join letters into one stack, the first on top."""
    return COENG.join(letters)


@lru_cache(maxsize=1)
def classes() -> Mapping[str, tuple[str, ...]]:
    """Name every class of things a model must learn, with its items as they are written."""
    return MappingProxyType(
        {
            "consonants": tuple(CONSONANTS),
            "subscript pairs": tuple(stack(top + below) for top, row in _BELOW.items() for below in row),
            "stacks of three": tuple(map(stack, _STACKS)),
            "dependent vowels": tuple(VOWELS),
            "vowel combinations": VOWEL_COMBINATIONS,
            "signs": tuple(SIGNS),
            "independent vowels": tuple(INDEPENDENT_VOWELS),
            "Khmer digits": tuple(KHMER_DIGITS),
            "Latin digits": tuple(LATIN_DIGITS),
            "punctuation": PUNCTUATION,
            "Latin letters": tuple(LATIN_LETTERS),
        }
    )

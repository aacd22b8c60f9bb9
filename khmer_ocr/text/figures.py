"""Figures as print has them: numbers, dates, times, prices, shares, versions. All drawn by dice."""

from collections.abc import Callable

from khmer_ocr.text.dice import Dice
from khmer_ocr.text.inventory import CONSONANTS, KHMER_DIGITS, LATIN_DIGITS

_MONTHS = (*("មករា", "កុម្ភៈ", "មីនា", "មេសា", "ឧសភា", "មិថុនា", "កក្កដា", "សីហា", "កញ្ញា", "តុលា", "វិច្ឆិកា", "ធ្នូ"),)
_DAYS = ("ចន្ទ", "អង្គារ", "ពុធ", "ព្រហស្បតិ៍", "សុក្រ", "សៅរ៍", "អាទិត្យ")
_LATIN_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNITS = (
    *("គីឡូម៉ែត្រ", "ម៉ែត្រ", "គីឡូក្រាម", "ក្រាម", "លីត្រ", "ហិកតា", "នាក់", "ឆ្នាំ", "ខែ", "ថ្ងៃ", "នាទី", "ដង", "ភាគរយ"),
    *("km", "m", "cm", "mm", "kg", "g", "l", "ha", "MB", "GB", "kB", "px", "pt", "Hz", "°C", "°", "m²", "dpi"),
)
_HEADS = (
    *("មាត្រា", "ជំពូក", "ផ្នែក", "ទំព័រ", "លេខ", "ផ្ទះលេខ", "ផ្លូវ", "បន្ទប់", "ទូរស័ព្ទ", "ក្រុមទី", "ខណ្ឌទី", "ប្រការ", "តារាង", "រូប"),
    *("ទី", "ឆ្នាំ", "ព.ស.", "គ.ស.", "ម៉ោង", "Tel:", "No.", "v", "p.", "Fig.", "Ch."),
)
_HIGH = str.maketrans(LATIN_DIGITS, KHMER_DIGITS)


def run_of(dice: Dice, count: int, alphabet: str) -> str:
    """Draw so many characters of an alphabet."""
    return "".join(dice.pick(alphabet) for _ in range(count))


def digits(dice: Dice, most: int) -> str:
    """Draw a number of one to `most` Latin digits."""
    return run_of(dice, 1 + dice.below(most), LATIN_DIGITS)


def _grouped(dice: Dice) -> str:
    mark = dice.pick((",", ".", " ", ","))
    groups = [digits(dice, 3), *(run_of(dice, 3, LATIN_DIGITS) for _ in range(1 + dice.below(3)))]
    tail = ("." if mark != "." else ",") + run_of(dice, 2, LATIN_DIGITS) if dice.below(4) == 0 else ""
    return mark.join(groups) + tail


def _date(dice: Dice) -> str:
    day, month, year = 1 + dice.below(31), 1 + dice.below(12), 1900 + dice.below(200)
    kind = dice.below(8)
    if kind < 3:
        mark = "/-."[kind]
        return f"{day:02}{mark}{month:02}{mark}{year}" if dice.below(2) else f"{day}{mark}{month}{mark}{year % 100:02}"
    if kind == 3:
        return f"{year}-{month:02}-{day:02}"
    if kind == 4:
        return f"{day} {dice.pick(_LATIN_MONTHS)} {year}"
    if kind == 5:
        return f"ថ្ងៃ{dice.pick(_DAYS)} ទី{day} ខែ{_MONTHS[month - 1]} ឆ្នាំ{year}"
    return f"ថ្ងៃទី{day:02} ខែ{_MONTHS[month - 1]} ឆ្នាំ{year}" if kind == 6 else f"{day} {_MONTHS[month - 1]} {year}"


def _time(dice: Dice) -> str:
    text = f"{dice.below(24):02}:{dice.below(60):02}"
    return text + dice.pick(("", "", f":{dice.below(60):02}", " AM", " PM", " ព្រឹក", " ល្ងាច", " នាទី"))


def _phone(dice: Dice) -> str:
    a, b, c = (run_of(dice, 3, LATIN_DIGITS) for _ in range(3))
    return dice.pick(
        (f"0{a[:2]} {b} {c}", f"(+855) {a[:2]} {b} {c}", f"0{a[:2]}-{b}-{c}", f"+855 {a[:2]}{b}{c}", a + b + c)
    )


def _price(dice: Dice) -> str:
    amount = _grouped(dice) if dice.below(2) else f"{digits(dice, 4)}.{run_of(dice, 2, LATIN_DIGITS)}"
    return dice.pick(
        (f"{amount}៛", f"{amount} ៛", f"{amount} រៀល", f"${amount}", f"{amount}$", f"€{amount}", f"{amount} €")
    )


def _share(dice: Dice) -> str:
    return dice.pick(
        (f"{digits(dice, 3)}%", f"{digits(dice, 2)}.{digits(dice, 2)}%", f"{digits(dice, 2)},{digits(dice, 2)} %")
    )


def _dotted(dice: Dice) -> str:
    """Version, section, address of a machine, decimal, range, ratio, product, fraction."""
    parts = [digits(dice, 3) for _ in range(2 + dice.below(3))]
    return dice.pick(("", "", "v", "§", "-", "±"))[:1] + dice.pick(".... -/:x×–").join(parts)


def _item(dice: Dice) -> str:
    """The mark that a list's entry begins with."""
    mark = dice.pick((digits(dice, 2), dice.pick(CONSONANTS), dice.pick("abcdeixvABCDI")))
    return dice.pick((f"{mark}.", f"({mark})", f"{mark})", f"{mark}-", f"[{mark}]", f"{mark}/"))


def _plain(dice: Dice) -> str:
    return dice.pick((digits(dice, 8), digits(dice, 3), f"{dice.pick(_HEADS)} {digits(dice, 4)}"))


def _measure(dice: Dice) -> str:
    return f"{digits(dice, 4)}{dice.pick(('', ' '))}{dice.pick(_UNITS)}"


_FIGURES: tuple[Callable[[Dice], str], ...] = (
    *(
        _plain,
        _plain,
        _plain,
        _grouped,
        _grouped,
        _date,
        _date,
        _time,
        _phone,
        _price,
        _share,
        _dotted,
        _item,
        _measure,
    ),
)


def figure(dice: Dice) -> str:
    """Write a number, date, time, price, share, version, ... three times in five in Khmer digits."""
    text = dice.pick(_FIGURES)(dice)
    return text.translate(_HIGH) if dice.below(5) < 3 else text


def other_digits(dice: Dice, text: str) -> str:
    """Give every digit of a text another value of its kind; now and then of the other kind."""
    swap = dice.below(4) == 0
    out = []
    for character in text:
        if character in LATIN_DIGITS or character in KHMER_DIGITS:
            character = dice.pick(KHMER_DIGITS if (character in KHMER_DIGITS) != swap else LATIN_DIGITS)
        out.append(character)
    return "".join(out)

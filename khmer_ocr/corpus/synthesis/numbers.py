"""Figures as print has them: numbers, dates, times, prices, shares, versions. All drawn by stream."""

from collections.abc import Callable

from khmer_ocr.corpus.synthesis.random_stream import RandomStream
from khmer_ocr.text.letters import CONSONANTS, KHMER_DIGITS, LATIN_DIGITS

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


def run_of(stream: RandomStream, count: int, alphabet: str) -> str:
    """Draw so many characters of an alphabet."""
    return "".join(stream.pick(alphabet) for _ in range(count))


def digits(stream: RandomStream, most: int) -> str:
    """Draw a number of one to `most` Latin digits."""
    return run_of(stream, 1 + stream.below(most), LATIN_DIGITS)


def _grouped(stream: RandomStream) -> str:
    mark = stream.pick((",", ".", " ", ","))
    groups = [digits(stream, 3), *(run_of(stream, 3, LATIN_DIGITS) for _ in range(1 + stream.below(3)))]
    tail = ("." if mark != "." else ",") + run_of(stream, 2, LATIN_DIGITS) if stream.below(4) == 0 else ""
    return mark.join(groups) + tail


def _date(stream: RandomStream) -> str:
    day, month, year = 1 + stream.below(31), 1 + stream.below(12), 1900 + stream.below(200)
    kind = stream.below(8)
    if kind < 3:
        mark = "/-."[kind]
        return (
            f"{day:02}{mark}{month:02}{mark}{year}" if stream.below(2) else f"{day}{mark}{month}{mark}{year % 100:02}"
        )
    if kind == 3:
        return f"{year}-{month:02}-{day:02}"
    if kind == 4:
        return f"{day} {stream.pick(_LATIN_MONTHS)} {year}"
    if kind == 5:
        return f"ថ្ងៃ{stream.pick(_DAYS)} ទី{day} ខែ{_MONTHS[month - 1]} ឆ្នាំ{year}"
    return f"ថ្ងៃទី{day:02} ខែ{_MONTHS[month - 1]} ឆ្នាំ{year}" if kind == 6 else f"{day} {_MONTHS[month - 1]} {year}"


def _time(stream: RandomStream) -> str:
    text = f"{stream.below(24):02}:{stream.below(60):02}"
    return text + stream.pick(("", "", f":{stream.below(60):02}", " AM", " PM", " ព្រឹក", " ល្ងាច", " នាទី"))


def _phone(stream: RandomStream) -> str:
    a, b, c = (run_of(stream, 3, LATIN_DIGITS) for _ in range(3))
    return stream.pick(
        (f"0{a[:2]} {b} {c}", f"(+855) {a[:2]} {b} {c}", f"0{a[:2]}-{b}-{c}", f"+855 {a[:2]}{b}{c}", a + b + c)
    )


def _price(stream: RandomStream) -> str:
    amount = _grouped(stream) if stream.below(2) else f"{digits(stream, 4)}.{run_of(stream, 2, LATIN_DIGITS)}"
    return stream.pick(
        (f"{amount}៛", f"{amount} ៛", f"{amount} រៀល", f"${amount}", f"{amount}$", f"€{amount}", f"{amount} €")
    )


def _share(stream: RandomStream) -> str:
    return stream.pick(
        (
            f"{digits(stream, 3)}%",
            f"{digits(stream, 2)}.{digits(stream, 2)}%",
            f"{digits(stream, 2)},{digits(stream, 2)} %",
        )
    )


def _dotted(stream: RandomStream) -> str:
    """Version, section, address of a machine, decimal, range, ratio, product, fraction."""
    parts = [digits(stream, 3) for _ in range(2 + stream.below(3))]
    return stream.pick(("", "", "v", "§", "-", "±"))[:1] + stream.pick(".... -/:x×–").join(parts)


def _item(stream: RandomStream) -> str:
    """The mark that a list's entry begins with."""
    mark = stream.pick((digits(stream, 2), stream.pick(CONSONANTS), stream.pick("abcdeixvABCDI")))
    return stream.pick((f"{mark}.", f"({mark})", f"{mark})", f"{mark}-", f"[{mark}]", f"{mark}/"))


def _plain(stream: RandomStream) -> str:
    return stream.pick((digits(stream, 8), digits(stream, 3), f"{stream.pick(_HEADS)} {digits(stream, 4)}"))


def _measure(stream: RandomStream) -> str:
    return f"{digits(stream, 4)}{stream.pick(('', ' '))}{stream.pick(_UNITS)}"


_FIGURES: tuple[Callable[[RandomStream], str], ...] = (
    *(_plain, _plain, _plain, _grouped, _grouped, _date, _date),
    *(_time, _phone, _price, _share, _dotted, _item, _measure),
)


def figure(stream: RandomStream) -> str:
    """Write a number, date, time, price, share, version, ... three times in five in Khmer digits."""
    text = stream.pick(_FIGURES)(stream)
    return text.translate(_HIGH) if stream.below(5) < 3 else text


def other_digits(stream: RandomStream, text: str) -> str:
    """Give every digit of a text another value of its kind; now and then of the other kind."""
    swap = stream.below(4) == 0
    out = []
    for character in text:
        if character in LATIN_DIGITS or character in KHMER_DIGITS:
            character = stream.pick(KHMER_DIGITS if (character in KHMER_DIGITS) != swap else LATIN_DIGITS)
        out.append(character)
    return "".join(out)

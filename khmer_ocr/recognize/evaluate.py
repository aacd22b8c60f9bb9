"""How right what was read is: rates over all lines, by length, font and source; which character is taken for which."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from rapidfuzz.distance import Levenshtein

from khmer_ocr.errors import ConfigError
from khmer_ocr.recognize.significance import Comparison, cer_interval, compare
from khmer_ocr.text.metrics import Fold, Score, comparable, confusions, score

Named = Mapping[str, str]
_LENGTH_BOUNDS = (5, 10, 20, 40, 60, 90)
_CONFUSIONS_SHOWN, _WORST_SHOWN, _LEFT_OUT_SHOWN = 20, 10, 20


@dataclass(frozen=True)
class ReadLine:
    """One line of an evaluation.

    Attributes:
        name: its image.
        label: what it says.
        reading: what was read.
        score: how they differ.
    """

    name: str
    label: str
    reading: str
    score: Score

    @property
    def badness(self) -> float:
        """Edits over the longer of both texts, comparable view: 0 to 1, whatever was read."""
        return Levenshtein.normalized_distance(comparable(self.label), comparable(self.reading))


@dataclass(frozen=True)
class EvaluationReport:
    """What an evaluation found; prints as a table.

    Attributes:
        total: over all lines.
        groups: "length", "font", "source", ... -> value -> score of the lines that have it.
        confusions: (expected, seen, how often), the most frequent first; "" stands for nothing.
        lines: every line, in the order of the labels.
        left_out: lines that are not among them: name -> why.
        notes: what a person should know of the labels, a sentence each.
        fold: view of the texts that is compared; see `khmer_ocr.text.metrics`.
        intervals: 95 % interval of the CER of each of `groups`, shares of 1.
        interval: of all lines.
        against: this reading less another of the same lines; None where no other was given.
    """

    total: Score
    groups: dict[str, dict[str, Score]]
    confusions: list[tuple[str, str, int]]
    lines: list[ReadLine] = field(repr=False)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fold: Fold = "khmer"
    intervals: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    interval: tuple[float, float] = (0.0, 0.0)
    against: Comparison | None = None

    def worst(self, count: int = _WORST_SHOWN) -> list[ReadLine]:
        """Lines with an error that shows, the worst first, as many as asked for."""
        wrong = [line for line in self.lines if line.score.edits]
        return sorted(wrong, key=lambda line: -line.badness)[:count]

    def as_json(self) -> dict[str, Any]:
        """Give the report as plain values; rates are shares of 1, not per cent."""
        return {
            "fold": self.fold,
            **_rates(self.total, self.interval),
            **{
                f"by_{name}": {value: _rates(part, self.intervals[name][value]) for value, part in of.items()}
                for name, of in self.groups.items()
            },
            **({"against": asdict(self.against)} if self.against is not None else {}),
            "confusions": [list(each) for each in self.confusions[:_CONFUSIONS_SHOWN]],
            "worst": [
                {"image": line.name, "label": line.label, "text": line.reading, "cer": line.score.cer}
                for line in self.worst()
            ],
            "left_out": [{"image": name, "why": why} for name, why in self.left_out.items()],
            "notes": self.notes,
        }

    def __str__(self) -> str:
        heads = f"{'CER':>10s}{'95 %':>14s}{'plain':>10s}{'syllables':>11s}{'spaces':>10s}{'exact':>9s}{'plain':>9s}"
        rows = [f"{'':26s}{'lines':>7s}{heads}", _row("all", self.total, self.interval)]
        for name, of in self.groups.items():
            rows.append(f"by {name}")
            rows += [_row(f"  {value}", part, self.intervals[name][value]) for value, part in of.items()]
        if self.against is not None:
            rows.append(f"against the other reading: {self.against}")
        if self.confusions:
            shown = (
                f"{_shown(expected)} as {_shown(seen)} {n}" for expected, seen, n in self.confusions[:_CONFUSIONS_SHOWN]
            )
            rows += ["most frequent errors", "  " + ", ".join(shown)]
        if self.left_out:
            count = len(self.left_out)
            rows.append(f"{count:,} {'line was' if count == 1 else 'lines were'} left out:")
            rows += [f"  {name}: {why}" for name, why in islice(self.left_out.items(), _LEFT_OUT_SHOWN)]
            rows += [f"  ... and {count - _LEFT_OUT_SHOWN:,} more"] if count > _LEFT_OUT_SHOWN else []
        rows += [f"note: {note}" for note in self.notes]
        return "\n".join(rows)


def evaluate_lines(
    labels: Named | Sequence[str],
    predictions: Named | Sequence[str],
    groups: Mapping[str, Named] | None = None,
    *,
    fold: Fold = "khmer",
    against: Named | Sequence[str] | None = None,
) -> EvaluationReport:
    """Compare readings with their labels, by the definitions of `khmer_ocr.text.metrics`.

    Args:
        labels: what the lines say: image name -> text, or texts in order.
        predictions: what was read, likewise. A line that is missing in a mapping was read as nothing.
        groups: further ways to part the lines, e.g. {"font": {image name: font}}; needs names.
        fold: "khmer" takes spellings that print alike for one; "print" also spaces, quotes and dashes, for labels of
            real lines that do not fix them.
        against: another reading of the same lines, in the form of `predictions`, to be compared line by line.

    Returns:
        Rates over all lines, by length of the label in code points, and by each of `groups`.

    Raises:
        ConfigError: of two sequences one is longer; one is a mapping and the other is not; or a prediction has a name
            that no label has.
    """
    lines = _compared(labels, predictions, fold)
    scores, length = [line.score for line in lines], {line.name: _length_class(line.label) for line in lines}
    parts = {name: _part(lines, of) for name, of in {"length": length, **(groups or {})}.items()}
    counts = confusions(((line.label, line.reading) for line in lines if line.score.edits), fold)
    comparison = None
    if against is not None:
        comparison = compare(scores, [line.score for line in _compared(labels, against, fold)])
    return EvaluationReport(
        total=sum(scores, Score()),
        groups={name: {value: sum(each, Score()) for value, each in of.items()} for name, of in parts.items()},
        confusions=[(one, other, n) for (one, other), n in counts.most_common()],
        lines=lines,
        fold=fold,
        intervals={name: {value: cer_interval(each) for value, each in of.items()} for name, of in parts.items()},
        interval=cer_interval(scores),
        against=comparison,
    )


def _compared(labels: Named | Sequence[str], predictions: Named | Sequence[str], fold: Fold) -> list[ReadLine]:
    if isinstance(labels, Mapping) != isinstance(predictions, Mapping):
        raise ConfigError(
            "labels and predictions differ in kind; expected two mappings by image name, or two sequences"
        )
    expected = dict(labels) if isinstance(labels, Mapping) else _numbered(labels)
    seen = dict(predictions) if isinstance(predictions, Mapping) else _numbered(predictions)
    strange = seen.keys() - expected.keys()
    if strange or (not isinstance(labels, Mapping) and len(expected) != len(seen)):
        raise ConfigError(
            f"{len(expected)} labels and {len(seen)} predictions do not belong together"
            + (f": {sorted(strange)[0]!r} has no label" if strange else "")
            + ". Give the predictions of these very lines."
        )
    return [
        ReadLine(name, label, seen.get(name, ""), score(label, seen.get(name, ""), fold))
        for name, label in expected.items()
    ]


def _numbered(texts: Iterable[str]) -> dict[str, str]:
    return {str(number): text for number, text in enumerate(texts)}


def _length_class(label: str) -> str:
    length, low = len(comparable(label)), 0
    for high in _LENGTH_BOUNDS:
        if length <= high:
            return f"{low + 1:2d}-{high}" if low else f" 0-{high}"
        low = high
    return f"{low + 1}-"


def _part(lines: Sequence[ReadLine], of: Named) -> dict[str, list[Score]]:
    parts: dict[str, list[Score]] = {}
    for line in lines:
        parts.setdefault(of.get(line.name, "unknown"), []).append(line.score)
    return dict(sorted(parts.items()))


def _rates(part: Score, interval: tuple[float, float]) -> dict[str, Any]:
    return {
        "lines": part.lines,
        "characters": part.characters,
        "cer": part.cer,
        "cer_interval": list(interval),
        "cer_plain": part.cer_plain,
        "syllable_error_rate": part.syllable_error_rate,
        "space_error_rate": part.space_error_rate,
        "exact": part.exact_share,
        "exact_plain": part.exact_plain_share,
    }


def _row(name: str, part: Score, interval: tuple[float, float]) -> str:
    low, high = (f"{100 * end:.2f}" for end in interval)
    rates = (part.cer_plain, part.syllable_error_rate, part.space_error_rate)
    others = "".join(f"{100 * rate:{width}.2f} %" for rate, width in zip(rates, (8, 9, 8), strict=True))
    first = f"{100 * part.cer:8.2f} %{f'{low}-{high}':>14s}{others}"
    return f"{name:26s}{part.lines:7d}{first}{100 * part.exact_share:7.1f} %{100 * part.exact_plain_share:7.1f} %"


def _shown(character: str) -> str:
    if not character:
        return "nothing"
    return "space" if character == " " else f"{character} ({ord(character):04X})"

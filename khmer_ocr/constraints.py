"""Settings that check themselves: a field's annotation says what may stand there, and nothing says it again.

A stage's settings are a frozen dataclass whose fields carry their bounds and units, `Annotated[int, Interval(ge=24,
le=96), Unit("px")]`. By constructor, YAML and flag alike, another value raises `ConfigError` with the field, the value
and what is expected.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Annotated, Any, TypeVar, cast, get_args, get_type_hints

from annotated_types import Interval, Unit
from pydantic import TypeAdapter, ValidationError

from khmer_ocr.errors import ConfigError

Note = TypeVar("Note")
AtLeast0 = Annotated[int, Interval(ge=0)]
AtLeast1 = Annotated[int, Interval(ge=1)]
Share = Annotated[float, Interval(ge=0, le=1)]
NotNegative = Annotated[float, Interval(ge=0)]
Positive = Annotated[float, Interval(gt=0)]
Px = Unit("px")
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text"}
"""What pydantic's errors, by the first word of their types, say was expected."""


class Settings:
    """Base of the stages' frozen dataclasses: checks every field.

    What fields have to do with each other is checked by a `__post_init__` of the stage's own, after this one.
    """

    def __post_init__(self) -> None:
        """Convert each value to its field's type, as YAML's lists to tuples.

        Raises:
            ConfigError: a value of another type, or out of range; all such fields are named.
        """
        slips = []
        for name, (hint, adapter) in _checks(cast(Any, type(self))).items():
            value = getattr(self, name)
            try:
                # Lax, so that YAML's lists become tuples; `true` is no number, though Python takes it for one.
                strict = isinstance(value, bool)
                object.__setattr__(self, name, adapter.validate_python(value, strict=strict))
            except ValidationError as error:
                slips.append(f"{name} is {value!r:.100}; expected {_expected(hint, error)}")
        if slips:
            raise ConfigError("; ".join(slips))


@cache
def _checks(stage: type[Any]) -> dict[str, tuple[Any, TypeAdapter[Any]]]:
    hints = get_type_hints(stage, include_extras=True)
    return {name: (hint, TypeAdapter(hint)) for name, hint in hints.items()}


def _expected(hint: Any, error: ValidationError) -> str:
    """Word what a field takes: its whole range, not only the end that a value lies beyond."""
    slip = error.errors()[0]
    bounds = " ".join([*map(_words, _notes(hint, Interval)), *(unit.unit for unit in _notes(hint, Unit))])
    if bounds and slip["type"].startswith(("greater_than", "less_than")):
        return bounds
    kind = slip["type"].partition("_")[0]
    if kind in _KINDS:
        return f"{_KINDS[kind]}, {bounds}" if bounds else _KINDS[kind]
    said = re.sub(
        r"^(Input should be|String should match|Value error,) |, (unable|got) .*", "", slip["msg"], flags=re.DOTALL
    )
    if said == slip["msg"]:
        plain = hint.__origin__ if hasattr(hint, "__metadata__") else hint
        said = plain.__name__ if isinstance(plain, type) else str(plain).replace("pathlib.", "")
    return f"{said}, {bounds}" if bounds else said


def _notes(hint: Any, kind: type[Note]) -> Iterator[Note]:
    """What annotations of this kind stand anywhere within a type."""
    for part in get_args(hint):
        if isinstance(part, kind):
            yield part
        else:
            yield from _notes(part, kind)


def _words(bound: Interval) -> str:
    low = f"{bound.ge:g}" if bound.ge is not None else f"above {bound.gt:g}" if bound.gt is not None else ""
    high = f"{bound.le:g}" if bound.le is not None else f"below {bound.lt:g}" if bound.lt is not None else ""
    if low and high:
        return f"{low} to {high}"
    return low if low.startswith("above") else f"at least {low}" if low else f"at most {high}"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A hint for a misspelt name, with a space before it; empty where no known name is near."""
    # Matching takes time that grows with the square of the length.
    near = difflib.get_close_matches(str(name)[:100], list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def refuse_unknown(given: Iterable[Any], known: Iterable[str], where: str) -> None:
    """Refuse a misspelt key; raises `ConfigError` that names a near one and all that are known."""
    known = list(known)
    for key in given:
        if key not in known:
            hint = did_you_mean(key, known)
            raise ConfigError(f"{where}: unknown key {key!r:.100}.{hint} Known: {', '.join(known)}")

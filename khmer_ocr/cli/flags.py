"""Flags of a verb from its stage's settings: names, bounds, defaults and help stand in the dataclass alone."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from khmer_ocr.constraints import Settings

Folder = Annotated[Path, tyro.conf.Positional]


def settings(stage: type[Settings], *names: str) -> Any:
    """Annotate a verb's parameter that is a stage's settings of which only some have flags.

    Args:
        stage: the dataclass; the parameter is an instance of it.
        names: of its fields that have flags; the others keep their defaults.
    """
    return _flags(stage, names, stage, get_type_hints(stage), lambda name: getattr(stage, name))


def overrides(stage: type[Settings], *names: str, **types: Any) -> Any:
    """Annotate a verb's parameter that holds those settings of a stage that were given, over a YAML file.

    Args:
        stage: the dataclass; the parameter is a dictionary of some of its fields.
        names: of its fields that have flags.
        types: what a flag takes instead of its field's type.
    """
    hints = get_type_hints(stage)
    optional = {name: types.get(name, hints[name]) | None for name in names if hints[name] is not bool}
    return _flags(stage, names, given, hints | optional, lambda name: False if hints[name] is bool else None)


def given(**flags: Any) -> dict[str, Any]:
    """Keep the flags that were given: neither None nor False."""
    return {name: value for name, value in flags.items() if value is not None and value is not False}


def _flags(
    stage: type[Settings],
    names: tuple[str, ...],
    make: Callable[..., Any],
    hints: dict[str, Any],
    default: Callable[[str], Any],
) -> Any:
    def construct(**flags: Any) -> Any:
        return make(**flags)

    construct.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default(name)) for name in names]
    )
    construct.__annotations__ = {name: hints[name] for name in names}
    construct.__doc__ = stage.__doc__
    return tyro.conf.arg(name="", constructor=construct)

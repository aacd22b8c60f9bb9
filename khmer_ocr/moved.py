"""Old import paths: they still work and say where their names are now."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def moved(old: str, new: str, renamed: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """Make the `__getattr__` of a module that has moved.

    Args:
        old: where it was.
        new: where it is.
        renamed: names that are others now.

    Returns:
        A function that gives each name of `new`, with a DeprecationWarning at the importing line.
    """

    def attribute(name: str) -> Any:
        now = (renamed or {}).get(name, name)
        try:
            found = getattr(import_module(new), now)
        except AttributeError:
            raise AttributeError(f"module {old!r} has no attribute {name!r}") from None
        if not name.startswith("__"):
            warnings.warn(f"{old}.{name} is {new}.{now} now", DeprecationWarning, stacklevel=2)
        return found

    return attribute

"""YAML from foreign hands: read within bounds, or refused in one line.

A file of ours holds a few dozen values. Nesting, aliases that unfold to billions of values, and sheer size are bounded
before anything is built of them; a key that stands there twice, of which one would be lost, is an error.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from khmer_ocr.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_VALUES = 5_000
"""Keys and values together, aliases unfolded; the largest file of ours has 300."""
MAX_DEPTH = 32


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, of which the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping from distinct keys."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r:.100} stands there twice", node.start_mark)
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it can't be read, is no YAML, or is larger or deeper than a file of ours can be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} can't be read as YAML: {(error.strerror or str(error)).lower()}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{path} is larger than {MAX_BYTES >> 20} MiB; a file of settings has a few kB. Is it the right one?"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} can't be read as YAML: byte {error.start} is not UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML.

    Args:
        text: what a file holds.
        where: the file, for messages.

    Raises:
        ConfigError: it is no YAML, or is larger or deeper than a file of ours can be.
    """
    try:
        _check_bounds(text)
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{where} can't be read as YAML: {place}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} can't be read as YAML: {' '.join(str(error).split())}") from error
    except (ValueError, TypeError, OverflowError) as error:
        # A date in month 13, a number of 5,000 digits, a list as a key.
        raise ConfigError(f"{where} can't be read as YAML: {' '.join(str(error).split()):.200}") from error


def _check_bounds(text: str) -> None:
    """Count values and depth in the stream of events, which is not recursive and builds nothing."""
    sizes: dict[str, int] = {}
    begun: list[tuple[str | None, int]] = []
    values = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            # An alias to what it stands in, or to nothing, has no size yet.
            if event.anchor not in sizes:
                raise _refusal(event, f"the alias *{event.anchor:.100} names nothing that is complete")
            values += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if len(begun) > MAX_DEPTH:
            raise _refusal(event, f"it nests deeper than {MAX_DEPTH} levels; settings need three")
        if values > MAX_VALUES:
            raise _refusal(event, f"it holds more than {MAX_VALUES:,} values; settings are a few dozen")


def _refusal(event: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)

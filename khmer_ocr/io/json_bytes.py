"""JSON as it lies on disk: Khmer readable, and any file name whatever."""

import json
from typing import Any


def json_bytes(content: Any, *, indent: int | None = None) -> bytes:
    r"""Write JSON as UTF-8, Khmer as it is.

    A name that is no UTF-8 (an old zip's) is a string with lone surrogates in Python. UTF-8 has no bytes for these;
    JSON has an escape, `\udce9`, which every reader of JSON turns into the same string again.

    Args:
        content: what `json.dumps` takes.
        indent: spaces a level; None writes one line.
    """
    # A backslash of the content itself is doubled by then, so that no other text can look like an escape.
    return json.dumps(content, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace")

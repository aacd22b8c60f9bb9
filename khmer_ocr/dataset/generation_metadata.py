"""`generation_metadata.json`: what a data set says of itself as a whole, and of the run that drew it."""

import json
from pathlib import Path
from typing import Any

from khmer_ocr.dataset import layout

_MOST_BYTES = 1 << 24


def read_overall(root: Path) -> dict[str, Any]:
    """Read the file; an empty object where there is none.

    Raises:
        ValueError: it leads out of `root`, is no plain file, or holds no JSON object; the text goes on where the
            file's name ends.
    """
    path = root / layout.GENERATION_METADATA
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"leads out of {root} through a symbolic link")
        if not path.exists():
            return {}
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:  # a pipe of that name would never end
            raise ValueError(f"is not a plain file of up to {_MOST_BYTES >> 20} MiB")
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise ValueError(f"is not whole JSON ({fault})") from fault
    except (OSError, RuntimeError) as fault:  # RuntimeError: a link that leads to itself
        raise ValueError(f"cannot be read ({fault})") from fault
    if not isinstance(content, dict):
        raise ValueError("holds no object")
    return content

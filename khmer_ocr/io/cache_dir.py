"""The folder of what may be thrown away at any time."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Where measurements, rasters and unpacked fonts are kept: KHMER_OCR_CACHE, else the user's cache folder."""
    named = os.environ.get("KHMER_OCR_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(named) if named else base / "khmer_ocr"

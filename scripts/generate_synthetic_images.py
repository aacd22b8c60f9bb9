#!/usr/bin/env python3
"""Draw a corpus as text-line images. Same as: khmer-ocr generate."""

import sys

try:
    from khmer_ocr.cli import main
except ModuleNotFoundError as lacking:
    sys.exit(f"{lacking.name} is not installed in {sys.executable}. Run: pip install '.' in the project's folder")

if __name__ == "__main__":
    main(["generate", *sys.argv[1:]])

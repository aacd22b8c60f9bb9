#!/usr/bin/env python3
"""Train a recogniser on stored lines. Same as: khmer-ocr train."""

import sys

try:
    from khmer_ocr.cli import main
except ModuleNotFoundError as lacking:
    sys.exit(
        f"{lacking.name} is not installed in {sys.executable}. Run: pip install '.[torch]' in the project's folder"
    )

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])

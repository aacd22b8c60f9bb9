#!/usr/bin/env python3
"""Turn raw text into train.txt, val.txt and test.txt. Same as: khmer-ocr corpus."""

import sys

try:
    from khmer_ocr.cli import main
except ModuleNotFoundError as lacking:
    sys.exit(f"{lacking.name} is not installed in {sys.executable}. Run: pip install '.' in the project's folder")

if __name__ == "__main__":
    main(["corpus", *sys.argv[1:]])

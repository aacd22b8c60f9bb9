#!/usr/bin/env python3
"""Draw a corpus as text-line images. Same as: khmer-ocr generate."""

import sys

from khmer_ocr.cli import main

if __name__ == "__main__":
    main(["generate", *sys.argv[1:]])

#!/usr/bin/env python3
"""Train a reader on stored lines. Same as: khmer-ocr train."""

import sys

from khmer_ocr.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])

#!/usr/bin/env python3
"""Turn raw text into train.txt, val.txt and test.txt. Same as: khmer-ocr corpus."""

import sys

from khmer_ocr.cli import main

if __name__ == "__main__":
    main(["corpus", *sys.argv[1:]])

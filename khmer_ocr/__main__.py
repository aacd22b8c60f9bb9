"""`python -m khmer_ocr` is the command `khmer-ocr`."""

from khmer_ocr.cli import main

if __name__ == "__main__":
    main()

"""Read images of text lines. Run: python examples/read_lines.py IMAGE ... (default: lines that draw_lines.py drew)."""

import sys
from itertools import islice
from pathlib import Path

from khmer_ocr import ImageError, Recognizer

if __name__ == "__main__":
    images = sys.argv[1:] or [str(path) for path in islice(sorted(Path("example/synthetic/test/images").iterdir()), 8)]
    recognizer = Recognizer()  # the weights that come with the package
    for image, found in zip(images, recognizer.stream(images), strict=True):
        if isinstance(found, ImageError):
            print(f"{image}: {found}")
        else:
            print(f"{image}: {found.text} ({found.confidence:.0%})")

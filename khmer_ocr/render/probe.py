"""Child process of `metrics.measure_all`: faces as JSON on standard input, one JSON object a face on standard output."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from khmer_ocr.errors import FontError
from khmer_ocr.render.fonts import FontFace
from khmer_ocr.render.metrics import FaceMetrics, measure


def main() -> None:
    """Measure each face and print its metrics as soon as they are known."""
    for fields in json.load(sys.stdin):
        variations = tuple((tag, value) for tag, value in fields.pop("variations"))
        files = tuple(Path(file) for file in fields.pop("files"))
        face = FontFace(**fields, files=files, variations=variations)
        try:
            metrics = measure(face)
        except FontError as error:
            metrics = FaceMetrics(fatal=str(error))
        print(json.dumps(asdict(metrics)), flush=True)


if __name__ == "__main__":
    main()

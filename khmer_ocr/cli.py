"""The command `khmer-ocr`: verbs only. Each one fills a stage's settings, calls it and prints what it did."""

import logging
import sys
from collections.abc import Callable

import tyro

from khmer_ocr.errors import KhmerOcrError
from khmer_ocr.verbs import drawing, reading

VERBS: dict[str, Callable[..., None]] = {
    verb.__name__: verb
    for verb in (
        drawing.corpus,
        drawing.fonts,
        drawing.generate,
        drawing.stats,
        drawing.verify,
        drawing.preview,
        reading.cache,
        reading.bench,
        reading.train,
        reading.recognize,
        reading.evaluate,
        reading.export,
    )
}


def main(arguments: list[str] | None = None) -> None:
    """Run a verb; errors of ours are one message and exit status 2, Ctrl-C is 130."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="khmer-ocr",
            description="Make and read the data that teaches machines to read Khmer.",
            args=arguments,
        )
    except KhmerOcrError as error:
        print(f"khmer-ocr: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\nkhmer-ocr: stopped. The same command goes on where it stopped.", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()

"""The command line: `khmer_ocr.cli.app` holds the verbs and `main`."""

from khmer_ocr.cli.app import main as main

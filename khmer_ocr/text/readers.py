"""Moved to `khmer_ocr.corpus.readers`."""

from khmer_ocr.moved import moved

__getattr__ = moved(__name__, "khmer_ocr.corpus.readers", {"find_inputs": "find_input_files"})

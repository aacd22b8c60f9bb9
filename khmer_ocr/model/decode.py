"""Moved to `khmer_ocr.model.decoding.decode`."""

from khmer_ocr.moved import moved

__getattr__ = moved(__name__, "khmer_ocr.model.decoding.decode")

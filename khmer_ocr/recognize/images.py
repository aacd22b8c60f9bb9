"""Moved to `khmer_ocr.recognize.image_input`."""

from khmer_ocr.moved import moved

__getattr__ = moved(__name__, "khmer_ocr.recognize.image_input")

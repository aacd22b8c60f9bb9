"""Moved to `khmer_ocr.augment.torch_ops.apply`."""

from khmer_ocr.moved import moved

__getattr__ = moved(__name__, "khmer_ocr.augment.torch_ops.apply", {"Lines": "PaddedLines"})

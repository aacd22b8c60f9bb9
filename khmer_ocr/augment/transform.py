"""Moved to `khmer_ocr.augment.batch_augmenter`."""

from khmer_ocr.moved import moved

__getattr__ = moved(__name__, "khmer_ocr.augment.batch_augmenter", {"BatchWear": "BatchAugmenter"})

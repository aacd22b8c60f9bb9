"""Import paths that were public before still give the same objects, and say where these are now."""

import importlib
import sys

import pytest

MOVED = [
    ("khmer_ocr.augment.transform", "BatchWear", "khmer_ocr.augment.batch_augmenter", "BatchAugmenter"),
    ("khmer_ocr.augment.kornia_ops", "Lines", "khmer_ocr.augment.torch_ops.apply", "PaddedLines"),
    ("khmer_ocr.augment.kornia_ops", "apply", "khmer_ocr.augment.torch_ops.apply", "apply"),
    ("khmer_ocr.model.decode", "decode", "khmer_ocr.model.decoding.decode", "decode"),
    ("khmer_ocr.recognize.images", "read_grey", "khmer_ocr.recognize.image_input", "read_grey"),
    ("khmer_ocr.text.readers", "find_inputs", "khmer_ocr.corpus.readers", "find_input_files"),
]


@pytest.mark.parametrize(("old", "old_name", "new", "new_name"), MOVED)
def test_an_old_path_gives_the_same_object_with_a_warning(old, old_name, new, new_name):
    if old.split(".")[1] in ("augment", "model"):
        pytest.importorskip("torch")
    module = importlib.import_module(old)
    with pytest.warns(DeprecationWarning, match=rf"{old}\.{old_name} is {new}\.{new_name} now"):
        found = getattr(module, old_name)
    assert found is getattr(sys.modules[new], new_name)
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = module.no_such_name

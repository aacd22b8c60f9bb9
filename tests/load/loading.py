"""What tests of loading share: batches compared, hashed, and the ways to one."""

import hashlib

import pytest
import torch

from khmer_ocr.load.loader import LoadConfig, choose_engine, open_loader
from khmer_ocr.text.charset import Charset

ENGINES = ("torch", "dali")


def open_split(root, split="train", *, engine="torch", **settings):
    """A loader; skips where DALI is asked for and not installed."""
    config = LoadConfig(engine=engine, progress=False, **{"batch_size": 16, **settings})
    if engine == "dali":
        pytest.importorskip("nvidia.dali")
    assert choose_engine(config) == engine
    return open_loader(root, split, config, Charset.default())


def assert_equal(ones, others):
    ones, others = list(ones), list(others)
    assert [one["number"] for one in ones] == [other["number"] for other in others]
    for one, other in zip(ones, others, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == other[key].dtype, key
                assert torch.equal(value.cpu(), other[key].cpu()), key
            else:
                assert value == other[key], key


def digest(batches):
    """One hash of everything in some batches."""
    state = hashlib.sha256()
    for batch in batches:
        for key, value in batch.items():
            data = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
            state.update(key.encode() + data)
    return state.hexdigest()

"""Arithmetic that comes out the same whatever else a program has set: one thread, float32, fixed algorithms."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """Keep torch at one thread and float32 and its ways of convolving fixed; what was set before comes back after.

    Args:
        device: where the work is done.
    """
    backends: Any = torch.backends  # its operators are no attributes that stubs know
    operators = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
    fixed: list[tuple[Any, str, Any]] = [(operator, "fp32_precision", "ieee") for operator in operators]
    fixed += [(backends.cudnn, "deterministic", True), (backends.cudnn, "benchmark", False)]
    before = [getattr(place, name) for place, name, _ in fixed]
    threads = torch.get_num_threads()
    precision = _matmul_precision()
    try:
        torch.set_num_threads(1)  # sums are then added in one order on every machine
        # Both of torch's ways to say it have to agree, or it refuses to multiply.
        if precision is not None:
            torch.set_float32_matmul_precision("highest")
        for place, name, setting in fixed:
            setattr(place, name, setting)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_num_threads(threads)
        if precision is not None:
            torch.set_float32_matmul_precision(precision)
        for (place, name, _), setting in zip(fixed, before, strict=True):
            setattr(place, name, setting)


def _matmul_precision() -> str | None:
    """What was set by `torch.set_float32_matmul_precision`; None where precisions were set by backend instead."""
    try:
        precision: str = torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
    return precision

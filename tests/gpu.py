"""Triton kernels in tests: when a real device is expected, and how kernels run apart from the test's own process.

Whether a kernel is interpreted or compiled is settled when its module is imported: each way has its process.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

POISON = 0xA5


def require_cuda() -> None:
    """Skip a test where torch sees no CUDA device, unless KHMER_OCR_REQUIRE_GPU=1 says there is one: then fail."""
    try:
        import torch
    except ImportError:
        seen = "torch is not installed"
    else:
        if torch.cuda.is_available():
            return
        seen = "torch sees no CUDA device"
    if os.environ.get("KHMER_OCR_REQUIRE_GPU") == "1":
        pytest.fail(f"{seen}, but KHMER_OCR_REQUIRE_GPU=1", pytrace=False)
    pytest.skip(f"{seen}; KHMER_OCR_REQUIRE_GPU=1 makes this a failure")


def run_on_tensors(
    function: str, cases: Sequence[Sequence[Any]], folder: Path, device: str, on_host: Sequence[int] = ()
) -> list[list[np.ndarray]]:
    """Call a public kernel function with tensors, in another process, its output memory poisoned.

    Args:
        function: "module:name".
        cases: the arguments of each call; arrays, and the pixels of ragged lines, are made tensors on the device.
        folder: an empty folder for what passes between the processes.
        device: "cpu" runs Triton's interpreter, "cuda" the compiled kernels.
        on_host: places of arguments that stay arrays.

    Returns:
        What each call returned, as arrays, lines as their pixels; one that is not a tuple as a list of one.
    """
    (folder / "cases").write_bytes(pickle.dumps((function, device, list(cases), tuple(on_host))))
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if device == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{function} on {device} failed:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    results: list[list[np.ndarray]] = pickle.loads((folder / "results").read_bytes())
    return results


def _main(folder: Path) -> None:
    import torch
    import triton
    from khmer_ocr_kernels.ragged import RaggedLines

    name, device, cases, on_host = pickle.loads((folder / "cases").read_bytes())
    assert triton.knobs.runtime.interpret == (device == "cpu")
    module, function = name.split(":")
    call, take = getattr(import_module(module), function), torch.empty

    def poisoned(*arguments: Any, **options: Any) -> torch.Tensor:
        tensor = take(*arguments, **options)
        tensor.view(torch.uint8).fill_(POISON)
        return tensor

    torch.empty = poisoned

    def moved(item: Any) -> Any:
        if isinstance(item, RaggedLines):
            return RaggedLines(moved(item.pixels_N), item.width_B, item.height_px)
        return torch.from_numpy(item).to(device) if isinstance(item, np.ndarray) else item

    results = []
    for case in cases:
        result = call(*(item if place in on_host else moved(item) for place, item in enumerate(case)))
        outputs = [
            output.pixels_N if isinstance(output, RaggedLines) else output
            for output in (result if isinstance(result, tuple) else (result,))
        ]
        assert all(output.device.type == device for output in outputs)
        results.append([output.cpu().numpy() for output in outputs])
    (folder / "results").write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))

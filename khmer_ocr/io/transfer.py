"""Arrays to a device and back through pinned memory, without either side waiting for the other.

Importing this needs no torch; calling it does, except for pixels that never left the host.
"""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
_said = set[str]()


def pinned(array: npt.NDArray[Any], device: "torch.device") -> "torch.Tensor":
    """See an array as a host tensor that a device can copy from at any later time.

    Args:
        array: of any dtype that torch knows.
        device: where it is to go; only for CUDA is there anything to pin.

    Returns:
        For CUDA a copy in pinned memory, which torch keeps until copies from it are done; else the array's own memory.
    """
    import torch

    host = torch.from_numpy(array)
    return host.pin_memory() if device.type == "cuda" else host


def upload(array: npt.NDArray[Any], device: "torch.device") -> "torch.Tensor":
    """Copy an array to a device; the host goes on at once, and may change the array.

    Args:
        array: of any dtype that torch knows.
        device: where to; on the CPU the tensor shares the array's memory.
    """
    return pinned(array, device).to(device, non_blocking=True)


class Download:
    """One array on its way back from a device, from the moment this is made.

    Args:
        source: an array, which is handed out as it is, or a tensor; what is done to a CUDA tensor later in the same
            stream, its memory given away included, does not reach the copy.
    """

    def __init__(self, source: "npt.NDArray[Any] | torch.Tensor") -> None:
        self._array: npt.NDArray[Any] | None = None
        self._copied: Any = None
        if isinstance(source, np.ndarray):
            self._array = source
        elif source.is_cuda:
            import torch

            # Memory of blocks taken before comes back from torch's pool: with two on their way there are two in all.
            host = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
            host.copy_(source, non_blocking=True)
            self._copied = torch.cuda.Event(blocking=True)
            self._copied.record(torch.cuda.current_stream(source.device))
            self._array = host.numpy()
        else:
            self._array = source.numpy()

    def take(self) -> npt.NDArray[Any]:
        """Wait for the copy and hand it out, once: no memory is held here afterwards."""
        if self._copied is not None:
            self._copied.synchronize()
        array, self._array = self._array, None
        assert array is not None
        return array


def out_of_memory(error: RuntimeError) -> bool:
    """Tell whether a device had no memory left: torch's word for it, or CUDA's.

    Args:
        error: what a call that uses a device raised; a process's first call, a kernel's first launch and pinned memory
            need room that torch does not manage, and what they raise has no class of its own.
    """
    import torch

    return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in str(error)


def warn_of_memory(lines: int) -> None:
    """Say, once in a process, that a device had no memory for that many lines together.

    Args:
        lines: how many were to be drawn or augmented at once.
    """
    if "memory" not in _said:
        log.warning(
            "The GPU has no memory for %d lines at once: they are halved, as often as need be. Pixels stay the same, "
            "except for recipes of kornia ops, such as scan. Fewer --workers leave more memory to each.",
            lines,
        )
        _said.add("memory")

"""Which device draws and augments: a GPU where there is one; the fused kernels give the same bytes without one."""

import os
from pathlib import Path
from typing import Literal, get_args

from khmer_ocr.errors import ConfigError, missing_extra

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[str, ...] = get_args(Device)
Precision = Literal["auto", "float32", "bfloat16"]
"""What a model computes in."""
_CPUS = Path("/proc/cpuinfo")
_DRIVERS = tuple(map(Path, ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")))
"""Where Linux shows NVIDIA's driver, where a container does that hides the first, and where Windows' Linux does."""


def keep_kernels() -> None:
    """Let oneDNN keep the kernels that it makes for each shape of a batch; call it before torch computes anything.

    By default it keeps 1,024, fewer than lines of 40 widths ask for in training, and making them anew took a fifth of a
    step. One takes 0.2 to 0.7 MB.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")


def multiplies_bfloat16() -> bool:
    """Tell whether this CPU has units for matrices of bfloat16 (AMX: Intel's servers since 2023), as Linux shows it."""
    return _CPUS.exists() and "amx_bf16" in _CPUS.read_text(encoding="utf-8", errors="replace").split()


def pick_device(asked: Device) -> Literal["cpu", "cuda"]:
    """Resolve "auto", and make sure that a GPU asked for is there.

    Args:
        asked: "auto" takes a GPU if there is one.

    Raises:
        ConfigError: no such device, or CUDA is asked for and absent.
    """
    if asked not in DEVICES:
        raise ConfigError(f"device is {asked!r}; expected one of {', '.join(DEVICES)}")
    # torch takes seconds to import: only if it pays.
    if asked == "cpu" or (asked == "auto" and not any(driver.exists() for driver in _DRIVERS)):
        return "cpu"
    try:
        import torch
    except ImportError as error:
        if asked == "auto":
            return "cpu"
        raise missing_extra("The device cuda", "torch", seen=str(error), otherwise="Use --device cpu.") from error
    if torch.cuda.is_available():
        return "cuda"
    if asked == "auto":
        return "cpu"
    raise ConfigError(
        "CUDA was asked for and there is none: torch sees no GPU (is the driver installed, is CUDA_VISIBLE_DEVICES "
        "empty?). Use --device cpu, or auto."
    )

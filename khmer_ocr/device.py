"""Which device draws and wears: a GPU where there is one, the same bytes without one for the fused kernels."""

from pathlib import Path
from typing import Literal

from khmer_ocr.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
DEVICES = ("auto", "cpu", "cuda")
_DRIVERS = tuple(map(Path, ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")))
"""Where Linux shows NVIDIA's driver, where a container does that hides the first, and where Windows' Linux does."""


def pick_device(asked: Device) -> Literal["cpu", "cuda"]:
    """Resolve "auto", and make sure that a GPU asked for is there.

    Args:
        asked: "auto" takes a GPU if there is one.

    Raises:
        ConfigError: no such device, or CUDA is asked for and absent.
    """
    if asked not in DEVICES:
        raise ConfigError(f"device is {asked!r}; wanted one of {', '.join(DEVICES)}")
    # torch takes seconds to import: only if it pays.
    if asked == "cpu" or (asked == "auto" and not any(driver.exists() for driver in _DRIVERS)):
        return "cpu"
    try:
        import torch
    except ImportError as error:
        if asked == "auto":
            return "cpu"
        raise ConfigError(
            "The device cuda needs torch. Run: pip install 'khmer_ocr[torch]', or use --device cpu"
        ) from error
    if torch.cuda.is_available():
        return "cuda"
    if asked == "auto":
        return "cpu"
    raise ConfigError(
        "CUDA was asked for and there is none: torch sees no GPU (is the driver installed, is CUDA_VISIBLE_DEVICES "
        "empty?). Use --device cpu, or auto."
    )

"""Which device is taken: what is asked for, or a GPU where a driver and torch both see one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from khmer_ocr.errors import ConfigError
from khmer_ocr.io import devices
from khmer_ocr.io.devices import keep_kernels, pick_device


@pytest.mark.parametrize("torch_sees", [True, False])
@pytest.mark.parametrize("driver", [0, 1, 2, None])
def test_auto_takes_a_gpu_that_driver_and_torch_see(driver, torch_sees, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    places = [tmp_path / str(n) for n in range(len(devices._DRIVERS))]
    if driver is not None:
        places[driver].touch()
    monkeypatch.setattr(devices, "_DRIVERS", places)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: torch_sees)
    assert pick_device("auto") == ("cuda" if torch_sees and driver is not None else "cpu")
    assert pick_device("cpu") == "cpu"
    if torch_sees:
        assert pick_device("cuda") == "cuda"
    else:
        with pytest.raises(ConfigError, match=r"CUDA was asked for and there is none.*Use --device cpu, or auto"):
            pick_device("cuda")
    with pytest.raises(ConfigError, match="device is 'tpu'; expected one of auto, cpu, cuda"):
        pick_device("tpu")


def test_without_a_driver_torch_is_not_imported():
    code = (
        "import sys; from khmer_ocr.io import devices; devices._DRIVERS = (); devices.pick_device('auto'); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def test_kernels_are_kept_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    keep_kernels()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    keep_kernels()
    assert int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) > 1024


@pytest.mark.parametrize(
    ("flags", "has"), [("avx2 amx_bf16 amx_tile", True), ("avx2 avx512_bf16", False), (None, False)]
)
def test_units_for_bfloat16_are_read_off_the_cpus_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, has: bool
) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr(devices, "_CPUS", tmp_path / "cpuinfo")
    assert devices.multiplies_bfloat16() is has

"""Which device is taken: what is asked for, or a GPU where a driver and torch both see one."""

import subprocess
import sys

import pytest

from khmer_ocr import device
from khmer_ocr.device import pick_device
from khmer_ocr.errors import ConfigError


@pytest.mark.parametrize("torch_sees", [True, False])
@pytest.mark.parametrize("driver", [0, 1, 2, None])
def test_auto_takes_a_gpu_that_driver_and_torch_see(driver, torch_sees, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    places = [tmp_path / str(n) for n in range(len(device._DRIVERS))]
    if driver is not None:
        places[driver].touch()
    monkeypatch.setattr(device, "_DRIVERS", places)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: torch_sees)
    assert pick_device("auto") == ("cuda" if torch_sees and driver is not None else "cpu")
    assert pick_device("cpu") == "cpu"
    if torch_sees:
        assert pick_device("cuda") == "cuda"
    else:
        with pytest.raises(ConfigError, match=r"CUDA was asked for and there is none.*Use --device cpu, or auto"):
            pick_device("cuda")
    with pytest.raises(ConfigError, match="device is 'tpu'; wanted one of auto, cpu, cuda"):
        pick_device("tpu")


def test_without_a_driver_torch_is_not_imported():
    code = (
        "import sys; from khmer_ocr import device; device._DRIVERS = (); device.pick_device('auto'); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr

"""Run by tests: train from the settings in a JSON file."""

import json
import sys
from pathlib import Path

import torch

from khmer_ocr.errors import KhmerOcrError
from khmer_ocr.train.loop import train
from tests.train import runs

torch.set_num_threads(1)
if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    changes = given.get("changes", {})
    try:
        print(train(runs.settings(Path(given["tree"]), Path(given["out"]), **changes)), flush=True)
    except KhmerOcrError as fault:
        print(fault, flush=True)
        raise SystemExit(fault.exit_status) from None

"""How fast a reader learns: lines a second of whole steps, against how fast this machine multiplies.

    python benchmarks/bench_train.py [--device cuda] [--preset base] [--compile]

A step is the model's way there and back, the joint loss, clipping and AdamW, on made-up lines of several widths, whose
batches hold so many padded columns. Each setting is run once over all widths before it counts, as the first batch of
every shape is slow; how slow is given too. The floor is the time that the step's multiplications would take at the rate
of one large product of matrices in the same precision.

Letters: B lines, W columns, L tokens.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from common import store
from torch.utils.flop_counter import FlopCounterMode

from khmer_ocr.io.devices import keep_kernels
from khmer_ocr.model.presets import PRESETS, preset
from khmer_ocr.model.seq2seq import Seq2Seq, slots_for
from khmer_ocr.text.charset import Charset
from khmer_ocr.train.losses import joint_losses, shifted

WIDTHS_PX = (128, 192, 256, 320, 384, 512)
PX_PER_TOKEN = 5.5
"""Of generated lines at 32 px, on average."""
REFERENCE_PX = 256
"""Lines a second are given for lines so wide, a usual one."""
Shape = tuple[int, int, int]


def shapes(budget_px: int) -> list[Shape]:
    """B, W, L of the batches."""
    return [(budget_px // width, width, round(width / PX_PER_TOKEN)) for width in WIDTHS_PX]


def stepper(name: str, device: str, half: bool, frozen: bool, compiled: bool) -> Callable[[Shape], None]:
    """What learns from one made-up batch of a shape."""
    charset = Charset.default()
    torch.manual_seed(0)
    model = Seq2Seq(replace(preset(name), dropout=0.0), len(charset)).to(device).train()
    if frozen:
        model.encoder.freeze_norms()
    model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    trained = torch.compile(model, dynamic=True) if compiled else model

    def step(shape: Shape) -> None:
        lines, columns, tokens = shape
        images = torch.rand(lines, 1, 32, columns, device=device)
        width_B = columns - torch.arange(lines) % 32
        targets = torch.randint(4, len(charset), (lines, tokens), device=device)
        length_B = torch.full((lines,), tokens)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16) if half else nullcontext():
            ctc, _, decoder = trained(images, width_B.to(device), shifted(targets, length_B.to(device))[0])
        losses = joint_losses(ctc, slots_for(width_B, model.config.slots), decoder, targets, length_B, 0.5, 0.02)
        (losses.joint / (lines * tokens)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def seconds(device: str, run: Callable[[], object]) -> float:
    begin = perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - begin


def products_per_s(device: str, half: bool) -> float:
    """Multiply-adds a second of one large product."""
    side = 8192 if device == "cuda" else 2048
    a = torch.rand(side, side, device=device, dtype=torch.bfloat16 if half else torch.float32)
    seconds(device, lambda: a @ a)
    return side**3 / min(seconds(device, lambda: a @ a) for _ in range(3))


def measure(args: argparse.Namespace, half: bool, frozen: bool, compiled: bool) -> dict[str, Any]:
    """One setting."""
    batches = shapes(args.budget_px)
    step = stepper(args.preset, args.device, half, frozen, compiled)
    with FlopCounterMode(display=False) if not compiled else nullcontext() as count:
        first_s = sum(seconds(args.device, lambda shape=shape: step(shape)) for shape in batches)
    rounds = [
        sum(seconds(args.device, lambda shape=shape: step(shape)) for shape in batches) for _ in range(args.rounds)
    ]
    lines = sum(lines * width for lines, width, _ in batches) / REFERENCE_PX
    found = {"lines_per_s": round(lines / min(rounds), 1), "first_round_s": round(first_s, 1)}
    if count is not None:
        floor_s = count.get_total_flops() / 2 / products_per_s(args.device, half)
        found["share_of_floor"] = round(floor_s / min(rounds), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="compact")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--budget-px", type=int, default=24_000, help="padded columns of a batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which takes minutes to begin with")
    args = parser.parse_args()
    keep_kernels()
    torch.set_num_threads(args.threads)
    settings = {"float32": (False, False, False), "bfloat16": (True, False, False)}
    settings["bfloat16, frozen norms"] = (True, True, False)
    if args.compile:
        settings |= {f"{name}, compiled": (half, frozen, True) for name, (half, frozen, _) in settings.items() if half}
    result: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "torch": torch.__version__, "settings": {}}
    for name, setting in settings.items():
        result["settings"][name] = seen = measure(args, *setting)
        print(f"{name:36s}" + "  ".join(f"{key} {value}" for key, value in seen.items()), flush=True)
    store(f"train_{args.device}", result)


if __name__ == "__main__":
    main()

"""Kernels by backend, against kornia and the memory's speed: python benchmarks/bench_kernels.py [--rounds 15]

One batch for all: 64 lines of 32 x 512 px. One core, cases in turn, ratios round by round. kornia gets its images as
float32 tensors and its parameters as per-sample tensors, ours uint8; neither pays for the conversion. The columns of a
GPU say "not run" where there is none; its batch is 128 times as large, for 64 lines would only measure how long it
takes to ask for them, and more than its cache holds.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any

import numpy as np
from common import interleaved, ratio, store
from khmer_ocr_kernels import degrade_reference, reference
from khmer_ocr_kernels.compose import compose
from khmer_ocr_kernels.degrade import degrade
from khmer_ocr_kernels.pad_normalize import pad_normalize, unit_table
from khmer_ocr_kernels.reference import line_offsets

LINES, HEIGHT, WIDTH = 64, 32, 512
GPU_LINES = 128 * LINES
GLYPHS, GLYPH_W, GLYPH_H = 24, 16, 20  # of a line, for compose
REFERENCE_LINES = 4
COPY_BYTES = 256 << 20
SIGMA32, MORPH, NOISE16 = (16, 48), (64, 256), (32, 256)  # what `basic` asks for: up to 1.5 px, whole steps, 16 greys
NOT_RUN = "not run"
DEGRADE = "degrade: "

Arguments = tuple[Any, ...]


def augment(random: np.random.Generator, lines: int) -> dict[str, Arguments]:
    """Arguments of `degrade` with each step alone and with all; half of the lines spread, half thin."""
    widths = np.full(lines, WIDTH, np.int32)
    offsets = line_offsets(widths, HEIGHT)
    pixels = np.repeat(random.choice(np.array([0, 90, 255, 255], np.uint8), int(offsets[-1]) // 4), 4)
    nothing = np.zeros(lines, np.int32)
    morph, sigma32, noise16 = (
        random.integers(*low_high, lines, np.int32, endpoint=True) for low_high in (MORPH, SIGMA32, NOISE16)
    )
    morph[lines // 2 :] *= -1
    keys = random.integers(0, 2**32, (lines, 2), np.uint32)
    steps = {
        "morphology": (morph, nothing, nothing),
        "blur": (nothing, sigma32, nothing),
        "noise": (nothing, nothing, noise16),
        "all three": (morph, sigma32, noise16),
    }
    return {name: (pixels, offsets, widths, HEIGHT, *step, keys) for name, step in steps.items()}


def layout(random: np.random.Generator, lines: int) -> Arguments:
    """Arguments of `compose`: 200 rasters of letter size, 24 on a line."""
    entries = np.zeros((200, 5), np.int32)
    entries[:, 0], entries[:, 1:3] = np.arange(200) * GLYPH_W * GLYPH_H, (GLYPH_W, GLYPH_H)
    pixels = random.choice(np.array([0, 0, 90, 255], np.uint8), 200 * GLYPH_W * GLYPH_H)
    places = np.tile(np.arange(GLYPHS) * 20, lines)
    quads = np.stack([random.integers(0, 200, lines * GLYPHS), places, np.full(lines * GLYPHS, GLYPH_H)], axis=1)
    baselines, widths = np.full(lines, 24, np.int32), np.full(lines, WIDTH, np.int32)
    return quads.astype(np.int32), np.arange(lines + 1) * GLYPHS, baselines, widths, pixels, entries, HEIGHT


def first_lines(arguments: Arguments, count: int) -> Arguments:
    """A batch of the first lines: `degrade`'s arguments cut short."""
    pixels, offsets, *rest = arguments
    short = (item[:count] if isinstance(item, np.ndarray) else item for item in rest)
    return pixels[: offsets[count]], offsets[: count + 1], *short


def kornia_cases(arguments: dict[str, Arguments], device: str) -> dict[str, Callable[[], Any]]:
    """The same steps by kornia's own functions, as a user would batch them."""
    import torch
    from kornia.augmentation import RandomGaussianNoise
    from kornia.filters import gaussian_blur2d
    from kornia.morphology import dilation, erosion

    torch.set_num_threads(1)
    pixels, _, widths, _, morph, sigma32, noise16, _ = arguments["all three"]
    lines = len(widths)
    ink = 1 - torch.from_numpy(pixels).to(device).view(lines, 1, HEIGHT, WIDTH) / 255
    weight = torch.from_numpy(np.abs(morph)).to(device).view(lines, 1, 1, 1) / 256
    sigma = torch.from_numpy(sigma32).to(device)[:, None].expand(lines, 2) / 32
    deviation = torch.from_numpy(noise16).to(device).view(lines, 1, 1, 1) / (16 * 255)
    square, half = torch.ones(3, 3, device=device), lines // 2
    augmentation = RandomGaussianNoise(0.0, 1.0, p=1.0).to(device)

    def morphology(image: Any) -> Any:
        augmented = torch.cat([dilation(image[:half], square), erosion(image[half:], square)])
        return torch.lerp(image, augmented, weight)

    def blur(image: Any) -> Any:
        return gaussian_blur2d(image, 2 * 5 + 1, sigma, border_type="constant")

    def noise(image: Any) -> Any:
        parameters = augmentation.forward_parameters(image.shape)
        parameters["gaussian_noise"] = parameters["gaussian_noise"] * deviation
        return augmentation(image, params=parameters).clamp_(0, 1)

    return {
        "morphology": lambda: morphology(ink),
        "blur": lambda: blur(ink),
        "noise": lambda: noise(ink),
        "all three": lambda: noise(blur(morphology(ink))),
    }


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def gpu() -> str:
    """Which GPU, and how many lines it is given at once."""
    import torch

    return f"{torch.cuda.get_device_name()}, {GPU_LINES} lines" if has_gpu() else NOT_RUN


def waited_for(call: Callable[[], Any]) -> Callable[[], Any]:
    """The same call, over when the GPU has done it."""
    import torch

    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run


def on_gpu(call: Callable[..., Any], arguments: Arguments) -> Callable[[], Any]:
    """The same call on CUDA tensors."""
    import torch

    # The line parameters of degrade may stay on the host, and do so in the generator.
    moved = arguments[:1] if call is degrade else arguments
    tensors = [torch.from_numpy(item).cuda() if isinstance(item, np.ndarray) else item for item in moved]
    return waited_for(lambda: call(*tensors, *arguments[len(tensors) :]))


def calls(random: np.random.Generator, lines: int) -> dict[str, tuple[Callable[..., Any], Arguments]]:
    """Op -> public function and its arguments for a batch of so many lines."""
    augmented = augment(random, lines)
    batch = (*augmented["noise"][:4], WIDTH, unit_table("float32"))
    plain: dict[str, tuple[Callable[..., Any], Arguments]] = {
        "compose": (compose, layout(random, lines)),
        "pad_normalize": (pad_normalize, batch),
    }
    return plain | {f"{DEGRADE}{name}": (degrade, arguments) for name, arguments in augmented.items()}


def cases(random: np.random.Generator) -> dict[str, dict[str, tuple[Callable[[], Any] | None, int]]]:
    """Op -> backend -> what to run (None: no device here) and for how many lines."""
    here, there = calls(random, LINES), calls(random, GPU_LINES) if has_gpu() else {}
    every = {}
    for name, (call, arguments) in here.items():
        every[name] = {
            "numba": (lambda call=call, arguments=arguments: call(*arguments), LINES),
            "triton": (on_gpu(*there[name]) if there else None, GPU_LINES),
        }
        if call is pad_normalize:
            every[name]["reference"] = (lambda arguments=arguments: reference.pad_normalize(*arguments), LINES)
        elif call is degrade:  # compose's reference goes pixel by pixel in Python
            short = first_lines(arguments, REFERENCE_LINES)
            every[name]["reference"] = (lambda short=short: degrade_reference.degrade(*short), REFERENCE_LINES)
    for device, ops, lines in (("cpu", here, LINES), ("cuda", there, GPU_LINES)):
        augmented = {name.removeprefix(DEGRADE): ops[name][1] for name in ops if name.startswith(DEGRADE)}
        kornia = kornia_cases(augmented, device) if augmented else {}
        for name in here:
            if name.startswith(DEGRADE):
                call = kornia.get(name.removeprefix(DEGRADE))
                waited = waited_for(call) if call and device == "cuda" else call
                every[name][f"kornia, {'GPU' if device == 'cuda' else 'CPU'}"] = (waited, lines)
    return every


def bytes_moved(op: str) -> int:
    """What must be read and written for a line, were everything else free."""
    pixels = HEIGHT * WIDTH
    if op == "compose":
        return pixels + GLYPHS * (GLYPH_W * GLYPH_H + 12 + 20)  # rasters, quads, entries
    return pixels * (1 + 4) if op == "pad_normalize" else 2 * pixels


def copy_speed(on_device: bool) -> float:
    """Bytes read and written a second by a plain copy of memory too large for any cache; the best of 9."""
    if on_device:
        import torch

        source, target = (torch.ones(COPY_BYTES, dtype=torch.uint8, device="cuda") for _ in range(2))

        def copy() -> int:
            target.copy_(source)
            torch.cuda.synchronize()
            return 2 * COPY_BYTES
    else:
        source, target = np.ones(COPY_BYTES, np.uint8), np.ones(COPY_BYTES, np.uint8)

        def copy() -> int:
            np.copyto(target, source)
            return 2 * COPY_BYTES

    return 1 / min(interleaved({"copy": copy}, 9)["copy"])


def repeated(run: Callable[[], Any], lines: int, times: int) -> Callable[[], int]:
    def case() -> int:
        for _ in range(times):
            run()
        return times * lines

    return case


def measure(rounds: int) -> dict[str, Any]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    every = cases(np.random.default_rng(1))
    speed = {"numba": copy_speed(False), "triton": copy_speed(True) if has_gpu() else None}
    speed["reference"] = speed["numba"]
    rows: dict[str, Any] = {}
    for op, backends in every.items():
        runs = {name: (run, lines) for name, (run, lines) in backends.items() if run is not None}
        for run, _ in runs.values():
            run()  # compiles
        seconds = interleaved(
            {name: repeated(run, lines, 1 if name == "reference" else 5) for name, (run, lines) in runs.items()}, rounds
        )
        row: dict[str, Any] = {"bytes_per_line": bytes_moved(op)}
        for name in backends:
            if name not in seconds:
                row[name] = NOT_RUN
                continue
            per_line_s = median(seconds[name])
            row[name] = {"images_per_s": round(1 / per_line_s), "us_per_line": round(per_line_s * 1e6, 4)}
            if speed.get(name):
                floor_s = bytes_moved(op) / speed[name]
                row[name]["times_the_copy_floor"] = round(per_line_s / floor_s, 1)
        for theirs, ours in (("kornia, CPU", "numba"), ("kornia, GPU", "triton")):
            if theirs in seconds:
                row[f"kornia_to_{ours}"] = [round(value, 1) for value in ratio(seconds[theirs], seconds[ours])]
        rows[op] = row
        print(op, json.dumps(row), flush=True)
    copied = {name: round(value / 1e9, 1) for name, value in speed.items() if value and name != "reference"}
    return {"copy_gb_per_s": copied, "kernels": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    result = {
        "command": " ".join(["python", *sys.argv]),
        "batch": f"{LINES} x 1 x {HEIGHT} x {WIDTH}, one core; steps: sigma 0.5-1.5 px, morphology 0.25-1, noise 2-16",
        "gpu": gpu(),
        "versions": {name: version(name) for name in ("torch", "kornia", "triton")},
        **measure(rounds),
    }
    print(store("kernels", result))


if __name__ == "__main__":
    main()

"""What the Triton kernel draws, laid bare for a test; run through `gpu.run_on_tensors`."""

import torch
import triton
import triton.language as tl
from khmer_ocr_kernels.degrade_triton import random_bytes


@triton.jit
def _store_bytes(keys_B2, bytes_BN, first_group, BLOCK: tl.constexpr):
    line = tl.program_id(0)
    key_0 = tl.load(keys_B2 + 2 * line).to(tl.uint32, bitcast=True)
    key_1 = tl.load(keys_B2 + 2 * line + 1).to(tl.uint32, bitcast=True)
    drawn = random_bytes(first_group, key_0, key_1, BLOCK)
    tl.store(bytes_BN + line * BLOCK + tl.arange(0, BLOCK), drawn.to(tl.uint8))


def draw_bytes(keys_B2: torch.Tensor, first_group: int) -> torch.Tensor:
    """512 bytes for each key (int32, the bits of uint32) from a group of 16 pixels on."""
    drawn = torch.empty((len(keys_B2), 512), dtype=torch.uint8, device=keys_B2.device)
    _store_bytes[(len(keys_B2),)](keys_B2, drawn, first_group, BLOCK=512)
    return drawn

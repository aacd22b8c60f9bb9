"""Triton kernels to machine code with no GPU and no driver: proof that they compile, not that they run.

A process under TRITON_INTERPRET holds no compilable kernels, so compilation has one of its own: `compile_apart`.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """One kernel, found as `kernel` in `module`, for one kind of device.

    `signature` names every argument's type ("*u8", "i32", "constexpr"), in order; `constexprs` holds JSON values.
    """

    module: str
    kernel: str
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any] = field(default_factory=dict)
    capability: int = 90
    num_warps: int = 4


def compile_to_cubin(
    kernel: Any, signature: dict[str, str], constexprs: dict[str, Any], capability: int, num_warps: int = 4
) -> bytes:
    """Machine code of a kernel for sm_`capability`; to be called where TRITON_INTERPRET was never set."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
    built = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": num_warps})
    return bytes(built.asm["cubin"])


def compile_apart(cases: Sequence[Case], cache: Path) -> list[bytes]:
    """Compile cases in a process without TRITON_INTERPRET; an empty `cache` folder makes it compile for certain."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([asdict(case) for case in cases]),
        env={**environment, "TRITON_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"compiling failed:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return [base64.b64decode(text) for text in json.loads(done.stdout.splitlines()[-1])]


def capability_of(cubin: bytes) -> int:
    """The sm number of the device that machine code is for, from the flags in its ELF header."""
    assert cubin[:4] == b"\x7fELF", "not machine code"
    flags = int.from_bytes(cubin[48:52], "little")
    # ABI version 7 (up to sm_90) has the number in the lowest byte, version 8 in the one above.
    return flags >> 8 & 0xFF if cubin[8] >= 8 else flags & 0xFF


def _main() -> None:
    built = []
    for case in (Case(**row) for row in json.load(sys.stdin)):
        kernel = getattr(import_module(case.module), case.kernel)
        constexprs = dict(case.constexprs)
        cubin = compile_to_cubin(kernel, dict(case.signature), constexprs, case.capability, case.num_warps)
        built.append(base64.b64encode(cubin).decode())
    print(json.dumps(built))


if __name__ == "__main__":
    _main()

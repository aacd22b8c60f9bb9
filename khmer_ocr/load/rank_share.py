"""Which share of the lines this process is to read, where several train one model."""

import os

import torch.distributed as dist

from khmer_ocr.errors import ConfigError


def own_share(rank: int | None = None, world: int | None = None) -> tuple[int, int]:
    """Find out which of how many processes this is.

    Args:
        rank: number of this process, from 0; None asks `torch.distributed` if it is initialised, else the environment
            (RANK and WORLD_SIZE, as torchrun sets them).
        world: how many processes there are; to be given with `rank`.

    Returns:
        Rank and world; 0 and 1 for a process that is alone.

    Raises:
        ConfigError: only one of the two is given or set, or they are no such numbers.
    """
    names, where = ("rank", "world"), "given"
    if rank is None and world is None:
        if dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
        names, where = ("RANK", "WORLD_SIZE"), "set in the environment"
        rank, world = map(_variable, names)
        if rank is None and world is None:
            return 0, 1
    if rank is None or world is None:
        there, missing = names if world is None else reversed(names)
        raise ConfigError(
            f"{there} is {where} but {missing} is not, so that it is unknown which lines this process is to read. "
            "Start by torchrun, which sets both, give rank=... and world=..., or unset both for one process."
        )
    if not 0 <= rank < world:
        raise ConfigError(f"rank {rank} of world {world} is {where}; ranks count from 0 to world - 1.")
    return rank, world


def _variable(name: str) -> int | None:
    value = os.environ.get(name, "").strip()
    if not value:
        return None
    try:
        return int(value)
    except ValueError as fault:
        raise ConfigError(f"{name} is {value!r} in the environment, expected a whole number. Unset it.") from fault

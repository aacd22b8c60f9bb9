"""Several processes that train one model: rank and world, reductions and batch normalisation over all.

Letters: B lines, C channels, H rows, W columns.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from khmer_ocr.errors import ConfigError

_OTHER_LAUNCHERS = (
    ("Slurm", "SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), "srun --ntasks-per-node=1"),
    ("mpirun", "OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",), "mpirun --map-by ppr:1:node"),
    ("an MPI launcher", "PMI_RANK", ("PMI_SIZE",), "mpiexec -ppn 1"),
)
"""What starts a command several times over without joining the processes: its name, its variables for the number of
this process and for how many there are (the first that is set counts), and how it starts one process a machine."""


@dataclass(frozen=True)
class DistributedContext:
    """This process among those that `torchrun` started; alone where it started none.

    Attributes:
        rank: number of this process.
        world: how many there are.
        local: number of this process on its machine, and of its GPU.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def largest(self, value: Tensor) -> Tensor:
        """Largest value of all processes, in place."""
        if self.world > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return value

    def wait(self) -> None:
        """Go on when all processes have come here: torchrun ends the others as soon as one leaves with a status."""
        if self.world > 1:
            dist.barrier()


def join(device: str) -> DistributedContext:
    """Join the processes that `torchrun` started, by NCCL on GPUs and gloo on CPUs; alone without it.

    Raises:
        ConfigError: torchrun's variables are half there, or something else started several of this command.
    """
    if "WORLD_SIZE" not in os.environ:
        _refuse_other_launchers()
        return DistributedContext()
    try:
        context = DistributedContext(
            int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
        )
    except (KeyError, ValueError) as fault:
        raise ConfigError(
            f"WORLD_SIZE is set but not RANK and LOCAL_RANK as torchrun sets them ({fault}). Start by torchrun, or "
            "unset WORLD_SIZE."
        ) from fault
    if device == "cuda":
        torch.cuda.set_device(context.local)
    if context.world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return context


def _refuse_other_launchers() -> None:
    """Refuse to be one of several tasks that would each train by itself, in the same folders."""
    for name, rank, counts, once in _OTHER_LAUNCHERS:
        counter = next((variable for variable in counts if variable in os.environ), None)
        if rank not in os.environ or counter is None:
            continue
        tasks = os.environ[counter]
        if tasks.isdecimal() and int(tasks) > 1:
            raise ConfigError(
                f"{name} started {tasks} tasks of this command ({counter}={tasks}, {rank}={os.environ[rank]}) without "
                "torchrun: each would train by itself and write over the others' checkpoints. Start one task a "
                f"machine and let torchrun start one process a GPU: {once} torchrun --nproc-per-node GPUS "
                "-m khmer_ocr train ... (of several machines torchrun also needs --nnodes, --rdzv-backend c10d and "
                "--rdzv-endpoint). For a single process, ask for one task."
            )


def leave() -> None:
    """Leave the process group at the end of a run."""
    if dist.is_initialized():
        dist.destroy_process_group()


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the lines of all processes, on any device; torch's own is for GPUs only."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        if not self.training:
            return super().forward(x_BCHW)
        x = x_BCHW.float()
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = torch.cat([x.sum((0, 2, 3)), x.square().sum((0, 2, 3)), count])
        total, square, counted = all_reduce(sums).split([x.shape[1], x.shape[1], 1])
        mean, variance = total / counted, square / counted - (total / counted).square()
        with torch.no_grad():
            share, seen = self.momentum, self.num_batches_tracked
            assert self.running_mean is not None and self.running_var is not None and seen is not None and share
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * counted / (counted - 1).clamp(min=1), share)
            seen += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        normalised: Tensor = x * scale[:, None, None] + shift[:, None, None]
        return normalised.to(x_BCHW.dtype)


def share_normalisation(model: nn.Module) -> None:
    """Let every batch normalisation of a model see the lines of all processes; the weights stay as they are."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm

"""A model on devices: memory that runs out, and weights that ranks share (`fully_shard`, FSDP2)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

_CPU = ("can't allocate memory", "not enough memory")
"""What torch's allocator on the CPU says, in an ordinary RuntimeError."""


OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|\bMemoryError|DefaultCPUAllocator|not enough memory"
    r"|can(no|')t allocate memory|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
"""What PyTorch's allocators, CUDA's libraries and Python say when memory runs out, in a log."""


class OutOfMemory(RuntimeError):
    """A step did not fit the memory of one of several ranks, which cannot repeat it alone.

    Args:
        micro_batch_size: The size to go on with, from the last checkpoint.
    """

    def __init__(self, micro_batch_size: int) -> None:
        super().__init__(
            f"out of memory; it would go on with data.micro_batch_size={micro_batch_size}"
        )
        self.micro_batch_size = micro_batch_size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on any device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in _CPU
    )


def release_memory(device: torch.device) -> None:
    """Give the device's cached memory back, once nothing refers to it."""
    if device.type != "cpu":
        torch.accelerator.empty_cache()


def is_sharded(model: nn.Module) -> bool:
    """Whether every forward pass of the model needs all ranks."""
    return isinstance(model, FSDPModule)


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard each layer by itself, then what is left; in place, once.

    Args:
        model: The same on all ranks.
        mesh: One dimension, over the ranks.
    """
    if is_sharded(model):
        return
    for layers in [m for m in model.modules() if isinstance(m, nn.ModuleList)]:
        for layer in layers:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


@contextmanager
def gradients_stay_local(model: nn.Module) -> Iterator[None]:
    """Let backward passes add to this rank's gradients without reducing them."""
    assert isinstance(model, FSDPModule)
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that all ranks hold."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

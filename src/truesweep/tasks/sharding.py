"""Weights, gradients and optimizer state shared among ranks: PyTorch's `fully_shard` (FSDP2)."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor


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

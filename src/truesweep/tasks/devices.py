"""A model on devices: what their memory takes, and weights that ranks share (`fully_shard`, FSDP2).

How many rows go through the model at once changes no result. It is measured where that can be.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from truesweep.data.cache import default_cache
from truesweep.record.files import write_json

OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|\bMemoryError|DefaultCPUAllocator|not enough memory"
    r"|can(no|')t allocate memory|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
"""What PyTorch's allocators, CUDA's libraries, Triton and Python say when memory runs out."""


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
    """Whether an error means that memory ran out, on any device.

    Not only torch's allocator says so: what loads a kernel or makes a handle asks for memory, too.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(
        OUT_OF_MEMORY.search(str(error))
    )


def release_memory(device: torch.device) -> None:
    """Give the device's cached memory back, once nothing refers to it."""
    if device.type != "cpu":
        torch.accelerator.empty_cache()


def runs_ahead(device: torch.device) -> bool:
    """Whether this process goes on while a device computes, until it asks for a number."""
    return device.type != "cpu"


class Sent:
    """Numbers on their way from a device, for which only who reads them waits.

    Args:
        numbers: [n], of which nobody else keeps hold.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._numbers, self._arrived = numbers, None
        if numbers.is_cuda:  # whatever else is queued by the time they are read
            self._numbers = torch.empty_like(numbers, device="cpu", pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> list[float]:
        """The numbers, once they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: list[float] = self._numbers.tolist()
        return numbers


RESERVE = 0.1
"""Share of the free memory that is not planned with: it comes in pieces, and others want some."""
JOBS_ON_GPU = "TRUESWEEP_JOBS_ON_GPU"
"""The variable that says how many jobs share a GPU: each has its share of the memory, at most."""
STATES = 2
"""Numbers that an optimizer keeps of each weight before it has made a step: those of AdamW."""
_TRIES = 4
"""Numbers of rows that are tried after 1 and 2."""


class Gauge:
    """Measures what a device's memory takes; the allocator of torch knows that of GPUs only.

    Args:
        device: The device, which holds by now what it holds through all of a training.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._at_rest = self._held()

    @staticmethod
    def measures(device: torch.device) -> bool:
        """Whether a device can be measured."""
        return device.type == "cuda"

    def room(self, weights: Iterable[Tensor], optimizer: Optimizer) -> int:
        """Bytes that forward and backward passes may take, gradients included.

        Args:
            weights: What is trained.
            optimizer: Its state, if it is still to come, is left room for.
        """
        to_come = 0 if optimizer.state else STATES * sum(w.nbytes for w in weights)
        share = self._total() // int(os.environ.get(JOBS_ON_GPU, "1")) - self._at_rest
        return int((1 - RESERVE) * min(share, self._free())) - to_come

    def peak(self, work: Callable[[], object]) -> float:
        """Bytes that some work takes at most, beyond what was held at first; infinite: too many.

        Args:
            work: What it returns is let go.
        """
        self.forget_peak()
        try:
            work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return self._peak() - self._at_rest
        release_memory(self.device)  # past the error, whose traceback holds what was computed
        return math.inf

    def forget_peak(self) -> None:
        """Have what the device holds at most be counted from now on."""
        torch.cuda.reset_peak_memory_stats(self.device)

    def _free(self) -> int:
        """Bytes that nobody holds, or torch without using them."""
        idle = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + idle

    def _total(self) -> int:
        return torch.cuda.mem_get_info(self.device)[1]

    def _held(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)


def rows_that_fit(peak: Callable[[int], float], room: float, most: int) -> int:
    """The most rows of which a forward and a backward pass were seen to fit a device's memory.

    1 and 2 rows are tried, then what they promise if memory grows along a line, and so on from what
    that has shown: it may grow faster, where few rows take less than an optimizer's gradients, and
    slower, where a large vocabulary is taken a part at a time.

    Args:
        peak: Bytes that so many rows take; infinite where that is too many.
        room: Bytes that there are.
        most: Rows at most. They are divided into parts that are as equal as can be.

    Returns:
        1 where even that was too much.
    """
    tried: dict[int, float] = {}
    rows = 1
    for _ in range(_TRIES + 2):
        tried[rows] = peak(rows)
        rows = min(2, most) if len(tried) == 1 else _evenly(_promised(tried, room, most), most)
        if rows in tried:
            break
    return max((n for n, taken in tried.items() if taken <= room), default=1)


def _promised(tried: Mapping[int, float], room: float, most: int) -> int:
    """How many rows fit along the line through those two that tell most."""
    fit = sorted(n for n, taken in tried.items() if taken <= room)
    if not fit:
        return 1
    more = min((n for n, taken in tried.items() if taken > room), default=None)
    if more is not None and math.isinf(tried[more]):
        return (fit[-1] + more) // 2
    known = fit[-2:] if more is None else [fit[-1], more]
    if len(known) == 1:
        return most
    (low, high), left = known, room - tried[fit[-1]]
    a_row = (tried[high] - tried[low]) / (high - low)
    return most if a_row <= 0 else min(most, fit[-1] + int(left / a_row))


def _evenly(rows: int, most: int) -> int:
    """The largest of as many parts of a whole as it takes with so many rows in each."""
    return -(-most // -(-most // max(1, rows)))


class Peaks:
    """What was measured before with the same shapes on the same card, by number of rows.

    It is kept beside the encoded data (`TRUESWEEP_CACHE`), a file for each description.

    Args:
        about: All that the memory of a pass follows from, in plain values.
    """

    def __init__(self, about: Mapping[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        self._path: Path = default_cache() / "memory" / f"{key}.json"

    def read(self) -> dict[int, float]:
        """Bytes by rows; none where nothing is kept that can be read."""
        try:
            kept = json.loads(self._path.read_text())
            return {int(rows): float(taken) for rows, taken in kept.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def write(self, peaks: Mapping[int, float]) -> None:
        """Keep what was measured, if that can be kept; what was too much depends on the rest."""
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, {str(n): v for n, v in peaks.items() if math.isfinite(v)})


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

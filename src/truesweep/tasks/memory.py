"""Forward passes that fit the memory."""

import torch

_CPU = ("can't allocate memory", "not enough memory")
"""What torch's allocator on the CPU says, in an ordinary RuntimeError."""


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

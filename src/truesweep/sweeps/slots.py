"""Slots that jobs run in: a GPU with its share of the cores, or a set of cores."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

MEMORY_PER_SLOT = 2 * 2**30
"""Main memory that a slot should have by default, bytes."""


@dataclass(frozen=True)
class Slot:
    """Room for a job's rank.

    Args:
        cores: The cores it runs on; empty where the system cannot bind processes to them.
        gpu: The GPU as `CUDA_VISIBLE_DEVICES` names it; None for the CPU.
    """

    cores: frozenset[int]
    gpu: str | None = None


class Slots:
    """Slots of one kind, free or taken.

    Args:
        slots: All of them, free.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.all = list(slots)
        self._free = list(range(len(slots)))

    def __len__(self) -> int:
        return len(self.all)

    @property
    def largest(self) -> int:
        """The most devices that a job can ever have."""
        return len(self._different(range(len(self.all)), len(self.all)))

    def fits(self, count: int) -> bool:
        """Whether so many slots are free."""
        return len(self._different(self._free, count)) == count

    def take(self, count: int) -> list[int]:
        """Take free slots, of different GPUs."""
        chosen = self._different(self._free, count)
        assert len(chosen) == count, "a job is started where it fits"
        self._free = [number for number in self._free if number not in chosen]
        return chosen

    def give_back(self, numbers: Sequence[int]) -> None:
        """Make slots free again."""
        self._free = sorted([*self._free, *numbers])

    def _different(self, numbers: Sequence[int], count: int) -> list[int]:
        """The first slots, none of which shares its GPU with another."""
        chosen: dict[object, int] = {}
        for number in numbers:
            chosen.setdefault(self.all[number].gpu or number, number)
        return list(chosen.values())[:count]


def cpu_slots(count: int | None = None) -> Slots:
    """Slots that share out the cores evenly; where there are more slots than cores, they overlap.

    Args:
        count: How many; None: one a core, if there is memory enough for as many jobs.
    """
    cores = usable_cores()
    count = count or max(1, min(len(cores), _memory() // MEMORY_PER_SLOT))
    return Slots([Slot(share) for share in _shares(cores, count)])


def gpu_slots(count: int | None = None) -> Slots:
    """Slots of one GPU each; where there are more slots than GPUs, jobs share them.

    Args:
        count: How many; None: one a GPU.
    """
    gpus = visible_gpus()
    if not gpus:
        return Slots([])
    shares = _shares(usable_cores(), count or len(gpus))
    return Slots([Slot(share, gpus[i % len(gpus)]) for i, share in enumerate(shares)])


def visible_gpus() -> list[str]:
    """The GPUs this process may use, by their names in `CUDA_VISIBLE_DEVICES`.

    They are counted through NVML, which leaves CUDA alone.
    """
    count = torch.cuda.device_count()
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = asked.split(",") if asked is not None else map(str, range(count))
    return [name.strip() for name in names][:count]


def usable_cores() -> list[int]:
    """The cores this process may use, no more than its control group has time for."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    cores = sorted(os.sched_getaffinity(0))
    return cores[: _quota(Path("/sys/fs/cgroup/cpu.max"))]


def _quota(file: Path) -> int | None:
    """Cores' worth of time in a control group: the file holds microseconds and their period."""
    try:
        quota, period = file.read_text(encoding="ascii").split()
    except OSError:
        return None
    return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))


def _memory() -> int:
    """Main memory of the machine, bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _shares(cores: Sequence[int], count: int) -> list[frozenset[int]]:
    """Neighbouring cores for each of `count` slots, at least one."""
    if count >= len(cores):
        return [frozenset([cores[i % len(cores)]]) for i in range(count)]
    edges = [len(cores) * i // count for i in range(count + 1)]
    return [frozenset(cores[a:b]) for a, b in pairwise(edges)]

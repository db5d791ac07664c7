"""The GPUs that this process may use.

They are asked of the driver's tool: CUDA must not start before a process is forked.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

_INSTANCE = re.compile(r"^ +MIG .*?(\d+)gb\b.*UUID: (MIG-\S+?)\)", re.MULTILINE)
_CARD = re.compile(r"^GPU \d+: ", re.MULTILINE)
_UUID = re.compile(r"UUID: (GPU-[^)\s]+)\)")


class Gpu(NamedTuple):
    """A card, or a part of one, as CUDA shows it to a program.

    Attributes:
        uuid: The card's.
        capability: Its compute capability, such as 8.0; None: not known.
        memory: Bytes; None: not known.
    """

    uuid: str
    capability: float | None
    memory: int | None


def capabilities() -> list[float]:
    """Compute capabilities of the GPUs, such as 8.0; empty where they are not known."""
    return [gpu.capability for gpu in visible(os.environ) if gpu.capability is not None]


def gpu_memory() -> list[int]:
    """Bytes of each GPU's memory; empty where they are not known."""
    return [gpu.memory for gpu in visible(os.environ) if gpu.memory is not None]


def visible(environment: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that CUDA would show with `CUDA_VISIBLE_DEVICES` as it is; all of them without it.

    As CUDA does, it takes numbers, UUIDs, what they begin with, and names of MIG instances, up to
    the first that names nothing. Numbers count as in `nvidia-smi` where `CUDA_DEVICE_ORDER` is
    `PCI_BUS_ID`, and else from the fastest on, for which the newest is taken here.
    """
    named, cards = environment.get("CUDA_VISIBLE_DEVICES"), _cards()
    if environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        cards = sorted(cards, key=lambda card: -(card.capability or 0.0))
    if named is None:
        return cards
    found: list[Gpu] = []
    for name in (part.strip() for part in named.split(",")):
        gpu = _find(name, cards)
        if gpu is None:
            break
        found.append(gpu)
    return found


def _find(name: str, cards: list[Gpu]) -> Gpu | None:
    """What one entry of `CUDA_VISIBLE_DEVICES` names; None: nothing, or several."""
    if name.isdecimal():
        return cards[int(name)] if int(name) < len(cards) else None
    card = name.removeprefix("MIG-").split("/")[0]  # MIG-GPU-…/1/0, before driver 470
    if card.startswith("GPU-"):
        alike = [gpu for gpu in cards if gpu.uuid.startswith(card)]
        if len(alike) != 1:
            return None
        return _part(alike[0], None) if name.startswith("MIG-") else alike[0]
    if not name.startswith("MIG-"):
        return None
    parts = [(uuid, bytes_) for uuid, bytes_ in _instances().items() if uuid.startswith(name)]
    if len(parts) != 1:
        return None
    (_, (uuid, held)) = parts[0]
    return next((_part(gpu, held) for gpu in cards if gpu.uuid == uuid), None)


def _part(card: Gpu, memory: int | None) -> Gpu:
    """A part of a card with memory of its own."""
    return Gpu(card.uuid, card.capability, memory)


def _cards() -> list[Gpu]:
    """The machine's cards, by their number in `nvidia-smi`."""
    capability = dict(_pairs("compute_cap"))
    return [
        Gpu(
            uuid,
            float(found) if re.fullmatch(r"\d+\.\d+", found := capability.get(uuid, "")) else None,
            int(size) * 2**20 if (size := held.removesuffix(" MiB")).isdecimal() else None,
        )
        for uuid, held in _pairs("memory.total")
    ]


def _pairs(field: str) -> Iterator[tuple[str, str]]:
    """Each card's UUID and a field of it. One field a time: an old driver does not know all."""
    for line in ask(f"uuid,{field}"):
        uuid, _, value = line.partition(", ")
        yield uuid, value


def _instances() -> dict[str, tuple[str, int]]:
    """By the name of each MIG instance, its card's UUID and its memory, in bytes.

    Its profile says how many of the card's gigabytes it has, a little less than there are.
    """
    found = {}
    for card in _CARD.split(_output("-L"))[1:]:
        of = _UUID.search(card)
        for size, name in _INSTANCE.findall(card):
            found[name] = (of[1] if of else "", int(size) * 10**9)
    return found


def ask(fields: str) -> list[str]:
    """A line for each of the machine's cards, by their number; none without an NVIDIA driver."""
    return _output(f"--query-gpu={fields}", "--format=csv,noheader").splitlines()


@cache
def _output(*arguments: str) -> str:
    """What `nvidia-smi` prints; nothing if it is not there, fails or takes over five seconds."""
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        command = ["nvidia-smi", *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=5, text=True).stdout
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return ""

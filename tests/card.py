"""A made-up card: tensors of `cuda` whose numbers lie in this processor's memory.

torch asks a tensor for its device, and this one says `cuda:0`. So whatever would be an error with
a real card is one here (tensors of two devices in one operation, numbers that are taken for an
array of NumPy), casts are those of `torch.autocast("cuda")`, and what a program does only where
there is a card is done. Kernels are the processor's: of their types, limits and speed it says
nothing.
"""

import inspect
import os
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d as c10d
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

ATEN = torch.ops.aten
CUDA, CPU = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))), torch.device("cpu")
ANSWERED_LATE = {
    *(ATEN._local_scalar_dense, ATEN.is_nonzero, ATEN.equal, ATEN.nonzero, ATEN.masked_select),
    *(ATEN._unique2, ATEN.unique_dim, ATEN.unique_consecutive),
}
"""Operations that a GPU is waited for in, as their result is a number or has a size of its own."""
INDEXED = {ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_}
"""Operations that take indices of either, of which a mask has a result of a size of its own."""


class OnCard(Tensor):
    """A tensor that says it is on the card.

    Attributes:
        held: The same on the processor.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnCard":
        made: OnCard = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=CUDA,
            requires_grad=held.requires_grad,
        )
        return made

    def __init__(self, held: Tensor) -> None:
        self.held = held

    # As torch documents it where functions are left alone, which its types do not know.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    # A classmethod by torch's documentation, and none by its types.
    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        assert Card.current is not None
        return Card.current.compute(func, args, kwargs or {})

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: Mapping[str, Tensor], *_: Any) -> "OnCard":
        return OnCard(inner["held"])

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.detach().to(CPU).tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied: Tensor = memo.setdefault(id(self), self.detach().clone())
        return copied

    def __repr__(self) -> str:  # type: ignore[override]  # torch's has an argument that nobody gives
        return f"OnCard({self.held!r})"


class Card(TorchDispatchMode):
    """What is computed on the card, and where the processor would wait for it.

    Attributes:
        waits: What was waited for, and who asked for it.
    """

    current: ClassVar["Card | None"] = None
    NOT_ARRIVED = 77
    """What stands in the processor's memory where a card's numbers are still to come."""

    def __init__(self, memory: int = 2**40) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.memory = memory
        self.used = self.peak = 0
        self._objects = False
        self._users = Counter[int]()  # tensors by the place of their numbers
        self._under_way: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.compute(func, args, kwargs or {})

    def compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Do an operation where its tensors are.

        Raises:
            RuntimeError: They are on two devices.
        """
        if _is_composite(func):  # as it may be where no gradient is asked for
            with self:
                return func.decompose(*args, **kwargs)
        given = [v for v in tree_flatten((args, kwargs))[0] if isinstance(v, Tensor)]
        here = [v for v in given if isinstance(v, OnCard)]
        there = [v for v in given if not isinstance(v, OnCard)]
        if func.namespace == "c10d":
            if there and not self._objects:
                raise RuntimeError("No backend type associated with device type cpu")
            held = func(*tree_map(_held, args), **tree_map(_held, kwargs))
            return tree_map(self._put, held)
        asked = kwargs.get("device")
        operation = getattr(func, "overloadpacket", func)
        if operation is ATEN.copy_:
            return self._copy(func, args, kwargs)
        on_card = bool(here) if asked is None else torch.device(asked).type == "cuda"
        if not here and not on_card:
            return func(*args, **kwargs)
        if operation is ATEN._to_copy and (bool(here) != on_card):
            return self._moved(args[0], kwargs, on_card)
        if here and there and operation not in INDEXED and any(v.dim() for v in there):
            shapes = ", ".join(f"{list(v.shape)} on {v.device}" for v in given)
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {where(str(func))} has {shapes}"
            )
        if here:
            self._note_waits(func, operation, args, there)
        named = _of_processor(kwargs) if on_card else kwargs
        out = func(*tree_map(_held, args), **tree_map(_held, named))
        if not on_card:
            return out
        if isinstance(out, Tensor | list | tuple):
            out = tree_map(self._put, out)
        return return_and_correct_aliasing(func, args, kwargs, out) if here else out

    def _note_waits(self, func: Any, operation: Any, args: Any, there: Sequence[Tensor]) -> None:
        by_mask = operation in INDEXED and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if by_mask or operation in ANSWERED_LATE or any(v.dim() for v in there):
            self.wait(str(func))

    def wait(self, what: str) -> None:
        """Note a wait; all that was under way has arrived then."""
        self.waits.append(where(what))
        self.arrive()

    def arrive(self) -> None:
        """Have all arrive that is under way to the processor."""
        for copy in self._under_way:
            copy()
        self._under_way.clear()

    def _moved(self, source: Tensor, kwargs: Any, to_card: bool) -> Tensor:
        waits = not kwargs.get("non_blocking") or (to_card and not source.is_pinned())
        if waits:
            self.wait("copy")
        out: Tensor = ATEN._to_copy(_held(source), **_of_processor(kwargs))
        if to_card:
            moved: Tensor = self._put(out)
            return moved
        if not waits:
            self._later(out, out.clone())
        return out

    def _copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        target, source = args[:2]
        across = isinstance(target, OnCard) != isinstance(source, OnCard)
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        if across and not (isinstance(target, OnCard) and source.dim() == 0):
            host = source if isinstance(target, OnCard) else target
            if not non_blocking or not host.is_pinned():
                self.wait("copy")
            elif not isinstance(target, OnCard):
                self._later(target, _held(source).clone())
                return target
        func(*tree_map(_held, args), **kwargs)
        return target

    def _later(self, target: Tensor, value: Tensor) -> None:
        """Have a value arrive some time; until then there is something else."""
        target.fill_(self.NOT_ARRIVED)
        self._under_way.append(lambda: target.copy_(value))

    def _put(self, held: Any) -> Any:
        """What is on the card from now on."""
        if not isinstance(held, Tensor) or isinstance(held, OnCard):
            return held
        storage = held.untyped_storage()
        weakref.finalize(held, self._leave, storage.data_ptr(), storage.nbytes())
        self._take(storage.data_ptr(), storage.nbytes())
        with torch.inference_mode(False):  # what holds it is none, whatever that is
            return OnCard(held)

    def _take(self, place: int, size: int) -> None:
        self._users[place] += 1
        if self._users[place] > 1:
            return
        self.used += size
        self.peak = max(self.peak, self.used)
        if self.used > self.memory:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")

    def _leave(self, place: int, size: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            del self._users[place]
            self.used -= size

    def sends_objects(self, collective: Callable[..., Any]) -> Callable[..., Any]:
        """One that is no matter of tensors, and goes by the processor's memory here."""

        @wraps(collective)
        def called(*args: Any, **kwargs: Any) -> Any:
            self._objects = True
            try:
                return collective(*args, **kwargs)
            finally:
                self._objects = False

        return called

    def forget_peak(self) -> None:
        """Count from now on what is held at most."""
        self.peak = self.used


@cache
def _is_composite(func: Any) -> bool:
    """Whether an operation is made of others."""
    # torch types no key of its dispatcher.
    key = torch.DispatchKey.CompositeImplicitAutograd  # type: ignore[attr-defined]
    return isinstance(func, torch._ops.OpOverload) and func.has_kernel_for_dispatch_key(key)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnCard) else value


def _of_processor(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in kwargs.items() if k not in ("pin_memory", "non_blocking")}
    return {**kept, "device": CPU} if kept.get("device") is not None else kept


def where(what: str) -> str:
    """An operation, and who asked for it."""
    stack = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_stack()]
    own = [(f, n) for f, n in stack if "torch" not in f.parts and f != Path(__file__)]
    file, line = own[-1] if own else stack[-1]
    return f"{what} at {file.parent.name}/{file.name}:{line}"


class _Event:
    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        assert Card.current is not None
        Card.current.arrive()


def _like(real: Callable[..., Any], stand_in: Callable[..., Any]) -> Callable[..., Any]:
    """A stand-in that takes what the real function takes."""
    signature = inspect.signature(real)

    @wraps(real)
    def called(*args: Any, **kwargs: Any) -> Any:
        signature.bind(*args, **kwargs)
        return stand_in(*args, **kwargs)

    return called


def _moved_if_it_can_be(move: Callable[..., Any]) -> Callable[..., Any]:
    """Leave weights on the card that something holds, such as the traceback of an error."""

    @wraps(move)
    def called(module: Any) -> Any:
        with suppress(RuntimeError):
            return move(module)
        return module

    return called


NAME = "NVIDIA H200"


@contextmanager
def a_card(memory: int = 2**40) -> Iterator[Card]:
    """A machine with the made-up card, until the context ends."""
    card = Card.current = Card(memory)
    properties = SimpleNamespace(
        name=NAME, major=9, minor=0, total_memory=memory, multi_processor_count=132
    )
    functions: dict[Any, dict[str, Callable[..., Any]]] = {
        torch.cuda: {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
            "_lazy_call": lambda call, **_: None,
            "device_count": lambda: 2,
            "current_device": lambda: CUDA.index,
            "set_device": lambda device: None,
            "get_device_name": lambda device=None: NAME,
            "get_device_capability": lambda device=None: (9, 0),
            "get_device_properties": lambda device=None: properties,
            "is_bf16_supported": lambda including_emulation=True: True,
            "mem_get_info": lambda device=None: (memory - card.used, memory),
            "memory_allocated": lambda device=None: card.used,
            "memory_reserved": lambda device=None: card.used,
            "max_memory_allocated": lambda device=None: card.peak,
            "reset_peak_memory_stats": lambda device=None: card.forget_peak(),
            "empty_cache": lambda: None,
            "synchronize": lambda device=None: card.arrive(),
            "manual_seed": lambda seed: None,
            "manual_seed_all": lambda seed: None,
            "get_rng_state": lambda device="cuda": torch.get_rng_state(),
            "set_rng_state": lambda state, device="cuda": torch.set_rng_state(state),
        },
        torch.accelerator: {
            "synchronize": lambda device=None: card.arrive(),
            "empty_cache": lambda: None,
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, stand_ins in functions.items():
            for name, stand_in in stand_ins.items():
                patch.setattr(module, name, _like(getattr(module, name), stand_in))
        patch.setattr(torch.cuda, "Event", _Event)
        patch.setattr(torch.cuda, "Stream", lambda: None)
        patch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        patch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
        patch.setattr(pl.LightningModule, "cpu", _moved_if_it_can_be(pl.LightningModule.cpu))
        begin = dist.init_process_group
        patch.setattr(dist, "init_process_group", lambda _, **named: begin("gloo", **named))
        patch.setattr(c10d, "_get_object_coll_device", lambda group=None: CPU)
        for name in ("all_gather_object", "broadcast_object_list", "gather_object"):
            patch.setattr(dist, name, card.sends_objects(getattr(dist, name)))
        before = torch._C._only_lift_cpu_tensors()  # or torch.tensor would be made on the card
        torch._C._set_only_lift_cpu_tensors(True)
        swaps = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            with card:
                yield card
        finally:
            torch._C._set_only_lift_cpu_tensors(before)
            torch.__future__.set_swap_module_params_on_conversion(swaps)
            Card.current = None

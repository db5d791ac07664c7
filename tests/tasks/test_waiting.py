"""A step that no row is due for does not wait for its device, alone or among ranks."""

import os
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from tests.card import ANSWERED_LATE, INDEXED, where
from tests.rounding import FP64, assert_same_training
from tests.tasks.on_ranks import parts_of, start, trainer_of, write_samples
from truesweep.jobs.logs import quiet
from truesweep.optim import takes_found_inf
from truesweep.tasks import progress, training
from truesweep.tasks.devices import Sent

ASKED = {"item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"}
"""What Python asks a tensor for its numbers by; on a CPU, some of it is no operation."""


class Operations(TorchDispatchMode):
    """Notes which operations a GPU would be waited for in, and where."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        operation = func.overloadpacket
        by_mask = operation in INDEXED and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if by_mask or operation in ANSWERED_LATE:
            self.waits.append(where(str(func)))
        return func(*args, **(kwargs or {}))


class Questions(TorchFunctionMode):
    """Notes where Python asks for numbers of tensors, or makes tensors on a device of its own."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name, given = getattr(func, "__name__", ""), kwargs or {}
        copied = name in ("tensor", "as_tensor") and not isinstance(args[0], Tensor)
        if name in ASKED or (copied and given.get("device") is not None):
            self.waits.append(where(name))
        return func(*args, **given)


@contextmanager
def as_on_a_gpu() -> Any:
    """Have a training on a CPU take the ways of one on a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (training, progress):
            patch.setattr(module, "runs_ahead", lambda device: True)
        patch.setattr(
            training.Training,
            "_skips_on_device",
            lambda self, optimizer: takes_found_inf(optimizer),
        )
        patch.setattr(training, "Sent", Letter)
        yield


class Letter(Sent):
    """Notes if it is read in the step that sent it, where a GPU still computes what it says."""

    task: ClassVar[Any]
    waits: ClassVar[list[str]]

    def __init__(self, numbers: Tensor) -> None:
        super().__init__(numbers)
        self._sent_in = self.task.steps_done

    def read(self) -> list[float]:
        if self._sent_in == self.task.steps_done:
            self.waits.append("read at once")
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            return super().read()


def waits_of(task_name: str, ranks: int, *overrides: str) -> list[str]:
    """Where a device would be waited for, in steps 3 to 5 of 6, of which none has a row."""
    asked = ["trainer.max_steps=6", "trainer.log_every_n_steps=10", "data.micro_batch_size=3"]
    parts = parts_of(task_name, "n3", "n3", *asked, f"trainer.devices={ranks}", *overrides)
    task, waits = parts.task, list[str]()
    Letter.task, Letter.waits = task, waits
    trainer = trainer_of(parts)
    loop: Any = trainer.fit_loop.epoch_loop
    step = loop.advance

    def watched(batches: Any) -> None:
        if 2 <= task.steps_done < 5:
            with Questions(waits), Operations(waits):
                step(batches)
        else:
            step(batches)

    loop.advance = watched
    with quiet(), as_on_a_gpu():
        trainer.fit(task, datamodule=parts.data)
    assert task.steps_done == 6
    return waits


WAYS = [
    ["optimizer=adamw", "model.attention=eager"],
    [
        *("optimizer=muon", "model.dropout=0.1", "trainer.gradient_clip_val=1.0"),
        "model.attention=sdpa",
    ],
]


@pytest.mark.parametrize("task", ["lm", "mlm", "translation", "classification", "sft"])
def test_a_step_does_not_wait(task: str, workplace: Path) -> None:
    write_samples(workplace)
    assert [waits_of(task, 1, *asked) for asked in WAYS] == [[], []]


@pytest.mark.parametrize("task", ["lm", "mlm", "translation", "classification"])
def test_what_it_does_instead_trains_the_same(task: str, workplace: Path) -> None:
    write_samples(workplace)
    asked = [FP64, "optimizer=sgd", "trainer.max_steps=3", "model.attention=sdpa"]
    weights = []
    for size, context in ((3, nullcontext), (3, as_on_a_gpu), (1, as_on_a_gpu)):
        parts = parts_of(task, "n3", "n3", *asked, f"data.micro_batch_size={size}")
        with quiet(), context():
            trainer_of(parts).fit(parts.task, datamodule=parts.data)
        weights.append(parts.task.state_dict())
    for found in weights[1:]:  # most rows have padding beside others, and none alone
        assert_same_training(found, weights[0])


@pytest.mark.parametrize("fails", [False, True])
def test_an_optimizer_is_compiled_before_any_step(
    fails: bool, workplace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_samples(workplace)
    asked = [FP64, "optimizer=muon", "trainer.max_steps=3"]
    weights, steps = [], []

    def compile_ahead(optimizer: Any) -> None:
        steps.append(parts.task.steps_done)
        assert optimizer.parts
        if fails:
            raise RuntimeError("no such kernel")

    monkeypatch.setattr(training, "compile_ahead", compile_ahead)
    for compiled in (False, "layers"):
        parts = parts_of("lm", "n3", "n3", *asked)
        parts.task.compiled = compiled
        with quiet(), as_on_a_gpu():
            trainer_of(parts).fit(parts.task, datamodule=parts.data)
        weights.append(parts.task.state_dict())
    assert_same_training(weights[1], weights[0])
    assert steps == [0]
    assert caplog.text.count("The optimizer is not compiled: RuntimeError: no such kernel") == fails


def among_ranks(ranks: int) -> dict[str, Any]:
    """Where one of several ranks would wait, and what they hear of each other, and when."""
    os.chdir(tempfile.mkdtemp(dir=Path()))
    write_samples(Path())
    waits = [waits_of("lm", ranks, *asked) for asked in WAYS]
    parts = parts_of("lm", "n3", "n3", f"trainer.devices={ranks}")
    task, heard = parts.task, list[int]()
    step, clip = task.training_step, task._clip

    def watched(batch: Any, batch_idx: int) -> None:
        if (task.steps_done, task.global_rank) == (2, 1):
            task.stop_requested = signal.SIGTERM
        step(batch, batch_idx)
        heard.append(task.stop_agreed)

    def spoil() -> Tensor:
        if (task.steps_done, task.global_rank) == (6, 1):
            next(weight.grad for weight in task.parameters() if weight.grad is not None).fill_(9.0)
        return clip()

    Letter.task, Letter.waits = task, []
    with quiet(), as_on_a_gpu(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(task, "training_step", watched)
        patched.setattr(task, "_clip", spoil)
        with pytest.raises(RuntimeError) as raised:
            trainer_of(parts).fit(task, datamodule=parts.data)
    return {"waits": waits, "heard": heard, "error": str(raised.value)[:6]}


def test_ranks_hear_of_each_other_a_step_later_and_do_not_wait(workplace: Path) -> None:
    for found in start(workplace, 2, among_ranks):
        assert found["waits"] == [[], []]
        assert found["heard"] == [0, 0, 0, *[signal.SIGTERM] * 5]
        assert found["error"] == "step 7"

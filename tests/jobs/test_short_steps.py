"""Steps without what nobody has asked for are those of Lightning's own loop."""

import signal
from collections import Counter
from collections.abc import Callable
from csv import DictReader
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.strategies import SingleDeviceStrategy

from tests.rounding import FP64
from tests.tasks.on_ranks import parts_of, trainer_of, write_samples
from truesweep.compat import steps, steps_done
from truesweep.jobs.logs import quiet
from truesweep.tasks import LanguageModeling

HOOKS = [name for name in vars(pl.Callback) if name.startswith("on_train_")]
HOOKS += ["on_before_backward", "on_after_backward", "on_before_optimizer_step"]


class Listener(pl.Callback):
    """Notes which hooks are called, with what, and where training stands by then."""

    def __init__(self, logs: bool) -> None:
        self.logs = logs
        self.heard: list[tuple[Any, ...]] = []

    def hear(self, hook: str, trainer: pl.Trainer, task: Any, *given: Any) -> None:
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress
        seen = [g["input_ids"].tolist() if isinstance(g, dict) and g else g for g in given]
        seen = [g for g in seen if not isinstance(g, torch.Tensor | torch.optim.Optimizer)]
        stands = asdict(batches.total), batches.is_last_batch, trainer.global_step
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.heard.append((hook, seen, stands, logged, dict(trainer.logged_metrics)))
        if self.logs and "batch" in hook:
            task.log(f"mine/{hook}", float(trainer.global_step), on_epoch=True, batch_size=1)


for _hook in HOOKS:

    def _hear(self: Listener, *given: Any, hook: str = _hook) -> None:
        self.hear(hook, *given)

    setattr(Listener, _hook, _hear)


class Note:
    """A hook that is no function."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def __call__(self, trainer: pl.Trainer, task: Any, *given: Any) -> None:
        self.steps.append(steps_done(trainer))


def heard(
    logs: bool, precision: str, shortened: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, ...]:
    """What is heard of a training of more than two epochs, where loops then stand, its rows."""
    asked = [f"trainer.precision={precision}", "trainer.max_steps=7", "data.batch_size=16"]
    parts = parts_of("lm", "n3", "n3", *asked)
    with monkeypatch.context() as patched:
        if not shortened:  # as where Lightning is another than the one that was tried
            patched.setattr(steps, "is_tried", lambda name: False)
        trainer: Any = trainer_of(parts)
    listener = Listener(logs)
    trainer.callbacks.append(listener)
    trainer.loggers = [CSVLogger(folder)]
    by_lightning = Counter[str]()

    def count(owner: Any, name: str) -> None:
        whole = getattr(owner, name)

        def counted(*given: Any, **named: Any) -> Any:
            by_lightning[name] += 1
            return whole(*given, **named)

        monkeypatch.setattr(owner, name, counted)

    count(trainer.strategy, "batch_to_device")
    count(trainer.precision_plugin, "backward")
    count(trainer.precision_plugin, "optimizer_step")
    count(trainer.fit_loop.epoch_loop.manual_optimization, "run")
    with quiet():
        trainer.fit(parts.task, datamodule=parts.data)
    hands_on = [] if shortened and precision != "64-true" else ["backward", "optimizer_step", "run"]
    assert by_lightning == dict.fromkeys(
        hands_on if shortened else [*hands_on, "batch_to_device"], 7
    )
    (file,) = folder.rglob("metrics.csv")
    with file.open() as lines:
        rows = [{k: v for k, v in row.items() if "second" not in k} for row in DictReader(lines)]
    weights = {name: weight.tolist() for name, weight in parts.task.state_dict().items()}
    return listener.heard, trainer.fit_loop.state_dict(), rows, weights


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_callbacks_hear_the_same(
    logs: bool, precision: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples(workplace)
    short = heard(logs, precision, True, workplace / "short", monkeypatch)
    long = heard(logs, precision, False, workplace / "long", monkeypatch)
    assert short == long
    assert {hook for hook, *_ in short[0]} >= set(HOOKS)
    assert any("mine/on_train_batch_end_epoch" in row for row in short[2]) == logs


def test_mixed_precision_holds_in_forward_passes_alone(workplace: Path) -> None:
    """Backward ones have the types of these, and optimizers choose their own."""
    write_samples(workplace)
    parts = parts_of("lm", "n3", "n3", "trainer.precision=bf16-mixed", "trainer.max_steps=2")
    held = dict[str, set[bool]]()

    def look(where: str) -> None:
        held.setdefault(where, set()).add(torch.is_autocast_enabled("cpu"))

    task: Any = parts.task
    task.model.register_forward_pre_hook(lambda *_: look("forward"))
    next(task.parameters()).register_hook(lambda _: look("backward"))
    trainer: Any = trainer_of(parts)
    trainer.callbacks.append(
        LambdaCallback(
            on_train_start=lambda trainer, _: trainer.optimizers[0].register_step_pre_hook(
                lambda *_: look("update")
            )
        )
    )
    with quiet():
        trainer.fit(task, datamodule=parts.data)
        trainer.test(task, datamodule=parts.data, verbose=False)
    assert held == {"forward": {True}, "backward": {False}, "update": {False}}


class Asking(LanguageModeling):
    """A task with hooks of its own around the backward pass, which logs in them."""

    def on_before_backward(self, loss: torch.Tensor) -> None:
        self.log("mine/before", loss.detach(), on_step=True)

    def on_after_backward(self) -> None:
        self.log("mine/after", float(self.global_step), on_step=True)


@pytest.mark.parametrize("is_tried", [True, False])
def test_a_task_may_have_hooks_too(
    is_tried: bool, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples(workplace)
    parts = parts_of("lm", "n3", "n3", "trainer.max_steps=3")
    parts.task.__class__ = Asking
    monkeypatch.setattr(steps, "is_tried", lambda name: is_tried)
    trainer: Any = trainer_of(parts)
    trainer.loggers = [CSVLogger(workplace / "rows")]
    with quiet():
        trainer.fit(parts.task, datamodule=parts.data)
    (file,) = (workplace / "rows").rglob("metrics.csv")
    with file.open() as lines:
        rows = [row for row in DictReader(lines) if row["mine/after"]]
    assert [float(row["mine/after"]) for row in rows] == [0, 1, 2]
    assert all(float(row["mine/before"]) > 0 for row in rows)


def test_a_hook_may_be_any_callable(workplace: Path) -> None:
    write_samples(workplace)
    parts = parts_of("lm", "n3", "n3", FP64, "trainer.max_steps=3")
    trainer: Any = trainer_of(parts)
    before, after = Note(), Note()
    told = LambdaCallback(on_train_batch_start=before, on_train_batch_end=partial(after))
    trainer.callbacks.append(told)
    with quiet():
        trainer.fit(parts.task, datamodule=parts.data)
    assert (before.steps, after.steps) == ([0, 1, 2], [1, 2, 3])


def test_a_callback_may_come_amid_an_epoch(workplace: Path) -> None:
    write_samples(workplace)
    parts = parts_of("lm", "n3", "n3", FP64, "trainer.max_steps=4")
    trainer: Any = trainer_of(parts)
    late = Note()
    callbacks: list[pl.Callback] = trainer.callbacks

    def add(*given: Any) -> None:
        if steps_done(trainer) == 2:
            callbacks.append(LambdaCallback(on_train_batch_start=late))

    callbacks.append(LambdaCallback(on_train_batch_end=add))
    with quiet():
        trainer.fit(parts.task, datamodule=parts.data)
    assert trainer.num_training_batches > 4
    assert late.steps == [2, 3]


class Changes(pl.Callback):
    """Does something to a training, once, in a hook of the third step."""

    def __init__(self, hook: str, change: Callable[[pl.Trainer, Any], None]) -> None:
        self.undone = True

        def act(trainer: pl.Trainer, task: Any, *given: Any) -> None:
            if self.undone and steps_done(trainer) == 2 + (hook == "on_train_batch_end"):
                self.undone = False
                change(trainer, task)

        setattr(self, hook, act)


def training_of(
    hook: str,
    change: Callable[[pl.Trainer, Any], None],
    shortened: bool,
    monkeypatch: pytest.MonkeyPatch,
    *asked: str,
) -> tuple[Any, ...]:
    """What is heard of a training with a change, how it then stands, its weights."""
    exact = "trainer.precision=32-true"  # in which torch itself goes back and updates
    parts = parts_of("lm", "n3", "n3", exact, "trainer.max_steps=5", *asked)
    with monkeypatch.context() as patched:
        if not shortened:
            patched.setattr(steps, "is_tried", lambda name: False)
        trainer: Any = trainer_of(parts)
    listener = Listener(logs=False)
    trainer.callbacks[:0] = [Changes(hook, change), listener]
    with quiet():
        trainer.fit(parts.task, datamodule=parts.data)
    assert trainer.num_training_batches >= 5
    weights = {name: weight.tolist() for name, weight in parts.task.state_dict().items()}
    late = [one.heard for one in trainer.callbacks if isinstance(one, Listener)]
    return listener.heard, late, trainer.fit_loop.state_dict(), weights


def come(trainer: Any, task: Any) -> None:
    """Have one more callback."""
    trainer.callbacks.append(Listener(logs=False))


def go(trainer: Any, task: Any) -> None:
    """Have one callback less."""
    trainer.callbacks.remove(next(one for one in trainer.callbacks if isinstance(one, Listener)))


def step(trainer: Any, task: Any) -> None:
    """Have the optimizer do a step of the callback's own."""
    task.optimizers().step()


def end(trainer: Any, task: Any) -> None:
    """Say what Lightning takes for a step's end where it is said within one."""
    raise StopIteration


@pytest.mark.parametrize(
    ("hook", "change"),
    [
        ("on_train_batch_start", come),
        ("on_train_batch_start", go),
        ("on_train_batch_start", step),
        ("on_before_backward", end),
        ("on_before_optimizer_step", come),
        ("on_before_optimizer_step", go),
        ("on_train_batch_end", step),
    ],
)
def test_a_callback_may_change_what_comes_after_it(
    hook: str, change: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples(workplace)
    short = training_of(hook, change, True, monkeypatch)
    assert short == training_of(hook, change, False, monkeypatch)


class AsksForClosure(torch.optim.SGD):
    """Does no step without a closure."""

    # An optimizer of somebody's may ask for what torch's may do without.
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        return super().step(closure)


def test_optimizers_have_their_closure_and_hooks(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook of torch's before a step finds the gradient that the task has not clipped yet."""
    write_samples(workplace)
    asked = [f"optimizer._target_={__name__}.AsksForClosure", "optimizer.lr=0.1"]
    asked += ["allowed_packages=[tests]", "trainer.gradient_clip_val=1e-3"]
    norms = list[float]()

    def look(optimizer: torch.optim.Optimizer, *given: Any) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    def add(trainer: pl.Trainer, task: Any) -> None:
        trainer.optimizers[0].register_step_pre_hook(look)

    short = training_of("on_train_batch_start", add, True, monkeypatch, *asked)
    assert short == training_of("on_train_batch_start", add, False, monkeypatch, *asked)
    assert min(norms) > 2e-3
    # A step is heard twice once this process has made an SGD, whose step it calls, elsewhere.
    half = len(norms) // 2
    assert norms[:half] == norms[half:]


class Asks(SingleDeviceStrategy):
    """A strategy of somebody's, which is told of batches."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        told.append(("starts", batch_idx))

    def batch_to_device(self, batch: Any, *given: Any, **named: Any) -> Any:
        task: Any = self.lightning_module
        told.append(("moves", task.trainer.training))
        return super().batch_to_device(batch, *given, **named)


told = list[tuple[str, int]]()


def test_a_strategy_may_ask_too(workplace: Path) -> None:
    write_samples(workplace)
    parts = parts_of("lm", "n3", "n3", "trainer.precision=32-true", "trainer.max_steps=2")
    trainer: Any = trainer_of(parts)
    trainer.strategy.__class__ = Asks
    told.clear()
    with quiet():
        trainer.fit(parts.task, datamodule=parts.data)
    assert told == [("moves", True), ("starts", 0), ("moves", True), ("starts", 1)]


def test_signals_are_left_to_who_handles_them(workplace: Path) -> None:
    """Lightning's own handler has all ranks broadcast, of which one may be told alone."""
    write_samples(workplace)
    parts = parts_of("lm", "n3", "n3", FP64, "trainer.max_steps=1")
    trainer: Any = trainer_of(parts)
    seen = list[Any]()

    def look(*given: Any) -> None:
        seen.append(signal.getsignal(signal.SIGTERM))

    told = LambdaCallback(on_train_start=look, on_test_start=look)
    trainer.callbacks.append(told)
    with quiet():
        trainer.fit(parts.task, datamodule=parts.data)
        trainer.test(parts.task, datamodule=parts.data, verbose=False)
    assert seen == [signal.getsignal(signal.SIGTERM)] * 2

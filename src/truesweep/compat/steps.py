"""Lightning's training steps, of which only what somebody has asked for is done.

By themselves they prepare for what a task, a callback or a logger might ask for. Python takes
several times as long as usual where the step before has driven its code out of the caches, so that
what is entered in vain costs a small model some hundredths of its speed.

All of it knows a step of Lightning's by heart, so it stands back where the installed version is
another than those it was tried with (`TRIED`).
"""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from truesweep.compat import is_tried

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch import Tensor
    from torch.optim import Optimizer


def shorten_steps(trainer: "pl.Trainer") -> None:
    """Have a trainer do in each step what anybody has asked for, and nothing else.

    Where there are several ranks, it has them tell each other of SIGTERM, too, and waits for the
    device to say. The task's ranks tell each other by themselves.
    """
    from pytorch_lightning.profilers import PassThroughProfiler

    if not is_tried("pytorch-lightning"):
        return
    loop: Any = trainer.fit_loop.epoch_loop
    profiler: Any = trainer.profiler  # type: ignore[attr-defined]
    loop._broadcast_sigterm_tensor = lambda: None  # pytorch-lightning 2.6.6
    loop._build_kwargs = lambda _, *given: _as_arguments(*given)  # pytorch-lightning 2.6.6
    if isinstance(profiler, PassThroughProfiler):
        loop._on_before_fetch = loop._on_after_fetch = lambda: None  # pytorch-lightning 2.6.6
    steps, strategy = _ShortSteps(trainer, loop), trainer.strategy
    loop.advance, loop.on_advance_end = steps.advance, steps.on_advance_end
    for name in ("backward", "optimizer_step"):
        setattr(strategy, name, getattr(steps, name))


def precision_of_passes(trainer: "pl.Trainer") -> Callable[[], AbstractContextManager[Any]]:
    """Have a trainer's mixed precision hold in forward passes, and not in all of a training step.

    Backward operations have the types of their forward ones, and an optimizer's matrix products
    choose their own.

    Returns:
        Makes the context of a forward pass; no pass lies within another.
    """
    from pytorch_lightning.plugins import MixedPrecision

    plugin = trainer.precision_plugin
    if "mixed" not in plugin.precision:
        return nullcontext
    plugin.train_step_context = nullcontext  # type: ignore[method-assign, assignment]
    if not isinstance(plugin, MixedPrecision):
        return plugin.forward_context
    once_and_for_all = plugin.autocast_context_manager()
    return lambda: once_and_for_all


def _as_arguments(batch: Any, batch_idx: int) -> OrderedDict[str, Any]:
    """A step's batch and its number; Lightning reads the signature of `training_step` each time."""
    return OrderedDict(batch=batch, batch_idx=batch_idx)


_HOOKS = (
    "on_train_batch_start",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
"""What Lightning calls in a step, of callbacks and of the task."""


class _ShortSteps:
    """Lightning's steps, without what nobody has asked for.

    Args:
        trainer: The trainer.
        loop: Its loop over the batches of an epoch.
    """

    def __init__(self, trainer: "pl.Trainer", loop: Any) -> None:
        self._trainer: Any = trainer
        self._loop = loop
        self._whole_advance, self._whole_end = loop.advance, loop.on_advance_end
        strategy: Any = trainer.strategy
        self._whole_backward = strategy.backward
        self._whole_optimizer_step = strategy.optimizer_step
        self._short = False  # whether steps are
        self._direct = False  # whether backward passes and optimizers' steps are torch's own
        self._within = False  # whether a task's step is being done, whose optimizer's steps count
        self._task: Any = None
        self._device: Any = None
        self._mover: Any = None  # who brings a batch to the device: the data or the task
        self._known: list[pl.Callback] = []
        self._deaf: dict[str, set[int]] = {}  # by hook, which callbacks have nothing for it
        self._of_task: set[str] = set()
        self._asked: set[str] = set()  # hooks that callbacks or the task have something for
        self._context: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._no_closure: Any = None
        self._now: dict[str, Any] = {}

    def advance(self, fetcher: Any) -> None:
        """Do a step.

        Args:
            fetcher: Gives the epoch's batches.
        """
        loop, trainer = self._loop, self._trainer
        begins = loop.restarting or not loop.batch_progress.current.ready
        if begins or trainer.callbacks != self._known:
            self._look()
        if loop.restarting or not self._short:
            direct, self._direct = self._direct, False  # Lightning counts the optimizer's step
            self._whole_advance(fetcher)
            self._direct = direct
            return
        if begins:
            loop.val_loop.restarting = False
        batch, _, _ = next(fetcher)
        progress, connector = loop.batch_progress, trainer._logger_connector
        results, number = loop._results, progress.current.ready
        progress.is_last_batch = fetcher.done
        if not self._direct:
            batch = trainer.precision_plugin.convert_input(batch)
        batch = self._mover.transfer_batch_to_device(batch, self._device, 0)
        progress.increment_ready()
        if connector._first_loop_iter is False:  # as in all steps but the first two
            results.batch, results.batch_size, results.dataloader_idx = batch, None, None
        else:
            connector.on_batch_start(batch)
        self._call("on_train_batch_start", batch, number)
        progress.increment_started()
        output = self._step(batch, number)
        progress.increment_processed()
        self._call("on_train_batch_end", output, batch, number)
        if results:  # somebody has called `log`
            connector.on_batch_end()
        progress.increment_completed()
        if results:
            connector.update_train_step_metrics()

    def on_advance_end(self, fetcher: Any) -> None:
        """End a step."""
        loop = self._loop
        if not self._short or self._trainer.should_stop or loop._skip_next_val:
            self._whole_end(fetcher)
        else:
            loop._batches_that_stepped += 1  # pytorch-lightning 2.6.6

    def backward(self, loss: "Tensor", optimizer: Any, *given: Any, **named: Any) -> Any:
        """Go back from a loss, which tasks call `manual_backward`; nobody asks what it returns."""
        if not self._direct:
            return self._whole_backward(loss, optimizer, *given, **named)
        self._call("on_before_backward", loss)
        self._task.backward(loss, *given, **named)
        self._call("on_after_backward")
        return loss

    def optimizer_step(
        self, optimizer: "Optimizer", closure: Callable[[], Any], *given: Any, **named: Any
    ) -> Any:
        """Have an optimizer do a step."""
        if not (self._direct and self._within):
            return self._whole_optimizer_step(optimizer, closure, *given, **named)
        progress = self._loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        if closure is self._no_closure:
            # Within the step, after torch's own hooks of an optimizer; some ask for a closure.
            call: Any = partial(self._call, "on_before_optimizer_step", optimizer)
            done = optimizer.step(closure=call, **named)
        else:
            done = self._whole_optimizer_step(optimizer, closure, *given, **named)
        progress.increment_completed()
        return done

    def _step(self, batch: Any, number: int) -> Any:
        """Have the task do its step; what it gives back, as callbacks are told it."""
        loop: Any = self._loop.manual_optimization
        if not self._direct:
            return loop.run(_as_arguments(batch, number))
        self._now["_current_fx_name"] = "training_step"  # pytorch-lightning 2.6.6
        found, self._within = None, True
        with suppress(StopIteration), self._context():  # as Lightning, whose epoch it would end
            found = self._task.training_step(batch, number)
        self._within = False
        self._now["_current_fx_name"] = None  # pytorch-lightning 2.6.6
        if found is None:
            return {}
        return loop.output_result_cls.from_training_step_output(found).asdict()

    def _look(self) -> None:
        """See who asks for what in the steps to come."""
        import pytorch_lightning as pl
        from pytorch_lightning.core.optimizer import do_nothing_closure
        from pytorch_lightning.plugins import MixedPrecision
        from pytorch_lightning.plugins.precision import Precision
        from pytorch_lightning.profilers import PassThroughProfiler
        from pytorch_lightning.strategies import SingleDeviceStrategy, Strategy

        trainer, plugin = self._trainer, self._trainer.precision_plugin
        task, data = trainer.lightning_module, trainer.datamodule
        self._task, self._now = task, vars(task)
        self._within = False
        self._of_task = {hook for hook in _HOOKS if _listens(task, pl.LightningModule, hook)}
        self._look_at_callbacks()
        kind: Any = type(trainer.strategy)
        around = ("on_before_batch_transfer", "on_after_batch_transfer")
        self._short = not (
            task.automatic_optimization
            or trainer.lr_scheduler_configs
            or trainer.enable_validation
            or not isinstance(trainer.profiler, PassThroughProfiler)
            or any(_listens(task, pl.LightningModule, hook) for hook in around)
            or any(_listens(data, pl.LightningDataModule, hook) for hook in around)
            or kind.batch_to_device is not Strategy.batch_to_device
            or kind.on_train_batch_start is not Strategy.on_train_batch_start
            or self._of_task & {"on_train_batch_start", "on_train_batch_end"}
        )
        brings = "transfer_batch_to_device"
        self._mover = data if _listens(data, pl.LightningDataModule, brings) else task
        exact = type(plugin) is Precision
        mixed = type(plugin) is MixedPrecision and plugin.scaler is None
        alone = type(trainer.strategy) is SingleDeviceStrategy
        self._direct = self._short and alone and (exact or mixed)
        self._device = trainer.strategy.root_device
        self._context = nullcontext if exact else plugin.train_step_context
        self._no_closure = do_nothing_closure

    def _look_at_callbacks(self) -> None:
        """See which callbacks have something for which hooks."""
        import pytorch_lightning as pl

        self._known = known = list(self._trainer.callbacks)
        self._deaf = {
            hook: {id(one) for one in known if not _listens(one, pl.Callback, hook)}
            for hook in _HOOKS
        }
        self._asked = {hook for hook in _HOOKS if len(self._deaf[hook]) < len(known)}
        self._asked |= self._of_task

    def _call(self, hook: str, *given: Any) -> None:
        """Call a hook of callbacks and of the task, whose `log` then knows where it is called."""
        if self._trainer.callbacks != self._known:  # some came or went within this step
            self._look_at_callbacks()
        if hook not in self._asked:
            return
        deaf = self._deaf[hook]
        now = self._now  # not by the task's own `__setattr__`, which looks for weights
        before = now["_current_fx_name"]  # pytorch-lightning 2.6.6
        now["_current_fx_name"] = hook  # pytorch-lightning 2.6.6
        for callback in self._trainer.callbacks:  # to which a callback may add another meanwhile
            if id(callback) not in deaf:
                getattr(callback, hook)(self._trainer, self._task, *given)
        if hook in self._of_task:
            getattr(self._task, hook)(*given)
        now["_current_fx_name"] = before  # pytorch-lightning 2.6.6


def _listens(one: Any, base: type, hook: str) -> bool:
    """Whether a callback, task or data has anything to call for a hook that its base has not.

    Be it a method or any other callable.
    """
    found = getattr(one, hook)
    return callable(found) and getattr(found, "__func__", None) is not getattr(base, hook)

"""One optimizer step per batch, split into micro-batches, on any number of ranks.

The loss of a step is the sum over all its targets, on all ranks and in all micro-batches, divided
by their number. No split of the batch changes it.
"""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol, cast

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import transformers
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import (
    DDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
)
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from truesweep.compat import padding_known, steps_done, unscale_before_step
from truesweep.compat.steps import precision_of_passes
from truesweep.data.batch import Batch
from truesweep.errors import ConfigError, telling_line
from truesweep.metrics.likelihood import IGNORED, is_many, linear_nll, token_nll
from truesweep.models import SampleDropout, recompute_layers, recomputes_layers
from truesweep.models.adapters import base_of, has_adapter, trained_state, whole_state
from truesweep.models.freezing import unreached
from truesweep.models.heads import OutputLayer
from truesweep.optim import OVER_BASE, compile_ahead, set_found_inf, takes_found_inf
from truesweep.tasks.devices import (
    Gauge,
    OutOfMemory,
    Peaks,
    Sent,
    gradients_stay_local,
    is_out_of_memory,
    release_memory,
    rows_that_fit,
    runs_ahead,
    shard,
    whole,
)
from truesweep.tasks.progress import Progress

log = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 10
"""Steps without finite gradients after which a run is given up."""


class Schedule(Protocol):
    """The learning rate's course over a training."""

    def factor(self, step: int, total_steps: int) -> float:
        """The share of the peak rate at a step counted from 0."""
        ...


class MicroBatching(Protocol):
    """What a task asks of the data it is trained on."""

    def micro_batches(self, batch: Batch) -> Iterator[Batch]:
        """Split a rank's share of a step."""
        ...

    def halve_micro_batches(self) -> int:
        """Make micro-batches smaller; returns their new size, or 0 if they cannot be."""
        ...

    micro_batch_size: int
    """Rows of a forward pass."""

    @property
    def is_size_given(self) -> bool:
        """Whether there is nothing to choose about that."""
        ...

    @property
    def most_rows(self) -> int:
        """What it is at most."""
        ...

    def widest(self, rows: int) -> Batch:
        """A batch that takes as much memory as so many rows can."""
        ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a task is trained.

    Args:
        make_optimizer: Builds the optimizer for the model's parameters.
        schedule: The learning rate's course.
        total_steps: Optimizer steps of the whole training.
        seed: The run's seed.
        gradient_clip_val: Largest norm of the whole gradient; None: not clipped.
        log_every_n_steps: Optimizer steps between two rows of training metrics.
    """

    make_optimizer: Callable[[nn.Module], Optimizer]
    schedule: Schedule
    total_steps: int
    seed: int = 0
    gradient_clip_val: float | None = None
    log_every_n_steps: int = 10


class DivergedError(RuntimeError):
    """Gradients stayed infinite or NaN for several steps in a row."""


class Training(pl.LightningModule):
    """How a model is trained, whatever it is trained for.

    Args:
        model: The transformer.
        recipe: How to train; None for what only evaluates or generates.
    """

    def __init__(self, model: PreTrainedModel, recipe: Recipe | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.recipe = recipe
        self._dropout = SampleDropout()
        self._output_layer: list[OutputLayer | None] = []  # none before it was looked for
        self._weights: list[nn.Parameter] = []  # none before they are trained
        self._precision: Callable[[], AbstractContextManager[Any]] = nullcontext  # of a pass
        self.progress = Progress()
        self.latest: dict[str, float] = {}
        self.stop_requested = 0
        self.stop_agreed = 0
        self._sent: tuple[int, Sent] | None = None  # what ranks tell each other, and at which step
        self.is_sharded = False
        """Whether ranks share the weights, and every forward pass needs all of them."""
        self.compiled: bool | str = False
        """Whether the model is compiled, and how, as `trainer.compile` has it."""

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Score one micro-batch.

        Returns:
            The sum to be minimised, the sum of negative log-likelihoods in nats, and the number of
            targets both are summed over; scalars, fp32 or fp64, the first two zero where there is
            no target.
        """

    def repeat_dropout(self) -> None:
        """Have layers that are computed once more in the backward pass drop what they dropped.

        Compiled ones cannot.
        """
        recompute_layers(self.model, self._dropout)

    def seen(self, batch: Batch, step: int | None) -> Batch:
        """A rank's batch as the model is to see it.

        What is random in it must follow from the seed, the step and the sample alone.

        Args:
            batch: As the dataset gives it.
            step: Optimizer steps so far; None in an evaluation.
        """
        return batch

    def logits(self, batch: Batch) -> Tensor:
        """Scores of what may follow [..., vocabulary], of a task that uses `token_losses`."""
        raise NotImplementedError

    def token_losses(self, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
        """What `loss` returns, of a language model; many logits never exist all at once."""
        layer = self.output_layer(batch)
        if layer is None:
            return losses(self.logits(batch), batch["labels"], label_smoothing)
        hidden = layer.hidden(lambda: self.logits(batch))
        labels, compiled = batch["labels"], bool(self.compiled)
        layer_of = layer.weight, layer.bias, labels, label_smoothing
        return linear_nll(hidden, *layer_of, compiled=compiled)

    def output_layer(self, batch: Batch) -> OutputLayer | None:
        """The model's output layer, if a batch's logits are many and nothing is done with them."""
        labels: Tensor = batch["labels"]
        if not is_many(labels.numel(), self._vocabulary, labels.device):
            return None
        if not self._output_layer:
            corner = {k: _corner(v) if isinstance(v, Tensor) else v for k, v in batch.items()}
            # A shard of a layer is no layer, and who has it ready is the model's forward pass.
            sharded = self.is_sharded
            found = None if sharded else OutputLayer.find(self.model, lambda: self.logits(corner))
            self._output_layer.append(found)
        return self._output_layer[0]

    @cached_property
    def _vocabulary(self) -> int:
        """Rows of the model's output layer; 0 if it has none."""
        layer = self.model.get_output_embeddings()
        return 0 if layer is None else len(layer.weight)

    def targets(self, batch: Batch) -> Tensor:
        """The number of targets in a rank's batch, int64 scalar: tokens, or samples to classify."""
        labels: Tensor = batch["labels"]
        return (labels != IGNORED).sum()

    @property
    def plan(self) -> Recipe:
        """The recipe of a task that is being trained."""
        assert self.recipe is not None, "this task was built without a recipe"
        return self.recipe

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far, equal to the batches processed; Lightning saves the count."""
        return steps_done(self.trainer)

    def configure_model(self) -> None:
        """Shard the model where the strategy asks for it; Lightning may call this twice."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            assert self.device_mesh is not None
            shard(self.model, self.device_mesh["data_parallel"])
            self.is_sharded = True

    def configure_optimizers(self) -> Optimizer:
        """Build the optimizer; its groups keep their peak rate as `initial_lr`."""
        self._weights = list(self.model.parameters())
        optimizer = self.plan.make_optimizer(self.model)
        unscale_before_step(optimizer)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def on_train_start(self) -> None:
        """Measure how many rows of a forward pass the device holds, where nobody has said it.

        What is compiled is tried first: if nothing is dropped, it need not be compiled a second
        time, without what draws masks. Neither is done where ranks may share weights, as one that
        runs out of memory would leave the others waiting.
        """
        self._precision = precision_of_passes(self.trainer)
        if type(self.trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
            return  # DeepSpeed's is one of DDP's, too
        if self.compiled:
            with torch.no_grad():
                self._tried(1)
            if runs_ahead(self.device):  # a processor was not seen to gain by it
                self._compile_optimizer()
        if not self._data.is_size_given and Gauge.measures(self.device):
            self._data.micro_batch_size = self._rows_that_fit()

    def _compile_optimizer(self) -> None:
        """Compile what the optimizer does, before any step: none can be left amid its updates."""
        try:
            compile_ahead(cast(LightningOptimizer, self.optimizers()).optimizer)
        except Exception as error:
            if self.stop_requested:  # it is what came of the compiler's processes being stopped
                raise
            why = telling_line(f"{type(error).__name__}: {error}")
            log.warning("The optimizer is not compiled: %s", why)

    def _rows_that_fit(self) -> int:
        """The size of micro-batches, the same on all ranks. Nothing but memory is touched."""
        gauge, most = Gauge(self.device), self._data.most_rows
        weights = [weight for weight in self._weights if weight.requires_grad]
        room = self._over_ranks(gauge.room(weights, cast(Optimizer, self.optimizers())), "MIN")
        peaks = Peaks(self._about_memory())
        known: dict[int, float] = self.trainer.strategy.broadcast(peaks.read())
        before, gradients = len(known), list[Any]()

        def taken(rows: int) -> float:
            def work() -> None:
                # Those of the last time are still there, as where more are added to them.
                gradients[:] = self._gradients(rows, weights)

            if rows not in known:
                if not gradients:
                    gauge.peak(work)
                known[rows] = self._over_ranks(gauge.peak(work), "MAX")
            return known[rows]

        rows = rows_that_fit(taken, room, most)
        gradients.clear()
        release_memory(self.device)
        gauge.forget_peak()
        if len(known) > before and self.global_rank == 0:
            peaks.write(known)
        found = rows, most, known[rows] / 2**30, room / 2**30
        log.info("Micro-batches of %d of %d rows take %.2f of %.2f GiB", *found)
        return rows

    def _gradients(self, rows: int, weights: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """Those of a batch that is as large as so many rows can be; the weights' own stay."""
        with torch.compiler.set_stance("force_eager"):  # layers may be computed once more
            return torch.autograd.grad(self._tried(rows), weights, allow_unused=True)

    def _tried(self, rows: int) -> Tensor:
        """The loss of a batch that is as large as so many rows can be.

        One operation after the other: nothing is compiled for sizes that are tried only, and what
        is compiled takes less memory.
        """
        step, widest = self.steps_done, self._data.widest(rows)
        batch = self.seen(self.trainer.strategy.batch_to_device(widest), step)
        own = [self.device] if self.device.type == "cuda" else []
        with (
            torch.random.fork_rng(own),
            torch.compiler.set_stance("force_eager"),
            self.trainer.precision_plugin.train_step_context(),
            self._precision(),
            self._dropout.of(self.plan.seed, step, batch["index"], self.device),
        ):
            return self.loss(batch)[0]

    def _about_memory(self) -> dict[str, Any]:
        """All that the memory of forward and backward passes follows from, in plain values."""
        batch, named = self._data.widest(1), self.named_parameters()
        return {
            "card": torch.cuda.get_device_name(self.device),
            "versions": [torch.__version__, transformers.__version__],
            "task": type(self).__qualname__,
            "model": str(self.model.config.to_dict()),
            "weights": [[n, *w.shape, str(w.dtype), w.requires_grad] for n, w in named],
            "dropout": getattr(self.model, "residual_dropout", 0),
            "layers": sorted({type(module).__qualname__ for module in self.model.modules()}),
            "twice": recomputes_layers(self.model),
            "batch": {k: list(v.shape) for k, v in batch.items() if isinstance(v, Tensor)},
            "precision": self.trainer.precision,
        }

    def _over_ranks(self, number: float, least_or_most: str) -> float:
        """The least or the most of all ranks' numbers."""
        if self.trainer.world_size == 1:
            return number
        shared = torch.tensor(number, dtype=torch.float64, device=self.device)
        dist.all_reduce(shared, getattr(dist.ReduceOp, least_or_most))
        return float(shared)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Do one optimizer step on this rank's share of the step's samples."""
        step, plan = self.steps_done, self.plan
        seed_step(plan.seed, self.global_rank, step, self.device)
        batch = self.seen(batch, step)
        lightning = cast(LightningOptimizer, self.optimizers())
        optimizer = lightning.optimizer
        factor = plan.schedule.factor(step, plan.total_steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        total = self._agree(batch)
        nll = self._backward_in_memory(batch, total)
        lightning.step()
        # A CUDA graph's own are overwritten when it runs again, so they are summed where they were.
        optimizer.zero_grad(set_to_none=self.compiled != "graphs")
        self.progress.add(nll, total)
        # A row is written before anything saves this step.
        if (step + 1) % plan.log_every_n_steps == 0 or step + 1 in (1, plan.total_steps):
            first = optimizer.param_groups[0]
            self._write_row(step + 1, lr=first["lr"] / first.get(OVER_BASE, 1.0))

    def _agree(self, batch: Batch) -> Tensor | int:
        """The step's number of targets over all ranks; also learns whether any rank must stop.

        It stays on a device that is not waited for, or shared among ranks.

        Raises:
            RuntimeError: See `_check_gradient`.
        """
        own = self.targets(batch)
        if self.trainer.world_size == 1:
            if self.stop_agreed != self.stop_requested:  # to set what is set takes its time
                self.stop_agreed = self.stop_requested
            return own if runs_ahead(self.device) else int(own)
        self._hear()
        # Made on the device: a copy of what this process holds would be waited for.
        message = torch.zeros(1 + len(STOP_SIGNALS), dtype=torch.float64, device=self.device)
        message[0].copy_(own)
        if self.stop_requested in STOP_SIGNALS:
            message[1 + STOP_SIGNALS.index(self.stop_requested)].fill_(1.0)
        gradient = self.progress.last_gradient(self.device)
        summed = torch.cat([message, gradient])
        dist.all_reduce(summed)
        self._sent = self.steps_done, Sent(torch.cat([summed[1:], gradient]))
        if not runs_ahead(self.device):
            self._hear()
        return summed[0]

    def _hear(self) -> None:
        """Act on what ranks have told each other last, on all of them in the same step.

        Where a process runs ahead of its device, that is done a step later: the device is at the
        step before by then, and is not left without work.

        Raises:
            RuntimeError: See `_check_gradient`.
        """
        if self._sent is None:
            return
        (step, sent), self._sent = self._sent, None
        told = sent.read()
        seen, all_of_them, own_gradient = told[:-4], told[-4:-2], told[-2:]
        self._check_gradient(step, all_of_them, own_gradient)
        self.stop_agreed = next((s for s, one in zip(STOP_SIGNALS, seen, strict=True) if one), 0)

    def _check_gradient(self, step: int, summed: Sequence[float], own: Sequence[float]) -> None:
        """See that ranks held the same gradient in a step, as they do after exchanging it.

        Args:
            step: Which step that was, from 1.
            summed: What `Progress.last_gradient` gives, summed over all ranks.
            own: The same of this rank.

        Raises:
            RuntimeError: They did not.
        """
        ranks = dist.get_world_size()
        if any(abs(x - ranks * y) > 1e-3 * abs(x) for x, y in zip(summed, own, strict=True)):
            raise RuntimeError(
                f"step {step}: the ranks held different gradients after they had "
                "exchanged them. A device or its memory is at fault; the last checkpoint is from "
                "before that: truesweep resume goes on from there"
            )

    def _backward_in_memory(self, batch: Batch, total: Tensor | int) -> Tensor:
        """`_backward`, in smaller micro-batches if the memory wants it: the result is the same.

        Raises:
            OutOfMemory: There are several ranks: they begin again together, from a checkpoint.
        """
        while True:
            try:
                return self._backward(batch, total)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                size = self._data.halve_micro_batches()
                if not size:
                    raise
                if self.trainer.world_size > 1:
                    raise OutOfMemory(size) from error
            self.zero_grad(set_to_none=True)
            release_memory(self.device)
            log.warning("Out of memory: going on with data.micro_batch_size=%d", size)

    def _backward(self, batch: Batch, total: Tensor | int) -> Tensor:
        """Accumulate the step's gradient; returns this rank's sum of negative log-likelihoods."""
        nll: Tensor | float = 0.0  # a tensor of its own would have the precision's type
        place = self.plan.seed, self.steps_done
        if self.compiled == "graphs":
            for weight in self._weights:
                if weight.requires_grad and weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
        # As many on every rank; where one has fewer samples, its last count for nothing.
        micro_batches = list(self._data.micro_batches(batch))
        for i, micro_batch in enumerate(micro_batches):
            is_last = i + 1 == len(micro_batches)
            with nullcontext() if is_last else self._gradients_stay_local():
                with (
                    self._precision(),
                    self._dropout.of(*place, micro_batch["index"], self.device),
                    self._padding_known(micro_batch),
                ):
                    loss, micro_nll, _ = self.loss(micro_batch)
                # DDP averages over ranks, the loss is a sum over them.
                self.manual_backward(loss * (self.trainer.world_size / _divisor(total, loss)))
            nll = nll + micro_nll.detach()
        return torch.as_tensor(nll)

    def _padding_known(self, batch: Batch) -> AbstractContextManager[None]:
        """Tell the model whether a micro-batch has padding, if it would wait for a device to say.

        What is compiled as a whole does not ask. Of a mask of another shape, which is of rows of
        its own, it is told that they have some: it is right with it, too, if a little slower.
        """
        mask = batch.get("attention_mask")
        asks = self.compiled in (False, "layers") and runs_ahead(self.device)
        if not asks or mask is None:
            return nullcontext()
        return padding_known(mask.dim() != 2 or min(batch["lengths"]) < mask.shape[1])

    @property
    def _data(self) -> MicroBatching:
        return cast(MicroBatching, self.trainer.datamodule)  # type: ignore[attr-defined]

    def _gradients_stay_local(self) -> AbstractContextManager[None]:
        """Synchronise gradients once a step, with the last micro-batch, and not in this one."""
        if self.is_sharded:
            return gradients_stay_local(self.model)
        wrapped: Any = self.trainer.strategy.model
        if hasattr(wrapped, "no_sync"):
            return cast(AbstractContextManager[None], wrapped.no_sync())
        return nullcontext()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient (unscaled by now, at any precision) and refuse one that is not finite.

        All ranks hold the same gradient here, so all of them decide alike. Where it can be, that is
        left to the device, and nobody waits for it.
        """
        norm = self._clip()
        if self._skips_on_device(optimizer):
            found_inf = ~torch.isfinite(norm)
            self.progress.add_gradient(norm, found_inf)
            set_found_inf(optimizer, found_inf)
            return
        skipped = not math.isfinite(norm)
        self.progress.add_gradient(norm, skipped)
        if skipped:
            optimizer.zero_grad(set_to_none=True)  # a step without gradients changes nothing
            self._give_up()

    def _skips_on_device(self, optimizer: Optimizer) -> bool:
        """Whether a device skips the optimizer's steps by itself."""
        return (
            self.device.type == "cuda"
            and not self.is_sharded
            and self.trainer.precision != "16-mixed"  # whose scaler looks at gradients, and waits
            and takes_found_inf(optimizer)
        )

    def _give_up(self) -> None:
        """End a training whose steps have been skipped for too long.

        Raises:
            DivergedError: They have.
        """
        skipped = int(self.progress.skipped_in_a_row)
        if skipped >= MAX_SKIPPED_IN_A_ROW:
            raise DivergedError(
                f"the gradient was infinite or NaN in {skipped} steps in a row, up to "
                f"step {self.steps_done + 1}. Lower optimizer.lr, lengthen scheduler.warmup, or "
                f"set trainer.gradient_clip_val or a wider trainer.precision."
            )

    def _clip(self) -> Tensor:
        """Clip the gradient; its norm before."""
        limit = self.plan.gradient_clip_val or math.inf
        if self.is_sharded or runs_ahead(self.device):
            return whole(nn.utils.clip_grad_norm_(self._weights, limit))
        norm = nn.utils.get_total_norm([p.grad for p in self._weights if p.grad is not None])
        if not float(norm) < 0.99 * limit:  # torch multiplies by 1 what is below, which takes time
            nn.utils.clip_grads_with_norm_(self._weights, limit, norm)
        return norm

    def _write_row(self, step: int, lr: float) -> None:
        self._give_up()
        self.latest = self.progress.take_row(lr, self.device)
        self.record(self.latest, step)

    def record(self, values: dict[str, float], step: int) -> None:
        """Write values to every logger, past Lightning's per-step machinery, which is slow."""
        for logger in self.loggers:
            logger.log_metrics({"tokens": self.progress.tokens, **values}, step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the counts that rows of metrics are made from; of an adapted model, no base.

        Raises:
            RuntimeError: The ranks do not agree on the last steps, see `_check_gradient`.
        """
        if dist.is_available() and dist.is_initialized():
            self._hear()
            own = self.progress.last_gradient(self.device)
            summed = own.clone()
            dist.all_reduce(summed)
            self._check_gradient(self.steps_done, summed.tolist(), own.tolist())
        checkpoint["progress"] = self.progress.state_dict(self.device)
        if has_adapter(self.model):
            checkpoint["base"] = {"sha256": base_of(self.model)}
            checkpoint["state_dict"] = trained_state(self.model, checkpoint["state_dict"], "model.")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the counts up again; complete the weights by those of the base.

        Raises:
            ConfigError: The base model is another one, or the optimizer's state is of other
                parameters.
        """
        for state in checkpoint.get("optimizer_states", ()):
            self._leave_out_unreached(state)
        if has_adapter(self.model):
            state, base = checkpoint["state_dict"], checkpoint["base"]["sha256"]
            checkpoint["state_dict"] = whole_state(self.model, state, base, "model.")
        if "progress" in checkpoint:
            self.progress.load_state_dict(checkpoint["progress"], first=self.global_rank == 0)
        if "callbacks" in checkpoint:  # whose states may be of some that are left out, as off
            callbacks: list[pl.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
            known = {callback.state_key for callback in callbacks}
            states = checkpoint["callbacks"].items()
            checkpoint["callbacks"] = {key: state for key, state in states if key in known}

    def _leave_out_unreached(self, state: dict[str, Any]) -> None:
        """Take what no gradient reaches out of an optimizer's state from when it was in there.

        Raises:
            ConfigError: The state is of other parameters.
        """
        alone = list(unreached(self.model).values())
        saved = [number for group in state["param_groups"] for number in group["params"]]
        if (
            not alone
            or self.is_sharded
            or len(saved) == sum(p.requires_grad for p in self.model.parameters())
        ):
            return
        for parameter in alone:
            parameter.requires_grad_(True)
        groups = self.plan.make_optimizer(self.model).param_groups
        for parameter in alone:
            parameter.requires_grad_(False)
        before = [parameter for group in groups for parameter in group["params"]]
        if len(saved) != len(before):
            raise ConfigError(
                f"the checkpoint's optimizer has {len(saved)} tensors of parameters, and that of "
                f"this model {len(before) - len(alone)}. Resume with the versions of truesweep and "
                "transformers that it was saved with (provenance.json), or train anew"
            )
        kept = {n for n, p in zip(saved, before, strict=True) if p.requires_grad}
        for group in state["param_groups"]:
            group["params"] = [number for number in group["params"] if number in kept]
        state["param_groups"] = [group for group in state["param_groups"] if group["params"]]


STOP_SIGNALS = (15, 2, 10)
"""SIGTERM, SIGINT, SIGUSR1: when ranks were sent different ones, the first here counts."""


def losses(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """What `Task.loss` returns, from logits [..., V] and labels [...].

    The likelihood is reported without smoothing, so that training and validation compare.
    """
    loss, count = token_nll(logits, labels, label_smoothing)
    if label_smoothing == 0:
        return loss, loss.detach(), count
    return loss, token_nll(logits.detach(), labels)[0], count


def _divisor(total: Tensor | int, loss: Tensor) -> Tensor | int:
    """What a loss is divided by, of a step with so many targets; in a tensor, of the loss' type."""
    return max(1, total) if isinstance(total, int) else total.clamp(min=1).to(loss.dtype)


def _corner(tensor: Tensor) -> Tensor:
    """A few entries of a sample."""
    return tensor[:1, :8] if tensor.dim() > 1 else tensor[:1]


def seed_step(seed: int, rank: int, step: int, device: torch.device) -> None:
    """Make what is random in a step, dropout aside, a function of the seed, the rank and the step.

    `torch.manual_seed` would queue a seed, with a stack trace, for every kind of device there could
    be: a millisecond a step, never freed.
    """
    state = _seeds(seed, rank, step // SEEDS)[step % SEEDS]
    torch.default_generator.manual_seed(state)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(state)


SEEDS = 64
"""Steps whose seeds are drawn at once."""


@lru_cache(maxsize=1)
def _seeds(seed: int, rank: int, part: int) -> list[int]:
    """The seeds of `SEEDS` steps, of which the first is the `part` times so many-th."""
    sequences = (
        np.random.SeedSequence((seed, rank, step))
        for step in range(part * SEEDS, (part + 1) * SEEDS)
    )
    return [int(sequence.generate_state(1, np.uint64)[0]) for sequence in sequences]

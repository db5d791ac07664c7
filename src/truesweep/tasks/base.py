"""What all tasks share: one optimizer step per batch, split into micro-batches; exact evaluation.

The loss of a step is the sum over all its targets, on all ranks and in all micro-batches, divided
by their number. No split of the batch changes it.
"""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.compat import steps_done
from truesweep.errors import ConfigError
from truesweep.figures import Figure, by_name, compute, of_metric
from truesweep.metrics.likelihood import IGNORED, token_nll
from truesweep.metrics.sums import Count
from truesweep.models import SampleDropout
from truesweep.tasks.memory import OutOfMemory, is_out_of_memory, release_memory
from truesweep.tasks.progress import Progress
from truesweep.tasks.scores import Arrays, SampleScores
from truesweep.tasks.sharding import gradients_stay_local, is_sharded, shard, whole

log = logging.getLogger(__name__)

Batch = dict[str, Any]
"""One rank's share of an optimizer step: tensors and lists of one entry a row; `size` is the number
of samples over all ranks."""

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


class Task(pl.LightningModule):
    """A model together with what it is trained and judged by.

    Args:
        model: The transformer; its `forward` returns `logits`.
        tokenizer: Turns text into the ids the model knows.
        recipe: How to train; None for a task that only evaluates or generates.
        metrics: Further torchmetrics metrics of its evaluations, by name; see `add_to_metrics`.

    Raises:
        ConfigError: One of them is no metric, or reports what the task reports itself.
    """

    declares: ClassVar[tuple[Figure, ...]] = ()
    """The figures that its own metrics report, for those who ask before there is a model.

    Needed for those that `truesweep.figures` does not know, or not so.
    """
    head: ClassVar[str]
    """Which kind of model the task needs: `causal`, `seq2seq` or `classifier`."""
    kind: ClassVar[str]
    """Which kind of samples the task needs: `text`, `pairs` or `labelled`."""

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.metrics = nn.ModuleDict(self.make_metrics())
        self._add(metrics or {})
        self.samples = Count()
        self.scores = SampleScores()
        self.sample_scores: dict[str, Arrays] = {}
        self._dropout = SampleDropout()
        self.progress = Progress()
        self.latest: dict[str, float] = {}
        self.evaluations: dict[str, dict[str, float]] = {}
        self.stop_requested = 0
        self.stop_agreed = 0
        self.test_split = "test"

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Score one micro-batch.

        Returns:
            The sum to be minimised, the sum of negative log-likelihoods in nats, and the number of
            targets both are summed over; scalars, fp32 or fp64, the first two zero where there is
            no target.
        """

    def targets(self, batch: Batch) -> Tensor:
        """The number of targets in a rank's batch, int64 scalar: tokens, or samples to classify."""
        labels: Tensor = batch["labels"]
        return (labels != IGNORED).sum()

    @abstractmethod
    def make_metrics(self) -> dict[str, Metric]:
        """The metrics of an evaluation, by the name they are reported under."""

    @property
    def declared(self) -> dict[str, Figure]:
        """What is declared of the figures of an evaluation, by their names."""
        of_metrics = (f for one in self._metrics().items() for f in of_metric(*one))
        return by_name([*self.declares, *of_metrics])

    def reported(self, split_name: str) -> tuple[str, ...]:
        """The names of the figures that an evaluation of a split has, without the split's."""
        return tuple(f.name for one in self._metrics().items() for f in of_metric(*one))

    def figures(self) -> dict[str, float]:
        """The figures of an evaluation, reduced over ranks."""
        return {k: v for one in self._metrics().items() for k, v in compute(*one).items()}

    def _metrics(self) -> dict[str, Metric]:
        return cast(dict[str, Metric], dict(self.metrics.items()))

    def _add(self, metrics: Mapping[str, Any]) -> None:
        """Take metrics that the configuration adds to the task's own."""
        self.added = tuple(metrics)
        for name, metric in metrics.items():
            if not isinstance(metric, Metric):
                raise ConfigError(f"task.metrics.{name}: is no torchmetrics metric, but {metric!r}")
            twice = {figure.name for figure in of_metric(name, metric)} & self.declared.keys()
            if twice or name in self.metrics:
                raise ConfigError(
                    f"task.metrics.{name}: {', '.join(twice) or name} is reported already; "
                    "give it another name"
                )
            self.metrics[name] = metric

    def add_to_metrics(self, index: Sequence[int], predictions: Any, targets: Any) -> None:
        """Add a batch to the metrics that the configuration adds.

        Whoever implements `evaluate` calls it, with what torchmetrics' metrics of the kind take:
        logits [batch, length, vocabulary] and labels [batch, length] (`IGNORED` where there is
        none) of a language model, logits [batch, classes] and labels [batch] of a classifier,
        texts of an encoder–decoder.

        Args:
            index: The samples' places in the split.
            predictions: What the model gives.
            targets: What is right.
        """
        for name in self.added:
            metric: Any = self.metrics[name]
            metric.update(predictions, targets)
            for figure in of_metric(name, metric):
                if figure.samples and hasattr(metric, "statistics"):
                    rows = metric.statistics(predictions, targets)
                    self.scores.add(index, **{figure.samples[0]: rows})

    @abstractmethod
    def evaluate(self, batch: Batch, split_name: str) -> None:
        """Add one batch to the metrics."""

    def warnings(self, answers: Sequence[str]) -> Iterator[str]:
        """What a user should know of the figures before they are made; a sentence each.

        Args:
            answers: The texts that the model's own are compared with, if there are any.
        """
        yield from ()

    def signatures(self, split_name: str) -> dict[str, str]:
        """How figures were computed, by the name they stand beside."""
        return {}

    def tables(self) -> dict[str, tuple[list[str], list[list[Any]]]]:
        """Tables of the last evaluation, by name: columns and rows."""
        return {}

    # -- training -------------------------------------------------------------------------------

    @property
    def plan(self) -> Recipe:
        """The recipe of a task that is being trained."""
        assert self.recipe is not None, "this task was built without a recipe"
        return self.recipe

    @property
    def is_sharded(self) -> bool:
        """Whether ranks share the weights, and every forward pass needs all of them."""
        return is_sharded(self.model)

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far, equal to the batches processed; Lightning saves the count."""
        return steps_done(self.trainer)

    def configure_model(self) -> None:
        """Shard the model where the strategy asks for it; Lightning may call this twice."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            assert self.device_mesh is not None
            shard(self.model, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Optimizer:
        """Build the optimizer; its groups keep their peak rate as `initial_lr`."""
        optimizer = self.plan.make_optimizer(self.model)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Do one optimizer step on this rank's share of the step's samples."""
        step = self.steps_done
        seed_step(self.plan.seed, self.global_rank, step, self.device)
        optimizer = cast(Optimizer, self.optimizers())
        factor = self.plan.schedule.factor(step, self.plan.total_steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        total = self._agree(batch)
        nll = self._backward_in_memory(batch, total)
        with self._no_autocast():
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.progress.add(nll, total)
        self._write_row(step + 1, lr=optimizer.param_groups[0]["lr"])

    def _agree(self, batch: Batch) -> Tensor:
        """The step's number of targets over all ranks; also learns whether any rank must stop."""
        own = self.targets(batch)
        if self.trainer.world_size == 1:
            self.stop_agreed = self.stop_requested
            return own
        flags = [float(self.stop_requested == s) for s in STOP_SIGNALS]
        message = torch.tensor([0.0, *flags], dtype=torch.float64, device=self.device)
        message[0] = own
        dist.all_reduce(message)
        self.stop_agreed = next(
            (s for s, seen in zip(STOP_SIGNALS, message[1:].tolist(), strict=True) if seen), 0
        )
        return message[0]

    def _backward_in_memory(self, batch: Batch, total: Tensor) -> Tensor:
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

    def _backward(self, batch: Batch, total: Tensor) -> Tensor:
        """Accumulate the step's gradient; returns this rank's sum of negative log-likelihoods."""
        nll: Tensor | float = 0.0  # a tensor of its own would have the precision's type
        place = self.plan.seed, self.steps_done
        micro_batches = self._micro_batches(batch)
        for i, micro_batch in enumerate(micro_batches):
            with self._gradients_stay_local(i + 1 < len(micro_batches)):
                with self._dropout.of(*place, micro_batch["index"], self.device):
                    loss, micro_nll, _ = self.loss(micro_batch)
                # DDP averages over ranks, the loss is a sum over them.
                scale = self.trainer.world_size / total.clamp(min=1).to(loss.dtype)
                with self._no_autocast():
                    self.manual_backward(loss * scale)
            nll = nll + micro_nll.detach()
        return torch.as_tensor(nll)

    def _no_autocast(self) -> AbstractContextManager[None]:
        """Lightning wraps the whole step in autocast, which is meant for the forward pass.

        Backward operations have the types of their forward ones, and an optimizer's matrix products
        choose their own.
        """
        return torch.autocast(self.device.type, enabled=False)

    def _micro_batches(self, batch: Batch) -> list[Batch]:
        """As many on every rank; where this rank has fewer samples, the last count for nothing."""
        return list(self._data.micro_batches(batch))

    @property
    def _data(self) -> MicroBatching:
        return cast(MicroBatching, self.trainer.datamodule)  # type: ignore[attr-defined]

    def _gradients_stay_local(self, local: bool) -> AbstractContextManager[None]:
        """Synchronise gradients once a step, with the last micro-batch."""
        if not local:
            return nullcontext()
        if is_sharded(self.model):
            return gradients_stay_local(self.model)
        wrapped: Any = self.trainer.strategy.model
        if hasattr(wrapped, "no_sync"):
            return cast(AbstractContextManager[None], wrapped.no_sync())
        return nullcontext()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient (unscaled by now, at any precision) and refuse one that is not finite.

        All ranks hold the same gradient here, so all of them decide alike.
        """
        norm = self._clip()
        self.progress.gradient_norm = norm
        if torch.isfinite(norm):
            self.progress.skipped_in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)  # a step without gradients changes nothing
        self.progress.skipped += 1
        self.progress.skipped_in_a_row += 1
        if self.progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise DivergedError(
                f"the gradient was infinite or NaN in {MAX_SKIPPED_IN_A_ROW} steps in a row, up to "
                f"step {self.steps_done + 1}. Lower optimizer.lr, lengthen scheduler.warmup, or "
                f"set trainer.gradient_clip_val or a wider trainer.precision."
            )

    def _clip(self) -> Tensor:
        limit = self.plan.gradient_clip_val or math.inf
        return whole(nn.utils.clip_grad_norm_(self.model.parameters(), limit))

    def _write_row(self, step: int, lr: float) -> None:
        """Write a row of training metrics every few steps, before anything saves this step."""
        if step % self.plan.log_every_n_steps == 0 or step in (1, self.plan.total_steps):
            self.latest = self.progress.take_row(lr)
            self.record(self.latest, step)

    def record(self, values: dict[str, float], step: int) -> None:
        """Write values to every logger, past Lightning's per-step machinery, which is slow."""
        for logger in self.loggers:
            logger.log_metrics({"tokens": self.progress.tokens, **values}, step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the counts that rows of metrics are made from."""
        checkpoint["progress"] = self.progress.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the counts up again."""
        if "progress" in checkpoint:
            self.progress.load_state_dict(checkpoint["progress"], first=self.global_rank == 0)

    # -- evaluation -----------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Forget the last evaluation."""
        self.progress.pause_clock()
        for metric in (*self._metrics().values(), self.samples):
            metric.reset()
        self.scores.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch; no rank waits for another here."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch; no rank waits for another here."""
        self._evaluate(batch, self.test_split)

    def _evaluate(self, batch: Batch, split_name: str) -> None:
        self.samples.update(len(batch["index"]))
        self.evaluate(batch, split_name)

    def on_validation_epoch_end(self) -> None:
        """Reduce over ranks, once, and report."""
        self._report("val", self.trainer.val_dataloaders)

    def on_test_epoch_end(self) -> None:
        """Reduce over ranks, once, and report."""
        self._report(self.test_split, self.trainer.test_dataloaders)

    def _report(self, split_name: str, loader: Any) -> None:
        figures = self.figures()
        if undeclared := ", ".join(figures.keys() - self.declared.keys()):
            raise TypeError(
                f"{type(self).__name__}.figures() gives {undeclared}: name them in `declares`"
            )
        figures["samples"] = counted = int(self.samples.compute())
        if counted != loader.samples:
            raise RuntimeError(
                f"{split_name} has {loader.samples} samples and {counted} were counted: the "
                "figures would be wrong. Please report this."
            )
        self.sample_scores[split_name] = self.scores.gather()
        values = {f"{split_name}/{name}": value for name, value in figures.items()}
        self.evaluations[split_name] = values
        # Callbacks monitor these; every rank holds the same reduced values.
        self.trainer.callback_metrics.update(
            {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}
        )
        if self.trainer.state.fn == "fit":
            self.record(values, self.steps_done)
        self.progress.start_clock()


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


def seed_step(seed: int, rank: int, step: int, device: torch.device) -> None:
    """Make what is random in a step, dropout aside, a function of the seed, the rank and the step.

    `torch.manual_seed` would queue a seed, with a stack trace, for every kind of device there could
    be: a millisecond a step, never freed.
    """
    state = int(np.random.SeedSequence((seed, rank, step)).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(state)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(state)

"""What all tasks share: what a task is told by, and an evaluation that counts each sample once.

And the trivial models that figures are compared with.
"""

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.analysis.uncertainty import SCORES, samples_of
from truesweep.data.batch import Batch
from truesweep.data.datasets import Members
from truesweep.data.encode import encode_inputs
from truesweep.data.kinds import SampleKind
from truesweep.data.prepare import Prepared
from truesweep.errors import ConfigError
from truesweep.figures import OWN_COUNT, Figure, by_name, compute, of_metric, of_source
from truesweep.metrics.likelihood import linear_nll_by_row, nll_by_row
from truesweep.metrics.sums import Count
from truesweep.models import Head
from truesweep.tasks.generation import context_length
from truesweep.tasks.training import Recipe, Training
from truesweep.terminal import warn


def unigram(prepared: Prepared, split: str) -> dict[str, float]:
    """Loss and perplexity of the frequencies that targets have in the training split."""
    scored = prepared.datasets[split].target_counts(len(prepared.target_counts))
    loss = unigram_loss(prepared.target_counts, scored)
    return {"loss": loss, "perplexity": math.exp(loss)}


def unigram_loss(train: npt.NDArray[np.int64], scored: npt.NDArray[np.int64]) -> float:
    """Mean negative log-likelihood in nats under add-one smoothed training frequencies.

    Args:
        train: How often each token is a target in training [vocabulary].
        scored: The same in the split that is scored [vocabulary].
    """
    logs = np.log(train + 1.0) - math.log(train.sum() + len(train))
    return float(-(scored * logs).sum() / scored.sum())


def score_once(name: str, metric: Any, predictions: Any, targets: Any) -> dict[str, float]:
    """What a metric has to say of predictions, on this rank alone; the metric itself is left alone.

    Args:
        name: Under which the metric is reported.
        metric: A torchmetrics metric.
        predictions: As its `update` takes them.
        targets: Likewise.
    """
    alone = deepcopy(metric)
    alone.reset()
    alone.distributed_available_fn = _nowhere
    alone.update(predictions, targets)
    return compute(name, alone)


def _nowhere() -> bool:
    """Whether there are other ranks to wait for."""
    return False


UNLIMITED = 1_000_000_000
"""Tokens that no input has."""
MOST_NATS = 709.0
"""The largest loss whose perplexity is a number."""


class Task(Training):
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
    head: ClassVar[Head]
    """Which kind of model the task needs; see `models.heads`."""
    kind: ClassVar[SampleKind]
    """Which kind of samples the task needs; see `data.kinds`."""
    tag: ClassVar[str] = ""
    """By which loggers mark its runs; the name of the class where it is empty."""
    pipeline: ClassVar[str | None] = None
    """The pipeline of transformers, and so the hub's, that an exported model is for."""
    options: ClassVar[Mapping[str, str]] = {}
    """By option of `truesweep generate`, without the dashes, the task's own key that it sets."""
    max_length: int | None = None
    """Tokens of a sample at most in its training, which are those it reads of a new one.

    None: as many as the model reads.
    """
    sources: Sequence[str] = ()
    """Of a mixture, the names of its sources, which have figures of their own."""

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model, recipe)
        self.tokenizer = tokenizer
        self.metrics = nn.ModuleDict(self.make_metrics())
        self._add(metrics or {})
        self.samples = Count()
        self.scores = SampleScores()
        self.sample_scores: dict[str, Arrays] = {}
        self.evaluations: dict[str, dict[str, float]] = {}
        self.test_split = "test"

    @classmethod
    def kind_of(cls, settings: Mapping[str, Any]) -> SampleKind:
        """The kind of samples under settings of the task, where these have a say in it.

        Args:
            settings: The `task` group of a configuration.
        """
        return cls.kind

    @classmethod
    def needs_reference(cls, settings: Mapping[str, Any], model: PreTrainedModel) -> bool:
        """Whether its samples must hold what the model says of them before it is trained.

        Args:
            settings: The `task` group of a configuration.
            model: The model.
        """
        return False

    @classmethod
    def ends_by(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Keys of the task on which only the end of a run depends: no step, and no validation.

        Args:
            settings: The `task` group of a configuration.
        """
        return ()

    @classmethod
    def validates_by(cls) -> tuple[str, ...]:
        """Keys of the task on which its evaluations depend, and no step does."""
        return ()

    @classmethod
    def ends(cls, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The tokens that end a text of the model; none: what the model says itself."""
        return []

    @abstractmethod
    def make_metrics(self) -> dict[str, Metric]:
        """The metrics of an evaluation, by the name they are reported under."""

    @property
    def declared(self) -> dict[str, Figure]:
        """What is declared of the figures of an evaluation, by their names."""
        own = by_name([*self.declares, *self._of_metrics()])
        return by_name([*own.values(), *(f for s in self.sources for f in of_source(s, own))])

    def reported(self, split_name: str) -> tuple[str, ...]:
        """The names of the figures that an evaluation of a split has, without the split's."""
        own = {figure.name: self.declared[figure.name] for figure in self._of_metrics()}
        return (*own, *(f.name for source in self.sources for f in of_source(source, own)))

    def _of_metrics(self) -> list[Figure]:
        return [f for one in self._metrics().items() for f in of_metric(*one)]

    def figures(self) -> dict[str, float]:
        """The figures of an evaluation, reduced over ranks."""
        return {k: v for one in self._metrics().items() for k, v in compute(*one).items()}

    def own_counts(self) -> dict[str, int]:
        """The samples that figures are of which are not of all, by their names, over all ranks."""
        return {}

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
        texts of an encoder–decoder. A metric whose figures have `samples` gives them by
        `statistics`, from the same arguments, and `by_sample`, as `TextMetric` does.

        Args:
            index: The samples' places in the split.
            predictions: What the model gives.
            targets: What is right.
        """
        for name in self.added:
            metric: Any = self.metrics[name]
            metric.update(predictions, targets)
            if hasattr(metric, "by_sample"):
                rows = metric.statistics(predictions, targets)
                self.scores.add(index, **metric.by_sample(rows))

    @abstractmethod
    def evaluate(self, batch: Batch, split_name: str) -> None:
        """Add one batch to the metrics."""

    def nll_by_row(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """A batch's `nll_by_row` of a language model, and its logits unless they are too many."""
        layer = None if self.added else self.output_layer(batch)
        if layer is None:
            logits = self.logits(batch)
            return *nll_by_row(logits, batch["labels"]), logits
        hidden = layer.hidden(lambda: self.logits(batch))
        return *linear_nll_by_row(hidden, layer.weight, layer.bias, batch["labels"]), None

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

    def tokens_per_target(self, prepared: Prepared) -> float:
        """Tokens that a model reads in training for each of its targets."""
        return prepared.train.tokens_per_target

    # -- what a trained model is used for, and compared with ------------------------------------

    def answer(self, text: str, packing: bool) -> str:
        """What the model makes of a new input, for `truesweep generate`.

        Args:
            text: A prompt, a source, a text to classify, or whatever the task is about.
            packing: Whether the model was trained on packed text.

        Raises:
            ConfigError: The input is none that the task can answer.
        """
        raise ConfigError(f"{type(self).__name__} generates nothing: it has no method answer")

    @classmethod
    def answers(cls) -> bool:
        """Whether the task can be asked by `answer`."""
        return cls.answer is not Task.answer

    def input_ids(self, text: str) -> Tensor:
        """The tokens of a new input as those of a sample of its training, [1, length].

        One that is longer than those is cut as they were, which is said.
        """
        (whole,) = encode_inputs(self.tokenizer, self.kind.name, [text], UNLIMITED)
        limit = self.limit(len(whole))
        (ids,) = encode_inputs(self.tokenizer, self.kind.name, [text], limit)
        return torch.tensor([ids], device=self.device)

    def limit(self, length: int) -> int:
        """Tokens that an input keeps; says so where it has more, `length`."""
        limits = self.max_length, context_length(self.model)
        limit = min((found for found in limits if found), default=UNLIMITED)
        if length > limit:
            why = "data.max_length" if limit == self.max_length else "all that the model reads"
            warn([f"an input of {length:,} tokens was cut after {limit:,} ({why})"], stderr=True)
        return limit

    def baseline(self, prepared: Prepared, split_name: str) -> dict[str, Any]:
        """What figures are worth: the same figures of a trivial model, on the same split.

        Computed on one rank, as the task computes its own figures.
        """
        return {}

    def baselines(self, prepared: Prepared, split_name: str) -> dict[str, Any]:
        """`baseline` by the names that stand beside the figures', such as `baseline/test/loss`."""
        found = self.baseline(prepared, split_name)
        return {f"baseline/{split_name}/{name}": value for name, value in found.items()}

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
        self.evaluate(self.seen(batch, None), split_name)

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
        for name, count in self.own_counts().items():
            if name in figures and count != counted:
                figures[f"{name}{OWN_COUNT}"] = count
        self.sample_scores[split_name] = self.scores.gather(loader.by_source)
        if loader.by_source:
            figures |= self._of_sources(split_name, loader.by_source, counted)
        values = {f"{split_name}/{name}": value for name, value in figures.items()}
        self.evaluations[split_name] = values
        # Callbacks monitor these; every rank holds the same reduced values.
        self.trainer.callback_metrics.update(
            {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}
        )
        if self.trainer.state.fn == "fit":
            self.record(values, self.steps_done)
        self.progress.start_clock()

    def _of_sources(
        self, split_name: str, by_source: Mapping[str, Members], counted: int
    ) -> dict[str, float]:
        """The figures of each source of a mixture, from what was kept of each sample."""
        found: dict[str, float] = {}
        scores = self.sample_scores[split_name]
        for source, where in by_source.items():
            found[f"{source}/samples"] = count = len(np.arange(counted)[where])
            declared = [f for n, f in self.declared.items() if n.startswith(f"{source}/")]
            for figure in declared:
                table = samples_of(figure, scores)
                if table is not None and len(table):
                    found[figure.name] = SCORES[figure.score].value(table)
                    if len(table) != count:
                        found[f"{figure.name}{OWN_COUNT}"] = len(table)
            for figure in declared:
                if figure.follows in found:
                    value = self.following(figure, found[figure.follows], f"{split_name}/{source}")
                    found |= {} if value is None else {figure.name: value}
        return found

    def following(self, figure: Figure, base: float, part: str) -> float | None:
        """What a figure is that follows another one; None where that is not known.

        Args:
            figure: Its declaration.
            base: The other figure.
            part: Which part of the data it is of, such as `val/books`.
        """
        if figure.growth == "exponential":
            return math.exp(base) if base < MOST_NATS else math.inf
        return None


# -- scores of single samples ----------------------------------------------------------------------

Arrays = dict[str, npt.NDArray[Any]]


class SampleScores:
    """Collects values by sample, and brings those of all ranks into the order of the split.

    Two models scored on the same samples can then be compared sample by sample, and every figure
    has a standard error.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[list[int], Tensor]]] = defaultdict(list)

    def reset(self) -> None:
        """Forget the last evaluation."""
        self._parts.clear()

    def add(self, index: Sequence[int], **values: Tensor) -> None:
        """Keep values of a batch.

        Args:
            index: The samples' places in the split; none in a batch that only fills up.
            **values: A row for each sample, and maybe more for rows that only fill up.
        """
        for name, rows in values.items():
            if rows.dtype == torch.bfloat16:  # which NumPy lacks
                rows = rows.float()
            self._parts[name].append((list(index), rows[: len(index)].detach()))

    def gather(self, sources: Mapping[str, Members] | None = None) -> Arrays:
        """The values of all ranks by name, in the order of the samples; all ranks call it.

        Args:
            sources: Of a mixture, where the samples of each source are; its values stand by
                themselves as well, such as `nll` under `books/nll`.
        """
        own = {
            name: (
                [place for index, _ in parts for place in index],
                torch.cat([rows for _, rows in parts]).cpu().numpy(),
            )
            for name, parts in self._parts.items()
        }
        shares: list[Any] = [own]
        if dist.is_available() and dist.is_initialized():
            shares = [None] * dist.get_world_size()
            dist.all_gather_object(shares, own)
        found: Arrays = {}
        for name in sorted(set().union(*shares)):
            places, found[name] = _ordered([share[name] for share in shares if name in share])
            for source, where in (sources or {}).items():
                known = np.zeros(int(places[-1]) + 1 if len(places) else 0, dtype=bool)
                known[where if isinstance(where, slice) else where[where < len(known)]] = True
                found[f"{source}/{name}"] = found[name][known[places]]
        return found


def _ordered(
    parts: Sequence[tuple[list[int], npt.NDArray[Any]]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """The places of samples in order, and their rows."""
    places = np.concatenate([np.asarray(index, np.int64) for index, _ in parts])
    rows = np.concatenate([rows for _, rows in parts])
    order = np.argsort(places)
    return places[order], rows[order]

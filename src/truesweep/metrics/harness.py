"""Tasks of EleutherAI's lm-evaluation-harness: how a language model does on them.

The harness (`lm_eval`) is an extra; it is imported when there is a task to load. Tasks, prompts and
metrics are its own: a model has the figures here that `lm_eval --model hf` gives its export.
"""

import copy
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from truesweep.errors import ConfigError, did_you_mean, refusing
from truesweep.figures import HARNESS, STANDARD_ERROR, Figure

INSTALL = "pip install 'truesweep[harness]'"
_ALONE = "DISABLE_MULTIPROC"
"""What the harness is told by in the environment to start no processes."""
SEED, PYTHON_SEED = 1234, 0
"""What the harness's command draws examples by."""
_FILES = (".yaml", ".yml")


@dataclass(frozen=True)
class Asked:
    """Which tasks a model is given, and how.

    Args:
        tasks: Names of tasks or of groups of them, with `*` for any letters, or files of tasks
            (`mine.yaml`).
        limit: So many samples of each task only, its first ones; None: all.
        num_fewshot: Solved examples in front of each sample; None: as the task says.
        apply_chat_template: Whether samples are put as the tokenizer's chat template writes them.
    """

    tasks: tuple[str, ...]
    limit: int | None = None
    num_fewshot: int | None = None
    apply_chat_template: bool = False


class Left(Exception):
    """Tasks were left before their end, since somebody asked for it."""


class Harness:
    """Tasks with their data.

    Args:
        asked: Which.

    Raises:
        ConfigError: The harness is not installed, has no such task, cannot get its data, or cannot
            make of them what it would ask.
    """

    def __init__(self, asked: Asked) -> None:
        require()
        if not asked.tasks:
            raise ConfigError("no task of lm-evaluation-harness is named; name one, as arc_easy")
        self.asked = asked
        with _own_seeds():
            self.loaded = _load(asked.tasks)
        for task in self.loaded["tasks"].values():
            own = task.get_config("num_fewshot")
            if own is None or (asked.num_fewshot is not None and own != 0):
                task.set_config(key="num_fewshot", value=asked.num_fewshot or 0)
        for name, task in self.loaded["tasks"].items():
            with refusing(f"{name}: its first sample cannot be written: {{}}".format):
                _write_first(task)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What the harness declares of the figures of its tasks."""
        tasks = {n: dict(task.higher_is_better() or {}) for n, task in self._tasks.items()}
        for name, group in (self.loaded.get("groups") or {}).items():
            below = [tasks.get(task.task_name, {}) for task in group.get_all_tasks()]
            metrics = dict.fromkeys(metric for one in below for metric in one)
            tasks[name] = {metric: _agreed(metric, below) for metric in metrics}
        return tuple(
            Figure(_name(task, metric, filtered).partition("/")[2], better)
            for task, metrics in tasks.items()
            for metric, better in metrics.items()
            for filtered in self._filters(task)
        )

    @property
    def versions(self) -> dict[str, Any]:
        """The version of each task."""
        return {name: task.VERSION for name, task in self._tasks.items()}

    @property
    def _tasks(self) -> dict[str, Any]:
        return dict(self.loaded["tasks"])

    def _filters(self, task: str) -> list[str]:
        config = self._tasks[task].get_config("filter_list") if task in self._tasks else None
        return [one["name"] for one in config or ()] or ["none"]

    def score(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int | None = None,
        leave: Callable[[], bool] = bool,
        agree: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """The figures of all tasks, with their standard errors and numbers of samples.

        Ranks share the samples, and only the first has figures; there are as many ranks as
        `torch.distributed` knows. Weights are taken as they are, without automatic casts.

        Args:
            model: A causal language model or an encoder–decoder, on its device.
            tokenizer: The model's.
            batch_size: Samples of a forward pass; None: one on a processor, as many as fit on a
                GPU.
            leave: Asked before each forward pass whether to leave it all.
            agree: Called on all ranks before they bring their shares together; raises if one of
                them has left.

        Raises:
            Left: `leave` said so, and `agree` did not raise.
        """
        from lm_eval.evaluator import evaluate

        for task in self._tasks.values():
            task.set_fewshot_seed(seed=SEED)

        def leave_if_asked(*_: Any) -> None:
            if leave():
                raise Left

        was_training, hook = model.training, model.register_forward_pre_hook(leave_if_asked)
        stance = torch.compiler.set_stance("force_eager")  # lengths differ from batch to batch
        try:
            with (
                _own_seeds(),
                _one_process(),
                stance,
                redirect_stdout(sys.stderr),
            ):  # of what it tells
                found: Any = evaluate(
                    _adapted(model, copy.deepcopy(tokenizer), batch_size, agree),
                    task_dict=self.loaded,
                    limit=self.asked.limit,
                    log_samples=False,
                    apply_chat_template=self.asked.apply_chat_template,
                    fewshot_as_multiturn=self.asked.apply_chat_template,
                )
        except Left:
            agree()
            raise
        finally:
            hook.remove()
            model.train(was_training)
        if not _ranks()[1] > 1:
            agree()
        return {} if found is None else _figures(found)


def _write_first(task: Any) -> None:
    """Raise what a task raises that has too few solved examples, or fields that data have not."""
    with redirect_stderr(StringIO()):  # a bar for one sample
        task.set_fewshot_seed(seed=SEED)
        task.build_all_requests(limit=1)


def check_speaks(head: str) -> None:
    """Refuse a model that says nothing: all tasks come down to what one says.

    Args:
        head: See `models.heads`.

    Raises:
        ConfigError: It is such a one.
    """
    if head not in ("causal", "seq2seq"):
        raise ConfigError(
            f"tasks of lm-evaluation-harness ask what a model says, and a {head} model says "
            "nothing. Leave them out"
        )


def require() -> None:
    """Refuse to go on without the harness.

    Raises:
        ConfigError: It is not installed.
    """
    if find_spec("lm_eval") is None:
        raise ConfigError(
            f"tasks of lm-evaluation-harness need it, and it is not installed: {INSTALL}"
        )


@cache
def harness(asked: Asked) -> Harness:
    """The tasks that are asked for, loaded once."""
    return Harness(asked)


def _load(names: Sequence[str]) -> dict[str, Any]:
    """Tasks by names, or from files, in whose groups others may stand.

    Raises:
        ConfigError: There is none of a name, or it cannot be loaded.
    """
    files = {name for name in names if name.endswith(_FILES)}
    for name in files:
        if not Path(name).is_file():
            raise ConfigError(f"{name}: there is no such file of a task")
    manager = _manager(include_defaults=files != set(names))
    wanted: list[Any] = []
    for name in names:
        found = [str(Path(name).absolute())] if name in files else manager.match_tasks([name])
        if not found:
            raise ConfigError(
                f"{name}: lm-evaluation-harness has no such task, and a file of one ends "
                f"in .yaml{did_you_mean(name, manager.all_tasks)}"
            )
        wanted += [one for one in found if one not in wanted]

    def say(reason: str) -> str:
        return f"{', '.join(names)}: a task or its data cannot be loaded: {reason}"

    with refusing(say):
        try:
            loaded = manager.load(wanted)
        except KeyError:  # a group that names tasks of the harness
            loaded = _manager(include_defaults=True).load(wanted)
    return dict(loaded)


@cache
def _manager(include_defaults: bool) -> Any:
    """What knows tasks; to find those of the harness it reads thousands of files."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=include_defaults)


@contextmanager
def _one_process() -> Iterator[None]:
    """Keep the harness from forking workers for its resamples.

    They would hang where this process has threads or handlers of signals. Standard errors are the
    same without them.
    """
    before = os.environ.get(_ALONE)
    os.environ[_ALONE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ALONE]
        else:
            os.environ[_ALONE] = before


@contextmanager
def _own_seeds() -> Iterator[None]:
    """Random numbers as the harness's command draws them; afterwards others go on as before."""
    numbers, arrays = random.getstate(), np.random.get_state()
    random.seed(PYTHON_SEED)
    np.random.seed(SEED)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            yield
    finally:
        random.setstate(numbers)
        np.random.set_state(arrays)


def _ranks() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    import torch.distributed as dist

    known = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if known else (0, 1)


def _adapted(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int | None,
    agree: Callable[[], None],
) -> Any:
    """A model as the harness takes it."""
    import torch.distributed as dist
    from lm_eval.models.huggingface import HFLM

    rank, ranks = _ranks()

    class Ours(HFLM):  # type: ignore[misc]
        """Shares samples among ranks."""

        @property
        def rank(self) -> int:
            return rank

        @property
        def world_size(self) -> int:
            return ranks

        def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
            parts = [torch.zeros_like(tensor) for _ in range(ranks)]
            dist.all_gather(parts, tensor)
            return torch.stack(parts)

        def gather_object(self, obj: Any, dst: int = 0) -> Any:
            agree()
            parts: list[Any] = [None] * ranks
            dist.all_gather_object(parts, obj)
            return [_merged(parts)] if rank == dst else None

        def barrier(self) -> None:
            """Ranks meet when they bring their shares together."""

    on_gpu = model.device.type != "cpu"
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of models that are given to it
    try:
        return Ours(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size or ("auto" if on_gpu else 1),
            backend="seq2seq" if model.config.is_encoder_decoder else "causal",
        )
    finally:
        log.setLevel(level)


def _merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Values of all samples in their order, from ranks that took turns: by task and metric."""
    nothing = object()
    return {
        task: {
            metric: [
                value
                for turn in zip_longest(*(part[task][metric] for part in parts), fillvalue=nothing)
                for value in turn
                if value is not nothing
            ]
            for metric in metrics
        }
        for task, metrics in parts[0].items()
    }


def _figures(found: Mapping[str, Any]) -> dict[str, float]:
    """What the harness found, by the names of figures; what it left open is left out."""
    figures: dict[str, float] = {}
    for task, metrics in found["results"].items():
        for key, value in metrics.items():
            metric, _, filtered = key.partition(",")
            if not filtered or isinstance(value, str | None):
                continue
            name = _name(task, metric.removesuffix("_stderr"), filtered)
            end = STANDARD_ERROR if metric.endswith("_stderr") else ""
            figures[f"{name}{end}"] = float(value)
        if count := (found.get("n-samples") or {}).get(task):
            figures[f"{HARNESS}/{task}/samples"] = int(count["effective"])
    return figures


def _name(task: str, metric: str, filtered: str) -> str:
    """The name of a figure; of answers that were filtered in some way, with its name."""
    return "/".join([HARNESS, task, *([] if filtered == "none" else [filtered]), metric])


def _agreed(metric: str, of_tasks: Sequence[Mapping[str, bool | None]]) -> bool | None:
    """Whether more of a metric is better, if all tasks that have it say the same."""
    said = {one[metric] for one in of_tasks if metric in one}
    return said.pop() if len(said) == 1 else None

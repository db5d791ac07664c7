"""Tasks of lm-evaluation-harness during a training, and by its best checkpoint."""

import io
from contextlib import redirect_stderr
from functools import partial
from typing import Annotated, Any

import pytorch_lightning as pl
from annotated_types import Ge, Gt
from pytorch_lightning.utilities.types import STEP_OUTPUT

from truesweep.callbacks.base import Callback
from truesweep.callbacks.preemption import Stopped
from truesweep.callbacks.validation import ValidationInterrupted, leave_together
from truesweep.compat import steps_done
from truesweep.figures import Figure
from truesweep.metrics.harness import Asked, harness


class Harness(Callback):
    """Gives the model tasks of lm-evaluation-harness; left out until some are named.

    Figures such as `harness/arc_easy/acc` are recorded every so many steps, and once more for the
    best checkpoint, whose figures are those of the run. Weights are taken as they are, without
    automatic casts.

    Args:
        tasks: Names of tasks or of groups of them, or files of tasks (`mine.yaml`); None: none.
        every_n_steps: Optimizer steps between two times; None: the best checkpoint only.
        limit: So many samples of each task only; None: all.
        num_fewshot: Solved examples in front of each sample; None: as the task says.
        apply_chat_template: Whether samples are put as the tokenizer's chat template writes them.
        batch_size: Samples of a forward pass; None: one on a processor, as many as fit on a GPU.

    Raises:
        ConfigError: The harness is not installed, has no such task, or cannot get its data.
    """

    def __init__(
        self,
        *,
        tasks: str | list[str] | None = None,
        every_n_steps: Annotated[int, Gt(0)] | None = None,
        limit: Annotated[int, Gt(0)] | None = None,
        num_fewshot: Annotated[int, Ge(0)] | None = None,
        apply_chat_template: bool = False,
        batch_size: Annotated[int, Gt(0)] | None = None,
    ) -> None:
        names = [tasks] if isinstance(tasks, str) else tasks or []
        asked = Asked(tuple(names), limit, num_fewshot, apply_chat_template)
        self.enabled = bool(names)
        self.tasks = harness(asked) if names else None
        self.every_n_steps = every_n_steps
        self.batch_size = batch_size
        self.scored = 0
        self.results: dict[str, float] = {}

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What is declared of the figures of the tasks."""
        return self.tasks.figures if self.tasks else ()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make up for a step that a checkpoint owes."""
        if self.scored != steps_done(trainer):
            self._record_if_due(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Score, if it is time."""
        self._record_if_due(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score the checkpoint that the test split was scored by."""
        self.results = self._score(trainer, pl_module)

    def _record_if_due(self, trainer: pl.Trainer, pl_module: Any) -> None:
        step = steps_done(trainer)
        if not self.every_n_steps or step == 0 or step % self.every_n_steps:
            return
        checkpoint: Any = trainer.checkpoint_callback
        try:
            pl_module.progress.pause_clock()
            figures = self._score(trainer, pl_module)
            pl_module.progress.start_clock()
        except ValidationInterrupted as interrupted:
            checkpoint.save_last(trainer)
            raise Stopped(interrupted.signum, together=True) from None
        if trainer.is_global_zero:
            pl_module.record(figures, step)
        self.scored = step
        checkpoint.save_last(trainer)

    def _score(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, float]:
        """The figures; only on the first rank.

        Raises:
            ValidationInterrupted: A signal was sent to a rank; on all ranks alike.
        """
        assert self.tasks is not None, "a harness without tasks is left out"
        with redirect_stderr(io.StringIO()):
            return self.tasks.score(
                pl_module.model,
                pl_module.tokenizer,
                self.batch_size,
                leave=lambda: bool(pl_module.stop_requested),
                agree=partial(leave_together, trainer, pl_module),
            )

    def state_dict(self) -> dict[str, Any]:
        """The last step that was scored."""
        return {"scored": self.scored}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up."""
        self.scored = state_dict["scored"]

"""`best.ckpt` and `last.ckpt`."""

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import pytorch_lightning as pl
from annotated_types import Gt
from pytorch_lightning.callbacks import Checkpoint as LightningCheckpoint
from pytorch_lightning.utilities.types import STEP_OUTPUT

from truesweep.callbacks.base import Callback
from truesweep.compat import steps_done
from truesweep.figures import BUILT_IN, Mode, require_mode
from truesweep.record.checkpoints import CheckpointFiles, drop_optimizer
from truesweep.runs.branches import checkpoint_path, is_kept, keep
from truesweep.runs.run import Run

Name = Literal["best", "last"]


class Checkpoint(LightningCheckpoint):
    """Keep the best checkpoint by a validation metric, and the last one to resume from.

    Args:
        directory: Where both files go.
        tell: Called on rank 0 with the name and the step of every checkpoint that is saved; what it
            returns is called once the file is there.
        monitor: The metric that chooses the best.
        mode: Whether less (`min`) or more (`max`) of it is better; None: as the metric declares.
        every_n_steps: Optimizer steps between two writes of `last.ckpt`, besides the one at every
            validation; None: at validations only.
        keep_optimizer: Whether `best.ckpt` keeps the optimizer's state, two to three times the size
            of the weights, when the run has completed. `last.ckpt`, from which a run is made
            longer, always does.
        background: Whether a thread writes both files while training goes on, from a copy in this
            machine's memory; a kill then leaves the ones before for as long as that takes. None:
            where the model is on another device than the processor.
    """

    def __init__(
        self,
        *,
        directory: Path,
        tell: Callable[[Name, int], Callable[[], None]] | None = None,
        monitor: str = "val/loss",
        mode: Mode | None = None,
        every_n_steps: Annotated[int, Gt(0)] | None = None,
        keep_optimizer: bool = False,
        background: bool | None = None,
    ) -> None:
        super().__init__()
        self.best_path, self.last_path = directory / "best.ckpt", directory / "last.ckpt"
        self.files = CheckpointFiles(background)
        self.tell = tell
        self._untold: list[Callable[[], None]] = []
        self.saved_step: int | None = None
        self.monitor = monitor
        self.mode = mode or declared_mode("checkpoint", monitor)
        self.every_n_steps = every_n_steps
        self.keep_optimizer = keep_optimizer
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.best_values: dict[str, float] = {}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write `last.ckpt` when it is due."""
        if self._untold:
            self._tell_written()
        step = steps_done(trainer)
        due = self.every_n_steps and step % self.every_n_steps == 0
        if due and step != self.saved_step:
            self.save_last(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write `best.ckpt` if this validation is the best so far, and `last.ckpt`."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        score = trainer.callback_metrics.get(self.monitor)
        if score is None:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ValueError(
                f"callbacks.checkpoint.monitor: no metric {self.monitor!r}; there are {known}"
            )
        improves = self._improves(float(score))
        if improves:
            self.best_score = float(score)
            self.best_step = steps_done(trainer)
            self.best_values = {k: float(v) for k, v in trainer.callback_metrics.items()}
            self._save(trainer, "best")
        self.save_last(trainer, is_best=improves)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have all checkpoints written."""
        self._finish()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Have all checkpoints written, which the run then goes on from."""
        self._finish()

    def save_last(self, trainer: pl.Trainer, is_best: bool = False) -> None:
        """Write `last.ckpt`. All ranks call it, at the same step.

        Args:
            trainer: The trainer.
            is_best: Whether the same was just written to `best.ckpt`, and need not be collected
                again.
        """
        self._save(trainer, "last", is_best)
        self.saved_step = steps_done(trainer)

    def complete(self) -> None:
        """Leave of the best checkpoint what evaluations read. Rank 0 calls it, at the end."""
        if not self.keep_optimizer:
            drop_optimizer(self.best_path)

    def _save(self, trainer: pl.Trainer, name: Name, again: bool = False) -> None:
        if not again:
            path = self.best_path if name == "best" else self.last_path
            trainer.save_checkpoint(path, weights_only=False)
        elif trainer.is_global_zero:
            self.files.save_again(self.best_path, self.last_path)
        if self.tell is not None and trainer.is_global_zero:
            self._untold.append(self.tell(name, steps_done(trainer)))
        self._tell_written()

    def _tell_written(self) -> None:
        if self.files.is_written():
            for told in self._untold:
                told()
            self._untold.clear()

    def _finish(self) -> None:
        self.files.wait()
        self._tell_written()

    def _improves(self, score: float) -> bool:
        if not math.isfinite(score):  # never better, whatever it is compared with
            return False
        if self.best_score is None:
            return True
        return score < self.best_score if self.mode == "min" else score > self.best_score

    def state_dict(self) -> dict[str, Any]:
        """What is known of the best checkpoint, in plain values."""
        return {
            "best_score": self.best_score,
            "best_step": self.best_step,
            "best_values": self.best_values,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was known."""
        self.best_score = state_dict["best_score"]
        self.best_step = state_dict["best_step"]
        self.best_values = state_dict["best_values"]


def declared_mode(callback: str, monitor: str) -> Mode:
    """Which value of a metric is the best, for a callback that is not told.

    Raises:
        ConfigError: Nothing declares it.
    """
    key = f"callbacks.{callback}"
    remedy = f"Set {key}.mode=min or {key}.mode=max"
    return require_mode(monitor, BUILT_IN, f"{key}.monitor", remedy)


class Branches(Callback):
    """Keep the state after some steps, from which other jobs of a sweep go on.

    Comes after what validates, with which it is to be in step, and before what leaves then. A state
    that the run has begun with is not kept again. Where the training stops early, its last state is
    kept in place of those that do not come: others that are the same until then stop there, too.

    Args:
        run: The run.
        steps: After which.
        checkpoint: What writes the others.
        stops: Whether the training stops after this step, and whoever goes on from its state would.
    """

    def __init__(
        self,
        run: Run,
        steps: Collection[int],
        checkpoint: Checkpoint,
        stops: Callable[[], bool],
    ) -> None:
        self.run = run
        self.checkpoint = checkpoint
        self.steps = frozenset(steps)
        self.stops = stops

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Keep a step that is to be kept, also one that a kill came after."""
        step = steps_done(trainer)
        stops = 0 < step < max(self.steps) and self.stops()
        if not (stops or step in self.steps) or trainer.strategy.broadcast(self._is_there(step)):
            return
        trainer.save_checkpoint(checkpoint_path(self.run, step), weights_only=False)
        if trainer.is_global_zero:
            self.checkpoint.files.wait()  # what belongs to it, `best.ckpt` among them, changes soon
            keep(self.run, step)

    on_train_start = on_train_batch_end

    def _is_there(self, step: int) -> bool:
        """Whether a state is there, of this run or the same of a sibling that it began with."""
        origin = self.run.read_provenance().get("branched", {})
        alike = dict(self.run.place.get("siblings") or [])
        begun = min(origin.get("step", 0), alike.get(origin.get("run"), 0))
        return is_kept(self.run, step) or step <= begun


class Replay(Callback):
    """Goes from one state to the next that another job has kept, and trains no step between them.

    At each the validation that is due is made up for, as after a resume. Comes last.

    Attributes:
        taken: Whether the checkpoint is another job's, whose validations are not this one's.
        goes_on: Whether another state follows.
        ended: Whether the training is over, as it has stopped early.
    """

    def __init__(self) -> None:
        self.taken = self.goes_on = self.ended = False

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Leave callbacks as they are, which is what they have come to by this job's validations.

        Called before they take up what the checkpoint says of them.
        """
        if self.taken:
            checkpoint["callbacks"] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop, if another state follows."""
        self.ended = trainer.should_stop
        trainer.should_stop = self.ended or self.goes_on


class SaveFirst(Callback):
    """Keep the state from which a training starts.

    Args:
        path: The checkpoint.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save it, unless the training goes on from a later one."""
        if steps_done(trainer) == 0:
            trainer.save_checkpoint(self.path, weights_only=True)

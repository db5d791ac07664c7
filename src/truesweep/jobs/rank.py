"""What one rank of a job does, from the frozen configuration to the final figures."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from transformers import PreTrainedModel

from truesweep.analysis.uncertainty import standard_errors
from truesweep.analysis.verdict import Verdict, judge
from truesweep.callbacks import (
    Branches,
    Checkpoint,
    EarlyStopping,
    Harness,
    Heartbeat,
    Paused,
    Preemption,
    Pruning,
    Replay,
    SameConfiguration,
    StopAfter,
    Stopped,
    TakeUp,
    Validation,
    check_settled,
    stoppable,
    told,
)
from truesweep.compat import drop_compilations, is_of_compiler, steps_done
from truesweep.data.left_out import left_out
from truesweep.data.prepare import Prepared
from truesweep.data.token_cache import SPLITS
from truesweep.errors import ConfigError
from truesweep.jobs.load import is_layout_lost, save_layout
from truesweep.jobs.loggers import complete, conclude, describe, make_loggers
from truesweep.jobs.logs import logs
from truesweep.jobs.parts import Parts, build, build_callbacks, make
from truesweep.jobs.pausing import FORECAST, describe_rates, is_to_pause
from truesweep.jobs.same_data import check_same_data
from truesweep.jobs.threads import sharing_cores
from truesweep.models import count_parameters, flops_per_token, peak_flops
from truesweep.models.adapters import base_of, has_adapter
from truesweep.models.freezing import is_reached_at_times
from truesweep.record.checkpoints import CheckpointFiles, has_optimizer
from truesweep.record.files import verify_checksum, write_json
from truesweep.record.frozen import fingerprint
from truesweep.record.loggers import MetricsFile, RunLogger
from truesweep.record.provenance import cores
from truesweep.record.rows import read
from truesweep.record.study import Reports
from truesweep.runs import branches
from truesweep.runs.branches import begin, checkpoint_of, is_alike, is_kept, note, rows_of_training
from truesweep.runs.run import SHARED, Run, write_entries
from truesweep.secrets import reveal
from truesweep.tasks import DivergedError, OutOfMemory
from truesweep.terminal import console


def run_rank(directory: str, resume: bool = False) -> None:
    """Train, or go on training, and score: one rank, in this process.

    Rank, world size and addresses come from the environment that the launcher set.

    Args:
        directory: The run's directory.
        resume: Continue from the newest valid checkpoint.

    Raises:
        Stopped: A signal asked for it; everything is saved.
        Pruned: The search that the run belongs to asked for it.
        ConfigError: The data are not those that the run began with.
    """
    run, rank = Run(Path(directory)), int(os.environ.get("RANK", "0"))
    with logs(run, rank), stoppable():
        config = run.read_config()
        loggers = make_loggers(config, describe(run, config)) if rank == 0 else []
        try:
            parts = build(config, run.largest_micro_batch)
            check_same_data(run, parts.prepared)
            use_processor(parts)
            job = Rank(run, config, parts, loggers)
            with sharing_cores():
                job.carry_out(resume)
        except BaseException as error:
            if isinstance(error, OutOfMemory):
                write_entries(run.memory, {"micro_batch_size": error.micro_batch_size})
            if isinstance(error, Stopped):
                drop_compilations()
            conclude(loggers, error)
            raise


class Rank:
    """One rank's trainer, and what it reports to.

    Args:
        run: The run's directory.
        config: The configuration as it stands there, secrets as references.
        parts: What the configuration describes.
        loggers: What mirrors the run; empty but on the first rank.
    """

    def __init__(
        self,
        run: Run,
        config: dict[str, Any],
        parts: Parts,
        loggers: Sequence[RunLogger],
    ) -> None:
        self.run = run
        self.config = config
        self.parts = parts
        self.metrics = MetricsFile(run.path)
        self.loggers = loggers
        self.states = self._states()
        self.replay = Replay()
        self.validation = Validation(
            parts.trainer.validate_every(parts.data.steps_per_epoch), parts.recipe.total_steps
        )
        self.checkpoint: Checkpoint = make(
            config,
            "callbacks.checkpoint",
            directory=run.checkpoints,
            tell=self._saved,
        )
        self.trainer = parts.trainer.make(
            callbacks=self._callbacks(),
            loggers=[self.metrics, *loggers],
            checkpoint_io=self.checkpoint.files,
            directory=str(run.path),
            reached_at_times=is_reached_at_times(parts.task.model),
        )
        progress = parts.task.progress
        progress.flops_per_target = flops_per_target(parts)
        progress.peak_flops = self._peak_flops()

    def _peak_flops(self) -> float | None:
        """Operations a second that all ranks' devices can do; None where that is not known."""
        device = self.trainer.strategy.root_device
        if device.type != "cuda":
            return None
        peak = peak_flops(torch.cuda.get_device_name(device), self.parts.trainer.precision)
        return None if peak is None else peak * self.trainer.world_size

    def _saved(self, name: str, step: int) -> Callable[[], None]:
        """A checkpoint is saved: what is to be done when its file is there."""
        if name == "best":
            scores = self.parts.task.sample_scores["val"]
            return lambda: self.run.write_scores("val", scores)
        return lambda: self._tell(steps_done(self.trainer), saved_step=step)

    def _tell(self, step: int, **more: Any) -> None:
        """Tell how far the training is, and what of the record nothing changes any more."""
        self.run.update_status(step=step, recorded=self.metrics.settled(), **more)

    def carry_out(self, resume: bool) -> None:
        """Train, go on training, and score; of a training that was given up, keep the verdict."""
        try:
            self.fit(resume)
            self.score()
        except DivergedError as error:
            if self.trainer.is_global_zero:
                self.run.update_status(verdict=self._diverged(error).to_dict())
            raise
        except Exception as error:
            if (signum := told().signum) and is_of_compiler(error):  # whose processes it struck
                raise Stopped(signum) from error
            raise

    def fit(self, resume: bool) -> None:
        """Train to the end, from the start or from a checkpoint, which may be that of the end."""
        checkpoint = newest_checkpoint(self.run) if resume else None
        if self.trainer.is_global_zero:
            self.run.update_status(total_steps=self.parts.recipe.total_steps)
        if self.trainer.is_global_zero and (checkpoint is None or is_layout_lost(self.run.model)):
            save_layout(self.run.model, self.parts.task.model, self.parts.task.tokenizer)
        shares = any(self.run.place.get(key) for key in SHARED)
        done = self._step_of(checkpoint) if shares else 0
        if self.trainer.is_global_zero and shares:
            begin(self.run, done)
        states = self._ahead(done)
        if checkpoint is not None or not states:
            self._fit(checkpoint, goes_on=bool(states))
        for left, (other, step) in zip(reversed(range(len(states))), states, strict=True):
            if self.replay.ended:
                return
            if self.trainer.is_global_zero:
                self._take_rows(other, step, done)
                note(self.run, other, step)
            self.replay.taken = True
            self._fit(checkpoint_of(other, step), goes_on=left > 0)
            done = step

    def _fit(self, checkpoint: Path | None, goes_on: bool) -> None:
        self.replay.goes_on, self.validation.at_end = goes_on, not goes_on
        self.trainer.fit(
            self.parts.task,
            datamodule=self.parts.data,
            ckpt_path=checkpoint,
            weights_only=True,
        )

    def _step_of(self, checkpoint: Path | None) -> int:
        if checkpoint is None:
            return 0
        return int(CheckpointFiles().load_checkpoint(checkpoint, mmap=True)["global_step"])

    def _ahead(self, done: int) -> list[tuple[Run, int]]:
        """States of other jobs to go on from, none of them behind a validation without its own.

        Args:
            done: Optimizer steps done so far.
        """
        found: list[tuple[Run, int]] = []
        for other, step in self.states:
            if any(map(self.validation.due, range(done + 1, step))):
                break
            if step > done and branches.is_whole(other, step):
                found.append((other, step))
                done = step
        return found

    def _take_rows(self, other: Run, step: int, after: int) -> None:
        """Record of the steps after one, up to another, what the run has that trained them."""
        self.metrics.truncate(after)
        rows = read(self.metrics.path) if self.metrics.path.exists() else []
        began = rows[-1]["time"] if rows else 0.0
        for row in rows_of_training(other, step, after):
            values = {k: v for k, v in row.items() if k not in ("step", "time")}
            values["time"] = round(began + row["time"], 3)
            for logger in (self.metrics, *self.loggers):
                logger.log_metrics(values, row["step"])

    def score(self) -> None:
        """Score the test split once, by the best checkpoint, and write the final figures.

        Raises:
            DivergedError: There is none, since no validation gave a number.
        """
        if self.checkpoint.best_step is None:
            raise DivergedError(
                f"{self.checkpoint.monitor} was not a number at any validation. Lower optimizer.lr "
                "or lengthen scheduler.warmup"
            )
        self.trainer.test(
            self.parts.task,
            datamodule=self.parts.data,
            ckpt_path=self.checkpoint.best_path,
            weights_only=True,
            verbose=False,
        )
        if not self.trainer.is_global_zero:
            return
        self.run.write_scores("test", self.parts.task.sample_scores["test"])
        rows, declared = read(self.run.metrics), self.parts.task.declared.values()
        verdict = self._verdict(rows)
        results = {
            **collect_results(self.parts, self.checkpoint, rows, verdict),
            **standard_errors(self.run.read_scores("val"), "val", declared),
            **standard_errors(self.run.read_scores("test"), "test", declared),
            **self._harness(),
        }
        tables = self.parts.task.tables()
        write_json(self.run.tables, tables, checksum=True)
        write_json(self.run.results, results, checksum=True)
        what = {"split": "test", "fingerprint": self.parts.prepared.fingerprint_of("test")}
        self.run.record_evaluation({**what, "checkpoint": "best", "own": True}, results)
        self.checkpoint.complete()
        kept = [self.checkpoint.best_path, self.run.config]
        complete(self.loggers, results, tables, verdict, kept)

    def _harness(self) -> dict[str, float]:
        """What the best checkpoint does on tasks of lm-evaluation-harness, if there are any."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        return {k: v for c in callbacks if isinstance(c, Harness) for k, v in c.results.items()}

    def _verdict(self, rows: Sequence[Mapping[str, Any]]) -> Verdict:
        trivial = self.parts.task.baselines(self.parts.prepared, "val")
        return judge(
            rows,
            steps_per_epoch=self.parts.data.steps_per_epoch,
            monitor=self.checkpoint.monitor,
            mode=self.checkpoint.mode,
            baseline=trivial.get("baseline/val/loss"),
        )

    def _diverged(self, error: DivergedError) -> Verdict:
        """The verdict on a training that was given up, which may be before a row shows why."""
        verdict = self._verdict(read(self.run.metrics))
        if verdict.kind == "diverged":
            return verdict
        return replace(verdict, kind="diverged", text=f"Diverged: {error}", forecasts=())

    def _callbacks(self) -> list[pl.Callback]:
        steps = self.parts.recipe.total_steps
        prepared = self.parts.prepared
        hashes = [prepared.fingerprint, prepared.origin["tokenizer"]]
        states = [(other.id, step) for other, step in self.states]
        return [
            SameConfiguration(
                # Of all that this rank's training follows from.
                fingerprint({"config": self.config, "data": hashes, "states": states})
            ),
            TakeUp(self.metrics),
            StopAfter(steps),
            Preemption(self.checkpoint, self.validation, bool(self.parts.compiled)),
            self.validation,
            *build_callbacks(self.config, steps),
            *self._branches(),
            *self._pruning(),  # after them, as they keep also what it leaves at
            Heartbeat(self._tell),
            self.checkpoint,
            *([self.replay] if self.states else []),
        ]

    def _states(self) -> list[tuple[Run, int]]:
        """The states of other jobs that this one validates, as far as they are there, in order."""
        named = self.run.place.get("replays") or []
        if self.run.read_provenance().get("changes"):  # it may be another training by now
            return []
        states = [(Run(self.run.path.parent / name), step) for name, step in named]
        return [one for one in states if is_kept(*one) and is_alike(self.run, *one)]

    def _branches(self) -> list[pl.Callback]:
        """What keeps the states from which other jobs of the sweep go on, if any do."""
        steps = self.run.place.get("branches")
        if self.run.read_provenance().get("changes"):  # others are to go on from another training
            return []
        return [Branches(self.run, steps, self.checkpoint, self._has_stopped)] if steps else []

    def _has_stopped(self) -> bool:
        """Whether early stopping has ended the training, as it would again after a resume.

        Not a callback of somebody's, of which that is not known.
        """
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        return any(isinstance(each, EarlyStopping) and each.is_over for each in callbacks)

    def _pruning(self) -> list[pl.Callback]:
        """What reports to the search that this run belongs to, if that prunes."""
        trial = dict(self.run.job.get("trial") or {})
        if not trial.get("pruner"):
            return []
        objective, pruner = trial.pop("objective"), trial["pruner"]
        known = reveal(trial, "sweeps")
        if pruner["name"] != FORECAST:
            reports = Reports(self.run.path, **known)
            catch_up, keep = self._catch_up(objective, reports), self.checkpoint.save_last
            return [Pruning(objective, reports, catch_up=catch_up, keep=keep)]
        about = describe_rates(make(self.config, "scheduler"), self.parts.recipe.total_steps)
        decide = partial(is_to_pause, first=pruner["warmup"], sign=pruner["sign"])
        reports = Reports(self.run.path, **known, decide=decide, about=about)
        return [Pruning(objective, reports, Paused, self._catch_up(objective, reports))]

    def _catch_up(self, objective: str, reports: Reports) -> Callable[[int], bool | None]:
        """Tells the search of validations that came with the state of another job."""

        def catch_up(done: int) -> bool | None:
            taken = self.run.read_provenance().get("branched", {}).get("step", 0)
            rows = self.run.read_metrics() if taken else []
            seen = {r["step"]: r[objective] for r in rows if objective in r and r["step"] <= taken}
            return reports.catch_up(seen, done)

        return catch_up


def check_record(run: Run, checkpoint: Path | None) -> None:
    """See that a run's record is as it was when a checkpoint was written, as far as that goes.

    Args:
        run: The run.
        checkpoint: From which it is to go on; None: from its beginning.

    Raises:
        DataError: It is not.
    """
    run.check_metrics()
    if checkpoint is not None:
        kept = CheckpointFiles().load_checkpoint(checkpoint, mmap=True)
        settled = kept["callbacks"].get(TakeUp.__name__, {}).get("settled")
        if settled:
            check_settled(run.metrics, settled, kept["global_step"])


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is as it was written; says so if it is not."""
    whole = verify_checksum(checkpoint)
    if not whole:
        console(stderr=True).print(f"{checkpoint} is damaged: its checksum does not match")
    return whole


def newest_checkpoint(run: Run) -> Path | None:
    """The checkpoint to resume from: the last one, or the best where the last is damaged.

    None if the run ended before it wrote the first one, and so goes on from the beginning.

    Raises:
        ConfigError: Checkpoints were written, and none is valid; or they were dropped.
    """
    if run.status.get("dropped"):
        raise ConfigError(
            f"{run.path} keeps no state to go on from, which its sweep has dropped to keep to "
            f"sweeps.disk; train it anew: truesweep train --from {run.path} name=again"
        )
    found = [
        path for name in ("last.ckpt", "best.ckpt") if (path := run.checkpoints / name).exists()
    ]
    for path in filter(is_whole, found):
        if path.name == "last.ckpt" or has_optimizer(CheckpointFiles().load_checkpoint(path)):
            return path
        # That of a run that has completed.
        console(stderr=True).print(f"{path} holds weights only, and no state to go on from")
    if not found and run.status.get("saved_step") is None:
        return None
    raise ConfigError(
        f"{run.checkpoints} holds no valid checkpoint to resume from, though one was written. "
        "Put it back, or delete the run's directory and train again"
    )


def use_processor(parts: Parts) -> None:
    """Share the cores among this node's ranks, and keep tiny numbers from slowing them down."""
    torch.set_num_threads(parts.trainer.threads or max(1, cores() // parts.trainer.local_ranks()))
    torch.set_flush_denormal(True)
    parts.trainer.set_matmul_precision()


# -- final figures, with a trivial baseline beside each --------------------------------------------


def collect_results(
    parts: Parts, checkpoint: Checkpoint, rows: list[dict[str, Any]], verdict: Verdict
) -> dict[str, Any]:
    """What `results.json` holds.

    Args:
        parts: The run's objects, after its test split was scored.
        checkpoint: Knows the best validation.
        rows: The rows of `metrics.jsonl`.
        verdict: What is to be said of the run.
    """
    best = {
        name: int(value) if name.endswith("samples") else value
        for name, value in checkpoint.best_values.items()
    }
    last = rows[-1] if rows else {"time": 0.0, "tokens": 0, "step": 0}
    return {
        **best,
        "best_step": checkpoint.best_step,
        **parts.task.evaluations.get("test", {}),
        **parts.task.baselines(parts.prepared, "test"),
        **parts.task.signatures("test"),
        **{k: v for split in SPLITS for k, v in left_out(parts.prepared, split).items()},
        **(parts.prepared.mix.figures(int(last["step"])) if parts.prepared.mix else {}),
        **_cleaned(parts.prepared),
        **sizes(parts.task.model),
        "train/seconds": last["time"],
        "train/tokens": last["tokens"],
        "train/flops": round(parts.task.progress.flops_per_target * int(last["tokens"])),
        **speeds(rows),
        "train/steps": last["step"],
        "verdict": verdict.to_dict(),
    }


def _cleaned(prepared: Prepared) -> dict[str, Any]:
    """What cleaning has left out of the data, by rule."""
    counts = {split: account.counts for split, account in prepared.cleaned.items()}
    return {"cleaned": counts} if counts else {}


def sizes(model: PreTrainedModel) -> dict[str, Any]:
    """Parameters; beside an adapter also those that were trained, and the hash of the base."""
    count = count_parameters(model)
    if not has_adapter(model):
        return {"parameters": count.total}
    trainable = {"trainable_parameters": count.trainable, "base_sha256": base_of(model)}
    return {"parameters": count.total, **trainable}


def speeds(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How fast a training was, by the median of its rows."""
    columns = {
        name: [row[name] for row in rows if name in row] for name in ("flops_per_second", "mfu")
    }
    return {f"train/{name}": median(column) for name, column in columns.items() if column}


def flops_per_target(parts: Parts) -> float:
    """Operations of forward and backward pass for a token, or a sample, that is trained on."""
    per_token = flops_per_token(parts.task.model, parts.source.max_length).per_token
    return per_token * parts.task.tokens_per_target(parts.prepared)

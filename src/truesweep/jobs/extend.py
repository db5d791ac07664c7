"""Change what a run may change without becoming another: its length, and how it is carried out."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from truesweep import dotted
from truesweep.config.checks import check_across
from truesweep.config.overrides import parse
from truesweep.config.precedence import update
from truesweep.errors import ConfigError
from truesweep.jobs.parts import make, with_defaults
from truesweep.jobs.plan import Plan, plan_config
from truesweep.jobs.same_data import check_same_data
from truesweep.jobs.trainer import TrainerSettings
from truesweep.runs.run import Run
from truesweep.secrets import redact_overrides
from truesweep.text import value

LENGTH = ("trainer.max_steps", "trainer.max_epochs")
CARRIED_OUT = (
    "model.activation_checkpointing",
    "trainer.accelerator",
    "trainer.compile",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.profiler",
    "trainer.strategy",
    "trainer.threads",
    "data.eval_batch_size",
    "data.micro_batch_size",
    "data.num_workers",
    "callbacks.checkpoint.every_n_steps",
    "callbacks.early_stopping.patience",
)
"""Keys that say how a run is carried out, and leave its result what it is."""


def change(run: Run, overrides: Sequence[str]) -> list[str]:
    """Change a stopped or finished run's configuration before it goes on.

    The run keeps its directory, its id and its curve; `provenance.json` remembers the change and
    the results of a shorter training. A finished run with nothing left to train stays as it is.

    Returns:
        What the change means, in sentences; none for a finished run that stays as it is.

    Raises:
        ConfigError: A key would make another experiment of it, the new length is too short, or the
            data are not those that it began with.
    """
    before = run.read_config()
    after = with_defaults(update(before, overrides))
    _refuse_others(overrides)
    check_across(after)
    if after == before:
        return []
    plan = plan_config(after, [])
    said = _what_is_left(run, before, plan)
    completed = run.status.get("state") == "completed"
    if completed and not said:
        return []
    check_same_data(run, plan.prepared)
    with run.claim():
        if completed:
            run.update_status(state="preempted")
        run.write_config(plan.config, _about(run, redact_overrides(overrides)))
        run.results.unlink(missing_ok=True)
    return said


def _refuse_others(overrides: Sequence[str]) -> None:
    for override in overrides:
        key = parse(override).key_or_group
        if key not in (*LENGTH, *CARRIED_OUT):
            raise ConfigError(
                f"{key}: cannot change in a run that goes on; it would be another experiment: "
                f"start that with `truesweep train --from DIR {override}`. What can change is its "
                f"length ({', '.join(LENGTH)}) and how it is carried out "
                f"({', '.join(CARRIED_OUT)})"
            )


def _what_is_left(run: Run, before: dict[str, Any], plan: Plan) -> list[str]:
    """Check that there is more to train, if anything about that changes, and say what."""
    trainer: TrainerSettings = make(before, "trainer")
    old, new = trainer.total_steps(plan.steps_per_epoch), plan.total_steps
    done = int(run.status.get("saved_step") or 0)
    completed = run.status.get("state") == "completed"
    if old != new and (new < done or (new == done and completed)):
        raise ConfigError(
            f"{done} steps are done, and {new} are asked for. Give a larger trainer.max_steps"
        )
    stopped_early = completed and done < old and _patience(before) is not None
    return [
        *(_more_patience(before, plan.config, done, longer=old != new) if stopped_early else []),
        *(_new_schedule(plan.config, done, old, new) if old != new else []),
    ]


def _patience(config: dict[str, Any]) -> int | None:
    return cast(int | None, dotted.get(config, "callbacks.early_stopping.patience"))


def _more_patience(
    before: dict[str, Any], after: dict[str, Any], done: int, longer: bool
) -> list[str]:
    """What lets a run go on that was stopped early."""
    old, new = _patience(before), _patience(after)
    if old is not None and (new is None or new > old):
        waits = "is off" if new is None else f"waits for {new} validations without improvement"
        return [
            f"Early stopping {waits}, after {old} before: training goes on from step {done + 1:,}."
        ]
    if longer:
        raise ConfigError(
            f"the run was stopped early at step {done} (callbacks.early_stopping.patience={old}), "
            "and would be again at once. Give a larger callbacks.early_stopping.patience too, "
            "or null for none"
        )
    return []


def _new_schedule(config: dict[str, Any], done: int, old: int, new: int) -> list[str]:
    """What another length does to the schedule."""
    schedule, peak = make(config, "scheduler"), float(config["optimizer"]["lr"])
    was, now = (peak * schedule.factor(done, steps) for steps in (old, new))
    return [
        f"{new:,} steps instead of {old:,}: from step {done + 1:,} on the learning rate follows "
        f"the schedule of {new:,} steps ({value(now, 3)} there, where the schedule of {old:,} has "
        f"{value(was, 3)}). A run of {new:,} steps from the start would have had another rate "
        "until here."
    ]


def made_longer(run: Run) -> bool:
    """Whether a run's length was changed on its way."""
    changes = run.read_provenance().get("changes", [])
    return any(parse(o).key_or_group in LENGTH for row in changes for o in row["overrides"])


def _about(run: Run, overrides: list[str]) -> dict[str, Any]:
    """What is remembered of a change."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": run.status.get("saved_step"),
        "overrides": overrides,
        "results": run.read_results(),
    }

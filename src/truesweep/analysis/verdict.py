"""What to say of one run, in words and with the figures behind them.

A run has diverged (NaN, a loss far above where it had been, nothing learned), or else overfits, or
else would still improve, or else has too few validations to be judged, or else is healthy: the
first that holds is its verdict. Every threshold below is a share of the loss that somebody would
act on, and is raised to what the curve's own noise cannot explain.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from truesweep.analysis.curves import (
    LEAST_POINTS,
    Curve,
    Floats,
    Forecast,
    Rows,
    at_interval_centers,
    curve,
    forecast,
)
from truesweep.figures import Mode
from truesweep.text import count, figure, plural

SKIPPED_SHARE = 0.05
"""Steps without finite gradients, as a share of all, that are no accident any more."""
SKIPPED_LEAST = 5
NOT_FINITE_SHARE = 0.1
"""The same for rows of the training loss."""
LOST = 0.2
"""The share of all progress that a healthy run does not lose again."""
SEEN = 0.05
"""The least rise over the best loss, as a share of it."""
EXPLODED = 1.5
"""How many times its starting value a loss reaches only by exploding."""
LEARNED = 0.02
"""The least fall of the loss, as a share of its start, that is learning."""

Finding = tuple[str, int | None]
"""Sentences, and the step since which they hold."""


def describe_divergence(
    train: Curve, val: Curve, skipped: int, baseline: float | None
) -> Finding | None:
    """What went wrong, if anything did.

    Args:
        train: Training losses, NaN and infinities included.
        val: Validation losses, likewise.
        skipped: Steps that were skipped because their gradient was not finite.
        baseline: The validation loss of a trivial model, if known.
    """
    return (
        _not_finite(train, val)
        or _many_skipped(train, skipped)
        or _risen(train.finite, val.finite)
        or _nothing_learned(train.finite, val.finite, baseline)
    )


def _not_finite(train: Curve, val: Curve) -> Finding | None:
    for name, losses, share in (("training", train, NOT_FINITE_SHARE), ("validation", val, 1.0)):
        bad = ~np.isfinite(losses.values)
        if bad.any() and (bad[-1] or bad.mean() > share):
            since = int(losses.steps[np.argmax(bad)])
            return (
                f"Diverged: the {name} loss is not a number since step {since:,}. {ADVICE}",
                since,
            )
    return None


def _many_skipped(train: Curve, skipped: int) -> Finding | None:
    steps = int(train.steps[-1]) if len(train) else 0
    if skipped <= max(SKIPPED_LEAST, SKIPPED_SHARE * steps):
        return None
    text = f"Diverged: {skipped:,} of {steps:,} steps had no finite gradient and were skipped."
    return f"{text} {ADVICE}", None


def _risen(train: Curve, val: Curve) -> Finding | None:
    """A level, not a spike, that is far above the best one or above anything sane."""
    if len(train) < 3:
        return None
    levels = train.levels()
    start, last = float(train.values[0]), train.tail()
    before = np.minimum.accumulate(np.minimum(levels, start))
    best, peak, since = float(before[-1]), int(np.argmax(levels)), _departure(train, levels)
    witness = val.where(val.steps >= since)
    noise = (3 if len(witness) else 6) * train.noise()
    lost = last - best > max(LOST * max(start - best, 0.0), SEEN * abs(best), noise)
    lost = lost and _seen_by(val, since)
    exploded = levels[peak] - start > max((EXPLODED - 1) * start, noise) and last > 0.5 * start
    if not (lost or exploded):
        return None
    if lost:
        text = (
            f"the training loss rose from {figure(best)} at step {since:,} to {figure(last)} at "
            "the end"
        )
    else:
        text = (
            f"the training loss rose from {figure(start)} to {figure(levels[peak])} at step "
            f"{train.steps[peak]:,} and came back to {figure(last)} only"
        )
    return f"Diverged: {text}. {ADVICE}", since


def _seen_by(val: Curve, since: int) -> bool:
    """Whether validation, if it can tell, has risen since that step too; a spike it misses."""
    earlier = val.values[val.steps <= since]
    if not len(earlier) or len(earlier) == len(val):
        return True
    best = float(earlier.min())
    return val.last - best > SEEN * abs(best)


def _departure(train: Curve, levels: Floats) -> int:
    """The step of the lowest level before the highest one that follows it."""
    climb = levels - np.minimum.accumulate(levels)
    top = int(np.argmax(climb))
    return int(train.steps[np.argmin(levels[: top + 1])])


def _nothing_learned(train: Curve, val: Curve, baseline: float | None) -> Finding | None:
    if len(train) < 5 or is_falling(train):
        return None
    start, last = float(train.values[0]), train.tail()
    if baseline is not None and len(val) and (least := float(val.values.min())) > baseline:
        return (
            "Diverged: nothing was learned: the validation loss of "
            f"{figure(least)} is no better than the {figure(baseline)} of a trivial model. "
            f"{ADVICE}"
        ), None
    if _has_fallen(val):
        return None
    return (
        f"Diverged: nothing was learned: the training loss ended at {figure(last)}, where it "
        f"began ({figure(start)}). {ADVICE}"
    ), None


def is_falling(train: Curve) -> bool:
    """Whether the training loss ended lower than it began, beyond its noise."""
    start, last = float(train.values[0]), train.tail()
    noise = 3 * train.noise() / train.window(3) ** 0.5
    return bool(start - last > max(LEARNED * abs(start), noise))


def _has_fallen(val: Curve) -> bool:
    """Whether validation, which trembles less than training, has fallen beyond its noise."""
    if len(val) < 2:
        return False
    start = float(val.values[0])
    return start - val.last > max(LEARNED * abs(start), 3 * val.noise())


ADVICE = "Try a lower optimizer.lr or a longer scheduler.warmup."


Kind = Literal["healthy", "overfitting", "undertrained", "diverged", "unjudged"]

FORMER_KINDS = {"improving": "undertrained", "unknown": "unjudged"}
"""Kinds as runs of version 0.1.0 keep them."""
FORMER_TEXTS = {
    "Stopped too early:": "Undertrained:",
    "Underfitting:": "Undertrained:",
    "Too few validations to judge:": "Unjudged: too few validations:",
    "Nothing learned:": "Diverged: nothing was learned:",
}
"""How their texts begin."""

WORSE = 0.01
"""The least rise of validation over its best, as a share of it, that is overfitting."""
FEW = 8
"""Validations below which the bend of their curve cannot be told from their noise."""
WORSE_OF_FEW = 0.03
"""The least rise of those that is overfitting, if it exceeds the noise of the training loss too."""
BETTER = 0.08
"""The least gain from twice the steps, as a share of the loss, that is worth saying."""
BETTER_IF_CUT_OFF = 0.035
"""The same where training ended above half its peak rate, before anything had settled."""
SIGNIFICANT = 2.5
"""Standard errors of a rise that noise does not explain."""
MORE_STEPS = {1.5: "50 % more steps", 2.0: "twice the steps"}
FRESH_EPOCHS = 1.5
"""Passes over the data up to which a training loss speaks for unseen data as well."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to be said of a run; figures that play no part in it are None.

    Args:
        kind: `healthy`, `overfitting`, `undertrained` (the loss was still falling, or is no better
            than a trivial model's), `diverged`, or `unjudged` (too few validations to tell).
        text: One or two sentences with the figures; empty for a healthy run.
        best_step: The step of the best validation.
        best_loss: Its loss, nats.
        last_loss: The last validation's loss, nats.
        rise: `last_loss` above `best_loss`, nats.
        gap: The last validation loss above the training loss at that time, nats.
        sufficient_epochs: Passes over the data up to the best validation.
        forecasts: What more steps would give.
        skipped_steps: Steps left out because their gradient was not finite.
        since_step: The step from which on the run overfits or diverges.
    """

    kind: Kind
    text: str = ""
    since_step: int | None = None
    best_step: int | None = None
    best_loss: float | None = None
    last_loss: float | None = None
    rise: float | None = None
    gap: float | None = None
    sufficient_epochs: float | None = None
    forecasts: Sequence[Forecast] = ()
    skipped_steps: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without those that are None or empty; `kind` and `text` always."""
        values = asdict(self) | {"forecasts": [asdict(one) for one in self.forecasts]}
        return {k: v for k, v in values.items() if k == "text" or v not in (None, [])}


def judge(
    rows: Rows,
    *,
    steps_per_epoch: int,
    monitor: str = "val/loss",
    mode: Mode = "min",
    baseline: float | None = None,
) -> Verdict:
    """The verdict on a run, from its rows of `metrics.jsonl`.

    Args:
        rows: With `step`, and `train/loss`, `val/loss`, `lr`, `skipped_steps` where logged.
        steps_per_epoch: Optimizer steps in one pass over the data.
        monitor: The metric by which checkpoints are chosen. Where it still improves while the loss
            gets worse, as F1 does under growing confidence, the run does not overfit.
        mode: Whether less or more of it is better.
        baseline: The loss of a trivial model on the same data, if known.
    """
    train, val = curve(rows, "train/loss"), curve(rows, "val/loss")
    skipped = int(max((row.get("skipped_steps") or 0 for row in rows), default=0))
    known = _figures(train.finite, val.finite, steps_per_epoch) | {"skipped_steps": skipped}
    divergence = describe_divergence(train, val, skipped, baseline)
    if divergence is not None:
        text, since = divergence
        return Verdict(kind="diverged", text=text, since_step=since, **known)
    train, val = train.finite, val.finite
    if _overfits(train, val) and not _still_improves(curve(rows, monitor), val, mode):
        known["since_step"] = known["best_step"]
        return Verdict(kind="overfitting", text=_overfitting_text(known), **known)
    rates = curve(rows, "lr")
    judged = _judged(train, val, steps_per_epoch)
    known["forecasts"] = forecast(judged, rates, tuple(MORE_STEPS))
    if known["forecasts"] and _worthwhile(known["forecasts"][-1], rates):
        text = _undertrained_text(known["forecasts"], int(rates.steps[-1]))
        known["forecasts"] = _above_zero(known["forecasts"])
        return Verdict(kind="undertrained", text=text, **known)
    if baseline is not None and len(val) and known["best_loss"] > baseline:
        text = _no_better_text(known["best_loss"], baseline)
        return Verdict(kind="undertrained", text=text, **known)
    if not known["forecasts"]:
        return Verdict(kind="unjudged", text=_unjudged_text(val), **known)
    return Verdict(kind="healthy", **known)


def _figures(train: Curve, val: Curve, steps_per_epoch: int) -> dict[str, Any]:
    """What can be read off the curves."""
    if not len(val):
        return {}
    best = int(np.argmin(val.values))
    figures = {
        "best_step": int(val.steps[best]),
        "best_loss": float(val.values[best]),
        "last_loss": val.last,
        "rise": val.last - float(val.values[best]),
        "sufficient_epochs": int(val.steps[best]) / steps_per_epoch,
    }
    if len(train):
        figures["gap"] = val.last - train.level(float(val.steps[-1]))
    return figures


def _overfits(train: Curve, val: Curve) -> bool:
    """Whether validation has turned and risen for good, while training went on falling."""
    if len(val) < 2 or not len(train):
        return False
    best = int(np.argmin(val.values))
    after = val.where(val.steps > val.steps[best])
    if len(after) < max(1, len(val) // 10, 2 * (len(val) > 5)):
        return False
    least = float(val.values[best])
    enough = WORSE * abs(least)
    risen = _end_rise(val, after) >= enough or _trend_rise(after) >= enough
    if len(val) < LEAST_POINTS or not risen:
        risen = _few_rise(train, val) >= WORSE_OF_FEW * abs(least)
    trained = at_interval_centers(train)
    then, now = trained.level(float(val.steps[best])), trained.level(float(val.steps[-1]))
    return risen and now <= then + trained.noise()


def _few_rise(train: Curve, val: Curve) -> float:
    """How far the last of a few validations lies above the best; 0 where noise may explain it.

    The training loss trembles more than validation does: it is of other samples in every row.
    """
    if len(val) >= FEW or len(train) < 3:
        return 0.0
    rise = val.last - float(val.values.min())
    return rise if rise > SIGNIFICANT * train.noise() else 0.0


def _end_rise(val: Curve, after: Curve) -> float:
    """How far the last validations lie above the best; 0 where noise explains it.

    The least of n normal values lies about sqrt(2 log n) deviations below their mean by chance.
    """
    width = max(1, min(len(val) // 8, len(after)))
    rise = float(after.values[-width:].mean() - val.values.min())
    by_chance = math.sqrt(2 * math.log(len(val))) + SIGNIFICANT / math.sqrt(width)
    return rise if rise > by_chance * val.noise() else 0.0


def _trend_rise(after: Curve) -> float:
    """How far a line through the validations after the best one rises; 0 where noise explains it.

    The best one itself is left out: it is the best partly by chance, and would tilt the line.
    """
    slope, scatter = _line(after)
    error = scatter / math.sqrt(len(after) * float(after.steps.var()) or 1.0)
    return slope * float(np.ptp(after.steps)) if slope > SIGNIFICANT * error else 0.0


def _line(points: Curve) -> tuple[float, float]:
    """Slope of the least-squares line, and the deviation around it; zeros for under five points."""
    if len(points) < 5:
        return 0.0, 0.0
    x = points.steps - points.steps.mean()
    slope = float(x @ points.values / (x @ x))
    residuals = points.values - points.values.mean() - slope * x
    return slope, math.sqrt(float(residuals @ residuals) / (len(x) - 2))


def _still_improves(monitored: Curve, loss: Curve, mode: Mode) -> bool:
    """Whether the monitored metric has its best later than the loss."""
    monitored = monitored.finite
    if not len(monitored):
        return False
    best = np.argmin(monitored.values) if mode == "min" else np.argmax(monitored.values)
    return bool(monitored.steps[best] > loss.steps[np.argmin(loss.values)])


def _judged(train: Curve, val: Curve, steps_per_epoch: int) -> Curve:
    """Validation losses; within about one epoch the training losses, if those are too few."""
    fresh = len(train) > 0 and train.steps[-1] <= FRESH_EPOCHS * steps_per_epoch
    return at_interval_centers(train) if fresh and len(val) < LEAST_POINTS else val


def _worthwhile(twice: Forecast, rates: Curve) -> bool:
    cut_off = rates.last > 0.5 * rates.values.max()
    least = BETTER_IF_CUT_OFF if cut_off else BETTER
    return twice.high < twice.now and twice.now - twice.loss > least * abs(twice.now)


def _overfitting_text(known: dict[str, Any]) -> str:
    gap, epochs = known["gap"], count(known["sufficient_epochs"])
    return (
        f"Overfitting since step {known['best_step']:,}: validation loss was best there, at "
        f"{figure(known['best_loss'])}, and has risen by {figure(known['rise'], 2)} to "
        f"{figure(known['last_loss'])}, {figure(abs(gap), 2)} {'below' if gap < 0 else 'above'} "
        f"the training loss. {epochs} epoch{'s' * (epochs != '1')} would have sufficed."
    )


def _no_better_text(best: float, baseline: float) -> str:
    return (
        f"Undertrained: the validation loss of {figure(best)} is no better yet than a trivial "
        f"model's on the same split, {figure(baseline)}. Train longer, or raise optimizer.lr."
    )


def _unjudged_text(val: Curve) -> str:
    return (
        f"Unjudged: {plural(len(val), 'validation')}, where a verdict needs {LEAST_POINTS} or "
        "more, most of them after the warm-up. trainer.val_check_interval=null makes ten a run."
    )


def _undertrained_text(forecasts: Sequence[Forecast], end: int) -> str:
    text = f"Undertrained: at step {end:,} the loss, about {figure(forecasts[0].now)}, was still"
    told = [f"{MORE_STEPS[one.steps_ratio]} {_between(one)}" for one in _above_zero(forecasts)]
    if not told:
        return f"{text} falling, too steeply to say where it would end."
    would = ", ".join(told).replace("steps ", "steps would give about ", 1)
    return f"{text} falling. {would}."


def _above_zero(forecasts: Sequence[Forecast]) -> list[Forecast]:
    """Those that may be true: a fall so steep that it would pass zero ends somewhere above."""
    return [one for one in forecasts if one.low > 0]


def _between(one: Forecast) -> str:
    return f"{figure(one.loss)} ({figure(one.low)} to {figure(one.high)})"


def read_verdict(stored: Any) -> dict[str, Any]:
    """A verdict as a run keeps it, by today's names; empty where it has none.

    Args:
        stored: The entry of its `results.json` or `status.json`, of any version.
    """
    if not isinstance(stored, Mapping):
        return {}
    kind, said = str(stored.get("kind", "")), str(stored.get("text") or "")
    for before, now in FORMER_TEXTS.items():
        if said.startswith(before):
            said = now + said.removeprefix(before)
    return {**stored, "kind": FORMER_KINDS.get(kind, kind), "text": said}

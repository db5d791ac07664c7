"""Whether a training went wrong: NaN, a loss far above where it had been, nothing learned."""

import numpy as np

from truesweep.analysis.curves import Curve, Floats
from truesweep.text import figure

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

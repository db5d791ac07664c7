"""Training curves of known kind: gradient descent on least squares, worked out exactly.

A linear model with features of variance h_i and targets of noise v, trained on n samples. Its
parameters' error splits into a mean that decays and a variance that the learning rate keeps up (a
noisy quadratic model, Zhang et al. 2019); with n samples the optimum of the training split lies
v / (n h_i) away, in mean square, from the true one, which is what overfitting is made of. None of
this has the form that the verdict fits.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["healthy", "overfitting", "undertrained", "diverged"]
Floats = npt.NDArray[np.float64]

DIMENSIONS = 60


@dataclass(frozen=True)
class Problem:
    """A data set, a model and a way to train it, all relative to the largest stable rate."""

    spectrum: float  # h_i = i ** -spectrum
    target: float  # h_i w_i^2 ~ i ** -target
    irreducible: float  # loss of the true parameters, nats
    reducible: float  # loss above that at the start
    gradient_noise: float
    samples: float  # n; infinite: one epoch
    target_noise: float  # v
    schedule: str
    lr: float


def factor(schedule: str, share: Floats) -> Floats:
    """The learning rate's course, as a share of the peak."""
    warm = np.minimum(1.0, share / 0.03)
    decline = {
        "constant": np.ones_like(share),
        "linear": 1 - share,
        "cosine": (1 + np.cos(math.pi * share)) / 2,
        "wsd": np.minimum(1.0, (1 - share) / 0.2),
    }[schedule]
    return np.asarray(warm * decline)


def expected(problem: Problem, steps: int) -> tuple[Floats, Floats, Floats]:
    """Expected training loss, validation loss and relative rate at steps 1..S."""
    index = np.arange(1, DIMENSIONS + 1)
    h = index**-problem.spectrum
    signal = index**-problem.target
    signal *= problem.reducible / signal.sum()
    drift = problem.target_noise / problem.samples * np.ones(DIMENSIONS)  # h_i * v / (n h_i)
    rates = factor(problem.schedule, np.arange(steps) / steps)
    applied = problem.lr * rates[:, None]
    away = np.cumprod(1 - applied * h, axis=0)  # [S, dimensions]
    noise = np.zeros(DIMENSIONS)
    hill = np.empty(steps)
    shrinking, added = (1 - applied * h) ** 2, applied**2 * h * problem.gradient_noise
    for step in range(steps):
        noise = noise * shrinking[step] + added[step]
        hill[step] = h @ noise
    # The training optimum is w + d with independent d: training sees only the way to it.
    train = away**2 @ (signal + drift) + hill - drift.sum()
    val = away**2 @ signal + (1 - away) ** 2 @ drift + hill
    return train + problem.irreducible, val + problem.irreducible, rates


def kind_of(problem: Problem, steps: int) -> Kind | None:
    """What the noiseless curves say; None for one between two kinds."""
    _, val, _ = expected(problem, steps)
    rise = val[-1] / val.min() - 1
    if rise > 0.03:
        return "overfitting"
    if rise > 0.003:
        return None
    gain = 1 - expected(problem, 2 * steps)[1].min() / val[-1]
    # A rate that never fell leaves more to be had than twice the steps at that rate tell.
    little, much = (0.01, 0.06) if problem.schedule == "constant" else (0.04, 0.15)
    return "undertrained" if gain > much else "healthy" if gain < little else None


def draw_problem(draw: np.random.Generator) -> tuple[Problem, int]:
    """A problem and its number of steps."""
    problem = Problem(
        spectrum=draw.uniform(0.8, 1.6),
        target=draw.uniform(1.05, 1.8),
        irreducible=draw.uniform(0.8, 2.5),
        reducible=draw.uniform(2.0, 6.0),
        gradient_noise=draw.uniform(0.0, 0.1),
        samples=math.inf if draw.random() < 0.5 else draw.uniform(20, 400),
        target_noise=1.0,
        schedule=str(draw.choice(["constant", "linear", "cosine", "wsd"])),
        lr=float(np.exp(draw.uniform(math.log(0.01), math.log(0.6)))),
    )
    return problem, int(np.exp(draw.uniform(math.log(60), math.log(800))))


def curve(kind: Kind, draw: np.random.Generator) -> tuple[list[dict[str, Any]], int]:
    """The rows of a run of a kind, and its steps per epoch."""
    while True:
        problem, steps = draw_problem(draw)
        wanted = "healthy" if kind == "diverged" else kind
        if kind_of(problem, steps) == wanted:
            break
    train, val, rates = expected(problem, steps)
    if kind == "diverged":
        diverge(train, val, draw)
    rows = noisy_rows(train, val, rates * 1e-3, draw)
    few = problem.samples < math.inf
    return rows, max(1, steps // int(draw.integers(5, 60)) if few else 2 * steps)


def diverge(train: Floats, val: Floats, draw: np.random.Generator) -> None:
    """From some step on: NaN, a climb to a plateau, or an explosion; in place."""
    start = int(len(train) * draw.uniform(0.02, 0.7))
    way = draw.choice(["nan", "plateau", "explosion"])
    share = np.linspace(0, 1, len(train) - start)
    if way == "nan":
        train[start:] = val[start:] = math.nan
        return
    if way == "plateau":
        height = draw.uniform(0.5, 1.2) * (train[0] - train[start]) + 0.3
        rise = height * np.minimum(1, share * draw.uniform(3, 30))
    else:
        rise = np.expm1(share * draw.uniform(2, 9))
    train[start:] += rise
    val[start:] += rise


def noisy_rows(
    train: Floats, val: Floats, lr: Floats, draw: np.random.Generator
) -> list[dict[str, Any]]:
    """What `metrics.jsonl` would hold: training every few steps, 5 to 50 validations, spikes."""
    steps = len(train)
    noise = draw.uniform(0.005, 0.06)
    seen = train * (1 + noise * draw.standard_normal(steps))
    for _ in range(draw.poisson(2)):
        at = int(draw.integers(steps))
        seen[at : at + int(draw.integers(1, 6))] += draw.exponential(1.0)
    # Validation noise comes from the weights and is correlated between steps.
    wander = np.cumsum(draw.standard_normal(steps)) / math.sqrt(steps)
    scored = val * (1 + draw.uniform(0.0005, 0.006) * draw.standard_normal(steps) + 0.001 * wander)
    every = max(1, min(10, steps // 30))
    check = max(1, steps // int(draw.integers(5, 51)))
    rows: list[dict[str, Any]] = []
    last = 0
    for step in range(1, steps + 1):
        row: dict[str, Any] = {"step": step, "tokens": step * 1024, "time": step * 0.1}
        if step % every == 0 or step in (1, steps):
            row |= {"train/loss": float(seen[last:step].mean()), "lr": float(lr[step - 1])}
            last = step
        if step % check == 0 or step == steps:
            row["val/loss"] = float(scored[step - 1])
        if len(row) > 3:
            rows.append(row)
    return rows

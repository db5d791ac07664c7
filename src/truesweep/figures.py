"""Figures: what must be known of one to show it, to rank by it and to say how sure it is.

A metric declares its figures beside its computation, as `figures = (Figure("rouge_l", …),)`; of
one that does not, torchmetrics' `higher_is_better` is taken. A run keeps what its task declared in
`provenance.json`, so that those who only read it need none of the code that trained it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, replace
from typing import Any, Literal, TypeVar

from truesweep import text
from truesweep.errors import ConfigError

T = TypeVar("T")

Mode = Literal["min", "max"]
"""Which value of a figure is the best, as callbacks and W&B's summaries call it."""
Direction = Literal["minimize", "maximize"]
"""The same, as searches and W&B's sweeps call it."""
Growth = Literal["linear", "exponential"]
Kind = Literal["figure", "count", "duration"]


@dataclass(frozen=True)
class Figure:
    """What is to be known of a figure besides its value.

    Args:
        name: Without the split: `loss` of `val/loss`.
        higher_is_better: As torchmetrics has it; None: nobody has said.
        digits: Significant digits that are shown.
        kind: How it is written: in its digits, as a count (`93.4G`), or as a time (`84 s`).
        samples: What an evaluation keeps of each sample and the figure is made from; together the
            columns of a table. The second column must be alike in all runs that are compared sample
            by sample, as the length of a reference is. None: there is no standard error.
        score: How it is made from them: `ratio`, the sum of the first column over that of the
            second, or one of `truesweep.analysis.uncertainty.SCORES`.
        follows: The figure that it is a growing function of; it is as sure as that.
        growth: Which function.
        per_token: Whether it depends on what a token is.
        curve: The figure of a training's rows that it goes on from: `loss` of `train/loss`. Both
            are drawn in one chart, with all the points there is room for.
    """

    name: str
    higher_is_better: bool | None = None
    _: KW_ONLY
    digits: int = 4
    kind: Kind = "figure"
    samples: tuple[str, ...] = ()
    score: str = "ratio"
    follows: str | None = None
    growth: Growth = "linear"
    per_token: bool = False
    curve: str | None = None

    @property
    def mode(self) -> Mode | None:
        """Which value is the best, if that is declared."""
        return None if self.higher_is_better is None else ("min", "max")[self.higher_is_better]


LOSS = Figure(
    "loss", higher_is_better=False, samples=("nll", "count"), per_token=True, curve="loss"
)
PERPLEXITY = Figure(
    "perplexity", higher_is_better=False, follows="loss", growth="exponential", per_token=True
)
BITS_PER_BYTE = Figure("bits_per_byte", higher_is_better=False, follows="loss")
BLEU = Figure("bleu", higher_is_better=True, samples=("bleu",), score="bleu")
CHRF = Figure("chrf", higher_is_better=True)
F1_MACRO, F1_WEIGHTED, ACCURACY = (
    Figure(name, higher_is_better=True, samples=("predicted", "gold"), score=name)
    for name in ("f1_macro", "f1_weighted", "accuracy")
)
SAMPLES = Figure("samples", kind="count")
OWN_COUNT = "_samples"
"""What follows the name of a figure in that of its own count: `val/bleu_samples`.

A figure has one if it is of fewer samples than its split has.
"""
STANDARD_ERROR = "_standard_error"
"""What follows the name of a figure in that of its standard error."""
HARNESS = "harness"
"""What the names of figures by lm-evaluation-harness begin with, in the place of a split's."""
_COUNTS = ("parameters", "steps", "tokens", "flops", "skipped_steps")

Declared = Mapping[str, Figure]
"""Figures by their names, in the order in which they are shown."""


def by_name(declared: Iterable[Figure]) -> dict[str, Figure]:
    """Figures by their names; the first of those with one name."""
    found: dict[str, Figure] = {}
    for figure in declared:
        found.setdefault(figure.name, figure)
    return found


BUILT_IN: Declared = by_name(
    [
        *(LOSS, PERPLEXITY, BITS_PER_BYTE, BLEU, CHRF, F1_MACRO, F1_WEIGHTED, ACCURACY),
        SAMPLES,
        Figure("tokens_per_second", higher_is_better=True, kind="count"),
        Figure("flops_per_second", higher_is_better=True, kind="count"),
        Figure("mfu", higher_is_better=True, digits=3),
        *(Figure(name, higher_is_better=False, kind="count") for name in _COUNTS),
        Figure("seconds", higher_is_better=False, kind="duration"),
    ]
)
"""What every run has, and what the metrics of version 0.1.0 report.

Its runs keep no declarations and are to be read without torch, which metrics need: so these stand
here. A newer metric's stand with the metric.
"""


def of_metric(name: str, metric: Any) -> tuple[Figure, ...]:
    """What a metric, or its class, declares.

    Args:
        name: By which a metric without `figures` is reported.
        metric: A torchmetrics metric.

    Raises:
        ConfigError: What it has is no declaration.
    """
    own = getattr(metric, "figures", None)
    if own is None:
        return (Figure(name, getattr(metric, "higher_is_better", None)),)
    listed = isinstance(own, tuple | list) and len(own) > 0
    if not listed or not all(isinstance(one, Figure) for one in own):
        raise ConfigError(
            f"task.metrics.{name}: figures is {own!r}, where a tuple of truesweep.figures.Figure "
            f"is wanted, such as (Figure({name!r}, higher_is_better=True),)"
        )
    return tuple(own)


def compute(name: str, metric: Any) -> dict[str, float]:
    """What a metric reports, by the names of its figures.

    Args:
        name: As in `of_metric`.
        metric: A torchmetrics metric, which computes a mapping if it has several.

    Raises:
        ConfigError: It computes other figures than it declares, or what is no number.
    """
    value = metric.compute()
    names = [one.name for one in of_metric(name, metric)]
    given = value if isinstance(value, Mapping) else dict.fromkeys(names, value)
    if lost := ", ".join(one for one in names if one not in given):
        raise ConfigError(
            f"task.metrics.{name}: computes {', '.join(map(str, given))}, and not {lost}; have it "
            "declare its figures: figures = (Figure(NAME, higher_is_better=True), …)"
        )
    try:
        return {one: float(given[one]) for one in names}
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"task.metrics.{name}: computes {value!r}, where one number is wanted for each of "
            f"{', '.join(names)} ({error})"
        ) from None


def of_source(source: str, declared: Declared) -> list[Figure]:
    """The declarations of a source of a mixture: `books/loss` beside `loss`.

    It has those that can be made from what an evaluation keeps of each sample, as are those that
    follow them.
    """
    found = []
    for figure in declared.values():
        base = declared.get(figure.follows or "")
        if figure.samples or (base is not None and base.samples):
            columns = tuple(f"{source}/{column}" for column in figure.samples)
            follows = figure.follows and f"{source}/{figure.follows}"
            name = f"{source}/{figure.name}"
            found.append(replace(figure, name=name, samples=columns, follows=follows, curve=None))
    return found


def find(name: str, declared: Declared = BUILT_IN) -> Figure | None:
    """The declaration of a figure by its full name, such as `val/loss`; None without one.

    `val/books/loss` is that of a source where it is declared, and a loss in any case.
    """
    last = name.rpartition("/")[2]
    return declared.get(name.partition("/")[2]) or declared.get(last) or BUILT_IN.get(last)


def beside(name: str, figures: Mapping[str, Any]) -> str:
    """What is written behind a figure that is of fewer samples than its split has.

    Args:
        name: Such as `val/bleu`.
        figures: Those that it stands among.
    """
    count = figures.get(f"{name}{OWN_COUNT}")
    return "" if count is None else f" ({text.plural(int(count), 'sample')})"


def unit(declared: Declared) -> str:
    """What a training counts: `tokens`, or `samples` where each has but one target."""
    loss = declared.get(LOSS.name)
    return "tokens" if loss is None or loss.per_token else "samples"


def mode(name: str, declared: Declared = BUILT_IN) -> Mode | None:
    """Which value of a figure is the best; None where nobody has declared it."""
    figure = find(name, declared)
    return None if figure is None else figure.mode


def best_first(found: Iterable[T], value: Callable[[T], float], best: Mode) -> list[T]:
    """In the order of a figure, the best first; of equals, the one that was first before.

    Whoever names a winner asks here, with what was asked for first in front: there is one winner.

    Args:
        found: What has the figure.
        value: Its value.
        best: Which value is the best.
    """
    return sorted(found, key=lambda one: value(one) if best == "min" else -value(one))


def digits_of(name: str, declared: Declared) -> int:
    """Significant digits that a figure is shown in."""
    return (find(name, declared) or Figure(name)).digits


def written(name: str, value: Any, declared: Declared) -> str:
    """One figure of a run as it is shown: `1.490`, `93.4G`, `84 s`.

    Args:
        name: Such as `val/loss`.
        value: A number; anything else is written as a value.
        declared: The task's declarations.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text.value(value)
    figure = find(name, declared) or Figure(name)
    if figure.kind == "duration":
        return text.duration(value)
    if figure.kind == "count" or isinstance(value, int):
        return text.count(value)
    return text.figure(value, figure.digits)


def require_mode(name: str, declared: Declared, what: str, remedy: str) -> Mode:
    """Which value of a figure is the best.

    Args:
        name: Such as `val/loss`.
        declared: The task's declarations.
        what: Who asks, such as `sweeps.objective`, for the message.
        remedy: What to do, for the message.

    Raises:
        ConfigError: Nobody has declared it.
    """
    found = mode(name, declared)
    if found is None:
        raise ConfigError(f"{what}={name}: nothing declares whether more of it is better. {remedy}")
    return found


def recorded_mode(name: str) -> Mode:
    """The direction of a recorded sweep's objective, where the record has none.

    Version 0.1.0 left it out where it was not asked for, and minimised what it did not know.
    """
    return mode(name) or "min"


def as_direction(mode: Mode) -> Direction:
    """`minimize` for `min`."""
    return "minimize" if mode == "min" else "maximize"


def as_mode(direction: Direction) -> Mode:
    """`min` for `minimize`."""
    return "min" if direction == "minimize" else "max"


def keep(declared: Declared) -> dict[str, dict[str, Any]]:
    """Declarations as a run keeps them: plain values, without those that are the default."""
    return {name: _plain(figure) for name, figure in declared.items()}


def _plain(figure: Figure) -> dict[str, Any]:
    default = asdict(Figure(figure.name))
    values = {k: v for k, v in asdict(figure).items() if k != "name" and v != default[k]}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def read(kept: Any, results: Iterable[str] = ()) -> dict[str, Figure]:
    """The declarations that a run has kept, as `keep` made them; what nobody knows is passed over.

    Args:
        kept: The entry of its `provenance.json`; a run of version 0.1.0 has none.
        results: The names of its figures.
    """
    if not isinstance(kept, Mapping):
        # There only tasks of tokens had a perplexity; the loss of the others is one of samples.
        names = list(results)
        per_token = not names or any(name.endswith("/perplexity") for name in names)
        return {**BUILT_IN, "loss": replace(LOSS, per_token=per_token)}
    found = {}
    for name, values in kept.items():
        told = values.items() if isinstance(values, Mapping) else ()
        given = {k: v for k, v in told if k in _KEPT and isinstance(v, _KEPT[k])}
        samples = tuple(str(column) for column in given.get("samples", ()))
        found[name] = Figure(name, **given | {"samples": samples})
    return found


_KEPT: dict[str, Any] = {
    "higher_is_better": bool | None,
    "digits": int,
    "kind": str,
    "samples": list,
    "score": str,
    "follows": str | None,
    "growth": str,
    "per_token": bool,
    "curve": str | None,
}
"""What a declaration that was kept may hold."""

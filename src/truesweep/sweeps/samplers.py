"""How a search chooses: Optuna's samplers by name."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from truesweep.errors import ConfigError
from truesweep.sweeps.settings import Sweep

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

NEEDS = {"cmaes": ("cmaes",), "gp": ("scipy", "torch"), "qmc": ("scipy",)}
"""Packages that Optuna itself does not install, by sampler."""


def make_sampler(settings: Sweep, numeric: bool, entropy: list[int]) -> "BaseSampler":
    """The sampler that was asked for.

    Args:
        settings: The search's settings.
        numeric: Whether any swept key is a number rather than a choice.
        entropy: What chance depends on besides the seed, so that a resumed driver and one of
            several do not repeat what was suggested before. Low-discrepancy sequences go on by
            themselves, from the number of their points that the study keeps.

    Raises:
        ConfigError: It cannot work here.
    """
    import optuna

    _check(settings, numeric)
    seed = int(np.random.SeedSequence([settings.seed, *entropy]).generate_state(1)[0])
    samplers = optuna.samplers
    made: dict[str, Callable[[], BaseSampler]] = {
        # What runs beside it counts as bad meanwhile, so that slots do not get the same point.
        "tpe": lambda: samplers.TPESampler(
            seed=seed, constant_liar=True, n_startup_trials=_startup(settings.jobs)
        ),
        "cmaes": lambda: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "gp": lambda: samplers.GPSampler(
            seed=seed, n_startup_trials=_startup(settings.jobs), **_quiet_gp()
        ),
        "nsga2": lambda: samplers.NSGAIISampler(
            seed=seed, population_size=max(4, min(50, (settings.jobs or 200) // 4))
        ),
        "qmc": lambda: samplers.QMCSampler(
            seed=settings.seed, scramble=True, warn_independent_sampling=False
        ),
        "random": lambda: samplers.RandomSampler(seed=seed),
        "grid": lambda: samplers.RandomSampler(seed=seed),  # its points are put into the queue
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return made[settings.sampler]()


def _check(settings: Sweep, numeric: bool) -> None:
    name = settings.sampler
    missing = [package for package in NEEDS.get(name, ()) if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"sweeps.sampler={name} needs {' and '.join(missing)}, which is not installed: "
            f"pip install {' '.join(missing)}, or choose sweeps.sampler=tpe"
        )
    if name == "cmaes" and len(settings.objectives) > 1:
        raise ConfigError(
            "sweeps.sampler=cmaes knows one objective only; choose tpe or nsga2 for several"
        )
    if name == "cmaes" and not numeric:
        raise ConfigError(
            "sweeps.sampler=cmaes needs intervals or ranges, and all swept keys are choices; "
            "write interval(a,b) or range(a,b), or choose sweeps.sampler=tpe"
        )


def _startup(jobs: int | None) -> int:
    """Points drawn by chance at first: Optuna's ten, or a third of a small budget."""
    return 10 if jobs is None else max(3, min(10, jobs // 3))


def _quiet_gp() -> dict[str, Any]:
    """Choices are drawn by chance there, which Optuna 5 would warn of; 4 has no such argument."""
    import inspect

    from optuna.samplers import GPSampler

    known = inspect.signature(GPSampler).parameters
    return {"warn_independent_sampling": False} if "warn_independent_sampling" in known else {}

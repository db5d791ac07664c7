import math
from pathlib import Path

import pytest
import yaml

from truesweep import optim
from truesweep.errors import ConfigError
from truesweep.optim import Constant, Cosine, Linear, Schedule, WarmupStableDecay

pytestmark = pytest.mark.numbers

CONF = Path(__file__).parents[2] / "conf" / "scheduler"
ALL = [Constant, Cosine, Linear, WarmupStableDecay]


def factors(schedule: Schedule, steps: int) -> list[float]:
    return [schedule.factor(step, steps) for step in range(steps)]


def test_warm_up_reaches_the_peak_at_its_last_step() -> None:
    for kind in ALL:
        assert factors(kind(warmup=4), 40)[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 2), (2, 2), (0.0, 0), (0, 0), (0.12, 2)])
def test_a_share_and_a_number_of_steps_are_the_same_warm_up(warmup: float, steps: int) -> None:
    expected = [min(1.0, (step + 1) / steps) if steps else 1.0 for step in range(20)]
    assert factors(Constant(warmup=warmup), 20) == pytest.approx(expected)


def test_linear_follows_its_closed_form() -> None:
    found = factors(Linear(warmup=5, final=0.1), 25)
    assert found[5:] == pytest.approx([1 - 0.9 * (step - 5) / 20 for step in range(5, 25)])


def test_cosine_follows_its_closed_form() -> None:
    found = factors(Cosine(warmup=5, final=0.2), 25)
    expected = [0.2 + 0.8 * (1 + math.cos(math.pi * (step - 5) / 20)) / 2 for step in range(5, 25)]
    assert found[5:] == pytest.approx(expected)


def test_warm_up_stable_decay_has_its_three_parts() -> None:
    found = factors(WarmupStableDecay(warmup=2, decay=0.4, final=0.5), 10)
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.875, 0.75, 0.625])


def test_a_decay_counted_in_steps_equals_its_share() -> None:
    counted = factors(WarmupStableDecay(decay=5), 50)
    assert counted == pytest.approx(factors(WarmupStableDecay(decay=0.1), 50))


@pytest.mark.parametrize("kind", [Cosine, Linear, WarmupStableDecay])
def test_the_end_and_what_lies_beyond_it_have_the_final_rate(kind: type[Linear]) -> None:
    for step in (100, 101, 1000):
        assert kind(final=0.25).factor(step, 100) == pytest.approx(0.25)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("steps", [1, 2, 3, 51, 1000])
def test_every_factor_is_a_share_of_the_peak_and_positive(kind: type[Schedule], steps: int) -> None:
    schedule = kind()
    schedule.check(steps)
    assert all(0 < factor <= 1 for factor in factors(schedule, steps))
    assert max(factors(schedule, steps)) == 1


@pytest.mark.parametrize(("warmup", "steps"), [(100, 100), (101, 100), (0.9, 1), (1, 1)])
def test_a_warm_up_that_leaves_nothing_is_refused(warmup: float, steps: int) -> None:
    with pytest.raises(ConfigError, match=rf"scheduler.warmup={warmup} takes .* of the {steps}"):
        Cosine(warmup=warmup).check(steps)


def test_a_decay_that_meets_the_warm_up_is_refused() -> None:
    WarmupStableDecay(warmup=0.5, decay=0.5).check(100)
    with pytest.raises(ConfigError, match=r"begins at step 40 of 100.*ended at 50"):
        WarmupStableDecay(warmup=0.5, decay=60).check(100)


def test_each_preset_names_its_class() -> None:
    targets = {
        path.stem: yaml.safe_load(path.read_text())["_target_"] for path in CONF.glob("*.yaml")
    }
    assert targets == {
        "constant": "truesweep.optim.Constant",
        "cosine": "truesweep.optim.Cosine",
        "linear": "truesweep.optim.Linear",
        "wsd": "truesweep.optim.WarmupStableDecay",
    }
    for target in targets.values():
        assert issubclass(getattr(optim, target.rsplit(".", 1)[1]), Schedule)

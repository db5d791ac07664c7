from typing import Any

import pytest

from truesweep.config.schema import check_settings
from truesweep.errors import ConfigError
from truesweep.sweeps.settings import Sweep


def settings(**node: Any) -> Sweep:
    built: Sweep = check_settings(Sweep, node, "sweeps")
    return built


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"method": "gird"}, r"sweeps\.method: .*did you mean grid"),
        ({"sampel": "tpe"}, r"sweeps\.sampel: .*sampler"),
        ({"jobs": 0}, r"sweeps\.jobs: expected an integer > 0"),
        ({"retries": "1e-3x"}, r"sweeps\.retries"),
        ({"method": "random"}, "sweeps.jobs=20"),
        ({"method": "search"}, "sweeps.hours=2"),
        ({"pruner": "median"}, "method=search"),
        ({"direction": ["minimize"], "objective": ["a", "b"]}, "1 entries for 2 objectives"),
        (
            {"method": "search", "jobs": 2, "pruner": "median", "objective": ["a", "b"]},
            "cannot be pruned or paused",
        ),
        ({"seeds": []}, r"sweeps\.seeds"),
        ({"zip": [["a"]]}, r"sweeps\.zip"),
    ],
)
def test_a_wrong_node_is_refused(node: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**node)


def test_directions_follow_from_the_metrics() -> None:
    sweep = settings(objective=["val/bleu", "val/loss", "parameters"])
    assert sweep.directions == ["maximize", "minimize", "minimize"]
    assert sweep.modes == {"val/bleu": "max", "val/loss": "min", "parameters": "min"}
    assert settings(objective="val/loss", direction="maximize").modes == {"val/loss": "max"}


def test_seeds_are_counted_or_listed() -> None:
    assert settings(seeds=3).seed_list(5) == [5, 6, 7]
    assert settings(seeds=[9, 2]).seed_list(5) == [9, 2]


def test_a_pruner_is_left_to_a_searchs_plan_and_none_to_all_others() -> None:
    assert settings().pruner is None
    assert settings(method="random", jobs=3).pruner is None
    search = {"method": "search", "jobs": 3}
    assert settings(**search).pruner == "auto"
    assert settings(**search, pruner="none") == settings(**search, pruner=None)

"""What a job asks Ray for."""

import pytest

from truesweep.config.schema import check_settings
from truesweep.errors import ConfigError
from truesweep.sweeps.ray.settings import RaySettings


def test_a_job_asks_for_a_core_a_rank_and_for_the_gpus_that_it_trains_on() -> None:
    assert RaySettings().bundle(ranks=2, gpus=0) == {"CPU": 2}
    assert RaySettings().bundle(ranks=4, gpus=4) == {"CPU": 4, "GPU": 4}


def test_what_the_user_asks_for_stands_in_its_place() -> None:
    settings = RaySettings(cpus_per_node=8, gpus_per_node=1, mem_gb=1.5, resources={"spot": 0.5})
    assert settings.bundle(ranks=2, gpus=2) == {
        "CPU": 8,
        "GPU": 1,
        "memory": 1.5 * 1024**3,
        "spot": 0.5,
    }
    assert RaySettings(gpus_per_node=0).bundle(ranks=1, gpus=1) == {"CPU": 1}


@pytest.mark.parametrize("wrong", [{"cpus_per_node": 0}, {"mem_gb": 0}, {"resources": {"a": -1}}])
def test_amounts_that_nobody_can_have_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{next(iter(wrong))}"):
        check_settings(RaySettings, wrong, "hydra.launcher")

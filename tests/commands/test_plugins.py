"""What another launcher's process does with a job, however that ends."""

import json
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from hydra_plugins.truesweep import LocalLauncher, Sweeper
from truesweep.commands import plugins
from truesweep.commands.plugins import JobFailed, JobRunner, hand_out
from truesweep.config.overrides import parse
from truesweep.runs.run import Run
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.settings import Sweep


@pytest.fixture
def job(tmp_path: Path) -> Run:
    sweep = SweepDirectory(tmp_path / "it's a sweep, of mine")
    config = {"name": sweep.name, "seed": 0}
    return sweep.add(config, [], {"a.lr": 0.1}, label="lr=0.1 x=a b", number=0, provenance={})


def run(job: Run, monkeypatch: pytest.MonkeyPatch, code: int, state: Any) -> Any:
    def launch(run: Run, resume: bool) -> int:
        assert not resume
        run.begin()
        run.results.write_text(json.dumps({"val/loss": 2.5, "val/bleu": 7}))
        run.end(state, code, error="too large" if code == 1 else None)
        return code

    monkeypatch.setattr(plugins, "launch", launch)
    settings = Sweep(objective=["val/loss", "val/bleu"])
    runner = JobRunner("s", job.path.parent, settings, [], {})
    config = {o.key_or_group: o.value() for o in map(parse, hand_out(job))}
    return runner.run(config, [])


def test_a_job_gives_its_objectives(job: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(job, monkeypatch, 0, "completed") == (2.5, 7)
    # It is not run again.
    assert run(job, monkeypatch, 1, "failed") == (2.5, 7)


def test_a_job_that_fails_says_so(job: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobFailed, match=r"lr=0\.1 x=a b: too large"):
        run(job, monkeypatch, 1, "failed")


@pytest.mark.parametrize("code", [130, 143])
def test_a_job_that_is_stopped_ends_its_process(
    job: Run, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(job, monkeypatch, code, "preempted")
    assert caught.value.code == code


def test_another_program_is_told_that_our_plugins_are_ours() -> None:
    from hydra.types import HydraContext

    context = HydraContext(None, None)  # type: ignore[arg-type]
    for plugin in (Sweeper(), LocalLauncher(slots=2)):
        with pytest.raises(HydraException, match="truesweep train -m"):
            plugin.setup(
                hydra_context=context, task_function=lambda _: 1, config=OmegaConf.create()
            )

"""What a job asks Slurm for, and what is made of Slurm's answers; commands in its place."""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from submitit.slurm.slurm import _make_sbatch_string

from tests.sweeps.tiny import make_sweep
from truesweep.errors import ConfigError
from truesweep.runs.run import Run
from truesweep.sweeps.planned import trainer_of
from truesweep.sweeps.protocols import BUSY, LOST, NotNow
from truesweep.sweeps.slurm import SlurmExecutor, SlurmSettings
from truesweep.sweeps.slurm.executor import linked

Commands = Callable[[str, str], None]


@pytest.fixture
def command(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Puts a shell script in the place of one of Slurm's commands."""
    folder = workplace / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    for name in ("squeue", "scontrol", "scancel", "srun"):
        write(name, "true")
    return write


@pytest.fixture
def job(workplace: Path) -> Run:
    """One that nothing has run."""
    _, (job,) = make_sweep(workplace, [{}])
    return job


def wait_for_end(job: Run, seconds: float = 5.0) -> list[tuple[Run, int]]:
    executor = SlurmExecutor(SlurmSettings(poll_seconds=0.1))
    executor.start(job, resume=False)
    assert executor.running == [job]
    return executor.wait(seconds)


def test_a_batch_script_asks_for_what_the_settings_say() -> None:
    settings = SlurmSettings(
        partition="gpu",
        timeout_min=90,
        mem_gb=1.5,
        max_requeues=3,
        setup=["module load cuda"],
        additional_parameters={"exclude": "node7"},
    )
    options = settings.options(name="s/1", nodes=2, gpus=4)
    script = _make_sbatch_string("python work", "/there/slurm", **options)
    asked = set(script.splitlines())
    assert asked >= {
        "#SBATCH --partition=gpu",
        "#SBATCH --time=90",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --mem=1536M",
        "#SBATCH --exclude=node7",
        "#SBATCH --requeue",
        "#SBATCH --signal=TERM@120",
    }
    assert "account" not in script
    assert "cpus" not in script
    setup, after = script.index("module load cuda"), script.index("scontrol requeue")
    assert setup < script.index("python work") < after
    none = SlurmSettings(gpus_per_node=0).options(name="", nodes=1, gpus=4)
    assert "gpus_per_node" not in none


def script_of(settings: SlurmSettings) -> set[str]:
    options = settings.options(name="s/1", nodes=1, gpus=2)
    return set(_make_sbatch_string("python work", "/there/slurm", **options).splitlines())


def test_options_are_what_sbatch_takes() -> None:
    further = {
        "requeue": False,
        "licenses": None,
        "exclusive": True,
        "overcommit": False,
        "mail-type": ["END", "FAIL"],
    }
    asked = script_of(
        SlurmSettings(
            gres="gpu:a100:2",
            exclude=["node7", "node8"],
            nodelist="node[1-2]",
            comment="billing 7",
            additional_parameters=further,
        )
    )
    assert asked >= {
        "#SBATCH --gres=gpu:a100:2",
        "#SBATCH --exclude=node7,node8",
        "#SBATCH --nodelist='node[1-2]'",
        "#SBATCH --comment='billing 7'",
        "#SBATCH --no-requeue",
        "#SBATCH --exclusive",
        "#SBATCH --mail-type=END,FAIL",
    }
    left_out = ("requeue", "licenses", "overcommit", "gpus-per-node")
    assert not [
        line for line in asked if line.startswith(tuple(f"#SBATCH --{o}" for o in left_out))
    ]
    assert not [line for line in asked if "scontrol requeue" in line]


@pytest.mark.parametrize("option", ["gpus", "gpus-per-task", "gres"])
def test_gpus_are_asked_for_in_one_way(option: str) -> None:
    asked = script_of(SlurmSettings(additional_parameters={option: 1}))
    assert [line for line in asked if "gpu" in line or "gres" in line] == [f"#SBATCH --{option}=1"]


@pytest.mark.parametrize("requeue", [None, True])
def test_a_cluster_may_choose_whether_jobs_are_requeued(requeue: bool | None) -> None:
    asked = script_of(SlurmSettings(additional_parameters={"requeue": requeue}))
    assert ("#SBATCH --requeue" in asked) == bool(requeue)
    assert "#SBATCH --no-requeue" not in asked


def test_a_time_limit_that_leaves_no_time_to_train_is_refused() -> None:
    for minutes, seconds in (2, 120), (3, 120), (1, 20):
        with pytest.raises(ConfigError, match=rf"timeout_min={minutes}: .*signal_delay_s"):
            SlurmSettings(timeout_min=minutes, signal_delay_s=seconds)
    SlurmSettings(timeout_min=2, signal_delay_s=30)


def test_a_job_that_slurm_refuses_is_an_error_with_its_words(command: Commands, job: Run) -> None:
    command("sbatch", "echo 'sbatch: error: invalid partition specified: gpus' >&2; exit 1")
    executor = SlurmExecutor(SlurmSettings())
    executor.start(job, resume=False)
    with pytest.raises(ConfigError, match="invalid partition specified: gpus"):
        executor.wait(0)
    assert executor.running == []
    assert not (job.path / "slurm.json").exists()


@pytest.mark.parametrize("by_script", [True, False])  # False: by version 0.1.0
def test_a_job_in_the_queue_is_not_submitted_again(
    command: Commands, job: Run, by_script: bool
) -> None:
    command("sbatch", "exit 1")
    ours = f"{job.path}/slurm/submission_file_1a.sh" if by_script else "/work.sh"
    comment = "billing|7" if by_script else job.path
    command(
        "squeue", f"echo '7|PENDING|/work.sh|Priority|7'; echo '8|RUNNING|{ours}|None|{comment}'"
    )
    executor = SlurmExecutor(SlurmSettings())
    assert executor.takes_up(job)
    executor.start(job, resume=True)
    assert executor.wait(0) == []
    assert '"8"' in (job.path / "slurm.json").read_text()


def test_a_comment_of_several_lines_is_no_other_job(command: Commands, job: Run) -> None:
    ours = f"{job.path}/slurm/submission_file_1a.sh"
    command("squeue", f"printf '7|PENDING|/work.sh|Priority|to\ndo\n8|RUNNING|{ours}|None|b\n'")
    assert SlurmExecutor(SlurmSettings()).takes_up(job)


def test_a_job_that_slurm_ended_has_failed_by_its_reason(command: Commands, job: Run) -> None:
    command("sbatch", "echo Submitted batch job 12")
    command("scontrol", "echo JobId=12 JobState=OUT_OF_MEMORY ExitCode=0:125")
    assert wait_for_end(job) == [(job, 1)]
    assert job.state == "failed"
    assert "12 was ended (out of memory)" in job.status["error"]


@pytest.mark.parametrize("exit_code", ["137:0", "0:9"])
def test_a_job_that_was_killed_has_failed_by_the_signal(
    command: Commands, job: Run, exit_code: str
) -> None:
    command("sbatch", "echo Submitted batch job 12")
    command("scontrol", f"echo JobId=12 JobState=FAILED ExitCode={exit_code}")
    assert wait_for_end(job) == [(job, 1)]
    assert "12 was ended (failed, by SIGKILL)" in job.status["error"]


@pytest.mark.parametrize(
    "said",
    [
        "slurmstepd-n1: error: StepId=12.0 exceeded memory limit (1661681664 > 1288699904)",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0. Some of the step tasks",
    ],
)
def test_a_job_that_took_too_much_memory_says_so_whatever_its_state(
    command: Commands, job: Run, said: str
) -> None:
    command("sbatch", "echo Submitted batch job 12")
    command("scontrol", "echo JobId=12 JobState=FAILED ExitCode=137:0")
    log = job.path / "slurm" / "12_0_log.err"
    log.parent.mkdir()
    log.write_text(f"{said}\nsrun: error: n1: task 0: Killed\n")
    assert wait_for_end(job) == [(job, 1)]
    assert f"12 was ended (failed, by SIGKILL, out of memory: {said})" in job.status["error"]


def test_a_job_that_is_done_is_not_waited_for_while_its_node_does_not_answer(
    command: Commands, job: Run
) -> None:
    command("sbatch", "echo Submitted batch job 12")
    command("squeue", f"echo '12|COMPLETING|{job.path}/slurm/submission.sh|None|'")
    executor = SlurmExecutor(SlurmSettings(poll_seconds=0.1))
    executor.start(job, resume=False)
    assert executor.wait(0.5) == []  # it may be about to be requeued
    job.end("pruned", 0)
    assert executor.wait(5.0) == [(job, 0)]


def test_a_job_that_another_process_holds_has_not_failed(command: Commands, job: Run) -> None:
    command("sbatch", "echo Submitted batch job 12")
    command("scontrol", f"echo JobId=12 JobState=FAILED ExitCode={BUSY}:0")
    assert wait_for_end(job) == [(job, BUSY)]
    assert job.state == "queued"


def test_what_an_earlier_allocation_came_to_is_not_told_of_this_one(
    command: Commands, job: Run
) -> None:
    job.end("preempted", 143)
    command("sbatch", "echo Submitted batch job 12")
    command("scontrol", "echo JobId=12 JobState=CANCELLED ExitCode=0:0")
    assert wait_for_end(job) == [(job, 1)]
    assert "12 was ended (cancelled)" in job.status["error"]


def test_a_part_of_an_array_that_was_cancelled_before_it_began_says_so(
    command: Commands, workplace: Path
) -> None:
    _, jobs = make_sweep(workplace, [{"seed": 1}, {"seed": 2}])
    command("sbatch", "echo Submitted batch job 12")
    command(
        "scontrol",
        'case "$*" in *_1) echo Job 12_1 not found; exit 1;; '
        "*job\\ 12) echo JobState=COMPLETED;; esac",
    )
    executor = SlurmExecutor(SlurmSettings(poll_seconds=0.1))
    for one in jobs:
        executor.start(one, resume=False)
    command("squeue", "echo '12_0|RUNNING|x|None|'")
    assert executor.wait(5.0) == [(jobs[1], 1)]
    assert "12_1 was ended (cancelled)" in jobs[1].status["error"]


def test_a_job_that_slurm_has_lost_is_submitted_anew(command: Commands, job: Run) -> None:
    command("sbatch", "echo Submitted batch job 12")
    command("scontrol", "echo Invalid job id specified >&2; exit 1")
    executor = SlurmExecutor(SlurmSettings(poll_seconds=0.1))
    codes: list[int] = []
    while not codes or codes[-1] == LOST:
        executor.start(job, resume=False)
        codes += [code for _, code in executor.wait(5.0)]
        assert job.state == ("queued" if codes[-1] == LOST else "failed")
    assert codes == [LOST, LOST, LOST, 1]  # it may be that Slurm forgets at once what has ended
    assert "12 was ended (forgotten)" in job.status["error"]


def test_a_job_that_runs_though_slurm_has_lost_it_has_not_ended(
    command: Commands, job: Run
) -> None:
    command("sbatch", "echo Submitted batch job 12")
    executor = SlurmExecutor(SlurmSettings(poll_seconds=0.1))
    executor.start(job, resume=False)
    with job.claim():
        job.begin()
        assert executor.wait(0.5) == []
        assert executor.running == [job]
        job.end("preempted", 143)
    assert executor.wait(5.0) == [(job, 143)]


def test_what_has_become_of_a_job_is_asked_again_where_slurm_does_not_say(
    command: Commands, job: Run
) -> None:
    command("sbatch", "echo Submitted batch job 12")
    command("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    executor = SlurmExecutor(SlurmSettings(poll_seconds=0.1))
    executor.start(job, resume=False)
    assert executor.wait(0.5) == []
    assert executor.running == [job]
    command("scontrol", f"echo JobId=12 JobState=FAILED ExitCode={BUSY}:0")
    assert executor.wait(5.0) == [(job, BUSY)]


def test_jobs_wait_for_a_slurm_that_is_away_though_none_runs(
    command: Commands, workplace: Path
) -> None:
    _, (first, second) = make_sweep(workplace, [{"seed": 1}, {"seed": 2}])
    command("sbatch", "echo Submitted batch job 12")
    executor = SlurmExecutor(SlurmSettings(poll_seconds=0.1))
    executor.start(first, resume=False)
    command("scontrol", "echo JobId=12 JobState=FAILED ExitCode=1:0")
    assert executor.wait(5.0) == [(first, 1)]
    command("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(NotNow, match="Unable to contact"):
        executor.takes_up(second)
    executor.start(second, resume=False)
    with pytest.raises(NotNow, match="Unable to contact"):
        executor.wait(0)
    assert not executor.fits(second)
    assert second.state == "queued"


def test_a_slurm_that_is_away_for_a_while_ends_nothing(command: Commands, job: Run) -> None:
    command("sbatch", "echo Submitted batch job 12")
    executor = SlurmExecutor(SlurmSettings(poll_seconds=0.1))
    executor.start(job, resume=False)
    command("squeue", "echo '12|RUNNING|/work.sh|None|'")
    executor.wait(0)
    command("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    began = time.monotonic()
    assert executor.wait(0.5) == []
    assert 0.5 <= time.monotonic() - began < 30  # and not for ever
    assert executor.running == [job]


@pytest.mark.parametrize(
    "reason", ["JobHeldUser", "JobHeldAdmin", "launch failed requeued held", "JobHoldMaxRequeue"]
)
def test_a_job_that_slurm_holds_is_told_of_once(
    command: Commands, job: Run, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    command("sbatch", "echo Submitted batch job 12")
    executor = SlurmExecutor(SlurmSettings(poll_seconds=0.05))
    executor.start(job, resume=False)
    for waits in ("Priority", reason, "Resources", reason):
        command("squeue", f"echo '12|PENDING|/work.sh|{waits}|'; date >> asked")
        assert executor.wait(0.2) == []
    told = f"{job.label}: Slurm holds its job 12 ({reason}) until you, or an administrator, type"
    said = f"{told} scontrol release 12"
    assert caplog.messages == [said, said]  # once each time, however often Slurm is asked
    assert len(Path("asked").read_text().splitlines()) > 5


def test_a_limit_on_jobs_is_waited_for(command: Commands, workplace: Path) -> None:
    _, jobs = make_sweep(workplace, [{"seed": seed} for seed in range(2)])
    first, second = jobs
    command("sbatch", "echo Submitted batch job 12")
    executor = SlurmExecutor(SlurmSettings())
    executor.check(trainer_of(first), first.label)
    executor.start(first, resume=False)
    command("squeue", "echo '12|PENDING|/work.sh|Priority|'")
    assert executor.wait(0) == []
    command("sbatch", "echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; exit 1")
    executor.start(second, resume=False)
    with pytest.raises(NotNow, match="AssocMaxSubmitJobLimit") as refusal:
        executor.wait(0)
    assert refusal.value.jobs == [second]
    assert not executor.fits(second)
    assert executor.running == [first]
    assert not (second.path / "slurm.json").exists()


TAKES = """
echo "$1" >> submitted
refused() {{ echo AssocMaxSubmitJobLimit >&2; exit 1; }}
grep -q "array=0-[{refused}]%" "$1" && refused
[ $(wc -l < submitted) -gt {most} ] && refused
echo "Submitted batch job $(wc -l < submitted)"
"""


def submitted(workplace: Path) -> list[Path]:
    """The batch scripts that sbatch was given."""
    return [Path(line) for line in (workplace / "submitted").read_text().splitlines()]


def ids(jobs: Sequence[Run]) -> list[str]:
    return [json.loads((job.path / "slurm.json").read_text())["id"] for job in jobs]


def test_jobs_that_ask_for_the_same_are_one_array(command: Commands, workplace: Path) -> None:
    two = {"trainer.num_nodes": 2}
    sweep, jobs = make_sweep(workplace, [{"seed": 1}, {"seed": 2, **two}, {"seed": 3}])
    command("sbatch", TAKES.format(refused="z", most=9))
    executor = SlurmExecutor(SlurmSettings(comment="billing 7"))
    for job in jobs:
        executor.start(job, resume=False)
    assert not (workplace / "submitted").exists()
    command("squeue", 'for id in 1_0 1_1 2; do echo "$id|PENDING|x|Priority|"; done')
    assert executor.wait(0) == []
    assert ids(jobs) == ["1_0", "2", "1_1"]
    script, alone = submitted(workplace)
    assert script.parent.parent == sweep.path / "slurm"
    assert alone.parent == jobs[1].path / "slurm"
    asked = script.read_text().splitlines()
    assert "#SBATCH --array=0-1%2" in asked
    assert f"#SBATCH --error={script.parent}/%a/slurm/%A_%a_0_log.err" in asked
    assert [linked(script.parent / index) for index in "01"] == [jobs[0].path, jobs[2].path]

    command("squeue", f'for id in 0 1; do echo "1_$id|PENDING|{script}|Priority|billing 7"; done')
    again = SlurmExecutor(SlurmSettings())
    assert [again.takes_up(job) for job in jobs] == [True, False, True]
    again.start(jobs[2], resume=False)
    assert again.wait(0) == []
    assert len(submitted(workplace)) == 2


def test_an_array_that_is_too_large_is_submitted_in_parts(
    command: Commands, workplace: Path
) -> None:
    _, jobs = make_sweep(workplace, [{"seed": seed} for seed in range(5)])
    command("sbatch", TAKES.format(refused="2-9", most=9))
    command("scontrol", "echo MaxArraySize            = 4")
    executor = SlurmExecutor(SlurmSettings())
    for job in jobs:
        executor.start(job, resume=False)
    command("squeue", 'for id in 2_0 2_1 3_0 3_1 4; do echo "$id|PENDING|x|Priority|"; done')
    assert executor.wait(0) == []
    assert ids(jobs) == ["2_0", "2_1", "3_0", "3_1", "4"]
    assert len(executor.running) == 5


def test_jobs_over_the_limit_wait_and_all_others_are_submitted(
    command: Commands, workplace: Path
) -> None:
    _, jobs = make_sweep(workplace, [{"seed": seed} for seed in range(4)])
    command("sbatch", TAKES.format(refused="2-9", most=2))
    command("squeue", 'for id in 2_0 2_1; do echo "$id|PENDING|x|Priority|"; done')
    executor = SlurmExecutor(SlurmSettings())
    for job in jobs:
        executor.start(job, resume=False)
    with pytest.raises(NotNow) as refusal:
        executor.wait(0)
    assert refusal.value.jobs == jobs[2:]
    assert ids(jobs[:2]) == ["2_0", "2_1"]
    assert executor.running == jobs[:2]


def test_a_job_that_slurm_never_takes_has_failed_by_itself(
    command: Commands, workplace: Path
) -> None:
    _, (first, large) = make_sweep(workplace, [{"seed": 1}, {"seed": 2}])
    command("sbatch", "echo Submitted batch job 12")
    command("scontrol", "echo JobId=12 JobState=FAILED ExitCode=1:0")
    executor = SlurmExecutor(SlurmSettings(poll_seconds=0.1))
    executor.start(first, resume=False)
    assert executor.wait(5.0) == [(first, 1)]
    command("sbatch", "echo Memory specification can not be satisfied >&2; exit 1")
    executor.start(large, resume=False)
    assert executor.wait(0) == [(large, 1)]
    assert "Memory specification can not be" in large.status["error"]


def test_what_is_not_submitted_yet_never_is_where_the_sweep_is_stopped(
    command: Commands, job: Run
) -> None:
    command("sbatch", "touch submitted")
    executor = SlurmExecutor(SlurmSettings())
    executor.start(job, resume=False)
    executor.stop(signal.SIGTERM)
    assert executor.wait(0) == []
    assert not Path("submitted").exists()


def test_without_slurm_nothing_is_started(command: Commands, job: Run) -> None:
    command("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(
        ConfigError,
        match=r"^Slurm does not answer: Unable to contact slurm controller\. Type squeue",
    ):
        SlurmExecutor(SlurmSettings()).check(trainer_of(job), job.label)

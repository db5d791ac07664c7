"""Eight lengths by three rates, their common steps trained once and not, with a driver that dies.

    python -m benchmarks.shared_steps [--kills 5] [--unit 40] [--seed 0]

The sweep of 24 jobs is trained twice: each job from its start (`sweeps.share=false`), and sharing,
with the driver sent SIGKILL at random moments, after each of which `truesweep resume` goes on. Of
the second: the steps that were trained over those of the first, jobs that are lost, and jobs whose
record, figures, scores of single samples or weights differ from the first one's by a bit.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.sweep_kills import end_family, figures
from truesweep.runs.run import Run
from truesweep.sweeps.directory import ROOT, SweepDirectory

NAME = "lengths"
FIXED = [
    *("task=classification", "logger=none", "trainer.accelerator=cpu", "trainer.threads=1"),
    *(
        "model.depth=2",
        "model.width=64",
        "model.heads=2",
        "data.max_length=64",
        "model.dropout=0.1",
    ),
    *("data.batch_size=16", "hydra.launcher.slots=2", f"name={NAME}"),
    *("scheduler=wsd", "scheduler.warmup=10", "scheduler.decay=0.1"),
    *("optimizer.lr=0.003,0.01,0.03", "callbacks.checkpoint.every_n_steps=20"),
]
LONGEST = 25.0
"""Seconds until a driver is killed, at most."""


def start(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command of truesweep's."""
    with (folder / "log").open("ab") as log:
        command = [sys.executable, "-m", "truesweep", *arguments]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)


def jobs(folder: Path) -> dict[str, Run]:
    """The sweep's jobs by id."""
    return {job.id: job for job in SweepDirectory(folder / ROOT / NAME).jobs()}


def trained(job: Run) -> int:
    """The steps that a job has trained itself."""
    branched = job.read_provenance().get("branched") or {"step": 0}
    return int(job.read_results()["train/steps"]) - int(branched["step"])


def differs(job: Run, other: Run) -> bool:
    """Whether anything that is not a clock's differs by a bit."""
    if figures(job) != figures(other):
        return True
    for split in ("val", "test"):
        one, two = job.read_scores(split), other.read_scores(split)
        if one.keys() != two.keys() or not all(np.array_equal(one[k], two[k]) for k in one):
            return True
    for name in ("best.ckpt", "last.ckpt"):
        one, two = (
            torch.load(run.checkpoints / name, weights_only=True)["state_dict"]
            for run in (job, other)
        )
        if one.keys() != two.keys() or not all(torch.equal(one[k], two[k]) for k in one):
            return True
    return False


def disturb(folder: Path, arguments: Sequence[str], kills: int, rng: random.Random) -> int:
    """Train a sweep whose driver is killed now and then; how often it was."""
    done = 0
    while True:
        begun = (folder / ROOT / NAME / "sweep.yaml").exists()
        driver = start(folder, ["resume", f"{ROOT}/{NAME}"] if begun else arguments)
        try:
            code = driver.wait(rng.uniform(5, LONGEST) if done < kills else None)
        except subprocess.TimeoutExpired:
            done += 1
            end_family(driver)
            continue
        assert code == 0, (folder / "log").read_text()
        return done


def main() -> None:
    """Train both, compare, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--unit", type=int, default=40, help="steps of the shortest job")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    lengths = ",".join(str(asked.unit * n) for n in range(1, 9))
    every = f"trainer.val_check_interval={asked.unit // 2}"
    command = ["train", "-m", *FIXED, f"trainer.max_steps={lengths}", every]
    with tempfile.TemporaryDirectory() as scratch:
        apart, shared = Path(scratch, "apart"), Path(scratch, "shared")
        for folder in (apart, shared):
            folder.mkdir()
        code = start(apart, [*command, "sweeps.share=false"]).wait()
        assert code == 0, (apart / "log").read_text()
        kills = disturb(shared, command, asked.kills, random.Random(asked.seed))
        first, second = jobs(apart), jobs(shared)
        steps = [sum(map(trained, each.values())) for each in (first, second)]
        counted = {
            "jobs": len(first),
            "kills": kills,
            "steps": steps[1],
            "steps_apart": steps[0],
            "share": round(steps[1] / steps[0], 3),
            "lost": len(first.keys() - second.keys()),
            "different": sum(differs(second[id], first[id]) for id in first.keys() & second.keys()),
        }
    print(json.dumps(counted))


if __name__ == "__main__":
    main()

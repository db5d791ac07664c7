"""The process behind `WandbLogger`: reads messages from standard input, one JSON list a line.

    ["start", {directory, root, limits, mode, project, entity, id, name, notes, group, job_type,
               tags, config, best}]
    ["row", {values: {step, name: value, …}}] · ["table", {name, columns, rows, step}]
    ["alert", {title, text, level}] · ["artifact", {files}]
    ["dashboard", {file, key, shown}]
    ["finish", {summary, exit_code}]

The end of the input without `finish` means that the training was killed, and the run is marked as
such. A line on standard output
is a message to the user. Started as `python -P mirror.py`: `-P` so that `wandb` is W&B's package
and not our `wandb.py`.
"""

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb

# Nothing on the terminal, and nothing that the run's own directory holds already.
SETTINGS: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "finish_timeout_raises": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}

MARKS = ("preempted", "paused", "pruned", "failed", "diverged", "killed")
"""Tags that say how a run has ended, which may not be its last end."""
TEXT = "The process ended without a word: killed from outside, out of memory or out of time."
KILLED: list[tuple[str, dict[str, Any]]] = [
    ("alert", {"title": "Killed", "text": TEXT, "level": "ERROR"}),
    ("finish", {"summary": {"state": "killed"}, "exit_code": 1}),
]
"""What a training that was killed could not send."""


def main() -> int:
    """Mirror one run; gives 0, or 1 after saying what went wrong."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end of the input is what ends this process
    messages = read(sys.stdin)
    try:
        _, start = next(messages)
        take_over(start["directory"])
        mirror = Mirror(**start)
    except ImportError:
        say("wandb is not installed, the run is not mirrored: `pip install wandb`, or logger=none.")
        return 1
    except Exception as error:
        say(f"could not be started, the run is not mirrored: {error!r}")
        return 1
    return mirror.follow(messages)


def read(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The messages, less one that was cut off when its sender was killed."""
    for line in lines:
        if line.endswith("\n"):
            kind, content = json.loads(line)
            yield kind, content


def say(message: str) -> None:
    """Give the user a message, if the training is still there to pass it on."""
    with suppress(BrokenPipeError):
        print(" ".join(message.split()), flush=True)


def take_over(directory: str) -> None:
    """Wait for the mirror of a killed training to end; this process is then the run's only one."""
    record = os.open(f"{directory}/wandb", os.O_RDONLY)
    fcntl.flock(record, fcntl.LOCK_EX)  # until this process ends


class Mirror:
    """One W&B run.

    Args:
        best: `min` or `max` by a figure's name without the split: which validation stands for it.
        start: See `begin`.
    """

    def __init__(self, best: dict[str, Any], **start: Any) -> None:
        self.run = begin(**start)
        self.best = best
        self.declared: set[str] = set()  # names whose summary is decided
        self.unsent: Path | None = None  # a dashboard
        self.failed = False

    def follow(self, messages: Iterator[tuple[str, dict[str, Any]]]) -> int:
        """Carry out `messages` to their end; one that fails is given up, and the first told."""
        for kind, content in chain(messages, KILLED):
            try:
                getattr(self, kind)(**content)
            except Exception as error:
                if not self.failed:
                    say(f"not all is mirrored, metrics.jsonl has it (at a {kind}: {error!r})")
                self.failed = True
            if kind == "finish":
                break
        return int(self.failed)

    def row(self, values: dict[str, Any]) -> None:
        """Log the values of one step; earlier steps are with the server, from before a resume."""
        for name in sorted(values.keys() - self.declared):
            split, _, figure = name.partition("/")
            if split == "val" and figure in self.best:
                self.run.define_metric(name, step_metric="step", summary=self.best[figure])
        self.declared |= values.keys()
        if values["step"] >= self.run.step:
            self.run.log(values, step=values["step"])

    def table(self, name: str, columns: list[str | int], rows: list[Any], step: int | None) -> None:
        """Log a table at `step`, or at the latest step if that is later."""
        import wandb

        table = wandb.Table(columns=columns, data=rows, allow_mixed_types=True)
        self.run.log({name: table}, step=max(step or 0, self.run.step))

    def alert(self, title: str, text: str, level: str) -> None:
        """Have W&B tell the user."""
        self.run.alert(title=title, text=text, level=level)

    def artifact(self, files: list[str]) -> None:
        """Keep files as one version of an artifact."""
        import wandb

        artifact = wandb.Artifact(f"run-{self.run.id}", type="model")
        for file in files:
            artifact.add_file(file)
        self.run.log_artifact(artifact)

    def dashboard(self, file: str, key: str, shown: dict[str, Any]) -> None:
        """Write a sweep's dashboard; its server is sent it when the run is closed."""
        from truesweep.record.dashboard import Dashboard, view, write

        run = self.run
        made = view(Dashboard(**shown), key, run.entity or "", run.project or "", run.group or "")
        write(Path(file), made)
        self.unsent = None if run.offline else Path(file)

    def finish(self, summary: dict[str, Any], exit_code: int) -> None:
        """Close the run with the final figures in its summary."""
        if self.declared:  # the last row is still held back, and would go over the summary
            self.run.log({}, commit=True)
        self.run.summary.update(summary)
        state = summary.get("state", "completed")
        if state != "completed":
            self.run.tags = (*(self.run.tags or ()), state)
        self.close(exit_code)

    def close(self, exit_code: int) -> None:
        """Close the record, and wait until W&B's service has written it."""
        import wandb

        self.run.finish(exit_code=exit_code)
        if self.unsent is not None:
            send_dashboard(self.unsent)
        wandb.teardown()


def begin(
    directory: str, root: str | None, mode: str, limits: dict[str, float], **run: Any
) -> "wandb.Run":
    """Start the run, offline if the server cannot be had, and remove its earlier local records.

    Args:
        directory: the run's directory.
        root: the folder in whose `wandb` W&B writes; None: the run's directory, as for one that
            cannot be written in, where W&B would take a temporary folder.
        mode: `offline` or `online`.
        limits: W&B's settings `init_timeout` and `finish_timeout`, in seconds.
        run: arguments of `wandb.init`.
    """
    import wandb

    if root and (problem := unwritable(root)):
        say(f"WANDB_DIR={root}: {problem}. The record is kept in {directory}/wandb.")
        root = None
    settings = {**SETTINGS, "root_dir": root or directory, **limits}
    await_name(Path(directory))
    try:
        started = init(mode, settings, **run)
    except Exception as error:
        if mode == "offline":
            raise
        say(
            f"recording offline, since the server cannot be reached ({error}). "
            f"Log in with `wandb login`; send the record later with `truesweep sync {directory}`."
        )
        wandb.teardown()  # its service would hold on to the id of the run that could not start
        started = init("offline", settings, **run)
    replace_records(Path(directory), Path(started.dir).parent)
    return started


def await_name(directory: Path) -> None:
    """Wait until W&B has a new name for a record, which it names by the second.

    A second one of the same name lies in a folder that ends in -1, where W&B's readers miss it.
    """
    while any(
        f"run-{datetime.now():%Y%m%d_%H%M%S}-" in record.name for record in records_of(directory)
    ):
        time.sleep(0.05)


def unwritable(folder: str) -> str:
    """Why a folder, made if it is not there, cannot be written in; nothing if it can."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return str(error.strerror)
    return "" if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else "cannot be written in"


def send_dashboard(file: Path) -> None:
    """Save a sweep's dashboard on the server; what becomes of it, the run is closed."""
    from truesweep.record.dashboard import send

    try:
        send(file)
    except Exception as error:
        say(f"the dashboard is not sent ({error}); `truesweep sync {file.parent}` tries again.")


def replace_records(directory: Path, record: Path) -> None:
    """Have a directory lead to its latest local record alone, wherever that lies.

    What a sweep's leads to of its jobs' stays.
    """
    folder = directory / "wandb"
    for earlier in records_of(directory):
        if earlier.resolve() != record.resolve():
            shutil.rmtree(earlier.resolve(), ignore_errors=True)
    for link in folder.glob("*run-*"):
        if link.is_symlink() and not link.exists():
            link.unlink()
    if record.parent != folder:
        folder.joinpath("latest-run").unlink(missing_ok=True)
        folder.joinpath("latest-run").symlink_to(record.name)  # as W&B's readers want it
        folder.joinpath(record.name).symlink_to(record.absolute(), target_is_directory=True)


def records_of(folder: Path) -> list[Path]:
    """W&B's local records of a run or of a sweep itself; links to its jobs' are left out."""
    return [
        record
        for record in sorted((folder / "wandb").glob("*run-*"))
        if record.is_dir()
        and (
            record.parent.resolve() == record.resolve().parent
            or folder.resolve() not in record.resolve().parents
        )
    ]


def init(mode: str, settings: dict[str, Any], **run: Any) -> "wandb.Run":
    """Initialise W&B, every metric against the optimizer step."""
    import wandb

    known = wandb.Settings.model_fields  # settings come and go between W&B's versions
    started = wandb.init(
        mode=mode,  # type: ignore[arg-type]
        # An offline record is complete, so it replaces what the server has when it is sent.
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(**{key: settings[key] for key in settings if key in known}),
        **run,
    )
    # One that goes on has not ended in the way that its tags on the server say.
    tags = tuple(tag for tag in started.tags or () if tag not in MARKS or tag in run["tags"])
    if tags != tuple(started.tags or ()):
        started.tags = tags
    for axis in ("step", "tokens", "time"):
        started.define_metric(axis, hidden=True)
    started.define_metric("*", step_metric="step")
    return started


if __name__ == "__main__":
    code = 1
    try:
        code = main()
    finally:
        os._exit(code)  # some of W&B's threads outlast a dead network by half a minute

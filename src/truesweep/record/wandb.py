"""Weights & Biases as a mirror of `metrics.jsonl`, which may fail without harm to the training.

W&B runs in a process of its own, fed through a queue: importing it, a dead network, a `finish` that
hangs, its environment variables and its exit hooks cannot reach the training, two runs of one
process cannot become one, and when the training is killed the record is still closed properly.
"""

import hashlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from truesweep.errors import ConfigError
from truesweep.record.dashboard import FILE, Dashboard, is_available
from truesweep.record.loggers import FINISH_SECONDS, RunInfo, RunLogger
from truesweep.record.rows import scalars
from truesweep.secrets import scrub

log = logging.getLogger(__name__)

PROJECT = "truesweep"
"""W&B's project where none is named."""
Mode = Literal["online", "offline", "disabled"]
MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""What `WANDB_MODE` may be, old names included."""
TRUE = ("1", "on", "t", "true", "y", "yes")
FALSE = ("", "0", "off", "f", "false", "n", "no")
"""What W&B reads as true and as false in a variable, in any case."""
SETTLED = (
    *("WANDB_SERVICE", "WANDB_DIR", "WANDB_MODE", "WANDB_DISABLED", "WANDB_RESUME"),
    *("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_NAME", "WANDB_NOTES", "WANDB_TAGS"),
    *("WANDB_RUN_GROUP", "WANDB_JOB_TYPE"),
)
"""Variables that W&B's process must not see: what they say is in its messages, or is another's."""
AGENTS = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH")
"""Variables of W&B's agent, which make a run one of its sweep."""
NAME_LENGTH, TAG_LENGTH = 128, 64
"""Characters that W&B takes: of a project, a run or a group, and of a tag."""
NOT_IN_PROJECTS = "/\\#?%:"
"""What W&B takes in no project's name."""

# Seconds that W&B may wait for its server, at the start and at the end of a run.
START_SECONDS, UPLOAD_SECONDS = 15.0, 10.0


class WandbLogger(RunLogger):
    """Mirrors one run to `wandb` in its directory, and to W&B's server if `mode` is online.

    A resumed run is mirrored again from its `metrics.jsonl`, which must be cut back before the
    first step is logged.

    Args:
        info: What the run is. Its configuration stays nested, since W&B shows and filters it as
            `optimizer.lr` but cannot filter by a key that has a dot in itself.
        project: W&B's project; `truesweep` if none.
        entity: user or team on W&B; the default one of the account if none.
        mode: `offline` if none. `online` needs a login, or `api_key`; without, or without a
            network, the run is recorded offline and can be sent later.
        api_key: instead of `wandb login`; it is written nowhere.
        name: what the run is called; what varies in a sweep, in short, is added to it. The run's
            own name, or what varies, if none is given.
        notes: text that is shown with the run.
        job_type: `sweep` for a sweep's job and `train` for others, if none is given.
        group: runs that belong together; the sweep's name for its jobs, if none is given.
        tags: labels to filter by, besides those of the run.
        artifacts: keep the best checkpoint and the configuration on W&B as an artifact.

    What is not given is taken from W&B's environment variables, such as `WANDB_PROJECT`.
    """

    def __init__(
        self,
        info: RunInfo,
        *,
        project: str | None = None,
        entity: str | None = None,
        mode: Mode | None = None,
        api_key: str | None = None,
        name: str | None = None,
        notes: str | None = None,
        job_type: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        artifacts: bool = False,
    ) -> None:
        super().__init__(info)
        swept = {"swept": dict(info.swept)} if info.swept else {}
        self._directory = info.directory.absolute()
        self._api_key = api_key
        named = " ".join(filter(None, [_given(name, "NAME"), info.label]))
        labels = _given(tags, "TAGS") or []
        if isinstance(labels, str):
            labels = [tag.strip() for tag in labels.split(",") if tag.strip()]
        if info.job_type != "summary":
            job_type = _given(job_type, "JOB_TYPE")
        self._agents = info.agents
        self._run = {
            "mode": _mode(mode),
            "project": project_name(project),
            "entity": _given(entity, "ENTITY"),
            "id": info.id,
            "name": _cut(named or info.name),
            "notes": _given(notes, "NOTES"),
            "group": _cut(_given(group, "RUN_GROUP") or info.group),
            "job_type": job_type or info.job_type,
            "tags": [tag[:TAG_LENGTH] for tag in dict.fromkeys([*labels, *info.tags])],
            "config": {**info.config, **swept},
            "best": dict(info.best),
        }
        self._warning = _misread(mode)
        self._artifacts = artifacts
        self._began = time.monotonic()  # less what earlier processes of a resumed run took
        self._messages: queue.Queue[str | None] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        # Finished, failed or disabled: nothing more is sent.
        self._over = self._run["mode"] == "disabled"

    @override
    def check(self) -> None:
        """See `RunLogger.check`: of the project's name, by which W&B would refuse the whole run."""
        project = self._run["project"]
        if len(project) > NAME_LENGTH or set(project) & set(NOT_IN_PROJECTS):
            raise ConfigError(
                f"logger.project (or WANDB_PROJECT): {_cut(project)!r} is no name that W&B "
                f"takes: at most {NAME_LENGTH} characters, none of {' '.join(NOT_IN_PROJECTS)}"
            )

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Mirror `metrics` at optimizer `step`; W&B drops what comes for an earlier step."""
        assert step is not None, "metrics are logged against an optimizer step"
        self._start()
        values = scalars(metrics)
        if "time" in values:  # another run has trained until here, and this one goes on from there
            self._began = time.monotonic() - values["time"]
        elapsed = round(time.monotonic() - self._began, 3)
        self._send("row", {"values": {"time": elapsed, **values, "step": step}})

    @rank_zero_only
    def log_table(
        self,
        name: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        step: int | None = None,
    ) -> None:
        """Mirror a table, such as samples of the output, at `step` or else at the latest step."""
        table = {"name": name, "columns": list(columns), "rows": [list(row) for row in rows]}
        self._send("table", {**table, "step": step})

    @rank_zero_only
    def alert(self, title: str, text: str, level: Literal["INFO", "WARN", "ERROR"]) -> None:
        """Have W&B tell the user, as their settings there say: by mail, in a chat."""
        self._send("alert", {"title": title, "text": text, "level": level})

    @rank_zero_only
    def log_artifact(self, files: Sequence[Path]) -> None:
        """Keep files on W&B, if wanted, as the version of an artifact named after the run."""
        if self._artifacts:
            self._send("artifact", {"files": [str(file) for file in files]})

    @override
    @rank_zero_only
    def log_dashboard(self, shown: Dashboard) -> None:
        """Write a workspace of W&B's, and save it there if the run is `online`."""
        if is_available():
            file = str(self._directory / FILE)
            self._send("dashboard", {"file": file, "key": self.info.id, "shown": asdict(shown)})

    @rank_zero_only
    def finish(self, summary: Mapping[str, Any] | None = None, exit_code: int = 0) -> None:
        """Put `summary`, the final figures, beside the curves and close the record.

        Its `state`, if that is not `completed`, becomes a tag as well. Takes at most
        `FINISH_SECONDS`; what is not sent by then lies in the local record.
        """
        self._send("finish", {"summary": scalars(summary or {}), "exit_code": exit_code})
        self._over = True
        if self._process is None:
            return
        self._messages.put(None)
        try:
            self._process.wait(FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            log.warning("W&B did not finish in %.0f s and was left behind.", FINISH_SECONDS)
        self._listener.join(1.0)

    def _send(self, kind: str, content: dict[str, Any]) -> None:
        self._start()
        if not self._over:
            self._messages.put(json.dumps([kind, content], default=str))

    def _start(self) -> None:
        """Start the process that holds W&B, once; nothing of ours waits for it."""
        if self._over or self._process is not None:
            return
        if self._warning:
            log.warning("W&B: %s", self._warning)
        record = self._directory / "wandb"
        settled = SETTLED if self._agents else (*SETTLED, *AGENTS)
        environment = {key: os.environ[key] for key in os.environ if key not in settled}
        environment.setdefault("WANDB_DATA_DIR", str(record))
        if self._api_key:
            environment["WANDB_API_KEY"] = self._api_key
        try:
            record.mkdir(parents=True, exist_ok=True)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", str(Path(__file__).with_name("mirror.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the training, which then ends the record
            )
        except OSError as error:
            self._over = True
            log.warning("W&B could not be started, the run is not mirrored: %s", error)
            return
        place = {"directory": self._directory, "root": os.environ.get("WANDB_DIR") or None}
        limits = {"init_timeout": START_SECONDS, "finish_timeout": UPLOAD_SECONDS}
        self._send("start", {**place, "limits": limits, **self._run})
        self._replay()
        threading.Thread(target=self._feed, args=[self._process], daemon=True).start()
        self._listener = threading.Thread(target=self._listen, args=[self._process], daemon=True)
        self._listener.start()

    def _replay(self) -> None:
        """Send what `metrics.jsonl` holds from before a resume, as W&B cannot go on offline.

        The new record then has every step once and takes the earlier one's place. Online W&B goes
        on with the run of the same id, and only what its server lacks is sent to it.
        """
        for row in self.info.rows():
            self._began = time.monotonic() - row.get("time", 0.0)
            self._send("row", {"values": row})

    def _feed(self, process: subprocess.Popen[str]) -> None:
        """Hand the messages on; only this thread waits if W&B does not read them."""
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                for message in iter(self._messages.get, None):
                    pipe.write(f"{message}\n")
                    pipe.flush()
        except OSError:  # it has ended, and `_listen` has said so
            self._over = True

    def _listen(self, process: subprocess.Popen[str]) -> None:
        """Pass on what W&B's process has to say, one line a message."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                log.warning("W&B: %s", scrub(line.rstrip(), dict(self.info.config)))
        if process.wait() < 0 and not self._over:
            log.warning("W&B's process was killed, the run is no longer mirrored.")
            self._over = True


def project_name(given: str | None) -> str:
    """W&B's project, where the configuration gives one or none."""
    return str(_given(given, "PROJECT") or PROJECT)


def _given(value: Any, variable: str) -> Any:
    """What the configuration says, or else W&B's environment variable."""
    return os.environ.get(f"WANDB_{variable}") if value is None else value


def _cut(name: str | None) -> str | None:
    """A name as long as W&B takes it; those that differ only behind that stay different."""
    if name is None or len(name) <= NAME_LENGTH:
        return name
    told_apart = f"… {hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name[: NAME_LENGTH - len(told_apart)] + told_apart


def _mode(given: Mode | None) -> Mode:
    if given is not None:
        return given
    if os.environ.get("WANDB_DISABLED", "").lower() in TRUE:
        return "disabled"
    return MODES.get(os.environ.get("WANDB_MODE", "").lower(), "offline")


def _misread(given: Mode | None) -> str:
    """A sentence if `WANDB_MODE` or `WANDB_DISABLED` is asked, and says nothing that there is."""
    if given is not None:
        return ""
    mode, disabled = (os.environ.get(f"WANDB_{name}", "") for name in ("MODE", "DISABLED"))
    if disabled.lower() not in (*TRUE, *FALSE):
        return (
            f"WANDB_DISABLED={disabled}: expected true or false. Taken as false: recorded "
            f"{_mode(given)}."
        )
    if not mode or mode.lower() in MODES:
        return ""
    return (
        f"WANDB_MODE={mode}: no such mode; there are online, offline and disabled. "
        "Recorded offline."
    )

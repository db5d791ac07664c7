"""The state of a run after some step, kept for others that train the same up to there."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from truesweep.errors import in_short
from truesweep.record.files import (
    changed_since_summed,
    checksum_path,
    verify_checksum,
    write_checksum,
)
from truesweep.record.provenance import program
from truesweep.record.rows import AXES, Row, read
from truesweep.runs.run import UNREADABLE, Run, read_entries, write_entries
from truesweep.terminal import warn

CONTENT = ("fingerprint", "tokenizer")
"""What a run's provenance says of its data that decides what it trains on."""
PROGRAMS = "programs.json"
"""With which versions a state was trained; see `begin`."""
DAMAGED = "is missing or damaged (by its checksum)"


def checkpoint_path(run: Run, step: int) -> Path:
    """Where the checkpoint after a step goes, before all that belongs to it is there."""
    return _folder(run, step).with_name(f".{step}") / "last.ckpt"


def is_kept(run: Run, step: int) -> bool:
    """Whether the state after a step is there, as a whole."""
    return _folder(run, step).is_dir()


def kept(run: Run) -> list[int]:
    """After which steps states are there, in order."""
    folders = (run.path / "branches").glob("[0-9]*")
    return sorted(int(folder.name) for folder in folders if folder.name.isdigit())


def keep(run: Run, step: int) -> None:
    """Put to a checkpoint what the run's directory holds after its step.

    Args:
        run: The run, at that step.
        step: Optimizer steps done; `checkpoint_path` is written.
    """
    hidden = checkpoint_path(run, step).parent
    best = run.checkpoints / "best.ckpt"
    for file in (best, checksum_path(best), run.path / "scores" / "val.npz"):
        if file.exists():
            _link(file, hidden / file.name)
    shutil.copyfile(run.metrics, hidden / run.metrics.name)
    if programs := run.read_provenance().get("programs"):
        write_entries(hidden / PROGRAMS, {"programs": programs})
    for file in (hidden / run.metrics.name, hidden / "val.npz"):
        if file.exists():
            write_checksum(file)
    shutil.copytree(run.model, hidden / run.model.name, dirs_exist_ok=True)
    hidden.rename(_folder(run, step))


def adopt(run: Run, other: Run, step: int) -> bool:
    """Have a run that has not begun go on from another's state, as if it had trained so far itself.

    A run that has begun stays as it is. Of a state that is damaged, or is of other data or of
    another program than the run will be, that is said.

    Args:
        run: The run.
        other: Trains the same up to `step`.
        step: Optimizer steps done there.

    Returns:
        Whether the run goes on from there.

    Raises:
        BusyError: Another process works on the run.
        UserError: A file of the run cannot be read.
    """
    there = _folder(other, step)
    with run.claim():
        # What it was made since may be another training.
        if run.status or not there.is_dir() or run.read_provenance().get("changes"):
            return False
        if not is_alike(run, other, step):
            return False
        try:
            record = _copy(there, run)
            # Another driver may have removed it meanwhile.
            if whole := there.is_dir() and _is_whole(run, there):
                note(run, other, step)
                run.metrics.write_bytes(record)
                # What it has recorded is not from before ids were kept. Last: the run has begun.
                run.update_status(step=step, saved_step=step, wandb_id=run.new_wandb_id())
        except FileNotFoundError:
            whole = False
        except OSError as error:  # a full disk, or files that vanish while they are copied
            whole = _say([f"{there} cannot be taken over ({in_short(error)})"], run)
        if not whole:
            _clear(run)
    return whole


def clear(run: Run) -> None:
    """Remove what a kill has left in a run that has not begun, in the midst of `adopt`.

    Raises:
        BusyError: Another process works on the run.
    """
    if not run.status and (run.metrics.exists() or any(run.checkpoints.iterdir())):
        with run.claim():
            if not run.status:
                _clear(run)


def _clear(run: Run) -> None:
    for file in (*run.checkpoints.iterdir(), run.metrics, run.path / "scores" / "val.npz"):
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
    amend(run, 0)


def _copy(there: Path, run: Run) -> bytes:
    """Give a run what a state consists of, but for the record, which is returned."""
    last, best = there / "last.ckpt", there / "best.ckpt"
    for file in (last, checksum_path(last), best, checksum_path(best)):
        if file.exists():
            _link(file, run.checkpoints / file.name)
    if (scores := there / "val.npz").exists():
        (run.path / "scores").mkdir(exist_ok=True)
        _link(scores, run.path / "scores" / scores.name)
    shutil.copytree(there / run.model.name, run.model, dirs_exist_ok=True)
    return (there / run.metrics.name).read_bytes()


def is_alike(run: Run, other: Run, step: int) -> bool:
    """Whether a state is of the data and the program that a run has; says so if not.

    What earlier versions have kept tells less of itself, and passes.

    Args:
        run: The run.
        other: Has kept the state.
        step: Optimizer steps done there.
    """
    own, now = run.read_provenance().get("data", {}), _program(run)
    file = _folder(other, step) / PROGRAMS
    try:
        its = other.read_provenance().get("data", {})
        known = read_entries(file)["programs"] if file.exists() else []
    except UNREADABLE as error:
        return _say([f"{file.parent} cannot be used ({in_short(error)})"], run)
    told = []
    if any(own.get(key, its.get(key)) != its.get(key) for key in CONTENT):
        told.append(f"{file.parent} is of other data")
    told += [
        f"{file.parent} was trained with {name} {before.get(name)}, which is {now.get(name)} now"
        for before in known
        for name in before.keys() | now.keys()
        if before.get(name) != now.get(name)
    ][:1]
    return _say(told, run)


def _program(run: Run) -> dict[str, str]:
    """What a run's training follows from besides its configuration and its data, as it is now."""
    return program(run.read_config().get("allowed_packages") or ())


def _is_whole(run: Run, there: Path) -> bool:
    """Whether what a run was given of a state is as it was written; says so if not."""
    last = run.checkpoints / "last.ckpt"  # there is no best one before the first validation
    files = sorted({last, *run.checkpoints.glob("*.ckpt")})
    damaged = [there / file.name for file in files if not verify_checksum(file)]
    damaged += [file for name in (run.metrics.name, "val.npz") for file in _spoilt(there / name)]
    damaged += [there / run.model.name / name for name in changed_since_summed(run.model)]
    return _say([f"{file} {DAMAGED}" for file in damaged], run)


def _spoilt(file: Path) -> list[Path]:
    """A file of a state, if it is not as it was kept, as far as a checksum is there."""
    return [file] if checksum_path(file).exists() and not verify_checksum(file) else []


def _say(problems: Sequence[str], run: Run) -> bool:
    """Say what is wrong with a state, and what follows; whether nothing is."""
    warn(f"{problem}, so {run.id} does not go on from it" for problem in problems)
    return not problems


def is_whole(run: Run, step: int) -> bool:
    """Whether the checkpoint and the record of a state are as they were kept; says so if not."""
    last, record = checkpoint_of(run, step), _folder(run, step) / run.metrics.name
    damaged = [*([] if verify_checksum(last) else [last]), *_spoilt(record)]
    warn(f"{file} {DAMAGED}, so these steps are trained again" for file in damaged)
    return not damaged


def checkpoint_of(run: Run, step: int) -> Path:
    """The checkpoint of a state that is kept."""
    return _folder(run, step) / "last.ckpt"


def rows_of_training(run: Run, step: int, after: int) -> list[Row]:
    """What a run has recorded of its steps, without its validations.

    Args:
        run: A run that has kept its state.
        step: After which step that was.
        after: The step before the first of these.

    Returns:
        Rows, whose `time` is in seconds since the step before.
    """
    rows = read(_folder(run, step) / run.metrics.name)
    began = max((row["time"] for row in rows if row["step"] <= after), default=0.0)
    kept = [{k: v for k, v in row.items() if not k.startswith("val/")} for row in rows]
    return [
        {**row, "time": row["time"] - began}
        for row in kept
        if after < row["step"] <= step and row.keys() - {*AXES}
    ]


def note(run: Run, other: Run, step: int) -> None:
    """Keep with a run's origin which other one has trained its steps so far."""
    branched = {"run": other.id, "step": step}
    write_entries(run.path / "provenance.json", run.read_provenance() | {"branched": branched})


def amend(run: Run, step: int) -> None:
    """Take back what `note` has told of steps that a run does now after all, from a step on."""
    origin = run.read_provenance()
    if origin.get("branched", {}).get("step", 0) > step:
        origin["branched"] = {**origin["branched"], "step": step}
        if not step:
            del origin["branched"]
        write_entries(run.path / "provenance.json", origin)


def begin(run: Run, step: int) -> None:
    """Note of a run that shares steps what trains it from a step on, be it itself again.

    Each program that has trained a part of it: a run that is resumed may have got another one.

    Args:
        run: The run.
        step: Optimizer steps done.
    """
    amend(run, step)
    origin, now = run.read_provenance(), _program(run)
    before = origin.get("programs", []) if step else []
    if now not in before:
        write_entries(run.path / "provenance.json", origin | {"programs": [*before, now]})


def forget(run: Run, step: int) -> None:
    """Remove a state that nobody needs any more: at once, so that none is taken for a whole one."""
    gone = _folder(run, step).with_name(f".{step}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):
        _folder(run, step).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):
        gone.parent.rmdir()


def forget_all(run: Run) -> None:
    """Remove all states that a run has kept, and what a kill has left of others."""
    for step in kept(run):
        forget(run, step)
    shutil.rmtree(run.path / "branches", ignore_errors=True)


def _folder(run: Run, step: int) -> Path:
    return run.path / "branches" / str(step)


def _link(file: Path, new: Path) -> None:
    """Give a file that is only ever replaced as a whole a second name, or copy it."""
    new.unlink(missing_ok=True)
    try:
        os.link(file, new)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, new)

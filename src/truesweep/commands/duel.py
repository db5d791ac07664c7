"""`truesweep duel`: is one configuration really better than another?"""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import inf, isfinite
from pathlib import Path
from string import ascii_uppercase
from typing import Any, cast

from rich import box
from rich.table import Table
from rich.text import Text

from truesweep import dotted
from truesweep.analysis.duel import LIMIT, Duel, judge
from truesweep.commands.beginnings import Beginning, Common, shapes
from truesweep.config.checks import name_is_a_folder
from truesweep.config.compose import Composed, compose, compose_multirun, recompose
from truesweep.config.origin import Origins
from truesweep.config.overrides import is_override, named, split_hydras
from truesweep.config.precedence import update
from truesweep.errors import ConfigError
from truesweep.figures import Mode, as_direction, digits_of, require_mode
from truesweep.interrupts import STOPPED
from truesweep.jobs.parts import complete, declared_figures
from truesweep.record.files import dump_json
from truesweep.record.frozen import fingerprint
from truesweep.record.provenance import collect
from truesweep.report import compare
from truesweep.runs.run import Run
from truesweep.secrets import redact_argv
from truesweep.sweeps import trunks
from truesweep.sweeps.directory import SweepDirectory
from truesweep.sweeps.disk import check_disk
from truesweep.sweeps.display import Display
from truesweep.sweeps.driver import drive
from truesweep.sweeps.launchers import check_room, describe, is_ours, make_executor
from truesweep.sweeps.planned import PlannedJob, check_objectives
from truesweep.sweeps.planning import Candidate, plan_candidates, sharing
from truesweep.sweeps.progress import Board
from truesweep.sweeps.protocols import Executor, Listed
from truesweep.sweeps.settings import Sweep
from truesweep.sweeps.start import add_jobs, launcher_origins
from truesweep.sweeps.summary import conclude, sum_up
from truesweep.terminal import console, say
from truesweep.text import count, figure, figures, plural, signed, value

FIRST = 4
"""Seeds before anything is judged: fewer decide nothing, whatever they show."""
EACH = 2
"""Seeds that are added at a time."""
ERROR, SEEDS = 0.05, 20
"""What a sweep's leaders are settled by, as `truesweep duel` without options is."""
TERMS = {"objective": None, "error": ERROR, "smallest": 0.0, "seeds": SEEDS}
"""What is kept of what a duel is about, and as it is without options."""
DRAWN = "init_seeding"
"""The key of a new model that says how its weights are drawn."""
MONITOR = "callbacks.checkpoint.monitor"
"""The key of the figure that decides, where `--objective` names none."""
KEY = "sweeps.share"
"""The only setting of a sweep that a duel has."""
NOTHING = "-"
"""What a contender is called that has nothing but what all have."""
LEADERS = 4
"""The most leaders of a sweep that are settled: each costs as many seeds as the first."""


@dataclass(frozen=True)
class Contender:
    """One of the configurations that are compared.

    Args:
        letter: `A` for the first one.
        typed: As it was typed, secrets redacted.
        text: What it is called: the same without what all have in common, a sweep's job by what it
            varies.
        folder: What relative paths in it are relative to.
        compose: Its configuration under further overrides, such as a seed.
        added: Overrides that the duel adds.
    """

    letter: str
    typed: str
    text: str
    folder: Path
    compose: Callable[[Sequence[str]], Composed]
    added: tuple[str, ...] = ()

    def candidate(self, seed: int) -> Candidate:
        """Its job of one seed."""
        varies = {"contender": self.letter, "seed": seed}
        return Candidate(partial(self.compose, [*self.added, f"seed={seed}"]), varies)


@dataclass(frozen=True)
class Setting:
    """Where the jobs of a duel run, and what they share.

    Args:
        launcher: The node of Hydra's launcher; empty: the slots of this machine.
        share: Whether jobs that train the same steps train them once.
        origins: Where that comes from, by the dotted keys of `sweep.yaml`.
    """

    launcher: Mapping[str, Any] = field(default_factory=dict)
    share: bool = True
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """What a duel is fought about.

    Args:
        objective: The figure that decides; None: the one that the first contender's best
            checkpoint is chosen by.
        error: How often a difference may be found where there is none, in the whole duel.
        smallest: The least difference that matters; 0: every one does.
        seeds: The most seeds that may be spent.
        name: The folder of its jobs under `outputs/sweeps`; None: one that follows from what is
            compared, so that the same command goes on where it was.
        dry_run: Check and show what would be done.
        json: Print JSON alone on standard output.

    Raises:
        ConfigError: One of them means nothing.
    """

    objective: str | None
    error: float
    smallest: float
    seeds: int
    name: str | None
    dry_run: bool
    json: bool

    def __post_init__(self) -> None:
        if not 0 < self.error < 1:
            raise ConfigError(f"--error {self.error}: expected a share between 0 and 1, as 0.05")
        if not 0 <= self.smallest < inf:
            raise ConfigError(f"--smallest {self.smallest}: expected 0 or more")
        if self.seeds < 2:
            raise ConfigError(f"--seeds {self.seeds}: expected 2 or more, as one tells nothing")
        if problems := name_is_a_folder({"name": self.name}):
            raise ConfigError(problems[0].replace("name=", "--name ", 1))

    def kept(self) -> dict[str, Any]:
        """What a duel's directory keeps, so that it can be resumed from there."""
        return {key: getattr(self, key) for key in TERMS}


def duel(
    texts: Sequence[str],
    config_dirs: Sequence[Path],
    terms: Terms,
    setting: Setting | None = None,
    sweep: SweepDirectory | None = None,
) -> int:
    """Train the contenders with the same seeds until it is known which is better.

    Args:
        texts: The contenders, as they were typed, and what says for all of them how their jobs
            run, such as `hydra/launcher=slurm` or `sweeps.share=false`.
        config_dirs: Folders with further options of groups.
        terms: What it is fought about.
        setting: How their jobs run; None: the texts say.
        sweep: Where their jobs lie; None: the terms say.
    """
    texts, lines = _split_common(texts)
    setting = setting or read_setting(lines, config_dirs)
    match = Match(read_contenders(texts, config_dirs), terms, setting, config_dirs, sweep)
    if terms.dry_run:
        match.show_plan()
        return 0
    code = match.carry_out()
    if code == 0:
        match.show()
    return code


def resume_duel(sweep: SweepDirectory) -> int:
    """Go on with a duel from its directory, as the command that began it would; the exit code.

    Raises:
        ConfigError: What it is about is not kept as it was written.
    """
    record = sweep.read()
    asked = record["asked"][-1]
    try:
        known = {key: record["duel"][key] for key in TERMS}
        terms = Terms(**known, name=sweep.name, dry_run=False, json=False)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{sweep.asked}: duel: {error}; repeat the duel's command") from None
    setting = Setting(sweep.launcher, sweep.settings.share, asked.get("origins", {}))
    folders = [Path(folder) for folder in asked["config_dirs"]]
    return duel(asked["overrides"], folders, terms, setting, sweep)


def settle(sweep: SweepDirectory) -> int:
    """Let a duel decide among the leaders of a sweep that cannot be told apart; the exit code.

    Its jobs run where those of the sweep did.
    """
    comparison = compare([sweep.path])
    ranking = comparison.ranking
    if ranking.best is None or not ranking.tied:
        return 0
    leaders = [ranking.best, *ranking.tied][:LEADERS]
    left_out = len(ranking.tied) + 1 - len(leaders)
    more = f", the first of {len(ranking.tied) + 1} that are tied" * bool(left_out)
    console().print(f"Settling {len(leaders)} leaders{more}: at most {SEEDS} seeds each")
    texts = [shlex.quote(os.path.relpath(one.ids[0])) for one in leaders]
    name = f"{sweep.name}-settled"
    terms = Terms(comparison.objective.name, ERROR, 0.0, SEEDS, name, False, False)
    where = f"of the sweep {sweep.name}"
    told = dict.fromkeys(["name", "sweeps.objective", "sweeps.share"], where)
    told |= dict.fromkeys((f"launcher.{key}" for key in dotted.flatten(sweep.launcher)), where)
    beside = SweepDirectory(sweep.path.with_name(name))  # wherever this is typed
    code = duel(texts, [], terms, Setting(sweep.launcher, sweep.settings.share, told), beside)
    found = beside.read()["duel"].get("answer")
    if found:
        sweep.note(settled=found)
        conclude(sweep)
    return code


def _split_common(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """The contenders, and the overrides that say for all of them how their jobs are run.

    Raises:
        ConfigError: A contender says that for itself.
    """
    contenders: list[str] = []
    lines: list[str] = []
    for text in texts:
        words = _words(text)
        hydras, own = split_hydras([word for word in words if is_override(word)])
        common = [*hydras, *(line for line in own if line.startswith(f"{KEY}="))]
        if common and len(common) < len(words):
            raise ConfigError(
                f"{redact_argv([text])[0]}: {', '.join(line.lstrip('+') for line in common)} is "
                "for all contenders; write it behind them, as an argument of its own"
            )
        lines += common
        contenders += [] if common else [text]
    return contenders, lines


def read_setting(lines: Sequence[str], config_dirs: Sequence[Path]) -> Setting:
    """How the jobs of a duel run, by what its command line says for all contenders.

    Args:
        lines: Settings of Hydra's launcher, and of what is shared.
        config_dirs: Folders with further options of groups.

    Raises:
        ConfigError: Such a launcher cannot run a duel, or is none, or another value is wrong.
    """
    hydras, shares = split_hydras(lines)
    share, origins = True, dict[str, str]()
    for line in shares:
        if (said := named([line])[KEY]) not in (True, False):
            raise ConfigError(f"{line}: expected true or false")
        share, origins[KEY] = bool(said), "command line"
    for line in hydras:
        if line.lstrip("+").startswith(("hydra/sweeper", "hydra.sweeper")):
            raise ConfigError(f"{line.lstrip('+')}: a duel has no sweeper; it adds seeds by itself")
    if not hydras:
        return Setting({}, share, origins)
    asked = compose_multirun(hydras, config_dirs)
    if not is_ours(asked.launcher):
        raise ConfigError(
            f"{', '.join(line.lstrip('+') for line in hydras)}: a duel adds seeds until it is "
            "decided, and only our own launchers tell it of each job's end; take "
            "hydra/launcher=local, slurm or ray"
        )
    return Setting(asked.launcher, share, origins | launcher_origins(asked, hydras))


def read_contenders(texts: Sequence[str], config_dirs: Sequence[Path]) -> list[Contender]:
    """The contenders by what was typed: a run's directory, or overrides in one argument.

    Overrides behind a run's directory change that run's configuration; without one in front they
    are those of `truesweep train`.

    Raises:
        ConfigError: There are fewer than two, or two are the same.
    """
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise ConfigError(
            f"a duel is of 2 to {len(ascii_uppercase)} contenders, and {len(texts)} are given: "
            "truesweep duel outputs/lm/1a2b3c4d optimizer.lr=0.03"
        )
    contenders: list[Contender] = []
    base: Run | None = None
    names: dict[str, str] = {}
    for letter, text in zip(ascii_uppercase, texts, strict=False):
        run, lines = base, _words(text)
        if lines and not is_override(lines[0]):
            run = Run.open(Path(lines[0]))
            names[lines[0]] = f"{run.id} {run.label}" if run.varies else lines[0]
            base, lines = base or run, lines[1:]
        how = partial(_composed, lines, config_dirs)
        folder = Path.cwd()
        if run is not None:
            how, folder = partial(_changed, run, lines), run.started_in.absolute()
        typed = redact_argv([text])[0]
        contenders.append(Contender(letter, typed, typed, folder, how))
    return _without_common_words(contenders, names)


def _words(text: str) -> list[str]:
    """The words of a contender, as a shell parts them."""
    try:
        return shlex.split(text)
    except ValueError:
        raise ConfigError(f"{redact_argv([text])[0]}: a quote in it is not closed") from None


def _without_common_words(
    contenders: Sequence[Contender], names: Mapping[str, str]
) -> list[Contender]:
    """The same, each shown by what not all of them have.

    Args:
        contenders: As they were typed.
        names: What the directories among their words are called; of a sweep's job, what it varies.
    """
    words = [shlex.split(one.typed) for one in contenders]
    common = set.intersection(*map(set, words))
    kept = [[names.get(word, word) for word in own if word not in common] for own in words]
    shown = [" ".join(own) for own in kept]
    return [replace(one, text=text or NOTHING) for one, text in zip(contenders, shown, strict=True)]


def _composed(lines: Sequence[str], config_dirs: Sequence[Path], more: Sequence[str]) -> Composed:
    return compose([*lines, *more], config_dirs)


def _changed(run: Run, lines: Sequence[str], more: Sequence[str]) -> Composed:
    return recompose(run.config, run.read_config(), [*lines, *more])


class Match:
    """The jobs of a duel, and what they say so far.

    Args:
        contenders: The first one is whom the others are compared with.
        terms: What it is about.
        setting: How its jobs run; None: in the slots of this machine.
        config_dirs: The folders in which the contenders' options were looked up.
        sweep: Where its jobs lie; None: the terms say.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        terms: Terms,
        setting: Setting | None = None,
        config_dirs: Sequence[Path] = (),
        sweep: SweepDirectory | None = None,
    ) -> None:
        self.terms = terms
        self._config_dirs = config_dirs
        self.setting = setting or Setting()
        composed = [one.compose([]) for one in contenders]
        self._configs = [complete(one.config, one.origins) for one in composed]
        config = self._configs[0]
        self._first_seed = int(config["seed"])
        checkpoint = config["callbacks"]["checkpoint"]
        self.objective = terms.objective or str(checkpoint["monitor"])
        self.declared = declared_figures(config)
        self.mode: Mode = self._mode(checkpoint)
        asked = [self._asked(its) for its in self._configs]
        for one, its in zip(contenders, asked, strict=True):
            twin = contenders[asked.index(its)]
            if twin is not one:
                raise ConfigError(
                    f"contenders {twin.letter} and {one.letter} are the same configuration, the "
                    "seed aside; give each of them something of its own"
                )
        name = terms.name or f"duel-{fingerprint({'points': asked})[:8]}"
        self.sweep = sweep or SweepDirectory.called(name)
        said = [one.origins(f"model.{DRAWN}") is not None for one in composed]
        self.contenders = self._drawn_by_name(contenders, said)
        direction = as_direction(self.mode)
        share = self.setting.share
        self.settings = Sweep(objective=self.objective, direction=direction, share=share)
        self._origins = self._told(composed[0].origins)
        self._new: list[PlannedJob] = []
        self.jobs: dict[str, dict[int, Run]] = {one.letter: {} for one in contenders}
        self.executor: Executor = make_executor(self.setting.launcher)

    def _told(self, origins: Origins) -> dict[str, str]:
        """Where what is kept of its sweep comes from, by dotted key; the others are defaults.

        Args:
            origins: Of the first contender's configuration.
        """
        where = origins(MONITOR)
        chosen = f"{MONITOR} of contender A" + (f" ({where})" if where else "")
        fought = self.terms.kept()
        typed = [key for key, value in TERMS.items() if fought[key] != value]
        return {
            **{f"duel.{key}": f"command line: --{key}" for key in typed},
            "name": "command line: --name" if self.terms.name else "from what was asked",
            "study": "from the name",
            "sweeps.objective": "command line: --objective" if self.terms.objective else chosen,
            "sweeps.direction": "from its objective",
            **self.setting.origins,
        }

    def _mode(self, checkpoint: Mapping[str, Any]) -> Mode:
        """Which value is the best: what chooses the best checkpoint, or the figure's declaration.

        Raises:
            ConfigError: Neither says.
        """
        if checkpoint["monitor"] == self.objective and checkpoint["mode"]:
            return cast(Mode, checkpoint["mode"])
        remedy = "Choose another, such as --objective val/loss"
        return require_mode(self.objective, self.declared, "--objective", remedy)

    def _drawn_by_name(
        self, contenders: Sequence[Contender], said: Sequence[bool]
    ) -> list[Contender]:
        """The contenders, their weights drawn by name if one then begins more like the first one.

        That is where some shapes differ, and others do not. One that says itself how they are drawn
        stays as it is; and so do all of a duel that was begun before there was a choice.
        """
        free, found = set[str](), dict[str, dict[str, tuple[int, ...]]]()
        for one, says, config in zip(contenders, said, self._configs, strict=True):
            drawn = config["model"].get(DRAWN)
            if drawn == "sequential" and not says:
                free.add(one.letter)
            if drawn == "by_name" or one.letter in free:
                with chdir(one.folder):
                    found[one.letter] = shapes(config)
        first = found.get(contenders[0].letter, {})
        gains = any(its != first and its.items() & first.items() for its in found.values())
        if not gains or any(job.varies.get("contender") in free for job in self._in_order()):
            return list(contenders)
        added = (f"model.{DRAWN}=by_name",)
        return [replace(one, added=added) if one.letter in free else one for one in contenders]

    def _in_order(self) -> list[Run]:
        """The jobs that there are already whose weights are drawn one after the other."""
        known = [job for job in self.sweep.jobs() if job.problem is None]
        return [job for job in known if job.read_config()["model"].get(DRAWN) != "by_name"]

    def common(self) -> dict[str, Common]:
        """What each challenger begins with as the first contender does, by its letter."""
        begun = []
        for one, config in zip(self.contenders, self._configs, strict=True):
            with chdir(one.folder):
                its = update(config, [*one.added, f"seed={self._first_seed}"])
                begun.append(Beginning.of(its))
        return {
            one.letter: its.common(begun[0])
            for one, its in zip(self.contenders[1:], begun[1:], strict=True)
        }

    def shared(self) -> list[str]:
        """A sentence on what the runs of one seed have in common, for each challenger."""
        first, lines = self.contenders[0].letter, []
        if any(one.added for one in self.contenders):
            lines.append(
                f"Some shapes differ, so weights are drawn by name (model.{DRAWN}=by_name)."
            )
        for letter, its in self.common().items():
            order = "the same order as" if its.order else "another order than"
            line = f"With the same seed, {letter} takes its samples in {order} {first}"
            if its.of:
                share = "none" if not its.parameters else count(its.parameters)
                share = "all" if its.parameters == its.of else share
                line += (
                    f", and begins with {share} of its {count(its.of)} parameters as {first} does"
                )
            lines.append(f"{line}.")
        return lines

    def _asked(self, config: dict[str, Any]) -> str:
        """What is asked of a contender, whatever the seed."""
        asked = config | {"name": ""}
        return fingerprint({key: value for key, value in asked.items() if key != "seed"})[:8]

    def seeds(self, count: int) -> list[int]:
        """So many seeds, counted up from the first contender's own."""
        return [self._first_seed + i for i in range(count)]

    def plan(self, seeds: Sequence[int]) -> dict[str, list[PlannedJob]]:
        """The jobs that the undecided still need for these seeds, all of them checked.

        Raises:
            UserError: One of them cannot run.
        """
        undecided = self.undecided()
        planned = dict[str, list[PlannedJob]]()
        for one in self.contenders:
            if one.letter == self.contenders[0].letter or one.letter in undecided:
                with chdir(one.folder):
                    wanted = [one.candidate(s) for s in seeds if s not in self.jobs[one.letter]]
                    planned[one.letter] = plan_candidates(self.sweep.name, wanted).jobs
        planned = self._sharing(planned)
        jobs = [job for listed in planned.values() for job in listed]
        check_objectives(jobs, self.settings, "--objective ")
        check_disk([job for job in jobs if self.sweep.find(job.config) is None], self.sweep.path)
        check_room(self.executor, jobs)
        return planned

    def _sharing(self, planned: Mapping[str, list[PlannedJob]]) -> dict[str, list[PlannedJob]]:
        """The same, those of one seed going on from each other's steps where these are the same.

        Of contenders whose paths are relative to one folder: others may have other data there.
        """
        found: dict[str, PlannedJob] = {}
        for folder in dict.fromkeys(one.folder for one in self.contenders):
            letters = [one.letter for one in self.contenders if one.folder == folder]
            jobs = [job for letter in letters for job in planned.get(letter, ())]
            found |= {job.id: job for job in sharing(self.sweep, jobs, self.settings)[0]}
        self._new = list(found.values())
        return {k: [found.get(job.id, job) for job in jobs] for k, jobs in planned.items()}

    def saved(self) -> list[str]:
        """What is trained once for several of the jobs that were planned last, in a sentence."""
        if not self.settings.share:
            return []
        nothing = (
            "No steps are shared: of one seed the contenders differ from the first step on, and "
            "each seed is another training."
        )
        return [f"{line}." for line in trunks.describe(self._new)] or [nothing]

    def undecided(self) -> list[str]:
        """The letters of those of whom nothing is known yet."""
        found = {letter: one.verdict for letter, one in self.duels().items()}
        return [
            one.letter
            for one in self.contenders[1:]
            if found.get(one.letter, "undecided") == "undecided"
        ]

    def show_plan(self) -> None:
        """Check its first jobs, and print what would be done."""
        self.plan(self.seeds(min(FIRST, self.terms.seeds)))
        out = console()
        for line in [self._begun(), *self.shared(), *self.saved()]:
            say(out, line)

    def _begun(self) -> str:
        """What it begins with, and where."""
        return (
            f"{len(self.contenders)} contenders, {min(FIRST, self.terms.seeds)} seeds at first, "
            f"{self.terms.seeds} at most, by {self.objective}, in "
            f"{os.path.relpath(self.sweep.path)}, on {describe(self.executor)}"
        )

    def carry_out(self) -> int:
        """Add seeds until all is decided or spent; gives the exit code."""
        count = min(FIRST, self.terms.seeds)
        planned = self.plan(self.seeds(count))
        out = console(stderr=self.terms.json)
        for line in [self._begun(), *trunks.describe(self._new)]:
            say(out, line)
        while True:
            code = self._round(planned)
            if code or not self.undecided() or count >= self.terms.seeds:
                break
            count = min(count + EACH, self.terms.seeds)
            planned = self.plan(self.seeds(count))
        if code not in STOPPED:
            self.sweep.note(duel={**self.terms.kept(), "answer": self.answer()})
            sum_up(self.sweep, self._display(), winner=False)  # that is judged by pairs, below
        return code

    def _display(self) -> Display:
        return Display(self.sweep.name, Board.of(self.settings), console(stderr=self.terms.json))

    def _round(self, planned: Mapping[str, Sequence[PlannedJob]]) -> int:
        typed = [one.typed for one in self.contenders]
        self.sweep.ask(
            typed,
            self._config_dirs,
            self.settings,
            self.setting.launcher,
            origins=self._origins,
            duel=self.terms.kept(),
        )
        for one in self.contenders:
            with chdir(one.folder):
                provenance = collect(redact_argv(sys.argv), {})
                made = add_jobs(self.sweep, planned.get(one.letter, []), provenance)
            for job in made:
                self.jobs[one.letter][int(job.varies["seed"])] = job
        jobs = [job for seeds in self.jobs.values() for job in seeds.values()]
        if all(job.state == "completed" for job in jobs):
            return 0
        source, display = Listed(jobs), self._display()
        return drive(self.sweep, source, self.executor, self.settings, display, last=False)

    def values(self, letter: str) -> dict[int, float]:
        """A contender's figures by seed."""
        found = {
            s: job.objective(self.objective, self.mode) for s, job in self.jobs[letter].items()
        }
        return {s: value for s, value in found.items() if value is not None and isfinite(value)}

    def duels(self) -> dict[str, Duel]:
        """What is known of each challenger, by its letter; nothing before there are seeds."""
        champion = self.values(self.contenders[0].letter)
        error = self.terms.error / max(1, len(self.contenders) - 1)  # Bonferroni
        judged = {}
        for one in self.contenders[1:]:
            own = self.values(one.letter)
            seeds = sorted(champion.keys() & own.keys())
            if seeds:
                judged[one.letter] = judge(
                    [champion[s] for s in seeds],
                    [own[s] for s in seeds],
                    mode=self.mode,
                    error=error,
                    smallest=self.terms.smallest,
                )
        return judged

    def show(self) -> None:
        """Print a table and a sentence for each challenger, or all of it as JSON."""
        duels = self.duels()
        if self.terms.json:
            told = {
                "objective": self.objective,
                "mode": self.mode,
                "error": self.terms.error,
                "directory": str(self.sweep.path),
                "contenders": {
                    one.letter: {"text": one.text, "values": self.values(one.letter)}
                    for one in self.contenders
                },
                "duels": {letter: asdict(one) for letter, one in duels.items()},
                "common": {letter: asdict(one) for letter, one in self.common().items()},
            }
            print(dump_json(told, indent=2))
            return
        out = console()
        out.print(self._table(duels))
        for letter, one in duels.items():
            say(out, self._sentence(letter, one))
        for line in self.shared():
            say(out, line)

    def _table(self, duels: Mapping[str, Duel]) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("", "contender", "seeds", self.objective, "difference", "interval"):
            right = column not in ("", "contender")
            table.add_column(column, justify="right" if right else "left", overflow="fold")
        values = {one.letter: list(self.values(one.letter).values()) for one in self.contenders}
        means = figures(
            (sum(v) / len(v) if v else None for v in values.values()),
            digits_of(self.objective, self.declared),
        )
        for one, mean in zip(self.contenders, means, strict=True):
            known = duels.get(one.letter)
            beside = ["", ""]
            if known is not None:
                beside = [signed(known.difference, 3), _interval(known)]
            table.add_row(one.letter, one.text, str(len(values[one.letter])), mean, *beside)
        return table

    def _sentence(self, letter: str, one: Duel) -> Text:
        title, text = self._said(letter, one)
        return Text.assemble((title, "bold"), text)

    def answer(self) -> list[dict[str, Any]]:
        """What is known of each challenger, for its report: `title`, `text`, and if it `won`."""
        named = [one for one in self.contenders if one.text != NOTHING]
        names = "; ".join(f"{one.letter} is {one.text}" for one in named)
        return [
            {
                "title": title.rstrip(": "),
                "text": f"{title}{text} {names}.",
                "won": one.verdict in ("better", "worse"),
            }
            for letter, one in self.duels().items()
            for title, text in [self._said(letter, one)]
        ]

    def _said(self, letter: str, one: Duel) -> tuple[str, str]:
        """A sentence, and how it begins."""
        first, by = self.contenders[0].letter, self.objective
        share = f"{value(100 * (1 - self.terms.error))} % interval"
        known = f"({share} {_interval(one)}) over {plural(one.seeds, 'paired seed')}"
        if one.verdict in ("better", "worse"):
            winner, loser = (letter, first) if one.verdict == "better" else (first, letter)
            title = f"{winner} is better than {loser} "
            text = f"by {figure(abs(one.difference), 3)} in {by} {known}"
        elif one.verdict == "alike":
            title = f"{letter} and {first} are alike: "
            text = f"they differ by less than {value(self.terms.smallest)} in {by} {known}"
        else:
            title = f"{letter} against {first} is undecided: "
            text = f"{signed(one.difference, 3)} in {by} {known}"
        return title, f"{'; '.join([text, *foretold(one)])}."


def foretold(one: Duel) -> list[str]:
    """How many seeds differences would take that are not settled by these."""
    sizes = {"half as large": one.needed_for_half}
    if one.verdict == "undecided":
        sizes = {"of that size": one.needed, **sizes}
    told = []
    for size, seeds in sizes.items():
        if seeds is not None:
            told.append(f"a difference {size} would take about {count(seeds)} seeds")
        elif one.difference and isfinite(one.low) and one.low < one.high:  # there is a spread
            told.append(f"a difference {size} would take more than {count(LIMIT)} seeds")
            break
    return told


def _interval(one: Duel) -> str:
    if not isfinite(one.low):
        return "not known yet"
    return f"{signed(one.low, 3)} to {signed(one.high, 3)}"

"""The command line. Each command's work is imported only when that command is called."""

import atexit
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

import truesweep
from truesweep.errors import UserError, describe_os_error
from truesweep.interrupts import PREEMPTED, interrupt

app = typer.Typer(
    name="truesweep",
    help="Train transformer language models and sweep their hyperparameters, with numbers that can "
    "be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"truesweep {truesweep.__version__}")
        raise typer.Exit()


def _load_libraries() -> None:
    """Import what training needs, before anything else imports a part of it more slowly.

    A signal ends the process at once: nothing is to be cleaned up yet, and what its handler raises
    might be lost in the code of an extension, such as torch's where that imports NumPy.
    """
    before = {signum: signal.signal(signum, _vanish) for signum in PREEMPTIONS}
    import truesweep.libraries  # noqa: F401

    for signum, handler in before.items():
        signal.signal(signum, handler)


@app.callback()
def _of_all_commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """What can be asked without a command."""


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Overrides in Hydra's grammar, such as optimizer.lr=3e-4 or model=llama.",
        show_default=False,
    ),
]
ConfigDirs = Annotated[
    list[Path] | None,
    typer.Option("--config-dir", help="A folder with configuration groups of your own."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Run = Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")]


@app.command()
def train(
    overrides: Overrides = None,
    config_dir: ConfigDirs = None,
    repeat: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Repeat the run in this directory, from its config.yaml and on its data: "
            "--from DIR name=again.",
        ),
    ] = None,
    multirun: Annotated[
        bool,
        typer.Option(
            "-m",
            "--multirun",
            help="A run for each combination of values, as in optimizer.lr=1e-3,3e-3, or what "
            "sweeps=NAME says.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Compose, check and show the plan; start nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
    cfg: Annotated[
        str | None,
        typer.Option("--cfg", help="Print the configuration and start nothing: job."),
    ] = None,
    resolved: Annotated[
        bool, typer.Option("--resolve", help="With --cfg: values in place of ${…}.")
    ] = False,
    jobs: Annotated[
        str | None,
        typer.Option(
            help="With -m: prepare the jobs and print a command for each, for any other scheduler: "
            "json.",
        ),
    ] = None,
    wandb_sweep: Annotated[
        Path | None,
        typer.Option(
            help="With -m: write the sweep to this file for `wandb sweep` instead of running it."
        ),
    ] = None,
) -> None:
    """Train a model: compose, check, freeze, train, choose the best, score the test split once."""
    if wandb_sweep and not multirun:
        raise typer.BadParameter("--wandb-sweep writes a sweep; add -m, or leave it out")
    if json and not dry_run:
        raise typer.BadParameter("--json prints a plan; add --dry-run")
    if jobs and not multirun:
        raise typer.BadParameter("--jobs prints the jobs of a sweep; add -m")
    if resolved and not cfg:
        raise typer.BadParameter("--resolve prints values; add --cfg job")
    if cfg and (multirun or repeat):
        raise typer.BadParameter("--cfg prints one configuration; leave -m and --from out")
    _load_libraries()
    if cfg:
        from truesweep.commands.show import print_composed

        raise typer.Exit(print_composed(cfg, overrides or [], config_dir or [], resolved))
    if multirun:
        from truesweep.commands.sweep import print_jobs, sweep, write_wandb_sweep

        if repeat:
            raise typer.BadParameter("a sweep cannot repeat a run; leave --from or -m out")
        if wandb_sweep:
            written = write_wandb_sweep(overrides or [], config_dir or [], wandb_sweep, dry_run)
            raise typer.Exit(written)
        if jobs:
            raise typer.Exit(print_jobs(jobs, overrides or [], config_dir or []))
        raise typer.Exit(sweep(overrides or [], config_dir or [], dry_run, json))
    from truesweep.commands.train import train as work

    raise typer.Exit(work(overrides or [], config_dir or [], repeat, dry_run, json))


@app.command()
def show(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR] | [KEY=VALUE]...",
            help="A run's or a sweep's directory, or overrides.",
            show_default=False,
        ),
    ] = None,
    config_dir: ConfigDirs = None,
    resolve: Annotated[
        bool, typer.Option("--resolve", help="Values in place of ${…}; secrets stay out.")
    ] = False,
    json: Json = False,
) -> None:
    """Print a composed configuration, each value with its origin: file and line, default, …."""
    from truesweep.commands.show import show as work

    raise typer.Exit(work(arguments or [], config_dir or [], resolve, json))


@app.command()
def resume(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run's, a sweep's or a duel's directory.")
    ],
    overrides: Overrides = None,
) -> None:
    """Continue a run or a sweep from its directory, and nothing else.

    Overrides may make a run longer (trainer.max_steps=…) or change how it is carried out
    (trainer.devices=…, data.micro_batch_size=…), never what is learned from what.
    """
    _load_libraries()
    from truesweep.commands.resume import resume as work

    raise typer.Exit(work(directory, overrides or []))


@app.command()
def status(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A sweep's or a run's directory.")
    ],
    json: Json = False,
) -> None:
    """Show the jobs of a sweep: state, progress, best value, time left."""
    from truesweep.commands.status import status as work

    raise typer.Exit(work(directory, json))


@app.command()
def evaluate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR] [KEY=VALUE]...",
            help="A run's directory and what to change of its configuration, such as data.test=…; "
            "or a model's folder or GGUF file, with data=files data.test=… and its like; or no "
            "directory, and a configuration with model=pretrained.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="The split: train, val or test.")] = "test",
    checkpoint: Annotated[str, typer.Option(help="Which checkpoint: best or last.")] = "best",
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Instead of a split, tasks of lm-evaluation-harness: names, or files of tasks, as "
            "arc_easy,mine.yaml.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --tasks: so many samples of each.")
    ] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="With --tasks: solved examples before each sample.")
    ] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="With --tasks: ask as in a chat.")
    ] = False,
    config_dir: ConfigDirs = None,
    json: Json = False,
) -> None:
    """Score a run's best checkpoint, or a pretrained model, on a split or by tasks."""
    if tasks is None and (limit or num_fewshot is not None or apply_chat_template):
        raise typer.BadParameter("--limit and its like say how --tasks are given; add --tasks")
    _load_libraries()
    if tasks is not None:
        from truesweep.commands.evaluate_tasks import evaluate_tasks
        from truesweep.metrics.harness import Asked

        names = tuple(name.strip() for name in tasks.split(",") if name.strip())
        asked = Asked(names, limit, num_fewshot, apply_chat_template)
        raise typer.Exit(evaluate_tasks(arguments or [], asked, checkpoint, config_dir or [], json))
    from truesweep.commands.evaluate import evaluate as work

    raise typer.Exit(work(arguments or [], split, checkpoint, config_dir or [], json))


@app.command()
def compare(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Runs, sweeps, or folders above them."),
    ],
    objective: Annotated[
        str | None, typer.Option(help="Rank by this figure, such as val/loss or test/bleu.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Sort by any key or figure instead, ascending.")
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", help="Only runs with, say, 'model.depth=4' or 'optimizer.lr<1e-3'."
        ),
    ] = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Where the report goes; by default into the sweep's directory, "
            "and nowhere with --filter."
        ),
    ] = None,
) -> None:
    """Rank runs, say what mattered, and write it all as one page: report.html."""
    from truesweep.commands.compare import Options, compare_runs

    options = Options(objective, sort, condition or [], json, csv, html)
    raise typer.Exit(compare_runs(directories, options))


@app.command()
def duel(
    contenders: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C]... [hydra/launcher=NAME]",
            help="Runs' directories, or overrides in quotes; behind a run's directory they change "
            "that run's configuration. And where all jobs run, as in train -m.",
        ),
    ],
    objective: Annotated[
        str | None,
        typer.Option(help="The figure that decides; by default what the best checkpoint is by."),
    ] = None,
    error: Annotated[
        float, typer.Option(help="How often a winner may be named where there is none.")
    ] = 0.05,
    smallest: Annotated[
        float, typer.Option(help="The least difference that matters; 0: every one does.")
    ] = 0.0,
    seeds: Annotated[int, typer.Option(help="The most seeds to spend.")] = 20,
    name: Annotated[
        str | None, typer.Option(help="The folder of its jobs under outputs/sweeps.")
    ] = None,
    config_dir: ConfigDirs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it; start nothing.")] = False,
    json: Json = False,
) -> None:
    """Settle whether A is really better than B: paired seeds, as few as it takes.

    It may be repeated, with more seeds, and goes on where it was.
    """
    _load_libraries()
    from truesweep.commands.duel import Terms
    from truesweep.commands.duel import duel as work

    terms = Terms(objective, error, smallest, seeds, name, dry_run, json)
    raise typer.Exit(work(contenders, config_dir or [], terms))


@app.command()
def transfer(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DIR | --check [DIR] [KEY=VALUE]...",
            help="A sweep's directory, over rates and sizes; with --check overrides, or a run's "
            "directory and what to change of its configuration.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Train a few steps of several sizes and name the layers that follow it."
        ),
    ] = False,
    widths: Annotated[
        str | None, typer.Option(help="With --check: the widths, such as 32,64,128.")
    ] = None,
    depths: Annotated[
        str | None, typer.Option(help="With --check: the depths, such as 2,4,8.")
    ] = None,
    steps: Annotated[int, typer.Option(help="With --check: optimizer steps.")] = 6,
    seeds: Annotated[int, typer.Option(help="With --check: repetitions, which tell noise.")] = 3,
    objective: Annotated[
        str | None, typer.Option(help="Judge a sweep by this figure, such as val/loss.")
    ] = None,
    config_dir: ConfigDirs = None,
    json: Json = False,
) -> None:
    """Say whether one learning rate is for all sizes: a sweep's rates by its widths and depths."""
    if not check:
        from truesweep.commands.transfer import transfer as work

        raise typer.Exit(work(arguments or [], config_dir or [], objective, json))
    _load_libraries()
    from truesweep.commands.coordinates import Checked
    from truesweep.commands.coordinates import check as work_on

    asked = Checked(_numbers(widths), _numbers(depths), steps, seeds, json)
    raise typer.Exit(work_on(arguments or [], config_dir or [], asked))


def _numbers(text: str | None) -> list[int]:
    """Whole numbers with commas between them."""
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected numbers, such as 64,128,256") from None


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A run's directory.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another's.")],
    json: Json = False,
) -> None:
    """Show in what two runs differ: configuration, versions, data, results."""
    from truesweep.commands.diff import diff as work

    raise typer.Exit(work(first, second, json))


@app.command()
def generate(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A run's directory, or a Hugging Face folder, an adapter's, or a GGUF file.",
        ),
    ],
    prompt: Annotated[
        str | None, typer.Option(help="What to continue, answer, translate or classify.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="The same, one a line, from a file; - is standard input.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="Which checkpoint: best or last.")] = "best",
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest output, tokens.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 takes the likeliest token; 1 samples as it is.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample among so many tokens.")] = None,
    beam_size: Annotated[int | None, typer.Option(help="Translation: hypotheses kept.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Continue the text, even if the folder has a chat template."),
    ] = False,
    trust_remote_code: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR", help="Run the code that comes with this model; its folder once more."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """Text from a language model, an answer of a chat, a translation, or a class."""
    if prompt is not None and file is not None:
        raise typer.BadParameter("--prompt is one text, and --file names many; leave one out")
    _load_libraries()
    from truesweep.commands.generate import Options
    from truesweep.commands.generate import generate as work

    trusted = tuple(trust_remote_code or ())
    options = Options(max_new_tokens, temperature, top_k, beam_size, seed, raw, trusted)
    raise typer.Exit(work(directory, prompt, file, checkpoint, options, json))


@app.command()
def export(
    directory: Run,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    checkpoint: Annotated[str, typer.Option(help="Which checkpoint: best or last.")] = "best",
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge an adapter into the base's weights.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a Hugging Face folder that `from_pretrained` loads; of an adapter, one for peft."""
    _load_libraries()
    from truesweep.commands.export import export as work

    raise typer.Exit(work(directory, output, checkpoint, merge, json))


@app.command()
def verify(
    directory: Run,
    steps: Annotated[int, typer.Option(help="Optimizer steps to train, each time.")] = 6,
    json: Json = False,
) -> None:
    """Prove that a run's numbers depend on its configuration alone: repeat, resume, split, share.

    Trains a few of its steps again in other ways, and says what is identical and what is not.
    """
    _load_libraries()
    from truesweep.commands.verify import verify_run as work

    raise typer.Exit(work(directory, steps, json))


@app.command()
def data(
    overrides: Overrides = None,
    config_dir: ConfigDirs = None,
    show: Annotated[int, typer.Option(help="Examples of each finding, 20 at most.")] = 3,
    html: Annotated[
        Path | None, typer.Option(help="Write a page, too, with examples of each finding.")
    ] = None,
    json: Json = False,
) -> None:
    """Prepare and describe the data: counts, lengths, labels, duplicates, leaks between splits."""
    _load_libraries()
    from truesweep.commands.data import data as work

    raise typer.Exit(work(overrides or [], config_dir or [], show, json, html))


@app.command()
def sync(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Runs' or sweeps' directories.")
    ],
    json: Json = False,
) -> None:
    """Send what was recorded offline to Weights & Biases."""
    from truesweep.commands.sync import sync as work

    raise typer.Exit(work(directories, json))


PREEMPTIONS = (signal.SIGTERM, signal.SIGUSR1)


def _leave(signum: int, frame: FrameType | None) -> None:
    """Leave, and clean up without being interrupted by the same signal, sent on by others."""
    for each in PREEMPTIONS:
        signal.signal(each, lambda *_: None)
    interrupt(SystemExit(PREEMPTED), frame)


def _vanish(*_: object) -> None:
    os._exit(PREEMPTED)


def _end() -> None:
    """Ignore signals that others hand on, and the timer of `interrupt`, when all else is done.

    The interpreter forgets handlers a while before the process ends, which they would then kill.
    """
    signal.setitimer(signal.ITIMER_REAL, 0)
    for signum in (*PREEMPTIONS, signal.SIGINT, signal.SIGALRM):
        signal.signal(signum, signal.SIG_IGN)


def main() -> None:
    """Run a command; what a user can mend ends it with one message and exit code 2."""
    atexit.register(_end)  # before all others, so that it is the last one to be called
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its hints are not for our users
    for signum in PREEMPTIONS:  # where nothing runs yet, or no longer
        signal.signal(signum, _leave)
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if (said := describe_os_error(error)) is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(2)

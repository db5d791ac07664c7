"""`truesweep export`."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from truesweep.compat import forgets_pad_row
from truesweep.data import tokenizers
from truesweep.errors import ConfigError
from truesweep.figures import written
from truesweep.jobs.load import Loaded, load_run, named_checkpoint
from truesweep.jobs.parts import task_class
from truesweep.models.adapters import merged, save_adapter
from truesweep.models.quantize import has_quantized
from truesweep.record.files import dump_json
from truesweep.runs.run import Run
from truesweep.terminal import console, warn
from truesweep.text import count

IN_FOUR_BITS = (
    "It was trained beside weights in four bits (NF4): load the base as "
    'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4") does for the same figures'
)
"""What to know of an adapter by itself."""


def export(
    directory: Path, output: Path, checkpoint: str, merge: bool = False, as_json: bool = False
) -> int:
    """Write weights (safetensors), configuration, tokenizer and model card to a new folder.

    Of a model with an adapter, the adapter alone, unless it is merged into the base's weights.
    """
    which = named_checkpoint(checkpoint)
    if output.exists():
        raise ConfigError(f"{output} exists; name a new folder, or delete it")
    run = Run.open(directory)
    config = run.read_config()
    loaded = load_run(run, task_class(config).head, which)
    adapted = loaded.tuner is not None
    if merge and not adapted:
        raise ConfigError("--merge: this run has no adapter, its model is exported whole")
    if adapted and not merge and not config["model"].get("name_or_path"):
        raise ConfigError(
            "this run's adapter stands on a model that was made for it, and is of no use alone; "
            "add --merge, which exports both as one"
        )
    rounded = has_quantized(loaded.model) and not merge
    model = merged(loaded.model, loaded.tuner) if merge else loaded.model
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    # The folder appears when it is whole.
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.absolute().parent))
    try:
        if adapted and not merge:
            save_adapter(loaded.tuner, scratch, config["model"].get("name_or_path"))
        else:
            if ends := task_class(config).ends(loaded.tokenizer):
                model.generation_config.eos_token_id = ends
            model.save_pretrained(scratch)
            if forgets_pad_row(model):
                model.config.pad_token_id = None  # tokenizer and generation have it
                model.config.save_pretrained(scratch)
        notes = [tokenizers.save(loaded.tokenizer, scratch)]
        if rounded:
            notes.append(IN_FOUR_BITS)
        note = ". ".join(filter(None, notes)) or None
        library = "peft" if adapted and not merge else "transformers"
        card = model_card(run, config, loaded, note, library)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        for path in (scratch, *scratch.rglob("*")):  # safetensors' files nobody else may read
            path.chmod(0o755 if path.is_dir() else 0o644)
        scratch.rename(output)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    if as_json:
        files = sorted(file.name for file in output.iterdir())
        print(dump_json({"directory": str(output), "files": files, "note": note}, indent=2))
        return 0
    console().print(f"Exported to {output}")
    warn([note] if note else [])
    return 0


def model_card(
    run: Run, config: dict[str, Any], loaded: Loaded, note: str | None, library: str
) -> str:
    """The folder's README: what the model is, how it was trained, and its figures.

    Args:
        run: The run.
        config: Its configuration.
        loaded: Its model.
        note: What those who load it should know.
        library: What loads it: `transformers`, or `peft` an adapter.
    """
    base = config["model"].get("name_or_path")
    pipeline = task_class(config).pipeline
    results = run.read_results()
    figures = [
        f"| {key} | {written(key, value, run.figures)} |"
        for key, value in results.items()
        if "/" in key and isinstance(value, int | float)
    ]
    settings = [
        f"- `{key}`: {config[group].get(name)}"
        for key, group, name in (
            ("model.architecture", "model", "architecture"),
            ("optimizer.lr", "optimizer", "lr"),
            ("data.batch_size", "data", "batch_size"),
            ("trainer.max_steps", "trainer", "max_steps"),
            ("trainer.max_epochs", "trainer", "max_epochs"),
        )
        if config[group].get(name) is not None
    ]
    return "\n".join(
        [
            "---",
            f"library_name: {library}",
            *([f"base_model: {json.dumps(base)}"] if base else []),
            *([f"pipeline_tag: {pipeline}"] if pipeline else []),
            "tags: [truesweep]",
            "---",
            "",
            f"# {config['name']}",
            "",
            f"{type(loaded.model).__name__} trained with truesweep "
            f"({count(loaded.model.num_parameters())} parameters).",
            *(["", f"{note}."] if note else []),
            "",
            "## Training",
            "",
            *settings,
            f"- `seed`: {config['seed']}",
            "",
            "## Figures",
            "",
            "| figure | value |",
            "|---|---|",
            *figures,
            "",
        ]
    )

"""A frozen configuration: as text, as a fingerprint, read back."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from truesweep import dotted
from truesweep.errors import ConfigError, DataError
from truesweep.record.files import SEAL, unsealed


class _Dumper(yaml.SafeDumper):
    """Writes equal lists out each time instead of pointing from one to another."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def freeze(config: Mapping[str, Any]) -> str:
    """The configuration as YAML, in its own order, one text for one configuration."""
    text: str = yaml.dump(
        dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000
    )
    return text


ADDED_SINCE: dict[str, Any] = {
    "data.verify": "sample",
    "data.decontaminate": "warn",
    "data.clean.splits": ["train"],
    "data.clean.paragraphs": None,
    "data.clean.unicode": False,
    "data.clean.min_words": 0,
    "data.clean.max_words": None,
    "data.clean.max_symbols": None,
    "data.clean.gopher": False,
    "data.clean.gopher_repetition": False,
    "data.clean.c4": False,
    "data.clean.languages": [],
    "data.clean.copies": False,
    "data.clean.length_ratio": None,
    "data.clean.conflicts": False,
    "data.clean.label_errors": False,
    "data.clean.duplicates": False,
    "data.clean.near_duplicates": False,
    "data.clean.min_per_label": 0,
    "data.clean.max_per_label": None,
    "data.clean.similarity": 0.8,
    "data.clean.across_sources": False,
    "adapter": None,
    "adapter.quantize": None,
    "callbacks.checkpoint.background": None,
    "callbacks.checkpoint.keep_optimizer": False,
    "callbacks.harness": {
        "_target_": "truesweep.callbacks.Harness",
        "tasks": None,
        "every_n_steps": None,
        "limit": None,
        "num_fewshot": None,
        "apply_chat_template": False,
        "batch_size": None,
    },
    "logger.job_type": None,
    "logger.name": None,
    "logger.notes": None,
    "model.activation_checkpointing": False,
    "model.base_depth": None,
    "model.base_heads": None,
    "model.base_width": None,
    "model.init_seeding": "sequential",
    "model.labels": None,
    "model.parametrization": "standard",
    "model.trust_remote_code": None,
    "optimizer.adapter_b_lr_ratio": 1.0,
    "task.bleu_tokenize": None,
    "task.metrics": None,
    "task.rouge_words": "english",
    "trainer.fp8": False,
    "trainer.matmul_precision": "auto",
    "tokenizer.chat_template": None,
    "tokenizer.source_language": None,
    "tokenizer.target_language": None,
}
"""Keys that came after version 0.1.0, with the value that asks for what there was before them.

With that value, a configuration is the same question as it was without the key. What is said of
a key of `data` holds for each of `data.sources` as well.
"""
ADDED_TO: dict[str, dict[str, Any]] = {
    f"truesweep.optim.{name}": {
        f"optimizer.{role}_lr_ratio": 1.0 for role in ("embedding", "head", "gain")
    }
    for name in ("adamw", "sgd")
}
"""The same of keys that came to some targets of a group only, and stood in others before."""
DEFAULTS_SINCE: dict[str, tuple[Any, Any]] = {
    "logger.mode": (None, "offline"),
    "logger.project": (None, "truesweep"),
    "trainer.compile": ("auto", False),
}
"""Defaults that changed after version 0.1.0: the new one, and the old one.

Both are the same question, so that it keeps its id.
"""


def fingerprint(config: Mapping[str, Any]) -> str:
    """The SHA-256 of the configuration in hexadecimal, whatever the order of its keys."""
    text = json.dumps(_as_before(config), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


BESIDE = (
    *("name", "logger", "callbacks.progress", "allowed_packages"),
    *("trainer.compile", "trainer.threads"),
)
"""What changes no number of a run."""


def point_id(config: Mapping[str, Any], swept: Iterable[str] = ()) -> str:
    """What runs share that differ by their seed only, or by what changes no number.

    It is made from the configuration wherever it is asked for, and not stored: a run that is made
    longer becomes another point, and the same point of two sweeps is one.

    Args:
        config: A run's configuration.
        swept: The keys that its sweep varied, which tell runs apart whatever they are.
    """
    leaves = dotted.flatten(_as_before(config))
    swept = tuple(swept)
    kept = {key: leaf for key, leaf in leaves.items() if counts(key) or _under(key, swept)}
    kept.pop("seed", None)
    return fingerprint(kept)[:16]


def counts(key: str) -> bool:
    """Whether a key of a configuration can change a number."""
    return not _under(key, BESIDE)


def _under(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _as_before(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as version 0.1.0 would have had it, if it asks for nothing newer."""
    kept = without_added(config)
    for key, (new, old) in DEFAULTS_SINCE.items():
        group, _, name = key.partition(".")
        if _has(kept, group, name, new):
            kept[group] = {**kept[group], name: old}
    return kept


def without_added(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the keys that came after version 0.1.0 and ask for nothing newer."""
    kept = dict(config)
    optimizer = config.get("optimizer")
    target = optimizer.get("_target_") if isinstance(optimizer, Mapping) else None
    for key, neutral in {**ADDED_SINCE, **ADDED_TO.get(str(target), {})}.items():
        for path in _paths(kept, key.split(".")):
            kept = _without(kept, path, neutral)
    return kept


def _paths(config: Mapping[str, Any], path: list[str]) -> list[list[str]]:
    """Where a key stands: in its group, and in each source of a mixture."""
    data = config.get("data")
    sources = data.get("sources") if isinstance(data, Mapping) and path[0] == "data" else None
    names = sources if isinstance(sources, Mapping) else ()
    return [path, *(["data", "sources", name, *path[1:]] for name in names)]


def _without(node: Any, path: Sequence[str], value: Any) -> Any:
    """A nested dict without the key at the end of a path, if it has that value there.

    A dict that holds nothing else goes with it.
    """
    name, *rest = path
    if not isinstance(node, Mapping) or name not in node:
        return node
    left = _without(node[name], rest, value) if rest else node[name]
    gone = left == {} != node[name] if rest else left == value
    return {k: left if k == name else v for k, v in node.items() if not (gone and k == name)}


def _has(config: Mapping[str, Any], group: str, name: str, value: Any) -> bool:
    node = config.get(group)
    return isinstance(node, Mapping) and name in node and bool(node[name] == value)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        DataError: It holds no YAML; the message is the reason alone.
        OSError: It cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loaded = yaml.load(text, Loader=_loader(text))
        json.dumps(loaded)  # dates, sets and what holds itself are never written
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # by the damage
        raise DataError(str(error)) from None
    return loaded


DEEPEST = 10_000
"""Brackets within each other, or other marks on a line, that libyaml's reader has a stack for."""


def _loader(text: str) -> Any:
    """The reader of libyaml, ten times as fast, or Python's where a text may nest without end.

    Nothing nests but by brackets and, at most, by each character of a line.
    """
    nested = text.count("[") + text.count("{") + max(map(len, text.splitlines()), default=0)
    return yaml.SafeLoader if nested > DEEPEST else getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def thaw(path: Path) -> dict[str, Any]:
    """Read a frozen configuration, or another that was written as YAML.

    Raises:
        ConfigError: The file is missing, is no YAML mapping, or not what its checksum tells.
    """
    try:
        config = read_yaml(path)
    except (OSError, DataError) as error:
        raise ConfigError(f"{path}: cannot be read as a configuration: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a configuration, found {type(config).__name__}")
    kept = unsealed(config)
    if kept is None:
        raise ConfigError(
            f"{path}: is not as the program wrote it. Restore it, or, if it was changed on "
            f"purpose, delete its entry {SEAL}"
        )
    return kept

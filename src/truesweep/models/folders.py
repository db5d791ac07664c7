"""Trained weights as they are found: in a folder, on the hub, as a GGUF file, beside an adapter."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from truesweep.errors import ConfigError, refusing
from truesweep.models.adapters import merge_adapter
from truesweep.models.attention import Attention
from truesweep.models.heads import AUTO_CLASSES, ENDINGS, Head, head_of

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
_INSIDE = {
    "^language_model.lm_head": "lm_head",
    "^language_model.model": "model",
    "^model.language_model": "model",
}
"""What the weights of a text part are called inside of the whole, and by itself."""


def is_model(path: Path) -> bool:
    """Whether a path names trained weights in a form that `Weights` reads."""
    return any((path / name).is_file() for name in (CONFIG, ADAPTER)) or bool(gguf_file(path))


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that a path names, or that a folder with nothing else has; None of any other.

    Raises:
        ConfigError: The folder has several.
    """
    if path.suffix == ".gguf" and path.is_file():
        return path
    found = [] if any((path / n).is_file() for n in (CONFIG, ADAPTER)) else [*path.glob("*.gguf")]
    if len(found) > 1:
        some = ", ".join(sorted(file.name for file in found)[:4])
        raise ConfigError(f"{path} has several GGUF files ({some}); name one of them")
    return found[0] if found else None


def adapter_base(path: Path) -> str | None:
    """What an adapter's folder names as its base; None of any other folder.

    Raises:
        ConfigError: It names none.
    """
    file = path / ADAPTER
    if not file.is_file() or (path / CONFIG).is_file():
        return None
    with refusing(lambda reason: f"{file} cannot be read: {reason} Fetch or export it again."):
        base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ConfigError(
            f"model.name_or_path: {file} names no base_model_name_or_path. Add it, or name a "
            "folder with the whole model (truesweep export --merge)."
        )
    return str(base)


@contextmanager
def _not_reported() -> Iterator[None]:
    """Keep transformers from listing the weights of a file that are not loaded."""
    reporter = logging.getLogger("transformers.modeling_utils")
    level = reporter.level
    reporter.setLevel(logging.ERROR)
    try:
        yield
    finally:
        reporter.setLevel(level)


@dataclass(frozen=True)
class Weights:
    """Where a model's weights lie.

    Args:
        name: A folder, a GGUF file, or a name on the hub.
        revision: Branch, tag or commit on the hub.
    """

    name: str
    revision: str | None = None

    def config(self) -> PreTrainedConfig:
        """The model's configuration; of one that reads images or sounds, too, its text part's.

        Raises:
            ConfigError: There is none, or the model needs code of its own.
        """
        with refusing(self._not_loaded):
            whole = self._whole_config()
        if "text_config" not in whole.sub_configs:
            return whole
        part: PreTrainedConfig = whole.get_text_config()
        part.tie_word_embeddings = whole.tie_word_embeddings
        return part

    def head(self) -> Head:
        """What the model is for, as its configuration says.

        Raises:
            ConfigError: It does not say, or for nothing that is known.
        """
        if gguf_file(Path(self.name)):
            return "causal"
        with refusing(self._not_loaded):
            whole = self._whole_config()
        found = list(whole.architectures or [])
        head = head_of(found)
        if head == "seq2seq" and "text_config" in whole.sub_configs:
            head = "causal"  # it speaks of what it sees or hears; the text part is what is taken
        if head is None:
            of = f"{Path(self._base or self.name) / CONFIG}: architectures is"
            raise ConfigError(
                f"{of} {found or 'missing'}; expected one that ends in {', '.join(ENDINGS)}"
            )
        return head

    def load(
        self,
        head: Head,
        config: PreTrainedConfig,
        attention: Attention | None,
    ) -> tuple[PreTrainedModel, dict[str, Any]]:
        """The model in float32, and what transformers tells of its weights.

        Pickled weights (`pytorch_model.bin`) are read as tensors alone, and run no code.

        Args:
            head: What it is for.
            config: Its configuration, as `config` gives it, or a changed one.
            attention: The implementation; None leaves it to transformers.

        Raises:
            ConfigError: It cannot be loaded.
        """
        with refusing(self._not_loaded):
            inside = self._whole_config().model_type != config.model_type
            with _not_reported() if inside else nullcontext():  # that it is not the whole
                loaded, info = AUTO_CLASSES[head].from_pretrained(
                    config=config,
                    trust_remote_code=False,
                    weights_only=True,
                    dtype=torch.float32,
                    attn_implementation=attention,
                    ignore_mismatched_sizes=True,  # the caller looks
                    output_loading_info=True,
                    key_mapping=_INSIDE if inside else None,
                    **self._where,
                )
            model: PreTrainedModel = loaded
            if inside:  # else it would be saved under the names that it was found under
                model = AUTO_CLASSES[head].from_config(
                    config, dtype=torch.float32, attn_implementation=attention
                )
                model.load_state_dict(loaded.state_dict())
            if self._base is not None:
                merge_adapter(model, Path(self.name))
            return model, info

    def _whole_config(self) -> PreTrainedConfig:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            trust_remote_code=False, **self._where
        )
        return config

    @property
    def _where(self) -> dict[str, Any]:
        """Arguments of transformers' `from_pretrained`."""
        if gguf := gguf_file(Path(self.name)):
            if find_spec("gguf") is None:
                raise ConfigError(
                    f"model.name_or_path: {gguf} needs the package gguf, which is not installed: "
                    "pip install 'truesweep[gguf]'"
                )
            return {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        base = self._base or self.name
        return {"pretrained_model_name_or_path": base, "revision": self.revision}

    @property
    def _base(self) -> str | None:
        return adapter_base(Path(self.name))

    def _not_loaded(self, reason: str) -> str:
        if "custom code" in reason:
            return (
                f"model.name_or_path: {self.name} is built by code of its own, which is not run. "
                "Name a model of an architecture that transformers has."
            )
        base = self._base
        what = f"{base}, the base of the adapter {self.name}" if base else self.name
        return (
            f"model.name_or_path: cannot load {what}: {reason} Name a folder with config.json "
            "and model.safetensors, or, with a network, a model on the hub."
        )

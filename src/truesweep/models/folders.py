"""Trained weights as they are found: in a folder, on the hub, as a GGUF file, beside an adapter."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from truesweep.errors import ConfigError, refusing
from truesweep.models.adapters import merge_adapter
from truesweep.models.families import Attention
from truesweep.models.heads import AUTO_CLASSES, ENDINGS, Head, head_of
from truesweep.text import count

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
_INSIDE = {
    "^language_model.lm_head": "lm_head",
    "^language_model.model": "model",
    "^model.language_model": "model",
}
"""What the weights of a text part are called inside of the whole, and by itself."""
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_LARGE = 100_000_000
"""Parameters of a model that is not loaded just to see what its files lack."""
_MOST_PACKED = 4
"""Weights in one number of a file, at the most: MXFP4 has two in a byte."""
_DEQUANTISED = ("fp8", "mxfp4")
"""Ways of quantising that transformers undoes as it loads, if it is asked to."""


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


def _numbers(file: Path) -> int:
    """How many numbers a file of weights holds; of a pickled one, no fewer than that."""
    if file.suffix != ".safetensors":
        return file.stat().st_size
    with safe_open(file, "pt") as tensors:
        names = tensors.keys()
        return sum(prod(tensors.get_slice(name).get_shape()) for name in names)


@dataclass(frozen=True)
class Weights:
    """Where a model's weights lie.

    Args:
        name: A folder, a GGUF file, or a name on the hub.
        revision: Branch, tag or commit on the hub.
        code: The SHA-256 of the code that comes with the model, if that may be run.
    """

    name: str
    revision: str | None = None
    code: str | None = None

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

    def has(self, head: Head) -> bool:
        """Whether code of the model's own, which may be run, builds it for this."""
        config: Any = self._whole_config() if self.code else None
        return AUTO_CLASSES[head].__name__ in (getattr(config, "auto_map", None) or {})

    def code_hash(self) -> str | None:
        """SHA-256 over all Python files that come with the model; None where it has none to run.

        Raises:
            ConfigError: They lie elsewhere, or cannot be had.
        """
        with refusing(self._not_loaded):
            fields, _ = PreTrainedConfig.get_config_dict(**self._where)
            places = [str(place) for place in (fields.get("auto_map") or {}).values()]
            if not places:
                return None
            if elsewhere := [place.partition("--")[0] for place in places if "--" in place]:
                raise ConfigError(
                    f"model.trust_remote_code: the code of {self.name} lies in {elsewhere[0]}, "
                    "which is not supported. Put it into the model's own folder."
                )
            digest = hashlib.sha256()
            folder = self._code_folder()
            for file in sorted(folder.rglob("*.py")):
                digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
            return digest.hexdigest()

    def _code_folder(self) -> Path:
        if (folder := Path(self._base or self.name)).is_dir():
            return folder
        return Path(snapshot_download(str(folder), revision=self.revision, allow_patterns="*.py"))

    @property
    def _trusts(self) -> bool:
        """Whether the model's own code may be run.

        Raises:
            ConfigError: It is other code than what may be.
        """
        if self.code is None:
            return False
        if (found := self.code_hash()) not in (None, self.code):
            raise ConfigError(
                f"model.trust_remote_code: the code of {self.name} is not what was allowed "
                f"(SHA-256 {str(found)[:12]}…, then {self.code[:12]}…), and is not run. Put back "
                "what was there, or allow it anew in another run."
            )
        return True

    def head(self) -> Head:
        """What the model is for, as its configuration says.

        Raises:
            ConfigError: It does not say, or for nothing that is known.
        """
        head, found = self.saved_as()
        if head is None:
            of = f"{Path(self._base or self.name) / CONFIG}: architectures is"
            raise ConfigError(
                f"{of} {found or 'missing'}; expected one that ends in {', '.join(ENDINGS)}"
            )
        return head

    def saved_as(self) -> tuple[Head | None, list[str]]:
        """What the model is for, None if nobody can tell, and the classes that it was saved as.

        Raises:
            ConfigError: It has no configuration that can be read.
        """
        if gguf_file(Path(self.name)):
            return "causal", []
        with refusing(self._not_loaded):
            whole = self._whole_config()
        found = list(whole.architectures or [])
        head = head_of(found)
        if head == "seq2seq" and "text_config" in whole.sub_configs:
            head = "causal"  # it speaks of what it sees or hears; the text part is what is taken
        return head, found

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
            whole = self._whole_config()
            self._undo_quantisation(whole, config)
            self._check_size(head, config)
            inside = whole.model_type != config.model_type
            with _not_reported() if inside else nullcontext():  # that it is not the whole
                loaded, info = AUTO_CLASSES[head].from_pretrained(
                    config=config,
                    trust_remote_code=self._trusts,
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

    def _check_size(self, head: Head, config: PreTrainedConfig) -> None:
        """Refuse a configuration whose model is far larger than its weights.

        Whatever the files lack would be drawn, and may take more memory than there is.

        Raises:
            ConfigError: It is.
        """
        folder = Path(self._base or self.name)
        there = sum(_numbers(file) for kind in _WEIGHTS for file in folder.glob(kind))
        if self.code or not there:  # they are on the hub, or in a file that says all itself
            return
        with torch.device("meta"), _not_reported():
            needed = AUTO_CLASSES[head].from_config(config).num_parameters()
        if needed > max(_LARGE, there * _MOST_PACKED):
            raise ConfigError(
                f"model.name_or_path: {folder / CONFIG} describes a model of {count(needed)} "
                f"parameters, but its weights are {count(there)}. It belongs to others: put back "
                "its own, or the weights that it describes."
            )

    def _undo_quantisation(self, whole: PreTrainedConfig, config: PreTrainedConfig) -> None:
        """Have quantised weights loaded as the numbers that they stand for, on any machine.

        Raises:
            ConfigError: transformers would leave them quantised, so that they had no gradient.
        """
        quantised = getattr(whole, "quantization_config", None)
        if not quantised:
            return
        fields = quantised if isinstance(quantised, dict) else quantised.to_dict()
        if fields.get("quant_method") not in _DEQUANTISED:
            raise ConfigError(
                f"model.name_or_path: the weights of {self._base or self.name} are quantised "
                f"({fields.get('quant_method')}), and can be neither trained nor scored as that. "
                "Name the model that they were made from, or a GGUF file of it."
            )
        config.quantization_config = {**fields, "dequantize": True}

    def _whole_config(self) -> PreTrainedConfig:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            trust_remote_code=self._trusts, **self._where
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
                "Name a model of an architecture that transformers has; or read the code, and "
                f"allow it by name: model.trust_remote_code=[{self.name}]."
            )
        base = self._base
        what = f"{base}, the base of the adapter {self.name}" if base else self.name
        return (
            f"model.name_or_path: cannot load {what}: {reason} Name a folder with config.json "
            "and model.safetensors, or, with a network, a model on the hub."
        )

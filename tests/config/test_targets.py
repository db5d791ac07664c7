from pathlib import Path

import pytest
import torch

from truesweep.config.targets import resolve
from truesweep.errors import ConfigError


def test_allowed_classes_are_found() -> None:
    assert resolve("torch.optim.AdamW") is torch.optim.AdamW
    for name in (
        "torch.optim.lr_scheduler.StepLR",
        "torch.nn.Linear",
        "torchmetrics.MeanMetric",
        "pytorch_lightning.callbacks.EarlyStopping",
        "pytorch_lightning.loggers.CSVLogger",
        "pytorch_lightning.plugins.environments.TorchElasticEnvironment",
        "pytorch_lightning.strategies.DDPStrategy",
        "transformers.GPT2Config",
        "transformers.GPT2LMHeadModel",
    ):
        assert isinstance(resolve(name), type), name


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "subprocess.run", "builtins.eval", "pickle.load", "posix.system"),
        *("torch.load", "torch.hub.load", "torch.serialization.load", "torch.jit.load"),
        *("torch.os.system", "torch.nn.init.normal_", "torch.nn.Linear.forward"),
        *("torch.utils.cpp_extension.load", "torch.distributed.rpc.rpc_sync"),
        *("pytorch_lightning.Trainer", "lightning_fabric.utilities.cloud_io._load"),
        *("transformers.pipeline", "transformers.AutoModel.from_pretrained"),
        *("transformers.Trainer", "transformers.models.rag.retrieval_rag.LegacyIndex"),
        *(
            "truesweep.config.compose.compose",
            "truesweep.config.roots.Path",
            "truesweep.jobs.launch.launch",
        ),
        *("hydra.utils.get_method", "yaml.unsafe_load", "numpy.load", "functools.partial"),
    ],
)
def test_what_could_run_or_load_code_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not allowed"):
        resolve(name)


@pytest.mark.parametrize(
    "name",
    ["toy_targets.system", "toy_targets.os.system", "toy_targets.instance", "toy_targets.write"],
)
def test_an_allowed_package_opens_only_its_own_classes_and_factories(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is not allowed|has no"):
        resolve(name, ["toy_targets"])


def test_packages_of_the_user() -> None:
    with pytest.raises(ConfigError, match=r"allowed_packages=\[toy_targets\]"):
        resolve("toy_targets.Model")
    assert resolve("toy_targets.Model", ["toy_targets"]).__name__ == "Model"
    assert resolve("toy_targets.make_schedule", ["toy_targets"])() == {"warmup": 0.02}


@pytest.mark.parametrize("package", ["os", "subprocess", "builtins", "posix", "importlib"])
def test_the_standard_library_cannot_be_allowed(package: str) -> None:
    with pytest.raises(ConfigError, match="standard library"):
        resolve(f"{package}.system", [package])


def test_a_package_that_is_not_allowed_is_not_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile_package.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="is not allowed"):
        resolve("hostile_package.Model")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("\nraise RuntimeError('no server')", r"RuntimeError: no server \(.*own_\d.py:2\)$"),
        ("x = (", r"'\(' was never closed \(own_\d.py, line 1\)$"),
        ("from math import tau_two", r"cannot import name 'tau_two' from 'math'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    name = f"own_{len(code) % 10}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=rf"^{name} cannot be imported: {said}"):
        resolve(f"{name}.Model", [name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch.optim.AdamV", "torch.optim has no AdamV; did you mean Adam?"),
        ("torch.optin.AdamW", "torch has no optin; did you mean optim?"),
        ("truesweep.modles.Scratch", "truesweep has no modles; did you mean models?"),
        ("truesweep", "expected a dotted name"),
        (3, "expected a dotted name"),
        (None, "expected a dotted name"),
    ],
)
def test_wrong_names(name: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(name)
    assert message in str(caught.value)


def test_a_missing_requirement_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\nclass A: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="needs the package not_installed_anywhere"):
        resolve("needs_more.A", ["needs_more"])

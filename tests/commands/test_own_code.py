"""Models that come with code of their own, which is run where it is allowed by name."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, dynamic_module_utils

from tests.commands.conftest import SMALL, write_data
from truesweep.commands.evaluate import evaluate
from truesweep.commands.export import export
from truesweep.commands.generate import Options, generate
from truesweep.commands.resume import resume
from truesweep.commands.train import train
from truesweep.data.tokenizers import Byte, save
from truesweep.errors import ConfigError
from truesweep.jobs.load import load_run
from truesweep.runs.run import Run

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from .parts import told

told()

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * 2
        return out
"""
PARTS = """
from pathlib import Path

def told():
    Path({told!r}).write_text("code was run")
"""
AUTO_MAP = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
OPTIONS = Options(max_new_tokens=5, temperature=0.0, seed=0)


@pytest.fixture(scope="module", autouse=True)
def _modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where transformers copies code to before it is run."""
    with pytest.MonkeyPatch.context() as patch:
        modules = str(tmp_path_factory.mktemp("modules"))
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", modules)
        patch.setattr("sys.path", [*sys.path])
        yield
    # Or tests that come back here after others would find the package of a folder before this one.
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]


@pytest.fixture
def own(workplace: Path) -> Path:
    """A Llama whose logits are twice as large, by code in its folder; `told` says when it runs."""
    tokenizer, folder = Byte().build(()), workplace / "own"
    sizes: Any = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    torch.manual_seed(0)
    config: Any = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=2, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    save(tokenizer, folder)
    fields = json.loads((folder / "config.json").read_text())
    fields |= {"model_type": "own", "auto_map": AUTO_MAP, "architectures": ["OwnForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "own.py").write_text(CODE)
    (folder / "parts.py").write_text(PARTS.format(told=str(workplace / "told")))
    write_data(workplace)
    return folder


ASKED = ["data=files", "data.test=text.txt", "trainer.accelerator=cpu"]
TRUSTED = "model.trust_remote_code=[own]"
TRAINED = [
    *("task=lm", "data=files", "data.train=text.txt", "model=pretrained", "tokenizer=pretrained"),
    *("model.name_or_path=own", "tokenizer.name_or_path=own", "name=x", "trainer.max_steps=4"),
    *(o for o in SMALL if not o.startswith(("model.", "trainer.max_steps"))),
]


@pytest.mark.parametrize(
    "command",
    [
        lambda: train(TRAINED, [], None, False),
        lambda: train([*TRAINED, "model.trust_remote_code=[other/own]"], [], None, False),
        lambda: evaluate(["own", *ASKED], "test", "best", []),
        lambda: generate(Path("own"), "x", None, "best", OPTIONS),
    ],
)
def test_code_that_is_not_allowed_is_not_run(own: Path, command: Callable[[], int]) -> None:
    with pytest.raises(ConfigError, match=r"allow it by name: model.trust_remote_code=\[own\]"):
        command()
    assert not Path("told").exists()
    assert not Path("outputs").exists()


def test_code_that_is_allowed_is_the_only_one_that_is_run(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*TRAINED, TRUSTED], [], None, False) == 0
    assert Path("told").exists()
    (path,) = Path("outputs/x").iterdir()
    run = Run.open(path)
    kept = run.read_config()["model"]["trust_remote_code"]
    assert list(kept) == ["own"]
    assert run.read_provenance()["trust_remote_code"] == kept
    loaded = load_run(run, "causal").model
    assert type(loaded).__name__ == "OwnForCausalLM"
    assert generate(path, "x", None, "best", OPTIONS) == 0
    capsys.readouterr()
    assert evaluate([str(path)], "test", "best", [], as_json=True) == 0
    results = json.loads((path / "results.json").read_text())
    found = json.loads(capsys.readouterr().out)
    assert found["test/loss"] == pytest.approx(results["test/loss"], rel=1e-6)
    assert export(path, Path("out"), "best") == 0
    theirs: Any = AutoModelForCausalLM.from_pretrained("out", trust_remote_code=True).eval()
    ids = torch.tensor([[5, 9, 7, 30, 8, 2]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, loaded(ids).logits, rtol=1e-5, atol=1e-5)
        plain = LlamaForCausalLM.forward(theirs, ids).logits
    torch.testing.assert_close(theirs(ids).logits, plain * 2, rtol=1e-5, atol=1e-5)
    # Whatever else becomes of the code is not run, not even in what was allowed once.
    Path("told").unlink()
    (own / "parts.py").write_text((own / "parts.py").read_text() + "# changed")
    for command in (
        lambda: resume(path, ["trainer.max_steps=6"]),
        lambda: evaluate([str(path)], "test", "best", []),
        lambda: generate(path, "x", None, "best", OPTIONS),
    ):
        with pytest.raises(ConfigError, match=r"the code of \S*own is not what was allowed"):
            command()
    assert not Path("told").exists()


def test_a_folder_is_scored_and_asked_by_its_own_code(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(["own", *ASKED, TRUSTED], "test", "best", [], as_json=True) == 0
    doubled = json.loads(capsys.readouterr().out)["test/loss"]
    fields = json.loads((own / "config.json").read_text())
    fields = {**fields, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    del fields["auto_map"]
    shutil.copytree(own, "plain")
    Path("plain/config.json").write_text(json.dumps(fields))
    assert evaluate(["plain", *ASKED, TRUSTED], "test", "best", [], as_json=True) == 0
    assert abs(json.loads(capsys.readouterr().out)["test/loss"] - doubled) > 1e-3
    trusted = Options(max_new_tokens=5, temperature=0.0, trust_remote_code=("own",))
    assert generate(Path("own"), "x", None, "best", trusted) == 0


def test_code_that_lies_elsewhere_is_refused(own: Path) -> None:
    fields = json.loads((own / "config.json").read_text())
    fields["auto_map"] = {name: f"someone/else--{place}" for name, place in AUTO_MAP.items()}
    (own / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ConfigError, match=r"the code of own lies in someone/else"):
        evaluate(["own", *ASKED, TRUSTED], "test", "best", [])

"""What can be done with a finished run: score it, ask it, hand it on."""

import gzip
import io
import json
import lzma
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
)

from tests.commands.conftest import SMALL, Finished, truesweep, typed
from tests.data.conftest import Memory
from tests.models.test_folders import write_gguf
from truesweep.commands.evaluate import evaluate
from truesweep.commands.export import export
from truesweep.commands.generate import Options, generate, open_task, prompts
from truesweep.commands.output import show_figures, show_result
from truesweep.commands.resume import resume
from truesweep.commands.train import train
from truesweep.data.encode import encode
from truesweep.data.kinds import PAIRS, EncodedSplit
from truesweep.data.ragged import Ragged
from truesweep.data.samples import Pair
from truesweep.data.tokenizers import Byte, Word
from truesweep.errors import ConfigError, DataError
from truesweep.figures import BLEU, LOSS
from truesweep.jobs.load import load_folder, load_run
from truesweep.jobs.plan import plan
from truesweep.models import Lora, add_adapter
from truesweep.models.adapters import save_adapter
from truesweep.report import compare
from truesweep.report.findings import later_scorings
from truesweep.runs.run import Run

AUTO = {
    "lm": AutoModelForCausalLM,
    "translation": AutoModelForSeq2SeqLM,
    "classification": AutoModelForSequenceClassification,
}
PIPELINES = {
    "lm": "text-generation",
    "translation": "translation",
    "classification": "text-classification",
}
HEADS = {"lm": "causal", "translation": "seq2seq", "classification": "classifier"}


def logits(model: torch.nn.Module, ids: torch.Tensor, task: str) -> torch.Tensor:
    inputs = {"input_ids": ids}
    if task == "translation":
        inputs["decoder_input_ids"] = ids
    with torch.inference_mode():
        out: torch.Tensor = model(**inputs).logits
    return out


@pytest.mark.parametrize("task", AUTO)
def test_an_export_loads_and_gives_identical_logits(
    trained: dict[str, Path], tmp_path: Path, task: str
) -> None:
    run, folder = trained[task], tmp_path / "exported"
    assert export(run, folder, "best") == 0
    theirs = AUTO[task].from_pretrained(folder, attn_implementation="eager").eval()
    ours = load_run(Run.open(run), HEADS[task]).model  # type: ignore[arg-type]
    ours.set_attn_implementation("eager")
    ids = torch.randint(4, 20, (3, 11))
    assert torch.equal(logits(theirs, ids, task), logits(ours, ids, task))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("old cold").input_ids, skip_special_tokens=True) == "old cold"
    assert (folder / "model.safetensors").is_file()
    card = (folder / "README.md").read_text()
    assert "test/loss" in card
    assert f"pipeline_tag: {PIPELINES[task]}\n" in card
    with pytest.raises(ConfigError, match="exists"):
        export(run, folder, "best")


@pytest.mark.parametrize(("architecture", "task"), [("youtu", "lm"), ("funnel", "mlm")])
def test_output_weights_of_the_token_that_pads_are_loaded(
    architecture: str, task: str, workplace: Path
) -> None:
    """Transformers sets them to zero in models which say what token that is."""
    Path("notes.txt").write_text("the old dog sat on the cold mat .\n" * 200)
    small = ["model.depth=2", "model.width=32", "model.heads=2", "data.max_length=16"]
    named = [f"task={task}", "data=files", "data.train=notes.txt", "tokenizer=byte", *small]
    named += ["model=auto", f"model.architecture={architecture}", "optimizer.lr=0.01"]
    named += ["data.batch_size=4", "trainer.max_steps=3", "trainer.accelerator=cpu", "logger=none"]
    assert train([*named, "name=x"], [], None, False) == 0
    (run,) = (workplace / "outputs/x").iterdir()
    assert export(run, workplace / "out", "best") == 0
    auto: Any = AutoModelForCausalLM if task == "lm" else AutoModelForMaskedLM
    theirs = auto.from_pretrained(workplace / "out", attn_implementation="eager").eval()
    ours = load_run(Run.open(run), "causal" if task == "lm" else "masked").model
    ours.set_attn_implementation("eager")
    ids = torch.randint(4, 20, (3, 8))
    assert torch.equal(logits(theirs, ids, task), logits(ours, ids, task))


@pytest.mark.parametrize("task", AUTO)
def test_evaluating_a_run_gives_its_results_again(
    trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    run = trained[task]
    monkeypatch.chdir(run.parents[2])
    assert evaluate([str(run)], "test", "best", []) == 0
    results = json.loads((run / "results.json").read_text())
    scored = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    for key in (k for k in results if k.startswith(("test/", "baseline/"))):
        if isinstance(results[key], float):
            assert scored[key] == pytest.approx(results[key], rel=1e-5), key


def test_evaluating_on_other_data_uses_the_runs_own_tokenizer(
    trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = trained["lm"]
    monkeypatch.chdir(run.parents[2])
    other = tmp_path / "other.txt"
    other.write_text("cold cold cold red\n" * 50)
    assert evaluate([str(run), f"data.test={other}"], "test", "last", []) == 0
    scored = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert scored["overrides"] == [f"data.test={other}"]
    assert scored["test/loss"] > 0


def test_files_are_found_where_the_command_is_typed(
    trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere.txt").write_text("cold cold cold red\n" * 50)
    monkeypatch.chdir(tmp_path)
    assert evaluate([str(trained["lm"]), "data.test=elsewhere.txt"], "test", "best", []) == 0
    kept = (trained["lm"] / "evaluations.jsonl").read_text().splitlines()[-1]
    assert json.loads(kept)["overrides"] == ["data.test=elsewhere.txt"]


def test_a_run_is_not_scored_on_documents_that_it_would_see_beside_others(workplace: Path) -> None:
    asked = [
        "task=lm",
        "model=auto",
        "model.architecture=rwkv",
        *SMALL,
        "trainer.max_steps=1",
        "name=x",
    ]
    assert train(asked, [], None, False) == 0
    (run,) = (workplace / "outputs/x").iterdir()
    with pytest.raises(ConfigError, match="rwkv lets tokens see"):
        evaluate([str(run), "data.packing=documents"], "test", "best", [])


def test_a_run_on_embedded_data_is_scored_on_a_file(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["task=classification", "data.languages=[de,en]", "tokenizer.vocab_size=300", *SMALL]
    assert train([*asked, "trainer.max_steps=2", "name=x"], [], None, False) == 0
    (run,) = (workplace / "outputs/x").iterdir()
    rows = [("one two", "en"), ("ein zwei", "de"), ("three", "en")]
    table = [("words", "label"), *rows]
    Path("other.csv").write_text("".join(f"{text},{label}\n" for text, label in table))
    asked = [str(run), "data.test=other.csv", "data.text_column=words", "checkpoint=last"]
    capsys.readouterr()
    assert evaluate(asked, "test", "best", [], as_json=True) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["test/samples"] == 3
    # The baseline is of what the run was trained on, not of the file: that has ln 3 - 2/3 ln 2.
    assert abs(figures["baseline/test/loss"] - (math.log(3) - 2 / 3 * math.log(2))) > 0.01
    (kept,) = map(json.loads, (run / "evaluations.jsonl").read_text().splitlines()[1:])
    assert (kept["checkpoint"], kept["overrides"]) == ("last", asked[1:3])
    with pytest.raises(ConfigError, match="checkpoint first: expected one of best, last"):
        evaluate([str(run), "checkpoint=first"], "test", "best", [])
    with pytest.raises(ConfigError, match="tset"):
        evaluate([str(run), "data.tset=other.csv"], "test", "best", [])


def test_scorings_of_a_runs_own_test_split_are_counted_and_no_others(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*SMALL, "trainer.max_steps=4", "data.test=test.txt", "name=x"]
    (workplace / "test.txt").write_text("cold red\nold small red blue\n" * 9)
    (workplace / "other.txt").write_text("cold cold cold red\n" * 50)
    assert train([*data["lm"], *asked], [], None, False) == 0
    (run,) = (workplace / "outputs/x").iterdir()

    def counted(split: str, *overrides: str) -> tuple[int, bool]:
        """How often the report says it was looked at again, and whether the command says so."""
        assert evaluate([str(run), *overrides], split, "best", []) == 0
        (again,) = compare([run]).runs
        return later_scorings(again), "has been scored" in capsys.readouterr().out

    assert later_scorings(compare([run]).runs[0]) == 0
    assert counted("test", "data.test=other.txt") == (0, False)
    assert counted("val") == (0, False)
    assert counted("test", "data.batch_size=4") == (1, True)
    assert counted("test", "data.max_length=16") == (2, True)
    assert counted("val", "data.val=test.txt") == (3, True)
    assert counted("test", "data.test=other.txt") == (3, False)
    assert resume(run, ["trainer.max_steps=6"]) == 0  # which scores it a second time itself
    assert later_scorings(compare([run]).runs[0]) == 4


def test_what_figures_are_of_stands_beside_them(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"val/bleu": 20.0, "val/loss": 1.5, "val/bleu_samples": 100, "val/samples": 500}
    show_figures(figures, "val", {"bleu": BLEU, "loss": LOSS})
    rows = capsys.readouterr().out.splitlines()
    assert [("100 samples" in row, "500" in row) for row in rows if "bleu" in row] == [
        (True, False)
    ]
    assert not any("100" in row for row in rows if "bleu" not in row)
    for task, counted in (("classification", "samples"), ("translation", "tokens")):
        show_result(Run.open(trained[task]), 0)
        printed = capsys.readouterr().out
        assert f" {counted} in " in printed, printed
        assert compare([trained[task]]).unit == counted


def test_a_split_that_does_not_exist_is_named(trained: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="--split dev: expected one of train, val, test"):
        evaluate([str(trained["lm"])], "dev", "best", [])


def test_a_pretrained_model_is_scored_on_one_file(
    trained: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "exported"
    export(trained["lm"], folder, "best")
    texts = ["cold red", "old", "small red blue slow"]
    Path("t.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    asked = ["model=pretrained", f"model.name_or_path={folder}", "tokenizer=pretrained"]
    asked += [f"tokenizer.name_or_path={folder}", "data=files", "data.test=t.jsonl"]
    assert evaluate([*asked, "data.packing=false", "data.max_length=32"], "test", "best", []) == 0
    printed = capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    nll, count = 0.0, 0
    for text in texts:
        ids = [tokenizer.bos_token_id, *tokenizer(text).input_ids, tokenizer.eos_token_id]
        with torch.inference_mode():
            scores = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        nll -= float(scores[range(len(ids) - 1), ids[1:]].sum())
        count += len(ids) - 1
    assert f"{nll / count:.4g}" in printed
    assert f"{math.exp(nll / count):.4g}" in printed


@pytest.mark.parametrize("asked", [[], ["model=llama"]])
def test_a_model_that_is_new_is_not_scored(asked: list[str]) -> None:
    with pytest.raises(ConfigError, match="name a run, a folder with a model"):
        evaluate(asked, "test", "best", [])


OPTIONS = Options(max_new_tokens=5, temperature=0.0, seed=0)


def test_a_key_that_is_deleted_is_no_directory() -> None:
    with pytest.raises(ConfigError, match="delete from config"):
        evaluate(["~adaptr", "model=pretrained"], "test", "best", [])


def test_a_language_model_continues_a_prompt(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(trained["lm"], "red", None, "best", OPTIONS) == 0
    printed = capsys.readouterr().out.removesuffix("\n")
    assert printed.startswith("red")
    assert len(printed) == 8
    longer = Options(max_new_tokens=100, temperature=1.0, seed=0)
    assert generate(trained["lm"], "red", None, "best", longer) == 0
    assert len(capsys.readouterr().out) > 90  # far beyond the context of 32


def test_a_classifier_names_a_class_for_each_line(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines.txt").write_text("blue red\nwarm red\n")
    assert generate(trained["classification"], None, tmp_path / "lines.txt", "best", OPTIONS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line in lines:
        label, probability = line.split("\t")
        assert label in ("True", "False")
        assert 0.5 <= float(probability) <= 1


def test_a_file_beside_a_prompt_is_refused(trained: dict[str, Path], tmp_path: Path) -> None:
    asked = [str(trained["lm"]), "--prompt", "red", "--file", str(tmp_path / "lines.txt")]
    done = truesweep("generate", *asked, cwd=tmp_path)
    assert done.code == 2
    assert "leave one out" in done.err


def test_a_file_and_standard_input_have_the_lines_of_all_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\ufeffone\u2028still\r\n\n\x0ctwo\x85too\rtwo\nthree\r\n"
    expected = ["one\u2028still", "", "\x0ctwo\x85too\rtwo", "three"]
    for name in ("lines.txt", "lines.txt.gz", "lines.txt.xz"):
        forms: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress}
        compress = forms.get(name[-3:], bytes)
        (tmp_path / name).write_bytes(compress(text.encode()))
        assert list(prompts(None, tmp_path / name)) == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert list(prompts(None, Path("-"))) == expected


def test_what_generate_cannot_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="is a folder"):
        list(prompts(None, tmp_path))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"fine\nfor \xfcber\n")))
    with pytest.raises(DataError, match="standard input, line 2: invalid UTF-8 at its byte 4"):
        list(prompts(None, None))
    with pytest.raises(ConfigError, match="is no valid UTF-8"):
        list(prompts("for \udcfcber", None))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", value) for value in (-1.0, math.nan, math.inf)),
        *((name, 0) for name in ("max_new_tokens", "top_k", "beam_size")),
        *(("seed", value) for value in (-1, 2**64)),
    ],
)
def test_options_of_generation_that_cannot_be_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^--{name.replace('_', '-')} {value}: expected "):
        Options(**{name: value})  # type: ignore[arg-type]


def test_an_input_is_cut_as_the_samples_of_the_training_were(
    trained: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    task, _ = open_task(trained["translation"], "best", OPTIONS)
    assert task.max_length == 32
    task.max_length = 9  # shorter than the positions of the model
    source = "red blue " * 9
    made = Pair(source, "x")
    dataset = PAIRS.dataset(
        EncodedSplit(
            name="test",
            samples=[made],
            tokens={
                side: Ragged(row, np.array([0, len(row)]))
                for side in ("source", "target")
                for row in encode(task.tokenizer, [getattr(made, side)])
            },
            source=Memory(samples=[made], max_length=9),
            tokenizer=task.tokenizer,
        )
    )
    assert task.input_ids(source).tolist() == dataset.collate([0])["input_ids"].tolist()
    assert "cut after 9 (data.max_length)" in " ".join(capsys.readouterr().err.split())
    assert task.input_ids("red").shape[1] < 9
    assert not capsys.readouterr().err


def test_translation_reads_standard_input(trained: dict[str, Path]) -> None:
    done = typed(
        "generate", str(trained["translation"]), "--prompt", "red blue", cwd=trained["translation"]
    )
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1


def test_a_missing_prompt_file_is_named(trained: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"none\.txt does not exist"):
        generate(trained["lm"], None, Path("none.txt"), "best", OPTIONS)


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a run's directory"):
        generate(tmp_path, "x", None, "best", OPTIONS)


@pytest.fixture
def long_reader(tmp_path: Path) -> Path:
    """A model that reads 300 tokens, with the tokenizer of single bytes."""
    folder = tmp_path / "long-reader"
    tokenizer = Byte().build(())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=300,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def score_loaded(
    model: Path, *overrides: str, run: Callable[..., Finished] = truesweep
) -> Finished:
    asked = [
        "model=pretrained",
        f"model.name_or_path={model}",
        "tokenizer=pretrained",
        f"tokenizer.name_or_path={model}",
        "data=files",
        "data.test=stories.jsonl",
        "trainer.accelerator=cpu",
    ]
    return run("evaluate", *asked, *overrides, cwd=model.parent)


def test_a_loaded_model_reads_as_much_as_it_can(long_reader: Path) -> None:
    rows = [json.dumps({"text": "ab" * half}) for half in (100, 120, 140)]
    (long_reader.parent / "stories.jsonl").write_text("\n".join(rows))
    whole = score_loaded(long_reader, "data.packing=false").out
    assert "Warning" not in whole
    assert whole == score_loaded(long_reader, "data.packing=false", "data.max_length=300").out
    cut = score_loaded(long_reader, "data.packing=false", "data.max_length=200").out
    assert "3 of 3 test samples are longer" in " ".join(cut.split())
    windows = score_loaded(long_reader, run=typed).out  # 720 bytes, between them two ends of text
    assert windows == score_loaded(long_reader, "data.max_length=300").out


def test_a_loaded_model_is_not_scored_on_other_tokens(
    long_reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(long_reader.parent)
    Path("stories.txt").write_text("red blue\n" * 9)
    asked = ["model=pretrained", f"model.name_or_path={long_reader}", "data=files"]
    with pytest.raises(ConfigError, match=r"other tokens .*: set tokenizer=pretrained tokenizer\."):
        evaluate([*asked, "data.test=stories.txt"], "test", "best", [])
    planned = plan([*asked, "data.train=stories.txt", "data.batch_size=1"])
    assert any("was trained with other tokens" in warning for warning in planned.warnings)


def an_adapter(base: Path, folder: Path) -> None:
    """Without a tokenizer of its own."""
    pytest.importorskip("peft", reason="needs peft (pip install 'truesweep[adapters]')")
    model = LlamaForCausalLM.from_pretrained(base)
    tuner = add_adapter(model, Lora(r=2), "causal", seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    folder.mkdir()
    save_adapter(tuner, folder, str(base))


def a_model_of_images(base: Path, folder: Path) -> None:
    small: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    small |= {"intermediate_size": 8}
    text = {**small, "head_dim": 8, "num_key_value_heads": 1, "vocab_size": 260}
    vision = {**small, "image_size": 8, "patch_size": 4, "model_type": "siglip_vision_model"}
    sizes: Any = {"text_config": text, "vision_config": vision, "mm_tokens_per_image": 4}
    config = Gemma3Config(**sizes, image_token_index=43)
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def a_gguf_file_in_a_folder(base: Path, folder: Path) -> None:
    vocabulary = AutoTokenizer.from_pretrained(base).get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)[:-1]
    model = LlamaForCausalLM.from_pretrained(base)
    folder.mkdir()
    write_gguf(model, folder / "model.gguf", [*tokens, "ab"])


FORMS = [an_adapter, a_model_of_images, a_gguf_file_in_a_folder]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # peft's own use of it
@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_a_model_is_scored_and_asked(
    form: Callable[[Path, Path], None],
    long_reader: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = long_reader.parent / "found"
    form(long_reader, folder)
    monkeypatch.chdir(long_reader.parent)
    Path("stories.txt").write_text("ab cd ef\n" * 40)
    capsys.readouterr()
    asked = ["data=files", "data.test=stories.txt", "trainer.accelerator=cpu"]
    assert evaluate(["found", *asked], "test", "best", [], as_json=True) == 0
    scored = json.loads(capsys.readouterr().out)
    (kept,) = Path("outputs/evaluations").glob("found-*/evaluations.jsonl")
    assert json.loads(kept.read_text())["test/loss"] == scored["test/loss"]
    head, loaded = load_folder(folder)
    assert head == "causal"
    ids = torch.tensor([[5, 9, 7, 30, 8, 2]])
    own = logits(LlamaForCausalLM.from_pretrained(long_reader).eval(), ids, "lm")
    is_the_base = form is a_gguf_file_in_a_folder
    assert torch.equal(logits(loaded.model, ids, "lm"), own) == is_the_base
    assert generate(folder, "ab", None, "best", OPTIONS) == 0
    assert capsys.readouterr().out.startswith("ab")
    for command in (lambda: export(folder, Path("out"), "best"), lambda: compare([folder])):
        with pytest.raises(ConfigError, match=r"found (has no config.yaml|holds no run)"):
            command()


def test_an_adapter_whose_base_is_gone_is_told(long_reader: Path) -> None:
    folder = long_reader.parent / "found"
    an_adapter(long_reader, folder)
    long_reader.rename(long_reader.parent / "moved")
    with pytest.raises(ConfigError, match=r"long-reader, the base of the adapter .*found"):
        generate(folder, "ab", None, "best", OPTIONS)


def test_one_of_several_gguf_files_is_to_be_named(tmp_path: Path) -> None:
    for name in ("q4.gguf", "q8.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"several GGUF files \(q4.gguf, q8.gguf\)"):
        generate(tmp_path, "ab", None, "best", OPTIONS)
    with pytest.raises(ConfigError, match=r"q4.gguf has no config.yaml"):
        export(tmp_path / "q4.gguf", tmp_path / "out", "best")


def test_what_a_run_cuts_is_said(data: dict[str, list[str]], workplace: Path) -> None:
    done = truesweep("train", *data["classification"], *SMALL, "data.max_length=12", cwd=workplace)
    (results,) = workplace.glob("outputs/*/*/results.json")
    figures = json.loads(results.read_text())
    for split in ("train", "val", "test"):
        assert figures[f"{split}/truncated"] > 0
        assert 0 < figures[f"{split}/truncated_share"] < 1
    said = " ".join(done.out.split())
    before, after = said.split("Results")
    assert f"{figures['train/truncated']:,} of" in before
    sentence = f"{figures['test/truncated']} of {figures['test/samples']} test samples are longer"
    assert sentence in before
    assert sentence in after


def test_bits_per_byte_that_are_left_out_are_spoken_of(long_reader: Path) -> None:
    (long_reader.parent / "stories.jsonl").write_text(json.dumps({"text": "ab cd ef " * 9}))
    tokenizer = Word(min_frequency=1).build(["ab cd ef"])
    tokenizer.save_pretrained(long_reader)
    asked = ["data.packing=false", "--json"]
    done = score_loaded(long_reader, *asked)
    assert "test/loss" in json.loads(done.out)
    assert "test/bits_per_byte" not in json.loads(done.out)
    assert "bits_per_byte of test is left out" in " ".join(done.err.split())


def test_a_model_whose_type_has_a_tokenizer_of_its_own_keeps_the_one_that_trained(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = [*data["lm"], *SMALL, "model=auto", "model.architecture=qwen2", "tokenizer=char"]
    done = truesweep("train", *asked, "name=x", cwd=workplace)
    assert done.code == 0, done.out + done.err
    (run,) = (workplace / "outputs/x").iterdir()
    trained = json.loads((run / "results.json").read_text())
    done = truesweep("evaluate", str(run), "--split", "val", "--json", cwd=workplace)
    assert done.code == 0, done.out + done.err
    assert json.loads(done.out)["val/loss"] == pytest.approx(trained["val/loss"], rel=1e-6)
    done = truesweep("export", str(run), "out", cwd=workplace)
    assert done.code == 0, done.out + done.err
    note = "AutoTokenizer takes its tokenizer for a Qwen2Tokenizer"
    assert note in " ".join(done.out.split())
    assert note in (workplace / "out/README.md").read_text()


def test_a_classifier_is_scored_on_its_own_classes_only(
    trained: dict[str, Path], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(trained["classification"], workplace / "out", "best") == 0
    asked = ["task=classification", "model=pretrained", "model.name_or_path=./out"]
    asked += ["tokenizer=pretrained", "tokenizer.name_or_path=./out", "data=files"]

    def scored(*rows: str, more: tuple[str, ...] = ()) -> float:
        (workplace / "test.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
        capsys.readouterr()
        assert evaluate([*asked, "data.test=test.tsv", *more], "test", "best", [], True) == 0
        return float(json.loads(capsys.readouterr().out)["test/accuracy"])

    # One class of two is enough: the other one's place is kept.
    rows = ["blue cold\tTrue", "dark green\tTrue"]
    right = scored(*rows)
    assert scored(*(row.replace("True", "False") for row in rows)) == 1 - right
    other = [row.replace("True", "yes") for row in rows]
    with pytest.raises(DataError, match=r"'yes' \(2 times\); it knows 'False', 'True'"):
        scored(*other)
    assert scored(*other, more=("model.labels=[no,yes]",)) == right


@pytest.mark.parametrize("task", AUTO)
def test_an_evaluation_gives_the_validation_s_loss_to_the_last_digit(
    trained: dict[str, Path], task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    best = json.loads((trained[task] / "results.json").read_text())
    assert evaluate([str(trained[task])], "val", "best", (), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["val/loss"] == best["val/loss"]

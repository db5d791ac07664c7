import os
from collections.abc import Callable
from pathlib import Path

import pytest

from truesweep.config.compose import compose
from truesweep.config.schema import check
from truesweep.errors import ConfigError
from truesweep.record.frozen import fingerprint, freeze
from truesweep.secrets import is_secret, redact_argv, redact_overrides, reveal, scrub

CANARY = "sk-canary-0123456789"
STASHED = "TRUESWEEP_SECRET_OPTIMIZER_API_KEY"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `monkeypatch` take out again what composing puts into the environment."""
    for name in (STASHED, "TRUESWEEP_SECRET_MODEL_OPTIONS_PASSWORD", "TRUESWEEP_SECRET_HF_TOKEN"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "name",
    [
        *("api_key", "logger.api_key", "WANDB_API_KEY", "apiKey", "apikey", "data.token"),
        *("access_token", "auth_token", "hub_token", "hf_token", "HF_TOKEN", "bearer_token"),
        *("HUGGING_FACE_HUB_TOKEN", "access_tokens", "password", "DB_PASSWORD", "passwd"),
        *("secret", "client_secret", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "credentials"),
        *("private_key", "GOOGLE_APPLICATION_CREDENTIALS", "logger.headers.authorization"),
        *("users[0].password", "SLACK_BOT_TOKEN", STASHED),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer", "tokenizer.vocab_size", "max_tokens", "tokens", "n_tokens", "pad_token"),
        *("eos_token", "bos_token", "unk_token", "mask_token", "token_ids", "pad_token_id"),
        *("max_new_tokens", "decoder_start_token", "special_tokens", "loss_per_token", "HOME"),
        *("PWD", "key", "data.text_column", "keyboard", "author", "tokens_per_second", "lr"),
        *("additional_special_tokens", "image_token", "primary_key", "monkey"),
    ],
)
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    "overrides",
    [
        [f"optimizer.api_key={CANARY}"],
        [f"++optimizer.api_key='{CANARY}'"],
        [f"optimizer={{api_key: {CANARY}}}"],
        [f"optimizer.api_key={CANARY}", "model.cache=/x/${optimizer.api_key}"],
        [f"optimizer.api_key={CANARY}", "model.tags=[a,'b ${optimizer.api_key}']"],
        ["optimizer.api_key=${oc.env:CANARY_VARIABLE}"],
        ["optimizer.api_key='Bearer ${oc.env:CANARY_VARIABLE}'"],
        ["model.cache=${oc.env:CANARY_TOKEN}"],
        ["model.cache='x ${oc.env:CANARY_TOKEN} y'", "name=${model.cache}"],
        ["model.cache='${oc.env:${oc.env:CANARY_POINTER}}'"],
        [f"model.cache=${{oc.env:HF_TOKEN,{CANARY}}}"],
        [f"model.options={{user: a, password: {CANARY}}}"],
        ["optimizer.api_key=${name}", "name=${oc.env:CANARY_TOKEN}"],
    ],
)
def test_the_canary_is_written_nowhere(
    tree: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_VARIABLE", CANARY)
    monkeypatch.setenv("CANARY_TOKEN", CANARY)
    monkeypatch.setenv("CANARY_POINTER", "CANARY_TOKEN")
    composed = compose(overrides, [tree])
    config = check(composed.config, supplied={"optimizer": {"params"}}, origin=composed.origins)
    argv = redact_argv(["truesweep", "train", *overrides])
    for text in (freeze(config), repr(composed), str(composed.overrides), str(argv)):
        assert CANARY not in text
    assert CANARY in str(reveal(config))


def test_a_secret_in_a_file_is_moved_to_the_environment(
    tree: Path, add_files: Callable[[Path, dict[str, str]], Path]
) -> None:
    add_files(tree, {"optimizer/keyed.yaml": f"api_key: {CANARY}"})
    config = compose(["optimizer=keyed"], [tree]).config
    assert config["optimizer"]["api_key"] == f"${{oc.env:{STASHED}}}"
    assert os.environ[STASHED] == CANARY


def test_a_number_can_be_a_secret(tree: Path) -> None:
    config = compose(["optimizer.api_key=12345"], [tree]).config
    assert reveal(config)["optimizer"]["api_key"] == "12345"


def test_null_stays_null(tree: Path) -> None:
    overrides = ["optimizer.api_key=null", "model.cache=${oc.env:HF_TOKEN_NOT_SET,null}"]
    config = compose(overrides, [tree]).config
    assert config["optimizer"]["api_key"] is None
    assert config["model"]["cache"] is None


def test_the_fingerprint_does_not_depend_on_the_secret(tree: Path) -> None:
    first = compose([f"optimizer.api_key={CANARY}"], [tree]).config
    second = compose(["optimizer.api_key=another"], [tree]).config
    assert fingerprint(first) == fingerprint(second)


def test_an_ordinary_variable_is_resolved_afterwards(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "/home/me")
    compose([f"optimizer.api_key={CANARY}"], [tree])
    assert compose(["model.cache=${oc.env:HERE}"], [tree]).config["model"]["cache"] == "/home/me"


def test_reveal_names_the_variable_that_is_not_set() -> None:
    with pytest.raises(ConfigError, match=r"^logger\.api_key: .*variable NOT_SET_KEY"):
        reveal({"logger": {"api_key": "${oc.env:NOT_SET_KEY}"}})


def test_reveal_leaves_everything_else() -> None:
    config = {"a": [1, "x", None, {"b": 2.5}], "c": "$HOME ${x}"}
    assert reveal(config) == config


@pytest.mark.parametrize(
    ("override", "redacted"),
    [
        ("logger.api_key=abc", "logger.api_key=<redacted>"),
        ("+logger.api_key='a=b'", "+logger.api_key=<redacted>"),
        ("logger.api_key=a,b", "logger.api_key=<redacted>"),
        ("logger={entity: me, api_key: abc}", "logger=<redacted>"),
        ("logger={'api_key': abc}", "logger=<redacted>"),
        ("logger.api_key=${oc.env:MY_KEY}", "logger.api_key=${oc.env:MY_KEY}"),
        ("model.path=${oc.env:HF_TOKEN,abc}", "model.path=<redacted>"),
        ("tokenizer.pad_token=<pad>", "tokenizer.pad_token=<pad>"),
        ("optimizer.lr=1e-3", "optimizer.lr=1e-3"),
        ("~optimizer", "~optimizer"),
    ],
)
def test_redact_overrides(override: str, redacted: str) -> None:
    assert redact_overrides([override]) == [redacted]


def test_redact_argv_covers_several_overrides_in_one_argument() -> None:
    asked = f"model=llama logger.api_key={CANARY} optimizer.lr=0.1"
    argv = redact_argv(["truesweep", "duel", asked, "optimizer.lr=0.2", "notes='it is'"])
    assert CANARY not in str(argv)
    assert argv[3:] == ["optimizer.lr=0.2", "notes='it is'"]
    assert "optimizer.lr=0.1" in argv[2]


def test_redact_argv_covers_options() -> None:
    argv = ["truesweep", "train", "--api-key", CANARY, f"--hub-token={CANARY}", "seed=1"]
    assert redact_argv(argv) == [
        *("truesweep", "train", "--api-key", "<redacted>", "--hub-token=<redacted>", "seed=1")
    ]


@pytest.mark.parametrize(
    "override",
    [
        f"optimizer.api_key={CANARY},b",
        f"optimizer.api_key=[{CANARY}",
        f"~optimizer.api_key={CANARY}",
    ],
)
def test_errors_do_not_show_secrets(tree: Path, override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([override], [tree])
    assert CANARY not in str(caught.value)


def test_scrub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", CANARY)
    monkeypatch.setenv("PLAIN", "in plain sight")
    assert scrub(f"bad key {CANARY}, in plain sight") == "bad key <redacted>, in plain sight"
    assert scrub("in plain sight", {"k": "${oc.env:PLAIN}"}) == "<redacted>"

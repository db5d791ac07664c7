import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from truesweep.data import Hub, Labelled, Pair
from truesweep.data.samples import Chat
from truesweep.data.texts import Texts
from truesweep.errors import ConfigError, DataError

LABELS = datasets.ClassLabel(names=["neg", "pos"])
CLASSES = datasets.Features({"text": datasets.Value("string"), "label": LABELS})


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def write(splits: dict[str, list[dict[str, Any]]], features: Any = None, config: str = "") -> str:
    """A folder laid out like a repository on the hub; `config` adds a second configuration."""
    folder = Path("hub") / config
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, rows in splits.items():
        path = folder / f"{split}.parquet"
        datasets.Dataset.from_list(rows, features=features).to_parquet(path)
        paths.append({"split": split, "path": str(path.relative_to("hub"))})
    readme = Path("hub/README.md")
    configs = json.loads(readme.read_text().split("\n")[1][9:]) if readme.exists() else []
    configs.append({"config_name": config or "default", "data_files": paths})
    readme.write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return "hub"


def rows(count: int, tag: str) -> list[dict[str, Any]]:
    return [{"text": f"{tag} {i}", "label": i % 2} for i in range(count)]


def test_class_ids_become_names() -> None:
    name = write({"train": rows(4, "a"), "validation": rows(2, "b"), "test": rows(3, "c")}, CLASSES)
    splits = Hub(name=name).load("labelled")
    assert splits.train[:2] == [Labelled("a 0", "neg"), Labelled("a 1", "pos")]
    assert [len(splits.train), len(splits.val), len(splits.test)] == [4, 2, 3]
    assert "split_off" not in splits.origin


def test_text_and_pairs_from_plain_columns() -> None:
    name = write({"train": [{"de": "ja", "en": "yes"}], "validation": [{"de": "a", "en": "b"}]})
    keys: dict[str, Any] = {"name": name, "train_split": "train+validation", "test_split": "train"}
    assert Hub(text_column="en", **keys).load("text").train == ["yes", "b"]
    assert Hub(source="de", target="en", **keys).load("pairs").test == [Pair("ja", "yes")]


def test_texts_stay_on_disk_and_follow_what_changes() -> None:
    name = write({"train": rows(3_000, "train"), "validation": rows(20, "val")})
    first = Hub(name=name, packing=False).load("text")
    assert isinstance(first.train, Texts)
    assert sorted([*first.train, *first.test]) == sorted(f"train {i}" for i in range(3_000))
    assert Hub(name=name, packing=False).load("text") == first
    write({"train": rows(3_001, "train"), "validation": rows(20, "val")})
    assert Hub(name=name, packing=False).load("text").fingerprint != first.fingerprint


def test_conversations() -> None:
    said: list[dict[str, Any]] = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    name = write({"train": [{"messages": said, "source": "x"}], "test": [{"messages": said}]})
    keys: dict[str, Any] = {"name": name, "val_split": "test"}
    splits = Hub(**keys).load("chats")
    assert splits.train == splits.test == [Chat.of(said)]


@pytest.mark.parametrize("features", [None, datasets.Translation(languages=["de", "en"])])
def test_pairs_from_a_translation_column(features: Any) -> None:
    sentences = [{"id": "0", "translation": {"de": "ja", "en": "yes"}}]
    if features is not None:
        features = datasets.Features({"id": datasets.Value("string"), "translation": features})
    name = write({"train": sentences, "validation": sentences, "test": sentences}, features)
    splits = Hub(name=name, source="en", target="de").load("pairs")
    assert splits.train == [Pair("yes", "ja")]


def test_missing_splits_are_split_off_by_content() -> None:
    splits = Hub(name=write({"train": rows(300, "a")}, CLASSES)).load("labelled")
    samples = [*splits.train, *splits.val, *splits.test]
    assert len(set(samples)) == 300
    assert set(splits.origin["split_off"]["shares"]) == {"val", "test"}
    assert splits.val
    assert splits.test


def test_a_split_can_be_left_out() -> None:
    name = write({"train": rows(300, "a"), "test": rows(300, "b")}, CLASSES)
    splits = Hub(name=name, test_split=None).load("labelled")
    assert {sample.text[0] for sample in splits.test if isinstance(sample, Labelled)} == {"a"}


def test_a_split_can_be_a_slice() -> None:
    name = write({"train": rows(10, "a")}, CLASSES)
    keys: dict[str, Any] = {"val_split": "train[:20%]", "test_split": "train[2:4]"}
    splits = Hub(name=name, train_split="train[4:]", **keys).load("text")
    assert splits.val == ["a 0", "a 1"]
    assert splits.test == ["a 2", "a 3"]
    assert len(splits.train) == 6


def test_a_configuration_is_chosen() -> None:
    every = ("train", "validation", "test")
    write(dict.fromkeys(every, rows(2, "first")), config="one")
    name = write(dict.fromkeys(every, rows(2, "second")), config="two")
    splits = Hub(name=name, config="two").load("text")
    assert splits.train == ["second 0", "second 1"]
    assert splits.origin["hub"]["config"] == "two"
    with pytest.raises(DataError, match=r"data.config=three.*two"):
        Hub(name=name, config="three").load("text")


def test_changed_files_are_read_again() -> None:
    Hub(name=write({"train": rows(300, "a")})).load("text")
    Path("hub/README.md").unlink()
    splits = Hub(name=write({"train": rows(300, "b")})).load("text")
    assert str(splits.train[0]).startswith("b")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"train_split": "tran"}, "data.train_split=tran.* There are: train, other"),
        ({"val_split": "dev"}, "data.val_split=dev.* There are: "),
        ({"test_split": "tst[:10]"}, "data.test_split="),
        ({"val_split": "train[a]"}, "split train.a.: .* Write a slice as"),
    ],
)
def test_a_split_that_is_not_there_is_refused(keys: dict[str, Any], words: str) -> None:
    name = write({"train": rows(3, "a"), "other": rows(3, "b")}, CLASSES)
    with pytest.raises(ConfigError, match=words):
        Hub(name=name, **keys).load("text")


@pytest.mark.parametrize(
    ("kind", "keys", "words"),
    [
        ("text", {"text_column": "txt"}, "no column 'txt'. There are: text, label"),
        ("pairs", {"source": "text", "target": "d"}, "no column 'd'. There are: .*de"),
        ("text", {"text_column": "more"}, "split train, row 2: 'more' is null"),
    ],
)
def test_unfit_columns_are_refused(kind: Any, keys: dict[str, Any], words: str) -> None:
    more = [{"text": "a", "label": 0, "more": word, "tr": {"de": "x"}} for word in ("x", None)]
    name = write({"train": more})
    with pytest.raises(DataError, match=words):
        Hub(name=name, **keys).load(kind)


def test_a_secret_label_names_its_row() -> None:
    secret = [{"text": "a", "label": 0}, {"text": "b", "label": -1}]
    name = write({"train": rows(4, "a"), "test": secret}, CLASSES)
    with pytest.raises(DataError, match=r"split test, row 2: .* data.test_split=null"):
        Hub(name=name).load("labelled")


def test_a_label_outside_train_names_its_row() -> None:
    name = write({"train": rows(1, "a"), "validation": rows(2, "b"), "test": rows(1, "c")}, CLASSES)
    with pytest.raises(DataError, match="hub, split validation, row 2: label 'pos'"):
        Hub(name=name).load("labelled")


def test_a_name_that_cannot_be_found() -> None:
    with pytest.raises(DataError, match=r"data.name=no/such data.config=None"):
        Hub(name="no/such").load("text")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install truesweep\[hub\]"):
        Hub(name="x").load("text")

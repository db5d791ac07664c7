import pytest

from truesweep.dotted import nearest_key

KNOWN = [
    *("seed", "name", "model", "optimizer", "optimizer.lr", "optimizer.weight_decay"),
    *("model.depth", "model.width", "model.heads", "data.batch_size", "data.max_length"),
    *("trainer.max_epochs", "trainer.max_steps", "trainer.devices", "callbacks.checkpoint.monitor"),
]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("modle.depth", "model.depth"),
        ("optimizer.weight_decy", "optimizer.weight_decay"),
        ("lr", "optimizer.lr"),
        ("optimizer.learning_rate", "optimizer.lr"),
        ("learning_rate", "optimizer.lr"),
        ("model.n_layer", "model.depth"),
        ("model.num_layers", "model.depth"),
        ("model.d_model", "model.width"),
        ("model.hidden_size", "model.width"),
        ("model.n_head", "model.heads"),
        ("trainer.epochs", "trainer.max_epochs"),
        ("trainer.steps", "trainer.max_steps"),
        ("trainer.gpus", "trainer.devices"),
        ("trainer.batch_size", "data.batch_size"),
        ("sead", "seed"),
        ("callbacks.checkpont.monitor", "callbacks.checkpoint.monitor"),
    ],
)
def test_nearest_key_over_the_whole_tree(wrong: str, right: str) -> None:
    assert nearest_key(wrong, KNOWN) == [right]


def test_a_node_that_exists_is_left_only_for_the_same_name() -> None:
    """`nope` is a little like `notes`, and was not meant for it."""
    known = [*KNOWN, "logger.notes", "logger.name"]
    assert nearest_key("optimizer.nope", known) == []
    assert nearest_key("optimiser.nope", known) == ["logger.notes"]
    assert nearest_key("logger.nope", known) == ["logger.notes"]
    assert nearest_key("optimizer.max_lenght", known) == ["data.max_length"]


@pytest.mark.parametrize("wrong", ["optimizer.foo", "callbacks.checkpoint.zzz", "x"])
def test_a_shared_prefix_alone_is_no_likeness(wrong: str) -> None:
    assert nearest_key(wrong, KNOWN) == []


def test_a_synonym_is_offered_only_where_it_exists() -> None:
    assert nearest_key("optimizer.learning_rate", ["model.depth"]) == []


def test_a_dotted_key_is_never_taken_for_a_group() -> None:
    assert nearest_key("data.train", ["trainer", "trainer.devices"]) == []

"""Two real processes give the figures of one, whatever their shares."""

import random
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from sklearn.metrics import f1_score
from torch.nn.functional import cross_entropy

from tests import processes

pytestmark = pytest.mark.numbers

SIZES = (1, 3, 5, 8, 17)  # with 1, the second rank has nothing


def make_case(size: int) -> dict[str, Any]:
    generator, draw = torch.Generator().manual_seed(size), random.Random(size)
    labels = torch.randint(11, (size, 6), generator=generator)
    labels[:, 3:][torch.rand(size, 3, generator=generator) < 0.5] = -100
    lines = [[f"w{draw.randint(0, 5)}" for _ in range(draw.randint(4, 12))] for _ in range(size)]
    return {
        "logits": torch.randn(size, 6, 11, generator=generator),
        "labels": labels,
        "references": [" ".join(line) for line in lines],
        "predictions": [" ".join([*line[:-1], "end"]) for line in lines],
        "classes": torch.randint(4, (size,), generator=generator),
        "gold": torch.randint(4, (size,), generator=generator),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, dict[str, Any]]]:
    directory = tmp_path_factory.mktemp("ranks")
    torch.save({size: make_case(size) for size in SIZES}, directory / "cases.pt")
    script = str(Path(__file__).with_name("two_ranks.py"))
    ranks = [
        processes.Process(["-W", "error", script, str(rank), str(directory)]) for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    return [torch.load(directory / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rank", [0, 1])
def test_both_ranks_give_the_figures_of_the_whole(
    results: list[dict[int, dict[str, Any]]], size: int, rank: int
) -> None:
    case, found = make_case(size), results[rank][size]
    nll = cross_entropy(case["logits"].double().flatten(0, 1), case["labels"].flatten())
    bleu = sacrebleu.corpus_bleu(case["predictions"], [case["references"]]).score
    chrf = sacrebleu.corpus_chrf(case["predictions"], [case["references"]]).score
    gold, classes = case["gold"].tolist(), case["classes"].tolist()
    f1 = f1_score(gold, classes, average="macro", zero_division=0)
    assert found["nll"].item() == pytest.approx(nll.item(), rel=1e-6)
    assert found["perplexity"].item() == pytest.approx(nll.exp().item(), rel=1e-6)
    assert found["bleu"].item() == pytest.approx(bleu, abs=1e-10)
    assert found["chrf"].item() == pytest.approx(chrf, abs=1e-10)
    assert found["classification"]["f1_macro"].item() == pytest.approx(f1, abs=1e-12)
    assert found["classification"]["support"].sum().item() == size

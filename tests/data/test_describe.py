import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from truesweep.data import leakage as leakage_module
from truesweep.data.advice import advise
from truesweep.data.describe import Description, describe, pair_shape, quantiles
from truesweep.data.kinds import PAIRS, TRANSLATIONS, SampleKind
from truesweep.data.leakage import (
    Leakage,
    duplicates,
    leaked,
    leaks,
    ngrams,
    passages,
    shared,
)
from truesweep.data.samples import Kind, Labelled, Pair, Sample, Splits
from truesweep.data.similarity import (
    SIMILAR,
    closest,
    jaccard,
    normalise,
    rewording,
    signatures,
    word_codes,
    words,
)
from truesweep.data.token_cache import encode_splits
from truesweep.data.tokenizers import Bpe, Char, TokenizerConfig, Word
from truesweep.report.data import tables

Describe = Callable[..., Description]
SENTENCE = "the quick brown fox jumps over the lazy dog near the river bank"


@pytest.fixture
def described(prepared: Callable[..., Any], tmp_path: Any) -> Describe:
    """Describe samples in memory."""

    def make(
        train: list[Sample],
        val: list[Sample],
        test: list[Sample],
        tokenizer: TokenizerConfig | None = None,
        **keys: Any,
    ) -> Description:
        config = tokenizer or Char()
        made, source = prepared(train, config, val=val, test=test, decontaminate="warn", **keys)
        splits: Splits = made.kind.load(source)
        tokens = encode_splits(splits, config, made.kind, tmp_path / "cache").tokens
        return describe(splits, tokens, made, source)

    return make


def problems(found: Description) -> list[str]:
    return [advice.problem for advice in advise(found)]


def sentences(count: int, seed: int) -> list[str]:
    """Sentences of 5 to 20 words of a made-up language."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghiklmnoprstu", k=rng.randint(2, 9))) for _ in range(5000)]
    return [" ".join(rng.choices(words, k=rng.randint(5, 20))) for _ in range(count)]


def between(found: Sequence[Leakage], split: str, other: str) -> Leakage:
    (one,) = (leak for leak in found if (leak.split, leak.other) == (split, other))
    return one


@pytest.mark.parametrize(
    ("text", "same"),
    [("Hello  World\n", True), ("ｈｅｌｌｏ world", True), ("hello, world", False)],
)
def test_case_space_and_forms_of_a_character_make_no_other_text(text: str, same: bool) -> None:
    assert (normalise(text) == "hello world") == same


def test_similarity_counts_windows_of_five_characters() -> None:
    assert jaccard("abcdefg", "abcdefgh") == 3 / 4
    assert jaccard("abc", "abc") == 1
    assert jaccard("abcde", "vwxyz") == 0


def test_texts_with_other_numbers_are_never_alike() -> None:
    first, second = (f"{SENTENCE} in the spring of {year}" for year in (1984, 1985))
    assert jaccard(first, second) == 0
    assert jaccard(first, first + "s") > SIMILAR


def test_long_texts_of_few_letters_are_not_alike_by_chance() -> None:
    rng = random.Random(0)
    first, second = ("".join(rng.choices("acgt", k=20_000)) for _ in range(2))
    assert jaccard(first, second) < 0.5  # all have the same 1024 windows of five
    assert not closest([first], [second])
    changed = list(first)
    for place in range(0, len(first), 100):
        changed[place] = "acgt"["cgta".index(changed[place])]
    near = "".join(changed)
    # One character in a hundred: of a hundred windows of five, five are others in each.
    assert jaccard(first, near) == pytest.approx(95 / 105, abs=0.01)
    assert closest([first], [second, near])[0][0] == 1


def test_minhash_estimates_similarity() -> None:
    changed = [SENTENCE[:i] + "#" + SENTENCE[i + 1 :] for i in range(len(SENTENCE))]
    whole = signatures([SENTENCE, *changed])
    estimates = (whole[1:] == whole[0]).mean(axis=1)
    exact = [jaccard(SENTENCE, text) for text in changed]
    assert np.abs(estimates - exact).mean() < 0.06
    assert np.array_equal(whole[:1], signatures([SENTENCE]))  # whatever stands beside it


def test_every_variant_of_a_sentence_is_found_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("truesweep.data.similarity._AT_ONCE", 10_000)  # many chunks
    corpus, rng = sentences(4000, seed=0), random.Random(1)
    origins = rng.sample([i for i, text in enumerate(corpus) if len(text) >= 60], 300)
    variants = []
    for i in origins:
        place = rng.randrange(len(corpus[i]))
        variants.append(corpus[i][:place] + "#" + corpus[i][place + 1 :])
    found = closest([*variants, *sentences(300, seed=2)], corpus)
    expected = {
        n: i
        for n, (text, i) in enumerate(zip(variants, origins, strict=True))
        if jaccard(text, corpus[i]) >= SIMILAR
    }
    assert len(expected) > 200
    assert {query: twin for query, (twin, _) in found.items()} == expected


def test_short_texts_are_alike_only_if_they_are_the_same() -> None:
    assert closest(["romanian people"], ["aromanian people"]) == {}
    assert closest([], ["a"]) == closest(["a" * 30], []) == {}


def test_a_hundred_thousand_samples_take_seconds() -> None:
    train: list[Sample] = [Labelled(text, "a") for text in sentences(95_000, seed=0)]
    val: list[Sample] = [Labelled(text, "a") for text in sentences(5000, seed=1)]
    val[:100] = train[:100]
    start = time.process_time()
    found = leaked("labelled", {"train": train, "val": val, "test": val[:50]})
    assert time.process_time() - start < 20
    assert between(found, "val", "train").exact == 100
    assert between(found, "test", "val").exact == 50


def test_duplicates_within_a_split_are_counted_with_their_contradictions() -> None:
    samples = [("One", "a"), ("two", "b"), ("one ", "a"), ("ONE", "b"), ("three", "a")]
    found = duplicates(passages([Labelled(*sample) for sample in samples], "labelled"))
    assert (found.passages, found.repeated, found.contradictory) == (5, 2, 1)


def test_pairs_are_compared_by_their_source() -> None:
    train = passages([Pair("eins", "one"), Pair("zwei", "two")], "pairs")
    other = passages([Pair("eins", "One."), Pair("two", "zwei")], "pairs")
    (leak,) = leaks(other, train)
    assert (leak.text, leak.answer, leak.twin_answer) == ("eins", "One.", "one")


def test_a_leak_is_told_with_its_own_label_where_there_is_one() -> None:
    train = passages([Labelled("same", "a"), Labelled("same", "b")], "labelled")
    (leak,) = leaks(passages([Labelled("Same", "b")], "labelled"), train)
    assert (leak.answer, leak.twin_answer) == ("b", "b")


def test_texts_are_compared_by_paragraphs_of_eight_words() -> None:
    heading, body = "Chapter one", SENTENCE
    kept = passages([f"{heading}\n\n{body}\n\nend\n"], "text")
    assert [passage.text for passage in kept] == [body]
    by_lines = passages([f"{body}\n{heading}\n{body} again\n"], "text")
    assert [passage.text for passage in by_lines] == [body, f"{body} again"]


THAI = "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e40\u0e02\u0e35\u0e22\u0e19"
SPACELESS = {
    "zh": "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u6211\u4eec\u53bb\u516c\u56ed\u6563\u6b65\u5427",
    "ja": "\u4eca\u65e5\u306f\u3068\u3066\u3082\u5929\u6c17\u304c\u3044\u3044\u3067\u3059\u306d",
    "th": THAI,
    "lo": "".join(chr(ord(c) + 0x80) for c in THAI),
    "km": "\u1781\u17d2\u1789\u17bb\u17c6\u179f\u17d2\u179a\u17a1\u17b6\u1789\u17cb\u1797\u17b6",
}


@pytest.mark.parametrize("language", SPACELESS)
@pytest.mark.parametrize("packing", [True, False])
def test_leaks_are_found_where_no_spaces_stand(language: str, packing: bool) -> None:
    sentence = SPACELESS[language]
    others = ["".join(chr(ord(c) + i) for c in sentence) for i in range(1, 9)]

    def samples(*texts: str) -> list[Sample]:
        return ["\n".join(texts)] if packing else list(texts)

    splits = {"train": samples(*others[:6], sentence), "test": samples("x", sentence + "\u3002")}
    found = leaked("text", {**splits, "val": samples(sentence, *others[6:])})
    val, test = between(found, "val", "train"), between(found, "test", "train")
    assert (val.passages, val.exact, val.near) == (3, 1, 0)
    assert test.near == 1
    assert val.ngrams is not None
    assert val.ngrams > 0.1


@pytest.mark.parametrize("text", ["word", "a short line", "0x1f", "!?"])
@pytest.mark.parametrize("packing", [True, False])
def test_an_identical_sample_is_found_however_short(text: str, packing: bool) -> None:
    def samples(*texts: str) -> list[Sample]:
        return ["\n".join(texts)] if packing else list(texts)

    splits = {"train": samples("other", text), "val": samples(text), "test": samples("third")}
    twice = duplicates(passages(splits["train"], "text"))
    found = leaked("text", splits)
    assert between(found, "val", "train").exact == 1
    assert between(found, "test", "train").exact == 0
    assert twice.passages == 2


def test_words_are_characters_where_no_spaces_stand() -> None:
    assert words("two words \u4eca\u5929abc 12") == [
        "two",
        "words",
        "\u4eca",
        "\u5929",
        "abc",
        "12",
    ]


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        ("where is rider college ?", "where is rider college located ?", 4 / 4.75),
        ("where is the airport ?", "where is airport ?", 0.8),  # three of four words
        ("a small tan dog runs in deep snow", "a dog runs in snow", 5 / 7.25),
        ("what soft drink is it ?", "what is it , soft drink ?", 1),
        ("who wrote hamlet ?", "who worte hamlet ?", 2.75 / 3),
        ("who wrote hamlet ?", "who rote hamlet ?", 2.75 / 3),
        ("who wrote hamlet ?", "who wrotte hamlte ?", 2.5 / 3),
        ("the town of london is old", "the town of lindon is old", 5.75 / 6),
        ("what does cpr stand for ?", "what does cnr stand for ?", 4 / 8),  # another word
        ("a man in a red shirt sings", "a man in a blue shirt sings", 6 / 10),
        ("hamlet , who ?", "who ? hamlet", 0),  # too few
        ("who wrote 12 hamlets", "who wrote 13 hamlets", 0),
        ("who won the cup in 1992 ?", "who won the cup in ?", 5 / 5.75),
        ("the 2 cities by the 3 seas", "the 3 cities by the 2 seas", 0),
        ("the 2 cities by the 3 old seas", "the cities by the 3 old seas", 7 / 7.75),
        ("the 2 cities by the 3 old seas", "the cities by the 4 old seas", 0),
        ("\u4eca\u5929 a b c", "\u5929\u4eca a b c", 0),
    ],
)
def test_a_reworded_text_is_known_by_its_words(first: str, second: str, share: float) -> None:
    assert rewording(first, second) == rewording(second, first) == pytest.approx(share)


def test_words_have_the_same_number_where_they_are_the_same() -> None:
    texts = ["One_1 one_1, two!", "", "\u4eca\u5929abc\u5929 stra\u00dfe", "?", "STRASSE \uff54wo"]
    texts += ["".join(map(chr, range(0x700))), "\U0001f600x\U00020000", "last"]
    codes, counts = word_codes(texts)
    expected = [words(normalise(text)) for text in texts]
    assert counts.tolist() == [len(each) for each in expected]
    flat = list(chain.from_iterable(expected))
    assert len({*zip(flat, codes.tolist(), strict=True)}) == len({*flat}) == len({*codes.tolist()})


def test_ngrams_are_the_same_however_a_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["\n\n".join(sentences(40, seed)) for seed in range(3)] + ["a b c", "\u4eca" * 9]
    whole = ngrams(texts)
    assert len(whole) == sum(max(0, len(words(text)) - 7) for text in texts)
    monkeypatch.setattr("truesweep.data.texts.PIECE", 50)
    monkeypatch.setattr("truesweep.data.leakage._HASHED_AT_ONCE", 70)
    assert ngrams(texts).tolist() == whole.tolist()


def test_shared_word_eight_grams_are_counted() -> None:
    ours = ngrams(["a b c d e f g h i j", "x y"])  # three 8-grams, and none
    theirs = ngrams(["- A, b c d e f g h i!", "b c d e f g h i"])
    assert len(ours) == 3
    both = {"ours": ours, "none": ngrams(["x y"])}
    parts = [theirs[:3], theirs[3:]]
    assert shared(both, lambda first: parts[first:]) == {"ours": pytest.approx(2 / 3), "none": 0}


def test_no_gram_goes_beyond_its_text() -> None:
    assert len(ngrams(["a b c d", "e f g h"])) == 0


def test_quantiles_are_values_that_occur() -> None:
    found = quantiles([1, 2, 3, 4, 100])
    assert list(found.values()) == [1, 2, 3, 4, 100, 100]
    assert set(quantiles([]).values()) == {0}


def test_pairs_that_do_not_fit_are_counted() -> None:
    pairs = [Pair("a", "b")] * 97 + [Pair("Same", "same"), Pair("c", "d"), Pair("e", "f")]
    sources = np.array([10] * 97 + [10, 0, 10])
    targets = np.array([10] * 97 + [10, 5, 90])
    found = pair_shape(pairs, sources, targets)
    assert (found.odd, found.empty, found.copied) == (1, 1, 1)
    assert found.ratio["median"] == 1
    assert found.ratio["max"] == 9


def test_a_split_is_counted(described: Describe) -> None:
    train: list[Sample] = [Labelled("aab", "x"), Labelled("ab", "y"), Labelled("abab" * 3, "x")]
    val: list[Sample] = [Labelled("éb", "x")]
    found = described(train, val, [Labelled("b", "y")], max_length=9)
    part = found.splits["train"]
    assert (part.samples, part.tokens, part.bytes) == (3, 17, 17)
    assert (part.longest, part.truncated) == (14, 1)
    assert (part.lengths["text"]["min"], part.lengths["text"]["max"]) == (2, 12)
    assert part.labels == {"x": 2, "y": 1}
    assert found.splits["val"].unknown == 1
    assert found.splits["val"].labels == {"x": 1, "y": 0}
    assert (found.vocabulary.size, found.vocabulary.used) == (2, 2)


def test_tokens_that_training_never_has_are_counted(described: Describe) -> None:
    found = described(["abc"], ["abd"], ["ba"], Bpe(vocab_size=260))
    assert found.vocabulary.size == 256
    assert found.vocabulary.used == 3
    assert [part.unseen for part in found.splits.values()] == [0, 1, 0]


def test_good_data_get_no_advice(described: Describe) -> None:
    good: list[list[Sample]] = [
        [Labelled(text, "ab"[i % 2]) for i, text in enumerate(sentences(300, seed))]
        for seed in range(3)
    ]
    assert problems(described(*good, max_length=300)) == []


def test_leaks_are_warned_of_unless_memory_would_not_help(described: Describe) -> None:
    train: list[Sample] = [Labelled(text, "a") for text in sentences(300, 0)]
    train += [Labelled(text, "b") for text in sentences(300, 1)]
    judges: list[list[Sample]] = [
        [Labelled(text, "ab"[i % 2]) for i, text in enumerate(sentences(300, seed))]
        for seed in (2, 3)
    ]
    judges[0][:3] = [Labelled(sample.text.upper(), sample.label) for sample in train[:3]]  # type: ignore[union-attr]
    judges[1][:3] = [Labelled(sample.text, "b") for sample in train[5:8]]  # type: ignore[union-attr]
    found = described(train, *judges, max_length=300)
    (problem,) = problems(found)
    assert "val is not independent of train: 3 of its 300 samples (1.0 %)" in problem
    assert "(--show 3 lists them)" in advise(found)[0].remedy
    judges[0][:30] = train[:30]
    assert "(--show 20 lists some)" in advise(described(train, *judges, max_length=300))[0].remedy
    assert between(found.leakage, "test", "train").other_answer == 3


def test_copied_text_is_warned_of(described: Describe) -> None:
    texts = ["\n\n".join(sentences(300, seed)) for seed in range(3)]
    clean = described([texts[0]], [texts[1]], [texts[2]])
    assert problems(clean) == []
    found = described([texts[0]], [texts[1] + "\n\n" + texts[0][:4000]], [texts[2]])
    (problem,) = problems(found)
    assert problem.startswith("val is not independent of train")
    assert "8-grams" in problem


def few(count: int, *labels: str) -> list[Sample]:
    """Samples whose labels come in turn; the same texts for the same count."""
    texts = enumerate(sentences(count, seed=count))
    return [Labelled(f"{i} {text}", labels[i % len(labels)]) for i, text in texts]


@pytest.mark.parametrize(
    ("train", "val", "keys", "said"),
    [
        (few(301, "a", "b", "c"), few(302, "a", "b"), {}, "val has no sample of 'c'"),
        (few(301, "a", "b"), few(50, "a", "b"), {}, "val has 50 samples: an accuracy of 90 % is"),
        (few(301, *"a" * 19, "b"), few(302, "a", "b"), {}, "95 % of train is 'a'"),
        (few(301, "a"), few(302, "a"), {"max_length": 60}, "is longer than data.max_length=60"),
        (
            [*few(301, "a"), *few(301, "a")],
            few(302, "a"),
            {},
            "50 % of the samples of train repeat",
        ),
        ([*few(301, "a"), *few(301, "b")], few(302, "a"), {}, "50 % of train has the text of an"),
        (few(301, "a"), [Labelled("ж" * 9, "a")] * 300, {}, "of val are unknown ones"),
    ],
)
def test_what_is_wrong_with_labelled_texts_is_said(
    described: Describe, train: list[Sample], val: list[Sample], keys: dict[str, Any], said: str
) -> None:
    found = described(train, val, val, **{"max_length": 300, **keys})
    advice = [one for one in advise(found) if said in one.problem]
    assert len(advice) == 1, advise(found)
    assert advice[0].remedy


def test_pairs_out_of_step_are_said(described: Describe) -> None:
    sources = sentences(400, 0)
    train: list[Sample] = [Pair(text, text.upper() + "!") for text in sources]
    val: list[Sample] = [Pair(text, text[::-1]) for text in sentences(400, 1)]
    assert not any("too long" in problem for problem in problems(described(train, val, val)))
    for i in range(0, 400, 20):
        train[i] = Pair(sources[i], "oh")
    assert any("train have a side that is over" in p for p in problems(described(train, val, val)))


@pytest.mark.parametrize(("kind", "said"), [(TRANSLATIONS, True), (PAIRS, False)])
def test_of_languages_only_a_translation_hears(
    described: Describe, kind: SampleKind, said: bool
) -> None:
    samples: list[Sample] = [Pair(text, "oh") for text in sentences(20, 0)]
    found = replace(described(samples, samples, samples), kind=kind)
    page = " ".join([*problems(found), *(str(table) for table in tables(found))])
    assert [("BLEU" in page), ("translation" in page)] == [said, said]


def test_a_word_tokenizer_may_have_unknown_words(described: Describe) -> None:
    train, val = few(301, "a", "b"), few(302, "a", "b")
    found = described(train, val, val, Word(), max_length=300)
    assert found.splits["train"].unknown > 0
    assert not any("unknown" in problem for problem in problems(found))


def test_of_a_large_split_an_even_part_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    val = [" ".join(rng.choices("abcdefghijklmnop", k=20)) for _ in range(200)]
    splits: dict[str, Sequence[Sample]] = {"train": val[::3], "val": val, "test": val[:1]}
    whole = ngrams(val)
    first = leaked("text", splits)[0]
    assert (first.passages, first.exact) == (200, 67)
    monkeypatch.setattr("truesweep.data.leakage._JUDGED", 16)
    monkeypatch.setattr("truesweep.data.leakage._JUDGED_NGRAMS", 100)
    first = leaked("text", splits)[0]
    assert (first.passages, first.exact) == (13, 5)  # each 16th, and of these each third
    assert np.array_equal(ngrams(val), whole[::32])


@pytest.mark.parametrize("kind", ["text", "labelled"])
@pytest.mark.parametrize("where", ["closest", "Sieve.places"])
def test_what_was_found_before_a_kill_is_kept(
    kind: Kind, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truesweep.data.leakage._AT_ONCE", 8)
    monkeypatch.setattr("truesweep.data.leakage._HASHED_AT_ONCE", 300)
    monkeypatch.setattr("truesweep.data.leakage._KEPT", 2)
    train = sentences(200, 0)
    val = [f"{one} again" if i % 3 else one.upper() for i, one in enumerate(train[::4])]
    texts = {"train": [*train, *train[::9]], "val": val, "test": train[::5]}
    splits: dict[str, Sequence[Sample]] = {**texts}
    if kind == "labelled":
        splits = {name: [Labelled(t, str(len(t) % 2)) for t in of] for name, of in texts.items()}
    whole = leaked(kind, splits)
    assert whole[0].exact
    assert whole[0].near
    calls, owner = [0], leakage_module
    *inner, name = where.split(".")
    for each in inner:
        owner = getattr(owner, each)
    called = getattr(owner, name)

    def killed_now_and_then(*arguments: Any, **keys: Any) -> Any:
        calls[0] += 1
        if calls[0] % 9 == 0:
            raise KeyboardInterrupt
        return called(*arguments, **keys)

    monkeypatch.setattr(owner, name, killed_now_and_then)
    found = None
    for _ in range(60):
        with suppress(KeyboardInterrupt):
            found = leaked(kind, splits, kept=tmp_path)
            break
    assert found == whole
    assert calls[0] > 2 * 9 or (kind, where) == ("labelled", "Sieve.places")


def test_an_interrupt_waits_for_no_ngrams(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {name: sentences(20, seed) for seed, name in enumerate(("val", "test", "train"))}
    found, given = leakage_module._ngrams, 0

    def slow(samples: Sequence[Sample], first: int = 0) -> Any:
        nonlocal given
        for part in found(samples, first):
            for _ in range(200 if samples is splits["train"] else 1):
                given += samples is splits["train"]
                yield part
                time.sleep(0.01 if samples is splits["train"] else 0)

    def interrupted(*_: Any) -> None:
        while not given:
            time.sleep(0.001)
        raise KeyboardInterrupt

    monkeypatch.setattr(leakage_module, "_ngrams", slow)
    monkeypatch.setattr(leakage_module, "_look_through", interrupted)
    with pytest.raises(KeyboardInterrupt):
        leaked("text", splits)
    assert 0 < given < 100


def test_the_search_for_ngrams_goes_on_a_part_before_the_next(tmp_path: Path) -> None:
    """The last words of a part begin n-grams that end in the next one."""
    ours = {"val": np.arange(4, dtype=np.uint64)}
    kept = tmp_path / "train.npz"
    np.savez(kept, found=np.packbits(np.array([True, False, False, False])), done=3)
    asked = []

    def theirs(first: int) -> list[Any]:
        asked.append(first)
        return [np.array([2], dtype=np.uint64)]

    assert leakage_module.shared(ours, theirs, kept) == {"val": 0.5}
    assert asked == [2]

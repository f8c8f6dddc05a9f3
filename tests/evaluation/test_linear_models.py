"""The TF-IDF baseline: which text and which C cross-validation on train chooses; the domain probe."""

import random
from dataclasses import replace

import numpy as np
import pytest

from conftest import toy_examples
from metakd.config.settings import DEMO_DATA
from metakd.data.dataset import load_dataset
from metakd.data.labels import in_words
from metakd.data.schema import Example
from metakd.evaluation.linear_models import (
    ALL_DOMAINS,
    FOLDS,
    ONE_DOMAIN,
    TfidfBaseline,
    choose_tfidf,
    domain_probe,
    draw_evenly,
    right_when_left_out,
)
from metakd.evaluation.predictions import predict_by_tfidf

LABELS = ["negative", "positive"]


def reviews(domain: str, count: int, *, flipped: bool = False, words: int = 40) -> list[Example]:
    """Texts of one word of good or bad and three of none; `flipped` turns their meaning round."""
    draw, rows = random.Random(f"{domain}{count}"), []
    for i in range(count):
        positive = i % 2 == 0
        word = f"{'good' if positive != flipped else 'bad'}{draw.randrange(words)}"
        text = " ".join([word, *(f"filler{draw.randrange(20)}" for _ in range(3))])
        rows.append(Example(f"{domain}{i}", text, None, LABELS[positive], domain))
    return rows


def test_domains_that_agree_are_read_together() -> None:
    """Twelve texts show few of the eighty words of praise and blame; a thousand of the other domain show all."""
    train = reviews("small", 12) + reviews("large", 1000)
    chosen = choose_tfidf(train, 0)
    assert chosen["small"].trained_on == ALL_DOMAINS
    test = reviews("small", 200)
    costs = predict_by_tfidf(train, LABELS, test, 0).predictions["small"].costs
    assert (costs["trained_on"], costs["C"]) == (ALL_DOMAINS, chosen["small"].pooled_c)


def test_transfer_is_by_the_domain_that_was_learnt_from() -> None:
    """A thousand texts show every word of praise and blame, twelve few of them."""
    train, test = reviews("small", 12) + reviews("large", 1000), reviews("small", 200) + reviews("large", 200)
    transfer = predict_by_tfidf(train, LABELS, test, 0).transfer
    assert transfer["large"]["small"] > 0.9 > 0.75 > transfer["small"]["large"]


def test_a_domain_that_contradicts_the_others_is_read_alone() -> None:
    """Its praise is their blame: of 300 texts all are right alone, and nearly none beside 1,000 of the others."""
    train = reviews("mirror", 300, flipped=True, words=5) + reviews("large", 1000, words=5)
    assert choose_tfidf(train, 0)["mirror"].trained_on == ONE_DOMAIN
    results = predict_by_tfidf(train, LABELS, reviews("mirror", 100, flipped=True, words=5), 0)
    right = results.predictions["mirror"].truth == results.predictions["mirror"].predicted
    assert right.mean() == 1
    assert results.predictions["mirror"].costs["trained_on"] == ONE_DOMAIN


def test_the_demo_reaches_80_percent_with_all_domains_text() -> None:
    """Each domain's text alone gives 71 percent."""
    data = load_dataset(DEMO_DATA)
    results = predict_by_tfidf(data.train, data.labels, data.splits["test"], 0)
    accuracies = [float((p.truth == p.predicted).mean()) for p in results.predictions.values()]
    assert np.mean(accuracies) > 0.8
    assert {p.costs["trained_on"] for p in results.predictions.values()} == {ALL_DOMAINS}
    assert {*results.timed} == {f"TF-IDF, trained on {ALL_DOMAINS}"}
    alone = [results.transfer[domain][domain] for domain in data.domains]
    assert np.mean(alone) < 0.75  # transfer is of each domain's text alone
    again = predict_by_tfidf(data.train, data.labels, data.splits["test"], 0)
    for domain, p in results.predictions.items():
        assert (p.predicted == again.predictions[domain].predicted).all()


def test_dev_and_test_are_not_read() -> None:
    """What is scored does not change what is chosen, nor what a text is taken for."""
    train, test = toy_examples(80, 0, "train"), toy_examples(40, 1, "test")
    wrong = [replace(e, label=LABELS[e.label == "negative"]) for e in test]
    right, flipped = (predict_by_tfidf(train, LABELS, rows, 0).predictions for rows in (test, wrong))
    for domain in right:
        assert (right[domain].predicted == flipped[domain].predicted).all()


def test_rows_are_right_or_wrong_when_left_out_by_hand() -> None:
    """a is x and b is y in both folds: all are right. If they are swapped in one fold, the other teaches the wrong."""
    texts, labels = ["a", "b", "a", "b"], np.array(["x", "y", "x", "y"])
    counts = TfidfBaseline([Example(str(i), t, None, labels[i], "d") for i, t in enumerate(texts)]).pipeline[0]
    right = right_when_left_out(counts.transform(texts), labels, np.array([0, 0, 1, 1]))
    assert right.all()
    swapped = right_when_left_out(counts.transform(texts), np.array(["x", "y", "y", "x"]), np.array([0, 0, 1, 1]))
    assert not swapped.any()


def test_few_rows_rare_classes_and_lone_classes() -> None:
    """One row, a class with fewer rows than folds, a domain of one class: something is chosen, and classifies."""
    rare = [replace(e, label="mixed") for e in reviews("rare", 2)]
    lone = [e for e in reviews("lone", 40) if e.label == "positive"]
    train = reviews("rare", 60) + rare + lone + reviews("one", 1)
    train = [replace(e, id=str(i)) for i, e in enumerate(train)]
    labels = ["mixed", *LABELS]
    results = predict_by_tfidf(train, labels, train, 0)
    assert {*results.predictions} == {"rare", "lone", "one"}
    assert (results.predictions["lone"].predicted == labels.index("positive")).all()
    single = predict_by_tfidf(lone[:1] + rare[:1], labels, lone[:1] + rare[:1], 0)
    assert {*single.predictions} == {"lone", "rare"}


def test_a_draw_has_the_share_of_each_label_and_domain() -> None:
    """30 of 300 rows, two thirds of them of one domain, the labels even; the folds share them evenly too."""
    rows = reviews("a", 200) + reviews("b", 100)
    drawn = draw_evenly(rows, 30, 0)
    shares = {(d, label): sum((e.domain, e.label) == (d, label) for e in drawn) for d in "ab" for label in LABELS}
    assert shares == {("a", "negative"): 10, ("a", "positive"): 10, ("b", "negative"): 5, ("b", "positive"): 5}
    folds = np.arange(30) % FOLDS
    assert all(sum(e.domain == "b" for e, k in zip(drawn, folds, strict=True) if k == fold) == 2 for fold in range(5))
    assert draw_evenly(rows, 30, 0) == drawn != draw_evenly(rows, 30, 1)
    assert len(draw_evenly(rows, 1000, 0)) == 300


def test_tfidf_learns_words_and_pairs_and_survives_one_class_and_odd_characters() -> None:
    baseline, test = TfidfBaseline(toy_examples(80, 0, "train")), toy_examples(40, 1, "test")
    assert sum(label == e.label for label, e in zip(baseline.predict(test), test, strict=True)) >= 36
    assert baseline.size["parameters"] > 0
    lone = TfidfBaseline([Example("1", "!", None, "a", "x"), Example("2", "好", None, "a", "x")])
    assert lone.predict(test[:2]) == ["a", "a"]
    pairs = [Example(str(i), "same", ("yes", "no")[i % 2], ("a", "b")[i % 2], "x") for i in range(20)]
    assert TfidfBaseline(pairs).predict(pairs[:2]) == ["a", "b"]
    three = [Example(str(i), ("one", "two", "three")[i % 3], None, "abc"[i % 3], "x") for i in range(30)]
    assert TfidfBaseline(three, 30).predict(three[:3]) == ["a", "b", "c"]


def test_the_probe_finds_a_domain_that_is_there_and_none_that_is_not() -> None:
    """Two clouds far apart are separated; one cloud under two names is not."""
    rng = np.random.default_rng(0)
    domains = np.arange(200) % 2
    cloud = rng.normal(size=(200, 3))
    assert domain_probe(cloud + 9 * domains[:, None], domains) == 1
    assert domain_probe(cloud, domains) == pytest.approx(0.5, abs=0.2)
    assert domain_probe(cloud, np.zeros(200, dtype=int)) is None


def test_several_labels_are_told_apart_by_themselves() -> None:
    """Also where there is one label or none, where all texts have it, and where a fold lacks it."""
    words = {"a": "apple", "b": "bread", "c": "cheese"}
    sets = [tuple(label for bit, label in enumerate("abc") if i >> bit & 1) for i in range(8)] * 6

    def texts(kept: str, domain: str = "x") -> list[Example]:
        labels = [tuple(label for label in each if label in kept) for each in sets]
        return [
            Example(str(i), " ".join(["the", *(words[m] for m in each)]), None, in_words(y), domain, labels=y)
            for i, (each, y) in enumerate(zip(sets, labels, strict=True))
        ]

    for kept in ("abc", "a", ""):
        examples = texts(kept)
        names, p = TfidfBaseline(examples, 100).answers(examples)
        assert (names.tolist(), p.shape) == ([*kept], (48, len(kept)))
        assert [tuple(names[row > 0.5]) for row in p] == [e.labels for e in examples]
    everywhere = [replace(e, labels=("a",), label=in_words(["a"])) for e in texts("a")]
    assert TfidfBaseline(everywhere).answers(everywhere[:1])[1].tolist() == [[1.0]]
    both = [*texts("abc"), *texts("bc", "y")]  # the label a is not one of y's
    assert choose_tfidf(both, 0)["y"].c >= 1
    counts = TfidfBaseline(both).pipeline[0].transform([e.text for e in both])
    labels = np.array([[m in (e.labels or ()) for m in "abc"] for e in both]).astype(int)
    right = right_when_left_out(counts[48:], labels[48:], np.arange(48) % 5)
    assert right[-1].mean() > 0.9

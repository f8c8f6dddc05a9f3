"""What the data is about: characteristic and turning terms, similar domains, maps."""

import math
import random
from pathlib import Path
from statistics import mean

import pytest
import torch
from safetensors.torch import load_file

from conftest import TOPICS, read_json, read_rows, reopen, toy_examples
from metakd.data.schema import Example
from metakd.inspection.terms import strongest_terms, turning_terms
from metakd.pipeline import corpus
from metakd.pipeline.teach import load_teacher
from metakd.prototypes import Prototypes, domain_similarity


def review(place: int, text: str, label: str, domain: str) -> Example:
    return Example(str(place), text, None, label, domain)


def test_a_word_that_praises_books_and_blames_kettles_turns() -> None:
    """36 texts of each domain and label; 'long' stands in 20 good and 16 bad books, and the other way with kettles.

    Of 36 texts, half of them good, 20 or more are good by chance in Σ C(36, i) / 2^36, i = 20 … 36, of cases, 0.31;
    2 domains make 2 · 0.31² = 0.19 of it, no turn. 'quiet' (30, 6) has 3.7e-5 and so 2.8e-9.
    """
    rows = [
        review(i, f"plain {'long' * (i < with_long)} {'quiet' * (i < with_quiet)}", label, domain)
        for domain, labels in (("books", ("good", "bad")), ("kettles", ("bad", "good")))
        for label, with_long, with_quiet in zip(labels, (20, 16), (30, 6), strict=True)
        for i in range(36)
    ]
    chance = 2 * (sum(math.comb(36, i) for i in range(30, 37)) / 2**36) ** 2
    assert turning_terms(rows, 20) == [
        {"term": "quiet", "label": "good", "chance": pytest.approx(chance)}
        | {"for": {"domain": "books", "texts": 36, "labelled": 30}}
        | {"against": {"domain": "kettles", "texts": 36, "labelled": 6}}
    ]


def test_random_words_and_texts_without_words_do_not_turn() -> None:
    """4,000 words drawn by chance: 3 deviations either way, in one of 240 pairs of domains, some would have."""
    draw = random.Random(0)
    words = [f"w{i}" for i in range(4000)]
    texts = [" ".join(draw.sample(words, 400)) for _ in range(16 * 120)]
    rows = [review(i, text, ("good", "bad")[i // 16 % 2], f"d{i % 16}") for i, text in enumerate(texts)]
    assert turning_terms(rows, 20) == []
    assert turning_terms([review(0, "!", "a", "x"), review(1, "?", "b", "y")], 5) == []


def test_no_word_turns_within_one_domain_nor_for_a_label_that_others_lack() -> None:
    one = [review(i, f"word{i % 2} other", ("good", "bad")[i % 2], "x") for i in range(80)]
    assert turning_terms(one, 20) == []
    labels = [review(i, f"word{i // 2 % 2} other", f"{'xy'[i % 2]}{i // 2 % 2}", "xy"[i % 2]) for i in range(160)]
    assert turning_terms(labels, 20) == []


def test_a_domains_strongest_terms_are_its_topics_with_falling_scores() -> None:
    strongest = strongest_terms(toy_examples(64, 0, "t"), 3)
    assert {*strongest} == {*TOPICS}
    for domain, terms in strongest.items():
        assert 0 < len(terms) <= 3
        assert {term for term, _ in terms} <= set(TOPICS[domain])
        assert terms == sorted(terms, key=lambda term: term[1], reverse=True)


def test_stop_words_of_english_are_no_characteristic_terms() -> None:
    rows = [
        review(i, ("she'd had that novel we've", "they weren't pans")[i % 2], "good", "ab"[i % 2]) for i in range(8)
    ]
    terms = strongest_terms(rows, 5)
    assert {domain: [term for term, _ in listed] for domain, listed in terms.items()} == {"a": ["novel"], "b": ["pans"]}


def test_domains_are_alike_as_their_prototypes_of_the_classes_they_share() -> None:
    """Class 0: at right angles; class 1: the same direction; the third domain has class 1 alone."""
    vectors = torch.tensor([[[1.0, 0], [0, 2]], [[0, 3], [0, 1]], [[0, 0], [0, -1]]])
    counts = torch.tensor([[1, 1], [1, 1], [0, 1]])
    similarity = domain_similarity(Prototypes(vectors, counts))
    assert similarity.flatten().tolist() == pytest.approx([1, 0.5, -1, 0.5, 1, -1, -1, -1, 1])


def test_a_run_leaves_each_models_predictions_and_a_map(finished_run: Path) -> None:
    rows = read_rows(finished_run / "predictions.jsonl")
    results = read_json(finished_run / "results.json")
    for model, average in results["average"].items():
        accuracies = [
            mean(row["models"][model][0] == row["label"] for row in rows if row["domain"] == domain)
            for domain in results["domains"]
        ]
        assert mean(accuracies) == pytest.approx(average["accuracy"])
        assert all(0.5 <= row["models"][model][1] <= 1 for row in rows)  # of two classes
    about = read_json(finished_run / "corpus.json")
    assert sorted(about["maps"]["ids"]) == sorted(row["id"] for row in rows)
    assert about["maps"]["by_h"] == ["meta_teacher"]  # each student has moved its h on in a stage of its own
    assert {len(point) for name in ("meta_teacher", "student") for point in about["maps"][name]} == {2}
    assert about["similarity"][0][0] == pytest.approx(1)
    assert about["rows"]["test"]["books"]


def test_a_students_h_is_the_shared_starts_unless_a_later_stage_trains_it(finished_run: Path) -> None:
    run = reopen(finished_run, match_epochs=0)
    width = load_teacher(run).encoder.config.hidden_size
    head = corpus._students_head(run, width)
    kept = load_file(finished_run / "shared_student" / "extras.safetensors")
    for name, value in head.state_dict().items():
        torch.testing.assert_close(value, kept[f"transferable.{name}"])
    assert corpus._students_head(reopen(finished_run), width) is None

"""What the data is about: words that tell domains and words that turn, domains that are alike, maps."""

import json
import math
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import TOPICS, toy_examples
from metakd.config.settings import Settings
from metakd.data.schema import Example
from metakd.inspection.terms import strongest_terms
from metakd.inspection.turning_terms import turning_terms
from metakd.pipeline import corpus
from metakd.pipeline.teach import load_teacher
from metakd.prototypes import Prototypes, domain_similarity
from metakd.runs.run import Run
from metakd.utils.artifacts import read_run


def review(place: int, text: str, label: str, domain: str) -> Example:
    return Example(str(place), text, None, label, domain)


def test_a_word_that_praises_a_book_and_blames_a_kettle_turns() -> None:
    """36 texts of each domain and label; 'long' stands in 20 good and 16 bad books, and the other way with kettles.

    Of 36 texts, half of them good, 20 or more are good by chance in Σ C(36, i) / 2^36, i = 20 … 36, of cases, 0.31;
    2 domains make 2 · 0.31² = 0.19 of it, no turn. 'quiet' (30, 6) has 3.7e-5 and so 2.8e-9.
    """
    rows = []
    for domain, good in (("books", 20), ("kettles", 16)):
        for label, with_long in (("good", good), ("bad", 36 - good)):
            with_quiet = {20: 30, 16: 6}[with_long]
            for i in range(36):
                words = ["plain", "long" * (i < with_long), "quiet" * (i < with_quiet)]
                rows.append(review(len(rows), " ".join(words), label, domain))
    (found,) = turning_terms(rows, 20)
    assert found["term"] == "quiet"
    assert found["label"] == "good"
    assert found["for"] == {"domain": "books", "texts": 36, "labelled": 30}
    assert found["against"] == {"domain": "kettles", "texts": 36, "labelled": 6}
    chance = sum(math.comb(36, i) for i in range(30, 37)) / 2**36
    assert found["chance"] == pytest.approx(2 * chance**2)


def test_words_of_16_domains_that_say_nothing_do_not_turn() -> None:
    """4,000 words drawn by chance: 3 deviations either way, in one of 240 pairs of domains, some would have."""
    draw = random.Random(0)
    words = [f"w{i}" for i in range(4000)]
    rows = [
        review(i, " ".join(draw.sample(words, 400)), ("good", "bad")[i // 16 % 2], f"d{i % 16}")
        for i in range(16 * 120)
    ]
    assert turning_terms(rows, 20) == []


def test_texts_without_words_turn_nothing() -> None:
    assert turning_terms([review(0, "!", "a", "x"), review(1, "?", "b", "y")], 5) == []


def test_a_domains_strongest_terms_are_its_topics_with_falling_scores() -> None:
    found = strongest_terms(toy_examples(64, 0, "t"), 3)
    for domain, own in found.items():
        assert {word for word, _ in own} <= set(TOPICS[domain])
        assert [score for _, score in own] == sorted((score for _, score in own), reverse=True)


def test_domains_are_alike_as_their_prototypes_of_the_classes_they_share() -> None:
    """Class 0: at right angles; class 1: the same direction; the third domain has class 1 alone."""
    vectors = torch.tensor([[[1.0, 0], [0, 2]], [[0, 3], [0, 1]], [[0, 0], [0, -1]]])
    counts = torch.tensor([[1, 1], [1, 1], [0, 1]])
    found = domain_similarity(Prototypes(vectors, counts))
    assert found.flatten().tolist() == pytest.approx([1, 0.5, -1, 0.5, 1, -1, -1, -1, 1])


def test_a_run_leaves_what_each_model_said_and_how_it_sees_the_examples(finished_run: Path) -> None:
    rows = [json.loads(line) for line in (finished_run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    results = json.loads((finished_run / "results.json").read_text(encoding="utf-8"))
    for model, average in results["average"].items():
        by_domain = {
            domain: [row["models"][model][0] == row["label"] for row in rows if row["domain"] == domain]
            for domain in results["domains"]
        }
        mean = sum(sum(own) / len(own) for own in by_domain.values()) / len(by_domain)
        assert mean == pytest.approx(average["accuracy"])
        assert all(0.5 <= row["models"][model][1] <= 1 for row in rows)  # of two classes
    about = json.loads((finished_run / "corpus.json").read_text(encoding="utf-8"))
    assert sorted(about["maps"]["ids"]) == sorted(row["id"] for row in rows)
    assert about["maps"]["by_h"] == ["meta_teacher"]  # each student has moved its h on in a stage of its own
    assert {len(point) for name in ("meta_teacher", "student") for point in about["maps"][name]} == {2}
    assert about["similarity"][0][0] == pytest.approx(1)
    assert about["rows"]["test"]["books"]


def test_a_students_h_is_the_shared_starts_while_no_later_stage_moves_it(finished_run: Path) -> None:
    described = read_run(finished_run)
    run = Run.assemble(finished_run, Settings.build(described["settings"] | {"match_epochs": 0}), described["data"])
    teacher = load_teacher(run)
    width = teacher.encoder.config.hidden_size
    found = corpus._kept_representation(run, width, teacher.transferable)
    kept = load_file(finished_run / "shared_student" / "extras.safetensors")
    assert found is not None
    assert {f"transferable.{name}" for name in found.state_dict()} <= set(kept)
    torch.testing.assert_close(found.dense.weight, kept["transferable.dense.weight"])
    moved = Run.assemble(finished_run, Settings.build(described["settings"]), described["data"])
    assert corpus._kept_representation(moved, width, teacher.transferable) is None

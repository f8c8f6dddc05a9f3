"""Teachers of other kinds: a class head for each domain, and an ensemble of several."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import FAST, toy_examples
from metakd.data.tokenization import Batch, Collator, encode
from metakd.models.loading import load_encoder, load_tokenizer
from metakd.models.meta_teacher import MetaTeacher, TeacherLayers, freeze, select_head
from metakd.models.student import cut_student
from metakd.models.teacher_ensemble import TeacherEnsemble
from metakd.utils.errors import InputError

LABELS = ["a", "b"]


def batch_of(folder: Path) -> Batch:
    features = encode(load_tokenizer(folder, 16), toy_examples(3, 0, "t"), 16)
    return Collator(0)([*features]) | {"domains": torch.tensor([0, 1, -1])}


def test_each_example_gets_the_head_of_its_domain() -> None:
    """Three domains, two classes; an unknown domain gets the mean of all heads."""
    values = torch.tensor([[1.0, 2, 3, 4, 5, 6]] * 3)
    assert select_head(values, torch.tensor([0, 2, -1]), heads=3).tolist() == [[1, 2], [5, 6], [3, 4]]
    assert select_head(values, torch.tensor([0, 2, -1]), heads=1) is values


def test_a_teacher_of_several_heads_is_scored_as_it_teaches() -> None:
    """For an unknown domain, by the mean of its heads' logits, not by the surest head: (0 + 9, 3 + 8) / 2."""
    logits = torch.tensor([[0.0, 3, 9, 8]])
    unseen = torch.tensor([-1])
    scored = select_head(logits.softmax(-1).log(), unseen, 2)
    assert select_head(logits, unseen, 2).argmax(-1).item() == scored.argmax(-1).item() == 1


def test_a_student_of_several_heads_starts_from_their_mean(checkpoint: Callable[..., Path]) -> None:
    source = load_encoder(checkpoint(), ["x: a", "x: b", "y: a", "y: b"])
    student = cut_student(source, [2, 4], LABELS)
    assert student.config.id2label == {0: "a", 1: "b"}
    assert student.config.num_labels == 2
    heads = source.classifier.weight.view(2, 2, -1)
    assert torch.equal(student.classifier.weight, (heads[0] + heads[1]) / 2)


def test_an_ensemble_predicts_the_mean_probability_and_has_the_mean_weights(checkpoint: Callable[..., Path]) -> None:
    members = [freeze(MetaTeacher(load_encoder(checkpoint(), LABELS), 1, "none", 0.0)) for _ in range(2)]
    with torch.no_grad():
        for place, member in enumerate(members):  # so sure that single precision has no logarithm of the smaller one
            member.encoder.classifier.bias += torch.tensor([200.0, 0.0]) * place
    ensemble = freeze(TeacherEnsemble(members, 2))
    batch = batch_of(checkpoint())
    with torch.no_grad():
        log_p = ensemble.outputs(batch).logits
        first = members[0].outputs(batch | {"domains": torch.zeros(3, dtype=torch.long)}).logits.softmax(-1)
    expected = torch.stack([(first[:, 0] + 1) / 2, first[:, 1] / 2], dim=1)
    torch.testing.assert_close(log_p.exp(), expected)
    middle = (members[0].encoder.classifier.bias + members[1].encoder.classifier.bias) / 2
    assert torch.equal(ensemble.encoder.classifier.bias, middle)
    with pytest.raises(InputError, match="--terms prediction"):
        ensemble.outputs(batch, TeacherLayers(hidden=(1,)))


def test_a_run_with_a_head_for_each_domain(
    metakd: Callable[..., Any], checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    """Trained, distilled from, scored and reloaded as any other; its students know the data's classes."""
    common = ("--data", toy_data, "--base", checkpoint(), "--output", tmp_path / "run", "--no-baseline", *FAST)
    code, _, err = metakd("run", *common, "--heads", "domain")
    assert code == 0, err
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["average"]["meta_teacher"]["accuracy"] > 0.9
    assert results["average"]["student"]["accuracy"] > 0.9
    classes = json.loads((tmp_path / "run" / "meta_teacher" / "config.json").read_text(encoding="utf-8"))["id2label"]
    assert [*classes.values()] == ["books: negative", "books: positive", "kitchen: negative", "kitchen: positive"]
    code, _, err = metakd("run", *common, "--resume", "--heads", "one")
    assert code == 2
    assert "other settings" in err

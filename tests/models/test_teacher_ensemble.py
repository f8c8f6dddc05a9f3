"""Teachers of other kinds: a classification head for each domain, and an ensemble of several."""

from pathlib import Path

import pytest
import torch

from conftest import FAST, Command, encoded, passed, read_json, refused
from metakd.data.tokenization import Collator
from metakd.models.loading import load_encoder
from metakd.models.meta_teacher import MetaTeacher, TeacherEnsemble, TeacherLayers, freeze, select_head
from metakd.models.student import cut_student
from metakd.utils.errors import InputError

LABELS = ["a", "b"]


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


def test_a_student_of_several_heads_starts_from_their_mean(base: Path) -> None:
    source = load_encoder(base, ["x: a", "x: b", "y: a", "y: b"])
    student = cut_student(source, [2, 4], LABELS)
    assert student.config.id2label == {0: "a", 1: "b"}
    assert student.config.num_labels == 2
    heads = source.classifier.weight.view(2, 2, -1)
    assert torch.equal(student.classifier.weight, (heads[0] + heads[1]) / 2)


def test_an_ensemble_predicts_the_mean_probability_and_has_the_mean_weights(base: Path) -> None:
    members = [freeze(MetaTeacher(load_encoder(base, LABELS), 1, "none", 0.0)) for _ in range(2)]
    with torch.no_grad():
        for place, member in enumerate(members):  # so sure that single precision has no logarithm of the smaller one
            member.encoder.classifier.bias += torch.tensor([200.0, 0.0]) * place
    ensemble = freeze(TeacherEnsemble(members, 2))
    batch = Collator(0)(encoded(base, 3, domains=[0, 1, -1]))
    with torch.no_grad():
        log_p = ensemble.outputs(batch).logits
        first = members[0].outputs(batch | {"domains": torch.zeros(3, dtype=torch.long)}).logits.softmax(-1)
    expected = torch.stack([(first[:, 0] + 1) / 2, first[:, 1] / 2], dim=1)
    torch.testing.assert_close(log_p.exp(), expected)
    middle = (members[0].encoder.classifier.bias + members[1].encoder.classifier.bias) / 2
    assert torch.equal(ensemble.encoder.classifier.bias, middle)
    with pytest.raises(InputError, match="terms prediction"):
        ensemble.outputs(batch, TeacherLayers(hidden=(1,)))


@pytest.mark.slow
def test_a_run_with_a_head_for_each_domain(metakd: Command, base: Path, toy_data: Path, tmp_path: Path) -> None:
    """Trained, distilled from, scored and reloaded as any other; its students know the data's classes."""
    common = ("--data", toy_data, "--base", base, "--output", tmp_path / "run", "--no-baseline", *FAST)
    passed(metakd("run", *common, "--heads", "domain"))
    average = read_json(tmp_path / "run" / "results.json")["average"]
    assert min(average[model]["accuracy"] for model in ("meta_teacher", "student")) > 0.9
    classes = read_json(tmp_path / "run" / "meta_teacher" / "config.json")["id2label"]
    assert [*classes.values()] == ["books: negative", "books: positive", "kitchen: negative", "kitchen: positive"]
    assert "other settings" in refused(metakd("run", *common, "--resume", "--heads", "one"))

"""The term 'pooled': layers averaged over each model's own tokens, where tokens differ."""

from pathlib import Path

import pytest
import torch

from conftest import open_run, read_json, taught, write_toy
from decoders import save_decoder, save_student
from metakd.losses import pooled_state_loss
from metakd.models.encoder import forward, mean_over_real_tokens
from metakd.models.forward_passes import batches_in_order
from metakd.models.meta_teacher import TeacherLayers
from metakd.pipeline.distill import distill_all
from metakd.pipeline.teach import load_teacher
from metakd.pipeline.teacher_outputs import open_teacher_cache


def test_the_loss_by_hand() -> None:
    """Scale and shift do not count; opposite states have 2² on average."""
    teacher = torch.tensor([[1.0, -1.0, 1.0, -1.0]] * 3)
    student = torch.stack([5 * teacher[0] + 7, -teacher[0], torch.tensor([1.0, 1.0, -1.0, -1.0])])
    torch.testing.assert_close(pooled_state_loss(student, teacher), torch.tensor([0.0, 4.0, 2.0]), atol=1e-3, rtol=0)


def test_a_student_with_other_tokens_matches_layers(tmp_path: Path) -> None:
    """What is cached is what the teacher computes; the term falls, and it is one of no layers of tokens."""
    decoder, student = save_decoder(tmp_path / "decoder"), save_student(tmp_path / "student", "bert")
    settings = {"student": str(student), "terms": "prediction,pooled", "shared_epochs": 6, "shared_learning_rate": 5e-3}
    data = write_toy(tmp_path / "few", train=48, dev=8, test=8)
    run = taught(open_run(tmp_path / "run", data, decoder, **settings, stages="joint", baseline=False, keep_cache=True))
    distill_all(run, run.data.domains, run.methods)
    log = read_json(run.folders.student("meta_kd", None) / "manifest.json")["log"]["share"]
    assert {name for name in log[0] if name.startswith("loss_")} == {"loss_prediction", "loss_pooled"}
    assert log[-1]["loss_pooled"] < 0.8 * log[0]["loss_pooled"]
    cache, layers = open_teacher_cache(run, ["meta_kd"]), TeacherLayers(pooled=(1, 2))
    assert cache.layers == layers
    teacher, rows = load_teacher(run), cache.rows([e.id for e in run.data.train])
    features = run.features.encode(run.data.train)
    for places, batch in batches_in_order(teacher, features, run.features.collator):
        cached = cache.read(torch.tensor(rows)[places], layers).pooled_states
        states = forward(teacher.encoder, batch).hidden_states
        for layer in (1, 2):
            expected = mean_over_real_tokens(states[layer], batch["real_mask"])
            torch.testing.assert_close(cached[layer], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("terms", ["hidden,prediction", "hidden,prediction,pooled"])
def test_pooled_layers_stand_beside_layers_of_tokens(terms: str, base: Path, tmp_path: Path) -> None:
    """Also for a cut student, in two stages, where the second matches none."""
    data = write_toy(tmp_path / "few", train=48, dev=8, test=8)
    settings = {"terms": terms, "match_epochs": 2, "match_learning_rate": 1e-3, "baseline": False}
    run = taught(open_run(tmp_path / "run", data, base, **settings))
    distill_all(run, ["books"], ["meta_kd"])
    log = read_json(run.folders.student("meta_kd", "books") / "manifest.json")["log"]
    assert ("loss_pooled" in log["match"][0]) == ("pooled" in terms)
    assert not {name for name in log["predict"][0] if name.startswith("loss_")} - {"loss_prediction"}

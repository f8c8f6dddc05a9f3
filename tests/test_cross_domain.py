"""Text of other domains counts as far as it transfers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import FAST
from metakd.config import Settings
from metakd.distillation import Lesson
from metakd.domains import load_dataset
from metakd.encoders import forward
from metakd.engine import Distillation
from metakd.methods.cross_domain import CrossDomain
from metakd.methods.meta_kd import MetaKD
from metakd.prototypes import transfer_weights
from metakd.runs import Run
from test_meta_kd import batch_of, setup_of


def test_others_count_as_their_h_resembles_the_prototype_of_their_class() -> None:
    """Own examples point east and north of it, so their prototype is north-east, 45° from each of them."""
    h = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, -1], [2, 0], [5, 5]])
    labels = torch.tensor([0, 0, 0, 0, 0, 1])
    own = torch.tensor([True, True, False, False, False, False])
    weights = transfer_weights(h, labels, own)
    # as near as the own ones: 1; nearer: no more than 1; opposite: 0; of a class that the domain lacks: 0
    assert weights.tolist() == pytest.approx([1, 1, 1, 0, 1, 0])
    slanted = transfer_weights(torch.tensor([[1.0, 0], [1, 3**0.5]]), torch.tensor([0, 0]), torch.tensor([True, False]))
    assert slanted.tolist() == pytest.approx([1, 0.5])  # cos 60°, of an own mean of 1


def test_only_a_domains_own_stages_read_others_text(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    settings = Settings(base=str(checkpoint()), max_length=16, student="layers=2", method="cross_domain")
    run = Run(tmp_path, settings, load_dataset(toy_data))
    everything = {e.id for e in run.data.train}
    assert {e.id for e in Lesson.of(run, "cross_domain", "books").examples} == everything
    assert {e.domain for e in Lesson.of(run, "meta_kd", "books").examples} == {"books"}
    assert {e.domain for e in Lesson.of(run, "cross_domain", "books").held_out} == {"books"}


def test_what_transfers_weighs_every_term_of_own_stages_beside_trust(checkpoint: Callable[..., Path]) -> None:
    setup, batch = setup_of(checkpoint(), shared_epochs=1), batch_of(checkpoint())
    batch["transfer"] = torch.tensor([1.0, 0.0, 0.5, 1.0])
    method, plain = CrossDomain.build(setup), MetaKD.build(setup)
    learner = Distillation(setup.student, method, setup.teacher, None).eval()
    for stage in method.stages():
        learner.enter(stage)
        taught, student = learner.taught(batch), forward(setup.student, batch, factors=bool(stage.layers.attention))
        expected = plain.loss(student, batch, taught, stage)
        for name, term in method.loss(student, batch, taught, stage).items():
            assert term.weights is not None
            trust = expected[name].weights
            assert trust is not None
            torch.testing.assert_close(term.weights, trust if stage.shared else trust * batch["transfer"])


def test_a_whole_run(
    metakd: Callable[..., Any], checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    common = ("--data", toy_data, "--base", checkpoint(), "--output", tmp_path / "run", "--no-rival", *FAST)
    code, _, err = metakd("run", *common, "--method", "cross_domain")
    assert code == 0, err
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["average"]["student"]["accuracy"] > 0.9
    log = json.loads((tmp_path / "run" / "students" / "books" / "manifest.json").read_text(encoding="utf-8"))["log"]
    assert "loss_attention" in log["match"][0]

"""Text of other domains counts as far as it transfers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_meta_kd import batch_of, setup_of

from conftest import FAST
from metakd.config.settings import Settings
from metakd.data.dataset import load_dataset
from metakd.methods.cross_domain import CrossDomain
from metakd.methods.meta_kd import MetaKD
from metakd.models.encoder import forward
from metakd.pipeline.student_jobs import StudentJob
from metakd.prototypes import transfer_weights
from metakd.runs.run import Run
from metakd.training.distillation_module import Distillation


def test_others_count_as_their_place_among_their_own_resembles_the_prototype_of_their_class() -> None:
    """Home: class 0 lies to the east of the domain's middle and class 1 to the west; abroad, all of it far away.

    Home's class 0 is (1, 1), (1, −1) about the middle (0, 0): prototype (1, 0), each other example 90° away, so that
    nothing resembles what is left when one is left out and any likeness at all counts in full.
    """
    far = torch.tensor([100.0, 50.0])
    east, west = [[2.0, 0.5], [2.0, -0.5]], [[-2.0, 0.5], [-2.0, -0.5]]
    abroad = [[2.0, 0.0], [2.0, 4.0], [-2.0, 0.0], [-2.0, -4.0]]
    h = torch.tensor([*east, *west, *abroad])
    h[4:] += far
    labels, domains = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]), torch.tensor([0] * 4 + [1] * 4)
    weights = transfer_weights(h, labels, domains, home=0)
    # the abroad's middle is `far` itself; its class 0 lies at (2, 0) and (2, 4) from it, prototype (2, 2)
    usual = 3.75 / 4.25  # cosine between (2, 0.5) and (2, −0.5)
    slanted = 2 / 20**0.5 / usual
    assert weights.tolist() == pytest.approx([1, 1, 1, 1, 1, slanted, 1, slanted], abs=1e-5)


def test_a_class_that_home_lacks_and_what_points_the_other_way_do_not_transfer() -> None:
    h = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0], [0, 5]])
    labels, domains = torch.tensor([0, 1, 1, 0, 2]), torch.tensor([0, 0, 1, 1, 1])
    weights = transfer_weights(h, labels, domains, home=0)
    assert weights.tolist() == [1, 1, 0, 0, 0]


def test_only_a_domains_own_stages_read_others_text(
    checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    settings = Settings(base=str(checkpoint()), max_length=16, student="layers=2", method="cross_domain")
    run = Run(tmp_path, settings, load_dataset(toy_data))
    everything = {e.id for e in run.data.train}
    assert {e.id for e in StudentJob.of(run, "cross_domain", "books").examples} == everything
    assert {e.domain for e in StudentJob.of(run, "meta_kd", "books").examples} == {"books"}
    assert {e.domain for e in StudentJob.of(run, "cross_domain", "books").held_out} == {"books"}


def test_what_transfers_weighs_every_term_of_own_stages_beside_trust(checkpoint: Callable[..., Path]) -> None:
    setup, batch = setup_of(checkpoint(), shared_epochs=1), batch_of(checkpoint())
    batch["transfer"] = torch.tensor([1.0, 0.0, 0.5, 1.0])
    method, plain = CrossDomain.build(setup), MetaKD.build(setup)
    learner = Distillation(setup.student, method, setup.teacher, None).eval()
    for stage in method.stages():
        learner.enter(stage)
        taught, student = learner.taught(batch), forward(setup.student, batch, attentions=bool(stage.layers.attention))
        expected = plain.loss(student, batch, taught, stage)
        for name, term in method.loss(student, batch, taught, stage).items():
            assert term.weights is not None
            expertise = expected[name].weights
            assert expertise is not None
            torch.testing.assert_close(term.weights, expertise if stage.shared else expertise * batch["transfer"])


def test_a_whole_run(
    metakd: Callable[..., Any], checkpoint: Callable[..., Path], toy_data: Path, tmp_path: Path
) -> None:
    common = ("--data", toy_data, "--base", checkpoint(), "--output", tmp_path / "run", "--no-baseline", *FAST)
    code, _, err = metakd("run", *common, "--method", "cross_domain")
    assert code == 0, err
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["average"]["student"]["accuracy"] > 0.9
    log = json.loads((tmp_path / "run" / "students" / "books" / "manifest.json").read_text(encoding="utf-8"))["log"]
    assert "loss_attention" in log["match"][0]

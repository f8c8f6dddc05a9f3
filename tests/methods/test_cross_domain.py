"""Text of other domains counts as far as it transfers."""

from pathlib import Path

import pytest
import torch
from setups import batch_of, learner_of, setup_of, teacher_outputs

from metakd.config.settings import Settings
from metakd.data.dataset import load_dataset
from metakd.methods.cross_domain import CrossDomain
from metakd.methods.meta_kd import MetaKD
from metakd.models.encoder import forward
from metakd.prototypes import domain_centres, prototypes, transfer_weights
from metakd.runs.run import Run
from metakd.runs.student_jobs import student_jobs


def test_others_count_as_their_place_among_their_own_resembles_the_prototype_of_their_class() -> None:
    """In both domains, class 0 lies to the east of the domain's middle and class 1 to the west."""
    far = torch.tensor([100.0, 50.0])
    east, west = [[2.0, 0.5], [2.0, -0.5]], [[-2.0, 0.5], [-2.0, -0.5]]
    abroad = [[2.0, 0.0], [2.0, 4.0], [-2.0, 0.0], [-2.0, -4.0]]
    h = torch.tensor([*east, *west, *abroad])
    h[4:] += far
    labels, domains = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]), torch.tensor([0] * 4 + [1] * 4)
    weights = weights_of(h, labels, domains)
    # the middle of the other domain is `far`; its class 0 lies at (2, 0) and (2, 4) from there
    usual = 3.75 / 4.25  # cosine between (2, 0.5) and (2, −0.5)
    slanted = 2 / 20**0.5 / usual
    assert weights.tolist() == pytest.approx([1, 1, 1, 1, 1, slanted, 1, slanted], abs=1e-5)


def test_a_class_that_home_lacks_and_what_points_the_other_way_do_not_transfer() -> None:
    h = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0], [0, 5]])
    labels, domains = torch.tensor([0, 1, 1, 0, 2]), torch.tensor([0, 0, 1, 1, 1])
    assert weights_of(h, labels, domains).tolist() == [1, 1, 0, 0, 0]


def test_the_middle_of_a_domain_counts_classes_that_home_lacks() -> None:
    """Of the other domain, whose classes lie around (100, 0), home has class 0 alone; its texts lie to the east."""
    h = torch.tensor([[2.0, 1], [2, -1], [-2, 1], [-2, -1], [102, 1], [102, -1], [98, 0]])
    labels, domains = torch.tensor([0, 0, 1, 1, 0, 0, 2]), torch.tensor([0] * 4 + [1] * 3)
    centres = domain_centres(prototypes(h, labels, domains, 3, 2))
    assert centres.tolist() == [[0, 0], [100, 0]]
    shared = labels < 2
    weights = transfer_weights(h[shared], labels[shared], domains[shared], 0, centres)
    assert weights.tolist() == [1] * 6  # as similar to the home class, (2, 0), as its members are, and more


def test_where_the_members_of_a_class_are_not_alike_the_cosine_itself_counts() -> None:
    """Home's class 0 lies at (1, 2) and (1, -2), whose cosine is -0.6; its prototype is (1, 0)."""
    h = torch.tensor([[1.0, 2], [1, -2], [-1, 0], [0.6, 0.8], [-0.6, -0.8]])
    labels, domains = torch.tensor([0, 0, 1, 0, 1]), torch.tensor([0, 0, 0, 1, 1])
    assert weights_of(h, labels, domains)[3].item() == pytest.approx(0.6)


def weights_of(h: torch.Tensor, labels: torch.Tensor, domains: torch.Tensor) -> torch.Tensor:
    """The weights for the first domain; the middle of each domain is that of these texts' prototypes."""
    known = prototypes(h, labels, domains, int(labels.max()) + 1, int(domains.max()) + 1)
    return transfer_weights(h, labels, domains, 0, domain_centres(known))


def test_only_a_domains_own_stages_read_others_text(base: Path, toy_data: Path, tmp_path: Path) -> None:
    settings = Settings(base=str(base), max_length=16, student="layers=2", method="cross_domain")
    run = Run(tmp_path, settings, load_dataset(toy_data))
    everything = {e.id for e in run.data.train}
    (job,), (plain,) = (student_jobs(run, method, ["books"]) for method in ("cross_domain", "meta_kd"))
    assert {e.id for e in job.examples} == everything
    assert {e.domain for e in plain.examples} == {"books"}


def test_what_transfers_weighs_every_term_of_own_stages_beside_expertise(base: Path) -> None:
    setup, batch = setup_of(base, stages="joint", shared_epochs=1), batch_of(base)
    batch["transfer"] = torch.tensor([1.0, 0.0, 0.5, 1.0])
    learner, plain = learner_of(CrossDomain, setup), MetaKD.build(setup)
    for stage in learner.method.stages():
        learner.enter(stage)
        student = forward(setup.student, batch, attentions=bool(stage.layers.attention))
        outputs = student, batch, teacher_outputs(learner, batch), stage
        for name, expected in plain.loss(*outputs).items():
            weights = expected.weights if stage.shared else expected.weights * batch["transfer"]
            torch.testing.assert_close(learner.method.loss(*outputs)[name].weights, weights)

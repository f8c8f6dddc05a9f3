"""What holds for methods of every kind: needs that can be met, baselines of equal length, whole runs by name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from setups import batch_of, learner_of, setup_of

from conftest import FAST, Command, passed, read_json
from metakd import losses
from metakd.methods import BASELINE, METHODS
from metakd.methods.base import check_needs
from metakd.methods.fine_tuned import FineTuned
from metakd.methods.metadistil import MetaDistil
from metakd.utils.errors import InputError


def test_needs_that_cannot_be_met_are_refused_with_the_reason() -> None:
    for parent, needs, message in (
        (MetaDistil, {"teacher", "live_teacher"}, "out of date once the teacher has learnt"),
        (FineTuned, {"held_out_split"}, "not define before_update"),
    ):
        with pytest.raises(InputError, match=message):
            check_needs("other", type("Other", (parent,), {"needs": frozenset(needs)}))
    for name, kind in METHODS.items():
        check_needs(name, kind)


def test_metadistil_and_the_baseline_have_the_same_stages(base: Path) -> None:
    setup = setup_of(base, stages="two", shared_epochs=3, match_epochs=7, predict_epochs=2)
    ours, theirs = (METHODS[name].build(setup).stages() for name in ("metadistil", BASELINE))
    assert [(s.epochs, s.shared) for s in ours] == [(s.epochs, s.shared) for s in theirs] == [(3, True), (9, False)]
    assert [s.learning_rate for s in ours] == [setup.settings.shared_learning_rate, 5e-5]
    assert [s.learning_rate for s in theirs] == [setup.settings.baseline_learning_rate, 5e-5]
    (only,) = METHODS[BASELINE].build(setup_of(base, shared_epochs=0, baseline_learning_rate=0.02)).stages()
    assert only.learning_rate == 0.02


def test_fine_tuned_takes_as_many_updates_and_no_teacher(base: Path) -> None:
    setup = setup_of(base, stages="two", shared_epochs=3, match_epochs=7, predict_epochs=2)
    learner, batch = learner_of(FineTuned, replace(setup, teacher=None)), batch_of(base)
    assert [stage.epochs for stage in learner.method.stages()] == [8 + 7 + 2]  # 3 epochs of 800 texts are 7.5 of 320
    assert "teacher" not in FineTuned.needs
    term = learner(**batch)["class"]
    logits = learner.student(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")}).logits
    torch.testing.assert_close(term.values, losses.cross_entropy(logits, batch["labels"]))
    assert term.weights is None


@pytest.mark.slow
@pytest.mark.parametrize(("method", "logged"), [("hrkd", "loss_attention_1"), ("cross_domain", "loss_attention")])
def test_a_whole_run(metakd: Command, base: Path, toy_data: Path, tmp_path: Path, method: str, logged: str) -> None:
    """A shared start, and a student for each domain that has learnt from the teacher's layers."""
    options = ("--output", tmp_path, "--method", method, "--no-baseline", *FAST)
    passed(metakd("run", "--data", toy_data, "--base", base, *options))
    assert read_json(tmp_path / "results.json")["average"]["student"]["accuracy"] > 0.9
    for domain in ("books", "kitchen"):
        manifest = read_json(tmp_path / "students" / domain / "manifest.json")
        assert manifest["method"] == method
        assert set(manifest["log"]) == {"match", "predict"}
        assert logged in manifest["log"]["match"][0]

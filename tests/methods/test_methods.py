"""What holds for methods of every kind: needs that can be met, baselines of equal length, whole runs by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from setups import batch_of, setup_of

from conftest import FAST
from metakd import losses
from metakd.methods import BASELINE, METHODS
from metakd.methods.base import check_needs
from metakd.methods.fine_tuned import FineTuned
from metakd.methods.metadistil import MetaDistil
from metakd.training.distillation_module import Distillation
from metakd.utils.errors import InputError


def test_needs_that_cannot_be_met_are_refused_with_the_reason() -> None:
    both = type("Both", (MetaDistil,), {"needs": frozenset({"teacher", "live_teacher"})})
    with pytest.raises(InputError, match="out of date once the teacher has learnt"):
        check_needs("both", both)
    without = type("Without", (FineTuned,), {"needs": frozenset({"held_out_split"})})
    with pytest.raises(InputError, match="no before_update"):
        check_needs("without", without)
    for name, kind in METHODS.items():
        check_needs(name, kind)


def test_metadistil_and_the_baseline_have_the_same_stages(checkpoint: Callable[..., Path]) -> None:
    setup = setup_of(checkpoint(), stages="two", shared_epochs=3, match_epochs=7, predict_epochs=2)
    ours, theirs = (METHODS[name].build(setup).stages() for name in ("metadistil", BASELINE))
    assert [(s.epochs, s.shared) for s in ours] == [(s.epochs, s.shared) for s in theirs] == [(3, True), (9, False)]
    assert [s.learning_rate for s in ours] == [setup.settings.shared_learning_rate, 5e-5]
    assert [s.learning_rate for s in theirs] == [setup.settings.baseline_learning_rate, 5e-5]
    (only,) = METHODS[BASELINE].build(setup_of(checkpoint(), shared_epochs=0, baseline_learning_rate=0.02)).stages()
    assert only.learning_rate == 0.02


def test_fine_tuned_takes_as_many_updates_and_no_teacher(checkpoint: Callable[..., Path]) -> None:
    setup = setup_of(checkpoint(), stages="two", shared_epochs=3, match_epochs=7, predict_epochs=2)
    method = METHODS["fine_tuned"].build(setup)
    assert [stage.epochs for stage in method.stages()] == [8 + 7 + 2]  # 3 epochs of 25 updates are 7.5 of 10
    assert "teacher" not in METHODS["fine_tuned"].needs
    learner, batch = Distillation(setup.student, method, None, None).eval(), batch_of(checkpoint())
    term = learner(**batch)["class"]
    logits = learner.student(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")}).logits
    torch.testing.assert_close(term.values, losses.cross_entropy(logits, batch["labels"]))
    assert term.weights is None


@pytest.mark.parametrize(
    ("method", "logged"), [("hrkd", "loss_attention_1"), ("cross_domain", "loss_attention")], ids=["hrkd", "cross"]
)
def test_a_whole_run(
    metakd: Callable[..., Any],
    checkpoint: Callable[..., Path],
    toy_data: Path,
    tmp_path: Path,
    method: str,
    logged: str,
) -> None:
    """A shared start, and a student for each domain that has learnt from the teacher's layers."""
    options = ("--output", tmp_path, "--method", method, "--no-baseline", *FAST)
    code, _, errors = metakd("run", "--data", toy_data, "--base", checkpoint(), *options)
    assert code == 0, errors
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["average"]["student"]["accuracy"] > 0.9
    for domain in ("books", "kitchen"):
        manifest = json.loads((tmp_path / "students" / domain / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["method"] == method
        assert set(manifest["log"]) == {"match", "predict"}
        assert logged in manifest["log"]["match"][0]

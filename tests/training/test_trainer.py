"""Training: it learns, repeats bit for bit, and resumes from a checkpoint as if it had never stopped."""

import copy
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from conftest import toy_examples
from metakd.config.settings import Settings
from metakd.data.tokenization import Collator, Encoded, encode
from metakd.models.encoder import forward
from metakd.models.forward_passes import embed, predict
from metakd.models.loading import load_encoder, load_tokenizer, set_dropout
from metakd.models.meta_teacher import MetaTeacher
from metakd.training import checkpointing, trainer
from metakd.utils.errors import InputError


def features_of(folder: Path, count: int = 32) -> Encoded:
    i = np.arange(count)
    features = encode(load_tokenizer(folder, 16), toy_examples(count, 0, "t"), 16)
    return features.with_columns(labels=i // 2 % 2, domains=i % 2, instance_weights=np.ones(count))


def learner_of(folder: Path) -> MetaTeacher:
    torch.manual_seed(0)
    encoder = load_encoder(folder, ["a", "b"])
    set_dropout(encoder, 0.1, 0.1)
    return MetaTeacher(encoder, 2, "false", 0.5)


def plan_of(folder: Path, epochs: int = 3) -> trainer.TrainingPlan:
    return trainer.TrainingPlan("test", epochs, 1e-2, folder, Settings(batch_size=8))


def same(one: nn.Module, two: nn.Module) -> bool:
    weights = two.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.state_dict().items())


def test_training_lowers_every_term_and_logs_it(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    log = trainer.fit(learner_of(checkpoint()), features_of(checkpoint()), Collator(0), plan_of(tmp_path / "a", 12))
    assert log[-1]["loss_class"] < log[0]["loss_class"] / 2
    assert {"loss_class", "loss_domain", "learning_rate", "epoch"} <= set(log[0])


def test_every_epoch_has_every_example_in_another_order(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The weights 0 to 31 tell the examples apart as they come by."""
    seen: list[float] = []
    learner = learner_of(checkpoint())
    features = features_of(checkpoint()).with_columns(instance_weights=np.arange(32.0))
    learner.register_forward_pre_hook(lambda *call: seen.extend(call[2]["instance_weights"].tolist()), with_kwargs=True)
    trainer.fit(learner, features, Collator(0), plan_of(tmp_path / "a", 2))
    first, second = seen[:32], seen[32:]
    assert sorted(first) == sorted(second) == list(range(32))
    assert first != second


def test_a_weight_that_is_no_number_stops_training(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """All terms are finite, what they come to is not."""
    features = features_of(checkpoint()).with_columns(instance_weights=np.full(32, np.nan))
    with pytest.raises(InputError, match="test, update 1: the loss term 'sum' is not finite"):
        trainer.fit(learner_of(checkpoint()), features, Collator(0), plan_of(tmp_path))


def save_every_update(monkeypatch: pytest.MonkeyPatch, seconds: int = 0) -> None:
    monkeypatch.setattr(checkpointing, "CHECKPOINT_SECONDS", seconds)
    monkeypatch.setattr(checkpointing, "LARGEST_SHARE", math.inf)


class _Stop(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 10:
            raise KeyboardInterrupt


def test_resumed_training_ends_where_the_unbroken_one_does(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within the third of three epochs, with dropout on, in weights and in the log, losses that were summed
    before the stop included; torn checkpoints beside the whole ones are ignored: one without a manifest, one cut short.
    """
    unbroken, broken, resumed = (learner_of(checkpoint()) for _ in range(3))
    features, plan = features_of(checkpoint()), plan_of(tmp_path / "broken")
    arguments = trainer._arguments

    def logging_every_third(*plan_and_updates: Any) -> Any:
        """Twelve updates, logged after 3, 6, 9 and 12: the sums of the tenth are in the checkpoint alone."""
        changed = arguments(*plan_and_updates)
        changed.logging_steps = 3
        return changed

    monkeypatch.setattr(trainer, "_arguments", logging_every_third)
    log = trainer.fit(unbroken, features, Collator(0), plan_of(tmp_path / "unbroken"))
    save_every_update(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_ProgressCallback", type("Stopping", (_Stop, trainer._ProgressCallback), {}))
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(broken, features, Collator(0), plan)
    kept = tmp_path / "broken"
    assert sorted(p.name for p in kept.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    for name in ("checkpoint-11", "checkpoint-12"):
        shutil.copytree(kept / "checkpoint-9", kept / name)
    (kept / "checkpoint-11" / "manifest.json").unlink()
    with (kept / "checkpoint-12" / "optimizer.pt").open("r+b") as file:
        file.truncate(100)
    before = copy.deepcopy(resumed.state_dict())
    assert trainer.fit(resumed, features, Collator(0), plan) == log
    assert same(resumed, unbroken)
    assert not all(torch.equal(value, before[name]) for name, value in resumed.state_dict().items())


@pytest.mark.parametrize(("seconds", "kept"), [(0, ["checkpoint-11", "checkpoint-12"]), (1000, [])])
def test_checkpoints_are_kept_where_they_save_enough_work(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, kept: list[str]
) -> None:
    """A finished stage that has one is loaded and not trained again; without one, it is trained to the same weights."""
    save_every_update(monkeypatch, seconds)
    first, again = learner_of(checkpoint()), learner_of(checkpoint())
    trainer.fit(first, features_of(checkpoint()), Collator(0), plan_of(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == kept
    trainer.fit(again, features_of(checkpoint()), Collator(0), plan_of(tmp_path))
    assert same(first, again)


def test_predictions_and_vectors_keep_the_order_of_examples(checkpoint: Callable[..., Path]) -> None:
    model, features = load_encoder(checkpoint(), ["a", "b"]), features_of(checkpoint(), 70)
    probabilities = predict(model, features, Collator(0))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(70))
    vectors = embed(model, features, Collator(0), "test", "float32", torch.zeros(70, 16))
    for row in (0, 5, 69):
        alone = forward(model, Collator(0)([features[row]]))
        torch.testing.assert_close(probabilities[row], alone.logits[0].softmax(-1))
        torch.testing.assert_close(vectors[row], alone.pooled[0])

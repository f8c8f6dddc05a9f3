"""Training: it learns, repeats bit for bit, and resumes from a checkpoint as if it had never stopped."""

import copy
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from conftest import encoded
from metakd.config.settings import Settings
from metakd.data.tokenization import Collator, Encoded
from metakd.models.encoder import forward
from metakd.models.forward_passes import embed, predict
from metakd.models.loading import load_encoder, set_dropout
from metakd.models.meta_teacher import MetaTeacher
from metakd.training import checkpointing, trainer
from metakd.utils.errors import InputError


def features_of(folder: Path, count: int = 32) -> Encoded:
    i = np.arange(count)
    return encoded(folder, count, labels=i // 2 % 2, domains=i % 2, instance_weights=np.ones(count))


def learner_of(folder: Path) -> MetaTeacher:
    torch.manual_seed(0)
    encoder = load_encoder(folder, ["a", "b"])
    set_dropout(encoder, 0.1, 0.1)
    return MetaTeacher(encoder, 2, "false", 0.5)


def plan_of(folder: Path, epochs: int = 3) -> trainer.TrainingPlan:
    return trainer.TrainingPlan("test", epochs, 1e-2, folder, Settings(batch_size=8))


def test_the_optimizer_has_the_settings(tmp_path: Path) -> None:
    """Two epochs of 50 updates, a tenth of which warm up."""
    settings = Settings(warmup=0.1, weight_decay=0.02, batch_size=4, seed=7)
    arguments = trainer._arguments(replace(plan_of(tmp_path, 2), settings=settings), 50)
    assert (arguments.max_steps, arguments.warmup_steps, arguments.weight_decay) == (100, 10, 0.02)
    assert (arguments.learning_rate, arguments.per_device_train_batch_size, arguments.seed) == (1e-2, 4, 7)


def same(one: nn.Module, two: nn.Module) -> bool:
    weights = two.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.state_dict().items())


def test_training_lowers_every_term_and_logs_it(base: Path, tmp_path: Path) -> None:
    log = trainer.fit(learner_of(base), features_of(base), Collator(0), plan_of(tmp_path / "a", 12))
    assert log[-1]["loss_class"] < log[0]["loss_class"] / 2
    assert log[-1]["loss_domain"] < log[0]["loss_domain"]
    assert {"loss_class", "loss_domain", "learning_rate", "epoch"} <= set(log[0])


def test_every_epoch_has_every_example_in_another_order(base: Path, tmp_path: Path) -> None:
    """The weights 0 to 31 tell the examples apart as they come by."""
    seen: list[float] = []
    learner = learner_of(base)
    features = features_of(base).with_columns(instance_weights=np.arange(32.0))
    learner.register_forward_pre_hook(lambda *call: seen.extend(call[2]["instance_weights"].tolist()), with_kwargs=True)
    trainer.fit(learner, features, Collator(0), plan_of(tmp_path / "a", 2))
    first, second = seen[:32], seen[32:]
    assert sorted(first) == sorted(second) == list(range(32))
    assert first != second


def test_a_weight_that_is_no_number_stops_training(base: Path, tmp_path: Path) -> None:
    """All terms are finite, what they come to is not."""
    features = features_of(base).with_columns(instance_weights=np.full(32, np.nan))
    with pytest.raises(InputError, match="test, update 1: the loss term 'sum' is not finite"):
        trainer.fit(learner_of(base), features, Collator(0), plan_of(tmp_path))


def test_a_batch_in_parts_has_the_same_gradients(base: Path, tmp_path: Path) -> None:
    """In three parts, of which none has more than 3 of 8 or, at the end of an epoch, 6 rows."""
    features, sizes, learner = features_of(base, 30), list[int](), learner_of(base)
    gradients: list[list[torch.Tensor]] = []
    optimizer_hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: gradients.append([p.grad.clone() for p in optimizer.param_groups[0]["params"]])
    )
    learner.register_forward_pre_hook(lambda *call: sizes.append(len(call[2]["labels"])), with_kwargs=True)
    set_dropout(learner.encoder, 0, 0)
    logs = []
    for parts in (1, 3):
        plan = replace(plan_of(tmp_path / str(parts), 1), learning_rate=1e-12, parts=parts)  # so that all stays
        logs.append(trainer.fit(learner, features, Collator(0), plan)[0])
    optimizer_hook.remove()
    assert sorted(sizes[4:]) == [2] * 6 + [3] * 6
    for whole, in_parts in zip(gradients[:4], gradients[4:], strict=True):
        torch.testing.assert_close(in_parts, whole, rtol=1e-4, atol=1e-6)
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def save_every_update(monkeypatch: pytest.MonkeyPatch, seconds: int = 0) -> None:
    monkeypatch.setattr(checkpointing, "CHECKPOINT_SECONDS", seconds)
    monkeypatch.setattr(checkpointing, "LARGEST_SHARE", math.inf)


class Stopping(trainer._ProgressCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 10:
            raise KeyboardInterrupt


def test_resumed_training_ends_the_same(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped within the third of three epochs, with dropout on, in weights and in the log, losses that were summed
    before the stop included; torn checkpoints beside the whole ones are ignored: one without a manifest, one cut short.
    """
    unbroken, broken, resumed = (learner_of(base) for _ in range(3))
    kept, features = tmp_path / "broken", features_of(base)
    plan = plan_of(kept)
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
        patch.setattr(trainer, "_ProgressCallback", Stopping)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(broken, features, Collator(0), plan)
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
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, kept: list[str]
) -> None:
    """A finished stage that has one is loaded and not trained again; without one, it is trained to the same weights."""
    save_every_update(monkeypatch, seconds)
    first, again = learner_of(base), learner_of(base)
    trainer.fit(first, features_of(base), Collator(0), plan_of(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == kept
    trainer.fit(again, features_of(base), Collator(0), plan_of(tmp_path))
    assert same(first, again)


def test_predictions_and_vectors_keep_the_order_of_examples(base: Path) -> None:
    model, features = load_encoder(base, ["a", "b"]), features_of(base, 70)
    probabilities = predict(model, features, Collator(0))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(70))
    vectors = embed(model, features, Collator(0), "test", "float32", torch.zeros(70, 16))
    for row in (0, 5, 69):
        alone = forward(model, Collator(0)([features[row]]))
        torch.testing.assert_close(probabilities[row], alone.logits[0].softmax(-1))
        torch.testing.assert_close(vectors[row], alone.pooled[0])

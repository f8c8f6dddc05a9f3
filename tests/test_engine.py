"""Training: it learns, repeats bit for bit, and goes on from a checkpoint as if it had never stopped."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from conftest import toy_examples
from metakd import engine, passes
from metakd.batching import Collator, Encoded, encode
from metakd.config import Settings
from metakd.encoders import forward, load_encoder, load_tokenizer, set_dropout
from metakd.meta_teacher import MetaTeacher


def features_of(folder: Path, count: int = 32) -> Encoded:
    i = np.arange(count)
    features = encode(load_tokenizer(folder, 16), toy_examples(count, 0, "t"), 16)
    return features.with_columns(labels=i // 2 % 2, domains=i % 2, instance_weights=np.ones(count))


def learner_of(folder: Path) -> MetaTeacher:
    torch.manual_seed(0)
    encoder = load_encoder(folder, ["a", "b"])
    set_dropout(encoder, 0.1, 0.1)
    return MetaTeacher(encoder, 2, "false", 0.5)


def plan_of(folder: Path, epochs: int = 3) -> engine.Plan:
    return engine.Plan("test", epochs, 1e-2, folder, Settings(batch_size=8))


def same(one: nn.Module, two: nn.Module) -> bool:
    weights = two.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.state_dict().items())


def test_training_lowers_every_term_and_logs_it(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    log = engine.fit(learner_of(checkpoint()), features_of(checkpoint()), Collator(0), plan_of(tmp_path / "a", 12))
    assert log[-1]["loss_class"] < log[0]["loss_class"] / 2
    assert {"loss_class", "loss_domain", "learning_rate", "epoch"} <= set(log[0])


def test_every_epoch_has_every_example_in_an_order_of_its_own(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The weights 0 to 31 tell the examples apart as they come by."""
    seen: list[float] = []
    learner = learner_of(checkpoint())
    features = features_of(checkpoint()).with_columns(instance_weights=np.arange(32.0))
    learner.register_forward_pre_hook(lambda *call: seen.extend(call[2]["instance_weights"].tolist()), with_kwargs=True)
    engine.fit(learner, features, Collator(0), plan_of(tmp_path / "a", 2))
    first, second = seen[:32], seen[32:]
    assert sorted(first) == sorted(second) == list(range(32))
    assert first != second


def test_two_runs_are_identical(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    learners = [learner_of(checkpoint()) for _ in range(2)]
    for i, learner in enumerate(learners):
        engine.fit(learner, features_of(checkpoint()), Collator(0), plan_of(tmp_path / str(i)))
    assert same(*learners)


class _Stop(TrainerCallback):
    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.epoch >= 2:
            raise KeyboardInterrupt


def test_resumed_training_ends_where_the_unbroken_one_does(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the third of three epochs, with dropout on; a torn checkpoint beside the whole ones is ignored."""
    unbroken, broken, resumed = (learner_of(checkpoint()) for _ in range(3))
    features, plan = features_of(checkpoint()), plan_of(tmp_path / "broken")
    engine.fit(unbroken, features, Collator(0), plan_of(tmp_path / "unbroken"))
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", 0)
    with monkeypatch.context() as patch:
        ticks = engine._Ticks
        patch.setattr(engine, "_Ticks", type("Stopping", (_Stop, ticks), {}))
        with pytest.raises(KeyboardInterrupt):
            engine.fit(broken, features, Collator(0), plan)
    torn = tmp_path / "broken" / "checkpoint-11"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"torn")
    assert sorted(p.name for p in (tmp_path / "broken").iterdir()) == ["checkpoint-11", "checkpoint-4", "checkpoint-8"]
    before = copy.deepcopy(resumed.state_dict())
    engine.fit(resumed, features, Collator(0), plan)
    assert same(resumed, unbroken)
    assert not all(torch.equal(value, before[name]) for name, value in resumed.state_dict().items())


@pytest.mark.parametrize(("seconds", "kept"), [(0, ["checkpoint-12", "checkpoint-8"]), (1000, [])])
def test_checkpoints_are_kept_where_they_save_enough_work(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, kept: list[str]
) -> None:
    """A finished stage that has one is loaded and not trained again; without one, it is trained to the same weights."""
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", seconds)
    first, again = learner_of(checkpoint()), learner_of(checkpoint())
    engine.fit(first, features_of(checkpoint()), Collator(0), plan_of(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == kept
    engine.fit(again, features_of(checkpoint()), Collator(0), plan_of(tmp_path))
    assert same(first, again)


def test_predictions_and_vectors_keep_the_order_of_examples(checkpoint: Callable[..., Path]) -> None:
    model, features = load_encoder(checkpoint(), ["a", "b"]), features_of(checkpoint(), 70)
    found = passes.predict(model, features, Collator(0))
    torch.testing.assert_close(found.sum(1), torch.ones(70))
    vectors = passes.embed(model, features, Collator(0), "test", "float32", torch.zeros(70, 16))
    for row in (0, 5, 69):
        alone = forward(model, Collator(0)([features[row]]))
        torch.testing.assert_close(found[row], alone.logits[0].softmax(-1))
        torch.testing.assert_close(vectors[row], alone.pooled[0])

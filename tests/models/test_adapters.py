"""LoRA: what learns and what does not, what is saved, and decoders as teachers of encoders."""

import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from conftest import (
    Checkpoint,
    Command,
    encoded,
    open_run,
    read_json,
    refused,
    taught,
    write_toy,
)
from decoders import DECODERS, save_decoder, save_student
from metakd import losses
from metakd.data.tokenization import Batch, Collator
from metakd.export.onnx_format import write_model
from metakd.inference.torch_backend import TorchModel
from metakd.models.adapters import low_rank_updates, recomputed_activations
from metakd.models.encoder import forward
from metakd.models.loading import load_classifier, load_encoder, load_tokenizer
from metakd.pipeline.distill import distill

SMALL = ("--max-length", 16, "--student", "layers=1")


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_updates_and_what_follows_the_encoder_learn_and_are_merged(
    kind: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """At first nothing has changed, after two steps only linear layers and the head; in the end, all may learn.

    The adapter, put on the base again, gives the same.
    """
    folder = checkpoint(kind)
    model = load_encoder(folder, ["a", "b"]).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = Collator(0)(encoded(folder, 8, labels=[0, 1] * 4))
    expected = forward(model, batch).logits
    with low_rank_updates(model, 2) as adapter:
        torch.testing.assert_close(forward(model, batch).logits, expected)
        learning = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(learning, lr=0.5)
        for _ in range(2):  # one half of an update starts at zero, so the other learns from the second step on
            optimizer.zero_grad()
            losses.cross_entropy(forward(model, batch).logits, batch["labels"]).mean().backward()
            optimizer.step()
        trained = forward(model, batch).logits
    torch.testing.assert_close(forward(model, batch).logits, trained)
    assert not torch.allclose(trained, expected)
    after = model.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    encoder = {n for n in changed if n.startswith(f"{model.base_model_prefix}.") and ".pooler." not in n}
    assert encoder
    assert all("embed" not in name and "norm" not in name.lower() and name.endswith("weight") for name in encoder)
    assert changed - encoder
    ranks = {int(torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3)) for name in encoder}
    assert ranks <= {1, 2}
    assert all(parameter.requires_grad for parameter in model.parameters())
    adapter.save(tmp_path / "adapter", str(folder))
    again = peft.PeftModel.from_pretrained(load_encoder(folder, ["a", "b"]), tmp_path / "adapter").eval()
    torch.testing.assert_close(again(batch["input_ids"], batch["attention_mask"]).logits, trained)


def test_frozen_weights_take_half_the_memory_in_bfloat16(base: Path) -> None:
    """With the same gradients, bit for bit, as matrix products round them to it in any case; then they are back."""
    batch, gradients = Collator(0)(encoded(base, 8, labels=[0, 1] * 4)), list[list[torch.Tensor]]()
    for half in (False, True):
        torch.manual_seed(0)
        model = load_encoder(base, ["a", "b"]).eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with low_rank_updates(model, 2, half=half):
            query = model.get_submodule("bert.encoder.layer.0.attention.self.query")
            assert query.base_layer.weight.dtype == (torch.bfloat16 if half else torch.float32)
            assert query.lora_A["default"].weight.dtype == torch.float32
            with torch.autocast("cpu", torch.bfloat16):
                losses.cross_entropy(forward(model, batch).logits, batch["labels"]).mean().backward()
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        after = model.state_dict()
        assert all(value.equal(before[name]) for name, value in after.items())  # nothing was updated
    assert len(gradients[0]) > 4
    assert all(map(torch.equal, *gradients))


def loss_and_memory(model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
    """The loss of a batch, and the bytes that are kept for its gradients."""
    sizes: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = losses.cross_entropy(forward(model, batch).logits, batch["labels"]).mean()
    return loss, sum(sizes)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_recomputed_activations_give_the_same_gradients(
    kind: str, rank: int | None, base: Path, tmp_path: Path
) -> None:
    """Bit for bit, also with dropout, and less is kept for them."""
    folder = base if kind == "bert" else save_decoder(tmp_path / "decoder", padding=True)
    batch = Collator(0)(encoded(folder, 8, labels=[0, 1] * 4))
    gradients, kept = list[list[torch.Tensor]](), list[int]()
    for wanted in (False, True):
        torch.manual_seed(0)
        model = load_encoder(folder, ["a", "b"]).train()
        with low_rank_updates(model, rank), recomputed_activations(model, wanted):
            loss, size = loss_and_memory(model, batch)
            kept.append(size)
            loss.backward()
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert all(map(torch.equal, *gradients))
    assert kept[1] < kept[0] / 2


def test_models_that_cannot_recompute_are_refused(
    metakd: Command, checkpoint: Checkpoint, toy_data: Path, tmp_path: Path
) -> None:
    flags = ("--data", toy_data, "--base", checkpoint("mpnet"), *SMALL, "--output", tmp_path / "run")
    message = refused(metakd("run", *flags, "--gradient-checkpointing", "--dry-run"))
    assert "--gradient-checkpointing: a mpnet does not support it; leave it out" in message


def test_only_the_layers_that_were_named_get_updates(base: Path) -> None:
    model = load_encoder(base, ["a", "b"])
    with low_rank_updates(model, 2, "query, value"):
        updated = {
            name.split(".lora_")[0].rsplit(".", 1)[-1] for name, _ in model.named_parameters() if "lora_" in name
        }
    assert updated == {"query", "value"}


def test_layers_that_there_are_not(metakd: Command, base: Path, toy_data: Path, tmp_path: Path) -> None:
    flags = ("--data", toy_data, "--base", base, *SMALL, "--output", tmp_path / "run")
    said = refused(metakd("run", *flags, "--lora-rank", 2, "--lora-targets", "q_proj"))
    assert "--lora-targets: a bert has no linear layers q_proj; choose of dense, key, query, value" in said
    assert "--lora-targets: add --lora-rank" in refused(metakd("run", *flags, "--lora-targets", "query"))
    said = refused(metakd("run", *flags, "--lora-rank", 2, "--teacher", base, "--teacher-epochs", 0))
    assert "--lora-rank: --teacher stays as it is; add --teacher-epochs" in said
    said = refused(metakd("run", *flags, "--gradient-accumulation", 2, "--domain-loss", "permuted"))
    assert "--gradient-accumulation: --domain-loss permuted shuffles whole batches" in said
    assert not (tmp_path / "run").exists()


def test_without_peft_the_command_that_installs_it_is_said(
    metakd: Command, base: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    flags = ("--data", toy_data, "--base", base, *SMALL, "--output", tmp_path / "run")
    assert "pip install '.[llm]'" in refused(metakd("run", *flags, "--lora-rank", 2))


STUDENTS = [
    pytest.param(kind, student, marks=[] if kind in ("llama", "mistral") else pytest.mark.slow)
    for kind, student in zip(DECODERS, cycle(("bert", "modernbert")), strict=False)
]


@pytest.mark.parametrize(("kind", "student"), STUDENTS)
def test_a_decoder_teaches_an_encoder(kind: str, student: str, tmp_path: Path) -> None:
    """With other tokens, so that layers are not matched; with a token for padding or without; students are exported.

    Its adapter gives the same in peft's own hands.
    """
    folder = save_decoder(tmp_path / "decoder", kind, padding=kind in ("gemma", "qwen2"))
    settings = {"student": str(save_student(tmp_path / "student", student)), "lora_rank": 2, "shared_epochs": 0}
    data = write_toy(tmp_path / "few", train=32, dev=8, test=8)
    run = taught(open_run(tmp_path / "run", data, folder, **settings, stages="joint", baseline=False))
    teacher = load_classifier(run.folders.teacher)
    assert (teacher.config.model_type, teacher.config.use_cache) == (kind, False)
    assert load_tokenizer(run.folders.teacher).pad_token_id == teacher.config.pad_token_id
    assert "loss_domain" in read_json(run.folders.teacher / "manifest.json")["log"][0]
    batch = Collator(0)(encoded(folder, 4, labels=[0, 1] * 2))
    names = {name: getattr(teacher.config, name) for name in ("id2label", "label2id", "pad_token_id")}
    adapted = peft.AutoPeftModelForSequenceClassification.from_pretrained(run.folders.teacher / "adapter", **names)
    assert adapted.config.id2label == {0: "negative", 1: "positive"}
    answers = [m.eval()(batch["input_ids"], batch["attention_mask"]).logits for m in (adapted, teacher)]
    torch.testing.assert_close(*answers)
    books = distill(run, "books")
    log = read_json(books / "manifest.json")["log"]["joint"][0]
    assert {name for name in log if name.startswith("loss_")} == {"loss_prediction", "loss_feature"}
    write_model(TorchModel.load(books), tmp_path / "exported", run.data.splits["dev"])

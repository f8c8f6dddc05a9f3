"""Cutting a student out of an encoder."""

import pytest
import torch

from conftest import Checkpoint, encoded
from metakd.data.tokenization import Collator
from metakd.models.encoder import forward
from metakd.models.loading import load_encoder
from metakd.models.student import cut_student, layers_to_cut
from metakd.utils.errors import InputError


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "mpnet", "deberta-v2", "albert"])
def test_all_layers_kept_is_the_same_model(checkpoint: Checkpoint, kind: str) -> None:
    source = load_encoder(checkpoint(kind), ["a", "b"]).eval()
    whole = cut_student(source, [1, 2, 3, 4]).eval()
    inputs = {"input_ids": torch.tensor([[2, 6, 7, 3]])}
    torch.testing.assert_close(whole(**inputs).logits, source(**inputs).logits)
    assert whole.num_parameters() == source.num_parameters()


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
def test_a_cut_student_runs_only_the_layers_that_it_keeps(checkpoint: Checkpoint, kind: str) -> None:
    """Layers 1 and 2 kept: its hidden states are the source's first three, and its weights are its own."""
    folder = checkpoint(kind)
    source = load_encoder(folder, ["a", "b"]).eval()
    student = cut_student(source, [1, 2]).eval()
    assert student.config.num_hidden_layers == 2
    batch = Collator(0)(encoded(folder, 4))
    if kind == "distilbert":
        del batch["token_type_ids"]
    ours, theirs = forward(student, batch), forward(source, batch)
    for mine, its in zip(ours.hidden_states, theirs.hidden_states[:3], strict=True):
        torch.testing.assert_close(mine, its)
    with torch.no_grad():
        student.get_input_embeddings().weight.add_(1)
    assert not torch.equal(student.get_input_embeddings().weight, source.get_input_embeddings().weight)


def test_what_to_cut_is_read_or_refused() -> None:
    assert layers_to_cut("layers=3") == 3
    assert layers_to_cut(" layers = 12 ") == 12
    assert layers_to_cut("huawei-noah/TinyBERT_General_4L_312D") is None
    for bad in ("layers=two", "layer=3", "layers=-1", "layers="):
        with pytest.raises(InputError, match="expected 'layers=N'"):
            layers_to_cut(bad)

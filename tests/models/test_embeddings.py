"""Training fewer rows of the embedding table than it has."""

import pytest
import torch

from conftest import Checkpoint
from metakd.models.embeddings import only_rows_in_use
from metakd.models.loading import load_encoder


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "albert", "mpnet"])
def test_only_embeddings_in_use_are_trained_and_all_come_back(checkpoint: Checkpoint, kind: str) -> None:
    """Three rows and the padding's: the same logits and gradients, fewer weights, and the others untouched after."""
    model = load_encoder(checkpoint(kind), ["a", "b"]).eval()
    whole = model.get_input_embeddings()
    before, padding = whole.weight.detach().clone(), whole.padding_idx
    rows = [5, 8, 13]
    batch = {"input_ids": torch.tensor([[5, 8, 13, 8]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}

    def gradient() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        logits = model(**batch).logits
        logits.square().sum().backward()
        return logits, model.get_input_embeddings().weight.grad.clone()

    logits, expected = gradient()
    with only_rows_in_use(model, rows):
        same, actual = gradient()
        kept = [*rows, *({padding} - {None})]
        torch.testing.assert_close(same, logits)
        torch.testing.assert_close(actual, expected[sorted(kept)])
        with pytest.raises(IndexError):
            model(input_ids=torch.tensor([[6]]))
        with torch.no_grad():
            model.get_input_embeddings().weight += 1
    assert model.get_input_embeddings() is whole
    changed = (whole.weight != before).any(1).nonzero().flatten().tolist()
    assert changed == sorted(kept)
    torch.testing.assert_close(whole.weight[rows], before[rows] + 1)

"""A GPU, if there is one, predicts for scores, experiments and Python users; the CPU does where it is asked for."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import toy_examples
from metakd import Classifier, Settings, load_dataset
from metakd.evaluation.predictions import predict_by_models
from metakd.experiments.trial import Trial
from metakd.experiments.variants import Variant
from metakd.inference import torch_backend
from metakd.inference.torch_backend import TorchModel
from metakd.models.forward_passes import batches_in_order
from metakd.models.loading import load_encoder, load_tokenizer
from metakd.utils import hardware

LABELS = ["negative", "positive"]
GPU = torch.device("meta")  # stands for it: tensors there cannot meet those of the CPU


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    """The folder of a saved classifier."""
    load_encoder(base, LABELS).save_pretrained(tmp_path / "model")
    load_tokenizer(base, 16).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> set[torch.device]:
    """Where the networks and batches that predict several texts at once are, on a machine with a GPU; it grows."""
    seen = set[torch.device]()

    def predict(network: Any, features: Any, collator: Any) -> Tensor:
        if len(features) > 1:  # a latency is that of one text
            batches = [batch for _, batch in batches_in_order(network, features, collator)]
            seen.update(tensor.device for tensor in chain(network.parameters(), *(b.values() for b in batches)))
        return torch.full((len(features), len(LABELS)), 0.5)

    monkeypatch.setattr(hardware, "device", lambda: GPU)
    monkeypatch.setattr(torch_backend, "predict", predict)
    return seen


def test_scores_are_predicted_on_the_gpu(model: Path, devices: set[torch.device]) -> None:
    examples = toy_examples(8, 0, "test")
    by_domain = predict_by_models({"student": {"books": model, "kitchen": model}}, LABELS, examples)["student"]
    assert [len(by_domain[domain].predicted) for domain in ("books", "kitchen")] == [4, 4]
    assert devices == {GPU}


def test_python_users_predict_on_the_gpu(model: Path, devices: set[torch.device]) -> None:
    assert len(Classifier.from_pretrained(model).predict(["a good plot", "a dull lid"])) == 2
    assert devices == {GPU}


def test_experiments_are_scored_on_the_gpu(
    model: Path, base: Path, toy_data: Path, tmp_path: Path, devices: set[torch.device]
) -> None:
    """Equal probabilities are read as the first label, of which half of the examples of each domain are."""
    settings = Settings(base=str(base), precision="float32", max_length=16)
    trial = Trial.of(Variant("a variant", {}), 0, settings, load_dataset(toy_data), tmp_path / "trials")
    row = trial._row("key", "a variant", {"books": model, "kitchen": model}, 0.0)
    assert sorted(row["right"]["test"]["books"]) == ["0"] * 6 + ["1"] * 6
    assert devices == {GPU}


def test_a_model_is_on_the_cpu_where_it_is_asked_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "device", lambda: GPU)
    assert TorchModel.load(model, "cpu").network.device.type == "cpu"
    assert TorchModel.load(model).network.device == GPU

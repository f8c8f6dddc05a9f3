"""Linear layers by oneDNN compute what PyTorch's do, gradients of all orders included."""

import copy
import pickle
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from metakd.export.onnx_format import write_onnx
from metakd.inference.torch_backend import TorchModel
from metakd.models import linear
from metakd.models.linear import onednn_is_quicker
from metakd.models.loading import load_encoder, load_tokenizer
from metakd.models.student import cut_student

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(autouse=True)
def _quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "onednn_is_quicker", lambda: True)
    monkeypatch.setattr(linear, "SMALL", 0)


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_torch(bias: bool) -> None:
    model, x = nn.Sequential(nn.Linear(5, 7, bias), nn.Tanh(), nn.Linear(7, 3, bias)), torch.randn(2, 4, 5)
    results = []
    for choose_kernel in (linear.use_torch_linear, linear.use_quick_linear):
        choose_kernel(model)
        leaf = x.clone().requires_grad_()
        output = model(leaf)
        first = torch.autograd.grad(output.square().sum(), [leaf, *model.parameters()], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [*model.parameters()], allow_unused=True)
        results.append([output, *first, *(g for g in second if g is not None)])
    assert "_Affine" in results[1][0].grad_fn.name()
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_small_products_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 6 rows, 5 columns and 7 outputs: 210 multiplications."""
    layer = nn.Sequential(nn.Linear(5, 7))
    linear.use_quick_linear(layer)
    for limit, ours in ((210, True), (211, False)):
        monkeypatch.setattr(linear, "SMALL", limit)
        assert ("_Affine" in layer(torch.randn(2, 3, 5)).grad_fn.name()) == ours


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("longformer", {"attention_window": 4, "max_position_embeddings": 64}),
        ("deberta", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    ],
)
def test_outputs_may_be_changed_in_place(kind: str, shape: dict[str, Any]) -> None:
    """As Longformer and DeBERTa v1 do, which PyTorch forbids for a view that a custom function returns."""
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **SMALL, **shape))
    inputs = {"input_ids": torch.randint(3, 50, (2, 12)), "attention_mask": torch.ones(2, 12, dtype=torch.long)}
    gradients = []
    for choose_kernel in (linear.use_torch_linear, linear.use_quick_linear):
        choose_kernel(model.eval())
        model.zero_grad()
        model(**inputs).logits.square().sum().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_models_are_loaded_and_cut_with_it_and_exported_without(base: Path, tmp_path: Path) -> None:
    """Copies and pickles keep it, and a saved checkpoint is the library's."""
    model = load_encoder(base, ["a", "b"])
    models = [model, cut_student(model, [2, 4]), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    assert [type(each.classifier) for each in models] == [linear.QuickLinear] * 4
    model.save_pretrained(tmp_path / "saved")
    assert load_encoder(tmp_path / "saved", ["a", "b"]).state_dict().keys() == model.state_dict().keys()
    write_onnx(TorchModel(model, load_tokenizer(base, 16)), tmp_path / "model.onnx")
    assert type(model.classifier) is nn.Linear
    assert {node.domain for node in onnx.load(tmp_path / "model.onnx").graph.node} == {""}


def test_other_precisions_are_left_to_torch() -> None:
    model, x = nn.Linear(2, 2), torch.ones(1, 2, requires_grad=True)
    linear.use_quick_linear(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
    assert model.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("vendor", "widest", "has_mkl", "quicker"),
    [
        ("AuthenticAMD", "AVX512", True, True),
        ("AuthenticAMD", "AVX2", True, False),
        ("GenuineIntel", "AVX512", True, False),
        ("AuthenticAMD", "AVX512", False, False),
        ("", "AVX512", True, False),
    ],
)
def test_only_on_amd_with_avx512_and_mkl(
    monkeypatch: pytest.MonkeyPatch, vendor: str, widest: str, has_mkl: bool, quicker: bool
) -> None:
    monkeypatch.setattr(linear, "processor_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: widest)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: has_mkl)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert onednn_is_quicker.__wrapped__() is quicker

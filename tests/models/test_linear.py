"""Linear layers by oneDNN say what torch's own say, gradients of all orders included."""

import pytest
import torch
from torch import nn

from metakd.models import linear

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def _quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "onednn_is_quicker", lambda: True)


@needs_onednn
@pytest.mark.usefixtures("_quicker")
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_torch(bias: bool) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 7, bias), nn.Tanh(), nn.Linear(7, 3, bias)), torch.randn(2, 4, 5)
    found = []
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        with linear.quick_linear(model) if found else torch.enable_grad():
            output = model(leaf)
        first = torch.autograd.grad(output.square().sum(), [leaf, *model.parameters()], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [*model.parameters()], allow_unused=True)
        found.append([output, *first, *(g for g in second if g is not None)])
    assert "_Affine" in found[1][0].grad_fn.name()
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@needs_onednn
@pytest.mark.usefixtures("_quicker")
def test_afterwards_layers_are_what_they_were_even_where_a_pass_fails() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    inside = []
    model.register_forward_pre_hook(lambda *_: inside.append(type(model[0])))
    with pytest.raises(RuntimeError), linear.quick_linear(model):
        model(torch.ones(1, 3))
    assert inside == [linear._Linear]
    assert type(model[0]) is nn.Linear


@needs_onednn
@pytest.mark.usefixtures("_quicker")
def test_other_precisions_are_left_to_torch() -> None:
    model, x = nn.Linear(2, 2), torch.ones(1, 2, requires_grad=True)
    with linear.quick_linear(model), torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
    with linear.quick_linear(model.double()):
        assert model(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("vendor", "has_mkl", "quicker"),
    [("AuthenticAMD", True, True), ("GenuineIntel", True, False), ("AuthenticAMD", False, False), ("", True, False)],
)
def test_only_where_mkl_would_compute_on_amd(
    monkeypatch: pytest.MonkeyPatch, vendor: str, has_mkl: bool, quicker: bool
) -> None:
    monkeypatch.setattr(linear, "processor_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: has_mkl)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    linear.onednn_is_quicker.cache_clear()
    assert linear.onednn_is_quicker() is quicker
    linear.onednn_is_quicker.cache_clear()

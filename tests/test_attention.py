"""Whichever kernel attends, the outcome is the same."""

import pytest
import torch

from metakd import attention


@pytest.mark.parametrize("tokens", [5, attention.LONG])
def test_matrices_written_out_say_what_the_fused_kernel_says(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two texts, the second with its last two tokens padded: outputs and gradients in bfloat16 beside float32's."""
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, tokens, 4) for _ in range(3)]
    mask = torch.ones(2, 1, tokens, tokens, dtype=torch.bool)
    mask[1, :, :, -2:] = False
    fused = torch.nn.functional.scaled_dot_product_attention
    calls = []
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in inputs]
        output = attention.attend(*leaves, mask, 0.5)
        output.float().square().sum().backward()
        found.append([output.float(), *(leaf.grad.float() for leaf in leaves if leaf.grad is not None)])
    for exact, rounded in zip(*found, strict=True):
        torch.testing.assert_close(rounded, exact, atol=0.02 * float(exact.detach().abs().max()), rtol=0)
    assert len(calls) == 1 + (tokens >= attention.LONG)
    assert not found[1][3][1, :, -2:].any()  # no gradient reaches the values of padding


def test_without_gradients_attention_is_always_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", lambda *_, **__: "fused")
    x = torch.randn(1, 1, 2, 4, dtype=torch.bfloat16)
    assert attention.attend(x, x, x, None, 1.0) == "fused"


def test_dropout_is_at_work_and_leaves_the_mean_alone() -> None:
    torch.manual_seed(0)
    x = torch.ones(1, 1, 64, 4, dtype=torch.bfloat16, requires_grad=True)
    output = attention.attend(x, x, x, None, 1.0, dropout=0.5)
    assert output.float().std() > 0.05
    assert output.float().mean().item() == pytest.approx(1, abs=0.05)

"""Whichever kernel attends, the outcome is the same."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from metakd.models import attention


@pytest.mark.parametrize("tokens", [5, attention.LONG])
def test_plain_products_compute_what_the_fused_kernel_computes(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two texts, the second with its last two tokens padded: outputs and gradients in bfloat16 beside float32's."""
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, tokens, 4) for _ in range(3)]
    mask = torch.ones(2, 1, tokens, tokens, dtype=torch.bool)
    mask[1, :, :, -2:] = False
    fused = torch.nn.functional.scaled_dot_product_attention
    calls = []
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in inputs]
        output = attention.attend(*leaves, mask, 0.5)
        output.float().square().sum().backward()
        results.append([output.float(), *(leaf.grad.float() for leaf in leaves if leaf.grad is not None)])
    for exact, rounded in zip(*results, strict=True):
        torch.testing.assert_close(rounded, exact, atol=0.02 * float(exact.detach().abs().max()), rtol=0)
    assert len(calls) == 1 + (tokens >= attention.LONG)
    assert not results[1][3][1, :, -2:].any()  # no gradient reaches the values of padding


def test_padding_that_attends_to_nothing_is_no_nan() -> None:
    """As in a local window that lies wholly in padding; masks that are added are taken as they are."""
    x = torch.randn(1, 2, 3, 4, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])[None, None]
    output = attention.attend(x, x, x, mask, 1.0)
    output.float().sum().backward()
    assert output.isfinite().all()
    assert x.grad.isfinite().all()
    added = torch.zeros(1, 1, 3, 3, dtype=torch.bfloat16).masked_fill(~mask, -1e30)
    torch.testing.assert_close(attention.attend(x, x, x, added, 1.0)[:, :, :2], output[:, :, :2])


@pytest.mark.parametrize("kind", ["bert", "gpt2", "qwen2", "mpnet", "deberta-v2"])
def test_ours_is_for_encoders_with_a_key_for_each_query_head(kind: str) -> None:
    ours = kind == "bert"
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = AutoConfig.for_model(kind, vocab_size=9, pad_token_id=0, num_key_value_heads=1, **shape)
    model = AutoModelForSequenceClassification.from_config(config)
    before = model.config._attn_implementation
    attention.set_attention(model, "factors")
    assert attention.has_raw_scores(model) is ours
    assert (model.config._attn_implementation == "metakd_factors") is ours
    assert ours or model.config._attn_implementation == before


def test_dropout_is_at_work_and_leaves_the_mean_alone() -> None:
    torch.manual_seed(0)
    x = torch.ones(1, 1, 64, 4, dtype=torch.bfloat16, requires_grad=True)
    output = attention.attend(x, x, x, None, 1.0, dropout=0.5)
    assert output.float().std() > 0.05
    assert output.float().mean().item() == pytest.approx(1, abs=0.05)

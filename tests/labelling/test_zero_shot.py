"""Likelihoods of label words against reading each prompt with each answer alone, and the correction of the prior."""

from itertools import chain
from pathlib import Path

import pytest
import torch

from conftest import LANGUAGE_MODELS, save_language_model, toy_examples
from metakd import InputError
from metakd.labelling.local_model import LocalModel
from metakd.labelling.prompts import Task
from metakd.labelling.zero_shot import with_shares


@pytest.mark.parametrize("kind", sorted({*LANGUAGE_MODELS} - {"bert"}))
def test_scores_are_those_of_each_answer_alone(kind: str, tmp_path: Path) -> None:
    """Without padding and without a cache: log p of the words' tokens after the prompt, averaged over them."""
    scorer = LocalModel(str(save_language_model(tmp_path / "llm", kind)), max_length=16)
    prompts = [e.text for e in toy_examples(20, 0, "t")]
    words = ["good", "very bad", "fine and lovely"]
    batches = [zip(rows, scores, strict=True) for rows, scores in scorer.scores(prompts, words)]
    scored = dict(chain.from_iterable(batches))
    assert sorted(scored) == [*range(20)]
    for row, prompt in enumerate(prompts):
        for place, answer in enumerate(words):
            before, after = (scorer.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer))
            before = [scorer.tokenizer.cls_token_id, *before]  # as this tokenizer begins texts
            with torch.no_grad():
                log_p = scorer.model(input_ids=torch.tensor([before + after])).logits[0].log_softmax(-1)
            tokens = [log_p[len(before) - 1 + i, token].item() for i, token in enumerate(after)]
            assert scored[row][place] == pytest.approx(sum(tokens) / len(tokens), abs=1e-4)


def test_a_chat_template_makes_the_prompt_a_message(tmp_path: Path) -> None:
    """The answer then follows the template, without a blank, and other answers are kept apart."""
    plain = LocalModel(str(save_language_model(tmp_path / "llm")), max_length=16)
    expected = next(plain.scores(["so the plot it was"], ["good", "bad"]))[1]
    before = plain.identity
    plain.tokenizer.chat_template = "{% for m in messages %}[CLS] so {{ m['content'] }} it was{% endfor %}"
    with pytest.raises(InputError, match=r"chat: .* has no chat template"):
        LocalModel(str(tmp_path / "llm"), max_length=16, chat=True)
    plain.tokenizer.save_pretrained(tmp_path / "llm")
    chat = LocalModel(str(tmp_path / "llm"), max_length=16, chat=True)
    assert next(chat.scores(["the plot"], ["good", "bad"]))[1][0] == pytest.approx(expected[0], abs=1e-5)
    assert chat.identity != before


def test_a_text_is_cut_where_its_tokens_end(tmp_path: Path) -> None:
    scorer = LocalModel(str(save_language_model(tmp_path / "llm")), max_length=3)
    assert scorer.shortened("the plot  was so very good") == "the plot  was"
    assert scorer.shortened("the plot") == "the plot"


def test_shares_of_labels_become_those_that_are_wanted() -> None:
    """For two labels, scores that favour one by a constant: that constant goes, and nothing else."""
    d = torch.tensor([-2.0, -1.0, 1.0, 2.0])
    scores = torch.stack([d + 5, torch.zeros(4)], -1)
    torch.testing.assert_close(
        with_shares(scores, torch.tensor([0.5, 0.5]))[:, 0], d.double().sigmoid(), atol=1e-5, rtol=0
    )


def test_shares_are_met_for_any_scores() -> None:
    scores = 3 * torch.randn(500, 4) + torch.tensor([5.0, 0.0, -3.0, 1.0])
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])
    p = with_shares(scores, shares)
    torch.testing.assert_close(p.mean(0), shares.double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(p.sum(-1), torch.ones(500, dtype=torch.float64))


def test_a_prompt_has_its_fields_filled_once() -> None:
    """What a text has in braces is not a field."""
    (e, *_) = toy_examples(1, 0, "t")
    task = Task("{domain}: {text} ({labels}) {other}", {"a": "bad", "b": "good"})
    assert task.ask(e) == f"books: {e.text} (bad, good) {{other}}"

"""Zero-shot classification: how likely a causal language model finds the words of each label after a prompt."""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

STEPS, ENOUGH = 1_000, 1e-6  # of the iteration that finds b: the most, and the error of log shares to stop at
BATCH = 16  # prompts that are read together
READ_ON = 8192  # tokens of prompts that are kept for the words of several labels at once


def with_shares(
    scores: Tensor,  # (N, M): log-likelihoods
    shares: Tensor,  # (M,): of the labels among such texts, up to a factor
) -> Tensor:  # (N, M)
    """Probabilities of the labels, softmax(scores + b), where b makes their means over all texts equal to `shares`.

    A language model prefers some words whatever the text is; b takes that off [calibration: Zhao et al., ICML 2021].
    """
    log_p, target = scores.double().log_softmax(-1), (shares.double() / shares.sum()).log()
    offset = torch.zeros_like(target)
    for _ in range(STEPS):
        means = (log_p + offset).log_softmax(-1).logsumexp(0) - math.log(len(log_p))
        offset += target - means
        if (target - means).abs().max() < ENOUGH:
            break
    return (log_p + offset).softmax(-1)


def label_scores(
    model: PreTrainedModel, tokenizer: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]]
) -> Iterator[tuple[list[int], Tensor]]:
    """The mean log-likelihood of the tokens of each answer after each prompt.

    Args:
        model: A causal language model in eval mode.
        tokenizer: Pads on the left.
        prompts: The tokens of N prompts.
        answers: The tokens of the words of M labels.

    Yields:
        Rows of prompts, the shortest first, and their scores (B, M).
    """
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        batch = tokenizer.pad({"input_ids": [prompts[row] for row in rows]}, return_tensors="pt").to(model.device)
        with torch.no_grad():
            yield rows, _scores(model, batch, answers).cpu()


def _scores(model: PreTrainedModel, batch: Any, answers: Sequence[Sequence[int]]) -> Tensor:
    """(B, M): the prompts are read once, and then the words of as many labels at once as READ_ON allows."""
    mask = batch["attention_mask"]
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    read = model(**batch, position_ids=places, use_cache=True, logits_to_keep=1)
    scores = read.logits[:, -1].float().log_softmax(-1)[:, [answer[0] for answer in answers]]
    longer = [label for label, answer in enumerate(answers) if len(answer) > 1]
    most = max(1, READ_ON // mask.numel())
    for some in (longer[start : start + most] for start in range(0, len(longer), most)):
        words = [torch.tensor(answers[label]) for label in some]
        scores[:, some] += _read_on(model, read.past_key_values, mask, places[:, -1:], words)
    return scores / torch.tensor([len(answer) for answer in answers], device=scores.device)


def _read_on(model: PreTrainedModel, cache: Any, mask: Tensor, last: Tensor, answers: Sequence[Tensor]) -> Tensor:
    """(B, m): the log-likelihood of the tokens of m answers after their first.

    Args:
        model: The language model.
        cache: What it keeps of B prompts.
        mask: (B, L), their real tokens.
        last: (B, 1), the position of the last one.
        answers: The tokens of each, two or more.
    """
    cache = copy.deepcopy(cache)  # reading on changes it
    cache.batch_repeat_interleave(len(answers))
    real = [torch.ones(len(answer), dtype=mask.dtype) for answer in answers]
    tokens, real_tokens = (
        pad_sequence([*rows], batch_first=True).to(mask.device).repeat(len(mask), 1) for rows in (answers, real)
    )  # (B · m, tokens): the answers to a prompt stand one after the other
    before, last = (of_prompts.repeat_interleave(len(answers), 0) for of_prompts in (mask, last))
    logits = model(
        input_ids=tokens[:, :-1],
        attention_mask=torch.cat([before, real_tokens[:, :-1]], -1),
        position_ids=last + torch.arange(1, tokens.shape[1], device=mask.device),
        past_key_values=cache,
    ).logits
    log_p = logits.float().log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return (log_p * real_tokens[:, 1:]).sum(-1).unflatten(0, (len(mask), -1))

"""Zero-shot classification: how likely a causal language model finds the words of each label after a prompt."""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

STEPS, ENOUGH = 1_000, 1e-6  # of the iteration that finds b: the most, and the error of log shares to stop at
BATCH = 16  # prompts that are read together


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
    """(B, M): the prompts are read once, and then each label's words."""
    mask = batch["attention_mask"]
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    read = model(**batch, position_ids=places, use_cache=True, logits_to_keep=1)
    first = read.logits[:, -1].float().log_softmax(-1)
    scores = []
    for answer in answers:
        total = first[:, answer[0]]
        if len(answer) > 1:
            tokens = torch.tensor(answer, device=mask.device).expand(len(mask), -1)
            after = places[:, -1:] + torch.arange(1, len(answer), device=mask.device)
            logits = model(
                input_ids=tokens[:, :-1],
                attention_mask=torch.cat([mask, torch.ones_like(tokens[:, :-1])], -1),
                position_ids=after,
                past_key_values=copy.deepcopy(read.past_key_values),  # reading on would change it
            ).logits
            total = total + logits.float().log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0].sum(-1)
        scores.append(total / len(answer))
    return torch.stack(scores, -1)

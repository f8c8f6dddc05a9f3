"""A classifier's head: a linear layer with a row for each class, which are matched to the data's labels by name."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

SINGLE, SEVERAL = "single_label_classification", "multi_label_classification"  # a configuration's problem_type
GENERIC = "LABEL_"  # with a number: the name that transformers gives a class that nobody named


def has_several_labels(model: PreTrainedModel) -> bool:
    """Whether a text may have several of the model's labels, each with a probability by itself."""
    return bool(model.config.problem_type == SEVERAL)


def probabilities(model: PreTrainedModel, logits: Tensor) -> Tensor:
    """Class probabilities of a model's logits: (B, M) -> (B, M)."""
    return logits.sigmoid() if has_several_labels(model) else logits.softmax(-1)


def start_at_shares(model: PreTrainedModel, shares: Tensor) -> None:
    """Let a new head of several labels start at the share of the texts that have each, (M,), and not at one half.

    Else it first has to learn for hundreds of updates that most texts lack most labels.
    """
    head = find_head(model)
    if head is not None and head.bias is not None and not head.bias.any():  # as it is before any training
        with torch.no_grad():
            head.bias.copy_(shares.logit())


def all_right(logits: Tensor, yes: Tensor) -> Tensor:
    """The probability that all answers, a `yes` or no to each label (N, M), are right: (N, M) -> (N,)."""
    return F.logsigmoid(torch.where(yes, logits, -logits)).sum(-1).exp()


def find_head(model: PreTrainedModel) -> nn.Linear | None:
    """The linear layer, after the encoder, with a row for each class."""
    outside = [m for name, m in model.named_modules() if not name.startswith(model.base_model_prefix)]
    rows = [m for m in outside if isinstance(m, nn.Linear) and m.out_features == model.config.num_labels]
    return rows[-1] if rows else None


def rows_of_labels(classes: Sequence[str], labels: Sequence[str]) -> list[int] | None:
    """The row of the head for each label, or None unless each has one.

    Names are compared as they are, then without regard to case, then as numbers: LABEL_1 is the label 1, if all classes
    are labels. (If some were not, labels that count from 1 could be taken for others.)
    """
    for plain in (str, str.casefold, lambda name: name.removeprefix(GENERIC)):
        places, wanted = [*map(plain, classes)], [*map(plain, labels)]
        is_generic = not {*wanted} <= {*classes} and any(name.startswith(GENERIC) for name in classes)
        if len({*places}) < len(places) or len({*wanted}) < len(wanted) or not {*wanted} <= {*places}:
            continue
        if not is_generic or len(places) == len(wanted):
            return [places.index(label) for label in wanted]
    return None


def keep_rows(model: PreTrainedModel, head: nn.Linear, rows: Sequence[int]) -> None:
    """Reduce the head of `model` to these rows, in this order."""
    with torch.no_grad():
        head.weight = nn.Parameter(head.weight[rows])
        if head.bias is not None:
            head.bias = nn.Parameter(head.bias[rows])
    head.out_features = model.num_labels = len(rows)

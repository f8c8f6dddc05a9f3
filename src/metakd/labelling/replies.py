"""What the reply of a chat model says of labels: the probabilities of its first token, or the label that it names."""

import math
import re
from collections.abc import Sequence
from typing import Any

ENOUGH = 0.5  # probability of tokens that begin labels, below which they are not what the model answers with
LITTLE = 0.05  # probability of tokens that begin several labels
THOUGHT_BEGINS, THOUGHT_ENDS = "<think>", "</think>"


def reply_text(choice: Any) -> str:
    """The text of a reply, less what the model thought before; empty if it has none."""
    text = _content(choice)
    return "" if is_unfinished_thought(choice) else text.rpartition(THOUGHT_ENDS)[2].lstrip()


def is_unfinished_thought(choice: Any) -> bool:
    """Whether a reply ended before the model had thought to the end."""
    text = _content(choice)
    return text.lstrip().startswith(THOUGHT_BEGINS) and THOUGHT_ENDS not in text


def _content(choice: Any) -> str:
    return str(getattr(getattr(choice, "message", None), "content", None) or "")


def token_probabilities(choice: Any, words: Sequence[str]) -> list[float] | None:
    """The probability (M,) of each label by the first token of a reply.

    None if the API tells none, if the tokens that begin exactly one label have little probability, or if those that
    begin several have more than a little.
    """
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    p, ambiguous = [0.0] * len(words), 0.0
    for each in (getattr(content[0], "top_logprobs", None) or ()) if content else ():
        begins = each.token.strip().casefold()
        places = [place for place, text in enumerate(words) if begins and text.casefold().startswith(begins)]
        if len(places) == 1:
            p[places[0]] += math.exp(each.logprob)
        elif places:
            ambiguous += math.exp(each.logprob)
    return [each / sum(p) for each in p] if sum(p) >= ENOUGH and ambiguous <= LITTLE else None


def named_label(text: str, words: Sequence[str]) -> int | None:
    """The place of the label that a reply names, alone or as the only one in a sentence; None for none or several."""
    plain = text.strip(" \n\t.\"'*`").casefold()
    exact = [place for place, label in enumerate(words) if label.casefold() == plain]
    within = [
        place for place, label in enumerate(words) if re.search(rf"(?<!\w){re.escape(label.casefold())}(?!\w)", plain)
    ]
    return exact[0] if exact else within[0] if len(within) == 1 else None

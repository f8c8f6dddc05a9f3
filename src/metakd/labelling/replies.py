"""What the reply of a chat model says of labels: the probabilities of its first token, or the label that it names."""

import math
import re
from collections.abc import Sequence
from typing import Any

ENOUGH = 0.5  # probability of tokens that begin labels, below which they are not what the model answers with


def reply_text(choice: Any) -> str:
    """The text of a reply, empty if it has none."""
    return str(getattr(getattr(choice, "message", None), "content", None) or "")


def token_probabilities(choice: Any, words: Sequence[str]) -> list[float] | None:
    """The probability (M,) of each label by the first token of a reply.

    None if the API tells none, or if the tokens that begin exactly one label have little probability.
    """
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    p = [0.0] * len(words)
    for each in (getattr(content[0], "top_logprobs", None) or ()) if content else ():
        begins = each.token.strip().casefold()
        places = [place for place, text in enumerate(words) if begins and text.casefold().startswith(begins)]
        if len(places) == 1:
            p[places[0]] += math.exp(each.logprob)
    return [each / sum(p) for each in p] if sum(p) >= ENOUGH else None


def named_label(text: str, words: Sequence[str]) -> int | None:
    """The place of the label that a reply names, alone or as the only one in a sentence; None for none or several."""
    plain = text.strip(" \n\t.\"'*`").casefold()
    exact = [place for place, label in enumerate(words) if label.casefold() == plain]
    within = [
        place for place, label in enumerate(words) if re.search(rf"(?<!\w){re.escape(label.casefold())}(?!\w)", plain)
    ]
    return exact[0] if exact else within[0] if len(within) == 1 else None

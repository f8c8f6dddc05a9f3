"""What the reply of a chat model says of labels: the probabilities of its first token, or the label that it names."""

import math
import re
from collections.abc import Sequence
from typing import Any

ENOUGH = 0.5  # probability of tokens that begin labels, below which they are not what the model answers with
LITTLE = 0.05  # probability of tokens that begin several labels
THOUGHT_BEGINS, THOUGHT_ENDS = "<think>", "</think>"
QUOTES = " \n\t.\"'*`"  # and the like, around a label
DENIAL = re.compile(r"(\b(not|non|no|never|neither|cannot)|n['’]t)([ -]\w+){0,2}[ -]$")  # in English, before a label
SHORTEST = 3  # letters of a label that an inflected form of it is known by


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

    None if the API tells none, if the tokens that begin exactly one label have little probability, if those that begin
    several have more than a little, or if the reply does not go on as a label: "A text about ..." is not "angry".
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
    if sum(p) < ENOUGH or ambiguous > LITTLE or not _names(reply_text(choice), words, p.index(max(p))):
        return None
    return [each / sum(p) for each in p]


def _names(text: str, words: Sequence[str], likeliest: int) -> bool:
    """Whether a reply begins with a label, breaks off within one, or names the likeliest."""
    plain, labels = _plain(text), [*map(_plain, words)]
    ends = ["" if len(label) >= SHORTEST or not label.isascii() else r"(?!\w)" for label in labels]
    begun = any(re.match(f"{re.escape(label)}{end}", plain) for label, end in zip(labels, ends, strict=True))
    cut_off = any(plain and label.startswith(plain) for label in labels)
    return begun or cut_off or named_label(text, words) == likeliest


def named_label(text: str, words: Sequence[str]) -> int | None:
    """The place of the label that a reply names, alone or as the only one in a sentence; None for none or several.

    A label after a denial, as in "not positive", is not named.
    """
    plain = _plain(text)
    exact = [place for place, label in enumerate(words) if _plain(label) == plain]
    patterns = [rf"(?<!\w){re.escape(label.casefold())}(?!\w)" for label in words]
    within = [(place, match) for place, pattern in enumerate(patterns) if (match := re.search(pattern, plain))]
    if exact:
        return exact[0]
    return within[0][0] if len(within) == 1 and not DENIAL.search(plain[: within[0][1].start()]) else None


def _plain(text: str) -> str:
    return text.strip(QUOTES).casefold()

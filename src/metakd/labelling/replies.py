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
WORDS = ("a", "i")  # of one letter, in English
SHORTEST = 3  # letters of a label that an inflected form of it is known by


def reply_text(choice: Any) -> str:
    """The text of a reply, less what the model thought before; empty if it has none."""
    text = _content(choice)
    return "" if is_unfinished_thought(choice) else text.rpartition(THOUGHT_ENDS)[2].lstrip()


def is_unfinished_thought(choice: Any) -> bool:
    """Whether a reply ended before the model had thought to the end, which some APIs leave out of the reply."""
    text = _content(choice)
    if not text.strip():
        return getattr(choice, "finish_reason", None) == "length"
    return text.lstrip().startswith(THOUGHT_BEGINS) and THOUGHT_ENDS not in text


def _content(choice: Any) -> str:
    return str(getattr(getattr(choice, "message", None), "content", None) or "")


def token_probabilities(choice: Any, words: Sequence[str]) -> list[float] | None:
    """The probability (M,) of each label by the first token of a reply, less thoughts and what surrounds labels.

    None if the API has none, if the tokens that begin exactly one label have little probability, if those that begin
    several have more than a little, or if the reply does not go on as a label: "A text about ..." is not "angry".
    """
    p, ambiguous = [0.0] * len(words), 0.0
    for each in getattr(_first_token(choice), "top_logprobs", None) or ():
        begins = each.token.strip().casefold()
        places = [place for place, text in enumerate(words) if begins and text.casefold().startswith(begins)]
        if len(places) == 1:
            p[places[0]] += math.exp(each.logprob)
        elif places:
            ambiguous += math.exp(each.logprob)
    if sum(p) < ENOUGH or ambiguous > LITTLE or not _names(reply_text(choice), words, p.index(max(p))):
        return None
    return [each / sum(p) for each in p]


def _first_token(choice: Any) -> Any:
    """The first token of a reply that may begin a label, with its alternatives; None without logprobs."""
    tokens = getattr(getattr(choice, "logprobs", None), "content", None) or []
    texts = [str(getattr(each, "token", "")) for each in tokens]
    begin = max((place + 1 for place, text in enumerate(texts) if THOUGHT_ENDS in text), default=0)
    words = (each for each, text in zip(tokens[begin:], texts[begin:], strict=True) if text.strip(QUOTES))
    return next(words, next(iter(tokens[begin:]), None))


def _names(text: str, words: Sequence[str], likeliest: int) -> bool:
    """Whether a reply begins with a label, breaks off within one, or names the likeliest."""
    plain, labels = _plain(text), [*map(_plain, words)]
    ends = ["" if len(label) >= SHORTEST or not label.isascii() else r"(?!\w)" for label in labels]
    begun = any(re.match(f"{re.escape(label)}{end}", plain) for label, end in zip(labels, ends, strict=True))
    cut_off = any(plain and label.startswith(plain) for label in labels)
    return begun or cut_off or named_label(text, words) == likeliest


def named_label(text: str, words: Sequence[str]) -> int | None:
    """The place of the label that a reply names, alone or as the only one in a sentence; None for none or several.

    A label after a denial, as in "not positive", is not named, nor is one within another: "non-toxic" is not "toxic".
    In a sentence, the labels A and I are read in their own case, as they are words.
    """
    plain = _plain(text)
    exact = [place for place, label in enumerate(words) if _plain(label) == plain]
    if exact:
        return exact[0]
    patterns = [rf"(?<!\w){re.escape(label)}(?!\w)" for label in words]
    cases = [0 if label.casefold() in WORDS else re.IGNORECASE for label in words]
    matches = [
        (place, match)
        for place, (pattern, case) in enumerate(zip(patterns, cases, strict=True))
        for match in re.finditer(pattern, text, case)
    ]
    named = [(place, one) for place, one in matches if not any(_is_within(one, other) for _, other in matches)]
    first = named[0][1].start() if named else 0
    alone = len({place for place, _ in named}) == 1 and not DENIAL.search(text[:first].casefold())
    return named[0][0] if alone else None


def _is_within(one: re.Match[str], other: re.Match[str]) -> bool:
    """Whether a match is a part of another, longer one."""
    return other.start() <= one.start() and one.end() <= other.end() and len(one[0]) < len(other[0])


def _plain(text: str) -> str:
    return text.strip(QUOTES).casefold()

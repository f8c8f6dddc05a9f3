"""What stands in a long text after the tokens that a model reads: further examples for a teacher to speak of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from metakd.batching import CHUNK
from metakd.examples import Example

SHORTEST = 8  # a last window of less than max_length / SHORTEST tokens is left out


def further_windows(
    tokenizer: Any, examples: Sequence[Example], max_length: int, most: int
) -> dict[str, list[Example]]:
    """For the id of each text longer than `max_length` tokens, up to `most` windows of what follows, as examples.

    They have ids of their own, and label and domain of their text. Pairs have none.
    """
    if not most:
        return {}
    step = max_length - tokenizer.num_special_tokens_to_add()
    known = {e.id for e in examples}
    found: dict[str, list[Example]] = {}
    lone = [e for e in examples if e.text_pair is None]
    for start in range(0, len(lone), CHUNK):
        chunk = lone[start : start + CHUNK]
        texts = [e.text for e in chunk]
        encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, truncation=False)
        for example, offsets in zip(chunk, encoded["offset_mapping"], strict=True):
            if len(offsets) > step:
                pieces = _pieces(example.text, offsets, step, most)
                found[example.id] = [
                    replace(example, id=_unused(f"{example.id}#{number}", known), text=piece)
                    for number, piece in enumerate(pieces, 1)
                ]
    return found


def _pieces(text: str, offsets: Sequence[tuple[int, int]], step: int, most: int) -> Iterator[str]:
    """Of tokens from character to character (`offsets`), the stretches of `step` after the first."""
    for number in range(1, most + 1):
        part = offsets[number * step : (number + 1) * step]
        if len(part) < max(1, step // SHORTEST):
            return
        yield text[part[0][0] : part[-1][1]]


def _unused(name: str, known: Collection[str]) -> str:
    while name in known:
        name += "#"
    return name

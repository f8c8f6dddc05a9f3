"""More text for a teacher to speak of: what stands after the tokens that a model reads, and random stretches."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from metakd.data.schema import Example
from metakd.data.tokenization import CHUNK
from metakd.utils.console import notice

SHORTEST = 8  # no window or crop is shorter than a full window's tokens / SHORTEST

Offsets = Sequence[tuple[int, int]]  # for each token of a text, its first character and the one after its last


def extra_texts(
    tokenizer: Any, examples: Sequence[Example], max_length: int, *, windows: int, crops: int, seed: int
) -> dict[str, list[Example]]:
    """For each id, what a teacher is asked of besides its text: examples with ids of their own, its label and domain.

    Up to `windows` windows of what follows the first `max_length` tokens, and `crops` stretches of random length from
    anywhere in the text. Pairs have none, nor have texts that are too short; a notice says where that leaves no crops.
    """
    if not (windows or crops):
        return {}
    step = max_length - tokenizer.num_special_tokens_to_add()
    shortest = max(1, step // SHORTEST)
    known = {e.id for e in examples}
    found: dict[str, list[Example]] = {}
    lone = [e for e in examples if e.text_pair is None]
    for start in range(0, len(lone), CHUNK):
        chunk = lone[start : start + CHUNK]
        texts = [e.text for e in chunk]
        plain = {"add_special_tokens": False, "truncation": False, "return_attention_mask": False, "verbose": False}
        encoded = tokenizer(texts, return_offsets_mapping=True, **plain)
        for example, offsets in zip(chunk, encoded["offset_mapping"], strict=True):
            drawn = _crops(offsets, shortest, step, crops, random.Random(f"{seed} {example.id}"))
            pieces = [("#", _windows(offsets, shortest, step, windows)), ("%", drawn)]
            further = [
                replace(example, id=_unused(f"{example.id}{sign}{number}", known), text=text)
                for sign, parts in pieces
                for number, part in enumerate(parts, 1)
                if (text := example.text[part[0][0] : part[-1][1]]).strip()
            ]
            if further:
                found[example.id] = further
    if crops and not found:
        notice("crops come to nothing: all training texts are pairs, or too short")
    return found


def _windows(offsets: Offsets, shortest: int, step: int, most: int) -> Iterator[Offsets]:
    """The stretches of `step` tokens after the first."""
    for number in range(1, most + 1):
        part = offsets[number * step : (number + 1) * step]
        if len(part) < shortest:
            return
        yield part


def _crops(offsets: Offsets, shortest: int, longest: int, count: int, draw: random.Random) -> Iterator[Offsets]:
    """Stretches of which each length, and each place for it, is as likely as the other."""
    longest = min(longest, len(offsets) - 1)  # the whole text is there already
    for _ in range(count if shortest <= longest else 0):
        length = draw.randint(shortest, longest)
        start = draw.randint(0, len(offsets) - length)
        yield offsets[start : start + length]


def _unused(name: str, known: Collection[str]) -> str:
    while name in known:
        name += "#"
    return name

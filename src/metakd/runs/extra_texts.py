"""Extra windows and crops of long texts: what follows the tokens that a model reads, and random parts."""

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from metakd.data.schema import Example
from metakd.data.tokenization import Array
from metakd.data.windows import SHORTEST
from metakd.utils.console import notice

AT_A_TIME = 256  # texts: a token of a long one takes 100 bytes and more here
Offsets = Sequence[tuple[int, int]]  # for each token of a text, its first character and the one after its last


def extra_texts(
    tokenizer: Any,
    examples: Sequence[Example],
    lengths: Array,
    max_length: int,
    *,
    windows: int,
    crops: int,
    seed: int,
) -> dict[str, list[Example]]:
    """Extra examples by the id of a text: its windows and crops, with new ids and the text's label and domain.

    Up to `windows` windows of what follows the first `max_length` tokens, and `crops` parts of random length from
    anywhere in the text. Pairs and texts that are too short have none; a notice says if that leaves no crops at all.
    `lengths` (N,) are the tokens that are read of each text; without crops, only texts of `max_length` are cut up.
    """
    step = max_length - tokenizer.num_special_tokens_to_add()
    shortest = max(1, step // SHORTEST)
    known = {e.id for e in examples}
    extra: dict[str, list[Example]] = {}
    texts = zip(examples, lengths.tolist(), strict=True)
    single = [e for e, length in texts if e.text_pair is None and (crops or length == max_length)]
    options = {"add_special_tokens": False, "truncation": False, "return_attention_mask": False, "verbose": False}
    for start in range(0, len(single), AT_A_TIME):
        chunk = single[start : start + AT_A_TIME]
        encoded = tokenizer([e.text for e in chunk], return_offsets_mapping=True, **options)
        for example, offsets in zip(chunk, encoded["offset_mapping"], strict=True):
            drawn = _crops(offsets, shortest, step, crops, random.Random(f"{seed} {example.id}"))
            following = [offsets[i : i + step] for i in range(step, len(offsets) - shortest + 1, step)]
            pieces = [
                replace(example, id=_unused(f"{example.id}{sign}{number}", known), text=text)
                for sign, spans in (("#", following[:windows]), ("%", drawn))
                for number, span in enumerate(spans, 1)
                if (text := example.text[span[0][0] : span[-1][1]]).strip()
            ]
            if pieces:
                extra[example.id] = pieces
    if crops and not extra:
        notice("--crops has no effect: all training texts are pairs or too short")
    return extra


def _crops(offsets: Offsets, shortest: int, longest: int, count: int, draw: random.Random) -> Iterator[Offsets]:
    """Crops with a length, then a start, drawn uniformly."""
    longest = min(longest, len(offsets) - 1)  # the whole text is there already
    for _ in range(count if shortest <= longest else 0):
        length = draw.randint(shortest, longest)
        start = draw.randint(0, len(offsets) - length)
        yield offsets[start : start + length]


def _unused(name: str, known: Collection[str]) -> str:
    while name in known:
        name += "#"
    return name

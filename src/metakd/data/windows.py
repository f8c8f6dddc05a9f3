"""The windows of a long text or pair, by the tokenizer's own overflow; needs no torch."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Encoding, Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

CHARACTERS = 6  # of a long text for each token that is needed; if they make too few tokens, all of it is tokenised
SHORTEST = 8  # no further window (or crop) has fewer new tokens than a full window's / SHORTEST

Text = str | tuple[str, str]


class Reading(BaseModel):
    """How much of a text a model reads.

    Attributes:
        max_length: Tokens of a window, special ones included.
        most_windows: The most windows of a text; with 1, a longer text is truncated.
        stride: Tokens that a window repeats of the one before, at most half of those that it has of the text.
        enough: The probability of the likeliest class, as if windows were independent, from which no further one is
            read; None reads all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_length: int = Field(ge=1)
    most_windows: int = Field(default=1, ge=1)
    stride: int = Field(default=0, ge=0)
    enough: float | None = Field(default=None, ge=0, le=1)

    def __str__(self) -> str:
        return f"{f'up to {self.most_windows} windows of ' * (self.most_windows > 1)}{self.max_length} tokens"


def following_windows(tokenizer: Tokenizer, texts: Sequence[Text], reading: Reading) -> list[list[Encoding]]:
    """The windows after the first of each text, with special tokens, and one more than `reading` allows, if any.

    Of a pair, the longer text is cut into windows, each beside the beginning of the other, which fills at most half of
    them. `tokenizer` must neither truncate nor pad.
    """
    needed = reading.max_length * (reading.most_windows + 1)
    options = {"add_special_tokens": False}
    firsts = first_tokens(tokenizer, [text if isinstance(text, str) else text[0] for text in texts], needed, **options)
    pairs = [text for text in texts if not isinstance(text, str)]
    seconds = iter(first_tokens(tokenizer, [second for _, second in pairs], needed, **options))
    return [
        _windows(tokenizer, first, None if isinstance(text, str) else next(seconds), reading)
        for text, first in zip(texts, firsts, strict=True)
    ]


def _windows(tokenizer: Tokenizer, first: Encoding, second: Encoding | None, reading: Reading) -> list[Encoding]:
    room = reading.max_length - tokenizer.num_special_tokens_to_add(second is not None)
    if second is None:
        return [tokenizer.post_process(piece) for piece in _overflow(first, room, reading)]
    swapped = len(second) >= len(first)
    longer, shorter = (second, first) if swapped else (first, second)
    shorter.truncate(min(len(shorter), room // 2))
    shorter = Encoding.merge([shorter])  # without its overflow, which `post_process` would combine with each window
    pieces = _overflow(longer, room - len(shorter), reading)
    return [tokenizer.post_process(*((shorter, piece) if swapped else (piece, shorter))) for piece in pieces]


def _overflow(tokens: Encoding, room: int, reading: Reading) -> list[Encoding]:
    stride = min(reading.stride, room // 2)
    tokens.truncate(room, stride=stride)
    pieces = tokens.overflowing[: reading.most_windows]
    if pieces and len(pieces[-1]) < stride + max(1, room // SHORTEST):
        pieces.pop()
    return pieces


def first_tokens(
    tokenizer: Tokenizer, texts: Sequence[Text], most: int, *, add_special_tokens: bool = True
) -> list[Encoding]:
    """The tokens of texts, of which `most` are needed; of a long text only the beginning is tokenised."""
    if not _splits_at_spaces(tokenizer):
        return tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
    beginnings = [_beginning(text, CHARACTERS * most) if isinstance(text, str) else text for text in texts]
    encoded = tokenizer.encode_batch_fast(beginnings, add_special_tokens=add_special_tokens)
    short = [i for i, e in enumerate(encoded) if beginnings[i] is not texts[i] and len(e) < most]
    whole = tokenizer.encode_batch_fast([texts[i] for i in short], add_special_tokens=add_special_tokens)
    for i, tokens in zip(short, whole, strict=True):
        encoded[i] = tokens
    return encoded


def _splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether tokens before a space are known not to depend on what follows it, as in BERT's tokenizers."""
    return (
        isinstance(tokenizer.normalizer, BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and not any(" " in token.content for token in tokenizer.get_added_tokens_decoder().values())
    )


def _beginning(text: str, least: int) -> str:
    """At least `least` characters, up to the next space; the text itself (the same object) if there is none."""
    end = text.find(" ", least)
    return text if end < 0 else text[:end]

"""Domains whose texts a tokenizer does not know, as of another script or language."""

import json
import random
import re
from collections.abc import Iterable, Mapping

from tokenizers import Tokenizer

from metakd.data.schema import Example
from metakd.data.splits import by_domain, sample_by_domain

MANY = 0.2  # share of unknown tokens from which a domain is named
MANY_PIECES = (
    1.6  # tokens a word from which it is: all-MiniLM has 1.0 to 1.1 in English, 1.7 and more in other languages
)
WORDS = 5_000  # most words of a domain
SAMPLE = 300  # most texts of a domain
BEGINNING = 500  # characters read of each


def unknown_shares(tokenizer: Tokenizer, examples: Iterable[Example]) -> dict[str, float]:
    """The share of a domain's tokens that are unknown, from 0 to 1; a text without any token counts as one of them."""
    shares, unknown = {}, _unknown_id(tokenizer)
    for domain, rows in sorted(by_domain(examples).items()):
        sample = sample_by_domain(rows, SAMPLE, seed=0)
        parts = [[part[:BEGINNING] for part in (e.text, e.text_pair) if part is not None] for e in sample]
        inputs = [tuple(part) if len(part) > 1 else part[0] for part in parts]
        tokens = [encoding.ids for encoding in tokenizer.encode_batch_fast(inputs, add_special_tokens=False)]
        empty = sum(not ids for ids in tokens)
        missed = empty + sum(ids.count(unknown) for ids in tokens)
        shares[domain] = round(missed / (empty + sum(map(len, tokens))), 4)
    return shares


def _unknown_id(tokenizer: Tokenizer) -> int:
    """The id of the unknown token; -1 without one, as in tokenizers of bytes."""
    model = tokenizer.model
    if hasattr(model, "unk_token"):
        unknown = tokenizer.token_to_id(model.unk_token) if model.unk_token else None
    else:  # Unigram
        unknown = json.loads(tokenizer.to_str())["model"].get("unk_id")
    return -1 if unknown is None else unknown


def pieces_per_word(tokenizer: Tokenizer, examples: Iterable[Example]) -> dict[str, float]:
    """Tokens a word by domain, of words in scripts that have capitals: in others, blanks may not part words."""
    pieces = {}
    for domain, rows in sorted(by_domain(examples).items()):
        texts = [e.text[:BEGINNING] for e in sample_by_domain(rows, SAMPLE, seed=0)]
        words = [w for text in texts for w in re.findall(r"[^\W\d_]+", text) if w.lower() != w.upper()]
        drawn = words if len(words) <= WORDS else random.Random(0).sample(words, WORDS)
        if drawn:
            encoded = tokenizer.encode_batch_fast([f" {word}" for word in drawn], add_special_tokens=False)
            pieces[domain] = round(sum(len(e.ids) for e in encoded) / len(drawn), 2)
    return pieces


def foreign_domains(
    shares: Mapping[str, float], pieces: Mapping[str, float] | None = None, flag: str = "--base"
) -> list[str]:
    """A message for each domain of which MANY tokens or more are unknown to the model that `flag` names, or whose words
    it has in MANY_PIECES or more."""
    return [
        f"{domain} has {count:.1f} tokens a word: the encoder does not know its language, or splits its terms; if it "
        f"is another language, choose an encoder of it with {flag}"
        for domain, count in (pieces or {}).items()
        if count >= MANY_PIECES and shares.get(domain, 0) < MANY
    ] + [
        f"{100 * share:.0f} % of the tokens of {domain} are unknown to the encoder, which cannot tell such texts "
        f"apart; choose one of its language and script with {flag}"
        for domain, share in shares.items()
        if share >= MANY
    ]

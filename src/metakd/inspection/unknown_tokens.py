"""Domains whose texts a tokenizer does not know, as of another script: a model cannot tell such texts apart."""

import json
from collections.abc import Iterable, Mapping

from tokenizers import Tokenizer

from metakd.data.schema import Example
from metakd.data.splits import by_domain, sample_by_domain

MANY = 0.2  # share of unknown tokens from which a domain is named
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


def foreign_domains(shares: Mapping[str, float], flag: str = "--base") -> list[str]:
    """A message for each domain of which MANY tokens or more are unknown to the model that `flag` names."""
    return [
        f"{100 * share:.0f} % of the tokens of {domain} are unknown to the encoder, which cannot tell such texts "
        f"apart; choose one of its language and script with {flag}"
        for domain, share in shares.items()
        if share >= MANY
    ]

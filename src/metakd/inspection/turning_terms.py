"""Words that turn: they speak for a label in one domain and against it in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer

from metakd.data.schema import Example

FALSE_TURNS = 0.05  # share of the words that are said to turn which may do so by chance


def turning_terms(examples: Sequence[Example], count: int) -> list[dict[str, Any]]:
    """Words that speak for a label in one domain and against it in another, the surest first.

    Of the n texts of a domain that have the word, x have the label, which a share p of the domain's texts has: the
    binomial distribution gives the chance of so many, and of so few, were the word to say nothing. A word is as sure as
    the less sure of its two sides, of chance c: among K domains K (K − 1) c² is that of any two such. Of the words that
    are told, FALSE_TURNS may be there by chance (Benjamini and Hochberg, 1995).
    """
    domains, labels = (sorted({getattr(e, name) for e in examples}) for name in ("domain", "label"))
    vectorizer = CountVectorizer(binary=True, min_df=min(5, len(examples)), max_features=50_000)
    try:
        present = vectorizer.fit_transform([f"{e.text} {e.text_pair or ''}" for e in examples])
    except ValueError:  # no word of two letters in five texts
        return []
    words, found, chances = vectorizer.get_feature_names_out(), [], list[float]()
    for label in labels[1:] if len(labels) == 2 else labels:  # of two labels, one tells all
        leans = [_leaning(present, examples, domain, label) for domain in domains]
        many, few, texts, labelled = (np.stack(part) for part in zip(*leans, strict=True))  # (K, words)
        chance = len(domains) * (len(domains) - 1) * np.maximum(many.min(0), few.min(0)) ** 2
        chances += chance.tolist()
        for word in np.flatnonzero(chance < FALSE_TURNS):
            sides = {
                side: {
                    "domain": domains[place],
                    "texts": int(texts[place, word]),
                    "labelled": int(labelled[place, word]),
                }
                for side, place in (("for", many[:, word].argmin()), ("against", few[:, word].argmin()))
            }
            found.append({"term": str(words[word]), "label": label, **sides, "chance": float(chance[word])})
    bound = _bound(chances)
    return sorted((turn for turn in found if turn["chance"] <= bound), key=lambda turn: turn["chance"])[:count]


def _leaning(present: Any, examples: Sequence[Example], domain: str, label: str) -> tuple[NDArray[Any], ...]:
    """How likely each word is with so many texts of the label or more, with so few or fewer; n; x: each (words,)."""
    inside = np.array([e.domain == domain for e in examples])
    chosen = np.array([e.label == label for e in examples])[inside]
    own, share = present[inside], chosen.mean()
    n, x = (np.asarray(part.sum(0)).ravel() for part in (own, own[chosen]))
    return stats.binom.sf(x - 1, n, share), stats.binom.cdf(x, n, share), n, x


def _bound(chances: Sequence[float]) -> float:
    """The largest of N chances that is at most FALSE_TURNS · its rank / N; 0 where none is."""
    ordered = np.sort(chances)
    kept = ordered[ordered <= FALSE_TURNS * np.arange(1, len(ordered) + 1) / len(ordered)]
    return float(kept.max(initial=0.0))

"""Terms that are characteristic of a domain: the words whose TF-IDF is highest there against the other domains."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from metakd.data.schema import Example
from metakd.utils.errors import require

TERMS = 10  # of each domain


def characteristic_terms(sample: Sequence[Example]) -> dict[str, list[str]]:
    """For each domain the words whose mean TF-IDF is furthest above that of the other domains."""
    return {domain: [word for word, _ in terms] for domain, terms in strongest_terms(sample, TERMS).items()}


def strongest_terms(sample: Sequence[Example], count: int) -> dict[str, list[tuple[str, float]]]:
    """For each domain `count` words, with how far their mean TF-IDF is above that of the other domains.

    A word that stands in more texts than the largest domain has belongs to none.
    """
    text = require("sklearn.feature_extraction.text", "train")
    sizes = Counter(example.domain for example in sample)
    if len(sizes) < 2:
        return {}
    most = max(2, *sizes.values())
    vectorizer = text.TfidfVectorizer(sublinear_tf=True, max_features=50_000, min_df=min(2, len(sample)), max_df=most)
    try:
        vectors = vectorizer.fit_transform([f"{e.text} {e.text_pair or ''}" for e in sample])
    except ValueError:  # no word of two letters stands twice
        return {}
    words = vectorizer.get_feature_names_out()
    domains = np.array([example.domain for example in sample])
    terms = {}
    for domain in sorted(sizes):
        home = domains == domain
        inside, outside = (np.asarray(vectors[mask].mean(axis=0)).ravel() for mask in (home, ~home))
        best = np.argsort(outside - inside, kind="stable")[:count]
        terms[domain] = [(str(words[i]), float(inside[i] - outside[i])) for i in best if inside[i] > outside[i]]
    return terms

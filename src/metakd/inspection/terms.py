"""Terms that are characteristic of a domain: the words whose TF-IDF is highest compared with the other domains; and
words that turn: evidence for a label in one domain and against it in another.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metakd.data.schema import Example, several_labels
from metakd.utils.errors import require

CONTRACTED = "ain aren couldn didn doesn don hadn hasn haven isn ll mustn needn shouldn ve wasn weren wouldn"
FALSE_TURNS = 0.05  # false discovery rate: the share of the listed words that may turn by chance


def strongest_terms(sample: Sequence[Example], count: int) -> dict[str, list[tuple[str, float]]]:
    """For each domain `count` words, each with its mean TF-IDF minus that of the other domains.

    A word that is in more texts than the largest domain has belongs to none, nor does a stop word of English or what
    is left of one at an apostrophe.
    """
    text = require("sklearn.feature_extraction.text", "train")
    sizes = Counter(example.domain for example in sample)
    if len(sizes) < 2:
        return {}
    most = max(2, *sizes.values())
    vectorizer = text.TfidfVectorizer(sublinear_tf=True, max_features=50_000, min_df=min(2, len(sample)), max_df=most)
    try:
        vectors = vectorizer.fit_transform([f"{e.text} {e.text_pair or ''}" for e in sample])
    except ValueError:  # no word of two letters occurs twice
        return {}
    words = vectorizer.get_feature_names_out()
    stop_words = {*text.ENGLISH_STOP_WORDS, *CONTRACTED.split()}
    content = np.array([word not in stop_words for word in words])
    domains = np.array([example.domain for example in sample])
    terms = {}
    for domain in sorted(sizes):
        home = domains == domain
        inside, outside = (np.asarray(vectors[mask].mean(axis=0)).ravel() for mask in (home, ~home))
        above = np.where(content, inside - outside, 0)
        best = np.argsort(-above, kind="stable")[:count]
        terms[domain] = [(str(words[i]), float(above[i])) for i in best if above[i] > 0]
    return terms


def turning_terms(examples: Sequence[Example], count: int) -> list[dict[str, Any]]:
    """Words that are evidence for a label in one domain and against it in another, the most certain first.

    In each domain, x of the n texts with the word have the label, and so does a share p of all its texts. The binomial
    distribution gives the probability of at least x, and of at most x, for a word that says nothing about the label.
    With c the larger probability of a word's two sides, K (K − 1) c² bounds the probability of any such pair among K
    domains. Words and labels with a false discovery rate of at most FALSE_TURNS are kept (Benjamini and Hochberg,
    1995); equal probabilities are kept or dropped together.
    """
    text, stats = (require(module, "train") for module in ("sklearn.feature_extraction.text", "scipy.stats"))
    rows_of, labelled_in = _places(examples)
    domains, labels = sorted(rows_of), sorted(labelled_in)
    if len(domains) < 2:
        return []
    vectorizer = text.CountVectorizer(binary=True, min_df=min(5, len(examples)), max_features=50_000)
    try:
        present = vectorizer.fit_transform([f"{e.text} {e.text_pair or ''}" for e in examples])
    except ValueError:  # no word of two letters in five texts
        return []
    words, turns, chances = vectorizer.get_feature_names_out(), [], []
    either, tables = len(labels) == 2 and not several_labels(examples), {d: present[rows_of[d]] for d in domains}
    for label in labels[1:] if either else labels:  # of two labels, one is enough
        if len(labelled_in[label]) < 2:  # where no text has it, no word is evidence
            continue
        sides = [_binomial_tails(tables[domain], labelled_in[label].get(domain, [])) for domain in domains]
        many, few, texts, labelled = (np.stack(part) for part in zip(*sides, strict=True))  # (K, words)
        chance = len(domains) * (len(domains) - 1) * np.maximum(many.min(0), few.min(0)) ** 2
        chances.append(chance)
        for word in np.flatnonzero(chance < FALSE_TURNS):
            turn: dict[str, Any] = {"term": str(words[word]), "label": label}
            for side, k in (("for", many[:, word].argmin()), ("against", few[:, word].argmin())):
                counts = {"texts": int(texts[k, word]), "labelled": int(labelled[k, word])}
                turn[side] = {"domain": domains[k], **counts}
            turns.append(turn | {"chance": float(chance[word])})
    tested = np.concatenate([np.empty(0), *chances])
    rates = stats.false_discovery_control(tested.clip(max=1))[tested < FALSE_TURNS]
    kept = [turn for turn, rate in zip(turns, rates, strict=True) if rate <= FALSE_TURNS]
    return sorted(kept, key=lambda turn: turn["chance"])[:count]


def _places(examples: Sequence[Example]) -> tuple[Mapping[str, list[int]], Mapping[str, Mapping[str, list[int]]]]:
    """The rows of each domain; and for each label, by domain, which of its texts have it."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    labelled_in: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, e in enumerate(examples):
        for label in e.classes:
            labelled_in[label][e.domain].append(len(rows_of[e.domain]))
        rows_of[e.domain].append(row)
    return rows_of, labelled_in


def _binomial_tails(present: Any, labelled: Sequence[int]) -> tuple[NDArray[Any], ...]:
    """For each word P(X ≥ x), P(X ≤ x), n and x, all (words,): of a domain's texts, (N, words), some are `labelled`."""
    n, x = (np.asarray(part.sum(0)).ravel() for part in (present, present[labelled]))
    binomial, share = require("scipy.stats", "train").binom, len(labelled) / present.shape[0]
    return binomial.sf(x - 1, n, share), binomial.cdf(x, n, share), n, x

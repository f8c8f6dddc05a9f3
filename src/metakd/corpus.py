"""What a run's data is about, and how its models see it: terms, terms that turn, domains that are alike, maps."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer

from metakd.artifacts import is_done
from metakd.batching import encode
from metakd.domains import by_domain
from metakd.examples import Example
from metakd.inspection import inspect_dataset, strongest_terms
from metakd.meta_teacher import TransferableRepresentation
from metakd.overview import findings
from metakd.passes import embed
from metakd.prototypes import Prototypes, domain_similarity
from metakd.runs import EXTRAS_FILE, Run
from metakd.teachers import load_teacher
from metakd.torch_model import TorchModel

SAMPLE = 20_000  # training texts that terms are taken from, where there are more
TERMS = 20
FALSE_TURNS = 0.05  # share of the words that are said to turn which may do so by chance
MAPPED = 1_000  # scored examples in a map, where there are more


def describe(run: Run, scored: Sequence[Example], students: Mapping[str, Path]) -> dict[str, Any]:
    """All of it, for JSON; `students` are their folders by domain."""
    draw = random.Random(run.settings.seed)
    train = run.data.train if len(run.data.train) <= SAMPLE else draw.sample(run.data.train, SAMPLE)
    shown = scored if len(scored) <= MAPPED else draw.sample(list(scored), MAPPED)
    report = inspect_dataset(run.data)
    return {
        "rows": report["counts"],
        "findings": findings(report),
        "terms": strongest_terms(train, TERMS),
        "turning": turning_terms(train, TERMS),
        "similarity": _similarity(run),
        "maps": _maps(run, shown, students),
    }


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


def _similarity(run: Run) -> list[list[float]]:
    """How alike domains are by their prototypes (K, K); empty where nothing was weighed."""
    if run.settings.weights == "none" or not is_done(run.weights_folder, run.weigh_fingerprint):
        return []
    known = load_file(run.weights_folder / "prototypes.safetensors")
    found = domain_similarity(Prototypes(known["vectors"], known["counts"]))
    return [[round(value, 4) for value in row] for row in found.tolist()]


def _maps(run: Run, examples: Sequence[Example], students: Mapping[str, Path]) -> dict[str, Any]:
    """The examples' h by the teacher, and by the students of their domains, each in its two main directions.

    A student whose h is not there, since none was learnt or it was not kept, is drawn by its E(x) (see `by_h`).
    """
    drawn = by_domain(examples)
    ordered = [e for domain in students for e in drawn.get(domain, [])]
    domains = torch.tensor([run.data.domains.index(e.domain) for e in ordered])
    teacher = load_teacher(run).transferable.cpu()
    embedded = {
        "meta_teacher": _embeddings(run, run.teacher_folder, ordered),
        "student": torch.cat([_embeddings(run, students[d], drawn[d]) for d in students if d in drawn]),
    }
    readers = {"meta_teacher": teacher, "student": _kept_representation(run, len(embedded["student"][0]), teacher)}
    with torch.no_grad():
        seen = {name: reader(embedded[name], domains) for name, reader in readers.items() if reader is not None}
    by_h = [*seen]
    return {"ids": [e.id for e in ordered], "by_h": by_h} | {
        name: _main_directions(vectors) for name, vectors in (embedded | seen).items()
    }


def _kept_representation(
    run: Run, width: int, teacher: TransferableRepresentation
) -> TransferableRepresentation | None:
    """What makes h of a student's E(x): kept of the shared start, unless the stages after it have moved it on."""
    place = run.shared_folder(run.settings.method) / EXTRAS_FILE
    moved = any("feature" in stage.terms and not stage.shared for stage in run.stages[run.settings.method])
    kept = load_file(place) if place.is_file() and not moved else {}
    own = {name.removeprefix("transferable."): value for name, value in kept.items() if "transferable." in name}
    if not own:
        return None
    found = TransferableRepresentation(width, len(run.data.domains), teacher.use_embedding)
    found.load_state_dict(own)
    return found


def _embeddings(run: Run, folder: Path, examples: Sequence[Example]) -> torch.Tensor:
    model = TorchModel.load(folder)
    features = encode(model.tokenizer, examples, run.settings.max_length)
    found = torch.zeros(len(examples), model.network.config.hidden_size)
    return embed(model.network, features, model.collator, f"look at examples by {folder.name}", "float32", found)


def _main_directions(vectors: torch.Tensor) -> list[list[float]]:
    """(N, H) -> (N, 2)."""
    found = PCA(min(2, *vectors.shape), random_state=0).fit_transform(vectors.numpy())
    return [[round(float(value), 3) for value in row] for row in np.pad(found, ((0, 0), (0, 2 - found.shape[1])))]

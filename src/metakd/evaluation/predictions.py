"""Predictions of models and of the TF-IDF baseline, with confidences and costs."""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from metakd.data.labels import answer_in_words, several_columns
from metakd.data.schema import Example, several_labels
from metakd.data.splits import by_domain
from metakd.data.tokenization import TOKENIZER_FILES, TokenStore
from metakd.evaluation.costs import Predict, costs_of, measure_latencies, timed_texts, windows_filled
from metakd.evaluation.linear_models import MOST_ROWS, ONE_DOMAIN, TfidfBaseline, choose_tfidf, draw_evenly
from metakd.evaluation.metrics import Floats, Ints, Predictions
from metakd.evaluation.tables import OVER_ALL
from metakd.evaluation.thresholds import Thresholds, ThresholdsByFleet, choose_thresholds
from metakd.inference.classifier import Classifier
from metakd.inference.long_texts import LEAST, Model
from metakd.inference.thresholds import HALF
from metakd.inference.torch_backend import TorchModel
from metakd.models.class_head import all_right
from metakd.models.meta_teacher import UNKNOWN_DOMAIN, class_names, of_classes, select_head
from metakd.utils.artifacts import digest_files, write_text
from metakd.utils.console import progress_bar
from metakd.utils.errors import InputError

# TF-IDF on one domain's text is also scored on examples of the other domains: limits for each domain, and for all pairs
LARGEST_TRANSFER_SAMPLE, SMALLEST_TRANSFER_SAMPLE, MOST_TRANSFER_PREDICTIONS = 200, 30, 10_000
LONGEST_TEXT = 500  # characters of a text that are kept beside its predictions

ByDomain = dict[str, Predictions]
Classes = Mapping[str, Sequence[str]]  # of each domain
Stores = dict[tuple[Any, ...], TokenStore]


def write_predictions(
    path: Path, all_predictions: Mapping[str, ByDomain], examples: Sequence[Example], labels: Sequence[str]
) -> None:
    """Write a line per example: the beginning of its text, its label, and each model's label and confidence."""
    rows = []
    for domain, domain_examples in sorted(by_domain(examples).items()):
        models = {name: of[domain] for name, of in all_predictions.items() if domain in of}
        for i, e in enumerate(domain_examples):
            texts = [text[:LONGEST_TEXT] for text in (e.text, e.text_pair) if text is not None]
            answers = {name: answer_in_words(p.predicted[i].tolist(), labels) for name, p in models.items()}
            predicted = {name: [answers[name], round(float(p.confidence[i]), 4)] for name, p in models.items()}
            rows.append({"id": e.id, "domain": domain, "label": e.label, "texts": texts, "models": predicted})
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def loader(stores: Stores, *, calibrated: bool = True) -> Callable[[Path], TorchModel]:
    """A function that loads models. Those whose tokenizers have the same files share the tokens in `stores`."""

    def load(folder: Path) -> TorchModel:
        model, files = TorchModel.load(folder, calibrated=calibrated), digest_files(folder, TOKENIZER_FILES)
        length = model.reading.max_length
        key = type(model.tokenizer), length, *files.values()
        model.store = stores.setdefault(key, TokenStore(model.tokenizer, length))
        return model

    return lru_cache(maxsize=1)(load)  # one model may serve several domains in turn


def predict_by_models(
    fleets: Mapping[str, Mapping[str, Path]],
    labels: list[str],
    examples: Sequence[Example],
    stores: Stores | None = None,
    classes: Classes | None = None,
    thresholds: ThresholdsByFleet | None = None,
) -> dict[str, ByDomain]:
    """Predictions by fleet: each model of a fleet (domain -> folder) classifies its domain's examples.

    Texts are tokenised once for all models [loader].

    Args:
        fleets: The folders.
        labels: All classes.
        examples: Texts of any domain.
        stores: Tokens of earlier calls.
        classes: Those that a domain's text may have, if not all: no model chooses any other.
        thresholds: Of the models' labels, if a text may have several; by default those in their folders.
    """
    all_predictions, rows = {name: ByDomain() for name in fleets}, by_domain(examples)
    load = loader({} if stores is None else stores)
    with progress_bar("evaluate", sum(len(fleet) for fleet in fleets.values())) as progress:
        for name, fleet in fleets.items():
            for domain, path in fleet.items():
                model = load(path)
                among = None if classes is None else classes.get(domain, labels)
                least = (thresholds or {}).get(name, {}).get(domain)
                predictions = predictions_of(rows.get(domain, []), labels, model, among, least)
                all_predictions[name][domain] = replace(predictions, costs=predictions.costs | costs_of(path, model))
                progress(advance=1)
    return all_predictions


class Tfidf(NamedTuple):
    """What TF-IDF with logistic regression makes of the scored examples."""

    predictions: ByDomain
    transfer: dict[str, dict[str, float]]  # accuracy of TF-IDF on the text of one domain (outer key), on another
    timed: dict[str, Predict]  # one of each architecture
    thresholds: dict[str, Thresholds]  # of each domain, if a text may have several labels


def predict_by_tfidf(
    train: Sequence[Example],
    labels: list[str],
    examples: Sequence[Example],
    seed: int,
    classes: Classes | None = None,
    dev: Sequence[Example] = (),
) -> Tfidf:
    """Predictions for each domain by TF-IDF on its training text or on all domains', as cross-validation prefers.

    If domains have `classes` of their own, it chooses among those, and transfer is not measured. If a text may have
    several labels, their thresholds are chosen on `dev`.

    Transfer is the accuracy on up to `transfer_sample_size` examples of each domain, drawn by `seed`.
    """
    results, scored, decisive = Tfidf({}, {}, {}, {}), dict(sorted(by_domain(examples).items())), by_domain(dev)
    size, draw = 0 if classes else transfer_sample_size(len(scored)), random.Random(seed)
    samples = {d: rows if len(rows) <= size else draw.sample(rows, size) for d, rows in scored.items() if size}
    choices, training = choose_tfidf(train, seed), by_domain(train)
    fit_pooled = cache(partial(TfidfBaseline, draw_evenly(train, MOST_ROWS, seed)))
    for domain, rows in scored.items():
        choice = choices[domain]
        alone = TfidfBaseline(draw_evenly(training[domain], MOST_ROWS, seed), choice.domain_c)
        baseline = alone if choice.trained_on == ONE_DOMAIN else fit_pooled(choice.pooled_c)
        architecture = f"TF-IDF, trained on {choice.trained_on}"
        costs = baseline.size | {"architecture": architecture, "trained_on": choice.trained_on, "C": choice.c}
        among = (classes or {}).get(domain)
        if several_labels(train):
            names, p = baseline.answers(on := decisive.get(domain, []), among)
            results.thresholds[domain] = choose_thresholds(on, [*map(str, names)], p, seed)
        least = results.thresholds.get(domain)
        results.predictions[domain] = _of_tfidf(baseline, rows, labels, among, costs, least)
        results.timed.setdefault(architecture, baseline.predict)
        if samples:
            results.transfer[domain] = {
                other: round(float(_of_tfidf(alone, sample, labels).right.mean()), 4)
                for other, sample in samples.items()
            }
    return results


def _of_tfidf(
    baseline: TfidfBaseline,
    examples: Sequence[Example],
    labels: list[str],
    classes: Sequence[str] | None = None,
    costs: dict[str, Any] | None = None,
    thresholds: Thresholds | None = None,
) -> Predictions:
    names, p = baseline.answers(examples, classes)
    logits = _logits(torch.from_numpy(p), several_labels(examples))
    least = thresholds.of(examples) if thresholds else HALF
    return _chosen(logits, [*map(str, names)], examples, labels, costs, least)


def _logits(p: torch.Tensor, several: bool) -> torch.Tensor:
    """Of probabilities, up to a constant: (N, M) -> (N, M)."""
    return p.logit(LEAST) if several else p.clamp(min=LEAST).log()


def with_latencies(
    all_predictions: Mapping[str, ByDomain],
    fleets: Mapping[str, Mapping[str, Path]],
    examples: Sequence[Example],
    seed: int,
    others: Mapping[str, Predict] | None = None,
) -> dict[str, ByDomain]:
    """The predictions, with the latency of one model of each architecture among their costs.

    These models and the `others` (by architecture) are timed alternately, on the CPU. A model that reads long texts
    until it is sure stands for those of other domains, which may read on more or less often.
    """
    folders = dict[str, Path]()
    for name, fleet in fleets.items():
        for domain, folder in fleet.items():
            folders.setdefault(_computation(all_predictions[name][domain].costs), folder)
    models = {key: TorchModel.load(folder, "cpu") for key, folder in folders.items()}
    timed = {key: Classifier(model).predict_examples for key, model in models.items()}
    latencies = measure_latencies({**timed, **(others or {})}, examples, seed)
    windows = windows_filled(next(iter(models.values())), timed_texts(examples, seed))
    return {
        name: {
            domain: replace(p, costs=p.costs | {"latency_ms": latencies[_computation(p.costs)].summary(windows)})
            for domain, p in predictions.items()
        }
        for name, predictions in all_predictions.items()
    }


def _computation(costs: Mapping[str, Any]) -> str:
    """What sets a model's latency: its architecture, and how it reads long texts."""
    reading = f", {costs['reading']}" if "reading" in costs else ""
    return f"{costs['architecture']}{reading}"


def transfer_sample_size(domains: int) -> int:
    """How many examples of a domain the other domains' TF-IDF is scored on, to limit the time; 0 for none."""
    pairs = domains * (domains - 1)
    each = min(LARGEST_TRANSFER_SAMPLE, MOST_TRANSFER_PREDICTIONS // max(pairs, 1))
    return each if pairs and each >= SMALLEST_TRANSFER_SAMPLE else 0


def predictions_of(
    examples: Sequence[Example],
    labels: list[str],
    model: Model,
    classes: Sequence[str] | None = None,
    thresholds: Thresholds | None = None,
) -> Predictions:
    """The predictions for examples whose classes are `labels`, each by its domain's head if there is one.

    A model may have some of the labels alone. Of those that it has, it chooses among `classes`, by default all. Of
    several labels, by `thresholds`, or by its own.
    """
    answers = model.answers(examples)
    # The logits up to a constant, so that the mean of several heads is the one that students were distilled from.
    logits, names = _logits(torch.from_numpy(answers.probabilities), model.several_labels), model.labels
    if not {*names} <= {*labels}:
        heads = {domain: number for number, domain in enumerate(_heads(names, labels))}
        domains = torch.tensor([heads.get(e.domain, UNKNOWN_DOMAIN) for e in examples])
        logits, names = select_head(logits, domains, len(heads)), labels
    places = [i for i, name in enumerate(names) if classes is None or name in classes]
    reads_windows = len(examples) and model.reading.most_windows > 1
    costs = {"windows": round(float(answers.windows_read.mean()), 3)} if reads_windows else {}
    usual = np.broadcast_to(model.thresholds, (len(examples), len(model.labels)))
    least = thresholds.of(examples) if thresholds else usual
    if classes is not None and len(names) == len(labels) and len(examples):
        costs[OVER_ALL] = float(_chosen(logits, names, examples, labels, least=least).right.mean())
    names = [names[place] for place in places]
    return _chosen(of_classes(logits, places), names, examples, labels, costs, least[:, places])


def _chosen(
    logits: torch.Tensor,
    names: Sequence[str],
    examples: Sequence[Example],
    labels: list[str],
    costs: dict[str, Any] | None = None,
    least: Floats | float = HALF,
) -> Predictions:
    """What logits of classes with these names, (N, M_k), choose for the examples.

    One class, or if a text may have several, each with a probability above `least`, (N, M_k).
    """
    ids = _ids(names, labels)
    if several_labels(examples):
        right = several_columns(examples, {label: i for i, label in enumerate(labels)}) > 0
        predicted, above = np.zeros_like(right), logits > torch.tensor(least).logit()
        predicted[:, ids] = above.numpy()
        return Predictions(right, predicted, all_right(logits, above).double().numpy(), costs or {})
    confidence, chosen = logits.softmax(-1).max(-1)
    truth = _ids([e.label for e in examples], labels)
    return Predictions(truth, ids[chosen.numpy()], confidence.double().numpy(), costs or {})


def _heads(classes: Sequence[str], labels: list[str]) -> list[str]:
    """The domains of the classification heads of a model with these classes."""
    domains = [name.removesuffix(f": {labels[0]}") for name in classes[:: len(labels)]]
    if classes != class_names(labels, domains):
        raise InputError(f"the model was trained on the classes {classes}, but the data has {labels}")
    return domains


def _ids(names: Iterable[str], labels: list[str]) -> Ints:
    numbers = {label: number for number, label in enumerate(labels)}
    return np.array([numbers[name] for name in names], np.int64)

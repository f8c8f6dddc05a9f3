"""What models predict for examples, and how sure they are of it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metakd.data.schema import Example
from metakd.data.splits import by_domain
from metakd.evaluation.baselines import TfidfBaseline
from metakd.evaluation.costs import _costs
from metakd.evaluation.latency import latency
from metakd.evaluation.metrics import Ints, Predictions
from metakd.inference.classifier import Model
from metakd.inference.torch_backend import TorchModel
from metakd.models.meta_teacher import UNKNOWN_DOMAIN, class_names, select_head
from metakd.utils.artifacts import write_text
from metakd.utils.console import Progress
from metakd.utils.errors import InputError

LARGEST_TRANSFER_SAMPLE, SMALLEST_TRANSFER_SAMPLE, MOST_TRANSFER_PREDICTIONS = (
    200,
    30,
    10_000,
)  # examples of a domain that another's model is asked; of all
LONGEST_TEXT = 500  # characters of a text that are kept beside what was said of it

PredictionsAndCosts = tuple[Predictions, dict[str, Any]]  # with what it cost


@dataclass(frozen=True)
class AllPredictions:
    """For each kind of model, by domain: what it said, and what it costs (parameters, bytes, latency)."""

    predictions: dict[str, dict[str, Predictions]] = field(default_factory=dict)
    costs: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def add(self, name: str, found: Mapping[str, PredictionsAndCosts]) -> None:
        self.predictions[name] = {domain: said for domain, (said, _) in found.items()}
        self.costs[name] = {domain: cost for domain, (_, cost) in found.items()}

    def write(self, path: Path, examples: Sequence[Example], labels: Sequence[str]) -> None:
        """A line for each example: the beginning of its text, its label, and each model's label and confidence."""
        lines = []
        for domain, own_rows in sorted(by_domain(examples).items()):
            asked = {name: found[domain] for name, found in self.predictions.items() if domain in found}
            for place, e in enumerate(own_rows):
                said = {
                    name: [labels[own.predicted[place]], round(float(own.confidence[place]), 4)]
                    for name, own in asked.items()
                }
                texts = [text[:LONGEST_TEXT] for text in (e.text, e.text_pair) if text is not None]
                row = {"id": e.id, "domain": domain, "label": e.label, "texts": texts, "models": said}
                lines.append(json.dumps(row, ensure_ascii=False))
        write_text(path, "".join(f"{line}\n" for line in lines))


def predict_with_models(
    fleets: Mapping[str, Mapping[str, Path]], labels: list[str], examples: Sequence[Example]
) -> AllPredictions:
    """Let each model of each fleet (domain -> folder) classify its domain's examples."""
    all_predictions, rows = AllPredictions(), by_domain(examples)
    with Progress("evaluate", sum(len(fleet) for fleet in fleets.values())) as progress:
        for name, fleet in fleets.items():
            found, loaded = dict[str, PredictionsAndCosts](), dict[Path, TorchModel]()
            for domain, path in fleet.items():
                loaded = loaded if path in loaded else {path: TorchModel.load(path)}
                own = rows.get(domain, [])
                found[domain] = predictions_of(own, labels, loaded[path]), _costs(path, loaded[path], own)
                progress.advance(1)
            all_predictions.add(name, found)
    return all_predictions


def predict_with_tfidf(
    train: Sequence[Example], labels: list[str], examples: Sequence[Example], seed: int
) -> tuple[dict[str, PredictionsAndCosts], dict[str, dict[str, float]]]:
    """Each domain's examples, classified by TF-IDF on that domain's training examples; and what passes between domains.

    That is the accuracy of each domain's TF-IDF (outer key) on up to `asked_of_each` examples of each, drawn by `seed`.
    """
    found, passed = dict[str, PredictionsAndCosts](), dict[str, dict[str, float]]()
    learnt, rows = by_domain(train), dict(sorted(by_domain(examples).items()))
    each, draw = transfer_sample_size(len(rows)), random.Random(seed)
    asked = {domain: own if len(own) <= each else draw.sample(own, each) for domain, own in rows.items() if each}
    for domain, own in rows.items():
        baseline = TfidfBaseline(learnt.get(domain, []))
        predicted = np.array([labels.index(label) for label in baseline.predict(own)])
        cost = baseline.size() | {"latency_ms": latency(baseline.predict_one, own)}
        found[domain] = Predictions(_truth(own, labels), predicted, baseline.confidence(own)), cost
        if asked:
            passed[domain] = {other: _share_right(baseline, texts) for other, texts in asked.items()}
    return found, passed


def _share_right(baseline: TfidfBaseline, examples: Sequence[Example]) -> float:
    said = zip(baseline.predict(examples), examples, strict=True)
    return round(float(np.mean([label == e.label for label, e in said])), 4)


def transfer_sample_size(domains: int) -> int:
    """How many examples of a domain another's model is asked, so that all pairs take reasonable time; 0 for none."""
    pairs = domains * (domains - 1)
    each = min(LARGEST_TRANSFER_SAMPLE, MOST_TRANSFER_PREDICTIONS // max(pairs, 1))
    return each if pairs and each >= SMALLEST_TRANSFER_SAMPLE else 0


def correct_predictions(examples: Sequence[Example], labels: list[str], model: Model) -> Any:
    """Which of the examples the model gets right: (N,) bool."""
    found = predictions_of(examples, labels, model)
    return found.truth == found.predicted


def predictions_of(examples: Sequence[Example], labels: list[str], model: Model) -> Predictions:
    """What the model says of examples whose classes are `labels`, each by its own domain's class head if it has one."""
    heads = _heads(model.labels, labels)
    places = torch.tensor([heads.index(e.domain) if e.domain in heads else UNKNOWN_DOMAIN for e in examples])
    said = torch.from_numpy(model.probabilities(examples))
    logits = said.clamp(min=1e-30).log()  # but for a constant: as the teacher teaches
    confidence, predicted = select_head(logits, places, len(heads)).softmax(-1).max(-1)
    return Predictions(_truth(examples, labels), predicted.numpy(), confidence.double().numpy())


def _heads(classes: Sequence[str], labels: list[str]) -> list[str]:
    """Domains that have a class head of their own in a model of these classes; one nameless head serves all."""
    if classes == labels:
        return [""]
    domains = [name.removesuffix(f": {labels[0]}") for name in classes[:: len(labels)]]
    if classes != class_names(labels, domains):
        raise InputError(f"the model knows the classes {classes}, the data has {labels}: it was made of others")
    return domains


def _truth(examples: Sequence[Example], labels: list[str]) -> Ints:
    return np.array([labels.index(e.label) for e in examples])

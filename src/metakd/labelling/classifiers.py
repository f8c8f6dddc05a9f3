"""Fine-tuned classifiers as a source of labels: one for all texts, or one for those of each domain."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from metakd.data.schema import Example
from metakd.data.splits import by_domain
from metakd.inference.by_domain import models_by_domain
from metakd.inference.classifier import Classifier
from metakd.inference.layout import onnx_file
from metakd.inference.long_texts import LEAST, Probabilities
from metakd.models.class_head import rows_of_labels
from metakd.models.hub import resolve
from metakd.utils.console import notice, progress_bar
from metakd.utils.errors import listed, raise_faults
from metakd.utils.validation import read_config

ALL = ""  # in place of a domain: the classifier of all texts
CHUNK = 512  # texts that are read before progress shows


def named_models(named: Sequence[str]) -> dict[str, str]:
    """The model of each domain, from DOMAIN=MODEL or a folder that has one for each; any other model is that of ALL.

    Raises:
        InputError: Some have a domain and others do not, or two have the same.
    """
    if len(named) == 1 and ("=" not in named[0] or Path(named[0]).exists()):
        students = models_by_domain(Path(named[0]))
        return {ALL: named[0]} if students is None else {domain: str(path) for domain, path in students.items()}
    pairs = [(domain.strip(), model.strip()) for domain, _, model in (name.partition("=") for name in named)]
    faults = [f"--model {name}: write DOMAIN=MODEL" for name, pair in zip(named, pairs, strict=True) if not all(pair)]
    domains = [domain for domain, _ in pairs]
    faults += [f"--model {d}=...: {d} has several" for d in dict.fromkeys(domains) if domains.count(d) > 1 and d]
    raise_faults("several models, each for the texts of one domain", faults)
    return dict(pairs)


def is_classifier(name: str) -> bool:
    """Whether a model, by folder or id, is a classifier, as trained or exported; InputError if there is none."""
    if onnx_file(Path(name)):
        return True
    architectures = read_config(resolve(name)).get("architectures") or ()
    return any(str(kind).endswith("ForSequenceClassification") for kind in architectures)


class Classifiers:
    """Scores texts by the classifier of their domain."""

    def __init__(self, models: Mapping[str, str], examples: Sequence[Example]) -> None:
        """Load the classifiers.

        Args:
            models: A folder or model id by domain, or by ALL.
            examples: The texts; their domains have to have a classifier.

        Raises:
            InputError: A domain has none, or one is no classifier.
        """
        if ALL not in models:
            here = {*by_domain(examples)}
            faults = [f"--model: no classifier for {d or 'rows without a domain'}" for d in sorted(here - {*models})]
            faults += [f"--model {d}=...: no row has this domain" for d in sorted({*models} - here)]
            raise_faults("domains of the texts and of the classifiers differ", faults)
        self._by_domain = {domain: Classifier.load(name) for domain, name in models.items()}
        self._names = dict(models)

    @property
    def labels(self) -> list[str]:
        """The classes of all, each once."""
        return [*dict.fromkeys(label for model in self._by_domain.values() for label in model.labels)]

    def scores(self, examples: Sequence[Example], labels: Sequence[str]) -> Probabilities:
        """The logarithms of the labels' probabilities, (N, M), up to a constant for each text; classes go by name.

        Raises:
            InputError: A label is none of the classes of a classifier.
        """
        columns = {domain: rows_of_labels(model.labels, labels) for domain, model in self._by_domain.items()}
        faults = [
            f"{self._names[d]}: its classes are {listed(model.labels)}; name them like the labels in its config.json"
            for d, model in self._by_domain.items()
            if columns[d] is None
        ]
        raise_faults(f"the labels {listed([*labels])} are not all among the classes", faults)
        self._say_what_is_left_out(columns)
        scores = np.zeros((len(examples), len(labels)), np.float32)
        with progress_bar("ask the classifier", len(examples)) as progress:
            for domain, model in self._by_domain.items():
                rows = [row for row, e in enumerate(examples) if domain in (ALL, e.domain)]
                for start in range(0, len(rows), CHUNK):
                    chunk = rows[start : start + CHUNK]
                    answers = model.model.answers([examples[row] for row in chunk]).probabilities
                    scores[chunk] = np.log(answers[:, columns[domain]].clip(LEAST))
                    progress(advance=len(chunk))
        return scores

    def _say_what_is_left_out(self, columns: Mapping[str, Sequence[int] | None]) -> None:
        for domain, model in self._by_domain.items():
            if left := [name for place, name in enumerate(model.labels) if place not in (columns[domain] or ())]:
                notice(f"{self._names[domain]}: its classes {listed(left)} are not among the labels, and are left out")

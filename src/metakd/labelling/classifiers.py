"""Fine-tuned classifiers as a source of labels: one for all texts, or one for those of each domain."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from metakd.data.schema import Example
from metakd.inference.by_domain import ByDomain, models_by_domain
from metakd.inference.layout import onnx_file
from metakd.inference.long_texts import LEAST, Probabilities
from metakd.models.class_head import rows_of_labels
from metakd.models.hub import resolve
from metakd.utils.console import notice, progress_bar
from metakd.utils.errors import listed, raise_faults
from metakd.utils.validation import read_config

ALL = ""  # in place of a domain: the classifier of all texts
CHUNK = 512  # texts that are read before progress shows


def named_models(named: Sequence[str], domains: Collection[str]) -> dict[str, str]:
    """The model of each of the texts' `domains`, from DOMAIN=MODEL or a folder that has one for each.

    Any other single model is that of ALL.

    Raises:
        InputError: Some have a domain and others do not, two have the same, or the domains are others.
    """
    if len(named) == 1 and ("=" not in named[0] or Path(named[0]).exists()):
        students = models_by_domain(Path(named[0]))
        if students is None:
            return {ALL: named[0]}
        models, faults = {domain: str(path) for domain, path in students.items() if domain in domains}, list[str]()
    else:
        pairs = [(domain.strip(), model.strip()) for domain, _, model in (name.partition("=") for name in named)]
        faults = [
            f"--model {name}: write DOMAIN=MODEL" for name, pair in zip(named, pairs, strict=True) if not all(pair)
        ]
        counts, models = Counter(domain for domain, _ in pairs if domain), dict(pairs)
        faults += [f"--model {domain}=...: {domain} has several" for domain, count in counts.items() if count > 1]
        raise_faults("several models, each for the texts of one domain", faults)
        faults = [f"--model {domain}=...: no row has this domain" for domain in sorted({*models} - {*domains})]
    faults += [f"--model: no classifier for {d or 'rows without a domain'}" for d in sorted({*domains} - {*models})]
    raise_faults("domains of the texts and of the classifiers differ", faults)
    return models


def is_classifier(name: str) -> bool:
    """Whether a model, by folder or id, is a classifier, as trained or exported; InputError if there is none."""
    if onnx_file(Path(name)):
        return True
    architectures = read_config(resolve(name)).get("architectures") or ()
    return any(str(kind).endswith("ForSequenceClassification") for kind in architectures)


class Classifiers:
    """Scores texts by the classifier of their domain."""

    def __init__(self, models: Mapping[str, str]) -> None:
        """`models` has a folder or model id by domain, or by ALL."""
        self._models = ByDomain(models)
        self._names = dict(models)

    @property
    def labels(self) -> list[str]:
        """The classes of all, each once; InputError for one that is no classifier."""
        return self._models.labels(self._names)

    def scores(self, examples: Sequence[Example], labels: Sequence[str]) -> Probabilities:
        """The logarithms of the labels' probabilities, (N, M), up to a constant for each text; classes go by name.

        Raises:
            InputError: A label is none of the classes of a classifier.
        """
        scores = np.zeros((len(examples), len(labels)), np.float32)
        with progress_bar("ask the classifiers", len(examples)) as progress:
            for domain, columns in self._columns(labels).items():
                rows = [row for row, e in enumerate(examples) if domain in (ALL, e.domain)]
                for start in range(0, len(rows), CHUNK):
                    chunk = rows[start : start + CHUNK]
                    model = self._models.classifier(domain).model
                    answers = model.answers([examples[row] for row in chunk]).probabilities
                    scores[chunk] = np.log(LEAST)  # of labels that other domains have
                    scores[np.ix_(chunk, [*columns])] = np.log(answers[:, [*columns.values()]].clip(LEAST))
                    progress(advance=len(chunk))
        return scores

    def _columns(self, labels: Sequence[str]) -> dict[str, dict[int, int]]:
        """The class of each label, by domain; a notice of classes that are no labels.

        The classifier of one domain may lack labels of others, if its classes are among them by their very names.
        """
        columns, faults = dict[str, dict[int, int]](), list[str]()
        for domain, name in self._names.items():
            classifier = self._models.classifier(domain)
            if classifier.several_labels:
                faults.append(f"{name}: gives a text several labels, and `metakd label` asks for one; leave it out")
                continue
            classes = classifier.labels
            rows = rows_of_labels(classes, labels)
            if rows is None and domain != ALL and {*classes} <= {*labels}:
                columns[domain] = {labels.index(each): place for place, each in enumerate(classes)}
                continue
            if rows is None:
                faults.append(f"{name}: its classes are {listed(classes)}")
                continue
            columns[domain] = dict(enumerate(rows))
            if left := [each for place, each in enumerate(classes) if place not in rows]:
                notice(f"{name}: its classes {listed(left)} are not among the labels, and are left out")
        where = "rename them, in id2label of its config.json or, of an export, in labels of its model.json"
        raise_faults(f"the labels {listed([*labels])} are not all among the classes; {where}", faults)
        return columns

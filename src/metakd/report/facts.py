"""What the files of a finished run hold, gathered and counted for its report; nothing is computed from models."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from metakd.data.schema import folder_name
from metakd.evaluation.statistics import Values, compare
from metakd.evaluation.suspects import SURE, read_suspects
from metakd.methods import BASELINE
from metakd.runs.folders import CORPUS_FILE, PREDICTIONS_FILE, RESULTS_FILE, SUSPECTS_FILE
from metakd.utils.artifacts import read_manifest, read_run, remedy, verified_manifest
from metakd.utils.console import notice
from metakd.utils.errors import InputError, raise_faults

KINDS = {
    "meta_teacher": "meta-teacher",
    "student": "student",
    BASELINE: "fine-tuned baseline",
    "tfidf": "TF-IDF baseline",
}
DRAWN = ("main", "unseen", "scarce-5", "scarce-20", "scarce-all-5", "scarce-all-20")  # experiments with pictures
SHOWN = 10  # examples of each kind under a model
MOST_LABELS, MOST_CONFUSED = 30, 30  # of a whole table of confusions; pairs of labels where it is not whole
BINS = 10  # of confidence
RESULTS = ("average", "domains", "environment", "run", "seconds", "split")  # what is needed of results.json,
CORPUS = ("findings", "maps", "rows", "similarity", "terms", "texts", "turning")  # of corpus.json,
ROW = ("domain", "id", "label", "models", "texts")  # and of each row of predictions.jsonl
Row = Mapping[str, Any]  # a scored example: `models` has each kind's label and its probability


@dataclass(frozen=True)
class Findings:
    """A run's folder, read."""

    folder: Path
    run: Mapping[str, Any]
    results: Mapping[str, Any]
    corpus: Mapping[str, Any]
    rows: Sequence[Row]
    experiments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # their results, by name

    @classmethod
    def read(cls, folder: Path, experiments: Path | None = None) -> Findings:
        """A run, and a folder of experiments if there is one. Raises InputError where either is not finished."""
        run = read_run(folder)
        trained = all(read_manifest(folder / "students" / folder_name(domain)) for domain in run["domains"])
        scoring = remedy(folder, "evaluate" if trained else "run")
        try:
            results, corpus = (json.loads((folder / name).read_text("utf-8")) for name in (RESULTS_FILE, CORPUS_FILE))
            with (folder / PREDICTIONS_FILE).open(encoding="utf-8") as file:
                rows = [json.loads(text) for text in file]
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror}); {scoring}") from None
        except ValueError as error:
            raise InputError(f"{folder}: results are damaged ({error}); {scoring}") from None
        if verified_manifest(folder) is None:
            notice(f"{folder}: not as it was scored; {scoring}")
        raise_faults(f"{folder}: results are incomplete; {scoring}", _missing(results, corpus, rows))
        if results["run"].get("data_fingerprint") != run.get("data_fingerprint"):
            raise InputError(f"{folder} was scored before its data changed; {scoring}")
        measured = _read_experiments(experiments, run["data_fingerprint"]) if experiments else {}
        return cls(folder, run, results, corpus, rows, measured)

    def ordered(self) -> Findings:
        """The same with its rows by domain and id, so that rows of two runs can be paired."""
        return replace(self, rows=sorted(self.rows, key=lambda row: (row["domain"], row["id"])))

    @property
    def domains(self) -> list[str]:
        return list(self.results["domains"])

    @property
    def labels(self) -> list[str]:
        return list(self.run["labels"])

    def classes(self, label: str) -> list[str]:
        """The labels that an example has, or that a model has given it."""
        return [*json.loads(label)] if self.run.get("several_labels") else [label]

    def labels_of(self, domain: str) -> list[str]:
        """Those of a domain's examples and of their predictions."""
        answers = {row["label"] for row in self.by_domain[domain]} | {
            label for row in self.by_domain[domain] for label, _ in row["models"].values()
        }
        used = {label for answer in answers for label in self.classes(answer)}
        return [label for label in self.labels if label in used] if "classes" in self.run else self.labels

    def texts(self, domain: str | None = None) -> Mapping[str, int]:
        """Rows by split, of one domain or of all."""
        counts = self.corpus["texts"].items()
        if domain is not None:
            return {split: domains.get(domain, 0) for split, domains in counts}
        return {split: sum(domains.values()) for split, domains in counts}

    @property
    def models(self) -> list[str]:
        """The kinds of models that were scored on every domain; students without a teacher are the baseline itself."""
        same = BASELINE if self.run["settings"]["method"] == BASELINE else None
        return [name for name in KINDS if name in self.results["average"] and name != same]

    @property
    def scored_models(self) -> list[tuple[str, str]]:
        """Kind and domain of every model."""
        domains = self.results["domains"]
        return [(model, domain) for model in self.models for domain in domains if model in domains[domain]]

    def manifest(self, *parts: str) -> Mapping[str, Any]:
        """That of a step's folder; empty where the run has no such step."""
        return read_manifest(self.folder.joinpath(*parts)) or {}

    def student(self, domain: str) -> Mapping[str, Any]:
        return self.manifest("students", folder_name(domain))

    def students(self, experiment: str) -> Mapping[str, Mapping[str, Any]]:
        """Results of an experiment's students, by method; empty where it has not run."""
        return dict(self.experiments.get(experiment, {}).get("students", {}))

    @property
    def domain_probe(self) -> Mapping[str, float]:
        """How often a linear model tells the domain from the teacher's vectors; empty where that was not measured."""
        probe = self.manifest("meta_teacher").get("domain_probe") or {}
        return probe if None not in probe.values() else {}

    @cached_property
    def by_domain(self) -> dict[str, list[Row]]:
        """The scored examples of each domain."""
        return {domain: [row for row in self.rows if row["domain"] == domain] for domain in self.domains}

    def classified(self, model: str, domain: str) -> list[Row]:
        """The scored examples of a domain that the model has classified."""
        return [row for row in self.by_domain[domain] if model in row["models"]]

    def _rights(self, model: str, domain: str) -> list[bool]:
        return [row["models"][model][0] == row["label"] for row in self.classified(model, domain)]

    @cached_property
    def rights(self) -> dict[str, Values]:
        """What each kind of model got right, as a single seed: domain -> (1, N), for domains of two examples on."""
        return {
            model: {d: np.array([rights]) for d in self.domains if len(rights := self._rights(model, d)) > 1}
            for model in self.models
        }

    @cached_property
    def against(self) -> dict[str, Any]:
        """The students' accuracy less that of each other kind, paired by example; nothing where too few were scored."""
        return dict(compare("student", self.rights)["against"]) if self.rights["student"] else {}

    def confusion(self, model: str, domain: str) -> list[list[int]]:
        """How often label i (row) was called j (column); of several, how often it was right, missed and wrong."""
        if self.run.get("several_labels"):
            answers = [(row["label"], row["models"][model][0]) for row in self.classified(model, domain)]
            sets = [({*self.classes(label)}, {*self.classes(called)}) for label, called in answers]
            parts = [
                [*map(each, sets)] for each in (lambda s: s[0] & s[1], lambda s: s[0] - s[1], lambda s: s[1] - s[0])
            ]
            return [[sum(label in labels for labels in part) for part in parts] for label in self.labels_of(domain)]
        counts = Counter((row["label"], row["models"][model][0]) for row in self.classified(model, domain))
        labels = self.labels_of(domain)
        return [[counts[true, predicted] for predicted in labels] for true in labels]

    def confused(self, model: str, domain: str) -> list[tuple[str, str, int]]:
        """Which labels were called another one, and how often; the most frequent first, MOST_CONFUSED at most."""
        counts = Counter((row["label"], row["models"][model][0]) for row in self.classified(model, domain))
        wrong = [(true, predicted, count) for (true, predicted), count in counts.items() if true != predicted]
        return sorted(wrong, key=lambda each: (-each[2], each[:2]))[:MOST_CONFUSED]

    def calibration(self, model: str, domain: str) -> list[dict[str, float]]:
        """By confidence, in tenths: how many examples, how sure the model was, and how often right."""
        sure = np.array([row["models"][model][1] for row in self.classified(model, domain)])
        right = np.array(self._rights(model, domain))
        tenths = np.minimum((sure * BINS).astype(int), BINS - 1)
        return [
            {"examples": int(at.sum()), "confidence": float(sure[at].mean()), "accuracy": float(right[at].mean())}
            for at in (tenths == tenth for tenth in np.unique(tenths))
        ]

    def mistakes(self, model: str, domain: str) -> list[Row]:
        """The most confident first."""
        wrong = [row for row in self.classified(model, domain) if row["models"][model][0] != row["label"]]
        return sorted(wrong, key=lambda row: -row["models"][model][1])

    def disagreements(self, model: str, domain: str) -> list[Row]:
        """Where its label is not the meta-teacher's, the examples of which both are surest first."""
        pairs = [(row, row["models"][model], row["models"]["meta_teacher"]) for row in self.classified(model, domain)]
        apart = [pair for pair in pairs if pair[1][0] != pair[2][0]]
        return [row for row, *_ in sorted(apart, key=lambda pair: -pair[1][1] * pair[2][1])]

    @cached_property
    def sure(self) -> list[Row]:
        """Examples of which the meta-teacher is SURE or surer."""
        return [row for row in self.rows if row["models"]["meta_teacher"][1] >= SURE]

    @cached_property
    def doubtful(self) -> list[Row]:
        """Examples whose label the meta-teacher contradicts, SURE or surer: labels that may be wrong.

        First those that most other kinds of models contradict in the same way.
        """
        contradicted = [row for row in self.sure if row["models"]["meta_teacher"][0] != row["label"]]
        return sorted(contradicted, key=lambda row: (-len(self.siding(row)), -row["models"]["meta_teacher"][1]))

    @cached_property
    def suspects(self) -> list[dict[str, str]] | None:
        """Training rows whose label the meta-teacher contradicts, surest first; None where it was not asked."""
        return read_suspects(self.folder / SUSPECTS_FILE)

    def siding(self, row: Row) -> list[str]:
        """The other kinds of models that give an example the meta-teacher's label."""
        labels = {name: row["models"][name][0] for name in self.models if name in row["models"]}
        teacher = labels.pop("meta_teacher")
        return [KINDS[name] for name, label in labels.items() if label == teacher]


def _missing(results: Any, corpus: Any, rows: Sequence[Any]) -> list[str]:
    """What a report is drawn from and these files do not have."""
    needed = {RESULTS_FILE: (results, RESULTS), CORPUS_FILE: (corpus, CORPUS)}
    faults = [f"{name}: no {key}" for name, (content, keys) in needed.items() for key in keys if key not in content]
    if broken := sum(not isinstance(row, Mapping) or not set(ROW) <= set(row) for row in rows):
        return [*faults, f"{PREDICTIONS_FILE}: {broken} lines are no scored examples"]
    unknown = {row["domain"] for row in rows} ^ set(results.get("domains", ()) if isinstance(results, Mapping) else ())
    return faults + [f"{PREDICTIONS_FILE}: domain {domain!r} is not in both files" for domain in sorted(unknown)]


def _read_experiments(folder: Path, data: str) -> dict[str, Mapping[str, Any]]:
    """Results of the experiments in DRAWN that a folder has; InputError where it has none, or any of other data."""
    results = {}
    for name in DRAWN:
        path = folder / f"{name}.json"
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            try:
                results[name] = json.loads(path.read_text(encoding="utf-8"))
                results[name]["students"]
            except (ValueError, LookupError, TypeError):
                raise InputError(f"{path}: not what `metakd experiment {name}` writes") from None
            if results[name].get("data_fingerprint", data) != data:
                raise InputError(f"{path}: of other data than the run, so they are not drawn together")
    if not results:
        raise InputError(f"--experiments {folder}: it has no finished experiment that is drawn ({', '.join(DRAWN)})")
    return results


def calibration_error(tenths: Sequence[Mapping[str, float]]) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart in a tenth, over all examples."""
    apart = sum(tenth["examples"] * abs(tenth["confidence"] - tenth["accuracy"]) for tenth in tenths)
    return float(apart / sum(tenth["examples"] for tenth in tenths))


def calibration_by_chance(tenths: Sequence[Mapping[str, float]]) -> float:
    """What that error would be on average if as many were right in each tenth as it is sure."""
    apart = 0.0
    for tenth in tenths:
        count, sure = int(tenth["examples"]), tenth["confidence"]
        right = np.arange(count + 1)
        apart += float(binom.pmf(right, count, sure) @ np.abs(right - count * sure))
    return apart / sum(tenth["examples"] for tenth in tenths)

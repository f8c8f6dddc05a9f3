"""What the files of a finished run say, gathered and counted for its report; nothing is computed from models."""

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
from numpy.typing import NDArray

from metakd.data.dataset import folder_name
from metakd.evaluation.statistics import Values, compare
from metakd.methods import BASELINE
from metakd.runs.run import CORPUS_FILE, PREDICTIONS_FILE
from metakd.utils.artifacts import read_manifest, read_run, read_whole
from metakd.utils.console import notice
from metakd.utils.errors import InputError

KINDS = {
    "meta_teacher": "meta-teacher",
    "student": "student",
    BASELINE: "fine-tuned rival",
    "tfidf": "TF-IDF rival",
}
DRAWN = ("main", "unseen", "scarce-5", "scarce-20", "scarce-all-5", "scarce-all-20")  # experiments with pictures
SURE = 0.9  # confidence from which a teacher that contradicts a label casts doubt on the label
SHOWN = 10  # examples of each kind under a model
BINS = 10  # of confidence
RESULTS = ("average", "domains", "environment", "seconds", "split")  # what is needed of results.json,
CORPUS = ("findings", "maps", "rows", "similarity", "terms", "turning")  # of corpus.json,
ROW = ("domain", "id", "label", "models", "texts")  # and of each line of predictions.jsonl


@dataclass(frozen=True)
class Findings:
    """A run's folder, read: `rows` are the scored examples with what each kind of model said of them."""

    folder: Path
    run: Mapping[str, Any]
    results: Mapping[str, Any]
    corpus: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    experiments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what they found, by name

    @classmethod
    def read(cls, folder: Path, experiments: Path | None = None) -> Findings:
        """A run, and a folder of experiments if there is one. Raises InputError where either is not finished."""
        run = read_run(folder)
        try:
            results, corpus = (
                json.loads((folder / name).read_text(encoding="utf-8")) for name in ("results.json", CORPUS_FILE)
            )
            with (folder / PREDICTIONS_FILE).open(encoding="utf-8") as lines:
                rows = [json.loads(line) for line in lines]
        except OSError as error:
            raise InputError(
                f"{error.filename}: cannot be read ({error.strerror}); `metakd evaluate {folder}` writes what a report "
                "is drawn from"
            ) from None
        except ValueError as error:
            raise InputError(f"{folder}: results are torn ({error}); `metakd evaluate {folder}` writes them") from None
        if read_whole(folder) is None:
            notice(f"{folder}: not as it was scored; `metakd evaluate {folder}` scores it anew")
        if faults := _missing(results, corpus, rows):
            raise InputError.collect(f"{folder} is not whole; `metakd evaluate {folder}` writes it anew", faults)
        found = _read_experiments(experiments, run["data_fingerprint"]) if experiments else {}
        return cls(folder, run, results, corpus, rows, found)

    def ordered(self) -> Findings:
        """The same with its rows by domain and id, so that rows of two runs can be paired."""
        return replace(self, rows=sorted(self.rows, key=lambda row: (row["domain"], row["id"])))

    @property
    def domains(self) -> list[str]:
        return list(self.results["domains"])

    @property
    def labels(self) -> list[str]:
        return list(self.run["labels"])

    @property
    def models(self) -> list[str]:
        """The kinds of models that were scored on every domain; students without a teacher are their own rival."""
        same = {BASELINE} if self.run["settings"]["method"] == BASELINE else set[str]()
        return [name for name in KINDS if name in self.results["average"] and name not in same]

    def manifest(self, *parts: str) -> Mapping[str, Any]:
        """That of a step's folder; empty where the run has no such step."""
        return read_manifest(self.folder.joinpath(*parts)) or {}

    def student(self, domain: str) -> Mapping[str, Any]:
        return self.manifest("students", folder_name(domain))

    @property
    def domain_probe(self) -> Mapping[str, float]:
        """How often a linear model tells the domain from the teacher's vectors; empty where that was not measured."""
        found = self.manifest("meta_teacher").get("domain_probe") or {}
        return found if None not in found.values() else {}

    @cached_property
    def by_domain(self) -> dict[str, list[Mapping[str, Any]]]:
        """The scored examples of each domain."""
        found: dict[str, list[Mapping[str, Any]]] = {domain: [] for domain in self.domains}
        for row in self.rows:
            found[row["domain"]].append(row)
        return found

    def of(self, model: str, domain: str) -> list[Mapping[str, Any]]:
        """The scored examples of a domain that the model has classified."""
        return [row for row in self.by_domain[domain] if model in row["models"]]

    @cached_property
    def rights(self) -> dict[str, Values]:
        """What each kind of model got right, as a single seed: domain -> (1, N), for domains of two examples on."""
        return {
            model: {d: own for d in self.domains if (own := self._right(model, d)).size > 1} for model in self.models
        }

    def _right(self, model: str, domain: str) -> NDArray[np.bool_]:
        """(1, N)"""
        return np.array([[row["models"][model][0] == row["label"] for row in self.of(model, domain)]])

    @cached_property
    def against(self) -> dict[str, Any]:
        """The students' accuracy less that of each other kind, paired by example; nothing where too few were scored."""
        return dict(compare("student", self.rights)["against"]) if self.rights["student"] else {}

    def confusion(self, model: str, domain: str) -> list[list[int]]:
        """How often label i (row) was called j (column)."""
        cells = Counter((row["label"], row["models"][model][0]) for row in self.of(model, domain))
        return [[cells[true, said] for said in self.labels] for true in self.labels]

    def calibration(self, model: str, domain: str) -> list[dict[str, float]]:
        """By confidence, in tenths: how many examples, how sure the model was, and how often right."""
        own = self.of(model, domain)
        sure = np.array([row["models"][model][1] for row in own])
        right = np.array([row["models"][model][0] == row["label"] for row in own])
        tenths = np.minimum((sure * BINS).astype(int), BINS - 1)
        return [
            {
                "examples": int((tenths == tenth).sum()),
                "confidence": float(sure[tenths == tenth].mean()),
                "accuracy": float(right[tenths == tenth].mean()),
            }
            for tenth in np.unique(tenths)
        ]

    def mistakes(self, model: str, domain: str) -> list[Mapping[str, Any]]:
        """The most confident first."""
        wrong = [row for row in self.of(model, domain) if row["models"][model][0] != row["label"]]
        return sorted(wrong, key=lambda row: -row["models"][model][1])

    def disagreements(self, model: str, domain: str) -> list[Mapping[str, Any]]:
        """Where it says otherwise than the meta-teacher, the examples of which both are surest first."""
        found = [row for row in self.of(model, domain) if row["models"][model][0] != row["models"]["meta_teacher"][0]]
        return sorted(found, key=lambda row: -row["models"][model][1] * row["models"]["meta_teacher"][1])

    @cached_property
    def sure(self) -> int:
        """Of how many examples the meta-teacher is SURE or surer."""
        return sum(row["models"]["meta_teacher"][1] >= SURE for row in self.rows)

    @cached_property
    def doubtful(self) -> list[Mapping[str, Any]]:
        """Examples whose label the meta-teacher contradicts, SURE or surer: where to look for wrong labels.

        First those that most other kinds of models contradict in the same way.
        """
        found = [
            row
            for row in self.rows
            if row["models"]["meta_teacher"][0] != row["label"] and row["models"]["meta_teacher"][1] >= SURE
        ]
        return sorted(found, key=lambda row: (-len(self.siding(row)), -row["models"]["meta_teacher"][1]))

    def siding(self, row: Mapping[str, Any]) -> list[str]:
        """The other kinds of models that say of an example what the meta-teacher says."""
        said = row["models"]["meta_teacher"][0]
        others = [name for name in self.models if name in row["models"] and name != "meta_teacher"]
        return [KINDS[name] for name in others if row["models"][name][0] == said]


def _missing(results: Any, corpus: Any, rows: Sequence[Any]) -> list[str]:
    """What a report is drawn from and these files lack."""
    needed = {"results.json": (results, RESULTS), CORPUS_FILE: (corpus, CORPUS)}
    faults = [f"{name}: no {key}" for name, (found, keys) in needed.items() for key in keys if key not in found]
    strange = sum(not isinstance(row, Mapping) or not set(ROW) <= set(row) for row in rows)
    if strange:
        return [*faults, f"{PREDICTIONS_FILE}: {strange} lines are no scored examples"]
    unknown = {row["domain"] for row in rows} ^ set(results.get("domains", ()) if isinstance(results, Mapping) else ())
    return faults + [f"{PREDICTIONS_FILE}: domain {domain!r} is not in both files" for domain in sorted(unknown)]


def _read_experiments(folder: Path, data: str) -> dict[str, Mapping[str, Any]]:
    """Results of the experiments in DRAWN that a folder has; InputError where it has none, or any of other data."""
    found = {}
    for name in DRAWN:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            try:
                found[name] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
                found[name]["students"]
            except (ValueError, LookupError, TypeError):
                raise InputError(f"{folder / name}.json: not what `metakd experiment {name}` writes") from None
            if found[name].get("data_fingerprint", data) != data:
                raise InputError(f"{folder / name}.json: of other data than the run, so they are not drawn together")
    if not found:
        raise InputError(f"--experiments {folder}: none of {', '.join(DRAWN)} has ended here")
    return found


def calibration_error(tenths: Sequence[Mapping[str, float]]) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart in a tenth, over all examples."""
    apart = sum(own["examples"] * abs(own["confidence"] - own["accuracy"]) for own in tenths)
    return float(apart / sum(own["examples"] for own in tenths))

"""A run's folder: where each result lies, what it depends on, and what is already there."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metakd import processes
from metakd.artifacts import RUN_FILE, fingerprint, free_disk, is_done, read_run, write_json
from metakd.batching import Encoded, encode, updates_a_pass
from metakd.checkpoints import licence, resolve
from metakd.config import Settings
from metakd.domains import MultiDomainDataset, folder_name, hold_out, load_dataset
from metakd.encoders import blank_encoder, load_tokenizer, same_tokenizer
from metakd.errors import InputError, noting
from metakd.examples import Example
from metakd.fingerprints import Fingerprints
from metakd.hardware import Precision, native_precision
from metakd.locks import refuse_foreign
from metakd.meta_teacher import UNKNOWN_DOMAIN, MetaTeacher, class_names
from metakd.methods import METHODS, RIVAL
from metakd.methods.base import Setup, Stage, check_needs, check_shareable, lengthened
from metakd.progress import notice
from metakd.students import check_models, layers_to_cut
from metakd.tracking import check_tracker
from metakd.windows import further_texts

WEIGHTS_FILE, EXTRAS_FILE = "weights.jsonl", "extras.safetensors"  # the latter: projections and h of a shared start
PREDICTIONS_FILE, CORPUS_FILE, REPORT_FILE = "predictions.jsonl", "corpus.json", "report.html"
SCORE_FILES = ("results.json", "results.md", PREDICTIONS_FILE, CORPUS_FILE, REPORT_FILE)


@dataclass(frozen=True)
class Run:
    """Settings and data of one output folder. Steps read and write through it."""

    folder: Path
    settings: Settings
    data: MultiDomainDataset
    by_content: bool = False  # folders are named after what their content depends on, so that runs can share them
    schools: tuple[Run, ...] = ()  # runs whose meta-teachers teach here, if it is not this run's own

    @classmethod
    def assemble(cls, folder: str | Path, settings: Settings, data: Any) -> Run:
        """Read the data and find the models, writing nothing. Raises InputError for what cannot be used.

        `data` is a path, a hub dataset's id, or tables in memory; `domains.load_dataset` says which. `folder` may have
        a run in it, or nothing.
        """
        refuse_foreign(Path(folder))
        problems: list[InputError] = []
        found: MultiDomainDataset | None = None
        with noting(problems):
            if settings.method not in METHODS:
                raise InputError(f"method = {settings.method!r}: there are {', '.join(METHODS)}")
        with noting(problems):
            found = load_dataset(data, settings.seed, **settings.reading())
        with noting(problems):
            check_models(settings)
        with noting(problems):
            check_tracker(settings.track)
        if problems or found is None:
            raise InputError("\n".join(str(problem) for problem in problems))
        run = cls(Path(folder), settings, found)
        _ = run.stages
        return run

    @cached_property
    def stages(self) -> dict[str, list[Stage]]:
        """What each method does for domains of equal size; on models without weights it decides whether it can.

        How many epochs a student really gets, its method says when it is built for that student's examples.
        """
        for method in self.methods:
            check_needs(method, METHODS[method])
            check_shareable(method, METHODS[method], self.settings)
            if "held_out_split" in METHODS[method].needs:
                hold_out(self.data.train, self.settings.seed)
        settings, labels, num_domains = self.settings, self.data.labels, len(self.taught_domains)
        num_layers = layers_to_cut(settings.student)
        folder = resolve(settings.base if num_layers else settings.student)
        same_tokens = bool(num_layers) or same_tokenizer(load_tokenizer(folder), self.tokenizer)
        teacher = blank_encoder(resolve(settings.base), labels)
        student = blank_encoder(folder, labels, num_layers)
        with torch.device("meta"):
            head = MetaTeacher(teacher, num_domains, settings.domain_loss, settings.gamma1)
            sizes = math.ceil(len(self.data.train) / len(self.data.domains)), len(self.data.train)
            own, of_all = (updates_a_pass(n, settings.batch_size) for n in sizes)
            setup = Setup(settings, student, bool(num_layers), head, same_tokens, num_domains, own, of_all)
            built = {method: METHODS[method].build(setup) for method in self.methods}
        return {method: self.lengthened(method, found.stages()) for method, found in built.items()}

    @property
    def teachers(self) -> tuple[Run, ...]:
        """The runs whose meta-teachers teach here."""
        return self.schools or (self,)

    @property
    def taught_domains(self) -> list[str]:
        """Those that its teachers know."""
        return sorted({domain for run in self.teachers for domain in run.data.domains})

    @property
    def teacher_labels(self) -> list[str]:
        """Classes of its meta-teacher: those of the data, or side by side those of each domain."""
        if self.settings.heads == "one":
            return self.data.labels
        return class_names(self.data.labels, self.data.domains)

    @property
    def methods(self) -> list[str]:
        """The run's method, and the rival's if it is wanted."""
        return list(dict.fromkeys([self.settings.method, *([RIVAL] if self.settings.rival else [])]))

    def begin(self) -> Run:
        """Make the folder and note in it what this run is. InputError where finished steps are of another run."""
        if processes.by_main(self._begin) != self.weigh_fingerprint:
            raise InputError("this process has other data, another base or another precision than the main one")
        return self

    def _begin(self) -> str:
        changed, described, place = self.check_folder(), self.description(), self.folder / RUN_FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not place.is_file() or read_run(self.folder) != described:  # jobs at once agree, and only read
                write_json(place, described)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written to ({error.strerror})") from None
        if changed:
            notice(f"{self.folder} goes on with other settings than it was begun with: {changed}")
        return self.weigh_fingerprint

    def check_folder(self) -> str:
        """What is set otherwise than the folder was begun with; InputError where `begin` would raise it."""
        then = read_run(self.folder)["settings"] if (self.folder / RUN_FILE).is_file() else {}
        now = self.description()["settings"]
        changed = "; ".join(
            f"{name} = {now[name]}, was {old}" for name, old in then.items() if now.get(name, old) != old
        )
        try:
            self._refuse_steps_of_others()
        except InputError as error:
            raise InputError(f"{error}. What was set otherwise: {changed}" if changed else str(error)) from None
        return changed

    def _refuse_steps_of_others(self) -> None:
        is_done(self.weights_folder, self.weigh_fingerprint)
        is_done(self.teacher_folder, self.teach_fingerprint)
        for method in self.methods:
            is_done(self.shared_folder(method), self.distill_fingerprint(method, None))
            for domain in self.data.domains:
                is_done(self.student_folder(method, domain), self.distill_fingerprint(method, domain))

    def description(self) -> dict[str, Any]:
        return {
            "data": self.data.place,
            "data_fingerprint": self.data.fingerprint,
            "models": {"base": self._own.base, "student": self._own.student},
            "licences": self._licences(),
            "labels": self.data.labels,
            "domains": self.data.domains,
            "pairs": self.data.has_pairs,
            "settings": self.settings.model_dump(mode="json") | self._found_here(),
        }

    def _found_here(self) -> dict[str, Any]:
        """Settings that the machine decided when the run began; it keeps them wherever and whenever it goes on."""
        return {"precision": self.precision, "cache_budget": self.cache_budget / 1e9}

    def _licences(self) -> dict[str, str | None]:
        data = Path(self.data.place or "nowhere")
        return {"base": licence(resolve(self.settings.base)), "data": licence(data) if data.is_dir() else None}

    @cached_property
    def precision(self) -> Precision:
        """That of the settings, or what the device computes natively."""
        return native_precision() if self.settings.precision == "auto" else self.settings.precision

    @cached_property
    def cache_budget(self) -> float:
        """Bytes of disk for the teacher's layers: as set, as begun, or a quarter of what is free.

        It decides for which texts the teacher stays live, and so the last bits of what students learn.
        """
        gigabytes = self.settings.cache_budget
        if gigabytes is None and (self.folder / RUN_FILE).is_file():
            gigabytes = read_run(self.folder)["settings"].get("cache_budget")
        return free_disk(self.folder) / 4 if gigabytes is None else gigabytes * 1e9

    # --- Folders

    def _place(self, name: str, mark: str) -> Path:
        return self.folder / (f"{name}-{mark[:16]}" if self.by_content else name)

    @property
    def weights_folder(self) -> Path:
        return self._place("instance_weights", self.weigh_fingerprint)

    @property
    def teacher_folder(self) -> Path:
        return self._place("meta_teacher", self.teach_fingerprint)

    def student_folder(self, method: str, domain: str) -> Path:
        """The chosen method's students lie in `students`, a rival's in a folder of its own name."""
        fleet = "students" if method == self.settings.method else method
        return self._place(f"{fleet}/{folder_name(domain)}", self.distill_fingerprint(method, domain))

    def shared_folder(self, method: str) -> Path:
        """The one student from which the method's students start."""
        name = "shared_student" if method == self.settings.method else f"{method}_shared_student"
        return self._place(name, self.distill_fingerprint(method, None))

    @property
    def cache_folder(self) -> Path:
        """What the meta-teacher said of the training examples, while students learn from it."""
        return self._place("teacher_cache", self.teach_fingerprint)

    @property
    def cache_lock(self) -> Path:
        return self.cache_folder.with_suffix(".lock")

    def checkpoint_folder(self, name: str, mark: str) -> Path:
        """Checkpoints of a step that is under way; `mark` keeps those of other settings apart."""
        return self.folder / "checkpoints" / f"{name}-{mark[:12]}"

    # --- What each step depends on

    @cached_property
    def _own(self) -> Fingerprints:
        return Fingerprints(self.settings, self.data, self.precision)

    @property
    def weigh_fingerprint(self) -> str:
        return self._own.weigh

    @cached_property
    def teach_fingerprint(self) -> str:
        marks = [run.teach_fingerprint for run in self.schools] or [self._own.teach]
        return marks[0] if len(marks) == 1 else fingerprint("several", marks)

    def distill_fingerprint(self, method: str, domain: str | None) -> str:
        """Of the student of `domain`, or of the shared start of all (None)."""
        return self._own.distill(method, domain, self.teach_fingerprint)

    # --- Texts, and texts as numbers

    @cached_property
    def further_texts(self) -> dict[str, list[Example]]:
        """Windows and crops of the training texts, by their ids."""
        wanted = {name: getattr(self.settings, name) for name in ("windows", "crops", "seed")}
        return further_texts(self.tokenizer, self.data.train, self.settings.max_length, **wanted)

    def with_further(self, examples: Sequence[Example]) -> list[Example]:
        """What students of a remembered teacher learn from, where others learn from these training `examples`."""
        return [*examples, *(text for e in examples for text in self.further_texts.get(e.id, ()))]

    def lengthened(self, method: str, stages: Sequence[Stage]) -> list[Stage]:
        """The method's stages, with as many updates as those have that learn from further texts too."""
        if "teacher" in METHODS[method].needs:
            return list(stages)
        return lengthened(stages, len(self.data.train), len(self.with_further(self.data.train)))

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(resolve(self.settings.base), self.settings.max_length)

    def features(self, examples: Sequence[Example], tokenizer: Any) -> Encoded:
        """Token ids, and labels and domains as their places in the sorted lists; −1 for a domain new to the teacher."""
        places = {domain: place for place, domain in enumerate(self.taught_domains)}
        columns = {
            "labels": np.array([self.data.labels.index(e.label) for e in examples]),
            "domains": np.array([places.get(e.domain, UNKNOWN_DOMAIN) for e in examples]),
        }
        return encode(tokenizer, examples, self.settings.max_length).with_columns(**columns)

    def instance_weights(self, examples: Sequence[Example]) -> list[float]:
        """What `weigh` found for each example, 1 without weights; InputError where it has not run."""
        if self.settings.weights == "none":
            return [1.0] * len(examples)
        if not is_done(self.weights_folder, self.weigh_fingerprint):
            remedy = f"run `metakd weigh --output {self.folder}` first"
            raise InputError(f"{self.weights_folder}: no instance weights; {remedy}")
        return [self._weights[e.id] for e in examples]

    @cached_property
    def _weights(self) -> dict[str, float]:
        with (self.weights_folder / WEIGHTS_FILE).open(encoding="utf-8") as lines:
            weights = {row["id"]: row["weight"] for row in map(json.loads, lines)}
        return weights | {own.id: weights[name] for name, texts in self.further_texts.items() for own in texts}

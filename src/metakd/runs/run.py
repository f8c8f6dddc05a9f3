"""A run: settings and data of one output folder, and what has been begun in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset, load_dataset
from metakd.data.splits import hold_out
from metakd.methods import BASELINE, METHODS
from metakd.methods.base import Setup, Stage, check_needs, check_shareable
from metakd.models.hub import licence, resolve
from metakd.models.loading import blank_encoder, load_tokenizer, same_tokenizer
from metakd.models.meta_teacher import MetaTeacher, class_names
from metakd.models.student import check_models, layers_to_cut
from metakd.runs.features import Features
from metakd.runs.fingerprints import Fingerprints
from metakd.runs.folders import Folders
from metakd.training.trackers import check_tracker
from metakd.utils import distributed
from metakd.utils.artifacts import RUN_FILE, RUN_FORMAT, free_disk, is_done, read_run, write_json
from metakd.utils.console import notice
from metakd.utils.errors import InputError, collecting
from metakd.utils.hardware import Precision, native_precision
from metakd.utils.locks import refuse_unrelated


@dataclass(frozen=True)
class Run:
    """Settings and data of one output folder.

    `fingerprints` say what each step depends on, `folders` where its result lies, `features` how models read the texts.
    """

    folder: Path
    settings: Settings
    data: MultiDomainDataset
    by_content: bool = False  # folders are named after what their content depends on, so that runs can share them
    other_teachers: tuple[Run, ...] = ()  # runs whose meta-teachers teach here, if it is not this run's own

    @classmethod
    def assemble(cls, folder: str | Path, settings: Settings, data: Any) -> Run:
        """Read the data and find the models, writing nothing. Raises InputError for what cannot be used.

        `data` is a path, a hub dataset's id, or tables in memory (see `load_dataset`); `folder` is empty or has a run.
        """
        refuse_unrelated(Path(folder))
        problems: list[InputError] = []
        dataset: MultiDomainDataset | None = None
        if settings.method not in METHODS:
            problems.append(InputError(f"method = {settings.method!r}: there are {', '.join(METHODS)}"))
        with collecting(problems):
            dataset = load_dataset(data, settings.seed, **settings.reading())
        with collecting(problems):
            check_models(settings)
        with collecting(problems):
            check_tracker(settings.track)
        if problems or dataset is None:
            raise InputError("\n".join(str(problem) for problem in problems))
        run = cls(Path(folder), settings, dataset)
        _ = run.stages
        return run

    @cached_property
    def fingerprints(self) -> Fingerprints:
        teachers = tuple(run.fingerprints.teach for run in self.other_teachers)
        return Fingerprints(self.settings, self.data, self.precision, teachers)

    @cached_property
    def folders(self) -> Folders:
        return Folders(self.folder, self.fingerprints, self.settings.method, self.by_content)

    @cached_property
    def features(self) -> Features:
        return Features(self.settings, self.data, self.folders, self.teacher_domains)

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
        settings, labels, num_domains = self.settings, self.data.labels, len(self.teacher_domains)
        num_layers = layers_to_cut(settings.student)
        folder = resolve(settings.base if num_layers else settings.student)
        same_tokens = bool(num_layers) or same_tokenizer(load_tokenizer(folder), self.features.tokenizer)
        teacher = blank_encoder(resolve(settings.base), labels)
        student = blank_encoder(folder, labels, num_layers)
        with torch.device("meta"):
            head = MetaTeacher(teacher, num_domains, settings.domain_loss, settings.gamma1)
            rows = math.ceil(len(self.data.train) / len(self.data.domains)), len(self.data.train)
            setup = Setup(settings, student, bool(num_layers), head, same_tokens, num_domains, *rows)
            stages = {method: METHODS[method].build(setup).stages() for method in self.methods}
        return {method: self.lengthened(method, of_method) for method, of_method in stages.items()}

    def has_shared_start(self, method: str) -> bool:
        """Whether the method's students all start from one."""
        return any(stage.shared for stage in self.stages[method])

    def lengthened(self, method: str, stages: Sequence[Stage]) -> list[Stage]:
        """The method's stages, with as many updates as those have that learn from extra windows and crops too."""
        if "teacher" in METHODS[method].needs:
            return list(stages)
        examples, most = len(self.data.train), len(self.features.with_extra_texts(self.data.train))
        return [replace(stage, epochs=math.ceil(stage.epochs * most / examples)) for stage in stages]

    @property
    def teacher_runs(self) -> tuple[Run, ...]:
        """The runs whose meta-teachers teach here."""
        return self.other_teachers or (self,)

    @property
    def teacher_domains(self) -> list[str]:
        """The domains that its teachers know."""
        return sorted({domain for run in self.teacher_runs for domain in run.data.domains})

    @property
    def teacher_labels(self) -> list[str]:
        """Classes of its meta-teacher: those of the data, or side by side those of each domain."""
        one = self.settings.heads == "one"
        return self.data.labels if one else class_names(self.data.labels, self.data.domains)

    @property
    def methods(self) -> list[str]:
        """The run's method, and the baseline's if it is wanted."""
        return list(dict.fromkeys([self.settings.method, *([BASELINE] if self.settings.baseline else [])]))

    def begin(self) -> Run:
        """Make the folder and write into it what this run is. InputError where finished steps are of another run."""
        if distributed.on_main(self._begin) != self.fingerprints.weigh:
            raise InputError("this process has other data, another base or another precision than the main one")
        return self

    def _begin(self) -> str:
        changed, description, path = self.check_folder(), self.description(), self.folder / RUN_FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or read_run(self.folder) != description:  # several at once agree, and only read
                write_json(path, description)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written to ({error.strerror})") from None
        if changed:
            notice(f"{self.folder} goes on with other settings than it was begun with: {changed}")
        return self.fingerprints.weigh

    def check_folder(self) -> str:
        """What is set otherwise than the folder was begun with; InputError where `begin` would raise it."""
        before = read_run(self.folder)["settings"] if (self.folder / RUN_FILE).is_file() else {}
        now = self.description()["settings"]
        changed = "; ".join(f"{n} = {now[n]}, was {value}" for n, value in before.items() if now.get(n, value) != value)
        try:
            self._refuse_other_steps()
        except InputError as error:
            raise InputError(f"{error}. What was set otherwise: {changed}" if changed else str(error)) from None
        return changed

    def _refuse_other_steps(self) -> None:
        is_done(self.folders.weights, self.fingerprints.weigh)
        is_done(self.folders.teacher, self.fingerprints.teach)
        for method, domain in product(self.methods, (None, *self.data.domains)):
            self.is_student_done(method, domain)

    def is_student_done(self, method: str, domain: str | None) -> bool:
        """Whether the student of `domain`, or the shared start of all (None), is there."""
        return is_done(self.folders.student(method, domain), self.fingerprints.distill(method, domain))

    def description(self) -> dict[str, Any]:
        """The content of run.json."""
        data = Path(self.data.place or "nowhere")
        licences = {"base": licence(resolve(self.settings.base)), "data": licence(data) if data.is_dir() else None}
        return {
            "format": RUN_FORMAT,
            "data": self.data.place,
            "data_fingerprint": self.data.fingerprint,
            "models": {"base": self.fingerprints.base, "student": self.fingerprints.student},
            "licences": licences,
            "labels": self.data.labels,
            "domains": self.data.domains,
            "pairs": self.data.has_pairs,
            # what the machine has decided stays so wherever and whenever the run goes on
            "settings": self.settings.model_dump(mode="json")
            | {"precision": self.precision, "cache_budget": self.cache_budget / 1e9},
        }

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

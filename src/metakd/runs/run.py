"""A run: the settings and data of one output folder, and which of its steps are done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset, load_dataset
from metakd.data.schema import Example
from metakd.data.splits import hold_out
from metakd.inspection.unknown_tokens import foreign_domains, pieces_per_word, unknown_shares
from metakd.methods import BASELINE, METHODS
from metakd.methods.base import Setup, Stage, check_needs, check_shareable, learns_from_labels_alone
from metakd.models.hub import resolve
from metakd.models.loading import blank_encoder, same_tokenizer
from metakd.models.meta_teacher import MetaTeacher, class_names
from metakd.models.model_checks import check_models
from metakd.models.student import blank_student, layers_to_cut, start_layers
from metakd.runs.defaults import fitted
from metakd.runs.description import description_of
from metakd.runs.features import Features
from metakd.runs.fingerprints import Fingerprints
from metakd.runs.folders import SKIPPED_FILE, Folders
from metakd.runs.starts import check_teacher_fits
from metakd.training.trackers import check_tracker
from metakd.utils import distributed
from metakd.utils.artifacts import RUN_FILE, free_disk, is_done, read_run, refuse_other, write_json, write_text
from metakd.utils.console import notice
from metakd.utils.errors import InputError, collecting
from metakd.utils.hardware import Precision, native_precision
from metakd.utils.locks import refuse_unrelated


@dataclass(frozen=True)
class Run:
    """Settings and data of one output folder.

    `fingerprints` say what each step depends on, `folders` where its result is, `features` how models read the texts.
    """

    folder: Path
    settings: Settings
    data: MultiDomainDataset
    by_content: bool = False  # folder names contain fingerprints, so that runs can share folders
    other_teachers: tuple[Run, ...] = ()  # runs whose meta-teachers teach here instead of this run's

    def __repr__(self) -> str:
        return f"<Run {self.folder}: {self.settings.method}, {self.settings.student}, {self.data!r}>"

    @classmethod
    def assemble(cls, folder: str | Path, settings: Settings, data: Any) -> Run:
        """A run whose data is read and whose models are there; nothing is written before `begin`.

        Args:
            folder: The output folder: missing, empty, or with a run.
            settings: Its settings.
            data: A path, a hub dataset's id, or tables in memory (see `load_dataset`).

        Raises:
            InputError: Data, models, settings or folder cannot be used.
        """
        refuse_unrelated(Path(folder))
        problems: list[InputError] = []
        dataset: MultiDomainDataset | None = None
        if settings.method not in METHODS:
            problems.append(InputError(f"--method = {settings.method!r}: choose one of {', '.join(METHODS)}"))
        with collecting(problems):
            dataset = load_dataset(data, settings.seed, **settings.reading())
        with collecting(problems):
            settings = settings if dataset is None else fitted(settings, dataset)
        with collecting(problems):
            check_models(settings, pairs=dataset is not None and dataset.has_pairs)
        with collecting(problems):
            check_tracker(settings.track)
        if problems or dataset is None:
            raise InputError("\n".join(str(problem) for problem in problems))
        run = cls(Path(folder), settings, dataset)
        _ = run.stages
        run._name_foreign_domains()
        return run

    def _name_foreign_domains(self) -> None:
        """A notice for each domain whose texts the base, or another checkpoint as student, does not know."""
        tokenizers = {"--base": self.features.tokenizer}
        if layers_to_cut(self.settings.student) is None:
            tokenizers["--student"] = self.features.student_tokenizer
        for model, tokenizer in tokenizers.items():
            unknown, pieces = (
                measure(tokenizer.backend_tokenizer, self.data.train) for measure in (unknown_shares, pieces_per_word)
            )
            for message in foreign_domains(unknown, pieces, model):
                notice(message)

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """What each step depends on."""
        teachers = tuple(run.fingerprints.teach for run in self.other_teachers)
        return Fingerprints(self.settings, self.data, self.precision, teachers)

    @cached_property
    def folders(self) -> Folders:
        """Where each step's result is."""
        return Folders(self.folder, self.fingerprints, self.settings.method, self.by_content)

    @cached_property
    def features(self) -> Features:
        """How its models read the texts."""
        return Features(self.settings, self.data, self.folders, self.teacher_domains)

    @cached_property
    def stages(self) -> dict[str, list[Stage]]:
        """Each method's stages for domains of equal size; InputError if a method does not fit the settings or models.

        The models here have no weights. A student's real epochs follow when its method is built for its examples.
        """
        check_teacher_fits(self.settings, self.data.labels, self.data.several_labels)
        readers = [method for method in self.methods if METHODS[method].needs & {"teacher", "pseudo_labels"}]
        if self.data.unlabelled and not readers:
            notice(f"--unlabelled: {self.settings.method} reads none of that text")
        if "held_out_split" in METHODS[self.settings.method].needs and not all(e.gold for e in self.data.train):
            raise InputError(f"--method {self.settings.method} learns from gold labels, which some rows do not have")
        for method in self.methods:
            check_needs(method, METHODS[method])
            check_shareable(method, METHODS[method], self.settings)
            if "held_out_split" in METHODS[method].needs:
                hold_out(self.data.train, self.settings.seed)
        settings, num_domains = self.settings, len(self.teacher_domains)
        is_cut = layers_to_cut(settings.student) is not None
        same_tokens = is_cut or same_tokenizer(self.features.student_tokenizer, self.features.tokenizer)
        teacher, student = self.blank_models
        with torch.device("meta"):
            head = MetaTeacher(teacher, num_domains, settings.domain_loss, settings.gamma1)
            rows = math.ceil(len(self.data.train) / len(self.data.domains)), len(self.data.train)
            setup = Setup(settings, student, is_cut, head, same_tokens, num_domains, *rows)
            stages = {method: METHODS[method].build(setup).stages() for method in self.methods}
        return {method: self.lengthened(method, of_method) for method, of_method in stages.items()}

    @cached_property
    def blank_models(self) -> tuple[PreTrainedModel, PreTrainedModel]:
        """The base and a student, without weights."""
        settings, labels = self.settings, self.data.labels
        base, num_layers = blank_encoder(resolve(settings.base), labels), layers_to_cut(settings.student)
        if num_layers is None:
            return base, blank_encoder(resolve(settings.student), labels)
        return base, blank_student(base, start_layers(base, num_layers, settings.start_layers, settings.layer_map))

    def has_shared_start(self, method: str) -> bool:
        """Whether the students of `method`, one of `methods`, all start from one."""
        return any(stage.shared for stage in self.stages[method])

    def labelled_rows(self, method: str) -> list[Example]:
        """The rows of train that the method learns from: `data.gold` if it learns from labels alone."""
        return self.data.gold if learns_from_labels_alone(METHODS[method]) else self.data.train

    def lengthened(self, method: str, stages: Sequence[Stage]) -> list[Stage]:
        """The stages with as many updates as methods have that also learn from extra windows and crops.

        Args:
            method: One of `methods`.
            stages: Its stages, for the texts alone.
        """
        if METHODS[method].needs & {"teacher", "soft_labels"}:
            return list(stages)
        rows = self.labelled_rows(method)
        examples, most = len(rows), len(self.features.with_extra_texts(rows))
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
    def teacher_classes(self) -> list[str]:
        """Classes of its meta-teacher: those of the data, or with --heads domain, those of each domain in turn."""
        one = self.settings.heads == "one"
        return self.data.labels if one else class_names(self.data.labels, self.data.domains)

    @property
    def methods(self) -> list[str]:
        """The run's method, and the baseline unless it is turned off."""
        return list(dict.fromkeys([self.settings.method, *([BASELINE] if self.settings.baseline else [])]))

    def begin(self) -> Run:
        """This run, once its folder and the run.json in it are written.

        Raises:
            InputError: The folder cannot be written, or has finished steps that other settings or data made.
        """
        if distributed.on_main(self._begin) != self._sources:
            raise InputError("data, base or precision differ from the main process; use the same in all processes")
        return self

    def _begin(self) -> list[str]:
        changed, description, path = self.check_folder(), self.description(), self.folder / RUN_FILE
        before = read_run(self.folder) if path.is_file() else {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if before != description:  # several at once agree, and only read
                write_json(path, description)
            self._list_skipped(self.folder / SKIPPED_FILE)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written to ({error.strerror})") from None
        if changed:
            notice(f"{self.folder} continues with changed settings: {changed}")
        if before and before.get("data_fingerprint") != self.data.fingerprint:
            notice(f"{self.folder} continues with changed data; finished models stay, and scores are made again")
        return self._sources

    def _list_skipped(self, path: Path) -> None:
        """Write which rows the data leaves out, if any, unless that is there."""
        lines = "\n".join([*self.data.skipped, ""]) if self.data.skipped else ""
        if not lines:
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.read_text(encoding="utf-8") != lines:
            write_text(path, lines)

    @property
    def _sources(self) -> list[str]:
        """What all processes have to share."""
        return [self.fingerprints.weigh, self.data.unlabelled_fingerprint]

    def check_folder(self) -> str:
        """The settings that have changed since the folder was started, in words.

        Raises:
            InputError: The folder has finished steps that other settings or data made.
        """
        begun = read_run(self.folder) if (self.folder / RUN_FILE).is_file() else {}
        before, description = begun.get("settings", {}), self.description()
        now = description["settings"]
        changed = "; ".join(f"{n} = {now[n]}, was {value}" for n, value in before.items() if now.get(n, value) != value)
        try:
            self._refuse_other_steps()
        except InputError as error:
            other = {"data_fingerprint": "the rows of the data", "unlabelled_fingerprint": "the texts without labels"}
            rows = [what for key, what in other.items() if begun and begun.get(key) != description.get(key)]
            also = f". Changed: {' and '.join(rows)}" if rows else ""
            settings = f". Changed settings: {changed}" if changed else ""
            raise InputError(f"{error}{also}{settings}") from None
        return changed

    def _refuse_other_steps(self) -> None:
        refuse_other(self.folders.weights, self.fingerprints.weigh)
        refuse_other(self.folders.teacher, self.fingerprints.teach)
        for method, domain in product(self.methods, (None, *self.data.domains)):
            refuse_other(self.folders.student(method, domain), self.fingerprints.distill(method, domain))

    def is_student_done(self, method: str, domain: str | None) -> bool:
        """Whether a student is finished.

        Args:
            method: One of `methods`.
            domain: The student's domain, or None for the shared start.

        Raises:
            InputError: Other settings or data made it.
        """
        return is_done(self.folders.student(method, domain), self.fingerprints.distill(method, domain))

    def description(self) -> dict[str, Any]:
        """The content of run.json."""
        cost = {"precision": self.precision, "cache_budget": self.cache_budget / 1e9}
        classes = self.features.classes_by_domain
        return description_of(self.settings, self.data, self.fingerprints.models, classes, cost)

    @cached_property
    def precision(self) -> Precision:
        """The precision of the settings, or the device's native one."""
        return native_precision() if self.settings.precision == "auto" else self.settings.precision

    @cached_property
    def cache_budget(self) -> float:
        """Bytes of disk for the teacher's layers: from the settings, from run.json, or a quarter of the free disk.

        It decides for which texts the teacher runs in every epoch, and so the last bits of the students' weights.
        """
        gigabytes = self.settings.cache_budget
        if gigabytes is None and (self.folder / RUN_FILE).is_file():
            gigabytes = read_run(self.folder)["settings"].get("cache_budget")
        return free_disk(self.folder) / 4 if gigabytes is None else gigabytes * 1e9

"""Fingerprints of what each step of a run depends on: its code, settings, training rows and models."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.data.tokenization import TOKENIZER_FILES
from metakd.methods import METHODS
from metakd.methods.base import has_teacher, learns_from_labels_alone
from metakd.models.hub import resolve
from metakd.models.student import layers_to_cut
from metakd.runs.student_classes import classes_by_domain, student_classes
from metakd.utils.artifacts import STEP_VERSIONS, digest_files, fingerprint
from metakd.utils.hardware import Precision

MODEL_FILES = ("*.safetensors", "*.bin", "config.json", *TOKENIZER_FILES)

Step = Literal["weigh", "teach", "distill", "baseline"]  # the last: students of labels alone, without a teacher
ALL: tuple[Step, ...] = ("weigh", "teach", "distill", "baseline")
WEIGHTS: tuple[Step, ...] = ("weigh", "teach", "distill")
TRAINED: tuple[Step, ...] = ("teach", "distill", "baseline")
TEACHER: tuple[Step, ...] = ("teach", "distill")
STUDENTS: tuple[Step, ...] = ("distill", "baseline")
TAUGHT: tuple[Step, ...] = ("distill",)
LABELS_ALONE: tuple[Step, ...] = ("baseline",)
ROWS = "acts through the rows, which have a fingerprint"
AS_BEFORE: list[tuple[str, Any]] = [
    ("teacher_windows", 0),
    ("min_confidence", 0.0),
    ("max_share", 1.0),
    ("gold_weight", 0.5),
    ("teacher_tries", 1),
    ("teacher", None),
    ("teacher_labels", []),
    ("lora_rank", None),
    ("gradient_accumulation", 1),
    ("lora_targets", "auto"),
    ("class_weights", "none"),
]  # values with which steps do what they did before there was the setting
READING = "decides what models read when they predict, not what they learn from"
SETTING_STEPS: dict[str, tuple[Step, ...] | str] = {  # the steps whose results a setting may change, or why none
    "columns": ROWS,
    "encoding": ROWS,
    "data_config": ROWS,
    "cut": ROWS,
    "skip_bad_rows": ROWS,
    "drop_duplicates": ROWS,
    "drop_leaks": ROWS,
    "unlabelled": ROWS,
    "unlabelled_rows": ROWS,
    "max_unlabelled": ROWS,
    "soft_labels": ROWS,
    "probability_labels": ROWS,
    "label_columns": ROWS,
    "label_separator": ROWS,
    "gold_weight": TEACHER,
    "min_confidence": TAUGHT,
    "max_share": TAUGHT,
    "base": ALL,
    "student": STUDENTS,
    "labels": "acts through a student's classes, which its fingerprint names where they are not all labels",
    "class_weights": TRAINED,
    "student_init": TAUGHT,
    "max_length": ALL,
    "long_texts": READING,
    "most_windows": READING,
    "stride": READING,
    "read_length": READING,
    "method": "a student's fingerprint names the method that taught it, which may be the baseline's",
    "baseline": "decides whether there are students of the baseline, not how they learn",
    "baseline_learning_rate": LABELS_ALONE,
    "seed": TRAINED,
    "alpha": WEIGHTS,
    "weights": WEIGHTS,
    "domain_loss": TEACHER,
    "gamma1": TEACHER,
    "heads": TEACHER,
    "teacher": TEACHER,
    "teacher_labels": TEACHER,
    "teacher_epochs": TEACHER,
    "teacher_learning_rate": TEACHER,
    "lora_rank": TEACHER,
    "lora_targets": TEACHER,
    "gradient_checkpointing": "decides how much memory the teacher takes, not what it learns",
    "gradient_accumulation": TEACHER,
    "teacher_tries": TEACHER,
    "allow_weak_teacher": "decides whether students learn from a weak teacher, not how",
    "terms": TAUGHT,
    "stages": STUDENTS,
    "shared_epochs": STUDENTS,
    "shared_learning_rate": TAUGHT,
    "match_epochs": STUDENTS,
    "match_learning_rate": TAUGHT,
    "predict_epochs": STUDENTS,
    "predict_learning_rate": STUDENTS,
    "windows": STUDENTS,
    "crops": STUDENTS,
    "teacher_windows": WEIGHTS,
    "gamma2": TAUGHT,
    "temperature": TAUGHT,
    "expertise": TAUGHT,
    "attention": TAUGHT,
    "layer_map": STUDENTS,
    "start_layers": STUDENTS,
    "batch_size": TRAINED,
    "warmup": TRAINED,
    "weight_decay": TRAINED,
    "dropout": TRAINED,
    "attention_dropout": TRAINED,
    "precision": ALL,
    "cache_budget": "decides between read and computed outputs of the teacher, which differ in the last bits alone",
    "track": "shows losses, and changes none",
    "keep_cache": "decides what stays on disk",
}


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of the steps of a run with these settings, data and precision.

    Rows of dev and test are not part of them: no model learns from those.
    """

    settings: Settings
    data: MultiDomainDataset
    precision: Precision
    other_teachers: tuple[str, ...] = ()  # of other runs' meta-teachers, if those teach here

    @cached_property
    def base(self) -> dict[str, str]:
        """Digests of the base's files."""
        return digest_files(resolve(self.settings.base), MODEL_FILES)

    @cached_property
    def student(self) -> dict[str, str]:
        """Digests of the files of the checkpoint that students start from, if they are not cut from another model."""
        name = self.settings.student
        return {} if layers_to_cut(name) else digest_files(resolve(name), MODEL_FILES)

    @cached_property
    def teacher(self) -> dict[str, str]:
        """Digests of the files of the fine-tuned classifier that becomes the teacher, if there is one."""
        return digest_files(resolve(self.settings.teacher), MODEL_FILES) if self.settings.teacher else {}

    @property
    def models(self) -> dict[str, dict[str, str]]:
        """Digests of the files of each model that the run starts from."""
        teacher = {"teacher": self.teacher} if self.teacher else {}
        return {"base": self.base, "student": self.student, **teacher}

    @cached_property
    def weigh(self) -> str:
        return fingerprint("weigh", STEP_VERSIONS["weigh"], self._sources, self._values("weigh"))

    @cached_property
    def teach(self) -> str:
        """Fingerprint of the meta-teacher, or of the several that teach here."""
        if len(self.other_teachers) > 1:
            return fingerprint("several", [*self.other_teachers])
        if self.other_teachers:
            return self.other_teachers[0]
        files = [self.teacher] if self.teacher else []
        return fingerprint("teach", STEP_VERSIONS["teach"], self.weigh, self._values("teach"), *files)

    @cached_property
    def unlabelled(self) -> str:
        """Fingerprint of the weights of texts without labels, which depend on what the teacher says of them."""
        sources = self.teach, self.weigh, self.data.unlabelled_fingerprint
        classes = classes_by_domain(self.settings, self.data).values()
        return fingerprint("unlabelled", STEP_VERSIONS["distill"], *sources, *classes)

    def distill(self, method: str, domain: str | None) -> str:
        """Fingerprint of the student of `domain`, or of the shared start (None)."""
        if (method, domain) not in self._of_students:
            self._of_students[method, domain] = self._distill(method, domain)
        return self._of_students[method, domain]

    @cached_property
    def _of_students(self) -> dict[tuple[str, str | None], str]:
        return {}

    def _distill(self, method: str, domain: str | None) -> str:
        learns_from_teacher = has_teacher(METHODS[method])
        sources = [*self._sources, self.student]
        sources += [self.weigh] if "instance_weights" in METHODS[method].needs else []
        sources += [self.teach] if learns_from_teacher else []
        if METHODS[method].needs & {"teacher", "pseudo_labels"} and self.data.unlabelled:
            sources.append(self.data.unlabelled_fingerprint)
            sources += classes_by_domain(self.settings, self.data).values()  # they decide the labels of these texts
        if learns_from_labels_alone(METHODS[method]) and self.settings.base == self.settings.teacher:
            sources.append(["class head of the teacher", self.settings.teacher_labels])
        if self.data.has_soft_labels and METHODS[method].needs & {"soft_labels", "foreign_text"}:
            sources.append(["of probability 0, and class means of gold labels", 2])
        classes = student_classes(self.settings, self.data, domain)
        sources += [classes] if classes != self.data.labels else []
        values = self._values("baseline" if learns_from_labels_alone(METHODS[method]) else "distill")
        return fingerprint("distill", STEP_VERSIONS["distill"], method, domain, sources, values)

    @property
    def _sources(self) -> list[Any]:
        """What every step reads."""
        return [self.data.train_fingerprint, self.data.labels, self.data.domains, self.base]

    def _values(self, step: Step) -> dict[str, Any]:
        """The settings that may change a step's results, with what `auto` means as precision on this machine."""
        names = {name for name, steps in SETTING_STEPS.items() if not isinstance(steps, str) and step in steps}
        names -= set() if self.data.has_soft_labels else {"gold_weight"}
        values = self.settings.model_dump(mode="json", include=names)
        values = {name: value for name, value in values.items() if (name, value) not in AS_BEFORE}
        return values | ({"precision": self.precision} if "precision" in names else {})

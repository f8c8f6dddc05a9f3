"""Fingerprints of what each step of a run depends on: settings, data and models."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.methods import METHODS
from metakd.methods.base import has_teacher
from metakd.models.hub import resolve
from metakd.models.student import layers_to_cut
from metakd.utils.artifacts import digest_files, fingerprint
from metakd.utils.hardware import Precision

MODEL_FILES = ("*.safetensors", "*.bin", "config.json", "tokenizer*.json", "vocab.*")
OPTIMISATION = ("seed", "batch_size", "warmup", "weight_decay", "dropout", "attention_dropout")
WEIGH_SETTINGS = ("base", "max_length", "alpha", "weights")
TEACH_SETTINGS = ("domain_loss", "gamma1", "heads", "teacher_epochs", "teacher_learning_rate", *OPTIMISATION)
STUDENT_SETTINGS = (
    *("base", "student", "max_length", "windows", "crops", "layer_map", "start_layers", "stages"),
    *("shared_epochs", "match_epochs", "predict_epochs", "predict_learning_rate", *OPTIMISATION),
)
LABEL_SETTINGS = (*STUDENT_SETTINGS, "baseline_learning_rate")
STUDENT_OF_TEACHER_SETTINGS = (
    *(*STUDENT_SETTINGS, "student_init", "terms", "shared_learning_rate", "match_learning_rate"),
    *("gamma2", "temperature", "expertise", "attention"),
)


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of the steps of a run with these settings, data and precision."""

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
    def weigh(self) -> str:
        sources = [self.data.fingerprint, self.data.labels, self.base, self.precision]
        return fingerprint("weigh", sources, self._values(WEIGH_SETTINGS))

    @cached_property
    def teach(self) -> str:
        """Fingerprint of the meta-teacher, or of the several that teach here."""
        if len(self.other_teachers) > 1:
            return fingerprint("several", [*self.other_teachers])
        if self.other_teachers:
            return self.other_teachers[0]
        return fingerprint("teach", self.weigh, self._values(TEACH_SETTINGS))

    def distill(self, method: str, domain: str | None) -> str:
        """Fingerprint of the student of `domain`, or of the shared start (None)."""
        learns_from_teacher = has_teacher(METHODS[method])
        sources = [self.data.fingerprint, self.data.labels, self.base, self.student, self.precision]
        sources += [self.weigh] if "instance_weights" in METHODS[method].needs else []
        sources += [self.teach] if learns_from_teacher else []
        values = self._values(STUDENT_OF_TEACHER_SETTINGS if learns_from_teacher else LABEL_SETTINGS)
        return fingerprint("distill", method, domain, sources, values)

    def _values(self, names: Sequence[str]) -> dict[str, Any]:
        return self.settings.model_dump(mode="json", include=set(names))

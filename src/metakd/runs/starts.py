"""The models that a run starts from."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from metakd.config.settings import Settings
from metakd.models.hub import resolve
from metakd.models.loading import load_encoder, load_fine_tuned
from metakd.utils.errors import InputError, flag


def check_outside(settings: Settings, folder: Path) -> None:
    """Raise InputError for a model inside the run's own folder, which the run replaces."""
    for name in ("base", "teacher", "student"):
        place = Path(getattr(settings, name) or "")
        if place.is_dir() and folder.resolve() in place.resolve().parents:
            raise InputError(f"{flag(name)} {place}: is in --output, which is replaced; choose another --output")


def load_base(settings: Settings, labels: Sequence[str]) -> PreTrainedModel:
    """The base with a class for each of `labels`; with its class head, if it is --teacher as well."""
    if settings.base == settings.teacher:
        return load_teacher_to_be(settings, labels)
    return load_encoder(resolve(settings.base), labels)


def load_teacher_to_be(settings: Settings, labels: Sequence[str]) -> PreTrainedModel:
    """What becomes the meta-teacher: --teacher with the rows of its class head that belong to `labels`, or the base."""
    if settings.teacher is None:
        return load_encoder(resolve(settings.base), labels)
    return load_fine_tuned(resolve(settings.teacher), labels, settings.teacher_labels)

"""The models that a run starts from."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from metakd.config.settings import Settings
from metakd.models.adapters import check_recomputes
from metakd.models.class_head import SEVERAL
from metakd.models.hub import resolve
from metakd.models.loading import (
    blank_encoder,
    head_rows,
    load_config,
    load_encoder,
    load_fine_tuned,
    load_tokenizer,
    same_tokenizer,
)
from metakd.utils.console import notice
from metakd.utils.errors import InputError, flag

SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads")  # that a base and --teacher share


def check_outside(settings: Settings, folder: Path) -> None:
    """Raise InputError for a model inside the run's own folder, which the run replaces."""
    for name in ("base", "teacher", "student"):
        value = getattr(settings, name)
        if value and folder.resolve() in (place := Path(value).expanduser().resolve()).parents and place.is_dir():
            raise InputError(f"{flag(name)} {value}: is in --output, which is replaced; choose another --output")


def check_teacher_fits(settings: Settings, labels: Sequence[str], several: bool) -> None:
    """Raise InputError for a teacher that cannot become the meta-teacher.

    It has to recompute activations if it is asked to, and a --teacher to have a class for each label, to be a
    fine-tuned --base, and to give a text `several` labels where the data does.
    """
    if settings.gradient_checkpointing:
        check_recomputes(blank_encoder(resolve(settings.base), labels))
    if not settings.teacher:
        return
    teacher, base = resolve(settings.teacher), resolve(settings.base)
    head_rows(teacher, labels, settings.teacher_labels)
    ours, theirs = load_config(teacher), load_config(base)
    if (ours.problem_type == SEVERAL) != several:
        gives, has = ("one label", "several labels") if several else ("several labels", "one label")
        raise InputError(f"{teacher}: gives a text {gives}, but the data {has}; use --base instead of --teacher")
    differences = [name for name in SHAPE if getattr(ours, name) != getattr(theirs, name)]
    if not same_tokenizer(load_tokenizer(teacher), load_tokenizer(base)):
        differences.append("tokenizer")
    if differences:
        raise InputError(
            f"--base = {settings.base!r}: {teacher} is not a fine-tuned version of it, as they differ in "
            f"{', '.join(differences)}; leave --base out, so that --teacher takes its place"
        )
    if settings.baseline and settings.base == settings.teacher:
        notice(
            "the baseline starts from --teacher, so it is better than one on labels alone; --base names another start"
        )


def load_base(settings: Settings, labels: Sequence[str]) -> PreTrainedModel:
    """The base with a class for each of `labels`; with its classification head, if it is --teacher as well."""
    if settings.base == settings.teacher:
        return load_teacher_to_be(settings, labels)
    return load_encoder(resolve(settings.base), labels)


def load_teacher_to_be(settings: Settings, labels: Sequence[str]) -> PreTrainedModel:
    """What becomes the meta-teacher: --teacher with the rows of its head that belong to `labels`, or the base."""
    if settings.teacher is None:
        return load_encoder(resolve(settings.base), labels)
    return load_fine_tuned(resolve(settings.teacher), labels, settings.teacher_labels)

"""Faults of settings, in words: of one alone, and of several together."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.data.schema import FIELDS, SOFT
from metakd.data.splits import parse_cut
from metakd.utils.errors import InputError, flag, listed, shown
from metakd.utils.validation import damage


def faults_between(settings: Any) -> list[str]:
    """One message for each fault of `settings.Settings`, which this module cannot import."""
    faults = [f"{flag(k)}: {fault}" for k, value in settings if isinstance(value, str) and (fault := damage(value))]
    faults += [
        f"--columns: write FIELD=COLUMN (fields: {', '.join(FIELDS)}), not {listed([name])}={listed([column])}"
        for name, column in settings.columns.items()
        if name not in FIELDS or not column
    ]
    faults += _faults_of_labels(settings)
    try:
        parse_cut(settings.cut)
    except InputError as error:
        faults.append(error.args[0])
    if not (settings.unlabelled or settings.unlabelled_rows):
        faults += [
            f"{flag(name)}: chooses among texts without labels; add --unlabelled or --unlabelled-rows"
            for name in ("max_unlabelled", "min_confidence", "max_share")
            if getattr(settings, name) != type(settings).model_fields[name].default
        ]
    if not settings.soft_labels:
        needing = [f"--columns {name}" for name in SOFT if name in settings.columns]
        needing += ["--probability-labels"] * bool(settings.probability_labels)
        defaults = (type(settings).model_fields["gold_weight"].default, 0.5)  # today's, and that of earlier runs
        needing += ["--gold-weight"] * (settings.gold_weight not in defaults)
        needing += ["--method soft_labels"] * (settings.method == "soft_labels")
        faults += [f"{option}: add --soft-labels, which reads probabilities and teacher_label" for option in needing]
    faults += _faults_of_teacher(settings)
    from_teacher = settings.student_init == "teacher" and settings.student.startswith("layers")
    two, predicts = settings.stages == "two", "prediction" in settings.terms
    if 2 * settings.stride >= settings.max_length:
        half = f"less than half of --max-length, which is {settings.max_length}"
        faults.append(f"--stride = {settings.stride}: at most {(settings.max_length - 1) // 2}, {half}")
    if not settings.terms or len(set(settings.terms)) != len(settings.terms):
        faults.append("--terms: list at least one term, and each only once")
    if two and not predicts:
        faults.append("--stages two needs the term 'prediction' in its second stage; add it to --terms")
    elif not predicts and not from_teacher:
        faults.append("--terms: without 'prediction', a student that does not start from the teacher learns no classes")
    if two and settings.match_epochs and set(settings.terms) == {"prediction"}:
        faults.append("--match-epochs: the first stage has no term to learn from; set it to 0, or add to --terms")
    if not two and settings.match_epochs:
        faults.append("--match-epochs: only --stages two has a first stage; choose it, or leave this at 0")
    if not (settings.shared_epochs or settings.predict_epochs or (two and settings.match_epochs)):
        faults.append("--predict-epochs: without a shared start or a first stage, at least 1 is needed")
    return faults


def without_effect(typed: Collection[str], settings: Any) -> list[str]:
    """A fault for each of the `typed` settings that does nothing beside the others."""
    ways = {"most_windows": ("mean", "adaptive"), "stride": ("mean", "adaptive"), "read_length": ("longer",)}
    idle = {name: f"--long-texts {settings.long_texts}" for name, of in ways.items() if settings.long_texts not in of}
    if not settings.student.startswith("layers="):
        idle["student_init"] = "a checkpoint as --student"
    if not settings.teacher_epochs:
        idle["teacher_learning_rate"] = "--teacher-epochs 0"
    return [f"{flag(name)}: has no effect with {why}; leave it out" for name, why in idle.items() if name in typed]


def _faults_of_labels(settings: Any) -> list[str]:
    """Faults between what says which labels a text has, if it may have several."""
    columns, faults = settings.label_columns, list[str]()
    if taken := [name for name in columns if name in FIELDS]:
        faults.append(f"--label-columns: {listed(taken)} is read as something else; rename the column in the data")
    if len({*columns}) != len(columns) or len(columns) == 1:
        faults.append("--label-columns: name at least two columns, and each only once")
    if columns and settings.label_separator:
        faults.append("--label-columns, --label-separator: a table writes labels in one of the two ways; leave one out")
    if columns and settings.unlabelled_rows:
        faults.append("--unlabelled-rows: with --label-columns, an empty cell means no; leave one out")
    if columns and "label" in settings.columns:
        faults.append("--columns label: is one column, and --label-columns are several; leave one out")
    for option, chosen in {"label-columns": columns, "label-separator": settings.label_separator}.items():
        if chosen and "labels" in settings.columns:
            faults.append(f"--columns labels: is a column of lists; leave it out, or --{option}")
    return faults


def _faults_of_teacher(settings: Any) -> list[str]:
    """Faults between --teacher and what goes with it."""
    if settings.teacher and settings.heads == "domain":
        return ["--heads domain: a fine-tuned --teacher has one classification head for all domains; leave it out"]
    if settings.teacher == "":
        return ["--teacher: is empty; name a folder or a model id"]
    if settings.teacher and "=" in settings.teacher and not Path(settings.teacher).exists():
        label = "`metakd label --model DOMAIN=DIR --model ...` writes their probabilities, which --soft-labels reads"
        return [f"--teacher {settings.teacher}: takes one classifier for all domains; of several, {label}"]
    faults = []
    if settings.soft_labels and settings.teacher and not settings.teacher_epochs and settings.method != "soft_labels":
        faults.append("--soft-labels: --teacher stays as it is; leave one out, or add --teacher-epochs")
    if not settings.teacher and not settings.teacher_epochs:
        faults.append("--teacher-epochs 0: add --teacher, a fine-tuned classifier; else at least 1 is needed")
    if not settings.teacher and settings.teacher_labels:
        faults.append("--teacher-labels: add --teacher, whose classes it names")
    if settings.lora_rank is None and settings.lora_targets != "auto":
        faults.append("--lora-targets: add --lora-rank")
    if settings.gradient_accumulation > 1 and settings.domain_loss == "permuted":
        faults.append("--gradient-accumulation: --domain-loss permuted shuffles whole batches; leave one out")
    learning = {"--lora-rank": settings.lora_rank, "--gradient-checkpointing": settings.gradient_checkpointing}
    learning["--gradient-accumulation"] = settings.gradient_accumulation > 1
    if not settings.teacher_epochs:
        still = "--teacher stays as it is; add --teacher-epochs to fine-tune it further"
        faults += [f"{option}: {still}" for option, value in learning.items() if value]
    return faults


def explained(fault: Mapping[str, Any], names: Sequence[str]) -> str:
    """pydantic's fault in our words; `names` are those of all settings."""
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, names, n=1)
        return f"{listed([name])}: no such setting" + (f"; did you mean {near[0]!r}?" if near else "")
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{flag(name)} = {shown(fault['input'])}: {message}" if name else message

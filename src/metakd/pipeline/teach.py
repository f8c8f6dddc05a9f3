"""The second step: the base becomes the meta-teacher, fine-tuned on all domains [Meta-KD, 3.2].

Or a classifier that is fine-tuned already becomes it as it is.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, set_seed

from metakd.data.tokenization import Array
from metakd.models.adapters import Adapter, low_rank_updates, recomputed_activations
from metakd.models.class_head import start_at_shares
from metakd.models.forward_passes import embed
from metakd.models.hub import resolve
from metakd.models.loading import load_encoder, set_dropout, set_problem
from metakd.models.meta_teacher import HEAD_FILE, MetaTeacher, RepresentationLearner, TeacherEnsemble, freeze
from metakd.pipeline.checks import (
    check_reloaded,
    checked_rows,
    near_chance,
    probe,
    refuse_near_chance,
    sampled_accuracy,
)
from metakd.runs.folders import ADAPTER
from metakd.runs.run import Run
from metakd.runs.starts import load_teacher_to_be
from metakd.training.trackers import LOGS_FOLDER
from metakd.training.trainer import LossError, TrainingPlan, fit
from metakd.utils import distributed
from metakd.utils.artifacts import is_done, read_manifest, step_folder
from metakd.utils.console import notice
from metakd.utils.errors import as_input_error
from metakd.utils.hardware import device
from metakd.utils.locks import run_lock

RATES = (1, 4, 0.25)  # times the learning rate, one for each of --teacher-tries
H_EPOCHS, H_RATE = 10, 1e-3  # of h on a frozen encoder


def load_teacher(run: Run) -> MetaTeacher:
    """The finished teacher, frozen, with its domain head; several teachers as one ensemble."""
    members = []
    for teacher_run in run.teacher_runs:
        folder = teacher_run.folders.teacher
        members.append(_meta_teacher(teacher_run, load_encoder(folder, teacher_run.teacher_classes, whole=True)))
        members[-1].load_head(folder)
    return freeze(members[0] if len(members) == 1 else TeacherEnsemble(members, len(run.teacher_domains))).to(device())


def _meta_teacher(run: Run, encoder: PreTrainedModel) -> MetaTeacher:
    set_problem(encoder, run.data.several_labels)
    heads = len(run.teacher_classes) // len(run.data.labels)
    return MetaTeacher(encoder, len(run.data.domains), run.settings.domain_loss, run.settings.gamma1, heads)


def _untrained(run: Run) -> MetaTeacher:
    """The teacher before it learns here: the base, or --teacher with its classes and, if it has learnt it, its h."""
    settings = run.settings
    set_seed(settings.seed)
    teacher = _meta_teacher(run, load_teacher_to_be(settings, run.teacher_classes))
    if settings.teacher and _has_h(run):
        folder = resolve(settings.teacher)
        with as_input_error(f"{folder / HEAD_FILE}: cannot be read"):
            teacher.load_head(folder)
    teacher.encoder.config.text_pairs = run.data.has_pairs
    if run.data.several_labels:
        start_at_shares(teacher.encoder, run.features.shares(run.data.train))
    return teacher


def _has_h(run: Run) -> bool:
    """Whether --teacher has learnt h as it would here: from the same domains, by the same loss."""
    manifest = read_manifest(resolve(run.settings.teacher)) if run.settings.teacher else None
    return manifest is not None and manifest.get("h") == _teaching_of_h(run)


def _teaching_of_h(run: Run) -> dict[str, Any]:
    return {"domains": run.data.domains, "domain_loss": run.settings.domain_loss, "gamma1": run.settings.gamma1}


def _weights(run: Run, rows: Array) -> dict[str, Array]:
    """t of the text of each window, and, if there are several of a text, the share of each: 1 on average.

    `rows` (N + W,) are the windows' rows in train.
    """
    columns = {"instance_weights": np.array(run.features.instance_weights(run.data.train))[rows]}
    if len(rows) > len(run.data.train):
        columns["shares"] = (len(rows) / len(run.data.train) / np.bincount(rows))[rows]
    return columns


def score_as_it_is(run: Run) -> None:
    """Say how accurate a --teacher is that will not be trained, before anything is made with it.

    Raises:
        InputError: It is near chance.
    """
    if run.settings.teacher_epochs or is_done(run.folders.teacher, run.fingerprints.teach):
        return
    teacher, (split, rows) = _untrained(run), checked_rows(run.data)
    teacher.encoder.to(device())
    check = sampled_accuracy(run, teacher, rows) | {"split": split}
    measure = "micro-F1" if run.data.several_labels else "accuracy"
    notice(f"--teacher, as it is: {measure} {check['accuracy']:.3f} on {check['examples']} rows of {split}")
    refuse_near_chance(run, check)


def teach(run: Run) -> Path:
    """The folder of the meta-teacher: the base, fine-tuned on all domains by L_T [Meta-KD, 3.2].

    Args:
        run: The run, begun and weighed; a finished step stays as it is.

    Returns:
        A Hugging Face folder.

    Raises:
        InputError: There are no instance weights, a loss is not finite, or another process uses the folder.
        CheckError: The reloaded teacher predicts differently.
    """
    checkpoints = run.folders.checkpoints("meta_teacher", run.fingerprints.teach)
    with run_lock(run.folder):
        if not distributed.on_main(lambda: is_done(run.folders.teacher, run.fingerprints.teach)):
            _teach(run, checkpoints)
            distributed.wait_for_main()
        shutil.rmtree(checkpoints, ignore_errors=True)
    return run.folders.teacher


def _teach(run: Run, checkpoints: Path) -> None:
    """Train the teacher, again at other rates while it stays near chance on its own text; the best one is kept."""
    settings, best = run.settings, -1.0
    facts: dict[str, Any] = {"precision": run.precision, "tries": []}
    with step_folder(run.folders.teacher, "teach", run.fingerprints.teach, facts) as folder:
        if not settings.teacher_epochs:
            as_it_is, facts["log"] = _as_it_is(run, checkpoints)
            facts |= distributed.on_main(lambda: _save(run, as_it_is, folder))
            return
        for number in range(settings.teacher_tries):
            rate, name = RATES[number] * settings.teacher_learning_rate, "teach all domains"
            place = checkpoints / f"rate_{number}" if number else checkpoints
            try:
                teacher, adapter, log = _train(run, rate, place, f"{name}, try {number + 1}" if number else name)
            except LossError as error:
                if not number:
                    raise
                facts["tries"].append({"learning_rate": rate, "failed": str(error)})
                notice(f"at the rate {rate:g}, {error}")
                continue
            learnt = distributed.on_main(partial(sampled_accuracy, run, teacher, run.data.train))
            if learnt["accuracy"] > best and distributed.is_main():
                facts |= _save(run, teacher, folder, adapter) | {"learning_rate": rate, "log": log}
            best = max(best, learnt["accuracy"])
            facts["tries"].append({"learning_rate": rate, "on_training_rows": learnt})
            if not near_chance(learnt):
                break
            if number + 1 < settings.teacher_tries:
                notice(f"at the rate {rate:g}, the meta-teacher stays near chance on its own text; it is trained again")
            del teacher, adapter  # a GPU may have no room for two


def _train(
    run: Run, learning_rate: float, checkpoints: Path, name: str
) -> tuple[MetaTeacher, Adapter, list[dict[str, float]]]:
    """A teacher, trained at this rate from the base, its adapter, and its log; `name` is shown beside the progress."""
    settings = run.settings
    texts, text_rows = run.features.teacher_texts(run.data.train)
    features = run.features.encode(texts).with_columns(**_weights(run, text_rows), **run.features.soft_labels(texts))
    by_class = run.features.class_weights(features.column("labels")[: len(run.data.train)])  # of texts, not windows
    features = features.with_columns(**{name: weights[text_rows] for name, weights in by_class.items()})
    epochs, logs = settings.teacher_epochs, run.folder / LOGS_FOLDER
    parts = settings.gradient_accumulation
    plan = TrainingPlan(name, epochs, learning_rate, checkpoints, settings, run.precision, logs=logs, parts=parts)
    teacher = _untrained(run)
    set_dropout(teacher.encoder, settings.dropout, settings.attention_dropout)
    half = run.precision == "bfloat16" and device().type == "cuda"
    updates = low_rank_updates(teacher.encoder, settings.lora_rank, settings.lora_targets, half)
    with updates as adapter, recomputed_activations(teacher.encoder, settings.gradient_checkpointing):
        log = fit(teacher, features, run.features.collator, plan)
    return teacher, adapter, log


def _as_it_is(run: Run, checkpoints: Path) -> tuple[MetaTeacher, list[dict[str, float]]]:
    """--teacher, and the log of its h, which it learns from E(x) alone unless it has learnt it from these domains."""
    teacher = _untrained(run).to(device())
    if not teacher.learns_h or _has_h(run):
        return teacher, []
    texts, text_rows = run.features.teacher_texts(run.data.train)
    features, name = run.features.encode(texts), "read all domains with the teacher"
    teacher.encoder.requires_grad_(False)
    pooled = torch.zeros(len(texts), teacher.encoder.config.hidden_size)
    embed(teacher.encoder, features, run.features.collator, name, run.precision, pooled)
    features = features.with_columns(pooled=pooled.numpy(), **_weights(run, text_rows))
    plan = TrainingPlan("learn h", H_EPOCHS, H_RATE, checkpoints, run.settings, run.precision)
    return teacher, fit(RepresentationLearner(teacher), features, run.features.collator, plan)


def _save(run: Run, teacher: MetaTeacher, folder: Path, adapter: Adapter | None = None) -> dict[str, Any]:
    """Write a teacher to `folder`, merged and as an adapter, if it has one; its check and its probe, for the manifest.

    What an earlier try wrote is replaced.
    """
    tokenizer, (split, rows) = run.features.tokenizer, checked_rows(run.data)
    teacher.save(folder)
    tokenizer.save_pretrained(folder)
    if adapter is not None and adapter.weights:
        shutil.rmtree(folder / ADAPTER, ignore_errors=True)
        base = run.settings.teacher or run.settings.base
        local = Path(base).expanduser()
        adapter.save(folder / ADAPTER, str(local.resolve()) if local.is_dir() else base)
    check = check_reloaded(run, folder, teacher.encoder, tokenizer, rows, split)
    h = {"h": _teaching_of_h(run)} if teacher.learns_h else {}
    return {"check": check, "domain_probe": probe(run, teacher, rows), **h}

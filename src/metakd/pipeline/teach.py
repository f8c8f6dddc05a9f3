"""The second step: the base becomes the meta-teacher, fine-tuned on all domains [Meta-KD, 3.2]."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import set_seed

from metakd.data.tokenization import Collator
from metakd.models.hub import resolve
from metakd.models.loading import load_encoder, set_dropout
from metakd.models.meta_teacher import MetaTeacher, freeze
from metakd.models.teacher_ensemble import TeacherEnsemble
from metakd.pipeline.checks import check_reloaded, probe
from metakd.runs.run import Run
from metakd.training.trackers import LOGS_FOLDER
from metakd.training.trainer import TrainingPlan, fit
from metakd.utils import distributed
from metakd.utils.artifacts import is_done, step_folder
from metakd.utils.hardware import device
from metakd.utils.locks import run_lock


def load_teacher(run: Run) -> MetaTeacher:
    """The finished teacher, frozen, with its domain head; where several teach, all of them as one."""
    members = [_load_one(teacher_run) for teacher_run in run.teachers]
    return freeze(members[0] if len(members) == 1 else TeacherEnsemble(members, len(run.teacher_domains))).to(device())


def _load_one(run: Run) -> MetaTeacher:
    folder, labels, settings = run.teacher_folder, run.teacher_labels, run.settings
    encoder = load_encoder(folder, labels, whole=True)
    heads = len(labels) // len(run.data.labels)
    teacher = MetaTeacher(encoder, len(run.data.domains), settings.domain_loss, settings.gamma1, heads)
    teacher.load_head(folder)
    return teacher


def teach(run: Run) -> Path:
    """The meta-teacher: the base, fine-tuned on all domains by L_T [Meta-KD, 3.2]."""
    mark = run.teach_fingerprint
    checkpoints = run.checkpoint_folder("meta_teacher", mark)
    with run_lock(run.folder):
        if not distributed.on_main(lambda: is_done(run.teacher_folder, mark)):
            _teach(run, mark, checkpoints)
            distributed.wait_for_main()
        shutil.rmtree(checkpoints, ignore_errors=True)
    return run.teacher_folder


def _teach(run: Run, mark: str, checkpoints: Path) -> None:
    settings, data, facts = run.settings, run.data, dict[str, Any]()
    weights = run.instance_weights(data.train)
    features = run.features(data.train, run.tokenizer).with_columns(instance_weights=weights)
    plan = TrainingPlan(
        "teach all domains",
        settings.teacher_epochs,
        settings.teacher_learning_rate,
        checkpoints,
        settings,
        run.precision,
        logs=run.folder / LOGS_FOLDER,
    )
    with step_folder(run.teacher_folder, "teach", mark, facts) as partial:
        set_seed(settings.seed)
        encoder = load_encoder(resolve(settings.base), run.teacher_labels)
        set_dropout(encoder, settings.dropout, settings.attention_dropout)
        heads = len(run.teacher_labels) // len(data.labels)
        teacher = MetaTeacher(encoder, len(data.domains), settings.domain_loss, settings.gamma1, heads)
        facts |= {"precision": run.precision}
        facts["log"] = fit(teacher, features, Collator(run.tokenizer.pad_token_id), plan)
        if distributed.is_main():
            teacher.save(partial)
            run.tokenizer.save_pretrained(partial)
            dev = data.splits.get("dev", [])
            facts["check"] = check_reloaded(run, partial, encoder, run.tokenizer, data.train, dev)
            facts["domain_probe"] = probe(run, teacher, dev or data.train)

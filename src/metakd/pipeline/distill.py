"""The third step: one student for each domain, taught by a method [Meta-KD, 3.3]."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import set_seed

from metakd.data.samplers import updates_a_pass
from metakd.data.tokenization import Collator, Encoded
from metakd.methods import METHODS
from metakd.methods.base import Method, Setup, has_teacher
from metakd.models.attention import attend_here
from metakd.models.hub import resolve
from metakd.models.layer_map import map_layers
from metakd.models.loading import load_encoder, load_tokenizer, same_tokenizer, set_dropout
from metakd.models.student import cut_student, layers_to_cut
from metakd.pipeline.checks import check_reloaded, check_teacher, expertise, transfer
from metakd.pipeline.student_jobs import StudentJob
from metakd.pipeline.teach import load_teacher
from metakd.pipeline.teacher_outputs import _memory, drop_teacher_cache
from metakd.runs.run import EXTRAS_FILE, Run
from metakd.training.distillation_module import CACHE_ROW, Distillation
from metakd.training.teacher_cache import TeacherCache
from metakd.training.trackers import LOGS_FOLDER
from metakd.training.trainer import MetaValidation, TrainingPlan, fit
from metakd.utils import distributed
from metakd.utils.artifacts import is_done, step_folder
from metakd.utils.errors import InputError
from metakd.utils.hardware import device
from metakd.utils.locks import waiting_lock


def distill(run: Run, domain: str, method: str | None = None) -> Path:
    """One student for `domain`, taught by the method (by default the run's) on the domain's training examples."""
    return distill_all(run, [domain], [method or run.settings.method])[0]


def distill_all(run: Run, domains: Sequence[str], methods: Sequence[str]) -> list[Path]:
    """A student for each method and domain, all by one memory of the teacher; those that are done stay as they are."""
    strange = [method for method in methods if method not in run.stages]
    if strange:
        raise InputError(f"method = {strange[0]!r}: this run has {', '.join(run.stages)}")
    jobs: list[StudentJob] = []
    for method in methods:
        own = StudentJob.fleet(run, method, dict.fromkeys(domains))
        missing = [job for job in own if not _is_learnt(run, job)]
        start = StudentJob.shared_by(run, method)
        if missing and start is not None and not _is_learnt(run, start):
            missing.insert(0, start)
        jobs += missing
    if any(has_teacher(METHODS[job.method]) for job in jobs):
        distributed.on_main(lambda: check_teacher(run))
    taught = [job for job in jobs if "teacher" in METHODS[job.method].needs]
    cache = _memory(run, taught) if taught else None
    for job in taught:
        _distill(run, job, cache)
    if not run.settings.keep_cache:
        drop_teacher_cache(run)
    for job in jobs:
        if job not in taught:
            _distill(run, job, None)
    return [run.student_folder(method, domain) for method in methods for domain in domains]


# --- One student --------------------------------------------------------------------------------------------------


def _distill(run: Run, job: StudentJob, cache: TeacherCache | None) -> None:
    """Teach one student by the method's shared stages, or by those of its own domain."""
    checkpoints = _checkpoints(run, job)
    with waiting_lock(checkpoints.with_suffix(".lock"), f"trains {job.folder.name}"):
        if not distributed.on_main(lambda: is_done(job.folder, job.mark)):  # by another, since they were listed
            _train(run, job, cache, checkpoints)
            distributed.wait_for_main()
        shutil.rmtree(checkpoints, ignore_errors=True)


def _is_learnt(run: Run, job: StudentJob) -> bool:
    """Whether the student is there; what a process that was killed just after has left of its training goes."""
    done = distributed.on_main(lambda: is_done(job.folder, job.mark))
    if done:
        shutil.rmtree(_checkpoints(run, job), ignore_errors=True)
    return done


def _checkpoints(run: Run, job: StudentJob) -> Path:
    return run.checkpoint_folder(f"{job.method}-{job.folder.name}", job.mark)


def _train(run: Run, job: StudentJob, cache: TeacherCache | None, checkpoints: Path) -> None:
    kind = METHODS[job.method]
    facts: dict[str, Any] = {"method": job.method, "precision": run.precision, "log": {}}
    set_seed(run.settings.seed)
    shared = job.domain is not None and any(stage.shared for stage in run.stages[job.method])
    start = run.shared_folder(job.method) if shared else None
    setup, tokenizer = _set_up(run, kind, job, start)
    with step_folder(job.folder, "distill", job.mark, facts) as partial:
        method, student, teacher = kind.build(setup), setup.student, setup.teacher
        stages = job.own(run.lengthened(job.method, method.stages()))
        features = _features(run, job, tokenizer, cache, facts)
        if cache is not None:
            if "instance_weights" in kind.needs and run.settings.expertise != "none":
                facts["expertise"] = expertise(run, job.examples, cache)
            rows = features.column(CACHE_ROW)
            teacher = None if all(cache.holds(rows, stage.layers) for stage in stages) else teacher
        if teacher is not None and not setup.student_is_cut:  # live, it reads its own tokens, as it did for the cache
            features = features.with_teacher_tokens(run.features(job.examples, run.tokenizer))
        del setup  # and with it a teacher that is needed no more
        learner = Distillation(student, method, teacher, cache).to(device())
        held_out = (
            MetaValidation(run.features(job.held_out, tokenizer), learner.before_update) if job.held_out else None
        )
        if start is not None:
            learner.extras.load_state_dict(load_file(start / EXTRAS_FILE))
        collator = Collator(tokenizer.pad_token_id, run.tokenizer.pad_token_id)
        title = f"{job.method} {job.domain or 'all domains'}"
        for stage in stages:
            learner.enter(stage)
            named, place = f"{title}: {stage.name}", checkpoints / stage.name
            how = stage.epochs, stage.learning_rate, place, run.settings, run.precision
            plan = TrainingPlan(named, *how, "all_domains" in kind.needs, run.folder / LOGS_FOLDER)
            facts["log"][stage.name] = fit(learner, features, collator, plan, held_out)
        attend_here(student)
        if distributed.is_main():
            student.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            if job.domain is None:
                save_file(learner.extras.state_dict(), partial / EXTRAS_FILE)
            texts = [] if job.dev else job.whole_texts(run)  # it takes rows times domains
            facts["check"] = check_reloaded(run, partial, student, tokenizer, texts, job.dev)


def _features(run: Run, job: StudentJob, tokenizer: Any, cache: TeacherCache | None, facts: dict[str, Any]) -> Encoded:
    """What the student learns from, as tokens, with what else its method needs of each example."""
    features = run.features(job.examples, tokenizer)
    if "instance_weights" in METHODS[job.method].needs:
        features = features.with_columns(instance_weights=run.instance_weights(job.examples))
    if cache is not None:
        features = features.with_columns(**{CACHE_ROW: cache.rows([e.id for e in job.examples])})
    if cache is not None and job.domain is not None and "foreign_text" in METHODS[job.method].needs:
        weights, facts["transfer"] = transfer(run, job.examples, job.domain, cache)
        features = features.with_columns(transfer=weights.numpy())
    return features


def _set_up(run: Run, kind: type[Method], job: StudentJob, start: Path | None) -> tuple[Setup, Any]:
    """Teacher and student as `kind` needs them, the student begun from `start` if there is one, and its tokenizer."""
    settings, data = run.settings, run.data
    teacher = load_teacher(run) if has_teacher(kind) else None
    num_layers = layers_to_cut(settings.student)
    if start is not None or num_layers is None:
        folder = start or resolve(settings.student)
        student, tokenizer = load_encoder(folder, data.labels), load_tokenizer(folder, settings.max_length)
    else:
        from_teacher = teacher is not None and settings.student_init == "teacher"
        source = teacher.encoder if teacher and from_teacher else load_encoder(resolve(settings.base), data.labels)
        layers = map_layers(num_layers, source.config.num_hidden_layers, settings.layer_map)
        student, tokenizer = cut_student(source, layers, data.labels), run.tokenizer
    set_dropout(student, settings.dropout, settings.attention_dropout)
    same_tokens = num_layers is not None or same_tokenizer(tokenizer, run.tokenizer)
    sizes = len(job.examples) + len(job.held_out), len(data.train)
    own, of_all = (updates_a_pass(size, settings.batch_size) for size in sizes)
    known, is_cut = len(run.teacher_domains), num_layers is not None
    return Setup(settings, student, is_cut, teacher, same_tokens, known, own, of_all, run.precision), tokenizer

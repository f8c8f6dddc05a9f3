"""The third step: one student for each domain, taught by a method [Meta-KD, 3.3]."""

import gc
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import set_seed

from metakd.data.samplers import updates_per_epoch
from metakd.data.tokenization import Collator, Encoded
from metakd.methods import METHODS
from metakd.methods.base import Setup, has_teacher
from metakd.models.attention import set_attention
from metakd.models.hub import resolve
from metakd.models.layer_map import map_layers
from metakd.models.loading import load_encoder, load_tokenizer, same_tokenizer, set_dropout
from metakd.models.student import cut_student, layers_to_cut
from metakd.pipeline.checks import check_reloaded, check_teacher, expertise_spread, transfer
from metakd.pipeline.student_jobs import StudentJob
from metakd.pipeline.teach import load_teacher
from metakd.pipeline.teacher_outputs import drop_teacher_cache, open_teacher_cache
from metakd.runs.folders import EXTRAS_FILE
from metakd.runs.run import Run
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
    """A student for each method and domain, all from the same cached teacher; finished ones stay as they are."""
    if unknown := [method for method in methods if method not in run.stages]:
        raise InputError(f"method = {unknown[0]!r}: this run has {', '.join(run.stages)}")
    jobs: list[StudentJob] = []
    for method in methods:
        missing = [job for job in StudentJob.for_domains(run, method, dict.fromkeys(domains)) if not _is_done(run, job)]
        start = StudentJob.of_shared_start(run, method)
        jobs += [start] if missing and start is not None and not _is_done(run, start) else []
        jobs += missing
    if any(has_teacher(METHODS[job.method]) for job in jobs):
        distributed.on_main(lambda: check_teacher(run))
    gc.freeze()  # Trainer collects garbage before every training: over the rows of all domains that takes seconds
    try:
        _distill_jobs(run, jobs)
    finally:
        gc.unfreeze()
    return [run.folders.student(method, domain) for method in methods for domain in domains]


def _distill_jobs(run: Run, jobs: Sequence[StudentJob]) -> None:
    """Those that read the cached teacher first, so that its outputs can be dropped."""
    cached = [job for job in jobs if "teacher" in METHODS[job.method].needs]
    cache = open_teacher_cache(run, [*dict.fromkeys(job.method for job in cached)]) if cached else None
    for job in cached:
        _distill(run, job, cache)
    if not run.settings.keep_cache:
        drop_teacher_cache(run)
    for job in jobs:
        if job not in cached:
            _distill(run, job, None)


def _is_done(run: Run, job: StudentJob) -> bool:
    """Whether the student is there; what a process that was killed just after has left of its training is removed."""
    done = distributed.on_main(lambda: is_done(job.folder, job.fingerprint))
    if done:
        shutil.rmtree(job.checkpoints(run), ignore_errors=True)
    return done


def _distill(run: Run, job: StudentJob, cache: TeacherCache | None) -> None:
    """Train one student, unless another process has since the jobs were listed."""
    checkpoints = job.checkpoints(run)
    with waiting_lock(checkpoints.with_suffix(".lock"), f"trains {job.folder.name}"):
        if not distributed.on_main(lambda: is_done(job.folder, job.fingerprint)):
            _train(run, job, cache, checkpoints)
            distributed.wait_for_main()
        shutil.rmtree(checkpoints, ignore_errors=True)


def _train(run: Run, job: StudentJob, cache: TeacherCache | None, checkpoints: Path) -> None:
    """Train one student by the stages of its job, and write it into its folder."""
    facts: dict[str, Any] = {"method": job.method, "precision": run.precision, "log": {}}
    set_seed(run.settings.seed)
    shared = job.domain is not None and any(stage.shared for stage in run.stages[job.method])
    start = run.folders.shared_student(job.method) if shared else None
    setup, tokenizer = _set_up(run, job, start)
    with step_folder(job.folder, "distill", job.fingerprint, facts) as partial:
        method, student, teacher = METHODS[job.method].build(setup), setup.student, setup.teacher
        stages = job.select(run.lengthened(job.method, method.stages()))
        features = _features(run, job, tokenizer, cache, facts)
        if cache is not None:
            rows = features.column(CACHE_ROW)
            teacher = None if all(cache.holds(rows, stage.layers) for stage in stages) else teacher
        if teacher is not None and not setup.student_is_cut:  # live, it reads its own tokens, as it did for the cache
            features = features.with_teacher_tokens(run.features.encode(job.examples))
        del setup  # and with it a teacher that is needed no more
        learner = Distillation(student, method, teacher, cache).to(device())
        if start is not None:
            learner.extras.load_state_dict(load_file(start / EXTRAS_FILE))
        held_out = run.features.encode(job.held_out, tokenizer) if job.held_out else None
        meta_validation = MetaValidation(held_out, learner.before_update) if held_out else None
        collator = Collator(tokenizer.pad_token_id, run.features.tokenizer.pad_token_id)
        for stage in stages:
            learner.enter(stage)
            plan = TrainingPlan(
                f"{job.method} {job.domain or 'all domains'}: {stage.name}",
                stage.epochs,
                stage.learning_rate,
                checkpoints / stage.name,
                run.settings,
                run.precision,
                all_domains="all_domains" in method.needs,
                logs=run.folder / LOGS_FOLDER,
            )
            facts["log"][stage.name] = fit(learner, features, collator, plan, meta_validation)
        set_attention(student)
        if distributed.is_main():
            student.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            if job.domain is None:
                save_file(learner.extras.state_dict(), partial / EXTRAS_FILE)
            texts = [] if job.dev else job.whole_texts(run)  # it takes rows times domains
            facts["check"] = check_reloaded(run, partial, student, tokenizer, texts, job.dev)


def _features(run: Run, job: StudentJob, tokenizer: Any, cache: TeacherCache | None, facts: dict[str, Any]) -> Encoded:
    """What the student learns from, as tokens, with what else its method needs of each example."""
    needs, features = METHODS[job.method].needs, run.features.encode(job.examples, tokenizer)
    if "instance_weights" in needs:
        features = features.with_columns(instance_weights=run.features.instance_weights(job.examples))
    if cache is None:
        return features
    if "instance_weights" in needs and run.settings.expertise != "none":
        facts["expertise"] = expertise_spread(run, job.examples, cache)
    if "foreign_text" in needs and job.domain is not None:
        weights, facts["transfer"] = transfer(run, job.examples, job.domain, cache)
        features = features.with_columns(transfer=weights.numpy())
    return features.with_columns(**{CACHE_ROW: cache.rows([e.id for e in job.examples])})


def _set_up(run: Run, job: StudentJob, start: Path | None) -> tuple[Setup, Any]:
    """Teacher and student as the method needs them, the student begun from `start` if there is one; its tokenizer."""
    settings, labels = run.settings, run.data.labels
    teacher = load_teacher(run) if has_teacher(METHODS[job.method]) else None
    num_layers = layers_to_cut(settings.student)
    if start is not None or num_layers is None:
        folder = start or resolve(settings.student)
        student, tokenizer = load_encoder(folder, labels), load_tokenizer(folder, settings.max_length)
    else:
        from_teacher = settings.student_init == "teacher"
        source = teacher.encoder if teacher and from_teacher else load_encoder(resolve(settings.base), labels)
        layers = map_layers(num_layers, source.config.num_hidden_layers, settings.layer_map)
        student, tokenizer = cut_student(source, layers, labels), run.features.tokenizer
    set_dropout(student, settings.dropout, settings.attention_dropout)
    sizes = len(job.examples) + len(job.held_out), len(run.data.train)
    updates, updates_of_all = (updates_per_epoch(size, settings.batch_size) for size in sizes)
    setup = Setup(
        settings,
        student,
        student_is_cut=num_layers is not None,
        teacher=teacher,
        same_tokens=num_layers is not None or same_tokenizer(tokenizer, run.features.tokenizer),
        num_domains=len(run.teacher_domains),
        updates=updates,
        updates_of_all=updates_of_all,
        precision=run.precision,
    )
    return setup, tokenizer

"""The third step: one student for each domain, taught by a method [Meta-KD, 3.3]."""

import gc
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import set_seed

from metakd.data.labels import NO_LABEL, in_words
from metakd.data.schema import Example
from metakd.data.tokenization import Collator, Encoded
from metakd.inference.thresholds import HALF
from metakd.inference.torch_backend import TorchModel
from metakd.methods import BASELINE, METHODS
from metakd.methods.base import Setup, has_teacher
from metakd.models.attention import set_attention
from metakd.models.class_head import start_at_shares
from metakd.models.hub import resolve
from metakd.models.loading import keep_classes, load_encoder, same_tokenizer, set_dropout, set_problem
from metakd.models.meta_teacher import NO_LAYERS
from metakd.models.student import cut_student, layers_to_cut, start_layers
from metakd.pipeline.checks import check_reloaded, check_teacher, checked_rows, spread
from metakd.pipeline.rechecks import check_again
from metakd.pipeline.teach import load_teacher
from metakd.pipeline.teacher_outputs import centres_in_h, drop_teacher_cache, open_teacher_cache, unsure_texts
from metakd.prototypes import expertise_weights, transfer_weights
from metakd.runs.folders import EXTRAS_FILE
from metakd.runs.run import Run
from metakd.runs.starts import load_base
from metakd.runs.student_jobs import StudentJob, student_jobs
from metakd.training.distillation_module import CACHE_ROW, Distillation
from metakd.training.teacher_cache import TeacherCache
from metakd.training.trackers import LOGS_FOLDER
from metakd.training.trainer import TrainingPlan, fit
from metakd.utils import distributed
from metakd.utils.artifacts import is_done, step_folder
from metakd.utils.console import notice
from metakd.utils.errors import InputError
from metakd.utils.hardware import device
from metakd.utils.locks import waiting_lock


def distill(run: Run, domain: str, method: str | None = None) -> Path:
    """The folder of one student, taught by a method on the domain's training examples.

    Args:
        run: The run, begun and with a finished teacher; a finished student stays as it is.
        domain: The student's domain.
        method: One of `run.methods`; by default the run's method.

    Returns:
        A Hugging Face folder.

    Raises:
        InputError: The run does not have the method, its teacher is missing or near chance, or a loss is not finite.
        CheckError: The reloaded student predicts differently.
    """
    return distill_all(run, [domain], [method or run.settings.method])[0]


def distill_all(run: Run, domains: Sequence[str], methods: Sequence[str]) -> list[Path]:
    """The folders of a student for each method and domain, all from the same cached teacher.

    Args:
        run: The run, begun and with a finished teacher; finished students stay as they are.
        domains: Domains of the run's data.
        methods: Some of `run.methods`.

    Returns:
        Hugging Face folders, those of the first method before those of the next.

    Raises:
        InputError, CheckError: As `distill`.
    """
    if unknown := [method for method in methods if method not in run.stages]:
        raise InputError(f"--method = {unknown[0]!r}: this run has {', '.join(run.stages)}")
    jobs: list[StudentJob] = []
    for method in methods:
        start, *students = student_jobs(run, method, [None, *dict.fromkeys(domains)])
        missing = [job for job in students if not _is_done(job)]
        if missing and run.has_shared_start(method) and not _is_done(start):
            jobs.append(start)
        jobs += missing
    distributed.on_main(lambda: check_again(run))
    if any(has_teacher(METHODS[job.method]) for job in jobs):
        distributed.on_main(lambda: check_teacher(run))
    gc.freeze()  # Trainer collects garbage before every training: over the rows of all domains that takes seconds
    try:
        _distill_jobs(run, jobs)
    finally:
        gc.unfreeze()
    return [run.folders.student(method, domain) for method in methods for domain in domains]


def _distill_jobs(run: Run, jobs: Sequence[StudentJob]) -> None:
    """Run the jobs that read the teacher cache first, so that it can be deleted."""
    cached = [job for job in jobs if "teacher" in METHODS[job.method].needs]
    cache = open_teacher_cache(run, [*dict.fromkeys(job.method for job in cached)]) if cached else None
    unsure = unsure_texts(run, cache) if cache else set()
    for job in cached:
        _distill(run, _without(run, job, unsure), cache)
    if not run.settings.keep_cache:
        drop_teacher_cache(run)
    pseudo = _pseudo_labelled(run) if any("pseudo_labels" in METHODS[job.method].needs for job in jobs) else []
    for job in jobs:
        if job not in cached:
            texts = pseudo if "pseudo_labels" in METHODS[job.method].needs else []
            more = [e for e in texts if job.domain in (None, e.domain)]
            _distill(run, replace(job, examples=[*job.examples, *more]), None)


def _pseudo_labelled(run: Run) -> list[Example]:
    """The texts without labels, each with the class that the shared start of the baseline finds likeliest."""
    (start,) = student_jobs(run, BASELINE, [None])
    if not _is_done(start):
        _distill(run, start, None)
    texts, labelled = run.data.unlabelled, list[Example]()
    if texts and (run.settings.min_confidence, run.settings.max_share) != (0, 1):
        notice("--min-confidence and --max-share are about the teacher's answers; self_trained reads all texts")
    for e, p in zip(texts, TorchModel.load(start.folder).answers(texts).probabilities if texts else (), strict=True):
        places = run.features.places(e.domain)
        if run.data.several_labels:
            labels = tuple(run.data.labels[place] for place in places if p[place] > HALF)
            labelled.append(replace(e, label=in_words(labels), labels=labels))
        else:
            labelled.append(replace(e, label=run.data.labels[places[p[places].argmax()]]))
    return labelled


def _without(run: Run, job: StudentJob, texts: set[str]) -> StudentJob:
    """The job without some texts and their windows."""
    text_of = run.features.texts_of_windows if texts else {}
    return replace(job, examples=[e for e in job.examples if text_of.get(e.id, e.id) not in texts]) if texts else job


def _is_done(job: StudentJob) -> bool:
    """Whether the student is finished; checkpoints that are left of its training are removed."""
    done = distributed.on_main(lambda: is_done(job.folder, job.fingerprint))
    if done:
        shutil.rmtree(job.checkpoints, ignore_errors=True)
    return done


def _distill(run: Run, job: StudentJob, cache: TeacherCache | None) -> None:
    """Train one student, unless another process has done so since the jobs were listed."""
    with waiting_lock(job.checkpoints.with_suffix(".lock"), f"trains {job.folder.name}"):
        if not _is_done(job):
            _train(run, job, cache)
            distributed.wait_for_main()
            shutil.rmtree(job.checkpoints, ignore_errors=True)


def _train(run: Run, job: StudentJob, cache: TeacherCache | None) -> None:
    """Train one student by the stages of its job, and write it into its folder."""
    facts: dict[str, Any] = {"method": job.method, "precision": run.precision, "log": {}}
    set_seed(run.settings.seed)
    shared = job.domain is not None and run.has_shared_start(job.method)
    start = run.folders.student(job.method, None) if shared else None
    setup, tokenizer = _set_up(run, job, start), run.features.student_tokenizer
    if cache is not None:
        cache = cache.of_classes(run.features.places(job.domain))
    with step_folder(job.folder, "distill", job.fingerprint, facts) as partial:
        method, student, teacher = METHODS[job.method].build(setup), setup.student, setup.teacher
        stages = [s for s in run.lengthened(job.method, method.stages()) if s.shared == (job.domain is None)]
        features = _features(run, job, tokenizer, cache, facts)
        if cache is not None:
            rows = features.column(CACHE_ROW)
            teacher = None if all(cache.holds(rows, stage.layers) for stage in stages) else teacher
        if teacher is not None and not setup.student_is_cut:  # live, it reads its own tokens, as it did for the cache
            features = features.with_teacher_tokens(run.features.encode(job.examples))
        del setup  # and with it a teacher that is no longer needed
        learner = Distillation(student, method, teacher, cache).to(device())
        if start is not None:
            learner.extras.load_state_dict(load_file(start / EXTRAS_FILE))
        held_out = run.features.encode(job.held_out, tokenizer, job.domain) if job.held_out else None
        collator = Collator(tokenizer.pad_token_id, run.features.tokenizer.pad_token_id)
        all_domains, logs = "all_domains" in method.needs, run.folder / LOGS_FOLDER
        for stage in stages:
            learner.enter(stage)
            name, folder = f"{job.method} {job.domain or 'all domains'}: {stage.name}", job.checkpoints / stage.name
            plan = TrainingPlan(
                name, stage.epochs, stage.learning_rate, folder, run.settings, run.precision, all_domains, logs
            )
            facts["log"][stage.name] = fit(learner, features, collator, plan, held_out)
        set_attention(student)
        if distributed.is_main():
            student.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            if job.domain is None:
                save_file(learner.extras.state_dict(), partial / EXTRAS_FILE)
            split, texts = checked_rows(run.data, job.domain)
            facts["check"] = check_reloaded(run, partial, student, tokenizer, texts, split)


def _features(run: Run, job: StudentJob, tokenizer: Any, cache: TeacherCache | None, facts: dict[str, Any]) -> Encoded:
    """The student's training examples as tokens, with the other columns that its method needs."""
    needs, features = METHODS[job.method].needs, run.features.encode(job.examples, tokenizer, job.domain)
    if "instance_weights" in needs:
        features = features.with_columns(instance_weights=run.features.instance_weights(job.examples))
    if "soft_labels" in needs:
        features = features.with_columns(**run.features.soft_labels(job.examples, job.domain))
    if cache is None:
        counted = features.columns["gold_weights"] > 0 if "soft_labels" in needs else None
        return features.with_columns(**run.features.class_weights(features.column("labels"), counted))
    features = features.with_columns(**{CACHE_ROW: cache.rows([e.id for e in job.examples])})
    rows, labels = features.column(CACHE_ROW), features.column("labels")
    labelled = labels != NO_LABEL
    if not labelled.all():
        texts = cache.rows([run.features.texts_of_windows.get(e.id, e.id) for e in job.examples])
        likeliest = _likeliest(run, job, cache.logits(texts))
        labels = torch.where(labelled, labels, likeliest)
        features = features.with_columns(labels=labels.numpy())
    if "instance_weights" in needs and run.settings.expertise != "none":
        instance, hard = features.column("instance_weights"), run.settings.expertise == "hard"
        expertise = expertise_weights(instance, cache.logits(rows.tolist()), labels, hard)
        facts["expertise"] = spread(expertise, "expertise weights")
    if "foreign_text" in needs and job.domain is not None:
        domains = torch.tensor([run.data.domain_ids[e.domain] for e in job.examples])  # unknown to a teacher, too
        home = run.data.domain_ids[job.domain]
        weights = transfer_weights(
            cache.read(rows, NO_LAYERS).representation,
            labels,
            domains,
            home,
            centres_in_h(run, cache),
            run.features.are_gold(job.examples),
        )
        others = weights[domains != home]
        facts["transfer"] = spread(others, "transfer weights of other domains' text") if len(others) else {}
        features = features.with_columns(transfer=weights.numpy())
    return features


def _likeliest(run: Run, job: StudentJob, logits: Tensor) -> Tensor:
    """What the teacher answers for each text (N,) or (N, M): one of the student's classes, or of its domain's."""
    if job.domain is None:
        return run.features.likeliest(logits, job.examples)[1]
    return (logits > 0).float() if run.data.several_labels else logits.argmax(-1)


def _set_up(run: Run, job: StudentJob, start: Path | None) -> Setup:
    """Teacher and student as the method needs them; the student starts from `start`, if any."""
    settings, labels = run.settings, run.data.labels
    teacher = load_teacher(run) if has_teacher(METHODS[job.method]) else None
    num_layers = layers_to_cut(settings.student)
    if start is not None or num_layers is None:
        student = load_encoder(start or resolve(settings.student), labels)
    else:
        from_teacher = settings.student_init == "teacher"
        source = teacher.encoder if teacher and from_teacher else load_base(settings, labels)
        layers = start_layers(source, num_layers, settings.start_layers, settings.layer_map)
        student = cut_student(source, layers, labels)
    if (classes := run.features.classes(job.domain)) != labels:
        places = run.features.places(job.domain)
        keep_classes(student, places, classes)
        if teacher is not None:
            teacher.places = places
    student.config.text_pairs = run.data.has_pairs
    set_problem(student, run.data.several_labels)
    if run.data.several_labels:
        start_at_shares(student, run.features.shares(job.examples, job.domain))
    set_dropout(student, settings.dropout, settings.attention_dropout)
    is_cut, num_domains = num_layers is not None, len(run.teacher_domains)
    same_tokens = is_cut or same_tokenizer(run.features.student_tokenizer, run.features.tokenizer)
    rows = len(job.examples) + len(job.held_out), len(run.labelled_rows(job.method))
    return Setup(settings, student, is_cut, teacher, same_tokens, num_domains, *rows, run.precision)

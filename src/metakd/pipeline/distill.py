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
from metakd.pipeline.checks import check_reloaded, check_teacher, transfer, trust
from metakd.pipeline.student_jobs import Lesson
from metakd.pipeline.teach import load_teacher
from metakd.pipeline.teacher_outputs import _memory, forget
from metakd.runs.run import EXTRAS_FILE, Run
from metakd.training.distillation_module import CACHE_ROW, Distillation
from metakd.training.teacher_cache import TeacherCache
from metakd.training.trackers import LOGS_FOLDER
from metakd.training.trainer import Plan, Quiz, fit
from metakd.utils import distributed
from metakd.utils.artifacts import is_done, step_folder
from metakd.utils.errors import InputError
from metakd.utils.hardware import device
from metakd.utils.locks import alone


def distill(run: Run, domain: str, method: str | None = None) -> Path:
    """One student for `domain`, taught by the method (by default the run's) on the domain's training examples."""
    return distill_all(run, [domain], [method or run.settings.method])[0]


def distill_all(run: Run, domains: Sequence[str], methods: Sequence[str]) -> list[Path]:
    """A student for each method and domain, all by one memory of the teacher; those that are done stay as they are."""
    strange = [method for method in methods if method not in run.stages]
    if strange:
        raise InputError(f"method = {strange[0]!r}: this run has {', '.join(run.stages)}")
    lessons: list[Lesson] = []
    for method in methods:
        own = Lesson.fleet(run, method, dict.fromkeys(domains))
        missing = [lesson for lesson in own if not _is_learnt(run, lesson)]
        start = Lesson.shared_by(run, method)
        if missing and start is not None and not _is_learnt(run, start):
            missing.insert(0, start)
        lessons += missing
    if any(has_teacher(METHODS[lesson.method]) for lesson in lessons):
        distributed.by_main(lambda: check_teacher(run))
    taught = [lesson for lesson in lessons if "teacher" in METHODS[lesson.method].needs]
    cache = _memory(run, taught) if taught else None
    for lesson in taught:
        _distill(run, lesson, cache)
    if not run.settings.keep_cache:
        forget(run)
    for lesson in lessons:
        if lesson not in taught:
            _distill(run, lesson, None)
    return [run.student_folder(method, domain) for method in methods for domain in domains]


# --- One student --------------------------------------------------------------------------------------------------


def _distill(run: Run, lesson: Lesson, cache: TeacherCache | None) -> None:
    """Teach one student by the method's shared stages, or by those of its own domain."""
    checkpoints = _checkpoints(run, lesson)
    with alone(checkpoints.with_suffix(".lock"), f"trains {lesson.folder.name}"):
        if not distributed.by_main(lambda: is_done(lesson.folder, lesson.mark)):  # by another, since they were listed
            _train(run, lesson, cache, checkpoints)
            distributed.wait()
        shutil.rmtree(checkpoints, ignore_errors=True)


def _is_learnt(run: Run, lesson: Lesson) -> bool:
    """Whether the student is there; what a process that was killed just after has left of its training goes."""
    done = distributed.by_main(lambda: is_done(lesson.folder, lesson.mark))
    if done:
        shutil.rmtree(_checkpoints(run, lesson), ignore_errors=True)
    return done


def _checkpoints(run: Run, lesson: Lesson) -> Path:
    return run.checkpoint_folder(f"{lesson.method}-{lesson.folder.name}", lesson.mark)


def _train(run: Run, lesson: Lesson, cache: TeacherCache | None, checkpoints: Path) -> None:
    kind = METHODS[lesson.method]
    facts: dict[str, Any] = {"method": lesson.method, "precision": run.precision, "log": {}}
    set_seed(run.settings.seed)
    shared = lesson.domain is not None and any(stage.shared for stage in run.stages[lesson.method])
    start = run.shared_folder(lesson.method) if shared else None
    setup, tokenizer = _set_up(run, kind, lesson, start)
    with step_folder(lesson.folder, "distill", lesson.mark, facts) as partial:
        method, student, teacher = kind.build(setup), setup.student, setup.teacher
        stages = lesson.own(run.lengthened(lesson.method, method.stages()))
        features = _features(run, lesson, tokenizer, cache, facts)
        if cache is not None:
            if "instance_weights" in kind.needs and run.settings.expertise != "none":
                facts["expertise"] = trust(run, lesson.examples, cache)
            rows = features.column(CACHE_ROW)
            teacher = None if all(cache.holds(rows, stage.layers) for stage in stages) else teacher
        if teacher is not None and not setup.student_is_cut:  # live, it reads its own tokens, as it did for the cache
            features = features.with_teacher_tokens(run.features(lesson.examples, run.tokenizer))
        del setup  # and with it a teacher that is needed no more
        learner = Distillation(student, method, teacher, cache).to(device())
        quiz = Quiz(run.features(lesson.quiz, tokenizer), learner.before_update) if lesson.quiz else None
        if start is not None:
            learner.extras.load_state_dict(load_file(start / EXTRAS_FILE))
        collator = Collator(tokenizer.pad_token_id, run.tokenizer.pad_token_id)
        title = f"{lesson.method} {lesson.domain or 'all domains'}"
        for stage in stages:
            learner.enter(stage)
            named, place = f"{title}: {stage.name}", checkpoints / stage.name
            how = stage.epochs, stage.learning_rate, place, run.settings, run.precision
            plan = Plan(named, *how, "all_domains" in kind.needs, run.folder / LOGS_FOLDER)
            facts["log"][stage.name] = fit(learner, features, collator, plan, quiz)
        attend_here(student)
        if distributed.is_main():
            student.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            if lesson.domain is None:
                save_file(learner.extras.state_dict(), partial / EXTRAS_FILE)
            texts = [] if lesson.held_out else lesson.whole_texts(run)  # it takes rows times domains
            facts["check"] = check_reloaded(run, partial, student, tokenizer, texts, lesson.held_out)


def _features(run: Run, lesson: Lesson, tokenizer: Any, cache: TeacherCache | None, facts: dict[str, Any]) -> Encoded:
    """What the student learns from, as tokens, with what else its method needs of each example."""
    features = run.features(lesson.examples, tokenizer)
    if "instance_weights" in METHODS[lesson.method].needs:
        features = features.with_columns(instance_weights=run.instance_weights(lesson.examples))
    if cache is not None:
        features = features.with_columns(**{CACHE_ROW: cache.rows([e.id for e in lesson.examples])})
    if cache is not None and lesson.domain is not None and "foreign_text" in METHODS[lesson.method].needs:
        weights, facts["transfer"] = transfer(run, lesson.examples, lesson.domain, cache)
        features = features.with_columns(transfer=weights.numpy())
    return features


def _set_up(run: Run, kind: type[Method], lesson: Lesson, start: Path | None) -> tuple[Setup, Any]:
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
    sizes = len(lesson.examples) + len(lesson.quiz), len(data.train)
    own, of_all = (updates_a_pass(size, settings.batch_size) for size in sizes)
    known, is_cut = len(run.taught_domains), num_layers is not None
    return Setup(settings, student, is_cut, teacher, same_tokens, known, own, of_all, run.precision), tokenizer

"""One student for each domain: what each learns from, the teacher's memory while they learn, and what is saved."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors.torch import load_file, save_file
from transformers import set_seed

from metakd import engine, students
from metakd.artifacts import digest_files, fingerprint, step_folder
from metakd.batching import Collator, updates_a_pass
from metakd.checkpoints import resolve
from metakd.checks import check_reloaded, check_teacher
from metakd.domains import of_domain
from metakd.encoders import load_encoder, load_tokenizer, map_layers, record_factors, same_tokenizer, set_dropout
from metakd.errors import InputError
from metakd.examples import Example
from metakd.hardware import device
from metakd.meta_teacher import MetaTeacher, TeacherLayers, freeze
from metakd.methods import METHODS
from metakd.methods.base import Method, Setup, Stage
from metakd.progress import console
from metakd.runs import MODEL_FILES, Run, is_done
from metakd.teacher_cache import TeacherCache, fits, layer_bytes

EXTRAS_FILE = "extras.safetensors"  # projections and h of a shared start, for the stages that go on from it


@dataclass(frozen=True)
class Lesson:
    """What one student learns from, and where it goes: a domain's own, or (`domain` is None) a shared start."""

    method: str
    domain: str | None
    folder: Path
    mark: str
    examples: list[Example]
    held_out: list[Example]

    @classmethod
    def of(cls, run: Run, method: str, domain: str | None) -> Lesson:
        train, dev = run.data.train, run.data.splits.get("dev", [])
        if domain is not None:
            train, dev = of_domain(train, domain), of_domain(dev, domain)
        folder = run.student_folder(method, domain) if domain else run.shared_folder(method)
        return cls(method, domain, folder, run.distill_fingerprint(method, domain), train, dev)

    @classmethod
    def shared_by(cls, run: Run, method: str) -> Lesson | None:
        """The start that all of the method's students share, if they do."""
        return cls.of(run, method, None) if any(stage.shared for stage in run.stages[method]) else None

    def stages(self, run: Run) -> list[Stage]:
        return [stage for stage in run.stages[self.method] if stage.shared == (self.domain is None)]


def distill(run: Run, domain: str, method: str | None = None) -> Path:
    """One student for `domain`, taught by the method (by default the run's) on the domain's training examples."""
    return distill_all(run, [domain], [method or run.settings.method])[0]


def distill_all(run: Run, domains: Sequence[str], methods: Sequence[str]) -> list[Path]:
    """A student for each method and domain, all by one memory of the teacher; those that are done stay as they are."""
    lessons = []
    for method in methods:
        own = [Lesson.of(run, method, domain) for domain in domains]
        missing = [lesson for lesson in own if not is_done(lesson.folder, lesson.mark)]
        start = Lesson.shared_by(run, method)
        if missing and start is not None and not is_done(start.folder, start.mark):
            missing.insert(0, start)
        lessons += missing
    with _memory(run, lessons) as cache:
        for lesson in lessons:
            _distill(run, lesson, cache if "teacher" in METHODS[lesson.method].needs else None)
    return [run.student_folder(method, domain) for method in methods for domain in domains]


def load_teacher(run: Run) -> MetaTeacher:
    """The finished meta-teacher, frozen, with its domain head; InputError where it is missing."""
    folder = run.teacher_folder
    if not is_done(folder, run.teach_fingerprint):
        raise InputError(f"{folder}: no finished meta-teacher; run `metakd teach --output {run.folder}` first")
    encoder = load_encoder(folder, run.data.labels)
    teacher = MetaTeacher(encoder, len(run.data.domains), run.settings.domain_loss, run.settings.gamma1)
    teacher.load_head(folder)
    return freeze(teacher).to(device())


# --- The teacher's memory -----------------------------------------------------------------------------------------


def layers_to_keep(stages: Sequence[Stage]) -> TeacherLayers:
    """The layers that `stages` match, if they go over the examples more than once; for one pass, live is cheaper."""
    matching = [stage for stage in stages if stage.layers]
    if sum(stage.epochs for stage in matching) < 2:
        return TeacherLayers()
    kept = TeacherLayers()
    for stage in matching:
        kept = kept.joined(stage.layers)
    return kept


@contextlib.contextmanager
def _memory(run: Run, lessons: Sequence[Lesson]) -> Iterator[TeacherCache | None]:
    """What the teacher says of all that `lessons` learn from; made once, and removed at the end unless it may stay."""
    taught = [lesson for lesson in lessons if "teacher" in METHODS[lesson.method].needs]
    if not taught:
        yield None
        return
    teacher = load_teacher(run)
    check_teacher(run)
    learnt_from = {e.id for lesson in taught for e in lesson.examples}
    stages = {(lesson.method, lesson.domain is None): lesson.stages(run) for lesson in taught}
    layers = layers_to_keep([stage for group in stages.values() for stage in group])
    lock = FileLock(run.cache_lock)  # a second process waits, and finds the memory made
    with lock:
        cache = _remember(run, teacher, [e for e in run.data.train if e.id in learnt_from], layers)
    del teacher
    yield cache
    if not run.settings.keep_cache:
        with lock:  # another process that reads it has all its files mapped
            shutil.rmtree(run.cache_folder, ignore_errors=True)


def _remember(run: Run, teacher: MetaTeacher, examples: list[Example], layers: TeacherLayers) -> TeacherCache:
    """Let the teacher speak once, unless a whole cache of this teacher, these texts and these layers is there."""
    folder, facts = run.cache_folder, dict[str, Any]()
    weights = digest_files(run.teacher_folder, MODEL_FILES)
    mark = fingerprint("remember", weights, run.settings.max_length, run.precision, run.data_fingerprint)
    ids = [e.id for e in examples]
    found = TeacherCache.find(folder, mark)
    if found is not None and found.covers(ids, layers):
        return found
    features = run.features(examples, run.tokenizer)
    sizes = layer_bytes(features.lengths, teacher.encoder.config.hidden_size, layers, run.precision)
    fitting = fits(sizes, run.cache_budget)
    if layers:
        console.print(
            f"teacher's layers: {sizes[fitting].sum() / 1e9:.2f} GB of disk for {fitting.sum()} of {len(ids)} examples"
            f" (budget {run.cache_budget / 1e9:.1f} GB); the teacher stays live for the rest",
            highlight=False,
        )
    with step_folder(folder, "remember", mark, facts) as partial:
        said = engine.teach_all(teacher, features, Collator(run.tokenizer.pad_token_id), layers, run.precision)
        facts |= TeacherCache.write(partial, ids, said, layers, fitting, run.precision)
    return TeacherCache(folder, layers)


# --- One student --------------------------------------------------------------------------------------------------


def _distill(run: Run, lesson: Lesson, cache: TeacherCache | None) -> None:
    """Teach one student by the method's shared stages, or by those of its own domain."""
    kind, examples, stages = METHODS[lesson.method], lesson.examples, lesson.stages(run)
    checkpoints = run.checkpoint_folder(f"{lesson.method}-{lesson.folder.name}", lesson.mark)
    facts: dict[str, Any] = {"method": lesson.method, "precision": run.precision, "log": {}}
    set_seed(run.settings.seed)
    start = Lesson.shared_by(run, lesson.method) if lesson.domain else None
    setup, tokenizer = _set_up(run, kind, lesson, start)
    with step_folder(lesson.folder, "distill", lesson.mark, facts) as partial:
        features = run.features(examples, tokenizer)
        if "instance_weights" in kind.needs:
            features = features.with_columns(instance_weights=run.instance_weights(examples))
        teacher = setup.teacher
        if cache is not None:
            rows = cache.rows([e.id for e in examples])
            features = features.with_columns(**{engine.CACHE_ROW: rows})
            if all(cache.holds(rows, stage.layers) for stage in stages):
                teacher = None
            elif not setup.same_tokens:
                features = features.with_teacher_tokens(run.features(examples, run.tokenizer))
        learner = engine.Distillation(setup.student, kind.build(setup), teacher, cache).to(device())
        if start is not None:
            learner.extras.load_state_dict(load_file(start.folder / EXTRAS_FILE))
        collator = Collator(tokenizer.pad_token_id, run.tokenizer.pad_token_id)
        title = f"{lesson.method} {lesson.domain or 'all domains'}"
        for stage in stages:
            learner.enter(stage)
            named, place = f"{title}: {stage.name}", checkpoints / stage.name
            plan = engine.Plan(named, stage.epochs, stage.learning_rate, place, run.settings, run.precision)
            facts["log"][stage.name] = engine.fit(learner, features, collator, plan)
        record_factors(setup.student, False)
        setup.student.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if lesson.domain is None:
            save_file(learner.extras.state_dict(), partial / EXTRAS_FILE)
        facts["check"] = check_reloaded(run, partial, setup.student, tokenizer, examples, lesson.held_out)
    shutil.rmtree(checkpoints, ignore_errors=True)


def _set_up(run: Run, kind: type[Method], lesson: Lesson, start: Lesson | None) -> tuple[Setup, Any]:
    """Teacher and student as `kind` needs them, the student begun from `start` if there is one, and its tokenizer."""
    settings, data = run.settings, run.data
    teacher = load_teacher(run) if "teacher" in kind.needs else None
    num_layers = students.layers_to_cut(settings.student)
    if start is not None or num_layers is None:
        folder = start.folder if start else resolve(settings.student)
        student, tokenizer = load_encoder(folder, data.labels), load_tokenizer(folder, settings.max_length)
    else:
        from_teacher = teacher is not None and settings.student_init == "teacher"
        source = teacher.encoder if teacher and from_teacher else load_encoder(resolve(settings.base), data.labels)
        layers = map_layers(num_layers, source.config.num_hidden_layers, settings.layer_map)
        student, tokenizer = students.cut_student(source, layers), run.tokenizer
    set_dropout(student, settings.dropout, settings.attention_dropout)
    same_tokens = num_layers is not None or same_tokenizer(tokenizer, run.tokenizer)
    updates = [updates_a_pass(len(examples), settings.batch_size) for examples in (lesson.examples, data.train)]
    setup = Setup(settings, student, num_layers is not None, teacher, same_tokens, len(data.domains), *updates)
    return setup, tokenizer

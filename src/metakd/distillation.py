"""One student for each domain: what each learns from, the teacher's memory while they learn, and what is saved."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import set_seed

from metakd import engine, passes, processes, students
from metakd.artifacts import MANIFEST, digest_files, fingerprint, is_done, step_folder
from metakd.attention import attend_here
from metakd.batching import Collator, Encoded, updates_a_pass
from metakd.checkpoints import resolve
from metakd.checks import check_reloaded, check_teacher, transfer, trust
from metakd.domains import by_domain, hold_out
from metakd.encoders import (
    load_config,
    load_encoder,
    load_tokenizer,
    map_layers,
    same_tokenizer,
    set_dropout,
)
from metakd.errors import InputError
from metakd.examples import Example
from metakd.fingerprints import MODEL_FILES
from metakd.hardware import device
from metakd.locks import alone
from metakd.meta_teacher import NO_LAYERS, TeacherLayers
from metakd.methods import METHODS
from metakd.methods.base import Method, Setup, Stage, has_teacher
from metakd.progress import console
from metakd.runs import EXTRAS_FILE, Run
from metakd.teacher_cache import FORMAT, TeacherCache, fits, layer_bytes
from metakd.teachers import load_teacher
from metakd.tracking import LOGS_FOLDER


@dataclass(frozen=True)
class Lesson:
    """What one student learns from, and where it goes: a domain's own, or (`domain` is None) a shared start."""

    method: str
    domain: str | None
    folder: Path
    mark: str
    examples: list[Example]
    quiz: list[Example]  # of the training examples, those that a method with a held-out split is not to learn from
    held_out: list[Example]

    @classmethod
    def of(cls, run: Run, method: str, domain: str | None) -> Lesson:
        return cls.fleet(run, method, [domain])[0]

    @classmethod
    def fleet(cls, run: Run, method: str, domains: Iterable[str | None]) -> list[Lesson]:
        """One for each of `domains`; the texts are sorted by domain once for all."""
        train, quiz, dev = run.data.train, list[Example](), run.data.splits.get("dev", [])
        if "held_out_split" in METHODS[method].needs:  # drawn once of all, so that the shared start knows none of it
            train, quiz = hold_out(train, run.settings.seed)
        if "teacher" in METHODS[method].needs:
            train = run.with_further(train)
        whole, foreign = (train, quiz, dev), "foreign_text" in METHODS[method].needs
        parts = [by_domain(examples) for examples in whole]
        lessons = []
        for domain in domains:
            texts = whole if domain is None else [part.get(domain, []) for part in parts]
            folder = run.student_folder(method, domain) if domain else run.shared_folder(method)
            mark = run.distill_fingerprint(method, domain)
            lessons.append(cls(method, domain, folder, mark, train if foreign else texts[0], *texts[1:]))
        return lessons

    @classmethod
    def shared_by(cls, run: Run, method: str) -> Lesson | None:
        """The start that all of the method's students share, if they do."""
        return cls.of(run, method, None) if any(stage.shared for stage in run.stages[method]) else None

    def whole_texts(self, run: Run) -> list[Example]:
        """The training texts of its domain or of all, without windows and crops of them."""
        return [e for e in run.data.train if self.domain in (None, e.domain)]

    def own(self, stages: Sequence[Stage]) -> list[Stage]:
        """Those of a method's stages that this lesson is made of."""
        return [stage for stage in stages if stage.shared == (self.domain is None)]


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
        processes.by_main(lambda: check_teacher(run))
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


# --- The teacher's memory -----------------------------------------------------------------------------------------


def layers_to_keep(stages: Sequence[Stage]) -> TeacherLayers:
    """The layers that `stages` match, if they go over the examples more than once; for one pass, live is cheaper."""
    matching = [stage for stage in stages if stage.layers]
    kept = NO_LAYERS
    if sum(stage.epochs for stage in matching) < 2:
        return kept
    for stage in matching:
        kept = kept.joined(stage.layers)
    return kept


def _memory(run: Run, lessons: Sequence[Lesson]) -> TeacherCache:
    """What the teacher says of the training texts; a second process waits, and finds it made.

    Of all of them, and for all stages, whatever `lessons` are left to learn: which texts share a batch, and whether a
    layer is kept, decides the last bits, and a student that is made once more is to have those of the first.
    """
    methods = dict.fromkeys(lesson.method for lesson in lessons)
    layers = layers_to_keep([stage for method in methods for stage in run.stages[method]])
    with alone(run.cache_lock, "asks the teacher"):
        kept = processes.by_main(lambda: _remember(run, layers))
        cache = TeacherCache(run.cache_folder, TeacherLayers(*map(tuple, kept)))
        processes.all_here()
    return cache


def _remember(run: Run, layers: TeacherLayers) -> TeacherLayers:
    """Let the teacher speak once, unless a whole cache of this teacher, these texts and these layers is there.

    Gives the layers that the cache was made for.
    """
    folder, budget, facts = run.cache_folder, run.cache_budget, dict[str, Any]()
    weights = [digest_files(school.teacher_folder, MODEL_FILES) for school in run.teachers]
    mark = fingerprint("remember", FORMAT, weights, run.settings.max_length, run.precision, run.data.fingerprint)
    found = TeacherCache.find(folder, mark)
    if found is not None:  # what is made anew holds what was there as well
        layers = layers.joined(found.layers)
    examples = run.with_further(run.data.train)
    features = run.features(examples, run.tokenizer)
    sizes = layer_bytes(
        features.lengths, load_config(run.teachers[0].teacher_folder).hidden_size, layers, run.precision
    )
    fitting = fits(sizes, budget)
    if layers:
        console.print(
            f"teacher's layers: {sizes[fitting].sum() / 1e9:.2f} GB of disk for {fitting.sum()} of {len(examples)}"
            f" examples (budget {budget / 1e9:.1f} GB)" + "; the teacher stays live for the rest" * (not fitting.all()),
            highlight=False,
        )
    if found is not None and found.covers([e.id for e in examples], layers, fitting):
        return found.layers
    spoken = layers if fitting.any() else NO_LAYERS
    with step_folder(folder, "remember", mark, facts) as partial:
        teacher = load_teacher(run)
        said = passes.teach_all(teacher, features, Collator(run.tokenizer.pad_token_id), spoken, run.precision)
        TeacherCache.write(partial, [e.id for e in examples], said, spoken, fitting, run.precision)
        facts |= {"layers": layers}  # also where nothing fitted: they were thought of
    return layers


def forget(run: Run) -> None:
    """Remove what was remembered, but for its manifest, which says how long it took and how much it was."""
    processes.all_here()
    if not run.cache_folder.exists() or not processes.is_main():
        return
    with alone(run.cache_lock, "asks the teacher"):  # one that still reads has all files mapped
        for path in run.cache_folder.glob("*"):
            if path.name != MANIFEST:
                path.unlink()


# --- One student --------------------------------------------------------------------------------------------------


def _distill(run: Run, lesson: Lesson, cache: TeacherCache | None) -> None:
    """Teach one student by the method's shared stages, or by those of its own domain."""
    checkpoints = _checkpoints(run, lesson)
    with alone(checkpoints.with_suffix(".lock"), f"trains {lesson.folder.name}"):
        if not processes.by_main(lambda: is_done(lesson.folder, lesson.mark)):  # by another, since they were listed
            _train(run, lesson, cache, checkpoints)
            processes.wait()
        shutil.rmtree(checkpoints, ignore_errors=True)


def _is_learnt(run: Run, lesson: Lesson) -> bool:
    """Whether the student is there; what a process that was killed just after has left of its training goes."""
    done = processes.by_main(lambda: is_done(lesson.folder, lesson.mark))
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
            rows = features.column(engine.CACHE_ROW)
            teacher = None if all(cache.holds(rows, stage.layers) for stage in stages) else teacher
        if teacher is not None and not setup.student_is_cut:  # live, it reads its own tokens, as it did for the cache
            features = features.with_teacher_tokens(run.features(lesson.examples, run.tokenizer))
        del setup  # and with it a teacher that is needed no more
        learner = engine.Distillation(student, method, teacher, cache).to(device())
        quiz = engine.Quiz(run.features(lesson.quiz, tokenizer), learner.before_update) if lesson.quiz else None
        if start is not None:
            learner.extras.load_state_dict(load_file(start / EXTRAS_FILE))
        collator = Collator(tokenizer.pad_token_id, run.tokenizer.pad_token_id)
        title = f"{lesson.method} {lesson.domain or 'all domains'}"
        for stage in stages:
            learner.enter(stage)
            named, place = f"{title}: {stage.name}", checkpoints / stage.name
            how = stage.epochs, stage.learning_rate, place, run.settings, run.precision
            plan = engine.Plan(named, *how, "all_domains" in kind.needs, run.folder / LOGS_FOLDER)
            facts["log"][stage.name] = engine.fit(learner, features, collator, plan, quiz)
        attend_here(student)
        if processes.is_main():
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
        features = features.with_columns(**{engine.CACHE_ROW: cache.rows([e.id for e in lesson.examples])})
    if cache is not None and lesson.domain is not None and "foreign_text" in METHODS[lesson.method].needs:
        weights, facts["transfer"] = transfer(run, lesson.examples, lesson.domain, cache)
        features = features.with_columns(transfer=weights.numpy())
    return features


def _set_up(run: Run, kind: type[Method], lesson: Lesson, start: Path | None) -> tuple[Setup, Any]:
    """Teacher and student as `kind` needs them, the student begun from `start` if there is one, and its tokenizer."""
    settings, data = run.settings, run.data
    teacher = load_teacher(run) if has_teacher(kind) else None
    num_layers = students.layers_to_cut(settings.student)
    if start is not None or num_layers is None:
        folder = start or resolve(settings.student)
        student, tokenizer = load_encoder(folder, data.labels), load_tokenizer(folder, settings.max_length)
    else:
        from_teacher = teacher is not None and settings.student_init == "teacher"
        source = teacher.encoder if teacher and from_teacher else load_encoder(resolve(settings.base), data.labels)
        layers = map_layers(num_layers, source.config.num_hidden_layers, settings.layer_map)
        student, tokenizer = students.cut_student(source, layers, data.labels), run.tokenizer
    set_dropout(student, settings.dropout, settings.attention_dropout)
    same_tokens = num_layers is not None or same_tokenizer(tokenizer, run.tokenizer)
    sizes = len(lesson.examples) + len(lesson.quiz), len(data.train)
    own, of_all = (updates_a_pass(size, settings.batch_size) for size in sizes)
    known, is_cut = len(run.taught_domains), num_layers is not None
    return Setup(settings, student, is_cut, teacher, same_tokens, known, own, of_all, run.precision), tokenizer

"""The story: weigh -> teach -> distill -> evaluate. Each step is one function and leaves a manifest, written last."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, set_seed

from metakd import engine, students
from metakd.artifacts import read_manifest, step_folder, write_text
from metakd.batching import Collator, Features, updates_a_pass
from metakd.checkpoints import resolve
from metakd.domains import of_domain
from metakd.encoders import (
    load_classifier,
    load_encoder,
    load_tokenizer,
    map_layers,
    record_scores,
    same_tokenizer,
    set_dropout,
)
from metakd.errors import CheckError, InputError
from metakd.evaluation import domain_probe
from metakd.examples import Example
from metakd.meta_teacher import MetaTeacher, freeze
from metakd.methods import METHODS
from metakd.methods.base import Method, Setup
from metakd.prototypes import instance_weights, prototype_scores, prototypes
from metakd.runs import Run, device, is_done
from metakd.scoring import check_scorable, evaluate

WEIGHTS_FILE = "weights.jsonl"
EXTRAS_FILE = "extras.safetensors"  # projections and h of a shared start, for the stages that go on from it
TEACHER_MARGIN = 0.05  # what a teacher's accuracy has to be above that of the commonest class
SAME_PROBABILITY = 1e-5  # how far a reloaded model's probabilities may be from the saved one's


def weigh(run: Run) -> Path:
    """Prototype scores and instance weights of all training examples, by the pretrained encoder [Meta-KD, 3.1]."""
    folder, facts = run.weights_folder, dict[str, Any]()
    if is_done(folder, run.weigh_fingerprint):
        return folder
    settings, data = run.settings, run.data
    with step_folder(folder, "weigh", run.weigh_fingerprint, facts) as partial:
        encoder = load_encoder(resolve(settings.base), data.labels).to(device())
        features = run.features(data.train, run.tokenizer)
        embeddings = engine.embed(encoder, features, Collator(run.tokenizer.pad_token_id), "weigh all domains")
        labels = torch.tensor([feature["labels"] for feature in features])
        domains = torch.tensor([feature["domains"] for feature in features])
        known = prototypes(embeddings, labels, domains, len(data.labels), len(data.domains))
        scores = prototype_scores(known, embeddings, labels, domains, settings.alpha)
        weights = instance_weights(scores, normalize=settings.weights == "normalized")
        rows = zip(data.train, scores.tolist(), weights.tolist(), strict=True)
        lines = [json.dumps({"id": e.id, "domain": e.domain, "score": s, "weight": w}) for e, s, w in rows]
        write_text(partial / WEIGHTS_FILE, "\n".join(lines) + "\n")
        save_file({"vectors": known.vectors, "counts": known.counts}, partial / "prototypes.safetensors")
        facts |= {"mean_score": scores.mean().item(), "clamped": int((scores < 0).sum())}
    return folder


def teach(run: Run) -> Path:
    """The meta-teacher: the base, fine-tuned on all domains by L_T [Meta-KD, 3.2]."""
    folder, mark, facts = run.teacher_folder, run.teach_fingerprint, dict[str, Any]()
    if is_done(folder, mark):
        return folder
    settings, data = run.settings, run.data
    features = _with_weights(run, run.features(data.train, run.tokenizer), data.train)
    checkpoints = run.checkpoint_folder("meta_teacher", mark)
    with step_folder(folder, "teach", mark, facts) as partial:
        set_seed(settings.seed)
        encoder = load_encoder(resolve(settings.base), data.labels)
        set_dropout(encoder, settings.dropout, settings.attention_dropout)
        teacher = MetaTeacher(encoder, len(data.domains), settings.domain_loss, settings.gamma1)
        plan = engine.Plan(
            "teach all domains", settings.teacher_epochs, settings.teacher_learning_rate, checkpoints, settings
        )
        facts["log"] = engine.fit(teacher, features, Collator(run.tokenizer.pad_token_id), plan)
        teacher.save(partial)
        run.tokenizer.save_pretrained(partial)
        dev = data.splits.get("dev", [])
        facts["check"] = _check_reloaded(run, partial, encoder, run.tokenizer, data.train, dev)
        facts["domain_probe"] = _probe(run, teacher, dev or data.train)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return folder


def distill(run: Run, domain: str, method: str | None = None) -> Path:
    """One student for `domain`, taught by the method (by default the run's) on the domain's training examples."""
    name = method or run.settings.method
    folder, mark = run.student_folder(name, domain), run.distill_fingerprint(name, domain)
    if is_done(folder, mark):
        return folder
    start = share(run, name) if "shared_start" in METHODS[name].needs and run.settings.shared_epochs else None
    examples, held_out = (of_domain(run.data.splits.get(split, []), domain) for split in ("train", "dev"))
    return _distill(run, name, _Lesson(folder, mark, f"{name} {domain}", examples, held_out), start)


def share(run: Run, method: str) -> Path:
    """The start of the method's students: one student, taught on all domains' training examples."""
    folder, mark = run.shared_folder(method), run.distill_fingerprint(method, None)
    if is_done(folder, mark):
        return folder
    held_out = run.data.splits.get("dev", [])
    lesson = _Lesson(folder, mark, f"{method} all domains", run.data.train, held_out, shared=True)
    return _distill(run, method, lesson, None)


@dataclass(frozen=True)
class _Lesson:
    """What one student learns from, and where it goes."""

    folder: Path
    mark: str
    title: str
    examples: list[Example]
    held_out: list[Example]
    shared: bool = False


def _distill(run: Run, name: str, lesson: _Lesson, start: Path | None) -> Path:
    """Teach one student by the method's shared stages, or by those of its own domain."""
    kind, examples = METHODS[name], lesson.examples
    checkpoints = run.checkpoint_folder(f"{name}-{lesson.folder.name}", lesson.mark)
    facts: dict[str, Any] = {"method": name, "log": {}}
    set_seed(run.settings.seed)
    setup, tokenizer = _set_up(run, kind, lesson, start)
    with step_folder(lesson.folder, "distill", lesson.mark, facts) as partial:
        features = run.features(examples, tokenizer)
        if "instance_weights" in kind.needs:
            features = _with_weights(run, features, examples)
        if setup.teacher is not None and not setup.same_tokens:
            _add_teacher_tokens(features, run.features(examples, run.tokenizer))
        learner = engine.Distillation(setup, kind.build(setup)).to(device())
        if start is not None:
            learner.extras.load_state_dict(load_file(start / EXTRAS_FILE))
        collator = Collator(tokenizer.pad_token_id, run.tokenizer.pad_token_id)
        for stage in learner.method.stages():
            if stage.shared == lesson.shared:
                plan = engine.Plan.of(stage, f"{lesson.title}: {stage.name}", checkpoints / stage.name, run.settings)
                prepared = learner.prepare(stage, features, collator)
                facts["log"][stage.name] = engine.fit(learner, prepared, collator, plan)
        record_scores(setup.student, False)
        setup.student.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if lesson.shared:
            save_file(learner.extras.state_dict(), partial / EXTRAS_FILE)
        facts["check"] = _check_reloaded(run, partial, setup.student, tokenizer, examples, lesson.held_out)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return lesson.folder


def run_all(run: Run) -> dict[str, Any]:
    """Every step, those that are done already left as they are; returns what results.json holds."""
    check_scorable(run)
    weigh(run)
    teach(run)
    for method in run.methods:
        for domain in run.data.domains:
            distill(run, domain, method)
    return evaluate(run)


def load_teacher(run: Run) -> MetaTeacher:
    """The finished meta-teacher, frozen, with its domain head; InputError where it is missing."""
    folder = run.teacher_folder
    if not is_done(folder, run.teach_fingerprint):
        raise InputError(f"{folder}: no finished meta-teacher; run `metakd teach --output {run.folder}` first")
    encoder = load_encoder(folder, run.data.labels)
    teacher = MetaTeacher(encoder, len(run.data.domains), run.settings.domain_loss, run.settings.gamma1)
    teacher.load_head(folder)
    return freeze(teacher).to(device())


def _set_up(run: Run, kind: type[Method], lesson: _Lesson, start: Path | None) -> tuple[Setup, Any]:
    """Teacher and student as `kind` needs them, the student begun from `start` if given, and its tokenizer."""
    settings, data = run.settings, run.data
    teacher = load_teacher(run) if "teacher" in kind.needs else None
    if teacher is not None:
        _check_teacher(run)
    num_layers = students.layers_to_cut(settings.student)
    if start is not None or num_layers is None:
        folder = start or resolve(settings.student)
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


def _probe(run: Run, teacher: MetaTeacher, examples: list[Example]) -> dict[str, float | None]:
    """How well the domain can be read off E(x) and off h: what the kinds of L_dom are said to change."""
    features = run.features(examples, run.tokenizer)
    pooled = engine.embed(teacher.encoder, features, Collator(run.tokenizer.pad_token_id), "probe the domain")
    domains = torch.tensor([feature["domains"] for feature in features])
    with torch.no_grad():
        h = teacher.transferable.cpu()(pooled, domains)
    return {
        "chance": domains.bincount().max().item() / len(domains),
        "pooled": domain_probe(pooled.double().numpy(), domains.numpy()),
        "representation": domain_probe(h.double().numpy(), domains.numpy()),
    }


def _add_teacher_tokens(features: list[Features], theirs: list[Features]) -> None:
    """Put the same texts in the teacher's own tokens beside the student's."""
    for feature, other in zip(features, theirs, strict=True):
        feature |= {f"teacher_{name}": value for name, value in other.items() if isinstance(value, list)}


def _with_weights(run: Run, features: list[Features], examples: Sequence[Example]) -> list[Features]:
    """The features with the instance weight of each example beside them."""
    if not is_done(run.weights_folder, run.weigh_fingerprint):
        raise InputError(f"{run.weights_folder}: no instance weights; run `metakd weigh --output {run.folder}` first")
    with (run.weights_folder / WEIGHTS_FILE).open(encoding="utf-8") as lines:
        weights = {row["id"]: row["weight"] for row in map(json.loads, lines)}
    for feature, example in zip(features, examples, strict=True):
        feature["instance_weights"] = weights[example.id]
    return features


def _check_reloaded(
    run: Run, folder: Path, model: PreTrainedModel, tokenizer: Any, train: list[Example], dev: list[Example]
) -> dict[str, Any]:
    """Score the model and what was saved of it, on dev where there is one; CheckError where they differ."""
    examples = dev or train
    saved = load_classifier(folder).to(device())
    theirs = engine.predict(saved, run.features(examples, load_tokenizer(folder)), Collator(tokenizer.pad_token_id))
    ours = engine.predict(model, run.features(examples, tokenizer), Collator(tokenizer.pad_token_id))
    difference = (ours - theirs).abs().max().item()
    if not difference <= SAME_PROBABILITY:
        raise CheckError(f"{folder}: reloaded, its probabilities differ by {difference:.2g} from what was saved")
    truth = torch.tensor([run.data.labels.index(e.label) for e in examples])
    commonest = Counter(e.label for e in examples).most_common(1)[0][1]
    return {
        "split": "dev" if dev else "train",
        "examples": len(examples),
        "accuracy": (ours.argmax(-1) == truth).float().mean().item(),
        "commonest_class": commonest / len(examples),
    }


def _check_teacher(run: Run) -> None:
    """Raise InputError for a meta-teacher that is hardly better than always saying the commonest class."""
    manifest = read_manifest(run.teacher_folder)
    assert manifest is not None
    found = manifest["check"]
    least = min(TEACHER_MARGIN, (1 - found["commonest_class"]) / 2)
    if found["accuracy"] - found["commonest_class"] < least and not run.settings.allow_weak_teacher:
        raise InputError(
            f"the meta-teacher is near chance: accuracy {found['accuracy']:.3f} on {found['examples']} "
            f"examples of {found['split']}, "
            f"{found['commonest_class']:.3f} by the commonest class alone. Raise --teacher-epochs or "
            "--teacher-learning-rate, check the labels, or take it as it is by --allow-weak-teacher"
        )

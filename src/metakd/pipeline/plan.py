"""`--dry-run`: what a run would do, how large its models are, and roughly how long it takes."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.table import Column, Table
from transformers import PreTrainedModel

from metakd import losses
from metakd.data.schema import SPLITS
from metakd.methods import METHODS
from metakd.methods.base import Stage
from metakd.models.encoder import forward
from metakd.models.hub import resolve
from metakd.models.loading import load_config, set_dropout
from metakd.pipeline.teacher_outputs import layers_to_keep
from metakd.runs.run import Run
from metakd.runs.starts import load_base
from metakd.training.teacher_cache import fits, layer_bytes
from metakd.utils.artifacts import free_disk, is_done
from metakd.utils.console import stdout
from metakd.utils.errors import InputError
from metakd.utils.hardware import autocast, device

BACKWARD = 3  # a forward and a backward pass cost about as much as three forward passes
META_VALIDATION = 3  # a pilot update, a held-out batch and the gradient through both cost about three updates
CHECKPOINT_COPIES = 3 * 2  # weights and two moments of the optimizer, two checkpoints at a time
FROZEN_COPIES = 2  # weights alone: the optimizer has moments of few others


class Disk(NamedTuple):
    """Bytes that a run has yet to write: models, and the peak of temporary files."""

    models: float
    temporary: float


def print_plan(run: Run) -> None:
    """Print the plan: steps with their minutes, sizes, disk."""
    teacher, student = (model.num_parameters() for model in run.blank_models)
    steps, needed = Table("step", Column("minutes (estimate)", justify="right"), title="Plan"), minutes(run)
    for name, amount in (needed | {"all": sum(needed.values())}).items():
        steps.add_row(name, f"{amount:.1f}")
    stdout.print(_data_table(run), steps)
    kept, share = _cache_size(run)
    disk = needed_disk(run, kept)
    stdout.print(
        f"teacher {teacher / 1e6:.2f} M parameters, each student {student / 1e6:.2f} M; "
        f"disk {disk.models / 1e9:.2f} GB, and up to {disk.temporary / 1e9:.2f} GB while training; "
        f"matrix products in {run.precision}"
    )
    if kept:
        stdout.print(f"teacher cache: {kept / 1e9:.2f} GB of disk for {share:.0%} of the teacher's layers")


def minutes(run: Run) -> dict[str, float]:
    """Estimated minutes of each unfinished step, scaled from one real training step of the base on real text."""
    base, student = load_base(run.settings, run.data.labels), run.blank_models[1]
    teacher = _computing_parameters(base)
    seconds = _forward_seconds(run, base) / teacher  # for one example and one parameter
    work = _work(run, teacher, _computing_parameters(student), _cache_size(run)[1])
    return {name: amount * seconds / 60 for name, amount in work.items()}


def _computing_parameters(model: PreTrainedModel) -> int:
    """The number of parameters outside of embedding tables."""
    return model.num_parameters() - model.get_input_embeddings().weight.numel()


def needed_disk(run: Run, kept: float) -> Disk:
    """The disk that is needed, with `kept` bytes of the teacher's layers while students learn."""
    data, (base, student_model) = run.data, run.blank_models
    teacher, student = (4 * model.num_parameters() for model in (base, student_model))
    no_teacher = not is_done(run.folders.teacher, run.fingerprints.teach)
    missing = sum(not run.is_student_done(m, d) for m in run.methods for d in data.domains)
    missing += sum(not run.is_student_done(m, None) for m in run.methods if run.has_shared_start(m))
    weighed = len(run.features.teacher_texts(data.train)[0])
    copies = CHECKPOINT_COPIES if run.settings.teacher_epochs and not run.settings.lora_rank else FROZEN_COPIES
    teaching = no_teacher * max(copies * teacher, 4.0 * weighed * base.config.hidden_size)
    cached = len(run.features.student_texts) * bool(_teacher_stages(run, run.methods))
    pooled = len(layers_to_keep(_teacher_stages(run, run.methods)).pooled)
    # logits, h and pooled layers; those of tokens are in `kept`
    outputs = 4.0 * cached * (base.config.hidden_size * (1 + pooled) + len(data.labels))
    outputs += 4.0 * len(data.unlabelled) * base.config.hidden_size  # E(x), while texts without labels are weighed
    learning = CHECKPOINT_COPIES * student + kept + outputs
    return Disk(no_teacher * teacher + missing * student, max(teaching, bool(missing) * learning))


def check_disk(run: Run, place: Path, removed: Sequence[Path] = ()) -> None:
    """Raise InputError if the disk of `place` has no room for what the run has yet to write, once `removed` is gone."""
    needed, free = sum(needed_disk(run, _cache_size(run)[0])), free_disk(place)
    files = [file for path in removed for file in (path, *path.rglob("*")) if file.is_file()]
    free += sum(file.stat().st_size for file in files)
    if needed > free:
        raise InputError(
            f"{place}: needs about {needed / 1e9:.2f} GB of disk, but only {free / 1e9:.2f} are free. Free some "
            "space, choose another --output, or lower --cache-budget"
        )


def _cache_size(run: Run) -> tuple[float, float]:
    """Bytes of the teacher's layers that are cached, and their share of all layers' bytes."""
    width = load_config(resolve(run.settings.base)).hidden_size
    lengths = run.features.encode(run.features.student_texts).lengths
    sizes = layer_bytes(lengths, width, layers_to_keep(_teacher_stages(run, run.methods)), run.precision)
    kept = float(sizes[fits(sizes, run.cache_budget)].sum())
    return kept, kept / max(1.0, float(sizes.sum()))


def _teacher_stages(run: Run, methods: Sequence[str]) -> list[Stage]:
    """The stages of the methods that read the teacher's cached outputs."""
    return [stage for m in methods if "teacher" in METHODS[m].needs for stage in run.stages[m]]


def _work(run: Run, teacher: int, student: int, share: float) -> dict[str, float]:
    """Forward passes of each step, times the parameters that compute; `share` of the teacher's layers is cached."""
    taught = len(run.features.teacher_texts(run.data.train)[0])
    no_weights = not is_done(run.folders.weights, run.fingerprints.weigh)
    no_teacher = not is_done(run.folders.teacher, run.fingerprints.teach)
    work: dict[str, float] = {
        "weigh": no_weights * taught * teacher * (run.settings.weights != "none"),
        "teach": no_teacher * (run.settings.teacher_epochs * BACKWARD or 1) * taught * teacher,
    }
    missing = [m for m in run.methods if not all(run.is_student_done(m, d) for d in run.data.domains)]
    if stages := _teacher_stages(run, missing):
        live = (1 - share) * sum(stage.epochs for stage in stages if stage.layers)
        weighed = len(run.data.unlabelled) * (run.settings.weights != "none")
        work["teacher outputs"] = ((1 + live) * len(run.features.student_texts) + weighed) * teacher
    for method in run.methods:
        meta_validated = "held_out_split" in METHODS[method].needs
        each = BACKWARD * student * (1 + META_VALIDATION * meta_validated) + (1 + BACKWARD) * teacher * meta_validated
        passes = len(run.data.domains) if "foreign_text" in METHODS[method].needs else 1
        epochs = sum(stage.epochs * (1 if stage.shared else passes) for stage in run.stages[method])
        work[f"distill ({method})"] = epochs * _texts_read(run, method) * each * (method in missing)
    return work


def _texts_read(run: Run, method: str) -> int:
    """Texts and windows in an epoch of a method's students."""
    needs = METHODS[method].needs
    if "teacher" in needs:
        return len(run.features.student_texts)
    if "soft_labels" in needs:
        return len(run.features.with_extra_texts(run.data.train))
    return len(run.data.train) + len(run.data.unlabelled) * ("pseudo_labels" in needs)


def _data_table(run: Run) -> Table:
    splits = {name: rows for name in SPLITS if (rows := run.data.splits.get(name))}
    splits |= {"unlabelled": run.data.unlabelled} if run.data.unlabelled else {}
    columns = [Column(name, justify="right") for name in splits]
    table = Table("domain", *columns, title=f"Examples in {run.data.name}")
    counts = {name: Counter(e.domain for e in rows) for name, rows in splits.items()}
    for domain in run.data.domains:
        table.add_row(domain, *(str(counts[name][domain]) for name in splits))
    return table


def _forward_seconds(run: Run, model: PreTrainedModel) -> float:
    """Seconds of one example's forward pass, a third of its training step; the first of two steps warms up."""
    examples = run.data.train[: run.settings.batch_size]
    batch = run.features.collator([*run.features.encode(examples)])
    batch = {name: value.to(device()) for name, value in batch.items()}
    set_dropout(model, run.settings.dropout, run.settings.attention_dropout)
    model.to(device()).train()
    elapsed = 0.0
    for _ in range(2):
        started = time.perf_counter()
        with autocast(run.precision):
            loss = losses.cross_entropy(forward(model, batch).logits, batch["labels"]).mean()
        loss.backward()
        if device().type == "cuda":
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - started
    return elapsed / len(examples) / BACKWARD

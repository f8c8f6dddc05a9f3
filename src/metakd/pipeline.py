"""The story: weigh -> teach -> distill -> evaluate. Each step is one function and leaves a manifest, written last."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import set_seed

from metakd import engine, passes, processes
from metakd.artifacts import MANIFEST, RUN_FILE, is_done, reserve, step_folder
from metakd.batching import Collator
from metakd.checkpoints import resolve
from metakd.checks import check_reloaded, probe, spread
from metakd.distillation import distill, distill_all
from metakd.encoders import load_encoder, set_dropout
from metakd.errors import InputError
from metakd.hardware import device
from metakd.locks import only_one, refuse_foreign, refuse_while_held
from metakd.meta_teacher import MetaTeacher
from metakd.methods import METHODS
from metakd.planning import check_disk
from metakd.prototypes import instance_weights, prototype_scores, prototypes
from metakd.runs import SCORE_FILES, WEIGHTS_FILE, Run
from metakd.scoring import check_scorable, evaluate
from metakd.tracking import LOGS_FOLDER

__all__ = ["distill", "distill_all", "evaluate", "run_all", "teach", "weigh"]


def weigh(run: Run) -> Path:
    """Prototype scores and instance weights of all training examples, by the pretrained encoder [Meta-KD, 3.1]."""
    processes.by_main(lambda: _weigh(run))
    return run.weights_folder


def check_weighable(run: Run) -> None:
    """InputError where the settings want no weights."""
    if run.settings.weights == "none":
        raise InputError("weights = 'none': there is nothing to weigh; go on with `metakd teach`")


def _weigh(run: Run) -> None:
    with only_one(run.folder):
        if not is_done(run.weights_folder, run.weigh_fingerprint):
            _weigh_all(run)


def _weigh_all(run: Run) -> None:
    check_weighable(run)
    settings, data, folder, facts = run.settings, run.data, run.weights_folder, dict[str, Any]()
    with step_folder(folder, "weigh", run.weigh_fingerprint, facts) as partial:
        encoder = load_encoder(resolve(settings.base), data.labels).to(device())
        features = run.features(data.train, run.tokenizer)
        shape, file = (len(features), encoder.config.hidden_size), partial / "embeddings"
        reserve(file, 4 * shape[0] * shape[1])  # a map of a full disk would end the process without a word
        embeddings = torch.from_file(str(file), shared=True, size=shape[0] * shape[1]).view(shape)
        collator = Collator(run.tokenizer.pad_token_id)
        passes.embed(encoder, features, collator, "weigh all domains", run.precision, embeddings)
        labels = features.column("labels")
        places = {domain: place for place, domain in enumerate(data.domains)}
        domains = torch.tensor([places[e.domain] for e in data.train])  # those new to a teacher too
        known = prototypes(embeddings, labels, domains, len(data.labels), len(data.domains))
        scores = prototype_scores(known, embeddings, labels, domains, settings.alpha)
        weights = instance_weights(scores, normalize=settings.weights == "normalized")
        with (partial / WEIGHTS_FILE).open("w", encoding="utf-8") as lines:
            for e, score, weight in zip(data.train, scores.tolist(), weights.tolist(), strict=True):
                lines.write(json.dumps({"id": e.id, "domain": e.domain, "score": score, "weight": weight}) + "\n")
        save_file({"vectors": known.vectors, "counts": known.counts}, partial / "prototypes.safetensors")
        facts |= {"mean_score": scores.mean().item(), "clamped": int((scores < 0).sum()), "precision": run.precision}
        facts["weights"] = spread(weights, "instance weights")
        file.unlink()


def teach(run: Run) -> Path:
    """The meta-teacher: the base, fine-tuned on all domains by L_T [Meta-KD, 3.2]."""
    mark = run.teach_fingerprint
    checkpoints = run.checkpoint_folder("meta_teacher", mark)
    with only_one(run.folder):
        if not processes.by_main(lambda: is_done(run.teacher_folder, mark)):
            _teach(run, mark, checkpoints)
            processes.wait()
        shutil.rmtree(checkpoints, ignore_errors=True)
    return run.teacher_folder


def _teach(run: Run, mark: str, checkpoints: Path) -> None:
    settings, data, facts = run.settings, run.data, dict[str, Any]()
    weights = run.instance_weights(data.train)
    features = run.features(data.train, run.tokenizer).with_columns(instance_weights=weights)
    plan = engine.Plan(
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
        facts["log"] = engine.fit(teacher, features, Collator(run.tokenizer.pad_token_id), plan)
        if processes.is_main():
            teacher.save(partial)
            run.tokenizer.save_pretrained(partial)
            dev = data.splits.get("dev", [])
            facts["check"] = check_reloaded(run, partial, encoder, run.tokenizer, data.train, dev)
            facts["domain_probe"] = probe(run, teacher, dev or data.train)


def clear(run: Run) -> None:
    """Remove what runs have left in the folder, and nothing else. InputError where no run has been begun in it."""
    processes.by_main(lambda: _clear(run))


def _clear(run: Run) -> None:
    folder = run.folder
    refuse_foreign(folder)
    shared = [run.shared_folder(method) for method in METHODS] + [folder / "shared_student"]
    fleets = [folder / name for name in ("students", *METHODS)]
    passing = [folder / name for name in (".teacher_cache.partial", "checkpoints", LOGS_FOLDER)]
    with only_one(folder):
        refuse_while_held([run.cache_lock, *(folder / "checkpoints").glob("*.lock")])
        (folder / MANIFEST).unlink(missing_ok=True)
        for path in (run.weights_folder, run.teacher_folder, run.cache_folder, *shared, *fleets, *passing):
            shutil.rmtree(path, ignore_errors=True)
        for file in (*SCORE_FILES, RUN_FILE):
            (folder / file).unlink(missing_ok=True)


def run_all(run: Run) -> dict[str, Any]:
    """Every step, those that are done already left as they are; returns what results.json holds.

    Raises InputError where the disk has no room for it, or another process is at work in the folder.
    """
    check_scorable(run)
    with only_one(run.folder):
        processes.by_main(lambda: check_disk(run))
        if run.settings.weights != "none":
            weigh(run)
        teach(run)
        distill_all(run, run.data.domains, run.methods)
        return evaluate(run)

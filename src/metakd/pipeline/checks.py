"""Checks of trained models: the saved model predicts the same, and the teacher is better than chance."""

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from metakd.data.dataset import MultiDomainDataset
from metakd.data.schema import Example
from metakd.data.splits import sample_by_domain
from metakd.data.tokenization import Collator, encode
from metakd.evaluation.linear_models import domain_probe
from metakd.evaluation.metrics import Flags, micro_f1
from metakd.evaluation.thresholds import choose_thresholds
from metakd.models.forward_passes import embed, predict
from metakd.models.loading import load_classifier, load_tokenizer
from metakd.models.meta_teacher import MetaTeacher, select_head
from metakd.prototypes import effective_share
from metakd.runs.run import Run
from metakd.utils.artifacts import RUN_FILE, is_done, read_manifest, read_run, remedy
from metakd.utils.console import notice
from metakd.utils.errors import CheckError, InputError

TEACHER_MARGIN = 0.05  # how far a teacher's accuracy must be above the share of the most common class
NEARLY_ALL = 0.995  # effective share above which weights have almost no effect
AS_USUAL = 3  # epochs of a teacher that did not learn here yet
TRIED = 500  # rows that show whether a teacher has learnt anything
PROBED = 5_000  # most examples of the domain probe, whose time grows with rows times domains
BINS = 20  # of the histogram of weights
RELOADED = 64  # most examples that a saved model predicts once more
SAME_PROBABILITY = 1e-5  # how far a reloaded model's probabilities may be from the saved one's


def checked_rows(data: MultiDomainDataset, domain: str | None = None) -> tuple[str, list[Example]]:
    """The split and the rows on which a domain's model (or all domains') is checked: dev, or else train."""
    if domain is None:
        return ("dev", data.splits["dev"]) if data.splits.get("dev") else ("train", data.train)
    dev = data.by_domain.get("dev", {}).get(domain)
    return ("dev", dev) if dev else ("train", data.by_domain["train"][domain])


def is_checked(manifest: Mapping[str, Any], data: MultiDomainDataset) -> bool:
    """Whether a model's check is of today's rows; those of train are in its fingerprint."""
    return bool(manifest["check"].get("dev_fingerprint") == data.dev_fingerprint)


def check_reloaded(
    run: Run, folder: Path, model: PreTrainedModel, tokenizer: Any, examples: list[Example], split: str
) -> dict[str, Any]:
    """The model's scores on examples of this split; CheckError if the saved model predicts a sample otherwise."""
    sample, collator = examples[:: math.ceil(len(examples) / RELOADED)], Collator(tokenizer.pad_token_id)
    probabilities = predict(model, run.features.encode(examples, tokenizer), collator)
    before = predict(model, run.features.encode(sample, tokenizer), collator)
    place = model.device
    model.cpu()  # a GPU may have no room for a large model twice
    reloaded = load_classifier(folder).to(place)
    again = predict(reloaded, encode(load_tokenizer(folder), sample, run.settings.max_length), collator)
    del reloaded
    model.to(place)
    difference = (before - again).abs().max().item()
    if not difference <= SAME_PROBABILITY:
        raise CheckError(f"{folder}: probabilities of the reloaded model differ by {difference:.2g}")
    return {
        "split": split,
        "dev_fingerprint": run.data.dev_fingerprint,
        "examples": len(examples),
        **_accuracy(run, model, probabilities, examples),
    }


def check_teacher(run: Run) -> None:
    """Raise InputError if a meta-teacher is missing or hardly better than predicting the most common class."""
    for teacher_run in run.teacher_runs:
        folder = teacher_run.folders.teacher
        manifest = read_manifest(folder)
        if manifest is None or not is_done(folder, teacher_run.fingerprints.teach):
            how = remedy(teacher_run.folder, "teach", run.data.place)
            raise InputError(f"{folder}: no finished meta-teacher; {how} first")
        if not is_checked(manifest, teacher_run.data):
            continue  # `distill_all` checks it again, and then asks once more
        refuse_near_chance(teacher_run, manifest["check"])


def refuse_near_chance(run: Run, check: Mapping[str, Any]) -> None:
    """Raise InputError for a teacher with these scores that is hardly better than the most common class.

    With --allow-weak-teacher a notice.
    """
    measure, always = "accuracy", "the most common class"
    if run.data.several_labels:
        measure, always = "micro-F1", "the same labels for all"
    if not near_chance(check):
        return
    fault = (
        f"the meta-teacher is near chance: {measure} {check['accuracy']:.3f} on {check['examples']} examples of "
        f"{check['split']}, and {check['commonest_class']:.3f} for {always}"
    )
    if run.settings.allow_weak_teacher:
        notice(f"{fault}; --allow-weak-teacher: students learn from it all the same")
    else:
        raise InputError(
            f"{fault}. Can you tell the labels of ten rows from their texts, and are these texts of the kind and the "
            "language that the model knows (`metakd inspect` shows what its tokens make of them)? Then "
            f"{_retraining(run)}"
        )


def _retraining(run: Run) -> str:
    """What to do about a teacher near chance; commands only where they work as they stand."""
    if run.settings.teacher_epochs:
        train, epochs = "train it longer", 3 * run.settings.teacher_epochs
    else:
        classes = "if its classes have each other's names, put them right with --teacher-labels; or"
        train, epochs = f"{classes} train it on the data", AS_USUAL
    longer, folder = f"--teacher-epochs {epochs}", run.folders.teacher
    begun = (run.folder / RUN_FILE).is_file() and read_run(run.folder)["data"] is not None
    if not begun or (run.folder / "students").exists():
        return f"{train}, for example with {longer}; or go on with it by --allow-weak-teacher"
    resume = f"metakd run --output {shlex.quote(str(run.folder))} --resume"
    again = f"rm -r {shlex.quote(str(folder))} && {resume}" if folder.exists() else resume
    return f"{train}: `{again} {longer}`; or go on with it: `{resume} --allow-weak-teacher`"


def sampled_accuracy(run: Run, teacher: MetaTeacher, examples: Sequence[Example]) -> dict[str, Any]:
    """Accuracy on a sample of the examples, the share of their most common class, and how many they are."""
    rows = sample_by_domain(examples, TRIED, run.settings.seed)
    probabilities = predict(teacher.encoder, run.features.encode(rows), run.features.collator)
    return {"examples": len(rows), **_accuracy(run, teacher.encoder, probabilities, rows)}


def _accuracy(
    run: Run, model: PreTrainedModel, probabilities: torch.Tensor, examples: list[Example]
) -> dict[str, float]:
    """Accuracy of (N, heads · M) probabilities, or (N, M_k) of some classes; the share of the most common class.

    If a text may have several labels, micro-F1 by cross-fitted thresholds takes the place of accuracy, and the best
    labels for all texts that of the most common class.
    """
    features, config = run.features.encode(examples), model.config
    classes = [config.id2label[place] for place in range(config.num_labels)]
    heads = math.ceil(len(classes) / len(run.data.labels))
    if run.data.several_labels:
        truth = features.column("labels")[:, [run.data.label_ids[c] for c in classes]] > 0
        p = probabilities.double().numpy()
        thresholds = choose_thresholds(examples, classes, p, run.settings.seed)
        return _micro_f1(p > thresholds.of(examples), truth.numpy())
    predicted = select_head(probabilities, features.column("domains"), heads).argmax(-1)
    if len(classes) < len(run.data.labels):
        predicted = torch.tensor([run.data.label_ids[label] for label in classes])[predicted]
    commonest = Counter(e.label for e in examples).most_common(1)[0][1]
    return {
        "accuracy": (predicted == features.column("labels")).float().mean().item(),
        "commonest_class": commonest / len(examples),
    }


def _micro_f1(predicted: Flags, truth: Flags) -> dict[str, float]:
    """Micro-F1 of labels, (N, M), and the best that the same labels for all texts would have."""
    each = np.sort(truth.sum(0))[::-1]
    same = 2 * each.cumsum() / (np.arange(1, len(each) + 1) * len(truth) + each.sum()).clip(1)
    return {"accuracy": micro_f1(truth, predicted), "commonest_class": float(same.max())}


def near_chance(check: Mapping[str, Any]) -> bool:
    """Whether a checked model is hardly better than predicting the most common class."""
    accuracy, chance = check["accuracy"], check["commonest_class"]
    return bool(accuracy - chance < min(TEACHER_MARGIN, (1 - chance) / 2))


def spread(weights: torch.Tensor, name: str) -> dict[str, Any]:
    """The distribution of (N,) weights, for a manifest; with a notice if they are almost equal."""
    share = effective_share(weights)
    if share > NEARLY_ALL:
        notice(f"{name} hardly differ between examples (effective share {share:.4f}), so they have almost no effect")
    values = weights.double().numpy().round(6)  # values that differ in the last bit only would fit no bins
    counts, edges = np.histogram(values, BINS)
    return {
        "quantiles": [round(q, 4) for q in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()],
        "effective_share": round(share, 4),
        "histogram": {"counts": counts.tolist(), "edges": [round(edge, 4) for edge in edges.tolist()]},
    }


def probe(run: Run, teacher: MetaTeacher, examples: list[Example]) -> dict[str, float | None]:
    """Accuracy of a domain classifier on E(x) and on h, which the kinds of L_dom should change."""
    features = run.features.encode(sample_by_domain(examples, PROBED, run.settings.seed))
    pooled = torch.zeros(len(features), teacher.encoder.config.hidden_size)
    embed(teacher.encoder, features, run.features.collator, "probe the domain", run.precision, pooled)
    domains = features.column("domains")
    with torch.no_grad():
        h = teacher.transferable.cpu()(pooled, domains)
    return {
        "chance": domains.bincount().max().item() / len(domains),
        "pooled": domain_probe(pooled.double().numpy(), domains.numpy()),
        "representation": domain_probe(h.double().numpy(), domains.numpy()),
    }

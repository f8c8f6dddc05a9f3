"""The first step: prototype scores and instance weights of all training examples [Meta-KD, 3.1]."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from metakd.data.labels import answer_in_words
from metakd.data.schema import Example
from metakd.models.forward_passes import embed
from metakd.pipeline.checks import spread
from metakd.prototypes import Prototypes, instance_weights, prototype_scores, prototypes, whole_texts
from metakd.runs.folders import WEIGHTS_FILE
from metakd.runs.run import Run
from metakd.runs.starts import load_base
from metakd.utils import distributed
from metakd.utils.artifacts import is_done, read_manifest, reserve, step_folder
from metakd.utils.errors import InputError
from metakd.utils.hardware import device
from metakd.utils.locks import run_lock

PROTOTYPES_FILE = "prototypes.safetensors"


def weigh(run: Run) -> Path:
    """The folder with the instance weight t of each training example, by the pretrained encoder [Meta-KD, 3.1].

    Args:
        run: The run, begun; a finished step stays as it is.

    Returns:
        The folder, with `weights.jsonl` and `prototypes.safetensors`.

    Raises:
        InputError: The settings turn weights off, or another process uses the folder.
    """
    distributed.on_main(lambda: _weigh(run))
    return run.folders.weights


def check_weighable(run: Run) -> None:
    """Raise InputError if the settings turn weights off."""
    if run.settings.weights == "none":
        raise InputError("--weights = 'none': there is nothing to weigh; leave this step out")


def _weigh(run: Run) -> None:
    settings, data, facts = run.settings, run.data, dict[str, Any]()
    with run_lock(run.folder):
        if is_done(run.folders.weights, run.fingerprints.weigh):
            return
        check_weighable(run)
        with step_folder(run.folders.weights, "weigh", run.fingerprints.weigh, facts) as partial:
            file, labels = partial / "embeddings", run.features.encode(data.train).column("labels")
            embeddings = _embeddings(run, data.train, file)
            domains = torch.tensor([data.domain_ids[e.domain] for e in data.train])  # also those unknown to a teacher
            scores = _scores(run, embeddings, labels, domains, partial)
            weights = instance_weights(scores, normalize=settings.weights == "normalized")
            with (partial / WEIGHTS_FILE).open("w", encoding="utf-8") as written:
                for e, score, weight in zip(data.train, scores.tolist(), weights.tolist(), strict=True):
                    written.write(json.dumps({"id": e.id, "domain": e.domain, "score": score, "weight": weight}) + "\n")
            file.unlink()
            facts |= {"mean_score": scores.mean().item(), "clamped": int((scores < 0).sum())}
            facts |= {"precision": run.precision, "weights": spread(weights, "instance weights")}


def _scores(run: Run, embeddings: Tensor, labels: Tensor, domains: Tensor, folder: Path) -> Tensor:
    """The prototype score of each training example (N,); the prototypes, of `data.gold`, are written to `folder`."""
    data, alpha = run.data, run.settings.alpha
    gold, count = {e.id for e in data.gold}, (len(data.labels), len(data.domains))
    certain = torch.tensor([e.id in gold for e in data.train])
    known = prototypes(embeddings, labels, domains, *count, certain)
    scores = prototype_scores(known, embeddings, labels, domains, alpha, averaged=certain)
    save_file({"vectors": known.vectors, "counts": known.counts}, folder / PROTOTYPES_FILE)
    return scores


def weigh_unlabelled(run: Run, logits: Callable[[], Tensor]) -> None:
    """Write t of each text without a label, by the class that the teacher gives it.

    `logits` computes the teacher's (N, M). Prototypes, and the mean that t is divided by, are those of labelled texts.
    """
    texts, digest, folder = run.data.unlabelled, run.fingerprints.unlabelled, run.folders.unlabelled_weights
    manifest = read_manifest(folder)
    if manifest is not None and manifest.get("fingerprint") == digest and is_done(folder, digest):
        return
    facts: dict[str, Any] = {"texts": len(texts)}
    confidences, labels = run.features.likeliest(logits(), texts)
    with step_folder(folder, "unlabelled", digest, facts) as partial:
        file, domains = partial / "embeddings", torch.tensor([run.data.domain_ids[e.domain] for e in texts])
        embeddings = _embeddings(run, texts, file)
        known = Prototypes(**load_file(run.folders.weights / PROTOTYPES_FILE))
        scores = prototype_scores(known, embeddings, labels, domains, run.settings.alpha, averaged=False)
        weights = instance_weights(scores, run.settings.weights == "normalized", _labelled_scores(run))
        values = zip(texts, labels.tolist(), confidences.tolist(), scores.tolist(), weights.tolist(), strict=True)
        with (partial / WEIGHTS_FILE).open("w", encoding="utf-8") as rows:
            for e, label, confidence, score, weight in values:
                names = answer_in_words(label, run.data.labels)
                row = {"id": e.id, "domain": e.domain, "label": names, "confidence": confidence}
                rows.write(json.dumps(row | {"score": score, "weight": weight}) + "\n")
        file.unlink()
        facts["mean_confidence"] = confidences.mean().item()


def _labelled_scores(run: Run) -> Tensor:
    """The prototype scores of the texts with labels, as `weigh` wrote them: (N,)."""
    with (run.folders.weights / WEIGHTS_FILE).open(encoding="utf-8") as rows:
        return torch.tensor([json.loads(row)["score"] for row in rows])


def _embeddings(run: Run, texts: Sequence[Example], file: Path) -> Tensor:
    """E(x) of all texts (N, H), mapped to `file`, so that they need no memory."""
    windows, rows = run.features.teacher_texts(texts)
    features = run.features.encode(windows)
    encoder = load_base(run.settings, run.data.labels).to(device())
    shape = len(features), encoder.config.hidden_size
    reserve(file, 4 * shape[0] * shape[1])  # on a full disk, a mapped file would end the process without a message
    embeddings = torch.from_file(str(file), shared=True, size=shape[0] * shape[1]).view(shape)
    embed(encoder, features, run.features.collator, "weigh all domains", run.precision, embeddings)
    special = run.features.tokenizer.num_special_tokens_to_add(run.data.has_pairs)
    return whole_texts(embeddings, torch.from_numpy(features.lengths - special), torch.from_numpy(rows), len(texts))

"""The first step: prototype scores and instance weights of all training examples [Meta-KD, 3.1]."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from metakd.data.tokenization import Collator
from metakd.models.forward_passes import embed
from metakd.models.hub import resolve
from metakd.models.loading import load_encoder
from metakd.pipeline.checks import spread
from metakd.prototypes import instance_weights, prototype_scores, prototypes
from metakd.runs.run import WEIGHTS_FILE, Run
from metakd.utils import distributed
from metakd.utils.artifacts import is_done, reserve, step_folder
from metakd.utils.errors import InputError
from metakd.utils.hardware import device
from metakd.utils.locks import run_lock


def weigh(run: Run) -> Path:
    """Prototype scores and instance weights of all training examples, by the pretrained encoder [Meta-KD, 3.1]."""
    distributed.on_main(lambda: _weigh(run))
    return run.weights_folder


def check_weighable(run: Run) -> None:
    """InputError where the settings want no weights."""
    if run.settings.weights == "none":
        raise InputError("weights = 'none': there is nothing to weigh; go on with `metakd teach`")


def _weigh(run: Run) -> None:
    with run_lock(run.folder):
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
        embed(encoder, features, collator, "weigh all domains", run.precision, embeddings)
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

"""What a run's data is about, and how its models see it: terms, domains that are alike, maps."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.decomposition import PCA

from metakd.data.schema import Example
from metakd.data.splits import by_domain
from metakd.data.tokenization import encode
from metakd.inference.torch_backend import TorchModel
from metakd.inspection.inspector import inspect_dataset
from metakd.inspection.tables import findings
from metakd.inspection.terms import strongest_terms
from metakd.inspection.turning_terms import turning_terms
from metakd.models.forward_passes import embed
from metakd.models.meta_teacher import TransferableRepresentation
from metakd.pipeline.teach import load_teacher
from metakd.prototypes import Prototypes, domain_similarity
from metakd.runs.run import EXTRAS_FILE, Run
from metakd.utils.artifacts import is_done

SAMPLE = 20_000  # training texts that terms are taken from, where there are more
TERMS = 20
MAPPED = 1_000  # scored examples in a map, where there are more


def describe(run: Run, scored: Sequence[Example], students: Mapping[str, Path]) -> dict[str, Any]:
    """All of it, for JSON; `students` are their folders by domain."""
    draw = random.Random(run.settings.seed)
    train = run.data.train if len(run.data.train) <= SAMPLE else draw.sample(run.data.train, SAMPLE)
    shown = scored if len(scored) <= MAPPED else draw.sample(list(scored), MAPPED)
    report = inspect_dataset(run.data)
    return {
        "rows": report["counts"],
        "findings": findings(report),
        "terms": strongest_terms(train, TERMS),
        "turning": turning_terms(train, TERMS),
        "similarity": _similarity(run),
        "maps": _maps(run, shown, students),
    }


def _similarity(run: Run) -> list[list[float]]:
    """How alike domains are by their prototypes (K, K); empty where nothing was weighed."""
    if run.settings.weights == "none" or not is_done(run.weights_folder, run.weigh_fingerprint):
        return []
    known = load_file(run.weights_folder / "prototypes.safetensors")
    found = domain_similarity(Prototypes(known["vectors"], known["counts"]))
    return [[round(value, 4) for value in row] for row in found.tolist()]


def _maps(run: Run, examples: Sequence[Example], students: Mapping[str, Path]) -> dict[str, Any]:
    """The examples' h by the teacher, and by the students of their domains, each in its two main directions.

    A student whose h is not there, since none was learnt or it was not kept, is drawn by its E(x) (see `by_h`).
    """
    drawn = by_domain(examples)
    ordered = [e for domain in students for e in drawn.get(domain, [])]
    domains = torch.tensor([run.data.domains.index(e.domain) for e in ordered])
    teacher = load_teacher(run).transferable.cpu()
    embedded = {
        "meta_teacher": _embeddings(run, run.teacher_folder, ordered),
        "student": torch.cat([_embeddings(run, students[d], drawn[d]) for d in students if d in drawn]),
    }
    readers = {"meta_teacher": teacher, "student": _kept_representation(run, len(embedded["student"][0]), teacher)}
    with torch.no_grad():
        seen = {name: reader(embedded[name], domains) for name, reader in readers.items() if reader is not None}
    by_h = [*seen]
    return {"ids": [e.id for e in ordered], "by_h": by_h} | {
        name: _main_directions(vectors) for name, vectors in (embedded | seen).items()
    }


def _kept_representation(
    run: Run, width: int, teacher: TransferableRepresentation
) -> TransferableRepresentation | None:
    """What makes h of a student's E(x): kept of the shared start, unless the stages after it have moved it on."""
    place = run.shared_folder(run.settings.method) / EXTRAS_FILE
    moved = any("feature" in stage.terms and not stage.shared for stage in run.stages[run.settings.method])
    kept = load_file(place) if place.is_file() and not moved else {}
    own = {name.removeprefix("transferable."): value for name, value in kept.items() if "transferable." in name}
    if not own:
        return None
    found = TransferableRepresentation(width, len(run.data.domains), teacher.use_embedding)
    found.load_state_dict(own)
    return found


def _embeddings(run: Run, folder: Path, examples: Sequence[Example]) -> torch.Tensor:
    model = TorchModel.load(folder)
    features = encode(model.tokenizer, examples, run.settings.max_length)
    found = torch.zeros(len(examples), model.network.config.hidden_size)
    return embed(model.network, features, model.collator, f"look at examples by {folder.name}", "float32", found)


def _main_directions(vectors: torch.Tensor) -> list[list[float]]:
    """(N, H) -> (N, 2)."""
    found = PCA(min(2, *vectors.shape), random_state=0).fit_transform(vectors.numpy())
    return [[round(float(value), 3) for value in row] for row in np.pad(found, ((0, 0), (0, 2 - found.shape[1])))]

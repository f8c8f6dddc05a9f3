"""What a run's data is about, and how its models represent it: terms, similar domains, maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.decomposition import PCA

from metakd.data.schema import Example
from metakd.data.splits import by_domain, sample_by_domain
from metakd.data.tokenization import encode
from metakd.inference.torch_backend import TorchModel
from metakd.inspection.inspector import inspect_dataset
from metakd.inspection.tables import findings
from metakd.inspection.terms import strongest_terms, turning_terms
from metakd.models.forward_passes import embed
from metakd.models.meta_teacher import TransferableRepresentation
from metakd.pipeline.teach import load_teacher
from metakd.pipeline.weigh import PROTOTYPES_FILE
from metakd.prototypes import Prototypes, domain_similarity
from metakd.runs.folders import EXTRAS_FILE
from metakd.runs.run import Run
from metakd.utils.artifacts import is_done

SAMPLE = 20_000  # most training texts that terms are taken from
TERMS = 20
MAPPED = 1_000  # most scored examples in a map


def describe(run: Run, scored: Sequence[Example], students: Mapping[str, Path]) -> dict[str, Any]:
    """The content of corpus.json; `students` are their folders by domain."""
    train, shown = (
        sample_by_domain(rows, most, run.settings.seed) for rows, most in ((run.data.train, SAMPLE), (scored, MAPPED))
    )
    report = inspect_dataset(run.data)
    return {
        "rows": report["counts"],
        "texts": report["rows_by_domain"],
        "findings": findings(report),
        "terms": strongest_terms(train, TERMS),
        "turning": turning_terms(train, TERMS),
        "similarity": _similarity(run),
        "maps": _maps(run, shown, students),
    }


def _similarity(run: Run) -> list[list[float]]:
    """Similarity of domains by their prototypes (K, K); empty without instance weights."""
    if run.settings.weights == "none" or not is_done(run.folders.weights, run.fingerprints.weigh):
        return []
    prototypes = Prototypes(**load_file(run.folders.weights / PROTOTYPES_FILE))
    return [[round(value, 4) for value in row] for row in domain_similarity(prototypes).tolist()]


def _maps(run: Run, examples: Sequence[Example], students: Mapping[str, Path]) -> dict[str, Any]:
    """The examples' h by the teacher, and by the students of their domains, each in its two main directions.

    Students without a saved h are drawn by their E(x); `by_h` lists the models that are drawn by h.
    """
    domain_examples = by_domain(examples)
    ordered = [e for domain in students for e in domain_examples.get(domain, [])]
    domains = torch.tensor([run.data.domain_ids[e.domain] for e in ordered])
    teacher = load_teacher(run).transferable.cpu()
    by_students = [_embeddings(run, students[d], domain_examples[d]) for d in students if d in domain_examples]
    embedded = {"meta_teacher": _embeddings(run, run.folders.teacher, ordered), "student": torch.cat(by_students)}
    heads = {"meta_teacher": teacher, "student": _students_head(run, len(embedded["student"][0]))}
    with torch.no_grad():
        h = {name: head(embedded[name], domains) for name, head in heads.items() if head is not None}
    maps = {name: _main_directions(vectors) for name, vectors in (embedded | h).items()}
    return {"ids": [e.id for e in ordered], "by_h": [*h]} | maps


def _students_head(run: Run, width: int) -> TransferableRepresentation | None:
    """The students' head for h, from the shared start; None if later stages have trained it further."""
    file = run.folders.student(run.settings.method, None) / EXTRAS_FILE
    trained_on = any("feature" in stage.terms and not stage.shared for stage in run.stages[run.settings.method])
    extras = load_file(file) if file.is_file() and not trained_on else {}
    weights = {name.removeprefix("transferable."): w for name, w in extras.items() if "transferable." in name}
    if not weights:
        return None
    head = TransferableRepresentation(width, len(run.data.domains))
    head.load_state_dict(weights)
    return head


def _embeddings(run: Run, folder: Path, examples: Sequence[Example]) -> torch.Tensor:
    model = TorchModel.load(folder)
    features = encode(model.tokenizer, examples, run.settings.max_length)
    vectors = torch.zeros(len(examples), model.network.config.hidden_size)
    return embed(model.network, features, model.collator, f"embed examples by {folder.name}", "float32", vectors)


def _main_directions(vectors: torch.Tensor) -> list[list[float]]:
    """(N, H) -> (N, 2)."""
    points = PCA(min(2, *vectors.shape), random_state=0).fit_transform(vectors.numpy())
    return [[round(float(value), 3) for value in row] for row in np.pad(points, ((0, 0), (0, 2 - points.shape[1])))]

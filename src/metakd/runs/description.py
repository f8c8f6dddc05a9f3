"""run.json: what a run was made of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metakd.config.settings import Settings
from metakd.data.dataset import MultiDomainDataset
from metakd.models.hub import licence, resolve
from metakd.utils.artifacts import RUN_FORMAT


def description_of(
    settings: Settings, data: MultiDomainDataset, models: Any, classes: Mapping[str, Any], cost: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of run.json.

    Args:
        settings: The run's settings.
        data: Its data.
        models: The fingerprints of the models that it starts from.
        classes: The entry on the classes of each domain's student, if they differ.
        cost: Settings whose defaults depend on the machine; they stay the same when the run continues elsewhere.
    """
    place, model = Path(data.place or "nowhere"), resolve(settings.teacher or settings.base)
    return {
        "format": RUN_FORMAT,
        "data": data.place,
        "data_fingerprint": data.fingerprint,
        **({"unlabelled_fingerprint": data.unlabelled_fingerprint} if data.unlabelled else {}),
        "models": models,
        "licences": {"base": licence(model), "data": licence(place) if place.is_dir() else None},
        "labels": data.labels,
        **classes,
        **({"several_labels": True} if data.several_labels else {}),
        "domains": data.domains,
        "pairs": data.has_pairs,
        "settings": {**settings.model_dump(mode="json"), **cost, "unlabelled": data.unlabelled_place},
    }

"""Which variants each experiment compares: Meta-KD, its rivals, its parts and its sizes, as changes of settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metakd.config import Settings


@dataclass(frozen=True)
class Variant:
    """One line of a comparison: the given settings with some changes."""

    name: str
    changes: dict[str, Any]
    alone: bool = False  # each domain's teacher and student know no other domain
    teacher: str = ""  # name of the line on which its teacher is scored, if it is


def main(settings: Settings) -> list[Variant]:
    """Meta-KD, the paper's baselines and the rivals, each student with as many updates."""
    without_tkd = tuple(term for term in settings.terms if term != "feature")
    plain: dict[str, Any] = {"method": "meta_kd", "expertise": "none", "terms": without_tkd}
    no_domains: dict[str, Any] = {"weights": "none", "domain_loss": "none"}
    one_stage: dict[str, Any] = {"terms": ("prediction",), "stages": "joint"}
    return [
        Variant("meta_kd", {"method": "meta_kd"}, teacher="meta teacher"),
        Variant("meta_teacher_kd", plain),
        Variant("shared", {"shared_epochs": settings.shared_epochs + settings.predict_epochs, "predict_epochs": 0}),
        Variant("mix_kd", plain | no_domains, teacher="mixture teacher"),
        Variant("single_kd", plain | no_domains, alone=True, teacher="single teachers"),
        Variant("logit_kd", plain | no_domains | one_stage, alone=True),
        Variant("fine_tuned", {"method": "fine_tuned"}),
        Variant("fine_tuned_shared", {"method": "fine_tuned_shared"}),
    ]


def ablation(settings: Settings) -> list[Variant]:
    """Meta-KD with one part left out or one coefficient moved."""
    found = [Variant("meta_kd", {}, teacher="meta teacher")]
    found += [
        Variant(f"without {term}", {"terms": tuple(t for t in settings.terms if t != term)})
        for term in settings.terms
        if term != "prediction"
    ]
    found.append(Variant("without expertise weights", {"expertise": "none"}))
    found.append(Variant("without instance weights", {"weights": "none"}))
    kinds = ("false", "permuted", "uniform", "reversal", "none")
    found += [_moved("domain_loss", kind) for kind in kinds if kind != settings.domain_loss]
    for name, points in {"alpha": (0.0, 0.5, 1.0), "gamma1": (0.1, 0.5, 1.0), "gamma2": (0.1, 0.5, 1.0)}.items():
        found += [_moved(name, value) for value in points if value != getattr(settings, name)]
    return found


def _moved(name: str, value: Any) -> Variant:
    return Variant(f"{name} {value}", {name: value})


def size(settings: Settings) -> list[Variant]:
    """Meta-KD with students of one to six layers."""
    return [Variant(f"{n} layers" if n > 1 else "1 layer", {"student": f"layers={n}"}) for n in range(6, 0, -1)]


EXPERIMENTS: dict[str, Callable[[Settings], list[Variant]]] = {"main": main, "ablation": ablation, "size": size}

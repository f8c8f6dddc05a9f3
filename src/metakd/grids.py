"""Which variants each experiment compares: Meta-KD, its rivals, its parts and its sizes, as changes of settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from metakd.checkpoints import resolve
from metakd.config import Settings
from metakd.encoders import load_config

# One teacher for all domains; or for each domain's student another one, which knows that domain alone, or of that
# domain no more than the percentage, or nothing of that domain.
Scope = Literal["all", "alone", "rare", "unseen"]


@dataclass(frozen=True)
class Variant:
    """One line of a comparison: the given settings with some changes."""

    name: str
    changes: dict[str, Any]
    teacher: str = ""  # name of the line on which its teacher is scored, if it is
    scope: Scope = "all"
    percent: int = 100  # of the training texts that are left, drawn by seed within domain and label


NO_DOMAINS: dict[str, Any] = {"weights": "none", "domain_loss": "none"}
ONE_STAGE: dict[str, Any] = {"terms": ("prediction",), "stages": "joint"}
META_KD: dict[str, Any] = {"method": "meta_kd"}
FINE_TUNED: dict[str, Any] = {"method": "fine_tuned"}


def plain(settings: Settings) -> dict[str, Any]:
    """TinyBERT's losses: neither λ nor L_tkd."""
    return META_KD | {"expertise": "none", "terms": tuple(term for term in settings.terms if term != "feature")}


def main(settings: Settings) -> list[Variant]:
    """Meta-KD, the paper's baselines and the rivals, each student with as many updates."""
    tinybert = plain(settings)
    return [
        Variant("meta_kd", META_KD, "meta teacher"),
        Variant("meta_teacher_kd", tinybert),
        Variant("shared", {"shared_epochs": settings.shared_epochs + settings.predict_epochs, "predict_epochs": 0}),
        Variant("mix_kd", tinybert | NO_DOMAINS, "mixture teacher"),
        Variant("single_kd", tinybert | NO_DOMAINS, "single teachers", scope="alone"),
        Variant("logit_kd", tinybert | NO_DOMAINS | ONE_STAGE, scope="alone"),
        Variant("fine_tuned", FINE_TUNED),
        Variant("fine_tuned_shared", {"method": "fine_tuned_shared"}),
    ]


def ablation(settings: Settings) -> list[Variant]:
    """Meta-KD with one part left out or one coefficient moved."""
    found = [Variant("meta_kd", {}, "meta teacher")]
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
    """Meta-KD with students of as many layers as the base has, six at most, down to one."""
    most = min(6, load_config(resolve(settings.base)).num_hidden_layers)
    return [Variant(f"{n} layers" if n > 1 else "1 layer", {"student": f"layers={n}"}) for n in range(most, 0, -1)]


def unseen(settings: Settings) -> list[Variant]:
    """Students of a domain whose labels their teacher has never seen, beside those whose teacher has."""
    mixture = plain(settings) | NO_DOMAINS
    return [
        Variant("meta_kd, domain unseen", META_KD, "meta teacher, domain unseen", scope="unseen"),
        Variant("mix_kd, domain unseen", mixture, "mixture teacher, domain unseen", scope="unseen"),
        Variant("meta_kd", META_KD, "meta teacher"),
        Variant("mix_kd", mixture, "mixture teacher"),
        Variant("fine_tuned", FINE_TUNED),
    ]


def scarce(settings: Settings) -> list[Variant]:
    """Meta-KD, a teacher a domain, and labels alone, where few texts of one domain, or of all, have labels."""
    found = []
    for percent in (5, 20, 100):
        single = plain(settings) | NO_DOMAINS
        if percent < 100:
            found.append(Variant(f"meta_kd, {percent} % of one domain", META_KD, percent=percent, scope="rare"))
        found.append(Variant(f"meta_kd, {percent} % of all", META_KD, percent=percent))
        found.append(Variant(f"single_kd, {percent} %", single, percent=percent, scope="alone"))
        found.append(Variant(f"fine_tuned, {percent} %", FINE_TUNED, percent=percent))
    return found


EXPERIMENTS: dict[str, Callable[[Settings], list[Variant]]] = {
    "main": main,
    "ablation": ablation,
    "scarce": scarce,
    "size": size,
    "unseen": unseen,
}

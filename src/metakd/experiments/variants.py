"""Which variants each experiment compares: Meta-KD, its rivals, its parts and its sizes, as changes of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from metakd.config.settings import Settings
from metakd.methods import METHODS
from metakd.methods.base import has_teacher
from metakd.models.hub import resolve
from metakd.models.loading import load_config

# One teacher for all domains; or one for each domain, all of which teach every student; or for each domain's student
# another one, which knows that domain alone, or of that domain no more than the percentage, or nothing of that domain.
Scope = Literal["all", "several", "alone", "rare", "several, rare", "unseen"]


@dataclass(frozen=True)
class Variant:
    """One line of a comparison: the given settings with some changes."""

    name: str
    changes: dict[str, Any]
    teacher: str = ""  # name of the line on which its teacher is scored, if it is
    scope: Scope = "all"
    percent: int = 100  # of the training texts that are left, drawn by seed within domain and label
    tunes: str = ""  # line of `main` that it is a trial of, if it is one
    tuned_settings: Mapping[str, Any] = field(
        default_factory=dict
    )  # what that trial sets, before the line's own changes


META_KD: dict[str, Any] = {"method": "meta_kd"}
TUNING_GRID: list[dict[str, Any]] = [
    {"shared_epochs": passes, "shared_learning_rate": rate, "baseline_learning_rate": rate / 4}
    for passes in (2, 5)
    for rate in (2e-4, 4e-4)
]
NO_DOMAINS: dict[str, Any] = {"weights": "none", "domain_loss": "none", "heads": "one"}


def plain(settings: Settings) -> dict[str, Any]:
    """TinyBERT's losses: neither λ nor L_tkd."""
    return META_KD | {"expertise": "none", "terms": tuple(term for term in settings.terms if term != "feature")}


def main(settings: Settings) -> list[Variant]:
    """Meta-KD, metakd's own, two neighbours, baselines of the paper, and rivals on labels alone."""
    tinybert = plain(settings)
    own = settings.domain_epochs
    together = {"shared_epochs": settings.shared_epochs + own, "match_epochs": 0, "predict_epochs": 0}
    one_stage = {"terms": ("prediction",), "stages": "joint", "match_epochs": 0, "predict_epochs": own}
    return [
        Variant("meta_kd", META_KD, "meta teacher"),
        Variant("meta_teacher_kd", tinybert),
        Variant("shared", META_KD | together),
        Variant("cross_domain", {"method": "cross_domain"}),
        Variant("hrkd", {"method": "hrkd"}),
        Variant("metadistil", {"method": "metadistil"}),
        Variant("mix_kd", tinybert | NO_DOMAINS, "mixture teacher"),
        Variant("single_kd", tinybert | NO_DOMAINS, "single teachers", scope="alone"),
        Variant("mtl_kd", tinybert | NO_DOMAINS | {"heads": "domain"}, "multi-task teacher"),
        Variant("multi_teacher", tinybert | NO_DOMAINS | one_stage, scope="several"),
        Variant("logit_kd", tinybert | NO_DOMAINS | one_stage, scope="alone"),
        Variant("fine_tuned", {"method": "fine_tuned"}),
        Variant("fine_tuned_shared", {"method": "fine_tuned_shared"}),
    ]


def with_tuned_settings(
    line: Callable[[Settings], list[Variant]], settings: Settings, tuned_settings: Mapping[str, Any]
) -> list[Variant]:
    """The variants of an experiment as they are with a trial's settings."""
    found = line(settings.model_copy(update=dict(tuned_settings)))
    return [
        replace(variant, changes={**tuned_settings, **variant.changes}, tuned_settings=tuned_settings)
        for variant in found
    ]


def tune(settings: Settings) -> list[Variant]:
    """Every line of `main` with every one of TRIALS, to choose between on dev."""
    return [
        replace(
            variant,
            name=f"{variant.name}, {variant.trial['shared_epochs']} at {variant.trial[_rate_of(variant)]:g}",
            tunes=variant.name,
        )
        for candidates in zip(
            *(with_tuned_settings(main, settings, tuned_settings) for tuned_settings in TUNING_GRID), strict=True
        )
        for variant in candidates
    ]


def _rate_of(variant: Variant) -> str:
    """The setting that is the rate of its first stage."""
    return "shared_learning_rate" if has_teacher(METHODS[variant.changes["method"]]) else "baseline_learning_rate"


def ablation(settings: Settings) -> list[Variant]:
    """Meta-KD with one part left out or one coefficient moved."""
    found = [Variant("meta_kd", META_KD, "meta teacher")]
    for term in settings.terms:
        if term != "prediction":
            found.append(Variant(f"without {term}", META_KD | {"terms": tuple(t for t in settings.terms if t != term)}))
    without = {"expertise": "without expertise weights", "weights": "without instance weights"}
    found += [Variant(told, META_KD | {name: "none"}) for name, told in without.items()]
    moves: dict[str, tuple[Any, ...]] = {
        "domain_loss": ("false", "permuted", "uniform", "reversal", "none"),
        "alpha": (0.0, 0.5, 1.0),
        "gamma1": (0.1, 0.5, 1.0),
        "gamma2": (0.1, 0.5, 1.0),
    }
    for name, values in moves.items():
        found += [Variant(f"{name} {value}", META_KD | {name: value}) for value in values]
    same = settings.model_copy(update=META_KD)
    return [found[0], *(v for v in found[1:] if settings.model_copy(update=v.changes) != same)]


def size(settings: Settings) -> list[Variant]:
    """Meta-KD with students of as many layers as the base has, six at most, down to one."""
    most = min(6, load_config(resolve(settings.base)).num_hidden_layers)
    return [
        Variant(f"{n} layers" if n > 1 else "1 layer", META_KD | {"student": f"layers={n}"}) for n in range(most, 0, -1)
    ]


def unseen(settings: Settings) -> list[Variant]:
    """Students of a domain whose labels their teacher has never seen, beside those whose teacher has."""
    mixture = plain(settings) | NO_DOMAINS
    return [
        Variant("meta_kd (domain unseen)", META_KD, "meta teacher (domain unseen)", scope="unseen"),
        Variant("mix_kd (domain unseen)", mixture, "mixture teacher (domain unseen)", scope="unseen"),
        Variant("meta_kd", META_KD, "meta teacher"),
        Variant("mix_kd", mixture, "mixture teacher"),
        Variant("fine_tuned", {"method": "fine_tuned"}),
        Variant("fine_tuned_shared", {"method": "fine_tuned_shared"}),
    ]


def scarce(settings: Settings, percent: int, scope: Scope) -> list[Variant]:
    """`main` where `percent` of the texts of all domains are left, or (scope 'rare') of the student's domain alone."""
    scopes: dict[Scope, Scope] = {"all": "rare", "several": "several, rare"} if scope == "rare" else {}
    return [replace(v, percent=percent, scope=scopes.get(v.scope, v.scope)) for v in main(settings)]


EXPERIMENTS: dict[str, Callable[[Settings], list[Variant]]] = {
    "main": main,
    "tune": tune,
    "ablation": ablation,
    "size": size,
    "unseen": unseen,
    "scarce-5": partial(scarce, percent=5, scope="rare"),
    "scarce-20": partial(scarce, percent=20, scope="rare"),
    "scarce-all-5": partial(scarce, percent=5, scope="all"),
    "scarce-all-20": partial(scarce, percent=20, scope="all"),
}

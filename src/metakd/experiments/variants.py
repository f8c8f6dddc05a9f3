"""The variants that each experiment compares: Meta-KD, its baselines, its parts and its sizes, as changed settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from metakd.config.settings import Settings
from metakd.methods import METHODS
from metakd.methods.base import domain_epochs, has_teacher
from metakd.models.hub import resolve
from metakd.models.loading import load_config
from metakd.models.student import layers_to_cut

# Which teacher a student has:
#   all      one for all domains
#   several  one of each domain, all of which teach every student
#   alone    one of its domain only
#   rare     one of all domains, with only some percent of its own; "several, rare" and "alone, rare" likewise
#   unseen   one of all domains but its own
Scope = Literal["all", "several", "alone", "rare", "several, rare", "alone, rare", "unseen"]


@dataclass(frozen=True)
class Variant:
    """What an experiment compares: the user's settings with some changes."""

    name: str
    changes: dict[str, Any]
    teacher: str = ""  # name under which its teacher is scored, if it is
    scope: Scope = "all"
    percent: int = 100  # of the training texts that are used, drawn by seed within domain and label
    rest_unlabelled: bool = False  # whether the others are read without their labels
    unlabelled: int = 100  # percent of the texts without labels that are used
    tunes: str = ""  # variant of `main` that this one is a candidate for, in `tune`
    tuned_settings: Mapping[str, Any] = field(default_factory=dict)  # settings from TUNING_GRID, under its changes


META_KD: dict[str, Any] = {"method": "meta_kd"}
NO_DOMAINS: dict[str, Any] = {"weights": "none", "domain_loss": "none", "heads": "one"}
TUNING_GRID: list[dict[str, Any]] = [
    {"shared_epochs": epochs, "shared_learning_rate": rate, "baseline_learning_rate": rate / 4}
    for epochs in (2, 5)
    for rate in (2e-4, 4e-4)
]
WITHOUT = {"without expertise weights": {"expertise": "none"}, "without instance weights": {"weights": "none"}}
SELECTED = {"meta_kd (min confidence 0.9)": {"min_confidence": 0.9}, "meta_kd (max share 0.5)": {"max_share": 0.5}}
MOVED: dict[str, tuple[Any, ...]] = {
    "domain_loss": ("false", "permuted", "none"),
    "alpha": (0.0, 0.5, 1.0),
    "gamma1": (0.1, 0.5, 1.0),
    "gamma2": (0.1, 0.5, 1.0),
}


def plain(settings: Settings) -> dict[str, Any]:
    """TinyBERT's losses: neither λ nor L_tkd."""
    return META_KD | {"expertise": "none", "terms": tuple(term for term in settings.terms if term != "feature")}


def _of_methods(*names: str) -> list[Variant]:
    return [Variant(name, {"method": name}) for name in names]


def main(settings: Settings) -> list[Variant]:
    """Meta-KD, metakd's own methods and two related ones, the paper's baselines, and baselines on labels only."""
    tinybert, epochs = plain(settings), domain_epochs(settings)
    together = {"shared_epochs": settings.shared_epochs + epochs, "match_epochs": 0, "predict_epochs": 0}
    one_stage = {"terms": ("prediction",), "stages": "joint", "match_epochs": 0, "predict_epochs": epochs}
    return [
        Variant("meta_kd", META_KD, "meta teacher"),
        Variant("meta_teacher_kd", tinybert),
        Variant("shared", META_KD | together),
        *_of_methods("cross_domain", "hrkd", "metadistil"),
        Variant("mix_kd", tinybert | NO_DOMAINS, "mixture teacher"),
        Variant("single_kd", tinybert | NO_DOMAINS, "single teachers", scope="alone"),
        Variant("mtl_kd", tinybert | NO_DOMAINS | {"heads": "domain"}, "multi-task teacher"),
        Variant("multi_teacher", tinybert | NO_DOMAINS | one_stage, scope="several"),
        Variant("logit_kd", tinybert | NO_DOMAINS | one_stage, scope="alone"),
        *_of_methods("fine_tuned", "fine_tuned_shared"),
    ]


def with_tuned_settings(
    experiment: Callable[[Settings], list[Variant]], settings: Settings, tuned: Mapping[str, Any]
) -> list[Variant]:
    """The experiment's variants with the `tuned` settings in place of the user's; a variant's changes come last."""
    variants = experiment(settings.model_copy(update=dict(tuned)))
    return [replace(v, changes={**tuned, **v.changes}, tuned_settings=tuned) for v in variants]


def tune(settings: Settings) -> list[Variant]:
    """Candidates for every variant of `main`, one for each settings of TUNING_GRID, to choose between on dev."""
    return [
        replace(v, name=f"{v.name}, {v.tuned_settings['shared_epochs']} at {_learning_rate(v):g}", tunes=v.name)
        for variants in zip(*(with_tuned_settings(main, settings, tuned) for tuned in TUNING_GRID), strict=True)
        for v in variants
    ]


def _learning_rate(variant: Variant) -> float:
    """The tuned learning rate of the variant's first stage."""
    name = "shared_learning_rate" if has_teacher(METHODS[variant.changes["method"]]) else "baseline_learning_rate"
    return float(variant.tuned_settings[name])


def ablation(settings: Settings) -> list[Variant]:
    """Meta-KD with one part left out or one coefficient moved."""
    variants = [
        Variant(f"without {term}", META_KD | {"terms": tuple(t for t in settings.terms if t != term)})
        for term in settings.terms
        if term != "prediction"
    ]
    variants += [Variant(name, META_KD | changes) for name, changes in WITHOUT.items()]
    variants += [Variant(f"{name} {x}", META_KD | {name: x}) for name, values in MOVED.items() for x in values]
    return _beside_meta_kd(settings, variants)


def _beside_meta_kd(settings: Settings, variants: Sequence[Variant]) -> list[Variant]:
    """Meta-KD, and the variants that change it."""
    same = settings.model_copy(update=META_KD)
    changed = [v for v in variants if settings.model_copy(update=v.changes) != same]
    return [Variant("meta_kd", META_KD, "meta teacher"), *changed]


def size(settings: Settings) -> list[Variant]:
    """Meta-KD with students of as many layers as the base has, six at most, down to one."""
    most = min(6, load_config(resolve(settings.base)).num_hidden_layers)
    sizes = range(most, 0, -1)
    return [Variant(f"{n} layers" if n > 1 else "1 layer", META_KD | {"student": f"layers={n}"}) for n in sizes]


def small(settings: Settings) -> list[Variant]:
    """Meta-KD with what may bring small students closer to their teacher, one change at a time."""
    layers, (epochs, rate) = layers_to_cut(settings.student), (settings.shared_epochs, settings.shared_learning_rate)
    changes: dict[str, dict[str, Any]] = {
        "lower layers": {"start_layers": ",".join(map(str, range(1, layers + 1)))} if layers else {},
        "layers of the base": {"student_init": "base"} if layers else {},
        "prediction only": {} if settings.stages == "two" and settings.match_epochs else {"terms": ("prediction",)},
        "temperature 2": {"temperature": 2.0},
        "temperature 4": {"temperature": 4.0},
        "twice the shared epochs": {"shared_epochs": 2 * epochs},
        "twice the shared rate": {"shared_learning_rate": 2 * rate},
        "three epochs a domain": {"predict_epochs": 3},
        "two crops": {"crops": 2},
    }
    return _beside_meta_kd(settings, [Variant(name, META_KD | change) for name, change in changes.items()])


def unseen(settings: Settings) -> list[Variant]:
    """Students of a domain whose labels their teacher has never seen, beside those whose teacher has."""
    mixture = plain(settings) | NO_DOMAINS
    return [
        Variant("meta_kd (domain unseen)", META_KD, "meta teacher (domain unseen)", scope="unseen"),
        Variant("mix_kd (domain unseen)", mixture, "mixture teacher (domain unseen)", scope="unseen"),
        Variant("meta_kd", META_KD, "meta teacher"),
        Variant("mix_kd", mixture, "mixture teacher"),
        *_of_methods("fine_tuned", "fine_tuned_shared"),
    ]


def scarce(settings: Settings, percent: int, scope: Scope) -> list[Variant]:
    """`main` with `percent` of the texts of all domains, or (scope 'rare') of the student's domain only."""
    rare: dict[Scope, Scope] = {"all": "rare", "several": "several, rare", "alone": "alone, rare"}
    scopes = rare if scope == "rare" else {}
    return [replace(v, percent=percent, scope=scopes.get(v.scope, v.scope)) for v in main(settings)]


def unlabelled(settings: Settings) -> list[Variant]:
    """Meta-KD with parts of --unlabelled, by size or as the teacher's answers choose them, and self-training."""
    chooses = settings.unlabelled or settings.unlabelled_rows  # settings refuse to choose from nothing
    chosen = [Variant(name, META_KD | change) for name, change in SELECTED.items() if chooses]
    return [*_unlabelled(), *chosen]


def _unlabelled() -> list[Variant]:
    """Meta-KD with all, a quarter and none of the text without labels, and a small model that labels it for itself."""
    return [
        Variant("meta_kd", META_KD, "meta teacher"),
        Variant("meta_kd (a quarter of the unlabelled text)", META_KD, unlabelled=25),
        Variant("meta_kd (no unlabelled text)", META_KD, unlabelled=0),
        *_of_methods("self_trained", "fine_tuned_shared"),
    ]


def rest_unlabelled(settings: Settings, percent: int) -> list[Variant]:
    """All, a quarter and none of the text without labels, which is all but `percent` of the training texts."""
    return [replace(v, percent=percent, rest_unlabelled=True) for v in _unlabelled()]


EXPERIMENTS: dict[str, Callable[[Settings], list[Variant]]] = {
    "main": main,
    "tune": tune,
    "ablation": ablation,
    "size": size,
    "small": small,
    "unseen": unseen,
    "scarce-5": partial(scarce, percent=5, scope="rare"),
    "scarce-20": partial(scarce, percent=20, scope="rare"),
    "scarce-all-5": partial(scarce, percent=5, scope="all"),
    "scarce-all-20": partial(scarce, percent=20, scope="all"),
    "unlabelled": unlabelled,
    "unlabelled-20": partial(rest_unlabelled, percent=20),
}

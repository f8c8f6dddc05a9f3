"""The interface of a method: what it needs, which modules it trains, in which stages, and by which loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

from torch import Tensor, nn
from transformers import PreTrainedModel

from metakd.config.settings import Settings
from metakd.data.tokenization import Batch
from metakd.losses import LossTerms
from metakd.models.encoder import EncoderOutputs
from metakd.models.meta_teacher import NO_LAYERS, MetaTeacher, TeacherLayers, TeacherOutputs
from metakd.utils import distributed
from metakd.utils.errors import InputError, raise_faults
from metakd.utils.hardware import Precision

Need = Literal[
    "teacher",  # frozen; its outputs come from the cache, if they are in it
    "live_teacher",  # a teacher that is trained together with the student
    "instance_weights",
    "pseudo_labels",  # classes of texts without labels, by the shared start of the baseline
    "soft_labels",  # probabilities of the labels, from columns of the data
    "all_domains",  # text of every domain in each batch, as far as there is enough, in stages on several domains
    "foreign_text",  # a domain's stages read all domains' text, with weights `transfer`
    "held_out_split",  # training examples that the student does not learn from
]


@dataclass(frozen=True)
class Stage:
    """A part of training with its own optimizer: which loss terms, for how many epochs, at which learning rate."""

    name: str
    epochs: int
    learning_rate: float
    terms: tuple[str, ...]
    layers: TeacherLayers = NO_LAYERS  # of the teacher; matched attention needs the student's raw scores too
    shared: bool = False  # trained once on all domains' text, by the student that each domain's student starts from


@dataclass(frozen=True)
class Setup:
    """What a method is built from."""

    settings: Settings
    student: PreTrainedModel
    student_is_cut: bool  # from the base or the teacher; otherwise it is a checkpoint
    teacher: MetaTeacher | None  # None unless the method needs one, cached or live
    same_tokens: bool  # whether teacher and student read the same token ids
    num_domains: int
    rows: int  # training examples of the student, held-out ones included
    rows_of_all: int  # training examples of all domains
    precision: Precision = "float32"  # of matrix products that the method computes outside of `loss`


class Method(Protocol):
    """A new method is one file, one entry in `METHODS`, one test file and one row in docs/methods.md."""

    needs: ClassVar[frozenset[Need]]

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """Build the method; raise InputError for settings or models that do not fit together."""

    def stages(self) -> list[Stage]: ...

    def trainable_modules(self) -> Mapping[str, nn.Module]:
        """Modules that are trained with the student but not saved with it, for example projections."""

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        """Named terms with one value per example; `losses.reduce` weights and averages them."""


@runtime_checkable
class MetaValidatedMethod(Method, Protocol):
    """A method with a `held_out_split`: before each update it evaluates the student on a batch of that split."""

    def before_update(self, student: PreTrainedModel, batch: Batch, held_out: Batch, stage: Stage) -> Tensor:
        """Return the loss on the held-out batch, before the student learns from `batch`; called outside autocast."""


def domain_epochs(settings: Settings) -> int:
    """Epochs of a domain's student after the shared start."""
    return settings.predict_epochs + (settings.match_epochs if settings.stages == "two" else 0)


def shared_then_domain(settings: Settings, terms: tuple[str, ...]) -> list[Stage]:
    """A shared start on all domains' text, then each domain's text, both with all `terms`."""
    stages = [
        Stage("share", settings.shared_epochs, settings.shared_learning_rate, terms, shared=True),
        Stage("predict", domain_epochs(settings), settings.predict_learning_rate, terms),
    ]
    return [stage for stage in stages if stage.epochs]


def has_teacher(kind: type[Method]) -> bool:
    """Whether the method learns from a meta-teacher, cached or live."""
    return bool(kind.needs & {"teacher", "live_teacher"})


def learns_from_labels_alone(kind: type[Method]) -> bool:
    """Whether the method reads gold labels, and no soft ones of a teacher or of the data."""
    return not (has_teacher(kind) or "soft_labels" in kind.needs)


def check_needs(name: str, kind: type[Method]) -> None:
    """Raise InputError for needs that the pipeline cannot meet together."""
    if kind.needs >= {"teacher", "live_teacher"}:
        raise InputError(
            f"method {name!r} needs both 'teacher' and 'live_teacher', but cached outputs are out of date once the "
            "teacher has learnt; keep one of the two"
        )
    if "held_out_split" in kind.needs and not hasattr(kind, "before_update"):
        raise InputError(f"method {name!r} needs 'held_out_split', but does not define before_update")


def check_shareable(name: str, kind: type[Method], settings: Settings) -> None:
    """Raise InputError for settings with which several processes would not get the results of one."""
    faults = []
    if "live_teacher" in kind.needs:
        faults.append(f"--method = {name!r}: its teacher is trained together with the student; choose another --method")
    if settings.domain_loss == "permuted":
        faults.append("--domain-loss = 'permuted': it shuffles whole batches; choose another --domain-loss")
    if (processes := distributed.world_size()) > 1:
        raise_faults(f"not possible with {processes} processes; start only one, or change this", faults)

"""What a method is: the needs it states, the modules it trains, the loss it computes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

from torch import Tensor, nn
from transformers import PreTrainedModel

from metakd.config.settings import Settings
from metakd.data.tokenization import Batch
from metakd.losses import LossTerms
from metakd.models.encoder import EncoderOutputs
from metakd.models.meta_teacher import NO_LAYERS, MetaTeacher, TeacherLayers, TeacherOutputs
from metakd.utils import distributed
from metakd.utils.errors import InputError
from metakd.utils.hardware import Precision

Need = Literal[
    "teacher",  # frozen, and read from the cache where that holds it
    "live_teacher",  # one that learns
    "instance_weights",
    "all_domains",  # text of every domain in each batch, while several are learnt from
    "foreign_text",  # a domain's own stages read all domains' text, with `transfer`
    "held_out_split",  # training examples that nobody learns from
]


@dataclass(frozen=True)
class Stage:
    """A stretch of training with its own optimizer: which terms it computes, for how long, how fast."""

    name: str
    epochs: int
    learning_rate: float
    terms: tuple[str, ...]
    layers: TeacherLayers = NO_LAYERS  # of the teacher; the student's raw scores go with its attention
    shared: bool = False  # on all domains' text, once, by the one student from which each domain's own starts


@dataclass(frozen=True)
class Setup:
    """All that a method may build itself from. `teacher` is None unless the method needs it, remembered or live."""

    settings: Settings
    student: PreTrainedModel
    student_is_cut: bool  # whether it was cut from the base or the teacher, and is no checkpoint of its own
    teacher: MetaTeacher | None
    same_tokens: bool  # whether teacher and student read the same token ids
    num_domains: int
    updates: int  # in one pass over the student's own examples
    updates_of_all: int  # in one pass over all domains' examples
    precision: Precision = "float32"  # of the matrix products that a method computes by itself


class Method(Protocol):
    """One file, one line in `METHODS`, one test file, one row in docs/methods.md make a new method."""

    needs: ClassVar[frozenset[Need]]

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """Decide everything before training; raise InputError for what cannot go together."""
        ...

    def stages(self) -> list[Stage]: ...

    def trainable_modules(self) -> Mapping[str, nn.Module]:
        """Projections and the like: trained with the student, stripped when it is saved."""
        ...

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        """Named terms of one value an example; `losses.reduce` weights and averages them."""
        ...


@runtime_checkable
class MetaValidatedMethod(Method, Protocol):
    """A method with a `held_out_split`: before each update it sees how the student does on some of that."""

    def before_update(self, student: PreTrainedModel, batch: Batch, held_out: Batch, stage: Stage) -> Tensor:
        """Called with the batch that the student is about to learn from, not in autocast; gives the quiz's loss."""
        ...


def has_teacher(kind: type[Method]) -> bool:
    """Whether the method learns from a meta-teacher, one that is remembered or one that is live."""
    return bool(kind.needs & {"teacher", "live_teacher"})


def lengthened(stages: Sequence[Stage], rows: int, taught: int) -> list[Stage]:
    """The stages of students that learn from `rows` examples while others learn from `taught`: as many updates."""
    return [replace(stage, epochs=math.ceil(stage.epochs * taught / rows)) for stage in stages]


def check_needs(name: str, kind: type[Method]) -> None:
    """Raise InputError for needs that the pipeline cannot meet together."""
    if kind.needs >= {"teacher", "live_teacher"}:
        raise InputError(
            f"method {name!r} needs both 'teacher' and 'live_teacher': what is remembered of a teacher is no longer "
            "what it says once it has learnt; keep one of the two"
        )
    if "held_out_split" in kind.needs and not hasattr(kind, "before_update"):
        raise InputError(f"method {name!r} needs 'held_out_split', but has no before_update to be given it")


def check_shareable(name: str, kind: type[Method], settings: Settings) -> None:
    """Raise InputError for what several processes cannot do together as one does it."""
    if distributed.world_size() == 1:
        return
    faults = []
    if "live_teacher" in kind.needs:
        faults.append(f"method = {name!r}: its teacher learns beside the student; choose another --method")
    if settings.domain_loss == "permuted":
        faults.append("domain_loss = 'permuted': it shuffles whole batches; choose another --domain-loss")
    if faults:
        raise InputError.collect(
            f"not for {distributed.world_size()} processes; start `metakd` by itself, or else", faults
        )

"""Meta-distillation [Meta-KD, 3.3]: every term weighted by how far the meta-teacher may be trusted."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import ClassVar, Self

from torch import Tensor, nn

from metakd import losses
from metakd.config.settings import Settings
from metakd.data.tokenization import Batch
from metakd.losses import LossTerms, Term
from metakd.methods.base import Need, Setup, Stage
from metakd.models.attention import has_raw_scores, raw_scores
from metakd.models.encoder import EncoderOutputs
from metakd.models.layer_map import map_layers
from metakd.models.meta_teacher import TeacherLayers, TeacherOutputs, TransferableRepresentation
from metakd.prototypes import expertise_weights
from metakd.utils.console import notice
from metakd.utils.errors import InputError

LAYER_TERMS = ("embedding", "hidden", "attention")


class MetaKD:
    """L_S = mean_i λ_i [L_emb + L_hid + L_att + L_pred + γ2 · L_tkd]."""

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "instance_weights"})

    def __init__(
        self,
        settings: Settings,
        terms: tuple[str, ...],
        layers: list[int],
        raw_scores: bool,
        transferable: TransferableRepresentation,
        projections: dict[str, nn.Module],
    ) -> None:
        self.settings = settings
        self.terms = terms
        self.layers = layers
        self.raw_scores = raw_scores
        self.transferable = transferable
        self.projections = projections

    @classmethod
    def build(cls, setup: Setup) -> Self:
        assert setup.teacher is not None
        settings, student, teacher = setup.settings, setup.student.config, setup.teacher.encoder.config
        layers = map_layers(student.num_hidden_layers, teacher.num_hidden_layers, settings.layer_map)
        widths = student.hidden_size, teacher.hidden_size
        if settings.student_init == "teacher" and setup.student_is_cut:
            transferable = copy.deepcopy(setup.teacher.transferable).requires_grad_(True)
        else:
            blind = not setup.teacher.transferable.use_embedding
            transferable = TransferableRepresentation(widths[0], setup.num_domains, use_embedding=not blind)
        terms = _usable_terms(setup)
        projected = {"layers": bool({"embedding", "hidden"} & set(terms)), "feature": "feature" in terms}
        return cls(
            settings=settings,
            terms=terms,
            layers=layers,
            raw_scores=_use_raw_scores(setup),
            transferable=transferable,
            projections={n: nn.Linear(*widths) for n, used in projected.items() if used and widths[0] != widths[1]},
        )

    def stages(self) -> list[Stage]:
        settings = self.settings
        matched = tuple(term for term in self.terms if term != "prediction")
        stages = []
        if settings.shared_epochs:
            shared = self._stage("share", settings.shared_epochs, settings.shared_learning_rate, self.terms)
            stages.append(replace(shared, shared=True))
        if settings.stages == "two" and settings.match_epochs:
            stages.append(self._stage("match", settings.match_epochs, settings.match_learning_rate, matched))
        if settings.predict_epochs:
            name, terms = ("predict", ("prediction",)) if settings.stages == "two" else ("joint", self.terms)
            stages.append(self._stage(name, settings.predict_epochs, settings.predict_learning_rate, terms))
        return stages

    def _stage(self, name: str, epochs: int, learning_rate: float, terms: tuple[str, ...]) -> Stage:
        mapped = tuple(sorted(set(self.layers)))
        related = "hidden" in terms or ("attention" in terms and not self.raw_scores)
        hidden = (0,) * ("embedding" in terms) + mapped * related
        attention = mapped * ("attention" in terms and self.raw_scores)
        return Stage(name, epochs, learning_rate, terms, TeacherLayers(hidden, attention))

    def trainable_modules(self) -> dict[str, nn.Module]:
        return self.projections | ({"transferable": self.transferable} if "feature" in self.terms else {})

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        assert teacher is not None
        expertise = None if self.settings.expertise == "none" else self._expertise(batch, teacher)
        return {
            name: Term(
                losses.sum_layers(self.by_layer(name, student, batch, teacher)),
                coefficient=self.settings.gamma2 if name == "feature" else 1.0,
                weights=expertise,
            )
            for name in stage.terms
        }

    def by_layer(self, name: str, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs) -> list[Tensor]:
        """The term as losses of (B,), unweighted: one for each mapped layer, or a single one."""
        compute = {
            "embedding": self._embedding,
            "hidden": self._hidden,
            "attention": self._attention,
            "prediction": self._prediction,
            "feature": self._feature,
        }
        return compute[name](student, batch, teacher)

    def _expertise(self, batch: Batch, teacher: TeacherOutputs) -> Tensor:
        hard = self.settings.expertise == "hard"
        return expertise_weights(batch["instance_weights"], teacher.logits, batch["labels"], hard)

    def _project(self, name: str, states: Tensor) -> Tensor:
        return self.projections[name](states) if name in self.projections else states

    def _embedding(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs) -> list[Tensor]:
        ours = self._project("layers", student.hidden_states[0])
        return [losses.hidden_state_loss(ours, teacher.hidden_states[0], batch["attention_mask"])]

    def _hidden(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs) -> list[Tensor]:
        return [
            losses.hidden_state_loss(
                self._project("layers", ours), teacher.hidden_states[layer], batch["attention_mask"]
            )
            for ours, layer in zip(student.hidden_states[1:], self.layers, strict=True)
        ]

    def _attention(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs) -> list[Tensor]:
        mask = batch["attention_mask"]
        if self.raw_scores:
            return [
                losses.attention_score_loss(ours, raw_scores(teacher.attention_factors[layer]), mask)
                for ours, layer in zip(student.attentions, self.layers, strict=True)
            ]
        return [
            losses.relation_loss(ours, teacher.hidden_states[layer], mask)
            for ours, layer in zip(student.hidden_states[1:], self.layers, strict=True)
        ]

    def _prediction(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs) -> list[Tensor]:
        return [losses.prediction_loss(student.logits, teacher.logits, self.settings.temperature)]

    def _feature(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs) -> list[Tensor]:
        ours = self._project("feature", self.transferable(student.pooled, batch["domains"]))
        return [losses.transferable_knowledge_loss(ours, teacher.representation)]


def _usable_terms(setup: Setup) -> tuple[str, ...]:
    """The terms asked for, less those that have nothing to match; InputError where none is left.

    Other tokens cannot be compared one with one, and a teacher without L_dom has an h that nothing has trained.
    """
    assert setup.teacher is not None
    reasons: dict[str, str] = {}
    if not setup.same_tokens:
        reasons |= dict.fromkeys(LAYER_TERMS, "student and teacher have different tokenizers")
    if setup.teacher.domain_loss == "none" or setup.teacher.gamma1 == 0:
        reasons["feature"] = "the teacher learnt no transferable representation (one domain, or no domain loss)"
    dropped = {term: reasons[term] for term in setup.settings.terms if term in reasons}
    for reason in dict.fromkeys(dropped.values()):
        notice(f"{reason}: the terms {', '.join(t for t in dropped if dropped[t] == reason)} drop out")
    kept = tuple(term for term in setup.settings.terms if term not in reasons)
    if not kept or (setup.settings.stages == "two" and setup.settings.match_epochs and kept == ("prediction",)):
        why = " and ".join(dict.fromkeys(dropped.values()))
        raise InputError(f"{why}: nothing is left to match; use --terms prediction --stages joint")
    return kept


def _use_raw_scores(setup: Setup) -> bool:
    """Raw scores, or the relation loss; InputError where scores are demanded and cannot be had."""
    assert setup.teacher is not None
    wish = setup.settings.attention
    if wish == "relation" or "attention" not in setup.settings.terms or not setup.same_tokens:
        return False
    obstacles = [
        f"{model.config.model_type} does not give its raw attention scores"
        for model in (setup.teacher.encoder, setup.student)
        if not has_raw_scores(model)
    ]
    heads = [model.config.num_attention_heads for model in (setup.teacher.encoder, setup.student)]
    if heads[0] != heads[1]:
        obstacles.append(f"the teacher has {heads[0]} attention heads and the student {heads[1]}")
    if not obstacles:
        return True
    reason = " and ".join(dict.fromkeys(obstacles))
    if wish == "scores":
        raise InputError(
            f"attention = 'scores': {reason}; use --attention relation, or leave 'attention' out of --terms"
        )
    notice(f"{reason}: the attention term matches token relations instead of raw scores")
    return False

"""Meta-distillation [Meta-KD, 3.3]: a student imitates the meta-teacher, most where the teacher is an expert."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from metakd import losses
from metakd.config.settings import Settings
from metakd.data.tokenization import Batch
from metakd.losses import LossTerms, Term
from metakd.methods.base import Need, Setup, Stage
from metakd.models.attention import has_raw_scores, local_windows, raw_scores
from metakd.models.encoder import EncoderOutputs, mean_over_real_tokens
from metakd.models.meta_teacher import MetaTeacher, TeacherLayers, TeacherOutputs, TransferableRepresentation
from metakd.models.student import map_layers
from metakd.prototypes import expertise_weights
from metakd.utils.console import notice
from metakd.utils.errors import InputError

LAYER_TERMS = ("embedding", "hidden", "attention")


@dataclass(eq=False)
class MetaKD:
    """L_S = mean_i λ_i [L_emb + L_hid + L_att + L_pred + γ2 · L_tkd], and the term "pooled" on request.

    λ_i is the teacher's expertise on example i (`prototypes.expertise_weights`), L_tkd the term "feature".
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "instance_weights"})

    settings: Settings
    terms: tuple[str, ...]
    layers: list[int]  # the teacher layer that each student layer imitates
    windows: list[int | None]  # for each student layer: how far apart tokens are whose scores both models use
    raw_scores: bool  # whether L_att matches raw scores, or the tokens' relations
    transferable: TransferableRepresentation  # computes the student's h
    projections: dict[str, nn.Module]  # from the student's width to the teacher's, for "layers" and "feature"

    @classmethod
    def build(cls, setup: Setup) -> Self:
        assert setup.teacher is not None
        settings, student, teacher = setup.settings, setup.student.config, setup.teacher.encoder.config
        widths = student.hidden_size, teacher.hidden_size
        layers = map_layers(student.num_hidden_layers, teacher.num_hidden_layers, settings.layer_map)
        if settings.student_init == "teacher" and setup.student_is_cut:
            transferable = copy.deepcopy(setup.teacher.transferable).requires_grad_(True)
        else:
            transferable = TransferableRepresentation(widths[0], setup.num_domains)
        terms, projections = _usable_terms(setup, setup.teacher), dict[str, nn.Module]()
        for name, projected in {"layers": ("embedding", "hidden", "pooled"), "feature": ("feature",)}.items():
            if widths[0] != widths[1] and {*projected} & {*terms}:
                projections[name] = nn.Linear(*widths)
        windows, use_scores = _windows(student, teacher, layers), _use_raw_scores(setup, setup.teacher)
        return cls(settings, terms, layers, windows, use_scores, transferable, projections)

    def stages(self) -> list[Stage]:
        """A shared start, then for each domain "match" and "predict", or "joint" with all terms at once."""
        settings = self.settings
        share = self._stage("share", settings.shared_epochs, settings.shared_learning_rate, self.terms, shared=True)
        prediction = settings.predict_epochs, settings.predict_learning_rate
        if settings.stages == "joint":
            stages = [share, self._stage("joint", *prediction, self.terms)]
        else:
            matched = tuple(term for term in self.terms if term != "prediction")
            match = self._stage("match", settings.match_epochs, settings.match_learning_rate, matched)
            stages = [share, match, self._stage("predict", *prediction, ("prediction",))]
        return [stage for stage in stages if stage.epochs]

    def _stage(self, name: str, epochs: int, rate: float, terms: tuple[str, ...], shared: bool = False) -> Stage:
        mapped = tuple(sorted(set(self.layers)))
        relations = "attention" in terms and not self.raw_scores  # made of hidden states
        hidden = (0,) * ("embedding" in terms) + mapped * ("hidden" in terms or relations)
        attention, pooled = mapped * ("attention" in terms and self.raw_scores), mapped * ("pooled" in terms)
        return Stage(name, epochs, rate, terms, TeacherLayers(hidden, attention, pooled), shared)

    def trainable_modules(self) -> dict[str, nn.Module]:
        return self.projections | ({"transferable": self.transferable} if "feature" in self.terms else {})

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        """The stage's terms, each summed over its layers and weighted by λ."""
        assert teacher is not None
        expertise = None
        if self.settings.expertise != "none":
            hard = self.settings.expertise == "hard"
            expertise = expertise_weights(batch["instance_weights"], teacher.logits, batch["labels"], hard)
        return {
            name: Term(
                losses.sum_layers(self.by_layer(name, student, batch, teacher)),
                coefficient=self.settings.gamma2 if name == "feature" else 1.0,
                weights=expertise,
            )
            for name in stage.terms
        }

    def by_layer(self, name: str, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs) -> list[Tensor]:
        """The unweighted term, (B,), of each mapped layer; a single one for embeddings, prediction and feature."""
        mask = batch["attention_mask"]
        states = zip(student.hidden_states[1:], self.layers, strict=True)
        scores = zip(student.attentions, self.layers, self.windows, strict=True)
        match name:
            case "embedding":
                embedded = self._project("layers", student.hidden_states[0])
                return [losses.hidden_state_loss(embedded, teacher.hidden_states[0], mask)]
            case "hidden":
                return [
                    losses.hidden_state_loss(self._project("layers", ours), teacher.hidden_states[layer], mask)
                    for ours, layer in states
                ]
            case "attention" if self.raw_scores:
                return [
                    losses.attention_score_loss(ours, raw_scores(teacher.attention_factors[layer]), mask, window)
                    for ours, layer, window in scores
                ]
            case "attention":
                return [losses.relation_loss(ours, teacher.hidden_states[layer], mask) for ours, layer in states]
            case "pooled":
                means = ((mean_over_real_tokens(ours, batch["real_mask"]), layer) for ours, layer in states)
                return [
                    losses.pooled_state_loss(self._project("layers", ours), teacher.pooled_states[layer])
                    for ours, layer in means
                ]
            case "prediction":
                several, temperature = batch["labels"].dim() > 1, self.settings.temperature
                return [losses.prediction_loss(student.logits, teacher.logits, temperature, several=several)]
            case _:  # "feature"
                h = self._project("feature", self.transferable(student.pooled, batch["domains"]))
                return [losses.transferable_knowledge_loss(h, teacher.representation)]

    def _project(self, name: str, states: Tensor) -> Tensor:
        return self.projections[name](states) if name in self.projections else states


def _windows(student: Any, teacher: Any, layers: Sequence[int]) -> list[int | None]:
    """By student layer, the smaller window of its and its teacher layer's; None if both attend to all tokens."""
    ours, theirs = local_windows(student), local_windows(teacher)
    pairs = ([ours[place], theirs[layer - 1]] for place, layer in enumerate(layers))
    return [min((window for window in pair if window is not None), default=None) for pair in pairs]


def _usable_terms(setup: Setup, teacher: MetaTeacher) -> tuple[str, ...]:
    """The terms of the settings that can be computed; InputError if none is left.

    Tokens of two tokenizers cannot be compared one by one, and the h of a teacher without L_dom is untrained.
    """
    reasons: dict[str, str] = {}
    if not setup.same_tokens:
        reasons |= dict.fromkeys(LAYER_TERMS, "student and teacher have different tokenizers")
    if not teacher.learns_h:
        reasons["feature"] = "the teacher learnt no transferable representation (one domain, or no domain loss)"
    dropped = {term: reasons[term] for term in setup.settings.terms if term in reasons}
    for reason in dict.fromkeys(dropped.values()):
        notice(f"{reason}; terms left out: {', '.join(t for t in dropped if dropped[t] == reason)}")
    kept = tuple(term for term in setup.settings.terms if term not in reasons)
    if not kept or (setup.settings.stages == "two" and setup.settings.match_epochs and kept == ("prediction",)):
        why = " and ".join(dict.fromkeys(dropped.values()))
        flags = "--terms prediction" if setup.settings.stages == "joint" else "--terms prediction --match-epochs 0"
        raise InputError(f"{why}: no term is left to match; use {flags}")
    return kept


def _use_raw_scores(setup: Setup, teacher: MetaTeacher) -> bool:
    """Whether L_att matches raw scores; InputError if the settings require them and a model has none."""
    settings, models = setup.settings, (teacher.encoder, setup.student)
    if settings.attention == "relation" or "attention" not in settings.terms or not setup.same_tokens:
        return False
    kinds = [model.config.model_type for model in models if not has_raw_scores(model)]
    obstacles = [f"{kind} does not provide raw attention scores" for kind in kinds]
    teacher_heads, student_heads = (model.config.num_attention_heads for model in models)
    if teacher_heads != student_heads:
        obstacles.append(f"the teacher has {teacher_heads} attention heads and the student {student_heads}")
    if not obstacles:
        return True
    reason = " and ".join(dict.fromkeys(obstacles))
    if settings.attention == "scores":
        remedy = "use --attention relation, or leave 'attention' out of --terms"
        raise InputError(f"--attention = 'scores': {reason}; {remedy}")
    notice(f"{reason}; the attention term matches token relations instead of raw scores")
    return False

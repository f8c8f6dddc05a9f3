"""The meta-teacher: a sequence classifier with a second head, for domains [Meta-KD, 3.2].

B texts in a batch, L tokens, H width, A attention heads, d width of a head, M classes, K domains.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from metakd import losses
from metakd.data.tokenization import TEACHER_TOKENS, Batch
from metakd.losses import LossTerms, Term
from metakd.models.class_head import has_several_labels
from metakd.models.encoder import forward, mean_over_real_tokens
from metakd.utils.errors import InputError

HEAD_FILE = "domain_head.safetensors"
UNKNOWN_DOMAIN = -1
SMALLEST = 1e-6  # probability whose odds are taken
DOMAIN_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of the domain classifier's logits and the domains
    "false": losses.false_domain_loss,
    "permuted": losses.permuted_domain_loss,
}


class TeacherLayers(NamedTuple):
    """Teacher layers that a stage of training matches; 0 is the embedding output, 1 the first layer."""

    hidden: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()
    pooled: tuple[int, ...] = ()  # a vector of each text

    def __bool__(self) -> bool:
        """Whether there are vectors of tokens to match."""
        return bool(self.hidden or self.attention)

    def within(self, other: TeacherLayers) -> bool:
        return all(set(ours) <= set(theirs) for ours, theirs in zip(self, other, strict=True))

    def joined(self, other: TeacherLayers) -> TeacherLayers:
        return TeacherLayers(*(tuple(sorted({*ours, *theirs})) for ours, theirs in zip(self, other, strict=True)))


NO_LAYERS = TeacherLayers()


@dataclass(frozen=True)
class TeacherOutputs:
    """Teacher outputs for a batch, with the layers that a stage matches."""

    logits: Tensor  # (B, M)
    representation: Tensor  # (B, H): h
    hidden_states: Mapping[int, Tensor]  # layer -> (B, L, H)
    attention_factors: Mapping[int, Tensor]  # layer -> (B, A, L, 2d); `attention.raw_scores` turns them into scores
    pooled_states: Mapping[int, Tensor] = field(default_factory=dict)  # layer -> (B, H), the mean over real tokens


class TransferableRepresentation(nn.Module):
    """h = tanh(W (E(x) + e_z) + b)."""

    def __init__(self, width: int, num_domains: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_domains, width)  # e_z
        self.dense = nn.Linear(width, width)  # W, b
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(
        self,
        pooled: Tensor,  # (B, H), E(x)
        domains: Tensor,  # (B,) int; −1 for an unknown domain, whose e_z is the mean of the known ones
    ) -> Tensor:  # (B, H)
        known, unknown = self.embedding(domains.clamp(min=0)), (domains == UNKNOWN_DOMAIN)[:, None]
        return torch.tanh(self.dense(pooled + torch.where(unknown, self.embedding.weight.mean(0), known)))


class MetaTeacher(nn.Module):
    """An encoder with a classification head (or `heads` of them, one per domain), h, and a domain classifier on h.

    Its forward computes the teacher's loss L_T. If a batch has separate tokens for the teacher, it reads those.
    """

    def __init__(
        self, encoder: PreTrainedModel, num_domains: int, domain_loss: str, gamma1: float, heads: int = 1
    ) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        self.heads = heads
        self.transferable = TransferableRepresentation(width, num_domains)
        self.domain_classifier = nn.Linear(width, num_domains)
        self.domain_loss = domain_loss if num_domains > 1 else "none"
        self.gamma1 = gamma1
        self.places: Sequence[int] | None = None  # of the only classes that it answers with, if not all

    @property
    def backbone(self) -> PreTrainedModel:
        return self.encoder

    def forward(self, **batch: Tensor) -> LossTerms:
        """L_T = mean_i [t_i · CE(y_i, classifier(x_i)) + γ1 · L_dom(z_i, domain_classifier(h_i))]; no t on L_dom.

        If the batch has windows of texts, both terms of each count by its share of the text; if it has class weights,
        CE counts by them. If it has soft labels, CE is that of `losses.soft_label_loss`.
        """
        outputs, shares = self.outputs(batch), batch.get("shares")
        if "soft_labels" in batch:
            mixed = batch["soft_labels"], batch["gold_weights"]
            cross_entropy = losses.soft_label_loss(outputs.logits, batch["labels"], *mixed)
        else:
            cross_entropy = losses.cross_entropy(outputs.logits, batch["labels"])
        weights = batch["instance_weights"] if shares is None else batch["instance_weights"] * shares
        weights = weights * batch["class_weights"] if "class_weights" in batch else weights
        return {"class": Term(cross_entropy, weights=weights)} | self.domain_terms(outputs.representation, batch)

    def domain_terms(self, h: Tensor, batch: Batch) -> LossTerms:
        """The second term of L_T for the h of a batch, (B, H); nothing without a domain loss."""
        if self.domain_loss == "none":
            return {}
        values = DOMAIN_LOSSES[self.domain_loss](self.domain_classifier(h), batch["domains"])
        return {"domain": Term(values, coefficient=self.gamma1, weights=batch.get("shares"))}

    def outputs(self, batch: Batch, layers: TeacherLayers = NO_LAYERS) -> TeacherOutputs:
        """Logits, h and `layers` for a batch; attention needs `set_attention(encoder, "factors")` first."""
        prefix = TEACHER_TOKENS if any(name.startswith(TEACHER_TOKENS) for name in batch) else ""
        outputs = forward(self.encoder, batch, attentions=bool(layers.attention), prefix=prefix)
        return TeacherOutputs(
            logits=of_classes(select_head(outputs.logits, batch["domains"], self.heads), self.places),
            representation=self.transferable(outputs.pooled, batch["domains"]),
            hidden_states={layer: outputs.hidden_states[layer] for layer in layers.hidden},
            attention_factors={layer: outputs.attentions[layer - 1] for layer in layers.attention},
            pooled_states={
                layer: mean_over_real_tokens(outputs.hidden_states[layer], batch[prefix + "real_mask"])
                for layer in layers.pooled
            },
        )

    @property
    def learns_h(self) -> bool:
        """Whether L_T teaches it h."""
        return self.domain_loss != "none" and self.gamma1 > 0

    def save(self, folder: Path) -> None:
        """Write the encoder as a Hugging Face checkpoint, with everything about domains in a file beside it."""
        self.encoder.save_pretrained(folder)
        head = {name: value for name, value in self.state_dict().items() if not name.startswith("encoder.")}
        save_file({name: value.contiguous() for name, value in head.items()}, folder / HEAD_FILE)

    def load_head(self, folder: Path) -> None:
        """Read the file that `save` put beside the checkpoint."""
        encoder = {f"encoder.{name}": value for name, value in self.encoder.state_dict().items()}
        self.load_state_dict(encoder | load_file(folder / HEAD_FILE))


class RepresentationLearner(nn.Module):
    """What a frozen encoder leaves to learn of a meta-teacher: h and the domain classifier, by L_dom alone.

    Batches have E(x) as `pooled`, (B, H).
    """

    def __init__(self, teacher: MetaTeacher) -> None:
        super().__init__()
        self.teacher = teacher

    @property
    def backbone(self) -> PreTrainedModel:
        return self.teacher.encoder

    def forward(self, **batch: Tensor) -> LossTerms:
        return self.teacher.domain_terms(self.teacher.transferable(batch["pooled"], batch["domains"]), batch)


class TeacherEnsemble(MetaTeacher):
    """The mean prediction of several teachers [You et al., KDD 2017], without layers to match.

    `encoder`, from which students may be cut, has the mean of their weights.
    """

    def __init__(self, members: Sequence[MetaTeacher], num_domains: int) -> None:
        states = [member.encoder.state_dict() for member in members]
        mean = {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}
        super().__init__(copy.deepcopy(members[0].encoder), num_domains, "none", 0.0)
        self.encoder.load_state_dict(mean)
        self.members = nn.ModuleList(members)

    def outputs(self, batch: Batch, layers: TeacherLayers = NO_LAYERS) -> TeacherOutputs:
        """The logarithm of the mean probability as logits, and the mean h, both as for an unknown domain.

        If a text may have several labels, the logarithm of the odds of the mean probability.
        """
        if layers or layers.pooled:
            raise InputError("several teachers have no common layers to match; use --terms prediction")
        batch = batch | {"domains": torch.full_like(batch["domains"], UNKNOWN_DOMAIN)}
        outputs = [cast(MetaTeacher, member).outputs(batch) for member in self.members]
        answers = torch.stack([each.logits.float() for each in outputs])
        h = torch.stack([each.representation for each in outputs])
        if has_several_labels(self.encoder):
            mean = answers.sigmoid().mean(0).logit(SMALLEST)
        else:
            mean = answers.log_softmax(-1).logsumexp(0) - math.log(len(outputs))
        logits = of_classes(mean, self.places)
        return TeacherOutputs(logits, h.mean(0), {}, {})


def class_names(labels: Sequence[str], domains: Sequence[str]) -> list[str]:
    """Names of the classes where each domain has a classification head, side by side."""
    return [f"{domain}: {label}" for domain in domains for label in labels]


def select_head(
    logits: Tensor,  # (B, heads · M)
    domains: Tensor,  # (B,) int; −1 for an unknown domain, which gets the mean of the heads
    heads: int,
) -> Tensor:  # (B, M)
    """The logits of each example's classification head, if there is one head per domain."""
    if heads == 1:
        return logits
    by_head = logits.unflatten(1, (heads, -1))  # (B, K, M)
    known = by_head[torch.arange(len(logits)), domains.clamp(min=0)]
    return torch.where((domains == UNKNOWN_DOMAIN)[:, None], by_head.mean(1), known)


def of_classes(
    logits: Tensor,  # (B, M)
    places: Sequence[int] | None,  # of M_k classes, or None for all
) -> Tensor:  # (B, M_k)
    """The logits of some classes, whose softmax is that of all, restricted to these and normalised."""
    return logits if places is None else logits[:, places]


def freeze(teacher: MetaTeacher) -> MetaTeacher:
    """The teacher without dropout and without gradients."""
    return teacher.eval().requires_grad_(False)


def assert_frozen(teacher: MetaTeacher) -> None:
    """Raise RuntimeError unless the teacher is in eval mode and none of its parameters can learn."""
    if any(module.training for module in teacher.modules()):
        raise RuntimeError("the teacher is in training mode while a student learns from it")
    if any(parameter.requires_grad for parameter in teacher.parameters()):
        raise RuntimeError("the teacher is not frozen while a student learns from it")

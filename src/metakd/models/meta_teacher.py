"""The meta-teacher: an ordinary sequence classifier, and a head that knows domains [Meta-KD, 3.2]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from metakd import losses
from metakd.data.tokenization import TEACHER_TOKENS, Batch
from metakd.losses import LossTerms, Term
from metakd.models.encoder import forward

HEAD_FILE = "domain_head.safetensors"
BLIND_KINDS = ("uniform", "reversal")  # kinds of L_dom whose h is made without the domain embedding e_z
UNKNOWN_DOMAIN = -1


class TeacherLayers(NamedTuple):
    """Layers of a teacher that a stage of training matches; 0 is the embedding output, 1 the first layer."""

    hidden: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.hidden or self.attention)

    def within(self, other: TeacherLayers) -> bool:
        return set(self.hidden) <= set(other.hidden) and set(self.attention) <= set(other.attention)

    def joined(self, other: TeacherLayers) -> TeacherLayers:
        both = zip(self, other, strict=True)
        return TeacherLayers(*(tuple(sorted({*ours, *theirs})) for ours, theirs in both))


NO_LAYERS = TeacherLayers()


@dataclass(frozen=True)
class TeacherOutputs:
    """What the teacher says of a batch of B texts, with those layers that were asked for."""

    logits: Tensor  # (B, M)
    representation: Tensor  # (B, H): h
    hidden_states: Mapping[int, Tensor]  # layer -> (B, L, H)
    attention_factors: Mapping[int, Tensor]  # layer -> (B, A, L, 2d): `attention.raw_scores` makes scores of them


class TransferableRepresentation(nn.Module):
    """h = tanh(W (E(x) + e_z) + b); `use_embedding=False` leaves e_z out."""

    def __init__(self, width: int, num_domains: int, use_embedding: bool = True) -> None:
        super().__init__()
        self.use_embedding = use_embedding
        self.embedding = nn.Embedding(num_domains, width)
        self.dense = nn.Linear(width, width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(
        self,
        pooled: Tensor,  # (B, H), E(x)
        domains: Tensor,  # (B,) int; −1 for a domain never seen, whose e_z is the mean of the known ones
    ) -> Tensor:  # (B, H)
        if self.use_embedding:
            known = self.embedding(domains.clamp(min=0))
            unseen = (domains == UNKNOWN_DOMAIN)[:, None]
            pooled = pooled + torch.where(unseen, self.embedding.weight.mean(0), known)
        return torch.tanh(self.dense(pooled))


def class_names(labels: Sequence[str], domains: Sequence[str]) -> list[str]:
    """Those of a class head for each domain, side by side."""
    return [f"{domain}: {label}" for domain in domains for label in labels]


def select_head(
    values: Tensor,  # (B, heads · M)
    domains: Tensor,  # (B,) int; −1 for a domain never seen, which gets the mean of the heads
    heads: int,
) -> Tensor:  # (B, M)
    """What the class head of each example's own domain says, where heads of several domains lie side by side."""
    if heads == 1:
        return values
    by_head = values.unflatten(1, (heads, -1))  # (B, K, M)
    known = by_head[torch.arange(len(values)), domains.clamp(min=0)]
    return torch.where((domains == UNKNOWN_DOMAIN)[:, None], by_head.mean(1), known)


class MetaTeacher(nn.Module):
    """Encoder with class head (or `heads` of them, one for each domain), h, and the domain classifier on h.

    L_T is `forward`.
    """

    def __init__(
        self, encoder: PreTrainedModel, num_domains: int, domain_loss: str, gamma1: float, heads: int = 1
    ) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        self.heads = heads
        self.transferable = TransferableRepresentation(width, num_domains, domain_loss not in BLIND_KINDS)
        self.domain_classifier = nn.Linear(width, num_domains)
        self.domain_loss = domain_loss if num_domains > 1 else "none"
        self.gamma1 = gamma1

    @property
    def backbone(self) -> PreTrainedModel:
        return self.encoder

    def outputs(self, batch: Batch, layers: TeacherLayers = NO_LAYERS) -> TeacherOutputs:
        """What the teacher says of a batch, read in its own tokens where the batch has them beside the student's.

        Attention needs `attention.attend_here` to record factors first.
        """
        prefix = TEACHER_TOKENS if any(name.startswith(TEACHER_TOKENS) for name in batch) else ""
        outputs = forward(self.encoder, batch, attentions=bool(layers.attention), prefix=prefix)
        return TeacherOutputs(
            logits=select_head(outputs.logits, batch["domains"], self.heads),
            representation=self.transferable(outputs.pooled, batch["domains"]),
            hidden_states={layer: outputs.hidden_states[layer] for layer in layers.hidden},
            attention_factors={layer: outputs.attentions[layer - 1] for layer in layers.attention},
        )

    def forward(self, **batch: Tensor) -> LossTerms:
        """L_T = mean_i [t_i · CE(y_i, classifier(x_i)) + γ1 · L_dom(z_i, domain_head(h_i))]; no t on L_dom."""
        outputs = self.outputs(batch)
        terms = {
            "class": Term(losses.cross_entropy(outputs.logits, batch["labels"]), weights=batch["instance_weights"])
        }
        if self.domain_loss != "none":
            values = self._domain_loss(outputs.representation, batch["domains"])
            terms["domain"] = Term(values, coefficient=self.gamma1)
        return terms

    def _domain_loss(self, h: Tensor, domains: Tensor) -> Tensor:
        if self.domain_loss == "reversal":
            return losses.cross_entropy(self.domain_classifier(losses.reverse_gradient(h)), domains)
        logits = self.domain_classifier(h)
        if self.domain_loss == "uniform":
            return losses.uniform_domain_loss(logits)
        if self.domain_loss == "permuted":
            return losses.permuted_domain_loss(logits, domains)
        return losses.false_domain_loss(logits, domains)

    def save(self, folder: Path) -> None:
        """A plain Hugging Face checkpoint, and everything about domains in a file beside it."""
        self.encoder.save_pretrained(folder)
        head = {
            name: value.contiguous() for name, value in self.state_dict().items() if not name.startswith("encoder.")
        }
        save_file(head, folder / HEAD_FILE)

    def load_head(self, folder: Path) -> None:
        """Read what `save` put beside the checkpoint; the encoder's weights are the checkpoint's own."""
        head = load_file(folder / HEAD_FILE)
        encoder = {f"encoder.{name}": value for name, value in self.encoder.state_dict().items()}
        self.load_state_dict(encoder | head)


def freeze(teacher: MetaTeacher) -> MetaTeacher:
    """The teacher as it teaches: no dropout, no gradients."""
    return teacher.eval().requires_grad_(False)


def assert_frozen(teacher: MetaTeacher) -> None:
    """Raise RuntimeError unless the teacher is in eval mode and nothing in it can learn."""
    if any(module.training for module in teacher.modules()):
        raise RuntimeError("the teacher is in training mode while it teaches")
    if any(parameter.requires_grad for parameter in teacher.parameters()):
        raise RuntimeError("the teacher is not frozen while it teaches")

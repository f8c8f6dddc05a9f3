"""Hierarchical relational distillation: at each layer, a graph of the domains weights their losses.

Dong, Li, Shen and Qiu, "HRKD" (EMNLP 2021, arXiv 2110.08551). Symbols: B examples in a batch, K domains, S layers of
the student, H its width; layer 0 is the embedding output; p_d^m the prototype of domain d at layer m.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metakd.data.tokenization import Batch
from metakd.losses import LossTerms, Term
from metakd.methods.base import Need, Setup, Stage
from metakd.methods.meta_kd import LAYER_TERMS, MetaKD
from metakd.models.encoder import EncoderOutputs, mean_over_real_tokens
from metakd.models.meta_teacher import TeacherOutputs
from metakd.utils.batch_shares import sum_over_processes
from metakd.utils.errors import raise_faults

HEADS, NEGATIVE_SLOPE, GRAPH_DROPOUT = 8, 0.2, 0.1  # of the graphs, as in the authors' release
ROWS = {"embedding": 0, "prediction": -1}  # of the weights; a term of layer m has row m


def domain_prototypes(
    states: Tensor,  # (S + 1, B, H): each layer averaged over an example's real tokens
    members: Tensor,  # (K, B): 1 where the example is of the domain, 0 else
) -> Tensor:  # (S + 1, K, H)
    """p_d^m: mean over the domain's examples in the batch; zeros for a domain without any."""
    return sum_over_processes(members @ states) / _examples(members)


def example_weights(
    ratios: Tensor,  # (R, K): weight of each domain
    members: Tensor,  # (K, B)
) -> Tensor:  # (R, B)
    """Weights of the examples, so that the mean over the batch is Σ_d ratio_d · (mean over the examples of d)."""
    return ratios @ (members * sum_over_processes(members.sum()) / _examples(members))


def _examples(members: Tensor) -> Tensor:
    """How many examples each domain has in the whole batch of all processes, at least 1: (K, 1)."""
    return sum_over_processes(members.sum(1, keepdim=True)).clamp(min=1)


def _random_weights(*shape: int) -> nn.Parameter:
    """Random weights that keep the scale of what is multiplied by their last dimension."""
    return nn.Parameter(torch.randn(shape) * shape[-1] ** -0.5)


class CompareAggregate(nn.Module):
    """The hierarchical compare-aggregate mechanism: each domain's prototypes of layers 0 to m, mixed for layer m.

    q_d = Σ_e softmax_e(p_d^m · A p_e^m) · p_e^m, the reference: domain d seen through all domains of the layer.
    p̂_d = Σ_l softmax_l(p_d^l · B_d q_d) · p_d^l, over the layers l up to m.
    """

    def __init__(self, num_domains: int, width: int) -> None:
        super().__init__()
        self.between_domains = _random_weights(width, width)  # A
        self.between_layers = _random_weights(num_domains, width, width)  # B_d

    def forward(
        self,
        prototypes: Tensor,  # (m + 1, K, H)
        present: Tensor,  # (K,) bool: whether the batch has the domain
    ) -> Tensor:  # (K, H)
        here = prototypes[-1]
        similarity = here @ self.between_domains @ here.T
        references = similarity.masked_fill(~present, -torch.inf).softmax(-1) @ here
        shares = torch.einsum("ldi,dij,dj->ld", prototypes, self.between_layers, references).softmax(0)
        return (shares[:, :, None] * prototypes).sum(0)


class GraphAttention(nn.Module):
    """One layer of graph attention between domains that all see each other (Veličković et al., ICLR 2018).

    n'_d = ELU(W n_d + Σ_e softmax_e(LeakyReLU(a · [W n_d ‖ W n_e])) · W n_e), its heads side by side. The first W n_d
    is a skip connection, which the paper does not have. Without it, as in the authors' release, two such layers rate
    all domains alike: where LeakyReLU is linear, W n_d cancels in the softmax, and every domain gets the same mean.
    """

    def __init__(self, width: int, heads: int, width_of_head: int) -> None:
        super().__init__()
        self.values = nn.Linear(width, heads * width_of_head, bias=False)  # W
        self.scores = _random_weights(2, 1, heads, width_of_head)  # a: one half for W n_d, one for W n_e
        self.dropout = nn.Dropout(GRAPH_DROPOUT)

    def forward(
        self,
        nodes: Tensor,  # (K, width)
        present: Tensor,  # (K,) bool
    ) -> Tensor:  # (K, heads · width_of_head)
        values = self.values(self.dropout(nodes)).unflatten(-1, self.scores.shape[2:])
        ours, theirs = (values * self.scores).sum(-1)  # (K, heads) each
        scores = F.leaky_relu(ours[:, None] + theirs, NEGATIVE_SLOPE)  # (K, K, heads)
        shares = scores.masked_fill(~present[:, None], -torch.inf).softmax(1)
        return F.elu(values + torch.einsum("dea,eah->dah", self.dropout(shares), values)).flatten(1)


class DomainRelations(nn.Module):
    """The domain-relational graphs, one per layer: r^m = softmax over domains of graph^m(p̂^m); p̂^0 = p^0."""

    def __init__(self, num_layers: int, num_domains: int, width: int) -> None:
        super().__init__()
        self.aggregate = nn.ModuleList(CompareAggregate(num_domains, width) for _ in range(num_layers))
        self.relate = nn.ModuleList(GraphAttention(width, HEADS, width) for _ in range(num_layers + 1))
        self.rate = nn.ModuleList(GraphAttention(HEADS * width, 1, 1) for _ in range(num_layers + 1))

    def forward(
        self,
        prototypes: Tensor,  # (S + 1, K, H)
        present: Tensor,  # (K,) bool
    ) -> Tensor:  # (S + 1, K): each row sums to 1, with 0 for domains that are not in the batch
        nodes = [prototypes[0]]
        nodes += [aggregate(prototypes[: m + 1], present) for m, aggregate in enumerate(self.aggregate, start=1)]
        graphs = zip(self.relate, self.rate, nodes, strict=True)
        scores = torch.stack([rate(relate(node, present), present).squeeze(-1) for relate, rate, node in graphs])
        return scores.masked_fill(~present, -torch.inf).softmax(-1)


@dataclass(eq=False)
class HRKD:
    """L_S = Σ_d [Σ_m r_d^m · L_d^m + L_pred,d / K]: L_d^m is MetaKD's loss at layer m, its mean over domain d.

    L^0 = L_emb, L^m = L_hid + L_att, without λ and L_tkd. This holds for the shared stage, whose batches have every
    domain; the later stages have one domain, whose ratio would be 1, and use no weights. Students also get a head
    of their own only there, while the paper has one per domain from the start. The graphs learn from this loss only, so
    they favour the domains with the smallest loss.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"teacher", "all_domains"})

    matching: MetaKD
    relations: DomainRelations
    num_graph_nodes: int  # one per domain, and one for domains unknown to the teacher, whose index is −1

    @classmethod
    def build(cls, setup: Setup) -> Self:
        settings, student = setup.settings, setup.student.config
        terms = tuple(term for term in settings.terms if term not in ("feature", "pooled"))
        faults = []
        if not settings.shared_epochs:
            faults.append("--shared-epochs = 0: domains are related in the shared start; choose 1 or more")
        if not setup.same_tokens or not set(terms) & set(LAYER_TERMS):
            faults.append("--terms: no layer to match; use the teacher's tokenizer, and embedding, hidden or attention")
        raise_faults("--method = 'hrkd' cannot be used", faults)
        matching = MetaKD.build(replace(setup, settings=settings.model_copy(update={"terms": terms})))
        nodes = setup.num_domains + 1
        return cls(matching, DomainRelations(student.num_hidden_layers, nodes, student.hidden_size), nodes)

    def stages(self) -> list[Stage]:
        return self.matching.stages()

    def trainable_modules(self) -> dict[str, nn.Module]:
        return self.matching.trainable_modules() | {"relations": self.relations}

    def loss(self, student: EncoderOutputs, batch: Batch, teacher: TeacherOutputs | None, stage: Stage) -> LossTerms:
        """One term per layer, because ratios differ between layers: 'hidden_1' is the first layer's hidden term."""
        assert teacher is not None
        weights = self._weights(student, batch) if stage.shared else None
        terms = {}
        for name in stage.terms:
            for m, values in enumerate(self.matching.by_layer(name, student, batch, teacher), start=1):
                of_layer = None if weights is None else weights[ROWS.get(name, m)]
                terms[name if name in ROWS else f"{name}_{m}"] = Term(values, weights=of_layer)
        return terms

    def _weights(self, student: EncoderOutputs, batch: Batch) -> Tensor:
        """Weights of the examples at layers 0 to S, and for the prediction: (S + 2, B)."""
        with torch.autocast(student.logits.device.type, enabled=False):
            states = [mean_over_real_tokens(layer.float(), batch["real_mask"]) for layer in student.hidden_states]
            members = F.one_hot(batch["domains"] % self.num_graph_nodes, self.num_graph_nodes).T.float()
            present = sum_over_processes(members.sum(1)) > 0
            ratios = self.relations(domain_prototypes(torch.stack(states), members), present)
            equal = present / present.sum()
            return example_weights(torch.cat([ratios, equal[None]]), members)

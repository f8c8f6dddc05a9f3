"""Whether gradient reversal makes the teacher's h blind to the domain, and what it costs.

    python benchmarks/domain_blindness.py [--data DIR] [--seeds 0 1 2] [--kinds false constant scheduled]

For each seed and kind of domain loss a teacher learns from the training texts of DIR (by default the demo's) with the
defaults for thousands of texts, but without instance weights. Kinds: `false` (the default, with the domain embedding);
`constant`, gradient reversal with a coefficient of 1 from the first update on; `scheduled`, reversal as by Ganin et al.
(JMLR 2016): the coefficient grows from 0 to 1 by 2 / (1 + exp(−10 p)) − 1 over the training's progress p, and the
domain classifier learns ten times as fast as the rest. Both kinds of reversal leave the domain embedding out. Then
linear probes, cross-validated on dev, tell the domain and the class from E(x) and from h.

Writes benchmarks/results/domain_blindness.json.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import get_linear_schedule_with_warmup, set_seed

from metakd import losses
from metakd.config.settings import DEMO_DATA, Settings
from metakd.data.dataset import MultiDomainDataset, load_dataset
from metakd.data.samplers import LengthBatches
from metakd.data.tokenization import Batch, Collator, Encoded, encode
from metakd.evaluation.linear_models import domain_probe
from metakd.losses import LossTerms, Term
from metakd.models.embeddings import only_rows_in_use
from metakd.models.encoder import forward
from metakd.models.hub import resolve
from metakd.models.loading import load_encoder, load_tokenizer, set_dropout
from metakd.models.meta_teacher import MetaTeacher
from metakd.utils.artifacts import write_json
from metakd.utils.hardware import environment

RESULT = Path(__file__).parent / "results" / "domain_blindness.json"
FASTER = 10  # times the learning rate of the rest, of a domain classifier behind a scheduled reversal
KINDS = ("false", "constant", "scheduled")


class ReverseGradient(torch.autograd.Function):
    """Identity forwards, −1 times the gradient backwards (Ganin and Lempitsky, 2015)."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return -gradient


class Reversed(MetaTeacher):
    """A teacher whose domain classifier reads h through a gradient reversal of this coefficient."""

    def __init__(self, encoder: Any, num_domains: int, gamma1: float) -> None:
        super().__init__(encoder, num_domains, "none", gamma1)
        torch.nn.init.zeros_(self.transferable.embedding.weight).requires_grad_(False)
        self.coefficient = 1.0

    def forward(self, **batch: Tensor) -> LossTerms:
        outputs = self.outputs(batch)
        h = outputs.representation
        reversed_h = h.detach() + self.coefficient * (ReverseGradient.apply(h) - h.detach())
        domain = losses.cross_entropy(self.domain_classifier(reversed_h), batch["domains"])
        classes = losses.cross_entropy(outputs.logits, batch["labels"])
        return {"class": Term(classes), "domain": Term(domain, coefficient=self.gamma1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO_DATA)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments = parser.parse_args()
    data, rows = load_dataset(arguments.data), []
    for seed in arguments.seeds:
        for kind in arguments.kinds:
            rows.append({"kind": kind, "seed": seed} | measure(data, kind, seed))
            print(rows[-1], flush=True)
    dev = data.splits["dev"]
    chance = {
        name: max(map([getattr(e, name) for e in dev].count, values)) / len(dev)
        for name, values in (("domain", data.domains), ("label", data.labels))
    }
    write_json(RESULT, {"data": arguments.data.name, "chance": chance, "rows": rows, "environment": environment()})


def measure(data: MultiDomainDataset, kind: str, seed: int) -> dict[str, float | None]:
    """Accuracy of the teacher and of the probes, on dev."""
    settings = Settings(seed=seed)
    set_seed(seed)
    encoder = load_encoder(resolve(settings.base), data.labels)
    set_dropout(encoder, settings.dropout, settings.attention_dropout)
    if kind == "false":
        teacher = MetaTeacher(encoder, len(data.domains), "false", settings.gamma1)
    else:
        teacher = Reversed(encoder, len(data.domains), settings.gamma1)
    tokenizer = load_tokenizer(resolve(settings.base), settings.max_length)
    train, dev = (features(data, tokenizer, split, settings) for split in ("train", "dev"))
    collator = Collator(tokenizer.pad_token_id)
    with only_rows_in_use(encoder, train.token_ids):
        learn(teacher, train, collator, settings, scheduled=kind == "scheduled")
    teacher.eval()
    with torch.no_grad():
        outputs = [teacher.outputs(batch) for batch in batches(dev, collator)]
        pooled = torch.cat([embedded(teacher, batch) for batch in batches(dev, collator)]).double().numpy()
    logits = torch.cat([o.logits for o in outputs])
    h = torch.cat([o.representation for o in outputs]).double().numpy()
    labels, domains = dev.columns["labels"], dev.columns["domains"]
    return {
        "accuracy": float((logits.argmax(-1).numpy() == labels).mean()),
        "domain_of_pooled": domain_probe(pooled, domains),
        "domain_of_h": domain_probe(h, domains),
        "class_of_pooled": domain_probe(pooled, labels),
        "class_of_h": domain_probe(h, labels),
    }


def features(data: MultiDomainDataset, tokenizer: Any, split: str, settings: Settings) -> Encoded:
    examples = data.splits[split]
    return encode(tokenizer, examples, settings.max_length).with_columns(
        labels=[data.labels.index(e.label) for e in examples],
        domains=[data.domains.index(e.domain) for e in examples],
        instance_weights=[1.0] * len(examples),
    )


def batches(texts: Encoded, collator: Collator) -> Iterator[Batch]:
    for start in range(0, len(texts), 64):
        yield collator([texts[row] for row in range(start, min(start + 64, len(texts)))])


def embedded(teacher: MetaTeacher, batch: Batch) -> Tensor:
    """E(x), (B, H)."""
    return forward(teacher.encoder, batch).pooled


def learn(teacher: MetaTeacher, train: Encoded, collator: Collator, settings: Settings, scheduled: bool) -> None:
    """AdamW with a linear warm-up and decay."""
    order = LengthBatches.of(train, settings.batch_size, settings.seed, all_domains=False)
    updates, done = settings.teacher_epochs * len(order), 0
    rate, head = settings.teacher_learning_rate, {*teacher.domain_classifier.parameters()}
    groups = [
        {"params": [p for p in teacher.parameters() if p not in head], "lr": rate},
        {"params": [*head], "lr": rate * (FASTER if scheduled else 1)},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    schedule = get_linear_schedule_with_warmup(optimizer, round(settings.warmup * updates), updates)
    teacher.train()
    for epoch in range(settings.teacher_epochs):
        order.set_epoch(epoch)
        for rows in order:
            if scheduled and isinstance(teacher, Reversed):
                teacher.coefficient = 2 / (1 + math.exp(-10 * done / updates)) - 1
            losses.reduce(teacher(**collator([train[row] for row in rows]))).backward()
            torch.nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done += 1


if __name__ == "__main__":
    main()

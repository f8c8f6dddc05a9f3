"""A thin transformers.Trainer: the loss goes in, everything else is the library's."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from metakd import losses
from metakd.batching import Batch, Collator, Features, LengthBatches, ordered_batches, updates_a_pass
from metakd.config import Settings
from metakd.encoders import EncoderOutputs, forward, record_scores
from metakd.errors import InputError
from metakd.losses import LossTerms
from metakd.meta_teacher import MetaTeacher, assert_frozen
from metakd.methods.base import Method, Setup, Stage
from metakd.progress import Progress

EVALUATION_BATCH = 64
TAUGHT_LOGITS = "taught_logits"
TAUGHT_POOLED = "taught_pooled"
TAUGHT_REPRESENTATION = "taught_representation"


@dataclass(frozen=True)
class Plan:
    """How long and how fast one stretch of training is, and where its checkpoints lie until it is done."""

    name: str
    epochs: int
    learning_rate: float
    folder: Path
    settings: Settings

    @classmethod
    def of(cls, stage: Stage, name: str, folder: Path, settings: Settings) -> Plan:
        return cls(name, stage.epochs, stage.learning_rate, folder, settings)


class _Trainer(Trainer):
    """Trainer with our batches and our one place of reduction."""

    def __init__(self, *, name: str, batches: LengthBatches, **rest: Any) -> None:
        super().__init__(**rest)
        self._name = name
        self._batches = batches
        self._sums: dict[str, float] = {}
        self._steps = 0

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader = DataLoader(self.train_dataset, batch_sampler=self._batches, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def compute_loss(self, model: nn.Module, inputs: Batch, *_: Any, **__: Any) -> Tensor:
        terms: LossTerms = model(**inputs)
        for name, term in terms.items():
            if not term.values.isfinite().all():
                raise InputError(
                    f"{self._name}, update {self.state.global_step + 1}: the loss term {name!r} is not finite. Lower "
                    "the learning rate of this step, or look for what is odd in the data"
                )
            self._sums[name] = self._sums.get(name, 0.0) + term.values.detach().mean().item()
        self._steps += 1
        return losses.reduce(terms)

    def log(self, logs: dict[str, float], *rest: Any) -> None:
        if "loss" in logs and self._steps:
            logs |= {f"loss_{name}": value / self._steps for name, value in self._sums.items()}
            self._sums, self._steps = {}, 0
        super().log(logs, *rest)


class _Ticks(TrainerCallback):
    """Moves the progress bar with the updates."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.update(state.global_step, state.max_steps)


def fit(learner: nn.Module, features: Sequence[Features], collator: Collator, plan: Plan) -> list[dict[str, float]]:
    """Train `learner`, whose forward gives LossTerms, and return the log.

    Checkpoints are kept after each epoch in `plan.folder`; training goes on from the last whole one.
    """
    settings = plan.settings
    updates = updates_a_pass(len(features), settings.batch_size)
    arguments = TrainingArguments(
        output_dir=str(plan.folder),
        num_train_epochs=plan.epochs,
        learning_rate=plan.learning_rate,
        warmup_steps=round(settings.warmup * updates * plan.epochs),
        weight_decay=settings.weight_decay,
        per_device_train_batch_size=settings.batch_size,
        seed=settings.seed,
        logging_steps=max(1, updates // 5),
        save_strategy="epoch",
        save_total_limit=2,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
        log_level="error",
    )
    if arguments.device.type == "cuda":
        arguments._n_gpu = 1  # nn.DataParallel cannot gather losses of one value an example
    lengths = [len(feature["input_ids"]) for feature in features]
    with Progress(plan.name, updates * plan.epochs) as progress:
        trainer = _Trainer(
            name=plan.name,
            batches=LengthBatches(lengths, settings.batch_size, settings.seed),
            model=learner,
            args=arguments,
            train_dataset=list(features),
            data_collator=collator,
            callbacks=[_Ticks(progress)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=_last_whole_checkpoint(plan.folder))
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def _last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that Trainer finished (its state is written last); torn ones are removed."""
    while folder.is_dir() and (newest := get_last_checkpoint(str(folder))) is not None:
        with contextlib.suppress(OSError, ValueError):
            json.loads((Path(newest) / "trainer_state.json").read_text(encoding="utf-8"))
            return newest
        shutil.rmtree(newest)
    return None


class Distillation(nn.Module):
    """Student and the method's trainable modules; the frozen teacher stays outside of what is trained and saved."""

    def __init__(self, setup: Setup, method: Method) -> None:
        super().__init__()
        self.student = setup.student
        self.extras = nn.ModuleDict(dict(method.trainable_modules()))
        self.method = method
        self.stage = method.stages()[0]
        self._teacher = (setup.teacher,)  # in a tuple, so that it is no submodule: never trained, never saved
        self._teacher_prefix = "" if setup.same_tokens else "teacher_"

    @property
    def teacher(self) -> MetaTeacher | None:
        return self._teacher[0]

    def prepare(self, stage: Stage, features: Sequence[Features], collator: Collator) -> Sequence[Features]:
        """Enter `stage`: raw scores or fused attention in both models, and the features that it learns from.

        A stage that needs no layers of the teacher gets its logits and h beside the features, made in one pass.
        """
        self.stage = stage
        record_scores(self.student, stage.scores)
        if self.teacher is None:
            return features
        record_scores(self.teacher.encoder, stage.scores)
        return features if stage.layers else self._remember(features, collator)

    @torch.no_grad()
    def taught(self, batch: Batch) -> EncoderOutputs | None:
        """What the frozen teacher says of a batch: remembered where only that is needed, else live."""
        if self.teacher is None:
            return None
        assert_frozen(self.teacher)
        if TAUGHT_LOGITS in batch:
            return EncoderOutputs(
                logits=batch[TAUGHT_LOGITS],
                hidden_states=(),
                attention_scores=(),
                pooled=batch[TAUGHT_POOLED],
                representation=batch[TAUGHT_REPRESENTATION],
            )
        return self.teacher.outputs(batch, scores=self.stage.scores, prefix=self._teacher_prefix)

    def _remember(self, features: Sequence[Features], collator: Collator) -> list[Features]:
        remembered: list[Features] = [dict(feature) for feature in features]
        for indices, batch in _batches_in_order(self.student, features, collator):
            taught = self.taught(batch)
            assert taught is not None
            assert taught.representation is not None
            rows = zip(indices, taught.logits.cpu(), taught.pooled.cpu(), taught.representation.cpu(), strict=True)
            for index, logits, pooled, h in rows:
                remembered[index] |= {TAUGHT_LOGITS: logits, TAUGHT_POOLED: pooled, TAUGHT_REPRESENTATION: h}
        return remembered

    def forward(self, **batch: Tensor) -> LossTerms:
        taught = self.taught(batch)
        student: EncoderOutputs = forward(self.student, batch, scores=self.stage.scores)
        return self.method.loss(student, batch, taught, self.stage)


def _batches_in_order(
    model: PreTrainedModel, features: Sequence[Features], collator: Collator
) -> Iterator[tuple[list[int], Batch]]:
    device = next(model.parameters()).device
    for indices in ordered_batches(features, EVALUATION_BATCH):
        yield indices, {name: value.to(device) for name, value in collator([features[i] for i in indices]).items()}


def outputs_in_order(
    model: PreTrainedModel, features: Sequence[Features], collator: Collator
) -> Iterator[tuple[list[int], EncoderOutputs]]:
    """What `model` says in eval mode, batch by batch from the shortest text to the longest, with their indices."""
    model.eval()
    for indices, batch in _batches_in_order(model, features, collator):
        with torch.no_grad():
            outputs = forward(model, batch)
        yield indices, outputs


def predict(model: PreTrainedModel, features: Sequence[Features], collator: Collator) -> Tensor:
    """Class probabilities (N, M), in the order of `features`."""
    found = torch.zeros(len(features), model.config.num_labels)
    for indices, outputs in outputs_in_order(model, features, collator):
        found[indices] = outputs.logits.softmax(-1).cpu()
    return found


def embed(model: PreTrainedModel, features: Sequence[Features], collator: Collator, name: str) -> Tensor:
    """E(x) (N, H), in the order of `features`."""
    found = torch.zeros(len(features), model.config.hidden_size)
    with Progress(name, len(features)) as progress:
        for indices, outputs in outputs_in_order(model, features, collator):
            found[indices] = outputs.pooled.cpu()
            progress.advance(len(indices))
    return found

"""A thin transformers.Trainer: the loss goes in, everything else is the library's."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from metakd import losses
from metakd.config.settings import Settings
from metakd.data.dataset import folder_name
from metakd.data.samplers import LengthBatches, endless_batches, updates_a_pass
from metakd.data.tokenization import Batch, Collator, Encoded
from metakd.losses import LossTerms
from metakd.models.embeddings import only_rows_in_use
from metakd.training.checkpointing import (
    CheckpointCallback,
    last_whole_checkpoint,
    process_random_state,
    read_loss_sums,
    seal_checkpoint,
)
from metakd.training.trackers import trackers
from metakd.utils import distributed
from metakd.utils.batch_shares import mean_share, sum_over_processes
from metakd.utils.console import Progress
from metakd.utils.errors import InputError
from metakd.utils.hardware import Precision, allocator_tuned
from metakd.utils.signals import graceful_shutdown

STEPS = "steps"  # how many updates the sums of a log are of


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast one stretch of training is, and where its checkpoints lie until it is done."""

    name: str
    epochs: int
    learning_rate: float
    folder: Path
    settings: Settings
    precision: Precision = "float32"
    all_domains: bool = False  # whether each batch is to hold text of every domain
    logs: Path | None = None  # folder that TensorBoard's files of the run lie in; nothing is tracked without


@dataclass(frozen=True)
class MetaValidation:
    """Held-out examples, and what is done with some before each update: ask(batch to come, quiz) -> its loss."""

    features: Encoded
    ask: Callable[[Batch, Batch], Tensor]


class _Trainer(Trainer):
    """Trainer with our batches, our one place of reduction, and a quiz before each update where there is one."""

    def __init__(self, *, name: str, batches: LengthBatches, held_out: MetaValidation | None, **rest: Any) -> None:
        super().__init__(**rest)
        self._name = name
        self._batches = batches
        self._meta_validation = held_out
        if held_out is not None:
            size = self._batches.batch_size
            self._held_out_batches = endless_batches(held_out.features, self.data_collator, size, self._batches.seed)
        self._sums: dict[str, float] = {}  # of the loss and its terms, since they were last logged

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader = DataLoader(self.train_dataset, batch_sampler=self._batches, collate_fn=self.data_collator)
        return prepare_data_loader(loader, self.args.device, num_processes=1, put_on_device=True)  # they are shared out

    def compute_loss(self, model: nn.Module, inputs: Batch, *_: Any, **__: Any) -> Tensor:
        if self._meta_validation is not None:
            asked = self._meta_validation.ask(inputs, self._prepare_inputs(next(self._held_out_batches)))
            self._add("loss_meta_validation", asked.item())
        terms: LossTerms = model(**inputs)
        counts = mean_share(len(inputs["labels"]))
        loss = counts * losses.reduce(terms)
        means = [term.values.detach().mean() for term in terms.values()]
        *values, whole = torch.stack([*means, loss.detach()]).tolist()  # at once, as a GPU has to be waited for
        for name, value in zip([*terms, "sum"], [*values, whole], strict=True):
            if not math.isfinite(value):
                raise InputError(
                    f"{self._name}, update {self.state.global_step + 1}: the loss term {name!r} is not finite. Lower "
                    "the learning rate of this step, or look for what is odd in the data"
                )
        for name, value in zip(terms, values, strict=True):
            self._add(f"loss_{name}", counts * value)
        self._add("loss", whole)
        self._add(STEPS, 1)
        return loss

    def _add(self, name: str, value: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value

    def log(self, logs: dict[str, float], *rest: Any) -> None:
        if "loss" in logs and self._sums:
            sums = self._sums_of_all()
            steps = sums.pop(STEPS)
            logs |= {name: value / steps for name, value in sums.items()}
            self._sums = {}
        super().log(logs, *rest)

    def _sums_of_all(self) -> dict[str, float]:
        """The mean of the sums over all processes."""
        values = (
            sum_over_processes(torch.tensor([*self._sums.values()], dtype=torch.float64)) / distributed.world_size()
        )
        return dict(zip(self._sums, values.tolist(), strict=True))

    def go_on_from(self, checkpoint: Path | None) -> None:
        """Train, after what a checkpoint holds if there is one, as if it had never stopped."""
        self._sums = read_loss_sums(checkpoint) if checkpoint else {}
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with process_random_state(Path(checkpoint or "")) as folder:
            super()._load_rng_state(str(folder))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        sums = self._sums_of_all()
        distributed.barrier()
        if distributed.is_main():
            seal_checkpoint(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", sums)


class _Ticks(TrainerCallback):
    """Moves the progress bar."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.update(state.global_step, state.max_steps)


class Learner(Protocol):
    """What can be trained: its forward gives LossTerms of a batch."""

    @property
    def backbone(self) -> PreTrainedModel:
        """The language model in it, whose token embeddings are most of what there is to train."""
        ...

    def __call__(self, **batch: Tensor) -> LossTerms: ...


def fit(
    learner: Learner, features: Encoded, collator: Collator, plan: TrainingPlan, held_out: MetaValidation | None = None
) -> list[dict[str, float]]:
    """Train `learner` and return the log; what a quiz takes away from the examples costs it no updates.

    Checkpoints are kept in `plan.folder` as `resuming.Keeper` says; training goes on from the last whole one, to the
    same bits as if it had not stopped. With a quiz none is kept, as who asks it learns too.
    """
    settings = plan.settings
    texts = [features, held_out.features] if held_out else [features]
    updates = updates_a_pass(sum(map(len, texts)), settings.batch_size)
    used = [collator.pad_ids["input_ids"], *np.concatenate([part.token_ids for part in texts])]
    tokens = only_rows_in_use(learner.backbone, used)
    with (
        Progress(plan.name, updates * plan.epochs) as progress,
        tokens,
        allocator_tuned(),
        _few_to_collect(),
        graceful_shutdown(),
    ):
        trainer = _Trainer(
            name=plan.name,
            batches=LengthBatches.of(features, settings.batch_size, settings.seed, plan.all_domains),
            held_out=held_out,
            model=learner,
            args=_arguments(plan, updates),
            train_dataset=features,
            data_collator=collator,
            callbacks=[_Ticks(progress), CheckpointCallback(keep=held_out is None), *_tracked(plan)],
        )
        trainer.remove_callback(PrinterCallback)
        with distributed.lost_processes_detected():
            trainer.go_on_from(last_whole_checkpoint(plan.folder))
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@contextlib.contextmanager
def _few_to_collect() -> Iterator[None]:
    """Inside, the garbage collector leaves out what was there before.

    Trainer runs it for every student, and all domains' rows take it longer than a small domain takes to learn from.
    """
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


def _tracked(plan: TrainingPlan) -> Sequence[TrainerCallback]:
    if plan.logs is None or not distributed.is_main():
        return []
    return trackers(plan.settings.track, plan.logs / folder_name(plan.name))


def _arguments(plan: TrainingPlan, updates: int) -> TrainingArguments:
    """What Trainer is told of a plan whose passes are of so many updates."""
    settings = plan.settings
    arguments = TrainingArguments(
        output_dir=str(plan.folder),
        max_steps=updates * plan.epochs,
        learning_rate=plan.learning_rate,
        warmup_steps=round(settings.warmup * updates * plan.epochs),
        weight_decay=settings.weight_decay,
        per_device_train_batch_size=settings.batch_size,
        seed=settings.seed,
        logging_steps=max(1, updates // 5),
        save_strategy="no",
        save_total_limit=2,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,  # compute_loss has looked already
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
        bf16=plan.precision == "bfloat16",
        ddp_find_unused_parameters=True,  # a stage may have no use for a projection, or for the classifier
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
    )
    if arguments.device.type == "cuda":
        arguments._n_gpu = 1  # nn.DataParallel cannot gather losses of one value an example
    return arguments

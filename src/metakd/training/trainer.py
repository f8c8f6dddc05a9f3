"""Training: a thin transformers.Trainer around a learner whose forward returns loss terms."""

import math
from collections.abc import Callable, Iterator
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
from metakd.data.samplers import LengthBatches, endless_batches, updates_per_epoch
from metakd.data.schema import folder_name
from metakd.data.tokenization import Batch, Collator, Encoded
from metakd.losses import LossTerms
from metakd.models.embeddings import only_rows_in_use
from metakd.training.checkpointing import CheckpointCallback, last_whole_checkpoint, local_random_state, seal_checkpoint
from metakd.training.trackers import trackers
from metakd.utils import distributed
from metakd.utils.batch_shares import least_of_all, mean_share, sum_over_processes, true_of_any
from metakd.utils.console import progress_bar
from metakd.utils.errors import InputError
from metakd.utils.hardware import Precision, allocator_tuned
from metakd.utils.signals import graceful_shutdown

STEPS = "steps"  # key of the number of updates among the sums of a log


@dataclass(frozen=True)
class TrainingPlan:
    """One part of training: the teacher's, or one stage of a student's."""

    name: str  # shown beside the progress bar
    epochs: int
    learning_rate: float
    folder: Path  # of its checkpoints, until it is done
    settings: Settings
    precision: Precision = "float32"
    all_domains: bool = False  # whether each batch has text of every domain
    logs: Path | None = None  # folder for TensorBoard's files of the run; None turns tracking off
    parts: int = 1  # in which a batch is read, one after the other


class Learner(Protocol):
    """What can be trained: a module whose forward returns the loss terms of a batch."""

    @property
    def backbone(self) -> PreTrainedModel:
        """Its language model, most of whose weights are token embeddings."""

    def __call__(self, **batch: Tensor) -> LossTerms: ...


def fit(
    learner: Learner, features: Encoded, collator: Collator, plan: TrainingPlan, held_out: Encoded | None = None
) -> list[dict[str, float]]:
    """Train `learner` on `features` and return the log.

    Training resumes from the last complete checkpoint in `plan.folder`, bit for bit as if it had not stopped. With
    `held_out` examples, the learner's `before_update` gets a batch of them before each update. Then there are no
    checkpoints, because a second model is trained too. Held-out examples count as training examples, so that the number
    of updates stays the same.
    """
    settings = plan.settings
    parts = [features] if held_out is None else [features, held_out]
    updates = updates_per_epoch(sum(map(len, parts)), settings.batch_size)
    token_ids = [collator.pad_ids["input_ids"], *np.concatenate([part.token_ids for part in parts])]
    with (
        progress_bar(plan.name, updates * plan.epochs) as progress,
        only_rows_in_use(learner.backbone, token_ids),
        allocator_tuned(),
        graceful_shutdown(),
    ):
        callbacks = [_ProgressCallback(progress), CheckpointCallback(keep=held_out is None)]
        if plan.logs is not None and distributed.is_main():
            callbacks += trackers(settings.track, plan.logs / folder_name(plan.name))
        trainer = _Trainer(
            name=plan.name,
            parts=plan.parts,
            batches=LengthBatches.of(features, settings.batch_size, settings.seed, plan.all_domains),
            held_out=held_out,
            model=learner,
            args=_arguments(plan, updates),
            train_dataset=features,
            data_collator=collator,
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)
        with distributed.lost_processes_detected():
            trainer.resume_from(*last_whole_checkpoint(plan.folder))
    return [entry for entry in trainer.state.log_history if "loss" in entry]


class LossError(InputError):
    """A loss is not finite."""


class _Trainer(Trainer):
    """Trainer with our batches, our reduction of the loss terms, and meta-validation before each update."""

    def __init__(
        self, *, name: str, parts: int, batches: LengthBatches, held_out: Encoded | None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._name = name
        self._parts = parts
        self._share = 1.0  # of the part's loss in that of the batch of all processes
        self._batches = batches
        self._held_out: Iterator[Batch] | None = None
        if held_out is not None:
            self._held_out = endless_batches(held_out, self.data_collator, batches.batch_size, batches.seed)
        self._sums: dict[str, float] = {}  # of the loss and its terms since the last log

    def resume_from(self, checkpoint: Path | None, sums: dict[str, float]) -> None:
        """Continue training from a checkpoint and its sums, or start without one."""
        self._sums = sums
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader = DataLoader(self.train_dataset, batch_sampler=self._batches, collate_fn=self.data_collator)
        # one process, because LengthBatches has already shared each batch out between processes
        return prepare_data_loader(loader, self.args.device, num_processes=1, put_on_device=True)

    def training_step(self, model: nn.Module, inputs: Batch, *rest: Any) -> Tensor:
        """The loss of a batch; its gradients are the sum of those of its parts, of which one is in memory at a time."""
        rows = len(inputs["labels"])
        whole, loss = mean_share(rows), torch.zeros(())
        for part in np.array_split(np.arange(rows), min(self._parts, least_of_all(rows))):
            self._share = whole * (len(part) / rows)
            loss = super().training_step(model, {n: v[part[0] : part[-1] + 1] for n, v in inputs.items()}, *rest) + loss
        self._add(STEPS, 1)
        return loss

    def compute_loss(self, model: nn.Module, inputs: Batch, *_: Any, **__: Any) -> Tensor:
        if self._held_out is not None:
            held_out = self._prepare_inputs(next(self._held_out))
            self._add("loss_meta_validation", self.model.before_update(inputs, held_out).item())
        terms: LossTerms = model(**inputs)
        loss = self._share * losses.reduce(terms)
        means = [term.values.detach().mean() for term in terms.values()]
        values = torch.stack([*means, loss.detach()]).tolist()  # in one transfer, because each waits for the GPU
        endless = [name for name, value in zip([*terms, "sum"], values, strict=True) if not math.isfinite(value)]
        if true_of_any(bool(endless))[0]:  # so that all processes stop at the same update
            raise LossError(
                f"{self._name}, update {self.state.global_step + 1}: the loss term {[*endless, 'sum'][0]!r} is not "
                "finite. Lower the learning rate of this step, or check the data with `metakd inspect`"
            )
        for name, value in zip(terms, values, strict=False):
            self._add(f"loss_{name}", self._share * value)
        self._add("loss", values[-1])
        return loss

    def _add(self, name: str, value: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value

    def log(self, logs: dict[str, float], *rest: Any) -> None:
        if "loss" in logs and self._sums:
            sums = self._mean_sums()
            steps = sums.pop(STEPS)
            logs |= {name: value / steps for name, value in sums.items()}
            self._sums = {}
        super().log(logs, *rest)

    def _mean_sums(self) -> dict[str, float]:
        """The mean of the sums over all processes."""
        sums = sum_over_processes(torch.tensor([*self._sums.values()], dtype=torch.float64))
        return dict(zip(self._sums, (sums / distributed.world_size()).tolist(), strict=True))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        sums = self._mean_sums()
        distributed.barrier()
        if distributed.is_main():
            seal_checkpoint(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", sums)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with local_random_state(Path(checkpoint or "")) as folder:
            super()._load_rng_state(str(folder))


class _ProgressCallback(TrainerCallback):
    """Moves the progress bar."""

    def __init__(self, progress: Callable[..., None]) -> None:
        self.progress = progress
        self.loss: float | None = None  # as last logged

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress(completed=state.global_step, loss=self.loss)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        self.loss = logs.get("loss", self.loss)


def _arguments(plan: TrainingPlan, updates: int) -> TrainingArguments:
    """Trainer's arguments for a plan with this many updates an epoch."""
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
        logging_nan_inf_filter=False,  # compute_loss checks that every loss is finite
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
        bf16=plan.precision == "bfloat16",
        ddp_find_unused_parameters=True,  # not every stage uses a projection, or the classifier
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
    )
    if arguments.device.type == "cuda":
        arguments._n_gpu = 1  # nn.DataParallel cannot gather losses of one value per example
    return arguments

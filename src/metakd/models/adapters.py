"""LoRA: low-rank updates of an encoder's linear layers are trained in place of its weights [Hu et al., ICLR 2022].

That saves the gradients and the optimizer's moments of all other weights, which for a large model do not fit.
"""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from metakd.utils.errors import InputError, listed, require

AUTO = "auto"  # all linear layers


@dataclass(eq=False)
class Adapter:
    """What was learnt with low-rank updates: the updates, and the layers that follow the encoder."""

    config: Any = None  # peft's; None where all weights were trained
    weights: dict[str, Tensor] = field(default_factory=dict)

    def save(self, folder: Path, base: str) -> None:
        """Write peft's two files, by which others put it on `base`, a folder or a name on the hub."""
        folder.mkdir()
        self.config.base_model_name_or_path = base
        self.config.save_pretrained(folder)
        save_file(self.weights, folder / "adapter_model.safetensors")


@contextlib.contextmanager
def low_rank_updates(
    model: PreTrainedModel, rank: int | None, targets: str = AUTO, half: bool = False
) -> Iterator[Adapter]:
    """Inside, only updates of `rank` and what follows the encoder of `model` learn; then they become its weights.

    The adapter has them from then on.

    Args:
        model: A sequence classifier.
        rank: The rank of the updates, or None to train all weights.
        targets: The linear layers that get updates, by the last parts of their names: 'q_proj,v_proj', or 'auto'.
        half: Keep the layers' frozen weights in bfloat16 inside, which takes half of a GPU's memory for them. Where
            matrix products are in bfloat16, they are the same. The weights in float32 wait in the CPU's memory.

    Raises:
        InputError: The extra `llm` is not installed, or the model has no such layers.
    """
    adapter = Adapter()
    if rank is None:
        yield adapter
        return
    peft, layers = require("peft", "llm"), _target_layers(model, targets)
    transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in layers)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers, fan_in_fan_out=transposed)
    tuner = peft.LoraModel(model, config, "default")  # in place; it freezes all that is not an update
    for name, parameter in model.named_parameters():
        if not _in_encoder(model, name):
            parameter.requires_grad = True
    frozen = {name: model.get_submodule(name).base_layer.weight for name in layers if half}
    copies = {name: weight.data for name, weight in frozen.items()}
    for weight in frozen.values():
        weight.data = weight.data.to(torch.bfloat16)
    yield adapter
    for name, weight in frozen.items():
        weight.data = copies[name].to(weight.device)
    adapter.config, adapter.weights = _as_peft_has_it(model, config)
    tuner.merge_and_unload()
    model.requires_grad_(True)


def _as_peft_has_it(model: PreTrainedModel, config: Any) -> tuple[Any, dict[str, Tensor]]:
    """The configuration and the weights of an adapter's files: in those, layers that learnt as a whole are named."""
    learnt = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    prefix = f"{model.base_model_prefix}."
    whole = {
        name.rpartition(".")[0] if name.startswith(prefix) else name.partition(".")[0]
        for name in learnt
        if ".lora_" not in name
    }
    config = replace(config, task_type="SEQ_CLS", modules_to_save=sorted(whole), inference_mode=True)
    config.target_modules = sorted(config.target_modules)  # a set, whose order in a file would change
    return config, {f"base_model.model.{name.replace('.default.', '.')}": value for name, value in learnt.items()}


def _target_layers(model: PreTrainedModel, targets: str) -> list[str]:
    """The names of the encoder's linear layers that get updates."""
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and _in_encoder(model, n)]
    wanted = [target.strip() for target in targets.split(",")]
    known = {name.rsplit(".", 1)[-1] for name in linear}
    if targets != AUTO and (unknown := {*wanted} - known):
        raise InputError(
            f"--lora-targets: a {model.config.model_type} has no linear layers {listed(sorted(unknown))}; choose of "
            f"{', '.join(sorted(known))}"
        )
    return linear if targets == AUTO else [name for name in linear if name.rsplit(".", 1)[-1] in wanted]


def check_recomputes(model: PreTrainedModel) -> None:
    """Raise InputError for a model that cannot compute activations again."""
    if not model.supports_gradient_checkpointing:
        raise InputError(f"--gradient-checkpointing: a {model.config.model_type} does not support it; leave it out")


@contextlib.contextmanager
def recomputed_activations(model: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Inside, layers compute their activations again for the gradients, and keep none [Chen et al., 2016]; if `wanted`.

    Raises:
        InputError: The model cannot do that.
    """
    if not wanted:
        yield
        return
    check_recomputes(model)
    with _old_name():
        model.gradient_checkpointing_enable({"use_reentrant": False})
    yield
    with _old_name():
        model.gradient_checkpointing_disable()


@contextlib.contextmanager
def _old_name() -> Iterator[None]:
    """Without the warning that newer versions of transformers speak of activation checkpointing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _in_encoder(model: PreTrainedModel, name: str) -> bool:
    return name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name  # which may be new

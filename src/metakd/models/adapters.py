"""LoRA: low-rank updates of an encoder's linear layers are trained in place of its weights [Hu et al., ICLR 2022].

That saves the gradients and the optimizer's moments of all other weights, which for a large model do not fit.
"""

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from metakd.utils.errors import InputError, listed, require

AUTO = "auto"  # all linear layers


@contextlib.contextmanager
def low_rank_updates(
    model: PreTrainedModel, rank: int | None, targets: str = AUTO, half: bool = False
) -> Iterator[None]:
    """Inside, only updates of `rank` and what follows the encoder of `model` learn; then they become its weights.

    Args:
        model: A sequence classifier.
        rank: The rank of the updates, or None to train all weights.
        targets: The linear layers that get updates, by the last parts of their names: 'q_proj,v_proj', or 'auto'.
        half: Keep the layers' frozen weights in bfloat16 inside, which takes half of a GPU's memory for them. Where
            matrix products are in bfloat16, they are the same. The weights in float32 wait in the CPU's memory.

    Raises:
        InputError: The extra `llm` is not installed, or the model has no such layers.
    """
    if rank is None:
        yield
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
    yield
    for name, weight in frozen.items():
        weight.data = copies[name].to(weight.device)
    tuner.merge_and_unload()
    model.requires_grad_(True)


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

"""LoRA: low-rank updates of an encoder's linear layers are trained in place of its weights [Hu et al., ICLR 2022].

That saves the gradients and the optimizer's moments of all other weights, which for a large model do not fit.
"""

import contextlib
from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from metakd.utils.errors import InputError, listed, require

AUTO = "auto"  # all linear layers


@contextlib.contextmanager
def low_rank_updates(model: PreTrainedModel, rank: int | None, targets: str = AUTO) -> Iterator[None]:
    """Inside, only updates of `rank` and what follows the encoder of `model` learn; then they become its weights.

    Args:
        model: A sequence classifier.
        rank: The rank of the updates, or None to train all weights.
        targets: The linear layers that get updates, by the last parts of their names: 'q_proj,v_proj', or 'auto'.

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
    yield
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


def _in_encoder(model: PreTrainedModel, name: str) -> bool:
    return name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name  # which may be new

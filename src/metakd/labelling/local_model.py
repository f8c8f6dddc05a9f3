"""A causal language model on this machine, as a source of labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from metakd.labelling.zero_shot import label_scores
from metakd.models.hub import resolve
from metakd.runs.fingerprints import MODEL_FILES
from metakd.utils.artifacts import digest_files, fingerprint
from metakd.utils.errors import InputError, as_input_error
from metakd.utils.hardware import device, limit_threads
from metakd.utils.validation import check_weights

PROBES = ("one text", "a longer text, read beside it")


class LocalModel:
    """Scores labels by the likelihood of their words."""

    def __init__(self, name: str, max_length: int, chat: bool = False) -> None:
        """Load a model; InputError if it is no causal language model.

        Args:
            name: A folder or a model id.
            max_length: Tokens of a text that it reads.
            chat: Whether it gets the prompt as a user's message, in its chat template.
        """
        limit_threads()
        folder = resolve(name)
        self.model, self.tokenizer = _load(folder)
        with as_input_error(f"{folder}: a {self.model.config.model_type} cannot be asked for labels"):
            _ = [*label_scores(self.model, self.tokenizer, PROBES, PROBES)]
        self.max_length, self.chat = max_length, chat
        if chat and not self.tokenizer.chat_template:
            raise InputError(f"--chat: {folder} has no chat template; leave it out")
        template = self.tokenizer.chat_template if chat else None
        self.identity = fingerprint("local", digest_files(folder, MODEL_FILES), template)

    def shortened(self, text: str) -> str:
        """The first `max_length` tokens of a text."""
        places = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return text if len(places) <= self.max_length else text[: places[self.max_length - 1][1]]

    def scores(self, prompts: Sequence[str], words: Sequence[str]) -> Iterator[tuple[list[int], list[list[float]]]]:
        """The rows of some prompts, and the mean log-likelihood (B, M) of the words after each."""
        if self.chat:
            messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
            asked = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            answers = [*words]
        else:
            asked = [f"{self.tokenizer.bos_token or ''}{prompt}" for prompt in prompts]
            answers = [f" {text}" for text in words]
        for rows, scores in label_scores(self.model, self.tokenizer, asked, answers):
            yield rows, scores.tolist()


def _load(folder: Path) -> tuple[PreTrainedModel, Any]:
    """The model and its tokenizer, which pads on the left."""
    with as_input_error(f"{folder}: not a causal language model"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            check_weights(folder, AutoModelForCausalLM.from_config(config).num_parameters())
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype="auto" if device().type == "cuda" else torch.float32,
            trust_remote_code=False,
            weights_only=True,
            local_files_only=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if loaded["missing_keys"]:
        raise InputError(f"{folder}: not a causal language model (weights of its architecture are missing)")
    if not tokenizer.is_fast:
        raise InputError(f"{folder}: its tokenizer has no fast version (tokenizer.json), which metakd needs")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return model.eval().to(device()), tokenizer

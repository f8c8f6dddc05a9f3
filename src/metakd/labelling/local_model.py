"""A causal language model on this machine, as a source of labels."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from metakd.labelling.zero_shot import label_scores
from metakd.models.hub import resolve
from metakd.runs.fingerprints import MODEL_FILES
from metakd.utils.artifacts import digest_files, fingerprint
from metakd.utils.errors import InputError, as_input_error, listed
from metakd.utils.hardware import device, limit_threads
from metakd.utils.signals import stop_requested
from metakd.utils.validation import check_weights

PROBES = ("one text", "a longer text, read beside it")
FEWEST = 4  # tokens of a text that --max-length may say


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
        self.max_length, self.chat = max_length, chat
        if chat and not self.tokenizer.chat_template:
            raise InputError(f"--chat: {folder} has no chat template; leave it out")
        template = self.tokenizer.chat_template if chat else None
        self.identity = fingerprint("local", digest_files(folder, MODEL_FILES), template)
        with as_input_error(f"{folder}: a {self.model.config.model_type} cannot be asked for labels"):
            _ = [*self.scores(PROBES, PROBES)]

    def shortened(self, text: str) -> str:
        """The first `max_length` tokens of a text."""
        places = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return text if len(places) <= self.max_length else text[: places[self.max_length - 1][1]]

    def scores(self, prompts: Sequence[str], words: Sequence[str]) -> Iterator[tuple[list[int], list[list[float]]]]:
        """The rows of some prompts, and the mean log-likelihood (B, M) of the words after each.

        Raises:
            InputError: The words have no tokens, or the model reads fewer tokens than there are.
        """
        asked = [self._tokens(prompt) for prompt in prompts]
        answers = [self._answer_tokens(prompts[0], text) for text in words]
        if empty := [text for text, tokens in zip(words, answers, strict=True) if not tokens]:
            raise InputError(f"--label-words: the model has no tokens for {listed(empty)}")
        longest = max(map(len, asked)) + max(map(len, answers))
        most = getattr(self.model.config, "max_position_embeddings", None) or longest
        if longest > most:
            fitting = self.max_length - (longest - most)
            raise InputError(
                f"--max-length {self.max_length}: prompts have up to {longest} tokens, but the model reads {most}; "
                + (f"choose at most {fitting}, or shorten the prompt" if fitting >= FEWEST else "shorten the prompt")
            )
        for rows, scores in label_scores(self.model, self.tokenizer, asked, answers):
            yield rows, scores.tolist()
            if stop_requested():
                return

    def _tokens(self, prompt: str, answer: str = "") -> list[int]:
        """The tokens of a prompt, and of an answer to it, as the model would continue it."""
        if self.chat:
            message = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True) + answer
            return [*self.tokenizer(text, add_special_tokens=False)["input_ids"]]
        text = f"{prompt} {answer}" if answer else prompt
        return [*self._start, *self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def _answer_tokens(self, prompt: str, answer: str) -> list[int]:
        before, whole = self._tokens(prompt), self._tokens(prompt, answer)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        return [*self.tokenizer(answer, add_special_tokens=False)["input_ids"]]

    @cached_property
    def _start(self) -> list[int]:
        """The tokens that the tokenizer puts before a text."""
        alone, whole = (self.tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        return [*whole[: whole.index(alone[0])]] if alone and alone[0] in whole else []


def _load(folder: Path) -> tuple[PreTrainedModel, Any]:
    """The model and its tokenizer, which pads on the left."""
    with as_input_error(f"{folder}: cannot be read as a causal language model"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, attn_implementation=None)
        with torch.device("meta"):
            check_weights(folder, AutoModelForCausalLM.from_config(config).num_parameters())
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype="auto" if device().type == "cuda" else torch.float32,
            trust_remote_code=False,
            weights_only=True,
            local_files_only=True,
            output_loading_info=True,
        )
    with as_input_error(f"{folder}: its tokenizer cannot be used"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if loaded["missing_keys"]:
        raise InputError(f"{folder}: not a causal language model: weights of its architecture are missing")
    if not tokenizer.is_fast:
        raise InputError(f"{folder}: its tokenizer has no fast version (tokenizer.json), which metakd needs")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return model.eval().to(device()), tokenizer

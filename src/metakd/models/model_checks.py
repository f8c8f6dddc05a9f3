"""The check of base and student before anything is trained: what would fail later, or go wrong in silence, is refused.

Both read a text of the full length in the run's precision, a pair if the data has pairs, and a short text alone and
beside a longer one; a cut student's layers compute what they did in the base.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from metakd.config.settings import Settings
from metakd.data.schema import Example
from metakd.data.tokenization import Batch, Collator, encode
from metakd.models.adapters import low_rank_updates
from metakd.models.attention import has_raw_scores, set_attention
from metakd.models.embeddings import only_rows_in_use
from metakd.models.encoder import forward, model_inputs
from metakd.models.hub import resolve
from metakd.models.loading import blank_encoder, load_config, load_encoder, load_tokenizer
from metakd.models.student import cut_student, layer_stacks, layers_to_cut, map_layers, start_layers
from metakd.utils.errors import InputError, as_input_error, exhausted_resource, listed
from metakd.utils.hardware import Precision, native_precision

SAME_LAYER = 1e-6  # how far a layer's output may be from the base's own, of its largest value or of 1
SAME_TEXT = 1e-3  # the same for a text beside a longer one, which other kernels may compute
SHORT = 8  # tokens of a short text
LOCAL = 256  # tokens of the text that a cut is checked on: more than a local layer of today's encoders sees
TRIED = 500  # tokens that are tried as words of a text


def check_models(settings: Settings, pairs: bool = False) -> None:
    """Check that the base and the student of these settings can be trained and cut.

    Args:
        settings: The run's settings.
        pairs: Whether the data has pairs of texts.

    Raises:
        InputError: With the reason, for models that do not exist, are too short or too shallow, do not fit the layer
            map, or would fail or predict wrongly later.
    """
    precision = native_precision() if settings.precision == "auto" else settings.precision
    layers = settings.layer_map, settings.start_layers
    if settings.teacher and settings.teacher != settings.base:
        _check_teacher(settings.teacher, settings.max_length, precision, pairs)
    if settings.lora_rank:
        _check_targets(settings.base, settings.lora_targets)
    _check(settings.base, settings.student, settings.max_length, precision, pairs, *layers)


@cache
def _check_teacher(name: str, max_length: int, precision: Precision, pairs: bool) -> None:
    _checked("--teacher", name, max_length, precision, pairs)


@cache
def _check_targets(base: str, targets: str) -> None:
    with low_rank_updates(blank_encoder(resolve(base), ["a", "b"]), 1, targets):
        pass  # which raises InputError for layers that it does not have


@cache  # an experiment has hundreds of runs with the same models
def _check(
    base: str, student: str, max_length: int, precision: Precision, pairs: bool, layer_map: str, start: str
) -> None:
    options = max_length, precision, pairs
    whole, count = _checked("--base", base, *options), layers_to_cut(student)
    depth = whole.config.num_hidden_layers
    if count is None:
        map_layers(_checked("--student", student, *options).config.num_hidden_layers, depth, layer_map)
        if start != "auto":
            raise InputError("--start-layers: only for --student layers=N; this student has layers already")
        return
    if not 1 <= count <= depth:
        raise InputError(f"--student = {student!r}: the base has {depth} layers; choose 1 to {depth}")
    map_layers(count, depth, layer_map)
    layers = start_layers(whole, count, start, layer_map)
    with as_input_error(f"--student = {student!r}: no student can be cut from a {whole.config.model_type}"):
        batch = _batch(load_tokenizer(resolve(base)), min(LOCAL, max_length))
        check_cut(whole, cut_student(whole, layers).eval(), layers, batch)


def _checked(flag: str, name: str, max_length: int, precision: Precision, pairs: bool) -> PreTrainedModel:
    """The model of a folder or id, in eval mode; InputError if it cannot be trained on such texts."""
    folder = resolve(name)
    labels = [*load_config(folder).id2label.values()]  # the data's are not known yet
    model, tokenizer = load_encoder(folder, labels).eval(), load_tokenizer(folder)
    with as_input_error(f"{flag} = {name!r}: a {model.config.model_type} cannot be used"):
        check_tokens(folder, model, tokenizer)
        try:
            check_outputs(model, _batch(tokenizer, max_length), precision)
        except (IndexError, RuntimeError):
            if (most := readable_length(model, tokenizer, max_length)) < max_length:
                raise InputError(
                    f"--max-length = {max_length}: this encoder reads at most {most} tokens ({name})"
                ) from None
            raise
        if pairs:
            check_outputs(model, _batch(tokenizer, max_length, pairs=True), precision)
        check_padding(model, tokenizer, max_length)
        check_scores(model, _batch(tokenizer, min(SHORT, max_length)))
        check_gradients(model, _batch(tokenizer, min(SHORT, max_length)), precision)
    return model


def check_tokens(folder: Path, model: PreTrainedModel, tokenizer: Any) -> None:
    """Raise InputError if the tokenizer knows tokens that the model has no embedding for."""
    rows = model.get_input_embeddings().weight.shape[0]
    if beyond := [token for token, row in tokenizer.get_vocab().items() if row >= rows]:
        raise InputError(
            f"{folder}: its tokenizer knows {listed(sorted(beyond))}, but the model has embeddings for {rows:,} tokens "
            "alone; call model.resize_token_embeddings(len(tokenizer)) in transformers and save both, or remove the "
            "tokens from its tokenizer files"
        )


def readable_length(model: PreTrainedModel, tokenizer: Any, wanted: int) -> int:
    """The largest number of tokens up to `wanted` that the model has positions for, by forward passes."""

    def reads(length: int) -> bool:
        try:
            with torch.no_grad():
                model(**model_inputs(_batch(tokenizer, length)))
        except (IndexError, RuntimeError) as error:
            if exhausted_resource(error):
                raise
            return False
        return True

    least = tokenizer.num_special_tokens_to_add() + 1
    if reads(wanted) or not reads(least):  # a model that reads nothing has another fault, which is said elsewhere
        return wanted
    most = wanted
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if reads(middle) else (least, middle)
    return least


def check_outputs(model: PreTrainedModel, batch: Batch, precision: Precision) -> None:
    """Raise ValueError unless the model returns finite logits, and finite hidden states of every layer."""
    set_attention(model)
    with torch.no_grad(), _rounded(precision):
        outputs = forward(model, batch)
    shape = *batch["input_ids"].shape, model.config.hidden_size
    _check_shapes("hidden states", outputs.hidden_states, model.config.num_hidden_layers + 1, shape)
    if not all(values.isfinite().all() for values in (outputs.logits, *outputs.hidden_states)):
        raise ValueError(f"its outputs are not finite in {precision}; try --precision float32")


def check_scores(model: PreTrainedModel, batch: Batch) -> None:
    """Raise ValueError unless a model whose attention can be recorded returns scores of every layer and head."""
    if not has_raw_scores(model):
        return
    set_attention(model, "scores")
    with torch.no_grad():
        scores = forward(model, batch, attentions=True).attentions
    set_attention(model)
    num_texts, length = batch["input_ids"].shape
    shape = num_texts, model.config.num_attention_heads, length, length
    _check_shapes("attention scores", scores, model.config.num_hidden_layers, shape)


def _check_shapes(what: str, values: Sequence[Tensor], count: int, shape: tuple[int, ...]) -> None:
    shapes = sorted({tuple(value.shape) for value in values})
    if len(values) != count or shapes != [shape]:
        raise ValueError(f"it returns {len(values)} {what} of {shapes}, not {count} of {shape}")


def check_padding(model: PreTrainedModel, tokenizer: Any, max_length: int) -> None:
    """Raise ValueError if a text's outputs depend on the padding that a longer text beside it brings."""
    words = max(1, min(SHORT, max_length - 1) - tokenizer.num_special_tokens_to_add())
    features = encode(tokenizer, [_example(tokenizer, words), _example(tokenizer, max_length)], max_length)
    collator, length = Collator(tokenizer.pad_token_id), features.lengths[0]
    with torch.no_grad():
        alone, together = (forward(model, collator([features[row] for row in rows])) for rows in ([0], [0, 1]))
    pairs = [(together.logits, alone.logits), (together.pooled, alone.pooled)]
    pairs += zip((states[:, :length] for states in together.hidden_states), alone.hidden_states, strict=True)
    if not all(_same(ours[0], theirs[0], SAME_TEXT) for ours, theirs in pairs):
        raise ValueError("its answer to a text depends on the longer texts beside it, as it does not leave out padding")


def check_gradients(model: PreTrainedModel, batch: Batch, precision: Precision) -> None:
    """Raise ValueError unless a loss has finite gradients that reach the embeddings."""
    with only_rows_in_use(model, batch["input_ids"].unique().tolist()):
        with _rounded(precision):
            outputs = forward(model, batch)
        (outputs.logits.float().square().sum() + outputs.pooled.float().square().sum()).backward()
        gradient = model.get_input_embeddings().weight.grad
    model.zero_grad()
    if gradient is None or not gradient.any():
        raise ValueError("no gradient reaches its embeddings")
    if not gradient.isfinite().all():
        raise ValueError(f"its gradients are not finite in {precision}; try --precision float32")


def check_cut(source: PreTrainedModel, student: PreTrainedModel, layers: list[int], batch: Batch) -> None:
    """Raise ValueError unless each of the student's layers computes what it did in the source.

    A layer of the source reads what the student's reads, but with everything else, such as masks and positions, as
    the source passes it.
    """
    set_attention(source)
    set_attention(student)
    for stack in layer_stacks(source):
        theirs, ours = (model.get_submodule(stack) for model in (source, student))
        with _recorded(theirs) as whole, _recorded(ours) as cut, torch.no_grad():
            for model in (source, student):
                model(**model_inputs(batch))
        for place, layer in enumerate(layers):
            (states, *_), _, output = cut[place]
            (_, *rest), options, _ = whole[layer - 1]
            with torch.no_grad():
                expected = _first(theirs[layer - 1](states, *rest, **options))
            if not _same(output, expected, SAME_LAYER):
                difference = (output - expected).abs().max().item()
                raise ValueError(
                    f"layer {layer} as a student's layer {place + 1} answers otherwise, by up to {difference:.2g}"
                )


@contextlib.contextmanager
def _recorded(stack: nn.ModuleList) -> Iterator[list[Any]]:
    """The last call of each layer while the context lasts: its arguments, the hidden states first, and its output."""
    calls: list[Any] = [None] * len(stack)

    def record(place: int, forward: Callable[..., Any], *positional: Any, **options: Any) -> Any:
        arguments, named = copy.deepcopy((positional, options))  # a layer may change them, caches for instance
        output = forward(*positional, **options)
        calls[place] = arguments or (named.pop("hidden_states"),), named, _first(output).clone()
        return output

    for place, layer in enumerate(stack):
        layer.forward = partial(record, place, layer.forward)  # hooks are not called where a model calls `forward`
    try:
        yield calls
    finally:
        for layer in stack:
            del layer.forward


def _rounded(precision: Precision) -> torch.autocast:
    """Matrix products in this precision on the CPU, where a text too long for a model does not end the process."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


def _example(tokenizer: Any, length: int, pairs: bool = False) -> Example:
    """A text (or a pair of it) of at least `length` tokens, none of them unknown."""
    known = sorted({*tokenizer.get_vocab().values()} - {*tokenizer.all_special_ids})
    known = known[:: math.ceil(len(known) / TRIED)]
    words = [word.strip() for word in tokenizer.batch_decode([[token] for token in known])]
    tokens = tokenizer(words, add_special_tokens=False)["input_ids"]
    usual = [word for word, token, ids in zip(words, known, tokens, strict=True) if ids == [token]]
    text = " ".join(islice(cycle(usual or ["a"]), length))
    return Example("", text, text if pairs else None, "", "")


def _batch(tokenizer: Any, length: int, pairs: bool = False) -> Batch:
    """One text (or pair) of `length` tokens."""
    return Collator(tokenizer.pad_token_id)([*encode(tokenizer, [_example(tokenizer, length, pairs)], length)])


def _first(output: Any) -> Tensor:
    """The hidden states that a layer returns, alone or first of several values."""
    if isinstance(output, Tensor):
        return output
    return cast(Tensor, next(iter(output.values() if isinstance(output, dict) else output)))


def _same(value: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether they differ by at most `tolerance` of the largest expected value, or of 1."""
    return bool(((value - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1)).item())

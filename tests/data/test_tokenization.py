"""Tokens once, batches by length, padding to the batch."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import toy_examples
from metakd.data import tokenization
from metakd.data.samplers import LengthBatches, ordered_batches
from metakd.data.schema import Example
from metakd.data.tokenization import Collator, TokenStore, encode
from metakd.models.forward_passes import EVALUATION_BATCH, MOST_TOKENS
from metakd.models.loading import load_tokenizer
from metakd.utils.errors import InputError


def test_a_missing_second_text_is_not_the_word_none(base: Path) -> None:
    tokenizer = load_tokenizer(base, 16)
    single = encode(tokenizer, [Example("1", "good page", None, "a", "b")], 16)[0]
    pair = encode(tokenizer, [Example("1", "good page", "bad lid", "a", "b")], 16)[0]
    assert tokenizer.convert_ids_to_tokens(single["input_ids"]) == ["[CLS]", "good", "page", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"])[4:] == ["bad", "lid", "[SEP]"]
    assert pair["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("order", [1, -1])
def test_pairs_and_single_texts_do_not_mix(base: Path, order: int) -> None:
    rows = [Example("one", "good", "bad", "a", "b"), Example("two", "good", None, "a", "b")]
    with pytest.raises(InputError, match="text_pair is missing on 1 rows"):
        encode(load_tokenizer(base, 16), rows[::order], 16)


def test_real_tokens_leave_out_special_ones(base: Path) -> None:
    tokenizer = load_tokenizer(base, 16)
    assert encode(tokenizer, [Example("1", "good page", None, "a", "b")], 16)[0]["real_mask"].tolist() == [0, 1, 1, 0]


def test_texts_are_cut_to_max_length_and_not_to_the_length_in_the_file(base: Path) -> None:
    """The file cuts and pads to 8; loading clears both, so 20 words stay 22 tokens, or 12 where asked."""
    long = [Example("1", "good " * 20, None, "a", "b")]
    tokenizer = load_tokenizer(base, 30)
    assert len(encode(tokenizer, long, 30)[0]["input_ids"]) == 22
    assert len(encode(tokenizer, long, 12)[0]["input_ids"]) == 12
    assert len(encode(tokenizer, [Example("1", "good", None, "a", "b")], 30)[0]["input_ids"]) == 3


def test_texts_come_out_the_same_in_chunks(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, examples = load_tokenizer(base, 16), toy_examples(10, 0, "t")
    whole = encode(tokenizer, examples, 16)
    monkeypatch.setattr(tokenization, "CHUNK", 3)
    parts = encode(tokenizer, examples, 16).with_columns(labels=[0, 1] * 5, instance_weights=[0.5] * 10)
    assert len(whole) == len(parts) == 10
    assert whole.lengths.tolist() == parts.lengths.tolist()
    for one, other in zip(whole, parts, strict=True):
        assert {name: value.tolist() for name, value in one.items()} == {n: other[n].tolist() for n in one}
    assert parts[3]["labels"] == 1
    assert parts.column("instance_weights").dtype == torch.float32
    assert parts.token_ids.tolist() == sorted({i for row in whole for i in row["input_ids"].tolist()})


def test_a_store_gives_the_tokens_that_encode_gives(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, in parts, with repeats; what was read before is not tokenised again."""
    monkeypatch.setattr(tokenization, "CHUNK", 3)
    tokenizer, examples = load_tokenizer(base, 16), toy_examples(20, 0, "t")
    store = TokenStore(tokenizer, 16)
    for part in (examples[5:9], examples[::-1], [examples[3], examples[3]], []):
        kept, fresh = store.encode(part), encode(tokenizer, part, 16)
        assert kept.lengths.tolist() == fresh.lengths.tolist()
        assert kept.token_ids.tolist() == fresh.token_ids.tolist()
        for one, other in zip(kept, fresh, strict=True):
            assert {name: ids.tolist() for name, ids in one.items()} == {n: ids.tolist() for n, ids in other.items()}
    monkeypatch.setattr(type(tokenizer), "__call__", None)
    assert len(store.encode(examples)) == 20


def test_no_texts_are_no_features(base: Path) -> None:
    assert len(encode(load_tokenizer(base, 16), [], 16)) == 0


def test_collator_pads_ids_with_the_pad_token_and_masks_with_zero() -> None:
    features = [
        {"input_ids": [5, 6], "real_mask": [1, 1], "labels": 1},
        {"input_ids": [7], "real_mask": [1], "labels": 0},
    ]
    batch = Collator(pad_id=9)(features)
    assert batch["input_ids"].tolist() == [[5, 6], [7, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["real_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["labels"].tolist() == [1, 0]


def test_collator_pads_the_teachers_tokens_with_its_pad_id() -> None:
    features = [{"input_ids": [5, 6], "teacher_input_ids": [3]}, {"input_ids": [7], "teacher_input_ids": [3, 4]}]
    batch = Collator(pad_id=0, teacher_pad_id=1)(features)
    assert batch["teacher_input_ids"].tolist() == [[3, 1], [3, 4]]
    assert batch["teacher_attention_mask"].tolist() == [[1, 0], [1, 1]]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(1, 9), st.integers(0, 9))
def test_every_example_comes_once_an_epoch_in_a_repeatable_order(lengths: list[int], size: int, seed: int) -> None:
    sampler = LengthBatches(lengths, size, seed)
    first = list(sampler)
    assert sorted(i for batch in first for i in batch) == list(range(len(lengths)))
    assert len(first) == len(sampler)
    assert list(LengthBatches(lengths, size, seed)) == first


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), min_size=1, max_size=80), st.integers(1, 20))
def test_with_groups_every_batch_has_its_share_of_each(rows: list[tuple[int, int]], size: int) -> None:
    """Every row once, as many batches as without, none above the size; of each group floor or ceil of its share."""
    lengths, groups = zip(*rows, strict=True)
    sampler = LengthBatches(lengths, size, 0, groups)
    first = list(sampler)
    assert sorted(i for batch in first for i in batch) == list(range(len(rows)))
    assert len(first) == len(sampler) == len(LengthBatches(lengths, size, 0))
    assert max(map(len, first)) <= size
    assert max(map(len, first)) - min(map(len, first)) <= 1
    for group in set(groups):
        held = [sum(groups[i] == group for i in batch) for batch in first]
        assert min(held) == groups.count(group) // len(first)
        assert max(held) - min(held) <= 1
    assert list(LengthBatches(lengths, size, 0, groups)) == first


@pytest.mark.parametrize("groups", [None, [0, 0, 0, 1] * 64])
def test_epochs_differ_and_batches_are_of_like_length(groups: list[int] | None) -> None:
    lengths = torch.randint(1, 100, (256,)).tolist()
    sampler = LengthBatches(lengths, 16, 0, groups)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    spans = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in first]
    assert sum(spans) / len(spans) < 20


def test_batches_of_a_seed_and_an_epoch_stay_the_same() -> None:
    """A stopped run continues with the batches that it began with, also after an update of metakd."""
    lengths, groups = [7, 3, 9, 1, 4, 8, 2, 6, 5, 3], [0, 1, 0, 2, 0, 1, 0, 0, 1, 0]
    assert [*LengthBatches(lengths, 4, 0, epoch=1)] == [[3, 6, 1, 9], [4, 8, 7, 0], [5, 2]]
    assert [*LengthBatches(lengths, 4, 0, groups, epoch=1)] == [[6, 9, 1, 3], [4, 7, 8], [0, 2, 5]]


def test_two_hundred_domains_take_no_longer_than_one() -> None:
    """Looking for the texts of each domain among all took 7 seconds; one domain, 0.1."""
    seconds = []
    for domains in (1, 200):
        started = time.process_time()
        assert len([*LengthBatches(np.full(100_000, 5), 32, 0, np.arange(100_000) % domains)]) == 3125
        seconds.append(time.process_time() - started)
    assert seconds[1] < 20 * seconds[0]


def test_ordered_batches_go_from_short_to_long(base: Path) -> None:
    features = encode(load_tokenizer(base, 16), toy_examples(20, 0, "t"), 16)
    order = [i for batch in ordered_batches(features.lengths, 6, 10**6) for i in batch]
    lengths = [len(features[i]["input_ids"]) for i in order]
    assert lengths == sorted(lengths)
    assert sorted(order) == list(range(20))


@pytest.mark.parametrize(
    ("lengths", "sizes"), [([512] * 130, [64, 64, 2]), ([8192] * 5, [4, 1]), ([99_999] * 2, [1, 1])]
)
def test_batches_of_long_texts_have_fewer(lengths: list[int], sizes: list[int]) -> None:
    """Of up to 512 tokens 64 texts, as the last bits of all outputs depend on which texts share a batch."""
    batches = ordered_batches(np.array(lengths), EVALUATION_BATCH, MOST_TOKENS)
    assert [len(batch) for batch in batches] == sizes

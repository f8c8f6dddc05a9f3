"""Every proven architecture: raw scores, E(x), layer maps, loading."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel

from conftest import WORDS, Checkpoint, encoded
from metakd.data.schema import Example
from metakd.data.tokenization import Batch, Collator, encode
from metakd.models import attention, encoder, loading
from metakd.models.student import map_layers
from metakd.utils.errors import InputError

PROVEN = ["bert", "roberta", "distilbert", "electra"]


def batch_of(folder: Path, kind: str) -> Batch:
    batch = Collator(0)(encoded(folder, 6))
    return {k: v for k, v in batch.items() if k != "token_type_ids" or kind != "distilbert"}


@pytest.mark.parametrize("kind", PROVEN)
def test_scores_are_raw_and_change_no_output(checkpoint: Checkpoint, kind: str) -> None:
    """Scores are what eager attention feeds its softmax: their masked softmax is the library's own attention."""
    folder = checkpoint(kind)
    model, batch = loading.load_encoder(folder, ["a", "b"]).eval(), batch_of(folder, kind)
    plain = encoder.forward(model, batch)
    assert plain.attentions == ()
    attention.set_attention(model, "factors")
    factored = encoder.forward(model, batch, attentions=True)
    attention.set_attention(model, "scores")
    scored = encoder.forward(model, batch, attentions=True)
    for recorded in (factored, scored):
        torch.testing.assert_close(recorded.logits, plain.logits)
    model.set_attn_implementation("eager")
    eager = model(**{k: v for k, v in batch.items() if k in encoder.MODEL_INPUTS}, output_attentions=True).attentions
    hidden = batch["attention_mask"][:, None, None, :] == 0
    assert len(scored.attentions) == len(eager) == 4
    for raw, factors, softmaxed in zip(scored.attentions, factored.attentions, eager, strict=True):
        assert raw.shape == softmaxed.shape
        torch.testing.assert_close(attention.raw_scores(factors), raw)
        torch.testing.assert_close(raw.masked_fill(hidden, -torch.inf).softmax(-1), softmaxed)


@pytest.mark.parametrize("kind", PROVEN)
def test_scores_stay_raw_and_padding_unseen_while_training(checkpoint: Checkpoint, kind: str) -> None:
    """No dropout reaches the scores of the first layer, and what stands in the padding changes nothing."""
    folder = checkpoint(kind)
    model, batch = loading.load_encoder(folder, ["a", "b"]).train(), batch_of(folder, kind)
    loading.set_dropout(model, 0.0, 0.5)
    attention.set_attention(model, "scores")
    one, two = (encoder.forward(model, batch, attentions=True) for _ in range(2))
    torch.testing.assert_close(one.attentions[0], two.attentions[0])
    assert not torch.equal(one.logits, two.logits)  # the dropout of attention itself is at work
    loading.set_dropout(model, 0.0, 0.0)
    other = {**batch, "input_ids": torch.where(batch["attention_mask"] == 0, 7, batch["input_ids"])}
    if kind != "roberta":  # whose position ids are read off the padding token
        torch.testing.assert_close(encoder.forward(model, other).logits, encoder.forward(model, batch).logits)


def test_e_is_the_mean_over_real_tokens_alone() -> None:
    """[CLS] 9, tokens 1 and 3, [SEP] 9, padding 50: the mean is 2. With specials it would be 5.5."""
    states = torch.tensor([9.0, 1.0, 3.0, 9.0, 50.0]).view(1, 5, 1)
    assert encoder.mean_over_real_tokens(states, torch.tensor([[0, 1, 1, 0, 0]])).tolist() == [[2.0]]
    assert encoder.mean_over_real_tokens(states, torch.zeros(1, 5)).tolist() == [[0.0]]


def test_e_leaves_out_padding_and_separators_and_does_not_depend_on_the_batch(base: Path) -> None:
    """[CLS] good page [SEP] bad lid [SEP], padded beside a longer pair: tokens 1, 2, 4 and 5 are real."""
    model, tokenizer = loading.load_encoder(base, ["a", "b"]).eval(), loading.load_tokenizer(base, 32)
    rows = [Example("1", "good page", "bad lid", "", ""), Example("2", "it was " * 5, "bad " * 5, "", "")]
    features = encode(tokenizer, rows, 32)
    together = encoder.forward(model, Collator(0)(features))
    torch.testing.assert_close(together.pooled[0], together.hidden_states[-1][0, [1, 2, 4, 5]].mean(0))
    for row, feature in enumerate(features):
        torch.testing.assert_close(encoder.forward(model, Collator(0)([feature])).pooled[0], together.pooled[row])


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        *((3, 6, [2, 4, 6]), (4, 12, [3, 6, 9, 12]), (6, 6, [1, 2, 3, 4, 5, 6]), (2, 5, [3, 5]), (1, 6, [6])),
        (12, 4, [1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]),
    ],
)
def test_layer_map_rounds_halves_up_and_ends_at_the_last(student: int, teacher: int, expected: list[int]) -> None:
    assert map_layers(student, teacher) == expected


def test_an_explicit_layer_map_overrides_or_is_refused() -> None:
    assert map_layers(3, 6, "1,2,6") == [1, 2, 6]
    for bad in ("1,2", "0,1,2", "1,2,7", "a,b,c", ""):
        with pytest.raises(InputError, match=r"for instance 2,4,6"):
            map_layers(3, 6, bad)


def test_dropout_reaches_every_layer_and_attention_apart(checkpoint: Checkpoint) -> None:
    for kind in [*PROVEN, "mpnet", "deberta-v2", "albert"]:
        model = loading.load_encoder(checkpoint(kind), ["a", "b"])
        loading.set_dropout(model, 0.3, 0.2)
        rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
        assert set(rates) == {0.3, 0.2}, kind
        assert rates.count(0.2) == (1 if kind == "albert" else 4), kind


def test_old_bin_weights_are_read_with_a_notice(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The form of TinyBERT_General_4L_312D: pytorch_model.bin, vocab.txt, and a config without model_type."""
    source = AutoModel.from_pretrained(base)
    config = {k: v for k, v in source.config.to_dict().items() if k not in ("model_type", "architectures")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    torch.save({f"bert.{k}": v for k, v in source.state_dict().items()}, tmp_path / "pytorch_model.bin")
    model = loading.load_encoder(tmp_path, ["a", "b"])
    assert "weights_only" in caplog.text
    torch.testing.assert_close(model.base_model.state_dict(), source.state_dict())
    tokenizer = loading.load_tokenizer(tmp_path, 16)
    assert loading.same_tokenizer(tokenizer, tokenizer)
    assert tokenizer("Good page")["input_ids"] == [2, WORDS.index("good"), WORDS.index("page"), 3]


def test_weights_that_do_not_fit_are_refused(base: Path, tmp_path: Path) -> None:
    """Keys under a foreign prefix would leave a random encoder without a word."""
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({f"tower.{k}": v for k, v in weights.items()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"missing weights of its architecture, bert(.|\n)*bert\.embeddings"):
        loading.load_encoder(tmp_path, ["a", "b"])


def test_a_base_may_have_another_class_head_and_a_classifier_may_not_lack_one(base: Path, tmp_path: Path) -> None:
    loading.load_encoder(base, ["a", "b", "c"]).save_pretrained(tmp_path)
    assert loading.load_encoder(tmp_path, ["a", "b"]).config.num_labels == 2
    assert loading.load_classifier(tmp_path).config.num_labels == 3
    weights = {k: v for k, v in load_file(tmp_path / "model.safetensors").items() if k != "classifier.weight"}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"classifier\.weight"):
        loading.load_classifier(tmp_path)


def test_tokenizers_are_compared_by_what_they_do(checkpoint: Checkpoint) -> None:
    ours = loading.load_tokenizer(checkpoint("bert"), 16)
    assert loading.same_tokenizer(ours, loading.load_tokenizer(checkpoint("electra"), 30))
    assert not loading.same_tokenizer(ours, loading.load_tokenizer(checkpoint(words=[*WORDS, "new"]), 16))


def test_a_folder_whose_vocabulary_is_gone_is_refused(base: Path, tmp_path: Path) -> None:
    """For BERT's, transformers makes a tokenizer of special tokens alone, to which every word is unknown."""
    folder = shutil.copytree(base, tmp_path / "torn")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    with pytest.raises(InputError, match="its tokenizer is empty; its files"):
        loading.load_tokenizer(folder)

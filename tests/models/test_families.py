"""Families of models: each can be cut, trained and saved as it is, or is refused before anything is trained.

Tiny models with random weights; `make test` tries one family of each kind, `make test-all` the whole table.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from conftest import WORDS, save_tokenizer, toy_examples
from metakd.config.settings import Settings
from metakd.export.onnx_format import write_model
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.models import model_checks
from metakd.models.embeddings import CompactEmbedding, only_rows_in_use
from metakd.models.loading import load_encoder, load_tokenizer, set_dropout
from metakd.models.student import cut_student, start_layers
from metakd.utils.errors import InputError

SHAPE = {"hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 32}
DECODER = {"num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
LOCAL = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"] * 2, "sliding_window": 4}
XLM = {"emb_dim": 16, "n_layers": 6, "n_heads": 2, "n_words": len(WORDS), "pad_index": 0}
USED: dict[str, dict[str, Any]] = {  # families that can be cut, with what their tiny models need
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "camembert": {},
    "distilbert": {"dim": 16, "n_layers": 6, "n_heads": 2, "hidden_dim": 32},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8},
    "ernie": {},
    "data2vec-text": {},
    "xlm-roberta-xl": {},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "mpnet": {},
    "squeezebert": {"embedding_size": 16, **{f"{k}_groups": 1 for k in ("q", "k", "v", "post_attention")}},
    "big_bird": {"attention_type": "original_full"},
    "deberta-v2": {},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roformer": {"embedding_size": 16},
    "megatron-bert": {},
    "eurobert": {"num_key_value_heads": 1},
    "nomic_bert": {},
    "jina_embeddings_v3": {},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 3, "cls_token_id": 2, "sep_token_id": 3},
    "longformer": {"attention_window": [4, 8, 4, 8, 4, 8], "sep_token_id": 3},
    "deberta": {},
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "layoutlm": {},
    "esm": {},
    "flaubert": XLM,
    "xlm": XLM,
    "llama": DECODER,
    "mistral": DECODER,
    "phi3": DECODER,
    "gemma": DECODER,
    "gemma2": DECODER | LOCAL,
    "gemma3_text": DECODER | LOCAL,
    "qwen2": DECODER | LOCAL | {"vocab_size": 40, "use_sliding_window": True},
    "qwen3": DECODER | LOCAL | {"vocab_size": 40, "use_sliding_window": True},
    "qwen3_5_text": DECODER,
    "smollm3": DECODER | {"no_rope_layers": [1, 0, 1, 1, 0, 1]},
    "modernbert-decoder": DECODER | {"local_attention": 8, "global_attn_every_n_layers": 3, "cls_token_id": 2},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "gpt_neox": {},
    "bloom": {"n_layer": 6, "n_head": 2},
    "gpt2": {"n_embd": 16, "n_layer": 6, "n_head": 2, "n_positions": 40},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {  # those that cannot be used, and why
    "fnet": ({}, "does not leave out padding"),
    "t5": ({"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}, "an encoder and a decoder"),
    "mt5": ({"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}, "an encoder and a decoder"),
    "nystromformer": ({}, "does not leave out padding"),
    "convbert": ({"embedding_size": 16}, "does not leave out padding"),
    "yoso": ({}, "does not leave out padding"),
    "ibert": ({}, "a ibert cannot be used"),
    "canine": ({}, "a canine cannot be used"),
    "bart": ({"d_model": 16, "encoder_layers": 2, "decoder_layers": 2}, "an encoder and a decoder"),
}
QUICK = ("bert", "albert", "roberta", "deberta", "modernbert", "flaubert", "gemma3_text", "fnet", "t5")


def table(families: dict[str, Any]) -> list[Any]:
    return [pytest.param(kind, marks=[] if kind in QUICK else pytest.mark.slow) for kind in families]


def save_family(folder: Path, kind: str, options: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    places = {"vocab_size": len(WORDS), "max_position_embeddings": 40, "type_vocab_size": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, **(SHAPE | places | {"initializer_range": 0.3} | options))
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    save_tokenizer(folder)
    if kind == "gpt2":  # it has no table for token types, and neither has its tokenizer
        file = folder / "tokenizer_config.json"
        names = {"model_input_names": ["input_ids", "attention_mask"]}
        file.write_text(json.dumps(json.loads(file.read_text()) | names))
    return folder


def settings_of(folder: Path, **more: Any) -> Settings:
    common = {"base": str(folder), "student": "layers=2", "max_length": 16, "precision": "float32"}
    return Settings.model_validate(common | more)


@pytest.mark.parametrize("kind", table(USED))
def test_a_cut_computes_what_its_layers_did_in_the_base_and_reloads(kind: str, tmp_path: Path) -> None:
    folder = save_family(tmp_path / "base", kind, USED[kind])
    model_checks.check_models(settings_of(folder), pairs=True)
    base = load_encoder(folder, ["a", "b"]).eval()
    student = cut_student(base, start_layers(base, 3)).eval()
    student.save_pretrained(tmp_path / "student")
    inputs = {"input_ids": torch.tensor([[2, 6, 7, 9, 11, 3]])}
    again = load_encoder(tmp_path / "student", ["a", "b"], whole=True).eval()
    torch.testing.assert_close(again(**inputs).logits, student(**inputs).logits)


@pytest.mark.parametrize("kind", table(USED))
def test_without_dropout_nothing_is_left_to_chance(kind: str, tmp_path: Path) -> None:
    """Some families have dropout as a number, not as a layer."""
    model = load_encoder(save_family(tmp_path, kind, USED[kind]), ["a", "b"]).train()
    inputs = {"input_ids": torch.tensor([[2, 6, 7, 9, 11, 3]])}
    set_dropout(model, 0.0, 0.0)
    with torch.no_grad():
        once, again = model(**inputs).logits, model(**inputs).logits
        assert torch.equal(once, again)
        if kind in ("opt", "longformer", "modernbert", "llama", "gpt2", "esm", "gemma3_text"):
            set_dropout(model, 0.0, 0.9)
            assert not torch.equal(model(**inputs).logits, once)
    if kind == "bloom":  # whose attention has dropout of its output, too
        set_dropout(model, 0.3, 0.2)
        assert {m.hidden_dropout for m in model.modules() if hasattr(m, "hidden_dropout")} == {0.3}


def test_a_compact_table_is_scaled_as_the_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here each token that does not keep its row has a word of its own for each part, so nothing is approximate."""
    monkeypatch.setattr("metakd.export.onnx_format.ROWS", 12)
    base = load_encoder(save_family(tmp_path / "base", "gemma3_text", USED["gemma3_text"]), ["a", "b"])
    model, texts = TorchModel(base, load_tokenizer(tmp_path / "base", 16)), toy_examples(20, 0, "t")
    parity = write_model(model, tmp_path / "exported", texts, domain_examples=texts)
    assert isinstance(model.network.get_input_embeddings(), CompactEmbedding)
    assert parity.difference < 1e-4


@pytest.mark.parametrize("kind", table(USED))
def test_in_training_a_text_is_embedded_as_it_is_after(kind: str, tmp_path: Path) -> None:
    """Only the rows of tokens that occur are trained, and Gemma multiplies them when it looks them up."""
    model = load_encoder(save_family(tmp_path, kind, USED[kind]), ["a", "b"]).eval()
    inputs = {"input_ids": torch.tensor([[2, 6, 7, 9, 11, 3]])}
    with torch.no_grad():
        after = model(**inputs).logits
        with only_rows_in_use(model, [2, 3, 6, 7, 9, 11]):
            torch.testing.assert_close(model(**inputs).logits, after)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["modernbert", "gemma3_text", "flaubert"])
def test_a_cut_is_exported_and_in_int8_predicts_nearly_the_same(kind: str, tmp_path: Path) -> None:
    """In float32 `write_model` compares the probabilities itself; in int8 random weights change a few labels."""
    base = load_encoder(save_family(tmp_path / "base", kind, USED[kind]), ["a", "b"])
    model = TorchModel(cut_student(base, start_layers(base, 2)), load_tokenizer(tmp_path / "base", 16))
    texts = toy_examples(60, 0, "t")
    write_model(model, tmp_path / "exported", texts, int8=True)
    labels = [m.answers(texts).probabilities.argmax(1) for m in (model, OnnxModel.load(tmp_path / "exported"))]
    assert (labels[0] == labels[1]).mean() > 0.8


@pytest.mark.parametrize("kind", table(REFUSED))
def test_what_cannot_be_used_is_refused_before_anything_is_trained(kind: str, tmp_path: Path) -> None:
    options, reason = REFUSED[kind]
    with pytest.raises(InputError, match=reason):
        model_checks.check_models(settings_of(save_family(tmp_path, kind, options)))

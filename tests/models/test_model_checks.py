"""What would fail after training, or go wrong in silence, is refused before it or put right when a model is loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from conftest import WORDS, Checkpoint
from metakd.config.settings import Settings
from metakd.inference.torch_backend import TorchModel
from metakd.models import loading, model_checks
from metakd.models.student import cut_student
from metakd.utils.errors import InputError


def check(folder: Path, pairs: bool = False, **more: Any) -> None:
    common = {"base": str(folder), "student": "layers=2", "max_length": 16, "precision": "float32"}
    model_checks._check.cache_clear()
    model_checks.check_models(Settings.model_validate(common | more), pairs)


def edited(folder: Path, target: Path, file: str = "config.json", **values: Any) -> Path:
    """A copy of a checkpoint with other values in one of its files."""
    shutil.copytree(folder, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps(content | values))
    return target


@pytest.mark.parametrize(
    ("kind", "most"), [("bert", 40), ("roberta", 39), ("data2vec-text", 39), ("xlm-roberta-xl", 39), ("mpnet", 38)]
)
def test_a_length_beyond_the_positions_is_refused_by_what_the_model_does(
    checkpoint: Checkpoint, kind: str, most: int
) -> None:
    """Some families count positions from the padding token's id on."""
    check(checkpoint(kind), max_length=most)
    with pytest.raises(InputError, match=rf"max_length = 41: this encoder reads at most {most} tokens"):
        check(checkpoint(kind), max_length=41)


def test_a_saved_classifier_truncates_to_the_positions_that_it_has(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = loading.load_encoder(checkpoint("roberta"), ["a", "b"])
    model.save_pretrained(tmp_path)
    loading.load_tokenizer(checkpoint("roberta")).save_pretrained(tmp_path)
    assert TorchModel.load(tmp_path, "cpu").tokenizer.model_max_length == 39


def test_tokens_without_an_embedding_are_refused_by_name(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shutil.copytree(base, tmp_path / "base"))
    tokenizer.add_tokens(["<url>"])
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match=rf"knows '?<url>'?, but the model has embeddings for {len(WORDS)} tokens"):
        check(tmp_path / "base")


@pytest.mark.parametrize(
    "flag",
    [
        *("output_hidden_states", "output_attentions", "torchscript", "is_decoder", "add_cross_attention"),
        *("use_cache", "gradient_checkpointing"),
    ],
)
def test_switches_in_a_configuration_are_not_heeded(base: Path, tmp_path: Path, flag: str) -> None:
    plain = loading.load_encoder(base, ["a", "b"])
    folder = edited(base, tmp_path / "base", **{flag: True})
    check(folder)
    switched = loading.load_encoder(folder, ["a", "b"])
    assert not getattr(switched.config, flag, False) or flag == "gradient_checkpointing"
    inputs = {"input_ids": torch.tensor([[2, 6, 7, 3]])}
    torch.testing.assert_close(switched.bert(**inputs)[0], plain.bert(**inputs)[0])


def test_return_dict_is_not_heeded(base: Path, tmp_path: Path) -> None:
    check(edited(base, tmp_path / "base", return_dict=False))


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_another_kind_of_problem_is_not_inherited(base: Path, tmp_path: Path, kind: str) -> None:
    folder = edited(base, tmp_path / "base", problem_type=kind)
    check(folder)
    student = cut_student(loading.load_encoder(folder, ["a", "b"]), [1, 2])
    assert student.config.problem_type == "single_label_classification"


def test_a_regression_is_not_read_as_classes(base: Path, tmp_path: Path) -> None:
    classifier = edited(
        base, tmp_path / "c", problem_type="regression", architectures=["BertForSequenceClassification"]
    )
    with pytest.raises(InputError, match="a model of the kind 'regression'"):
        loading.load_classifier(classifier)


def test_a_ranking_model_is_not_read_as_a_sure_classifier(base: Path, tmp_path: Path) -> None:
    names = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    folder = edited(base, tmp_path / "c", **names, architectures=["BertForSequenceClassification"])
    with pytest.raises(InputError, match="a model of one class, as for regression or ranking"):
        loading.load_classifier(folder)


def head_of(folder: Path, *labels: str) -> Tensor:
    return loading.load_encoder(folder, labels).classifier.weight.detach()


def test_a_class_head_is_matched_by_name(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows of a, b, c in another order are the same classifier; names that are others bring a new head, and a word."""
    saved = loading.load_encoder(base, ["b", "c", "a"])
    saved.save_pretrained(tmp_path)
    loading.load_tokenizer(base).save_pretrained(tmp_path)
    assert torch.equal(head_of(tmp_path, "a", "b", "c"), saved.classifier.weight[[2, 0, 1]])
    assert "classification head" not in caplog.text
    config = tmp_path / "config.json"
    numbered = json.loads(config.read_text()) | {
        "id2label": {"2": "a", "0": "b", "1": "c"}
    }  # the same, written otherwise
    config.write_text(json.dumps(numbered))
    assert torch.equal(head_of(tmp_path, "a", "b", "c"), saved.classifier.weight[[2, 0, 1]])
    other = head_of(tmp_path, "x", "y", "z")
    assert "its classes are b, c, a, not the data's, so its classification head is new" in caplog.text
    assert not torch.isin(other, saved.classifier.weight).any()


def test_a_base_without_a_head_says_nothing(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    head_of(base, "a", "b")
    assert "classification head" not in caplog.text


def test_a_base_of_pairs_is_no_model_of_pairs(base: Path, tmp_path: Path) -> None:
    folder = edited(base, tmp_path / "base", text_pairs=True)
    assert loading.load_encoder(folder, ["a", "b"]).config.text_pairs is None


def test_a_tokenizer_that_keeps_the_end_of_texts_reads_their_beginning_here(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = edited(base, tmp_path / "b", "tokenizer_config.json", truncation_side="left", padding_side="left")
    tokenizer = loading.load_tokenizer(folder, 4)
    assert tokenizer("good bad the a", truncation=True)["input_ids"][1:3] == [WORDS.index("good"), WORDS.index("bad")]
    assert "its tokenizer keeps the end of long texts" in caplog.text
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (saved.truncation_side, saved.padding_side) == ("right", "right")


def test_a_model_that_reads_padding_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(self: Any, attention_mask: Any = None, **inputs: Any) -> Any:
        return forward(self, **inputs)

    kind = type(loading.load_encoder(base, ["a", "b"]))
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", blind)
    for length in (4, 16):
        with pytest.raises(
            InputError, match=r"a bert cannot be used \(its answer to a text depends on the longer text"
        ):
            check(base, max_length=length)


def test_a_cut_whose_layers_compute_otherwise_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(*arguments: Any) -> Any:
        student = cut_student(*arguments)
        with torch.no_grad():
            student.bert.encoder.layer[1].output.dense.bias[0] += 0.1
        return student

    monkeypatch.setattr(model_checks, "cut_student", shifted)
    with pytest.raises(InputError, match=r"cut from a bert \(layer 4 as a student's layer 2 answers otherwise"):
        check(base)


def test_pairs_are_read_by_models_that_can(checkpoint: Checkpoint) -> None:
    """A table for one kind of token cannot tell the second text of a pair."""
    folder = checkpoint(type_vocab_size=1)
    check(folder)
    with pytest.raises(InputError, match="cannot be used"):
        check(folder, pairs=True)


def test_layers_to_start_from_and_layers_to_imitate_are_two_settings(base: Path) -> None:
    check(base, start_layers="1,2", layer_map="2,4")
    with pytest.raises(InputError, match="start_layers = '1,9': expected 2 numbers from 1 to 4"):
        check(base, start_layers="1,9")
    with pytest.raises(InputError, match="only for student layers=N"):
        check(base, student=str(base), start_layers="1,2")

"""Exported students: the same answers by ONNX Runtime, without torch, refused where they would disappoint."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertForSequenceClassification

from conftest import WORDS, as_row, save_checkpoint, toy_examples, write_rows
from metakd import Classifier, InputError, Settings, export
from metakd.artifacts import read_manifest, read_run
from metakd.encoders import load_encoder
from metakd.examples import Example
from metakd.export import Exported, Measured, write_onnx
from metakd.onnx_model import OnnxModel
from metakd.runs import Run
from metakd.torch_model import TorchModel
from metakd.vocabulary import cut_embeddings, cut_tokenizer, needed_pieces

Command = Callable[..., Any]


def open_finished(folder: Path) -> Run:
    described = read_run(folder)
    return Run.assemble(folder, Settings.build(described["settings"]), described["data"])


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both students in float32, with their vocabularies cut; a tiny model may well be slower by chance."""
    output = tmp_path_factory.mktemp("exported") / "toy"
    export.export(open_finished(finished_run), output, int8=False, cut=True, force=True)
    return output


def test_exported_students_say_what_they_said_in_pytorch(exported: Path, finished_run: Path) -> None:
    texts = [e.text for e in toy_examples(40, 7, "n")] + ["", "!", "a quite unknown word", "page " * 100]
    for domain in ("books", "kitchen"):
        before = Classifier.load(finished_run / "students" / domain).predict(texts)
        after = Classifier.load(exported / domain).predict(texts)
        assert [p.label for p in after] == [p.label for p in before]
        assert [p.probability for p in after] == pytest.approx([p.probability for p in before], abs=1e-4)
    manifest = read_manifest(exported)
    assert manifest is not None
    assert [own["domain"] for own in manifest["students"]] == ["books", "kitchen"]
    assert manifest["students"][0]["after"]["accuracy"] == manifest["students"][0]["before"]["accuracy"]


def test_batch_and_length_are_free(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "books" / "model.onnx")
    for shape in ((1, 3), (5, 16)):
        given = {entry.name: np.ones(shape, np.int64) for entry in session.get_inputs()}
        assert session.run(None, given)[0].shape == (shape[0], 2)


def test_it_is_used_without_torch(exported: Path, tmp_path: Path) -> None:
    """With torch, transformers and the rest of the training libraries made unimportable, as in a light install."""
    texts = write_rows(tmp_path / "new.jsonl", [{"text": e.text} for e in toy_examples(5, 3, "n")])
    code = f"""
import sys
for name in ("torch", "transformers", "accelerate", "datasets", "sklearn", "scipy", "safetensors", "onnx", "filelock"):
    sys.modules[name] = None
from metakd import Classifier
print(Classifier.load({str(exported / "books")!r}).predict(["a lovely page"])[0].label)
from metakd import cli
sys.argv = ["metakd", "predict", {str(exported / "books")!r}, "--input", {str(texts)!r}, "--output", "out.jsonl"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "5 predictions" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [set(line) for line in lines] == [{"id", "label", "probability"}] * 5


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra", "albert", "mpnet"])
def test_other_encoders_are_exported_too(checkpoint: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    folder = tmp_path / kind
    encoder = load_encoder(checkpoint(kind), ["a", "b", "c"])
    encoder.save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint(kind)).save_pretrained(folder)
    model = TorchModel.load(folder)
    write_onnx(model, tmp_path / kind / "model.onnx")
    description = {"labels": model.labels, "max_length": 16, "pad_token_id": model.tokenizer.pad_token_id}
    (folder / "model.json").write_text(json.dumps(description))
    model.tokenizer.model_max_length = 16
    examples = toy_examples(20, 1, "t")
    np.testing.assert_allclose(OnnxModel.load(folder).probabilities(examples), model.probabilities(examples), atol=1e-5)


class Undecided(BertForSequenceClassification):
    """Takes a way that hangs on its input, which no graph can hold."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        if input_ids.sum() > 30:
            input_ids = input_ids.flip(0)
        return super().forward(input_ids, attention_mask)


def test_an_encoder_that_onnx_cannot_hold_is_refused_by_name(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = checkpoint()
    model = TorchModel(Undecided.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    with pytest.raises(InputError, match="a model of type 'bert' cannot be exported"):
        write_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_pairs_are_read_as_pairs(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    load_encoder(checkpoint(), ["a", "b"]).save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint()).save_pretrained(folder)
    model = TorchModel.load(folder)
    write_onnx(model, folder / "model.onnx")
    description = {"labels": model.labels, "max_length": 16, "pad_token_id": 0}
    (folder / "model.json").write_text(json.dumps(description))
    model.tokenizer.model_max_length = 16
    pairs = [Example(str(i), e.text, "good " * i + "bad", "", "") for i, e in enumerate(toy_examples(8, 1, "t"))]
    np.testing.assert_allclose(OnnxModel.load(folder).probabilities(pairs), model.probabilities(pairs), atol=1e-5)


def test_what_loses_too_much_or_is_slower_is_not_shipped_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Accuracy falls by 2 and by 0 points: 1 on average; the second takes 3 ms instead of 2."""
    found = [
        Exported("books", 100, Measured(0.90, 10, 2.0), Measured(0.88, 5, 1.0)),
        Exported("kitchen", 100, Measured(0.90, 10, 2.0), Measured(0.90, 5, 3.0)),
    ]
    with pytest.raises(InputError) as refused:
        export.hold(found, max_drop=0.005, force=False)
    assert "falls by 1.00 points on average (books 2.0, kitchen 0.0); --max-drop allows 0.50" in str(refused.value)
    assert "kitchen: 3.00 ms a text, 2.00 in PyTorch" in str(refused.value)
    export.hold(found, max_drop=0.005, force=True)
    assert "falls by 1.00 points" in caplog.text
    export.hold(found[:1], max_drop=0.021, force=False)


def test_int8_is_refused_whole_or_written_whole(finished_run: Path, metakd: Command, tmp_path: Path) -> None:
    code, out, err = metakd("export", finished_run, "--output", tmp_path / "small", "--int8", "--force")
    assert code == 0, err
    assert "ONNX in int8 beside PyTorch" in out
    (one, _) = Classifier.load(tmp_path / "small" / "books").predict(["a lovely page", "a dull page"])
    assert one.label == "positive"
    code, _, err = metakd("export", finished_run, "--output", tmp_path / "small")
    assert code == 2
    assert "is there already" in err
    code, _, err = metakd("export", tmp_path, "--output", tmp_path / "none")
    assert code == 2
    assert "no run here" in err
    assert not (tmp_path / "none").exists()


def test_a_torn_export_is_refused(exported: Path, metakd: Command, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.mkdir()
    for name in ("model.json", "tokenizer.json"):
        (torn / name).write_bytes((exported / "books" / name).read_bytes())
    (torn / "model.onnx").write_bytes((exported / "books" / "model.onnx").read_bytes()[:200])
    source = write_rows(tmp_path / "new.jsonl", [{"text": "a page"}])
    code, _, err = metakd("predict", torn, "--input", source, "--output", tmp_path / "out.jsonl")
    assert code == 2
    assert "not a model that `metakd export` wrote" in err
    assert not (tmp_path / "out.jsonl").exists()


# --- Vocabulary


def vocabulary(folder: Path) -> tuple[Any, Any, list[int]]:
    """A tokenizer of whole words, pieces and letters; the same without the words that nobody needs."""
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = [*WORDS, *letters, *(f"##{letter}" for letter in letters), "rare", "rarely", "##ly", "common"]
    save_checkpoint(folder, words=list(dict.fromkeys(words)))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    own = [as_example("page rare"), as_example("lovely")]
    others = [as_example("common common common common common rarely")]
    return tokenizer, own, needed_pieces(tokenizer, own, others)


def as_example(text: str) -> Example:
    return Example("", text, None, "", "")


@pytest.fixture
def small_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metakd.vocabulary.FIRST", 0)


@pytest.mark.usefixtures("small_head")
def test_pieces_stay_that_are_used_or_common_or_letters(tmp_path: Path) -> None:
    tokenizer, _, kept = vocabulary(tmp_path)
    left = set(tokenizer.convert_ids_to_tokens(kept))
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "page", "rare", "common", "a", "##z"} <= left
    assert not {"rarely", "##ly", "blade"} & left
    cut = cut_tokenizer(tokenizer, kept)
    assert cut.tokenize("rare page rarely") == ["rare", "page", "rare", "##l", "##y"]
    assert cut.convert_ids_to_tokens(range(len(cut))) == list(tokenizer.convert_ids_to_tokens(kept))


@pytest.mark.usefixtures("small_head")
def test_embeddings_go_with_their_pieces_and_texts_of_known_pieces_get_the_same_answer(tmp_path: Path) -> None:
    tokenizer, own, kept = vocabulary(tmp_path / "base")
    network = load_encoder(tmp_path / "base", ["a", "b"])
    model = TorchModel(network, tokenizer)
    tokenizer.model_max_length = 16
    before = model.probabilities(own)
    cut = cut_tokenizer(tokenizer, kept)
    cut_embeddings(network, kept, cut.pad_token_id)
    np.testing.assert_allclose(TorchModel(network, cut).probabilities(own), before, atol=1e-6)
    assert network.get_input_embeddings().num_embeddings == len(kept) == network.config.vocab_size


def test_three_readers_agree_on_any_text(exported: Path) -> None:
    ours = OnnxModel.load(exported / "books").tokenizer
    raw = Tokenizer.from_file(str(exported / "books" / "tokenizer.json"))
    library = AutoTokenizer.from_pretrained(exported / "books")

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
    def agree(text: str) -> None:
        expected = raw.encode(text).ids
        assert library(text)["input_ids"] == expected
        assert ours.encode(text).ids == expected[:15] + expected[-1:] if len(expected) > 16 else expected

    agree()


def test_only_wordpiece_is_cut(checkpoint: Callable[..., Path]) -> None:
    from tokenizers import models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(InputError, match="a BPE tokenizer cannot be cut"):
        needed_pieces(tokenizer, [], [])


# --- Files of any size


def test_faults_late_in_a_file_leave_no_output(
    finished_run: Path, metakd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metakd.inference.CHUNK", 4)
    rows: list[dict[str, Any]] = [as_row(e) | {"label": None} for e in toy_examples(10, 0, "t")]
    good, target = write_rows(tmp_path / "good.jsonl", rows), tmp_path / "out.jsonl"
    student = finished_run / "students" / "books"
    code, _, err = metakd("predict", student, "--input", good, "--output", target)
    assert code == 0, err
    assert [json.loads(line)["id"] for line in target.read_text().splitlines()] == [row["id"] for row in rows]
    bad = write_rows(tmp_path / "bad.jsonl", [*rows, rows[0], {"text": ""}])
    target.unlink()
    code, _, err = metakd("predict", student, "--input", bad, "--output", target)
    assert code == 2
    assert "row 12, text: is empty" in err
    assert "id 't-0' stands on 2 rows" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "good.jsonl"]

"""Exported models in other libraries: the same labels and probabilities from the files alone.

transformers.js runs if its packages are installed: `make clients`; Optimum in an environment of its own:
`make test-extras`.
"""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer

from conftest import Checkpoint, read_json, reopen, toy_examples
from metakd import Classifier
from metakd.data.schema import Example
from metakd.data.tokenization import Array
from metakd.data.windows import Reading
from metakd.export.onnx_format import write_model
from metakd.export.standard_files import OPTIONS
from metakd.inference.layout import QUANTIZED, WHOLE
from metakd.inference.torch_backend import TorchModel
from metakd.models.loading import load_encoder, load_tokenizer, set_problem
from other_clients import by_onnxruntime, by_optimum, by_transformers_js

pytestmark = pytest.mark.xdist_group("clients")  # in one process, as fixtures take long

TEXTS = [e.text for e in toy_examples(20, 7, "n")] + ["", "!", "a quite unknown word", "page " * 100]


@pytest.fixture(
    scope="module", params=product((False, True), repeat=2), ids=lambda form: f"int8={form[0]},compact={form[1]}"
)
def exported(request: pytest.FixtureRequest, finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output, (int8, compact) = tmp_path_factory.mktemp("exported") / "books", request.param
    student, data = TorchModel.load(finished_run / "students" / "books", "cpu"), reopen(finished_run).data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metakd.export.onnx_format.ROWS", 10)  # of 27
        write_model(student, output, data.splits["dev"], int8=int8, domain_examples=data.train if compact else None)
    return output


def expected(folder: Path) -> Array:
    """By metakd, one text at a time, as int8 scales numbers by batch; the first window alone."""
    classifier = Classifier.from_pretrained(folder, long_texts="first")
    return np.concatenate([classifier.predict_proba([text]) for text in TEXTS])


def test_the_files_are_where_other_libraries_look_for_them(exported: Path) -> None:
    config, int8 = read_json(exported / "config.json"), (exported / QUANTIZED).is_file()
    assert (exported / WHOLE).is_file() != int8
    assert config["problem_type"] == "single_label_classification"
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["transformers.js_config"] == {"dtype": "q8" if int8 else "fp32"}
    assert "/" not in json.dumps(config)  # no path of the machine
    tokenizer = read_json(exported / "tokenizer_config.json")
    assert tokenizer["model_max_length"] == read_json(exported / "model.json")["max_length"]
    assert {*tokenizer} <= {
        *("tokenizer_class", "model_max_length", "padding_side", "truncation_side", *OPTIONS),
        *read_json(exported / "special_tokens_map.json"),
    }


def test_onnx_runtime_and_tokenizers_are_enough(exported: Path) -> None:
    np.testing.assert_allclose(by_onnxruntime(exported, TEXTS), expected(exported), atol=1e-4)


def test_optimum_gives_the_same_probabilities(exported: Path) -> None:
    np.testing.assert_allclose(by_optimum(exported, TEXTS), expected(exported), atol=1e-4)


def test_transformers_reads_configuration_and_tokenizer(exported: Path) -> None:
    config, tokenizer = AutoConfig.from_pretrained(exported), AutoTokenizer.from_pretrained(exported)
    assert [config.id2label[i] for i in range(2)] == Classifier.from_pretrained(exported).labels
    plain = Tokenizer.from_file(str(exported / "tokenizer.json"))
    plain.enable_truncation(tokenizer.model_max_length)
    assert [tokenizer(text, truncation=True)["input_ids"] for text in TEXTS] == [plain.encode(t).ids for t in TEXTS]


def test_transformers_js_gives_the_same_probabilities(exported: Path) -> None:
    """A plain pipeline for texts of one window, and the page's reader for all."""
    p = by_transformers_js(exported, "pipeline", TEXTS[:-1])
    np.testing.assert_allclose(p, expected(exported)[:-1], atol=1e-4)
    classifier = Classifier.from_pretrained(exported)
    whole = np.concatenate([classifier.predict_proba([text]) for text in TEXTS])
    np.testing.assert_allclose(by_transformers_js(exported, "windows", TEXTS), whole, atol=1e-4)


@pytest.mark.parametrize("client", ["onnxruntime", "optimum", "pipeline", "windows"])
def test_several_labels_have_probabilities_by_themselves(client: str, several: Path) -> None:
    """They need not sum to 1, in any client; long texts are read by windows in the page's reader alone."""
    texts = TEXTS if client == "windows" else TEXTS[:-1]
    p = Classifier.from_pretrained(several).predict_proba(texts)
    assert np.abs(p.sum(1) - 1).min() > 0.01
    if client in ("pipeline", "windows"):
        answers = by_transformers_js(several, client, texts)
    else:
        answers = (by_onnxruntime if client == "onnxruntime" else by_optimum)(several, texts)
    np.testing.assert_allclose(answers, p, atol=1e-4)


def test_labels_are_given_above_their_thresholds(several: Path) -> None:
    """Each in the widest gap between its probabilities, so that all are given, and none to all texts."""
    classifier = Classifier.from_pretrained(several)
    expected = classifier.predict_proba(TEXTS) > [*classifier.thresholds.values()]
    assert expected.any(0).all()
    assert not expected.all(0).any()
    np.testing.assert_array_equal(by_transformers_js(several, "labels", TEXTS), expected)


@pytest.fixture(scope="module")
def several(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a model of three labels, of which a text may have several."""
    network = load_encoder(base, ["bad", "good", "long"])
    set_problem(network, several=True)
    output = tmp_path_factory.mktemp("several") / "model"
    reading = Reading(max_length=16, most_windows=8, stride=2)
    model = TorchModel(network, load_tokenizer(base, 16), reading)
    p = np.sort(model.answers([Example("", text, None, "", "") for text in TEXTS]).probabilities.astype(float), axis=0)
    widest = np.diff(p, axis=0).argmax(0)
    model.thresholds = (p[widest, range(3)] + p[widest + 1, range(3)]) / 2
    write_model(model, output, toy_examples(8, 0, "t"))
    return output


WINDOWS = ((3, 0, None), (8, 3, 0.9), (8, 6, None))  # the most, the stride, how sure is enough
READINGS = [Reading(max_length=16, most_windows=n, stride=s, enough=e) for n, s, e in WINDOWS]


@pytest.mark.slow
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_windows_are_cut_as_in_python(reading: Reading, base: Path, tmp_path: Path) -> None:
    """Of texts of 1 to 60 tokens."""
    model = TorchModel(load_encoder(base, ["bad", "good"]), load_tokenizer(base, 16), reading)
    write_model(model, tmp_path / "exported", toy_examples(8, 0, "t"))
    texts = ["good page bad prose " * (n // 4) + "lovely " * (n % 4) for n in range(1, 61)]
    classifier = Classifier.from_pretrained(tmp_path / "exported")
    assert classifier.reading == reading
    p = classifier.predict_proba(texts)
    np.testing.assert_allclose(by_transformers_js(tmp_path / "exported", "windows", texts), p, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra"])
def test_transformers_js_knows_other_architectures(kind: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint(kind)
    model = TorchModel(load_encoder(folder, ["bad", "good"]), load_tokenizer(folder, 16))
    write_model(model, tmp_path / "exported", toy_examples(8, 0, "t"))
    for how, texts in (("pipeline", TEXTS[:-1]), ("windows", TEXTS)):
        p = Classifier.from_pretrained(tmp_path / "exported").predict_proba(texts)
        np.testing.assert_allclose(by_transformers_js(tmp_path / "exported", how, texts), p, atol=1e-4)

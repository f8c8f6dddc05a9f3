"""What models say of texts that are longer than they read at once: in PyTorch, in ONNX Runtime, and by the command."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Encoding

from conftest import FILLERS, Command, passed, read_json, read_rows, refused, toy_examples, write_rows
from metakd import Classifier, InputError
from metakd.data.schema import Example
from metakd.data.windows import Reading
from metakd.export import onnx_format
from metakd.inference.long_texts import (
    READING_FILE,
    Answers,
    combined,
    confidences,
    load_reading,
    read_on,
    write_reading,
)
from metakd.inference.onnx_backend import OnnxModel
from metakd.inference.torch_backend import TorchModel
from metakd.models.loading import load_encoder, load_tokenizer

LENGTH = 16
WHOLE = Reading(max_length=LENGTH, most_windows=8)


def as_example(text: str, pair: str | None = None) -> Example:
    return Example("", text, pair, "", "")


def words(count: int) -> str:
    return " ".join(FILLERS[i * i % 8] if i % 5 else ("good", "dull", "page")[i % 3] for i in range(count))


@pytest.fixture
def model(base: Path) -> TorchModel:
    return TorchModel(load_encoder(base, ["a", "b", "c"]), load_tokenizer(base, LENGTH), WHOLE)


def of(model: TorchModel | OnnxModel, *texts: str, reading: Reading = WHOLE) -> Answers:
    model.read_as(reading)
    return model.answers([as_example(text) for text in texts])


def test_the_mean_of_log_probabilities_by_hand() -> None:
    """The root of 0.9 times 0.2 is 0.424, that of 0.1 times 0.8 is 0.283: together 0.707, of which 0.424 is 60 %."""
    log_p = np.log(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32))
    np.testing.assert_allclose(combined(log_p), [[0.9, 0.1], [0.6, 0.4]], atol=1e-6)


def test_independent_windows_would_multiply_their_odds() -> None:
    """9 and a quarter make 2.25, or 69 %."""
    log_p = np.log(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32))
    np.testing.assert_allclose(confidences(log_p), [0.9, 2.25 / 3.25], atol=1e-6)


class Script:
    """Gives the third text's further windows these probabilities, and remembers how many it was asked for at once."""

    def __init__(self, *probabilities: float) -> None:
        self.probabilities = [*probabilities]
        self.asked = list[int]()

    def cut(self, rows: Sequence[int]) -> list[list[Encoding]]:
        assert [*rows] == [2]
        return [[Encoding()] * len(self.probabilities)]  # type: ignore[call-arg]

    def predict(self, windows: Sequence[Encoding]) -> np.ndarray:
        before = sum(self.asked)
        self.asked.append(len(windows))
        return np.array([[p, 1 - p] for p in self.probabilities[before : before + len(windows)]], np.float32)


FIRST = np.array([[0.51, 0.49], [0.99, 0.01], [0.6, 0.4]], np.float32)
FULL = np.array([False, True, True])


@pytest.mark.parametrize(
    ("reading", "asked", "windows"),
    [
        (Reading(max_length=8, most_windows=8, enough=0.9), [1, 1], [1, 1, 3]),
        (Reading(max_length=8, most_windows=2, enough=0.9), [1], [1, 1, 2]),
        (Reading(max_length=8, most_windows=8, enough=0.5), [], [1, 1, 1]),
    ],
    ids=["until it is sure", "as far as it may", "sure at once"],
)
def test_adaptive_reading_goes_on_while_it_is_unsure(reading: Reading, asked: list[int], windows: list[int]) -> None:
    """0.6 and 0.7 make odds of 3.5, or 78 %; with 0.9995 it is sure. The short text is unsure, the second sure."""
    script = Script(0.7, 0.9995, 0.2, 0.2)
    answers = read_on(FIRST, FULL, reading, script.cut, script.predict)
    assert script.asked == asked
    assert answers.windows_read.tolist() == windows
    np.testing.assert_array_equal(answers.probabilities[:2], FIRST[:2])


def test_of_a_mean_all_windows_are_read_at_once() -> None:
    script = Script(0.7, 0.9, 0.2)
    answers = read_on(
        FIRST[2:], FULL[2:], Reading(max_length=8, most_windows=3), lambda _: script.cut([2]), script.predict
    )
    assert script.asked == [2]
    shares = np.exp(np.log([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1]]).mean(0))
    np.testing.assert_allclose(answers.probabilities[0], shares / shares.sum(), rtol=1e-5)


def test_texts_of_one_window_keep_their_bits(model: TorchModel) -> None:
    """Beside long texts, and beside one that fills its window to the last token."""
    texts = [*(e.text for e in toy_examples(70, 0, "t")), words(LENGTH - 2), words(90)]
    before = of(model, *texts, reading=Reading(max_length=LENGTH)).probabilities
    after = of(model, *texts)
    np.testing.assert_array_equal(after.probabilities[:-1], before[:-1])
    assert (after.probabilities[-1] != before[-1]).any()
    assert after.windows_read.tolist() == [1] * 71 + [7]


def test_a_long_text_is_the_mean_of_its_windows(model: TorchModel) -> None:
    """Each of 14 words, as a text of its own; two words are too few for a third."""
    text = words(28)
    parts = [" ".join(text.split()[start : start + 14]) for start in (0, 14)]
    alone = of(model, *parts).probabilities
    expected = np.exp(np.log(alone).mean(0))
    np.testing.assert_allclose(of(model, text).probabilities[0], expected / expected.sum(), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("reading", [WHOLE, WHOLE.model_copy(update={"stride": 4, "most_windows": 900})], ids=str)
def test_exports_agree_with_pytorch_on_long_texts_and_pairs(
    model: TorchModel,
    tmp_path: Path,
    reading: Reading,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On 5,000 words, of which 8 windows or all are read; exports hold the tokens of two texts at a time."""
    monkeypatch.setattr("metakd.inference.onnx_backend.SLICE", 2)
    examples = [as_example(words(5000)), as_example(words(31)), as_example("a good page")]
    pairs = [as_example("good", words(60)), as_example(words(60), words(50)), as_example("a", "b")]
    model.read_as(reading)
    onnx_format.write_model(model, tmp_path / "float32", examples)
    onnx_format.write_model(model, tmp_path / "int8", examples, int8=True)
    whole, quantized = OnnxModel.load(tmp_path / "float32"), OnnxModel.load(tmp_path / "int8")
    assert whole.reading == reading == model.reading
    for rows in (examples, pairs):
        ours, theirs = model.answers(rows), whole.answers(rows)
        np.testing.assert_allclose(theirs.probabilities, ours.probabilities, atol=1e-5)
        np.testing.assert_array_equal(theirs.windows_read, ours.windows_read)
        close = quantized.answers(rows)
        np.testing.assert_array_equal(close.windows_read, ours.windows_read)
        np.testing.assert_allclose(close.probabilities, ours.probabilities, atol=0.1)
    assert ("longer than 8 windows of 16 tokens" in caplog.text) == (reading.most_windows == 8)


def test_the_limit_is_named_once_and_bounds_the_work(model: TorchModel, caplog: pytest.LogCaptureFixture) -> None:
    answers = of(model, *[words(100_000)] * 2, words(40))
    assert answers.windows_read.tolist() == [8, 8, 3]
    assert caplog.text.count("some texts are longer than 8 windows of 16 tokens") == 1


@pytest.fixture
def saved(model: TorchModel, tmp_path: Path) -> Path:
    """Its folder; it reads long texts until it is sure."""
    model.network.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    write_reading(tmp_path / "model", WHOLE.model_copy(update={"enough": 0.75}))
    return tmp_path / "model"


def test_a_classifier_reads_as_its_folder_or_its_caller_says(saved: Path) -> None:
    assert Classifier.from_pretrained(saved).reading.enough == 0.75
    for changes, expected in (
        ({"long_texts": "first"}, Reading(max_length=LENGTH)),
        ({"long_texts": "mean", "most_windows": 3, "stride": 2}, Reading(max_length=LENGTH, most_windows=3, stride=2)),
        ({"long_texts": "longer", "read_length": 24}, Reading(max_length=24)),
        ({"long_texts": "longer"}, Reading(max_length=40)),  # as many positions as it has
        ({"most_windows": 3}, Reading(max_length=LENGTH, most_windows=3, enough=0.75)),
        ({"stride": 2}, WHOLE.model_copy(update={"stride": 2, "enough": 0.75})),
    ):
        assert Classifier.from_pretrained(saved, **changes).reading == expected
    write_reading(saved, Reading(max_length=40))  # as of a run with --long-texts longer
    assert Classifier.from_pretrained(saved, long_texts="mean").reading == WHOLE
    assert Classifier.from_pretrained(saved, read_length=24).reading == Reading(max_length=24)
    (saved / READING_FILE).unlink()
    assert Classifier.from_pretrained(saved).reading == Reading(max_length=LENGTH)


def test_what_has_no_effect_is_refused(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_reading(saved, Reading(max_length=LENGTH))
    for changes, message in (
        ({"stride": 2, "read_length": 24}, "stride, read_length: no effect with long_texts first"),
        ({"long_texts": "mean", "read_length": 24}, "read_length: no effect with long_texts mean"),
        ({"long_texts": "longer", "most_windows": 3}, "most_windows: no effect with long_texts longer"),
        ({"long_texts": "mean", "stride": 8}, "at most 7, less than half of max_length"),
    ):
        with pytest.raises(InputError, match=message):
            Classifier.from_pretrained(saved, **changes)
    assert Classifier.from_pretrained(saved, long_texts="adaptive").reading == WHOLE
    assert "this model has no threshold, so it reads all windows" in caplog.text


def test_threads_get_the_answers_that_one_gets(model: TorchModel) -> None:
    """Short and long texts one by one, from four threads at once."""
    texts = [as_example(words(5 + 11 * (i % 7))) for i in range(80)]
    expected = [model.answers([text]).probabilities for text in texts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            answers = [*pool.map(lambda text: model.answers([text]).probabilities, texts)]
            np.testing.assert_array_equal(answers, expected)


def test_longer_texts_at_once_use_more_positions(saved: Path) -> None:
    """A model of 40 positions reads the 28 words that two windows have."""
    whole = TorchModel(load_encoder(saved, ["a", "b", "c"]), load_tokenizer(saved, 40))
    longer = Classifier.from_pretrained(saved, long_texts="longer").predict([words(28)])[0]
    assert longer.probability == pytest.approx(whole.answers([as_example(words(28))]).probabilities.max(), abs=1e-6)


@pytest.mark.parametrize("content", ["{", "[]", '{"max_length": 16, "most_windows": "8"}', '{"max_length": 0}'])
def test_a_damaged_reading_is_refused(saved: Path, content: str) -> None:
    (saved / READING_FILE).write_text(content)
    with pytest.raises(InputError, match=r"reading.json is damaged; delete it, and score its run again"):
        load_reading(saved)


def test_predict_reads_as_it_is_asked_to(saved: Path, metakd: Command, tmp_path: Path) -> None:
    source, texts = tmp_path / "texts.jsonl", [words(60), "a good page"]
    write_rows(source, [{"text": text} for text in texts])
    for way in ("first", "mean", "adaptive"):
        output = tmp_path / f"{way}.jsonl"
        passed(metakd("predict", saved, "--input", source, "--output", output, "--long-texts", way))
        expected = Classifier.from_pretrained(saved, long_texts=way).predict(texts)
        assert [row["probability"] for row in read_rows(output)] == [round(p.probability, 6) for p in expected]
    command = ("predict", saved, "--input", source, "--output", tmp_path / "o.jsonl")
    message = refused(metakd(*command, "--long-texts", "all", "--most-windows", "0"))
    assert "--long-texts = 'all'" in message
    assert "--most-windows = '0'" in message
    assert "at most 7, less than half of --max-length" in refused(metakd(*command, "--stride", "8"))
    assert "--read-length: no effect with --long-texts adaptive" in refused(metakd(*command, "--read-length", "24"))
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.slow
def test_an_export_says_how_it_reads(model: TorchModel, tmp_path: Path) -> None:
    """Older exports, which do not, read the beginning."""
    onnx_format.write_model(model, tmp_path / "exported", [as_example("a good page")])
    path = tmp_path / "exported" / "model.json"
    description = read_json(path)
    assert description["reading"] == {"max_length": 16, "most_windows": 8, "stride": 0, "enough": None}
    assert description["most_tokens"] == 40
    assert Classifier.from_pretrained(path.parent, long_texts="longer").reading == Reading(max_length=40)
    write_rows(path, [{k: v for k, v in description.items() if k not in ("reading", "most_tokens")}])
    assert (
        Classifier.from_pretrained(path.parent).reading
        == Classifier.from_pretrained(path.parent, long_texts="longer").reading
    )
    assert Classifier.from_pretrained(path.parent).reading == Reading(max_length=LENGTH)
    write_rows(path, [description | {"reading": {"max_length": 16, "stride": -1}}])
    with pytest.raises(InputError, match="not a model exported by"):
        Classifier.from_pretrained(path.parent)

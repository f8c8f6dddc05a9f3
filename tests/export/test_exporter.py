"""Exported students: the same predictions by ONNX Runtime without torch, refused where they lose accuracy or speed."""

import os
import random
import shutil
import time
from collections import Counter
from dataclasses import replace
from itertools import chain, count, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers
from transformers import AutoTokenizer, BertForSequenceClassification, BertTokenizer, RobertaTokenizer

from conftest import (
    SPECIALS,
    Checkpoint,
    Command,
    passed,
    read_json,
    read_rows,
    refused,
    reopen,
    toy_examples,
    write_rows,
)
from metakd import Classifier, InputError
from metakd.config.settings import DEMO_DATA
from metakd.data.dataset import load_dataset
from metakd.data.schema import Example
from metakd.data.windows import CHARACTERS, first_tokens
from metakd.evaluation.costs import Latency, Predict, measure_latencies
from metakd.export import exporter, onnx_format
from metakd.export.exporter import Exported
from metakd.export.model_cards import Measured
from metakd.export.onnx_format import Parity
from metakd.export.standard_files import write_standard_files
from metakd.inference.layout import WHOLE
from metakd.inference.onnx_backend import BATCH, OnnxModel, read_tokenizer
from metakd.inference.torch_backend import TorchModel
from metakd.models.embeddings import ROWS, WORDS, CompactEmbedding, compact_bytes, count_tokens, part_width
from metakd.models.hub import ALL_MINILM, resolve
from metakd.models.loading import load_encoder, load_tokenizer

pytestmark = pytest.mark.xdist_group("exporter")  # in one process, as fixtures take long


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both students in float32, with compact tables; a tiny model may well be slower by chance."""
    output = tmp_path_factory.mktemp("exported") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metakd.export.onnx_format.ROWS", 10)  # of 27; there are as many words as there are other tokens
        exporter.export(reopen(finished_run), output, int8=False, compact=True, force=True)
    return output


def test_exported_students_predict_the_same(exported: Path, finished_run: Path) -> None:
    texts = [e.text for e in toy_examples(40, 7, "n")] + ["", "!", "a quite unknown word", "page " * 100]
    for domain in ("books", "kitchen"):
        before = Classifier.from_pretrained(finished_run / "students" / domain).predict(texts)
        after = Classifier.from_pretrained(exported / domain).predict(texts)
        assert [p.label for p in after] == [p.label for p in before]
        assert [p.probability for p in after] == pytest.approx([p.probability for p in before], abs=1e-4)
    students = read_json(exported / "manifest.json")["students"]
    assert [student["domain"] for student in students] == ["books", "kitchen"]
    assert students[0]["after"]["accuracy"] == students[0]["before"]["accuracy"]
    parity, card = students[0]["parity"], (exported / "books" / "README.md").read_text()
    assert parity["same_label"] == parity["texts"] == students[0]["examples"]
    assert parity["difference"] < 1e-4
    assert f"of {parity['texts']} real texts, this file gives {parity['same_label']} the label" in card
    for before, after in (student["elsewhere"] for student in students):  # on the other domain's text
        assert 0 <= after <= 1
        assert before > 0.5


def test_batch_and_length_are_free(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "books" / WHOLE)
    for shape in ((1, 3), (5, 16)):
        inputs = {entry.name: np.ones(shape, np.int64) for entry in session.get_inputs()}
        assert session.run(None, inputs)[0].shape == (shape[0], 2)


TEXTS = toy_examples(20, 1, "t")
PAIRS = [Example(e.id, e.text, "good " * i + "bad", "", "") for i, e in enumerate(TEXTS[:8])]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "electra", "albert", "mpnet"])
def test_encoders_are_exported_for_texts_and_pairs(checkpoint: Checkpoint, tmp_path: Path, kind: str) -> None:
    model = TorchModel(load_encoder(checkpoint(kind), ["a", "b", "c"]), load_tokenizer(checkpoint(kind), 16))
    onnx_format.write_model(model, tmp_path / kind, TEXTS)
    after = OnnxModel.load(tmp_path / kind)
    for examples in (TEXTS, *([PAIRS] if kind == "bert" else [])):
        np.testing.assert_allclose(
            after.answers(examples).probabilities, model.answers(examples).probabilities, atol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize(("pairs", "other"), [(True, TEXTS), (False, PAIRS)])
def test_a_model_of_pairs_reads_no_single_texts_nor_the_other_way_round(
    base: Path, tmp_path: Path, pairs: bool, other: list[Example]
) -> None:
    """In PyTorch, saved or not, and as exported; an unknown kind, as of a model from elsewhere, reads both."""
    network = load_encoder(base, ["a", "b", "c"])
    model = TorchModel(network, load_tokenizer(base, 16))
    assert len(model.answers(TEXTS).probabilities) + len(model.answers(PAIRS).probabilities) == len(TEXTS) + len(PAIRS)
    network.config.text_pairs = pairs
    network.save_pretrained(tmp_path / "saved")
    model.tokenizer.save_pretrained(tmp_path / "saved")
    onnx_format.write_model(model, tmp_path / "exported", PAIRS if pairs else TEXTS)
    for classifier in (
        Classifier(model),
        *(Classifier.from_pretrained(tmp_path / name) for name in ("saved", "exported")),
    ):
        with pytest.raises(InputError, match=f"this model reads {'pairs of' if pairs else 'single'} texts, but"):
            classifier.predict_examples(other)
    description = tmp_path / "exported" / "model.json"
    description.write_text(description.read_text().replace(f'"pairs": {str(pairs).lower()}', '"pairs": "false"'))
    with pytest.raises(InputError, match="pairs: expected true, false or null"):
        Classifier.from_pretrained(tmp_path / "exported")


def test_an_architecture_is_all_that_a_graph_depends_on(base: Path) -> None:
    """The names of labels are not of it; an activation, a constant of a norm and the inputs are."""

    def kind(labels: list[str], inputs: int = 3, **settings: Any) -> str:
        network = BertForSequenceClassification.from_pretrained(base, num_labels=len(labels), **settings)
        network.config.id2label = dict(enumerate(labels))
        tokenizer = load_tokenizer(base, 16)
        tokenizer.model_input_names = tokenizer.model_input_names[:inputs]
        return onnx_format._architecture(TorchModel(network, tokenizer))

    assert kind(["good", "bad"]) == kind(["yes", "no"])
    others = [{"hidden_act": "relu"}, {"layer_norm_eps": 1e-3}, {"inputs": 2}]
    kinds = {kind(["good", "bad"]), kind(["a", "b", "c"]), *(kind(["good", "bad"], **other) for other in others)}
    assert len(kinds) == 5


@pytest.mark.slow
def test_students_share_one_graph(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is not traced, and its file is bit for bit the one that it has by itself."""
    traced, trace = [], onnx_format._trace
    monkeypatch.setattr(onnx_format, "_trace", lambda model: traced.append(model) or trace(model))

    def write(domain: str, path: Path) -> bytes:
        onnx_format.write_onnx(TorchModel.load(finished_run / "students" / domain, "cpu"), path)
        return path.read_bytes()

    monkeypatch.setattr(onnx_format, "_GRAPHS", {})
    files = [write(domain, tmp_path / domain) for domain in ("books", "kitchen")]
    assert len(traced) == 1
    assert files[0] != files[1]
    monkeypatch.setattr(onnx_format, "_GRAPHS", {})
    assert write("kitchen", tmp_path / "alone") == files[1]
    assert len(traced) == 2


class Undecided(BertForSequenceClassification):
    """Has a branch that depends on its input, which no graph can hold."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        if input_ids.sum() > 30:
            input_ids = input_ids.flip(0)
        return super().forward(input_ids, attention_mask)


def test_an_encoder_that_onnx_cannot_hold_is_refused_by_name(base: Path, tmp_path: Path) -> None:
    folder = base
    model = TorchModel(Undecided.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    with pytest.raises(InputError, match="a model of type 'bert' cannot be exported"):
        onnx_format.write_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_what_loses_too_much_or_is_slower_is_refused_with_the_reasons(caplog: pytest.LogCaptureFixture) -> None:
    """Accuracy falls by 2 and by 0 points: 1 on average; each text takes 3 ms instead of 2."""
    students = [
        Exported("books", 100, Measured(0.90, 10, 2.0), Measured(0.88, 5, 3.0)),
        Exported("kitchen", 100, Measured(0.90, 10, 2.0), Measured(0.90, 5, 3.0)),
    ]
    fast, slow = (Latency(np.full(100, milliseconds), False) for milliseconds in (2.0, 3.0))
    with pytest.raises(InputError) as caught:
        exporter.refuse_losses(students, fast, slow, max_drop=0.005, force=False)
    assert "by 1.00 percentage points on average (books 2.0, kitchen 0.0); max_drop allows 0.50" in str(caught.value)
    assert "3.00 ms per text, but 2.00 in PyTorch: 1.50 to 1.50 times as slow" in str(caught.value)
    exporter.refuse_losses(students, fast, slow, max_drop=0.005, force=True)
    assert "falls by 1.00 percentage points" in caplog.text
    exporter.refuse_losses(students[:1], slow, fast, max_drop=0.021, force=False)
    other = [e._replace(parity=Parity(20, count, 0.5)) for e, count in zip(students[1:] * 2, (15, 16), strict=True)]
    with pytest.raises(InputError) as caught:
        exporter.refuse_losses(other, slow, fast, max_drop=0.005, force=False)
    assert str(caught.value).count("texts get the label that they have in PyTorch") == 1
    assert "kitchen: only 15 of 20 texts" in str(caught.value)


def test_a_model_is_not_slower_than_itself_but_than_itself_asleep(finished_run: Path) -> None:
    """The same student twice, in turns; then one of the two sleeps for as long as it works.

    Where other processes used the cores, neither is refused.
    """
    run, student = (
        reopen(finished_run),
        Classifier.from_pretrained(finished_run / "students" / "books").predict_examples,
    )
    exported = [Exported("books", 12, Measured(0.9, 10, 2.0), Measured(0.9, 10, 2.0))]

    def asleep(examples: list[Example]) -> Any:
        start = time.perf_counter()
        answers = student(examples)
        time.sleep(time.perf_counter() - start)
        return answers

    def timed(after: Predict) -> dict[str, Latency]:
        return measure_latencies({"before": student, "after": after}, run.data.splits["test"], 0)

    def refuse(latencies: dict[str, Latency], *, busy: bool) -> None:
        before, after = (replace(latencies[name], busy=busy) for name in ("before", "after"))
        exporter.refuse_losses(exported, before, after, max_drop=0.0, force=False)

    for _ in range(3):
        same = timed(student)
        refuse(same, busy=same["after"].busy)
    slow = timed(asleep)
    with pytest.raises(InputError, match=r"ms per text, but .* in PyTorch: .* times as slow"):
        refuse(slow, busy=False)
    refuse(slow, busy=True)


def test_one_student_is_timed_for_all(exported: Path) -> None:
    students = read_json(exported / "manifest.json")["students"]
    assert len({(student["before"]["milliseconds"], student["after"]["milliseconds"]) for student in students}) == 1
    assert students[0]["after"]["milliseconds"] > 0


@pytest.mark.slow
def test_a_dagger_warns_of_times_that_are_too_long(
    finished_run: Path, metakd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where preemptions are many while latency is measured."""
    calls = count()
    monkeypatch.setattr("metakd.evaluation.costs._preemptions", lambda: 1000 * next(calls))
    out, _ = passed(metakd("export", finished_run, "--output", tmp_path / "busy", "--force"))
    assert out.count("†") == 2 * 2 + 1  # before and after, of two students; and the note
    assert "Too high: other processes used the cores" in " ".join(out.split())


@pytest.mark.slow
def test_int8_is_refused_whole_or_written_whole(finished_run: Path, metakd: Command, tmp_path: Path) -> None:
    out, _ = passed(metakd("export", finished_run, "--output", tmp_path / "small", "--int8", "--force"))
    assert "ONNX in int8 beside PyTorch" in out
    (one, _) = Classifier.from_pretrained(tmp_path / "small" / "books").predict(["a lovely page", "a dull page"])
    assert one.label == "positive"
    for run, output, message in ((finished_run, "small", "already exists"), (tmp_path, "none", "no run here")):
        assert message in refused(metakd("export", run, "--output", tmp_path / output))
    assert not (tmp_path / "none").exists()


def test_a_torn_export_is_refused(exported: Path, metakd: Command, tmp_path: Path) -> None:
    torn = Path(shutil.copytree(exported / "books", tmp_path / "torn"))
    os.truncate(torn / WHOLE, 200)
    source = write_rows(tmp_path / "new.jsonl", [{"text": "a page"}])
    message = refused(metakd("predict", torn, "--input", source, "--output", tmp_path / "out.jsonl"))
    assert "differs from its manifest.json: onnx/model.onnx; copy or create it again" in message
    (torn / "manifest.json").unlink()
    message = refused(metakd("predict", torn, "--input", source, "--output", tmp_path / "out.jsonl"))
    assert "not a model exported by `metakd export`" in message
    assert not (tmp_path / "out.jsonl").exists()


# --- Compact tables


def as_example(text: str) -> Example:
    return Example("", text, None, "", "")


def test_special_tokens_count_more_than_any_other(base: Path) -> None:
    """'the' three times, 'pan' once: the special ones four times."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    counts = count_tokens(tokenizer, [as_example("the the pan"), as_example("the")])
    names = {tokenizer.convert_ids_to_tokens(id_): count for id_, count in counts.items()}
    assert names == {"the": 3, "pan": 1} | dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], 4)


def test_frequent_tokens_keep_their_rows_and_others_share_the_mean() -> None:
    """Tokens 0 and 3 are most frequent. One word for the others, of equal counts: (2, 2) and (4, 6) become (3, 4).

    Also in texts where all tokens, or none, have rows.
    """
    table = torch.tensor([[1.0, 0.0], [2.0, 2.0], [4.0, 6.0], [0.0, 9.0]])
    compact = CompactEmbedding(table, Counter({0: 5, 3: 4}), rows=2, words=1)
    expected = torch.tensor([[[1.0, 0.0], [3.0, 4.0]], [[3.0, 4.0], [0.0, 9.0]]])
    torch.testing.assert_close(compact(torch.tensor([[0, 1], [2, 3]])), expected)
    torch.testing.assert_close(compact(torch.tensor([[3, 0]])), table[None, [3, 0]])
    torch.testing.assert_close(compact(torch.tensor([[1], [2]])), torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]]]))


def test_as_many_words_as_tokens_lose_nothing() -> None:
    table = torch.randn(40, 12)
    torch.testing.assert_close(CompactEmbedding(table, Counter({5: 2}), rows=7)(torch.arange(40)[None])[0], table)


def test_more_words_are_nearer_and_frequent_tokens_are_nearest() -> None:
    """And it is the same table each time."""
    table, counts = torch.randn(500, 12), Counter(dict.fromkeys(range(100, 200), 400))

    def error(words: int) -> torch.Tensor:
        return (CompactEmbedding(table, counts, rows=50, words=words)(torch.arange(500)[None])[0] - table).norm(dim=1)

    few, many = error(8), error(64)
    assert many.mean() < few.mean() < table.norm(dim=1).mean()
    assert few[150:200].mean() < few[200:].mean()
    assert torch.equal(error(8), few)


@pytest.mark.parametrize(("tokens", "width"), [(ROWS + 400, 12), (ROWS + 9, 12), (2**15, 1), (2**15 + 1, 1)])
def test_the_bytes_of_a_compact_table_are_known_before_it_is_made(tokens: int, width: int) -> None:
    table = torch.randn(tokens, width)
    compact = CompactEmbedding(table, Counter())
    tensors = (compact.rows, compact.places, compact.codes, compact.parts)
    assert compact_bytes(tokens, width, 4) == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert compact.codes.max() == min(WORDS, tokens - ROWS) - 1
    assert torch.equal(compact(torch.tensor([[0]]))[0, 0], table[0])  # it has a row
    assert [part_width(width) for width in (384, 768, 16, 7)] == [6, 6, 4, 1]


# --- Tokens


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_options_of_a_tokenizers_class_are_kept(kind: str, base: Path, tmp_path: Path) -> None:
    """By which transformers builds it again, whatever tokenizer.json says."""
    vocabulary = {word: i for i, word in enumerate([*SPECIALS, "<s>", "</s>", "<unk>", "<pad>", "<mask>"])}
    words = ("sch\u00f6n", "schon") if kind == "bert" else ("a", "\u0120", "\u0120a")
    vocabulary |= {word: len(vocabulary) + i for i, word in enumerate(words)}
    if kind == "bert":
        tokenizer: Any = BertTokenizer(vocab=vocabulary, strip_accents=False)
    else:
        tokenizer = RobertaTokenizer(vocab=vocabulary, merges=[("\u0120", "a")], add_prefix_space=True)
    shutil.copytree(base, tmp_path / "base", ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    tokenizer.save_pretrained(tmp_path / "base")
    model = TorchModel(load_encoder(base, ["a", "b"]), load_tokenizer(tmp_path / "base", 16))
    (tmp_path / "exported").mkdir()
    write_standard_files(model, tmp_path / "exported", int8=False)
    text, token = ("Sch\u00f6n", words[0]) if kind == "bert" else ("a", words[2])
    expected = [vocabulary[token]]
    assert AutoTokenizer.from_pretrained(tmp_path / "exported")(text, add_special_tokens=False)["input_ids"] == expected
    plain = Tokenizer.from_file(str(tmp_path / "exported" / "tokenizer.json"))
    assert plain.encode(text, add_special_tokens=False).ids == expected
    config = read_json(tmp_path / "exported" / "tokenizer_config.json")
    assert config["strip_accents" if kind == "bert" else "add_prefix_space"] is (kind != "bert")


def test_three_readers_agree_on_ten_thousand_texts(tmp_path: Path) -> None:
    """The real vocabulary: the demo's reviews, and as many runs of any characters as it takes."""
    tokenizer = load_tokenizer(resolve(ALL_MINILM.package), 128)
    encoder = load_encoder(resolve(ALL_MINILM.package), ["a", "b"])
    write_standard_files(TorchModel(encoder, tokenizer), tmp_path, int8=False)
    reviews = [e.text for rows in load_dataset(DEMO_DATA, 0).splits.values() for e in rows]
    draw = random.Random(0)
    alphabets = [(32, 127), (32, 0x250), (0x250, 0x3000), (0x3000, 0xD800), (0x1F300, 0x1FAFF)]
    random_texts = ("".join(chr(draw.randrange(*draw.choice(alphabets))) for _ in range(40)) for _ in iter(int, 1))
    texts = list(islice(chain(reviews, random_texts), 10_000))
    expected = tokenizer(texts, truncation=True, max_length=128)["input_ids"]
    raw = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    raw.no_padding()
    raw.enable_truncation(128)
    assert AutoTokenizer.from_pretrained(tmp_path)(texts, truncation=True, max_length=128)["input_ids"] == expected
    assert [e.ids for e in raw.encode_batch(texts)] == expected
    assert [e.ids for e in read_tokenizer(tmp_path, 128).encode_batch_fast(texts)] == expected


@pytest.mark.slow
def test_of_a_long_text_the_first_tokens_are_those_of_the_whole(tmp_path: Path) -> None:
    """Long words, spaces of every kind, accents that follow a space, and long texts of few tokens."""
    load_tokenizer(resolve(ALL_MINILM.package), 128).save_pretrained(tmp_path)
    tokenizer = read_tokenizer(tmp_path, 16)
    pieces = ["a", "unaffable", "w" * 120, "[MASK]", "[SEP]", "日本", "e\u0301", "…", "?!"]
    text = st.lists(st.sampled_from([*pieces, "\u0301", "\u3000", "\t", " "]) | st.text(max_size=4), max_size=60)

    def check(texts: list[Any]) -> None:
        assert [e.ids for e in first_tokens(tokenizer, texts, 16)] == [
            e.ids for e in tokenizer.encode_batch_fast(texts)
        ]

    settings(max_examples=200, deadline=None)(given(st.lists(text.map(" ".join), max_size=4))(check))()
    reviews = [e.text for e in load_dataset(DEMO_DATA, 0).splits["dev"]]
    joined = [" ".join(reviews[i : i + 9]) for i in range(0, 300, 9)]
    check(joined)
    check([*pairwise(joined)])


def test_where_tokens_may_depend_on_what_follows_all_is_read(base: Path) -> None:
    """Here a rule turns one word into another if a third stands at the end."""
    tokenizer = read_tokenizer(base, 16)
    tokenizer.normalizer = normalizers.Replace(Regex("good(?=.*bad$)"), "broken")
    text = f"good {'page ' * (3 * CHARACTERS * 16)}bad"
    assert first_tokens(tokenizer, [text], 16)[0].ids == tokenizer.encode(text).ids != tokenizer.encode(text[:-3]).ids


# --- Files of any size


def test_many_texts_side_by_side_are_predicted_in_order(exported: Path) -> None:
    """More batches than threads, of texts of all lengths, in float32: each text's result is the one it has alone."""
    model = OnnxModel.load(exported / "books", 3)
    examples = toy_examples(7 * BATCH + 3, 5, "n")
    alone = np.concatenate([model.answers([e]).probabilities for e in examples])
    assert "session_of_one_thread" not in vars(model)
    np.testing.assert_allclose(model.answers(examples).probabilities, alone, atol=1e-6)
    assert "session_of_one_thread" in vars(model)
    assert model.answers([]).probabilities.shape == (0, 2)


def test_what_fails_in_one_thread_is_raised(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = OnnxModel.load(exported / "books", 2)
    monkeypatch.setattr(model, "pad_id", 10_000)  # no row of any table
    with pytest.raises(Exception, match="idx=10000 must be within"):
        model.answers([*toy_examples(5 * BATCH, 5, "n"), as_example("the " * 14)])


def test_late_faults(finished_run: Path, metakd: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No output is left where a row far down the file is refused."""
    monkeypatch.setattr("metakd.inference.files.CHUNK", 4)
    rows: list[dict[str, Any]] = [{"id": e.id, "text": e.text, "label": None} for e in toy_examples(10, 0, "t")]
    good, output = write_rows(tmp_path / "good.jsonl", rows), tmp_path / "out.jsonl"
    bad = write_rows(tmp_path / "bad.jsonl", [*rows, {"text": 7}, {"text": ""}])
    command = ["predict", finished_run / "students" / "books", "--output", output, "--input"]
    passed(metakd(*command, good))
    assert [row["id"] for row in read_rows(output)] == [row["id"] for row in rows]
    output.unlink()
    message = refused(metakd(*command, bad))
    assert "row 12, text: is empty" in message
    assert "row 11, text: expected text, found 7" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "good.jsonl"]

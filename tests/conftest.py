"""Tiny random checkpoints of every proven architecture and a tiny corpus whose classes can be learnt."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's client is imported: no test uses the network
os.environ["OMP_NUM_THREADS"] = "1"  # before torch: threads of tiny models wait longer than they work

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

from metakd.data.schema import FIELDS, Example
from metakd.data.tokenization import Encoded, encode
from metakd.models.loading import load_tokenizer
from metakd.utils.console import notice

Checkpoint = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]
NewRun = Callable[..., Any]

GOOD, BAD = ["good", "fine", "lovely", "bright"], ["bad", "poor", "dull", "broken"]
TOPICS = {"books": ["plot", "page", "prose"], "kitchen": ["pan", "lid", "blade"]}
FILLERS = ["the", "a", "it", "was", "very", "and", "this", "so"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIALS, *GOOD, *BAD, *TOPICS["books"], *TOPICS["kitchen"], *FILLERS, "."]

COMMON = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
SHAPES: dict[str, dict[str, int]] = {
    "bert": COMMON,
    "roberta": COMMON,
    "electra": COMMON | {"embedding_size": 8},
    "distilbert": {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 32},
    "mpnet": COMMON,
    "data2vec-text": COMMON,
    "xlm-roberta-xl": COMMON,
    "deberta-v2": COMMON,
    "albert": COMMON | {"embedding_size": 8},
}
GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
LOCAL = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "gemma2": GROUPED | LOCAL,
    "qwen3": GROUPED,
    "gpt_neox": {},
    "bert": {},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest of those that belong to no group begin first, so that in the end no process waits for another."""
    items.sort(key=lambda item: item.path.name not in ("test_kills.py", "test_real_encoder.py"))


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same draws in every test, and notices that an earlier test has seen are printed again.

    Tiny data changes no defaults, a fifth of the texts are timed, and nothing waits for the disk to be safe.
    """
    monkeypatch.setattr("metakd.config.few_texts.FEW_TEXTS", 0)
    monkeypatch.setattr("metakd.evaluation.costs.LATENCY_TEXTS", 20)
    monkeypatch.setattr("os.fsync", lambda _: None)
    torch.manual_seed(0)
    notice.cache_clear()


def save_tokenizer(folder: Path, words: list[str] = WORDS) -> None:
    backend = Tokenizer(WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = Lowercase()
    backend.pre_tokenizer = BertPreTokenizer()
    places = [(token, words.index(token)) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", places)
    backend.enable_truncation(8)  # baked in, as in all-MiniLM-L6-v2's file; loading has to clear both
    backend.enable_padding(length=8)
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)


def save_checkpoint(folder: Path, kind: str = "bert", words: list[str] = WORDS, **shape: int) -> Path:
    torch.manual_seed(0)
    common = {"vocab_size": len(words), "type_vocab_size": 2, "pad_token_id": 0, "max_position_embeddings": 40}
    wide = {"initializer_range": 0.3}  # so that a few dozen updates learn something
    config = AutoConfig.for_model(kind, **(common | wide | SHAPES[kind] | shape))
    AutoModel.from_config(config).save_pretrained(folder)
    save_tokenizer(folder, words)
    return folder


def save_language_model(folder: Path, kind: str = "llama") -> Path:
    """A tiny causal language model."""
    torch.manual_seed(0)
    tokens = {"vocab_size": 40, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    shape = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(kind, **shape, **tokens, **LANGUAGE_MODELS[kind], initializer_range=0.3)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """checkpoint('bert', hidden_size=8) -> a folder, made once a session for each shape."""
    made: dict[str, Path] = {}

    def make(kind: str = "bert", words: list[str] = WORDS, **shape: int) -> Path:
        key = json.dumps([kind, words, shape], sort_keys=True)
        if key not in made:
            made[key] = save_checkpoint(tmp_path_factory.mktemp(kind), kind, words, **shape)
        return made[key]

    return make


@pytest.fixture(scope="session")
def base(checkpoint: Checkpoint) -> Path:
    """A BERT of four layers."""
    return checkpoint()


def toy_examples(count: int, seed: int, split: str) -> list[Example]:
    """`count` short texts, domains and labels in turn, of which one word gives the label away."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        domain, label = ("books", "kitchen")[i % 2], ("positive", "negative")[i // 2 % 2]
        words = draw.choices(FILLERS, k=draw.randint(1, 6))
        words += [draw.choice(TOPICS[domain]), draw.choice(GOOD if label == "positive" else BAD)]
        draw.shuffle(words)
        rows.append(Example(f"{split}-{i}", " ".join(words), None, label, domain))
    return rows


def encoded(folder: Path, count: int, seed: int = 0, **columns: Any) -> Encoded:
    """Toy texts in the tokens of the checkpoint in `folder`, with further columns."""
    return encode(load_tokenizer(folder, 16), toy_examples(count, seed, "t"), 16).with_columns(**columns)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_row(example: Example) -> dict[str, Any]:
    return {key: value for key, value in asdict(example).items() if key in FIELDS and value is not None}


def write_toy(folder: Path, **counts: int) -> Path:
    """The folder with so many rows of each split, of two domains and two classes."""
    for seed, (split, count) in enumerate(counts.items()):
        write_rows(folder / f"{split}.jsonl", [as_row(e) for e in toy_examples(count, seed, split)])
    return folder


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy"), train=256, dev=16, test=24)


FAST = [
    *("--allow-weak-teacher", "--teacher-epochs", "8", "--shared-epochs", "4"),
    *("--match-epochs", "2", "--predict-epochs", "4", "--stages", "two", "--windows", "0"),
    *("--batch-size", "8", "--max-length", "16", "--student", "layers=2"),
    *("--teacher-learning-rate", "5e-3", "--predict-learning-rate", "5e-3"),
    *("--match-learning-rate", "5e-3", "--shared-learning-rate", "5e-3"),
]
TINY = {"precision": "float32", "allow_weak_teacher": True, "stages": "two", "windows": 0, "student": "layers=2"}
TINY |= {"batch_size": 16, "max_length": 16, "teacher_tries": 1}
TINY |= {"teacher_epochs": 1, "shared_epochs": 1, "predict_epochs": 1}


def open_run(folder: Path, data: Path, base: Path, **settings: object) -> Any:
    """A run of a tiny base, begun, with `settings` other than TINY's."""
    from metakd import Run, Settings

    return Run.assemble(folder, Settings.build({**TINY, "base": str(base), **settings}), data).begin()


def reopen(folder: Path, **settings: object) -> Any:
    """The run in the folder, with `settings` other than its own."""
    from metakd import Run, Settings

    before = read_json(folder / "run.json")
    return Run.assemble(folder, Settings.build(before["settings"] | settings), Path(before["data"]))


def taught(run: Any) -> Any:
    """The run, with its instance weights and its meta-teacher."""
    from metakd.pipeline.teach import teach
    from metakd.pipeline.weigh import weigh

    weigh(run)
    teach(run)
    return run


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_rows(path: Path) -> list[Any]:
    return [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def toy_run(base: Path, toy_data: Path, tmp_path: Path) -> NewRun:
    """toy_run(match_epochs=2) -> a run of the toy data in tmp_path / "run", begun, otherwise with TINY's settings."""
    return lambda **settings: open_run(tmp_path / "run", toy_data, base, **settings)


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "copy"))


def write_release(folder: Path, per_label: int) -> Path:
    """.review files as the release has them: no XML, a byte that is no UTF-8, lines broken at will."""
    for name in ("books", "dvd", "electronics", "kitchen_&_housewares"):
        for label in ("positive", "negative"):
            blocks = b"".join(
                b"<review>\n<title>R & D</title>\n<review_text>\n%s\t&  \n%s\xe9 no. %d\n</review_text>\n</review>\n"
                % (name.encode(), label.encode(), i)
                for i in range(per_label)
            )
            path = folder / "sorted_data_acl" / name / f"{label}.review"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blocks)
        (path.parent / "unlabeled.review").write_bytes(b"<review_text>not for us</review_text>")
    return folder


def multinli_rows() -> list[dict[str, Any]]:
    labels = ["entailment", "neutral", "contradiction", "-"]
    genres = ["fiction", "travel"]
    return [
        {"gold_label": labels[i % 4], "genre": genres[i // 4 % 2], "sentence1": f"a {i}", "sentence2": f"b {i}"}
        | {"annotator_labels": ["neutral"], "pairID": f"{i}e"}
        for i in range(16)
    ]


@pytest.fixture
def metakd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """metakd('run', ...) -> (exit code, standard output, standard error), as the shell would have them."""

    def call(*arguments: object) -> tuple[int, str, str]:
        from metakd.cli import main

        monkeypatch.setattr("sys.argv", ["metakd", *map(str, arguments)])
        code = 0
        try:
            main.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def passed(result: tuple[int, str, str]) -> tuple[str, str]:
    """Standard output and standard error of a command that has to succeed."""
    code, out, err = result
    assert code == 0, err
    return out, err


def refused(result: tuple[int, str, str]) -> str:
    """What standard error says, not wrapped, of a command that has to be refused in words."""
    code, _, err = result
    assert (code, "Traceback" in err) == (2, False), err
    return " ".join(err.split())


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, base: Path, toy_data: Path) -> Path:
    """A whole run of a tiny BERT on the toy data, made once by the command as a user types it."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    command = [sys.executable, "-m", "metakd", "run", "--data", toy_data, "--base", base, "--output", folder]
    done = subprocess.run([*map(str, command), *FAST], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "meta_teacher" in done.stdout
    return folder

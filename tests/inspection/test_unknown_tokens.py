"""How much of a domain's text a tokenizer does not know, and who says so."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram
from tokenizers.pre_tokenizers import ByteLevel, Whitespace

from conftest import Checkpoint, Command, as_row, passed, toy_examples, write_rows
from metakd.data.schema import Example
from metakd.inspection.unknown_tokens import foreign_domains, pieces_per_word, unknown_shares
from metakd.utils.console import notice
from metakd.utils.validation import open_tokenizer

TEXTS = {"books": ["a good page .", "the plot"], "amharic": ["መጽሐፍ በጣም ጥሩ ነው", "good ነው"]}


def examples(texts: dict[str, list[str]]) -> list[Example]:
    return [Example(text, text, None, "x", domain) for domain, rows in texts.items() for text in rows]


def test_shares_are_counted_by_domain(base: Path) -> None:
    """Of amharic's four and two words one is known; the file's padding to eight tokens does not count."""
    shares = unknown_shares(open_tokenizer(base / "tokenizer.json"), examples(TEXTS))
    assert shares == {"amharic": round(5 / 6, 4), "books": 0.0}
    (message,) = foreign_domains(shares)
    assert message.startswith("83 % of the tokens of amharic are unknown to the encoder")
    assert message.endswith("with --base")
    assert [len(foreign_domains({"x": share})) for share in (0.19, 0.2)] == [0, 1]


def test_tokenizers_of_every_kind() -> None:
    """Unigram hides the number of its unknown token; BPE without one drops letters; bytes are always known."""
    unigram = Tokenizer(Unigram([("a", -1.0), ("?", -2.0)], unk_id=1))
    assert unknown_shares(unigram, examples({"x": ["aክa", "aa"]})) == {"x": 0.2}
    dropping = Tokenizer(BPE({"a": 0}, []))
    assert unknown_shares(dropping, examples({"x": ["aa", "aa", "ክ"]})) == {"x": 0.2}
    of_bytes = Tokenizer(BPE({letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    of_bytes.pre_tokenizer = ByteLevel()
    assert unknown_shares(of_bytes, examples(TEXTS)) == {"amharic": 0.0, "books": 0.0}


def test_a_large_domain_is_sampled(base: Path) -> None:
    """Half of 2,000 texts are unknown; three deviations of 300 are 9 points."""
    texts = {"x": ["good", "ነው"] * 1000}
    share = unknown_shares(open_tokenizer(base / "tokenizer.json"), examples(texts))["x"]
    assert share == pytest.approx(0.5, abs=0.09)
    assert share != 0.5


def test_inspect_and_a_run_say_so(
    metakd: Command, base: Path, checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each run says it once, for the base and for a student with a tokenizer of its own."""
    foreign = [Example(f"am-{i}", "ነው " * (i + 1), None, ("positive", "negative")[i % 2], "amharic") for i in range(20)]
    file = write_rows(tmp_path / "rows.jsonl", [as_row(e) for e in [*toy_examples(80, 0, "t"), *foreign]])
    message = "100 % of the tokens of amharic are unknown to the encoder"
    assert message in passed(metakd("inspect", file, "--base", base))[0]
    plan = ("run", "--dry-run", "--data", file, "--output", tmp_path / "o", "--base", base, "--max-length", "16")
    for student, flags in (("layers=2", ["--base"]), (checkpoint(num_hidden_layers=2), ["--base", "--student"])):
        notice.cache_clear()
        caplog.clear()
        passed(metakd(*plan, "--student", student))
        assert [text.split()[-1] for text in caplog.messages if message in text] == flags


def test_words_in_many_pieces_show_another_language() -> None:
    """'ab' is one token, 'aba' three of letters; digits, and scripts without capitals, are no words."""
    bpe = Tokenizer(BPE({"a": 0, "b": 1, "ab": 2, "ክ": 3}, [("a", "b")]))
    bpe.pre_tokenizer = Whitespace()
    pieces = pieces_per_word(bpe, examples({"x": ["ab ab ab", "ab 12 ክክክክ"], "y": ["aaa ab"], "z": ["ክ"]}))
    assert pieces == {"x": 1.0, "y": 2.0}
    (message,) = foreign_domains({"x": 0.0, "y": 0.0}, pieces)
    assert message.startswith("y has 2.0 tokens a word: the encoder does not know its language, or splits its terms")
    (message,) = foreign_domains({"y": 0.5}, pieces)
    assert message.startswith("50 % of the tokens of y are unknown")

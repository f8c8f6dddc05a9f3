"""Windows of long texts and pairs: which tokens each has, worked by hand, and that none is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer

from conftest import FILLERS, GOOD, save_tokenizer
from metakd.data.windows import Reading, following_windows

LETTERS = [*"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A token for each letter; it neither truncates nor pads."""
    folder = tmp_path_factory.mktemp("letters")
    save_tokenizer(folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *FILLERS[2:], *GOOD])
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.no_truncation()
    made.no_padding()
    return made


def shown(tokenizer: Tokenizer, text: str | tuple[str, str], reading: Reading) -> list[str]:
    (windows,) = following_windows(tokenizer, [text], reading)
    return [" ".join(tokenizer.id_to_token(token) for token in window.ids) for window in windows]


def test_windows_follow_each_other(tokenizer: Tokenizer) -> None:
    """Of ten letters four are in the first window, four in the second, two in the third."""
    reading = Reading(max_length=6, most_windows=8)
    assert shown(tokenizer, "a b c d e f g h i j", reading) == ["[CLS] e f g h [SEP]", "[CLS] i j [SEP]"]
    assert shown(tokenizer, "a b c d", reading) == shown(tokenizer, "", reading) == []


def test_a_stride_repeats_tokens(tokenizer: Tokenizer) -> None:
    """First a to d, then from c on: the two before are read again, with two new ones."""
    reading = Reading(max_length=6, most_windows=8, stride=2)
    assert shown(tokenizer, "a b c d e f g", reading) == ["[CLS] c d e f [SEP]", "[CLS] e f g [SEP]"]


def test_a_last_window_that_is_too_short_is_left_out(tokenizer: Tokenizer) -> None:
    """A window has 16 letters, so that the last needs two."""
    reading, letters = Reading(max_length=18, most_windows=8), " ".join(LETTERS[:16])
    assert len(shown(tokenizer, f"{letters} a", reading)) == 0
    assert len(shown(tokenizer, f"{letters} a b", reading)) == 1


def test_one_window_more_than_is_read_is_cut_so_that_it_can_be_reported(tokenizer: Tokenizer) -> None:
    """Of a text of 100,000 words, not 25,000 windows."""
    assert len(shown(tokenizer, "a b c d " * 25_000, Reading(max_length=6, most_windows=3))) == 3


def test_of_a_pair_the_longer_text_is_cut_beside_the_other(tokenizer: Tokenizer) -> None:
    """Six letters are left by three special tokens; the shorter text has at most three of them."""
    reading = Reading(max_length=9, most_windows=8)
    assert shown(tokenizer, ("x y", "a b c d e f g"), reading) == ["[CLS] x y [SEP] e f g [SEP]"]
    assert shown(tokenizer, ("a b c d e f g", "x y"), reading) == ["[CLS] e f g [SEP] x y [SEP]"]
    assert shown(tokenizer, ("a b c d e f g", "t u v w x"), reading) == [
        "[CLS] d e f [SEP] t u v [SEP]",
        "[CLS] g [SEP] t u v [SEP]",
    ]
    assert shown(tokenizer, ("a b c", "x y z"), reading) == []


def test_a_stride_of_a_pair_is_at_most_half_of_the_room(tokenizer: Tokenizer) -> None:
    """Three letters at a time: one of them is read again, though the stride is four."""
    reading = Reading(max_length=9, most_windows=8, stride=4)
    assert shown(tokenizer, ("a b c d e f", "t u v w x"), reading) == [
        "[CLS] c d e [SEP] t u v [SEP]",
        "[CLS] e f [SEP] t u v [SEP]",
    ]


def test_the_second_text_keeps_its_type(tokenizer: Tokenizer) -> None:
    ((window,),) = following_windows(tokenizer, [("x y", "a b c d e f g")], Reading(max_length=9, most_windows=2))
    assert window.type_ids == [0, 0, 0, 0, 1, 1, 1, 1]
    assert window.special_tokens_mask == [1, 0, 0, 1, 0, 0, 0, 1]


@given(st.lists(st.integers(0, 60), min_size=2, max_size=2), st.integers(8, 20))
def test_no_token_of_a_pair_is_lost_or_read_twice(tokenizer: Tokenizer, counts: list[int], max_length: int) -> None:
    """The first window is the one that models have always read; the others go on where it ends."""
    first, second = (" ".join(LETTERS[i % 26] for i in range(count)) for count in counts)
    truncating = Tokenizer.from_str(tokenizer.to_str())
    truncating.enable_truncation(max_length)
    reading = Reading(max_length=max_length, most_windows=100)
    (following,) = following_windows(tokenizer, [(first, second)], reading)
    windows, longer = [truncating.encode(first, second), *following], int(counts[1] >= counts[0])
    read = [
        tokenizer.id_to_token(token)
        for window in windows
        for token, kind, special in zip(window.ids, window.type_ids, window.special_tokens_mask, strict=True)
        if kind == longer and not special
    ]
    whole = (first, second)[longer].split()
    assert read == whole[: len(read)]
    assert len(whole) - len(read) <= 2  # what is too short for a window
    assert all(len(window) <= max_length for window in windows)


def test_a_reading_that_is_none_is_refused() -> None:
    for values in ({"stride": -1}, {"stride": "2"}, {"most_windows": 0}, {"enough": 1.5}, {"window": 3}):
        with pytest.raises(ValidationError):
            Reading(**{"max_length": 8, **values})
    assert str(Reading(max_length=8)) == "8 tokens"
    assert str(Reading(max_length=8, most_windows=3)) == "up to 3 windows of 8 tokens"

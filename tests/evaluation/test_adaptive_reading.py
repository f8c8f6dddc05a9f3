"""The threshold of adaptive reading, worked by hand."""

import numpy as np
import pytest

from metakd.evaluation.long_texts import Steps, choose_enough, right_answers


def steps(confidence: list[float], right: list[int]) -> Steps:
    return Steps(np.array(confidence), np.array(right, bool))


def test_texts_are_read_until_the_model_is_sure() -> None:
    texts = [steps([0.6, 0.9, 0.7], [0, 1, 0]), steps([0.8, 0.9], [1, 0])]
    assert [right_answers(texts, enough) for enough in (0.5, 0.7, 0.85, 0.95)] == [1, 2, 1, 0]


def test_the_least_confidence_that_keeps_the_gain_is_chosen() -> None:
    """Ten unsure first windows are wrong and the whole texts right: two may be missed. Sure ones are right."""
    unsure = [steps([0.5 + place / 100, 0.99], [0, 1]) for place in range(10)]
    sure = [steps([0.8 + place / 100, 0.9], [1, 1]) for place in range(10)]
    chosen = choose_enough(unsure + sure)
    assert chosen is not None
    assert 0.57 < chosen <= 0.58
    assert right_answers(unsure + sure, chosen) == 18


def test_a_spike_below_which_the_gain_is_lost_does_not_count() -> None:
    """With 0.55, all three would be right by luck; with 0.7, two of them are wrong."""
    texts = [steps([0.6, 0.99], [1, 1]), steps([0.65, 0.99], [0, 1]), steps([0.66, 0.99], [0, 1])]
    chosen = choose_enough(texts)
    assert chosen is not None
    assert chosen > 0.66


def test_without_a_gain_the_first_window_is_enough() -> None:
    assert choose_enough([steps([0.6, 0.9], [1, 1]), steps([0.6, 0.9], [1, 0])]) == 0.0


def test_without_long_texts_all_that_come_later_are_read() -> None:
    assert choose_enough([]) is None


@pytest.mark.parametrize("last", [0.9, 1.0])
def test_a_model_that_is_wrong_when_it_is_surest_reads_everything(last: float) -> None:
    """No threshold up to its highest confidence keeps the gain."""
    assert choose_enough([steps([1.0, last], [0, 1])]) is None

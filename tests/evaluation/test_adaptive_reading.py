"""The threshold of adaptive reading, worked by hand."""

import numpy as np
import pytest

from metakd.evaluation.long_texts import Steps, change_left, choose_enough, distances


def steps(confidence: list[float], distance: list[float]) -> Steps:
    return Steps(np.array(confidence), np.array(distance))


def test_texts_are_read_until_the_model_is_sure() -> None:
    texts = [steps([0.6, 0.9, 0.7], [0.3, 0.1, 0]), steps([0.8, 0.9], [0.2, 0])]
    left = [change_left(texts, enough) for enough in (0.5, 0.7, 0.85, 0.95)]
    assert left == pytest.approx([0.5, 0.3, 0.1, 0])


def test_the_distance_is_half_of_all_differences() -> None:
    p = np.array([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [0.8, 0.1, 0.1]], np.float32)
    np.testing.assert_allclose(distances(p), [0.3, 0.1, 0], atol=1e-7)


def test_the_least_confidence_that_keeps_six_tenths_of_the_change_is_chosen() -> None:
    """Ten unsure first windows change by 0.5 each: four may be missed. Sure ones do not change."""
    unsure = [steps([0.5 + place / 100, 0.99], [0.5, 0]) for place in range(10)]
    sure = [steps([0.8 + place / 100, 0.9], [0, 0]) for place in range(10)]
    chosen = choose_enough(unsure + sure)
    assert chosen is not None
    assert 0.55 < chosen <= 0.56
    assert change_left(unsure + sure, chosen) == 2.0


def test_a_spike_below_which_the_change_is_lost_does_not_count() -> None:
    """The second of three windows is far off: 0.65 leaves nine tenths of the change, 0.5 a tenth, 0.3 all of it."""
    texts = [steps([0.5, 0.65, 0.99], [0.1, 0.9, 0]), steps([0.3, 0.99], [0.9, 0])]
    chosen = choose_enough(texts)
    assert chosen is not None
    assert chosen > 0.65
    assert change_left(texts, 0.5) == pytest.approx(0.1)  # little enough, were 0.65 not above it


def test_without_a_change_the_first_window_is_enough() -> None:
    assert choose_enough([steps([0.6, 0.9], [0, 0]), steps([0.7, 0.9], [0, 0])]) == 0.6


def test_without_long_texts_all_that_come_later_are_read() -> None:
    assert choose_enough([]) is None


@pytest.mark.parametrize("last", [0.9, 1.0])
def test_a_model_that_changes_when_it_is_surest_reads_everything(last: float) -> None:
    """No threshold up to its highest confidence keeps the change."""
    assert choose_enough([steps([1.0, last], [0.5, 0])]) is None

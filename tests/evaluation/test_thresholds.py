"""Thresholds of several labels: by hand, cross-fitted, and left at one half."""

import json
from pathlib import Path

import numpy as np
import pytest

from metakd.data.schema import Example
from metakd.evaluation import thresholds
from metakd.evaluation.metrics import Flags, Floats
from metakd.evaluation.thresholds import Thresholds, choose_thresholds, fit_thresholds
from metakd.inference.calibration import CALIBRATION_FILE, Calibration, load_calibration, write_calibration
from metakd.utils.errors import InputError

NAMES = ["blame", "praise"]


def texts(truth: Flags) -> list[Example]:
    names = [tuple(name for name, has in zip(NAMES, row, strict=True) if has) for row in truth]
    return [Example(str(i), f"text {i}", None, str(n), "books", labels=n) for i, n in enumerate(names)]


def unsure(count: int, seed: int = 0) -> tuple[Floats, Flags]:
    """A label that a text has gets some 0.3, one that it has not 0.1: at one half none is given."""
    draw = np.random.default_rng(seed)
    truth = draw.random((count, 2)) < 0.4
    return np.where(truth, 0.3, 0.1) + 0.05 * draw.random((count, 2)), truth


def test_a_label_is_drawn_to_the_model() -> None:
    """By hand. The first label is found whole from 0.4 on, and up to 0.59: 0.5 is nearest to one half; the second from
    0.2 to 0.29: 0.29. Of all labels at once, F1 is 1 from 0.2 to 0.29 if the first's texts without it are under 0.2."""
    p = np.array([[0.6, 0.1], [0.1, 0.3], [0.15, 0.3], [0.6, 0.19]])
    truth = np.array([[1, 0], [0, 1], [0, 1], [1, 0]]) > 0
    of_all, each, counts = 0.29, np.array([0.5, 0.29]), 2
    np.testing.assert_allclose(fit_thresholds(p, truth), (counts * each + 20 * of_all) / (counts + 20))


def test_a_label_that_no_text_has_gets_the_models() -> None:
    p, truth = np.array([[0.3, 0.2], [0.3, 0.1]]), np.array([[1, 0], [1, 0]]) > 0
    assert fit_thresholds(p, truth)[1] == pytest.approx(0.29)


def test_an_unsure_model_gives_its_labels() -> None:
    p, truth = unsure(100)
    found = choose_thresholds(texts(truth), NAMES, p, 0)
    assert all(0.15 <= value <= 0.3 for value in found.by_label.values())
    assert ((p > found.of(texts(truth))) == truth).all()
    assert found.of([Example("new", "x", None, "[]", "books", labels=())]).tolist() == [[*found.by_label.values()]]


def test_a_text_is_judged_without_it() -> None:
    """With another label, a text changes the thresholds of others, and not those for itself."""
    p, truth = unsure(60)
    other = truth.copy()
    other[7] = ~truth[7]
    before, after = (choose_thresholds(texts(each), NAMES, p, 3) for each in (truth, other))
    np.testing.assert_array_equal(before.of(texts(truth))[7], after.of(texts(other))[7])
    part = thresholds.folds(60, 3)
    expected = fit_thresholds(p[part != part[7]], truth[part != part[7]])
    np.testing.assert_array_equal(before.of(texts(truth))[7], expected)
    assert before.by_label != after.by_label or (before.of(texts(truth)) != after.of(texts(other))).any()


@pytest.mark.parametrize("width", [0, 1])
def test_a_model_of_no_label_or_of_one(width: int) -> None:
    """Ten of 100 texts have the label; they get 0.3, and so do 15 others: F1 = 20 / 35, though accuracy, 0.85, is lower
    than at one half."""
    truth = np.zeros((100, 2), bool)
    truth[::10, 0] = True
    p = np.full((100, 2), 0.1)
    p[::4, 0] = p[::10, 0] = 0.3
    assert ((p[:, 0] > 0.2) == truth[:, 0]).mean() < 0.9 == (~truth[:, 0]).mean()
    rows = texts(truth)
    found = choose_thresholds(rows, NAMES[:width], p[:, :width], 0)
    assert [*found.by_label] == NAMES[:width]
    assert found.of(rows).shape == (100, width)
    assert (found.of(rows) < 0.31).all()


@pytest.mark.parametrize("count", [0, 10, 200])
def test_one_half_stays_where_nothing_is_better(count: int) -> None:
    """With few texts, none, or a model that is right already."""
    p, truth = unsure(count)
    p = p if count < 50 else np.where(truth, 0.9, 0.1)
    found = choose_thresholds(texts(truth), NAMES, p, 0)
    assert found == Thresholds({"blame": 0.5, "praise": 0.5}, {})
    assert found.of(texts(truth)).shape == (count, 2)


def test_labels_that_no_probability_tells_are_given_to_all() -> None:
    """Which has the best F1 that is possible, also of new texts."""
    draw = np.random.default_rng(1)
    p, truth = draw.random((400, 2)), draw.random((400, 2)) < 0.3
    found = choose_thresholds(texts(truth), NAMES, p, 0)
    fresh, labels = draw.random((4000, 2)), draw.random((4000, 2)) < 0.3
    given = fresh > [*found.by_label.values()]
    f1 = 2 * (given & labels).sum() / (given.sum() + labels.sum())
    assert f1 == pytest.approx(2 * 0.3 / 1.3, abs=0.03)


def test_they_stand_beside_the_model(tmp_path: Path) -> None:
    write_calibration(tmp_path, Calibration(2.0, (0.25, 0.5)))
    assert load_calibration(tmp_path) == Calibration(2.0, (0.25, 0.5))
    write_calibration(tmp_path, Calibration(1.0, (0.25, 0.5)))
    assert json.loads((tmp_path / CALIBRATION_FILE).read_text()) == {"thresholds": [0.25, 0.5]}
    with pytest.raises(InputError, match="is damaged"):
        load_calibration(tmp_path, labels=3)
    for wrong in ("[0.2, 1]", '["0.2", 0.2]', "0.2", "[true, 0.2]", "[NaN, 0.2]", "{}", '""'):
        (tmp_path / CALIBRATION_FILE).write_text(f'{{"thresholds": {wrong}}}')
        with pytest.raises(InputError, match="is damaged"):
            load_calibration(tmp_path)

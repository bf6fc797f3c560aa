"""The metrics are those of scikit-learn, to the last digits, in corner cases too."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as known

from kfp_bento.runtime.checks.scores import (
    class_rows,
    class_scores,
    confusion,
    curves,
    histogram,
    log_loss,
    number_scores,
)

CLOSE = {"rel": 1e-12, "abs": 1e-12}


def labelled(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, answers and probabilities, with ties among them."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, classes, rows)
    truth[:classes] = range(classes)
    scores = draw.random((rows, classes)).round(2) + 0.01
    scores[np.arange(rows), truth] += draw.random(rows).round(1)
    scores /= scores.sum(axis=1, keepdims=True)
    return truth, scores.argmax(axis=1), scores


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_classes_are_counted_as_scikit_learn_does(classes: int, seed: int) -> None:
    truth, predicted, scores = labelled(200, classes, seed)
    positive = 1 if classes == 2 else None
    found = class_scores(confusion(truth, predicted, classes), positive)
    wanted = {
        "accuracy": known.accuracy_score(truth, predicted),
        "balanced_accuracy": known.balanced_accuracy_score(truth, predicted),
    }
    for name in ("precision", "recall", "f1"):
        score = getattr(known, f"{name}_score")
        wanted[f"{name}_macro"] = score(truth, predicted, average="macro", zero_division=0)
        if positive:
            wanted[name] = score(truth, predicted, zero_division=0)
    assert found == pytest.approx(wanted, **CLOSE)
    assert log_loss(truth, scores) == pytest.approx(known.log_loss(truth, scores), **CLOSE)


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (2, 1), (3, 2), (5, 3)])
def test_areas_under_curves_are_those_of_one_class_against_the_rest(
    classes: int, seed: int
) -> None:
    truth, _, scores = labelled(300, classes, seed)
    found = curves(truth, scores, tuple("abcdefg"[:classes]))
    area = sum(one.area for one in found) / len(found)
    given = scores[:, 1] if classes == 2 else scores
    wanted = known.roc_auc_score(truth, given, multi_class="ovr", average="macro")
    assert area == pytest.approx(wanted, **CLOSE)
    assert sum(len(one.points) for one in found) <= 200
    for curve in found:
        assert curve.points[0][:2] == (0, 0)
        assert curve.points[-1][:2] == (1, 1)
        assert all(np.isfinite(point).all() for point in curve.points)


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [
        ([0, 0, 0], [0, 1, 2]),  # one label, others answered
        ([0, 1, 2], [0, 0, 0]),  # never answered
        ([1, 1, 1], [1, 1, 1]),
    ],
)
def test_classes_without_rows_are_left_out_as_scikit_learn_does(
    truth: list[int], predicted: list[int]
) -> None:
    found = class_scores(confusion(np.array(truth), np.array(predicted), 4), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = {
            "balanced_accuracy": known.balanced_accuracy_score(truth, predicted),
            "f1_macro": known.f1_score(truth, predicted, average="macro", zero_division=0),
        }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, **CLOSE)


def test_probabilities_of_0_and_1_have_a_finite_loss() -> None:
    truth, sure = np.array([0, 1, 1]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert log_loss(truth, sure) == pytest.approx(known.log_loss(truth, sure), **CLOSE)


def test_there_is_no_area_where_a_class_has_no_rows() -> None:
    assert curves(np.array([0, 0]), np.array([[0.4, 0.6], [0.7, 0.3]]), ("a", "b")) == []


@pytest.mark.parametrize("seed", range(5))
def test_numbers_are_as_far_away_as_scikit_learn_says(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth = draw.normal(3, 10, 100)
    truth[:3] = 0
    predicted = truth + draw.normal(0, 2, 100)
    wanted = {
        "mae": known.mean_absolute_error(truth, predicted),
        "rmse": known.root_mean_squared_error(truth, predicted),
        "mape": known.mean_absolute_percentage_error(truth, predicted),
        "max_error": known.max_error(truth, predicted),
        "r2": known.r2_score(truth, predicted),
    }
    assert number_scores(truth, predicted) == pytest.approx(wanted, **CLOSE)


@pytest.mark.parametrize("predicted", [[2.0, 2.0], [2.0, 3.0]])
def test_labels_that_are_all_one_number_have_the_r2_of_scikit_learn(predicted: list[float]) -> None:
    truth, answers = np.array([2.0, 2.0]), np.array(predicted)
    assert number_scores(truth, answers)["r2"] == known.r2_score(truth, answers)


def test_each_class_is_told_by_itself() -> None:
    rows = class_rows(np.array([[3, 1], [0, 0]]), ("no", "yes"))
    assert rows[0] == {
        "class": "no",
        **{"precision": 1.0, "recall": 0.75, "f1": pytest.approx(6 / 7), "rows": 4},
    }
    assert rows[1] == {"class": "yes", "precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 0}


def test_residuals_that_are_all_one_have_a_histogram() -> None:
    assert histogram(np.zeros(5))["counts"] == [5]
    assert sum(histogram(np.arange(1000.0))["counts"]) == 1000

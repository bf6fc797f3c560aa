"""Labels and answers meet whatever types both have; what does not fit is refused by its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kfp_bento.runtime.batch import Answered, Answers, Rows
from kfp_bento.runtime.checks.labels import Labelled, read_labelled
from kfp_bento.runtime.checks.tasks import (
    CLASSIFICATION,
    REGRESSION,
    Classes,
    as_classes,
    as_numbers,
    looks_like,
)
from kfp_bento.runtime.errors import CheckError, InvalidInput


def answers(
    labels: list[Any], columns: Any, *, form: str = "parquet", errors: Any = None, kind: str = ""
) -> Answers:
    """A table with the column `y`, and what a model answers; CSV has texts."""
    cells = pa.array(labels, pa.string()) if form == "csv" else pa.array(labels)
    if form == "jsonl":
        cells = pa.array(labels, pa.string())
    rows = Rows(0, len(labels), {"x": pa.nulls(len(labels)), "y": cells})
    columns = columns if isinstance(columns, dict) else {"prediction": columns}
    answered = Answered(len(labels), columns, errors or {})
    named = (("x", "long"), ("y", kind or str(cells.type)))
    return Answers(form, named, len(labels), "sha256:0", iter([(rows, answered)]))


def read(*given: Any, prediction: str = "", **more: Any) -> Labelled:
    return read_labelled(answers(*given, **more), "y", prediction)


def classes(*given: Any, order: Any = (), positive: str = "", **more: Any) -> Classes:
    return as_classes(read(*given, **more), "y", order, positive)


def right(found: Classes) -> list[bool]:
    return (found.truth == found.predicted).tolist()


@pytest.mark.parametrize(
    ("labels", "answered", "more"),
    [
        ([0, 1, 2], [0, 1, 1], {}),
        ([0, 1, 2], [0.0, 1.0, 1.0], {}),
        ([0.0, 1.0, 2.0], [0, 1, 1], {}),
        ([0, 1, 2], ["0", "1", "1"], {}),
        (["0", "1", "2"], [0, 1, 1], {}),
        (["0", "1", "2"], [0, 1, 1], {"form": "csv", "kind": "long"}),
        (["a", "b", "c"], ["a", "b", "b"], {}),
        (["a", "b", "c"], ["a", "b", "b"], {"form": "csv", "kind": "string"}),
        (['"a"', '"b"', '"c"'], ["a", "b", "b"], {"form": "jsonl", "kind": "string"}),
        (["00", "01", "02"], ["00", "01", "01"], {"form": "csv", "kind": "long"}),
        ([False, False, True], [False, False, False], {}),
        ([False, False, True], [0, 0, 0], {}),
        ([0, 0, 1], [False, False, False], {}),
        (["True", "False", "True"], [True, False, False], {"form": "csv", "kind": "boolean"}),
        (["True", "False", "True"], ["True", "False", "False"], {"form": "csv", "kind": "boolean"}),
        ([True, False, True], ["True", "False", "False"], {}),
    ],
)
def test_the_same_class_is_the_same_in_every_type(
    labels: list[Any], answered: list[Any], more: dict[str, Any]
) -> None:
    assert right(classes(labels, answered, **more)) == [True, True, False]


@pytest.mark.parametrize(
    ("columns", "scores"),
    [
        ([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], [0.1, 0.8, 0.3]),
        ([0.1, 0.8, 0.3], [0.1, 0.8, 0.3]),
        ([[0.1], [0.8], [0.3]], [0.1, 0.8, 0.3]),
        ({"0": [0.9, 0.2, 0.7], "1": [0.1, 0.8, 0.3]}, [0.1, 0.8, 0.3]),
        (
            {"prediction": [0, 1, 0], "proba_0": [0.9, 0.2, 0.7], "proba_1": [0.1, 0.8, 0.3]},
            [0.1, 0.8, 0.3],
        ),
    ],
)
def test_probabilities_are_found_in_every_form(columns: Any, scores: list[float]) -> None:
    found = classes([0, 1, 1], columns)
    assert right(found) == [True, True, False]
    assert found.scores is not None
    assert found.scores[:, 1].tolist() == scores
    assert found.positive == 1


def test_lists_of_probabilities_follow_the_order_that_is_given() -> None:
    found = classes(["b", "c", "b"], [[0, 1, 0], [0, 0, 1], [1, 0, 0]], order=("a", "b", "c"))
    assert right(found) == [True, True, False]
    with pytest.raises(InvalidInput, match=r"not one probability for each of the classes b, c"):
        classes(["b", "c", "b"], [[0, 1, 0], [0, 0, 1], [1, 0, 0]])


def test_classes_that_nobody_labelled_are_wrong_answers() -> None:
    found = classes(["a", "b", "a"], ["a", "z", "a"])
    assert found.names == ("a", "b", "z")
    assert right(found) == [True, False, True]
    with pytest.raises(InvalidInput, match="no class in common: a, b and y, z"):
        classes(["a", "b"], ["y", "z"])


def test_the_positive_class_can_be_chosen() -> None:
    assert classes(["no", "yes"], ["no", "yes"]).positive == 1
    assert classes(["no", "yes"], ["no", "yes"], positive="no").positive == 0
    with pytest.raises(InvalidInput, match="no class 'maybe'"):
        classes(["no", "yes"], ["no", "yes"], positive="maybe")


def test_numbers_of_classes_are_in_the_order_of_numbers() -> None:
    assert classes([10, 9, 2], [10, 9, 2]).names == ("2", "9", "10")


@pytest.mark.parametrize(
    ("labels", "answered", "task"),
    [
        (["a"], ["a"], CLASSIFICATION),
        ([True], [1], CLASSIFICATION),
        ([0, 1, 2], [0, 1, 2], CLASSIFICATION),
        ([0, 1, 1], [0.2, 0.7, 0.9], CLASSIFICATION),
        ([0, 1, 2], [[0.1, 0.2, 0.7]] * 3, CLASSIFICATION),
        ([3, 4, 9], [3.2, 4.5, 8.7], REGRESSION),
        ([1.5, 2.0], [1.0, 2.0], REGRESSION),
        (list(range(51)), list(range(51)), REGRESSION),
    ],
)
def test_the_task_is_what_labels_and_answers_look_like(
    labels: list[Any], answered: list[Any], task: str
) -> None:
    assert looks_like(pa.array(labels), pa.array(answered)) == task


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_label_is_refused_with_its_row(missing: Any) -> None:
    with pytest.raises(InvalidInput, match="label 'y' of row 2 is missing"):
        read([1.5, missing, 2.5], [1.0, 1.0, 1.0])


def test_a_label_that_is_no_number_among_numbers_is_refused() -> None:
    with pytest.raises(InvalidInput, match="label 'y' of row 3 is missing or no such value"):
        read(["1", "2", "many"], [1, 2, 3], form="csv", kind="long")


def test_rows_without_an_answer_are_counted_and_told() -> None:
    found = read([1, 2, 3, 4], [1.0, None, float("nan"), 4.0], errors={3: "a: no double"})
    assert (found.unanswered, len(found.labels)) == (3, 1)
    assert found.reason == "row 2: its answer is missing or not finite"
    with pytest.raises(CheckError, match="answers no row of the data; the first, row 1: gone"):
        read([1, 2], [None, None], errors={0: "gone", 1: "gone"})


def test_columns_are_named_where_they_are_not_there_or_no_such_thing() -> None:
    with pytest.raises(InvalidInput, match="no column 'z'"):
        read_labelled(answers([1], [1]), "z")
    with pytest.raises(InvalidInput, match="answers have no column 'q'"):
        read([1], {"a": [1], "b": [2]}, prediction="q")
    with pytest.raises(InvalidInput, match=r"column 'prediction' holds string, and a regression"):
        as_numbers(read([1.5, 2.5], ["a", "b"]), "y")
    with pytest.raises(InvalidInput, match="label 'y' holds numbers that are not whole"):
        classes([1.5, 2.5], [1, 2])
    with pytest.raises(InvalidInput, match="names no class"):
        classes(["a", "b"], [{"k": 1}, {"k": 2}])


def test_numbers_of_models_of_tensors_come_in_lists_of_one() -> None:
    truth, predicted = as_numbers(read([1.5, 2.5], [[1.0], [2.0]]), "y")
    assert np.array_equal(truth, [1.5, 2.5]) and np.array_equal(predicted, [1.0, 2.0])

"""What labels and answers mean: classes that were found, or numbers that are near or far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch import numbers
from kfp_bento.runtime.checks.labels import Labelled, is_list, is_number
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

CLASSIFICATION, REGRESSION, AUTO = "classification", "regression", "auto"
TASKS = (AUTO, CLASSIFICATION, REGRESSION)
_MOST_CLASSES = 1000
_FEW_CLASSES = 50
_COLUMN_OF_A_CLASS = ("{}", "prob_{}", "proba_{}", "probability_{}")


@dataclass(frozen=True)
class Classes:
    """Answers of a classifier.

    Attributes:
        names: Names of the classes: those of the labels, then others that were answered.
        truth: Class numbers of the labels, shape (rows,).
        predicted: Class numbers of the answers, shape (rows,).
        scores: Probabilities, shape (rows, classes); None where there are none.
        positive: The positive one of two classes, None where there are more.
    """

    names: tuple[str, ...]
    truth: np.ndarray
    predicted: np.ndarray
    scores: np.ndarray | None
    positive: int | None


def looks_like(labels: pa.Array, answers: pa.Array | None = None) -> str:
    """Say which task labels speak of: texts, booleans and few whole numbers are classes.

    Args:
        labels: The labels.
        answers: What a model answers to them: with numbers that are not whole, other than
            probabilities of 1 instead of 0, few whole numbers are none.

    Returns:
        `CLASSIFICATION` or `REGRESSION`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not is_number(labels.type):
        return CLASSIFICATION
    if not _is_whole(labels) or pc.count_distinct(labels).as_py() > _FEW_CLASSES:
        return REGRESSION
    if answers is None or not pa.types.is_floating(answers.type) or _is_whole(answers):
        return CLASSIFICATION
    extent = pc.min_max(answers).as_py()
    binary = set(labels.unique().to_pylist()) <= {0, 1}
    probable = extent["min"] >= 0 and extent["max"] <= 1
    return CLASSIFICATION if binary and probable else REGRESSION


def as_numbers(labelled: Labelled, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Give labels and answers of a regression.

    Raises:
        InvalidInput: One of both holds no numbers.
    """
    return (
        _real(labelled.labels, f"The label {label!r}"),
        _real(labelled.column, f"The answers' column {labelled.chosen!r}"),
    )


def _real(column: pa.Array, what: str) -> np.ndarray:
    if is_list(column.type) and len(column.flatten()) == len(column):
        column = column.flatten()  # one number in a list, as models of tensors answer
    values = numbers(column) if is_number(column.type) else None
    if values is None or not (values - values == 0).all():
        raise InvalidInput(
            f"{what} holds {column.type if values is None else 'numbers that are not finite'}, "
            "and a regression takes finite numbers.",
            hint="Set task to classification, or name the column of numbers with prediction.",
        )
    return values


def as_classes(
    labelled: Labelled, label: str, order: Sequence[str] = (), positive: str = ""
) -> Classes:
    """Give labels and answers of a classifier as numbers of the same classes.

    1, 1.0 and "1" are one class; so are true and 1 where the other side has numbers.

    Args:
        labelled: The rows.
        label: Name of the labels, for messages.
        order: The classes in the order of lists of probabilities; () for the labels', sorted.
        positive: The one of two classes that counts as positive; "" for the last.

    Raises:
        InvalidInput: There are too many classes, labels and answers have none in common, or
            probabilities are not one for each class.
    """
    import pyarrow as pa

    column = labelled.column
    mixed = is_number(column.type) or is_number(labelled.labels.type) or is_list(column.type)
    text = pa.types.is_string(column.type)
    # Where classes are answered as text, "01" is not 1.
    truth = _texts(labelled.raw if text else labelled.labels, f"The label {label!r}", mixed, text)
    names = [*order, *(one for one in _sorted(truth) if one not in order)]
    if len(names) > _MOST_CLASSES:
        raise InvalidInput(
            f"The label {label!r} has {len(names):,} different values.",
            hint="Set task to regression, or name the column of the classes.",
        )
    scores, only_scores = _probabilities(labelled, names)
    if scores is not None and only_scores:
        predicted = scores.argmax(axis=1) if scores.shape[1] != 2 else 1 * (scores[:, 1] >= 0.5)
    else:
        what = f"The answers' column {labelled.chosen!r}"
        answered = _texts(column, what, mixed, pa.types.is_boolean(labelled.labels.type))
        names = _with_answered(names, answered, label)
        predicted = _codes(answered, names)
        scores = _widened(scores, len(names))
    codes = _codes(truth, names)
    return Classes(tuple(names), codes, predicted, scores, _positive(names, codes, positive))


def _texts(column: pa.Array, what: str, digits: bool, lower: bool) -> pa.Array:
    """Give classes as text: whole numbers as digits, and booleans too where the others are.

    Args:
        column: The classes.
        what: What they are, for messages.
        digits: Whether true is 1.
        lower: Whether "True" is "true", since the other side may have booleans.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_boolean(column.type):
        return pc.cast(pc.cast(column, pa.int8()) if digits else column, pa.string())
    if is_number(column.type):
        if not _is_whole(column):
            raise InvalidInput(
                f"{what} holds numbers that are not whole, and a classification takes classes.",
                hint="Set task to regression, or name the column of the classes with prediction.",
            )
        return pc.cast(pc.cast(column, pa.int64(), safe=False), pa.string())
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        raise InvalidInput(
            f"{what} holds {column.type}, which names no class.",
            hint="Name the column of the classes, or of their probabilities, with prediction.",
        )
    column = pc.cast(column, pa.string())
    words = pc.utf8_lower(column)
    boolean = lower and set(words.unique().to_pylist()) <= {"true", "false"}
    return words if boolean else column


def _is_whole(column: pa.Array) -> bool:
    values = numbers(column)
    return bool((values == values.round()).all())


def _sorted(texts: pa.Array) -> list[str]:
    """Give the different texts, in the order of their numbers where all are such."""
    found = texts.unique().to_pylist()
    try:
        return sorted(found, key=float)
    except ValueError:
        return sorted(found)


def _probabilities(labelled: Labelled, names: Sequence[str]) -> tuple[np.ndarray | None, bool]:
    """Give probabilities by class, and whether the column that counts is part of them."""
    import numpy as np
    import pyarrow as pa

    column = labelled.column
    if is_list(column.type):
        return _listed(column, labelled.chosen, names), True
    found = [_column_of(name, labelled.answers) for name in names]
    if len(names) > 1 and all(found):
        scores = np.column_stack([numbers(labelled.answers[one]) for one in found])
        return (scores, labelled.chosen in found) if np.isfinite(scores).all() else (None, False)
    if pa.types.is_floating(column.type) and not _is_whole(column) and len(names) == 2:
        likely = numbers(column)
        if likely.min() >= 0 and likely.max() <= 1:
            return np.column_stack([1 - likely, likely]), True
    return None, False


def _column_of(name: str, columns: Mapping[str, Any]) -> str:
    """Give the column of numbers with the probabilities of a class, or ""."""
    forms = (form.format(name) for form in _COLUMN_OF_A_CLASS)
    return next((one for one in forms if one in columns and is_number(columns[one].type)), "")


def _listed(column: pa.Array, chosen: str, names: Sequence[str]) -> np.ndarray:
    import numpy as np

    values = column.flatten()
    wide, left = divmod(len(values), len(column))
    flat = numbers(values) if is_number(values.type) else np.full(len(values), np.nan)
    if wide == 1 and len(names) == 2:  # a binary model of tensors
        flat, wide = np.column_stack([1 - flat, flat]).ravel(), 2
    if left or wide != len(names) or not np.isfinite(flat).all():
        raise InvalidInput(
            f"The answers' column {chosen!r} holds lists that are not one probability for each of "
            f"the classes {', '.join(names[:10])}.",
            hint="Name all classes in the order of the lists with classes.",
        )
    return flat.reshape(-1, wide)


def _with_answered(names: list[str], answered: pa.Array, label: str) -> list[str]:
    """Give the classes with those that are only answered behind them."""
    found = _sorted(answered)
    if not set(found) & set(names):
        raise InvalidInput(
            f"The label {label!r} and the answers have no class in common: {', '.join(names[:5])} "
            f"and {', '.join(found[:5])}.",
            hint="Give labels as the model answers them, or name another column with prediction.",
        )
    return [*names, *(one for one in found if one not in names)]


def _codes(texts: pa.Array, names: Sequence[str]) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(texts, pa.array(names, pa.string()))
    codes: np.ndarray = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _widened(scores: np.ndarray | None, count: int) -> np.ndarray | None:
    """Give probabilities with zeros for the classes that have none."""
    import numpy as np

    if scores is None:
        return None
    return np.pad(scores, ((0, 0), (0, count - scores.shape[1])))


def _positive(names: Sequence[str], truth: np.ndarray, positive: str) -> int | None:
    if positive and positive not in names:
        raise InvalidInput(
            f"There is no class {positive!r} (positive).", hint=f"There are {', '.join(names)}."
        )
    if positive:
        return list(names).index(positive)
    if len(names) == 2:
        return 1
    return int(truth.max()) if len(set(truth.tolist())) == 2 else None

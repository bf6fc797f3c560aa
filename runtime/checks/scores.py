"""What a model's answers to labelled rows are worth, in numbers: numpy and nothing else.

Definitions and corner cases are those of `sklearn.metrics` 1.5 and later, which the tests compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

HIGHER, LOWER = "higher", "lower"
OF_CLASSES = {
    **dict.fromkeys(("accuracy", "balanced_accuracy"), HIGHER),
    **dict.fromkeys(("precision_macro", "recall_macro", "f1_macro"), HIGHER),
    **dict.fromkeys(("precision", "recall", "f1", "roc_auc"), HIGHER),
    "log_loss": LOWER,
}
OF_NUMBERS = {"mae": LOWER, "rmse": LOWER, "r2": HIGHER, "mape": LOWER, "max_error": LOWER}
BETTER = {**OF_CLASSES, **OF_NUMBERS}
"""Every metric, and which values of it are better."""

_MOST_POINTS = 200
_BINS = 40


@dataclass(frozen=True)
class Curve:
    """A receiver operating characteristic, at most 200 points of it.

    Attributes:
        name: The class that counts as positive.
        area: Area under the whole curve.
        points: False positive rate, true positive rate, and the lowest score that counts as
            positive there.
    """

    name: str
    area: float
    points: tuple[tuple[float, float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {"class": self.name, "area": self.area, "points": [list(one) for one in self.points]}


def confusion(truth: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    """Give how often each class (row) was taken for each (column).

    Args:
        truth: Class numbers, shape (rows,).
        predicted: The same.
        count: How many classes there are.

    Returns:
        Integers, shape (count, count).
    """
    import numpy as np

    cells = np.bincount(truth * count + predicted, minlength=count * count)
    return cells.reshape(count, count)


def class_scores(matrix: np.ndarray, positive: int | None) -> dict[str, float]:
    """Give the metrics that a confusion matrix holds.

    Args:
        matrix: What `confusion` gave.
        positive: The class whose own precision, recall and f1 are wanted, or None.
    """
    import numpy as np

    right, found, labelled = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    precision, recall = _ratio(right, found), _ratio(right, labelled)
    f1 = _ratio(2 * right, found + labelled)
    known = (found + labelled) > 0
    scores = {
        "accuracy": float(right.sum() / matrix.sum()),
        "balanced_accuracy": float(np.mean(recall[labelled > 0])),
        "precision_macro": float(np.mean(precision[known])),
        "recall_macro": float(np.mean(recall[known])),
        "f1_macro": float(np.mean(f1[known])),
    }
    if positive is not None:
        values = (precision[positive], recall[positive], f1[positive])
        scores |= dict(zip(("precision", "recall", "f1"), map(float, values), strict=True))
    return scores


def class_rows(matrix: np.ndarray, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Give precision, recall, f1 and number of labelled rows of each class."""
    right, found, labelled = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    columns = (_ratio(right, found), _ratio(right, labelled), _ratio(2 * right, found + labelled))
    return [
        {
            "class": name,
            **{key: float(one[at]) for key, one in zip(_OF_A_CLASS, columns, strict=True)},
            "rows": int(labelled[at]),
        }
        for at, name in enumerate(names)
    ]


_OF_A_CLASS = ("precision", "recall", "f1")


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Divide; 0 where there is nothing to divide by."""
    import numpy as np

    shares: np.ndarray = np.divide(over, under, out=np.zeros(len(over)), where=under > 0)
    return shares


def log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Give the mean negative logarithm of the probability of the right class.

    Args:
        truth: Class numbers, shape (rows,).
        probabilities: One for each class, shape (rows, classes).
    """
    import numpy as np

    least = np.finfo(np.float64).eps
    chosen = np.clip(probabilities[np.arange(len(truth)), truth], least, 1 - least)
    return float(-np.log(chosen).mean())


def curves(truth: np.ndarray, scores: np.ndarray, names: tuple[str, ...]) -> list[Curve]:
    """Give the curve of each class against the rest; of two classes that of the second alone.

    Args:
        truth: Class numbers, shape (rows,).
        scores: Higher where a class is more likely, shape (rows, classes).
        names: Names of the classes.

    Returns:
        The curves; none where a class has no labelled row, or all, as there is no area then.
    """
    wanted = range(1, 2) if len(names) == 2 else range(len(names))
    labelled = [int((truth == one).sum()) for one in range(len(names))]
    if not all(0 < one < len(truth) for one in labelled):
        return []
    most = max(2, _MOST_POINTS // len(wanted))
    return [_curve(truth == one, scores[:, one], names[one], most) for one in wanted]


def _curve(positive: np.ndarray, scores: np.ndarray, name: str, most: int) -> Curve:
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], positive[order]
    ends = np.r_[np.nonzero(np.diff(sorted_scores))[0], len(scores) - 1]
    true = np.r_[0, np.cumsum(hits)[ends]]
    false = np.r_[0, 1 + ends] - true
    tpr, fpr = true / true[-1], false / false[-1]
    area = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
    # Above every score nothing is positive; Kubeflow's metadata has no infinity.
    first = np.nextafter(max(1.0, sorted_scores[0]), np.inf)
    limits = np.r_[first, sorted_scores[ends]]
    kept = np.unique(np.linspace(0, len(tpr) - 1, min(most, len(tpr))).round().astype(int))
    points = zip(fpr[kept].tolist(), tpr[kept].tolist(), limits[kept].tolist(), strict=True)
    return Curve(name, area, tuple(points))


def number_scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Give the metrics of a regression.

    Args:
        truth: Finite numbers, shape (rows,).
        predicted: The same.

    Returns:
        The metrics; r2 only for two rows and more.
    """
    import numpy as np

    errors = np.abs(truth - predicted)
    least = np.finfo(np.float64).eps
    scores = {
        "mae": float(errors.mean()),
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "mape": float(np.mean(errors / np.maximum(np.abs(truth), least))),
        "max_error": float(errors.max()),
    }
    if len(truth) < 2:
        return scores
    left, all_of_it = float(np.sum(errors**2)), float(np.sum((truth - truth.mean()) ** 2))
    constant = 1.0 if left == 0 else 0.0
    return {**scores, "r2": 1 - left / all_of_it if all_of_it else constant}


def histogram(values: np.ndarray) -> dict[str, list[float]]:
    """Give edges and counts of 40 bins of one width; of values that are all one, of one bin."""
    import numpy as np

    bins = _BINS if values.min() < values.max() else 1
    counts, edges = np.histogram(values, bins=bins)
    return {"edges": edges.tolist(), "counts": counts.tolist()}

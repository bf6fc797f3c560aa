"""What a ready-made training is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp_bento.runtime.checks import TASKS
from kfp_bento.runtime.errors import InvalidInput

SKLEARN, XGBOOST, LIGHTGBM = "scikit-learn", "xgboost", "lightgbm"


@dataclass(frozen=True)
class TrainOptions:
    """How a model is trained.

    Attributes:
        label: The column to predict.
        model_name: Registered model that receives a new version.
        task: auto, classification or regression; auto takes texts, booleans and up to 50 different
            whole numbers for classes.
        estimator: Class of scikit-learn; "" takes gradient boosting of the task. Of the other
            libraries there is one.
        params: Parameters of the estimator, by the names of scikit-learn's interface.
        features: The columns that the model gets; () for all but the label.
        probabilities: Whether the model answers a list of probabilities, in the order of the sorted
            classes, instead of the class.
        test_share: Share of the rows that the model is measured on and does not see.
        seed: Of the split and of the estimator.
        input_format: csv, parquet or jsonl; "" takes what the names of the files say.
    """

    label: str
    model_name: str
    task: str = "auto"
    estimator: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    probabilities: bool = False
    test_share: float = 0.2
    seed: int = 0
    input_format: str = ""

    def __post_init__(self) -> None:
        """Refuse what makes no sense; whole numbers among the parameters become such.

        Raises:
            InvalidInput: The option is named.
        """
        for name in ("label", "model_name"):
            if not getattr(self, name):
                raise InvalidInput(f"{name} is empty.")
        if self.task not in TASKS:
            raise InvalidInput(f"task is {self.task!r}.", hint=f"Known are {', '.join(TASKS)}.")
        if not 0 < self.test_share < 1:
            raise InvalidInput(
                f"test_share is {self.test_share!r}.", hint="Give a share between 0 and 1."
            )
        if self.label in self.features:
            raise InvalidInput(f"The label {self.label!r} is among the features.")
        params = {name: _whole(value) for name, value in self.params.items()}
        object.__setattr__(self, "params", params)


def _whole(value: Any) -> Any:
    """Give 3 for 3.0: Kubeflow hands on whole numbers of a mapping as floats."""
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _whole(one) for name, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
